"""What benchmarks of training share."""

import os

import pytest


@pytest.fixture
def preset(request):
    """Which preset is measured: that of REIDLIB_BENCHMARK, else the course's; "smoke" where nothing is measured."""
    on = request.config.getoption("benchmark_only") or request.config.getoption("benchmark_enable")
    return os.environ.get("REIDLIB_BENCHMARK", "course") if on else "smoke"
