"""Fixtures of several folders."""

import os
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest


@pytest.fixture
def shown(monkeypatch):
    """What `interactive` displays, as in a notebook that somebody has open."""
    import reidlib.course.interactive  # noqa: F401 (the module; its name is also its function's)

    module = sys.modules["reidlib.course.interactive"]
    found = []
    monkeypatch.setattr(module, "get_ipython", lambda: SimpleNamespace(kernel=True))
    monkeypatch.setattr(module, "is_interactive", lambda: True)
    monkeypatch.setattr("IPython.display.display", found.append)
    yield found
    plt.close("all")


@pytest.fixture
def preset(request):
    """Which preset a benchmark measures: REIDLIB_BENCHMARK's, else the course's; "smoke" where nothing is measured."""
    on = request.config.getoption("benchmark_only") or request.config.getoption("benchmark_enable")
    return os.environ.get("REIDLIB_BENCHMARK", "course") if on else "smoke"
