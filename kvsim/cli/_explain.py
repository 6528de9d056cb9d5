"""`kvsim run --explain`: the reruns, their file in the run directory, and one line about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kvsim.cli._progress import count_bar

if TYPE_CHECKING:
    from sim.result import Result
    from sim.scenario import Scenario


def explain_run(
    result: Result, scenario: Scenario, run_dir: Path, requests: int | None, workers: int | None, *, show: bool
) -> str:
    """Write `run_dir/explain.json` of the run; the line says what moves its TTFT most. Raises InputError."""
    from reports.explained import first_line
    from sim.whatif.explain import REQUESTS, explain, save_explain
    from sim.whatif.pool import worker_count

    with count_bar(show, "reruns, a resource at a time") as tick:
        study = explain(result, scenario, requests=requests or REQUESTS, workers=worker_count(workers), progress=tick)
    save_explain(study, run_dir)
    return first_line(study)
