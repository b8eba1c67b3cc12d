"""One rendered set for all tests of this folder."""

import pytest

from reidlib.datasets.procedural import make


@pytest.fixture(scope="session")
def smoke_folder(tmp_path_factory):
    """The smoke set, made once; tests only read it."""
    return make(tmp_path_factory.mktemp("smoke"), size="smoke", progress=False)
