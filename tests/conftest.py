"""Which ring a test is in: `fast` by default, `wide` for those that need minutes of tools and whole commands."""

from pathlib import Path

import pytest

WIDE = (
    "calibration/gpu",
    "calibration/suite/test_fit.py",
    "kvsim/test_cache_doc.py",
    "kvsim/test_compiled.py",
    "kvsim/test_names.py",
    "kvsim/test_new.py",
    "kvsim/test_own.py",
    "reports/test_browser",
    "sim/test_routers.py",
    "sim_cache/test_run_bound.py",
    "sim_cache/test_still.py",
    "test_packaging.py",
    "test_tutorial.py",
    "whatif",
)
"""Starts of paths below this one: kernels through the interpreter and compiler, browsers, Ray, killed processes,
installations, tutorials from beginning to end. `make test` runs them after the fast ring."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in `WIDE`."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.path.relative_to(here).as_posix().startswith(WIDE):
            item.add_marker("wide")
