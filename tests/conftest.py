"""Which ring a test is in: `fast` by default, `wide` for those that need minutes of tools and whole commands."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

PLAIN = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
"""A busy machine is no failure: no test is held to the seconds that one of its examples takes."""
settings.register_profile("same", **PLAIN, derandomize=True)
settings.register_profile("new", **PLAIN)
settings.load_profile("same")
"""`make test` tries the same examples every time, `make test-all` new ones (--hypothesis-profile new)."""

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
installations, tutorials from beginning to end. `make test` begins with them: files that take long and come last would
leave all workers but one without work (the workers take files in this order: `--no-loadscope-reorder`)."""


LONG = (
    "calibration/gpu/test_compile_ring.py::test_mistakes_are_found",
    "kvsim/test_new.py::test_their_tests_pass_outside_the_repository",
    "reports/test_browser_panels.py::test_a_run_of_each_feature_shows_it_and_fits[answers]",
    "reports/test_browser_panels.py::test_a_run_of_each_feature_shows_it_and_fits[models]",
    "reports/test_browser_panels.py::test_a_run_of_each_feature_shows_it_and_fits[prefetch]",
    "reports/test_browser_panels.py::test_a_run_of_each_feature_shows_it_and_fits[within]",
    "reports/test_browser_panels.py::test_the_pages_of_studies_and_profiles",
    "test_tutorial.py::test_the_tutorial_from_beginning_to_end",
    "whatif/test_early.py",
    "whatif/test_faults.py::test_killed_after_any_row",
)
"""Those that only `make test-all` runs, beside those marked where they stand; others of their kind run always."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in `WIDE` and put it before all others; mark what is in `LONG` as slow."""
    here = Path(__file__).parent
    wide = set()
    for item in items:
        if not item.path.is_relative_to(here):
            continue
        place = item.path.relative_to(here).as_posix()
        if place.startswith(WIDE):
            item.add_marker("wide")
            wide.add(item)
        if f"{place}::{item.name}".startswith(LONG):
            item.add_marker("slow")
    items.sort(key=lambda item: item not in wide)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Modules and items live as long as the session: the search for garbage need not look at them again and again."""
    result = yield
    gc.collect()
    gc.freeze()
    return result
