"""What a validation says: the simulator's errors on measured steps and runs, with contention in the model and without.

Targets are what published simulators reach (LLMServingSim 2.0, BLIS and Dooly report 2-10 % on TPOT, 5-18 % on TTFT);
never less than twice what repeating the measurement changes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from calibration.mini_engine.closed_loop import Outcome, measured, simulated, without_contention
from calibration.mini_engine.run_record import Run, unlike
from calibration.mini_engine.setting import PAGE, Setting, scenario
from calibration.mini_engine.teacher import CLASSES, Lesson, Links, teach
from calibration.mini_engine.workload import draw
from hw_profiles.models import ModelSpec, load_model
from hw_profiles.profile import Profile
from hw_profiles.yaml_io import load_yaml
from sim.cost.step import StepCost

STEP_MAPE, STEP_BIAS, STEP_P99, COPY_MAPE = 0.05, 0.02, 0.12, 0.08
CLOSED = {"tpot_p50": 0.05, "tpot_p99": 0.10, "ttft_p50": 0.10, "ttft_p99": 0.15}
TTFT_SLACK_S = 5e-3
"""Errors of TTFT that are no larger do not count."""
HIT_POINTS, BYTES = 0.02, 0.03


@dataclass(frozen=True)
class Row:
    """One comparison. error: relative, or in points for hit ratios; target None: only reported."""

    variant: str
    what: str
    measured: float | None
    error: float
    without_contention: float | None
    target: float | None

    @property
    def missed(self) -> bool:
        """Whether the error is too large."""
        return self.target is not None and abs(self.error) > self.target


@dataclass(frozen=True)
class Verdict:
    """All rows, what else was found, and how far two runs of the same variant were apart (relative, mean step)."""

    rows: tuple[Row, ...]
    repeat: float
    wrong_pages: int
    checked_pages: int
    unlike_outputs: int
    glue_s: float
    host_s: float

    @property
    def missed(self) -> list[Row]:
        """Rows above their target and above twice the spread of repeated runs."""
        return [row for row in self.rows if row.missed and abs(row.error) > 2 * self.repeat]

    @property
    def integrity(self) -> bool:
        """Whether every page arrived as it left, and every variant computed the same."""
        return not self.wrong_pages and not self.unlike_outputs

    def document(self) -> dict[str, Any]:
        """For JSON."""
        rows = [asdict(row) | {"missed": row in self.missed} for row in self.rows]
        return asdict(self) | {"rows": rows, "integrity": self.integrity, "missed": len(self.missed)}


def judge(runs: Mapping[str, Run], setting: Setting, profile: Profile, path: Path) -> Verdict:
    """Compare measured runs (by variant; the last repeats the first) with the simulator under a profile (at `path`)."""
    names = list(runs)
    first, again = runs[names[0]], runs[names[-1]]
    model = load_model(setting.model)
    glue = layer_glue(model, profile, path)
    rows: list[Row] = []
    lessons: dict[str, Lesson] = {}
    for name in names[:-1]:
        run = runs[name]
        host_time = max(0.0, run.host_s + glue * model.layers)
        cost = StepCost(model, profile, host_time, setting.l2_prefetch_bytes(run.variant, model))
        links = Links(profile, run.variant, PAGE * model.kv_bytes_per_token)
        lesson, blind = (teach(run.log.steps, cost, links, run.variant, contention=on) for on in (True, False))
        lessons[name] = lesson
        rows += _step_rows(name, lesson, blind)
        if run.variant.closed_loop:
            rows += _closed_rows(name, run, setting, model, path, host_time)
    rows += _ablation(runs, lessons)
    mean = [sum(step.seconds for step in run.log.steps) / len(run.log.steps) for run in (first, again)]
    return Verdict(
        rows=tuple(rows),
        repeat=abs(mean[1] / mean[0] - 1),
        wrong_pages=sum(run.wrong_pages for run in runs.values()),
        checked_pages=sum(run.checked_pages for run in runs.values()),
        unlike_outputs=sum(unlike(first.outputs, runs[name].outputs) for name in names[1:]),
        glue_s=glue,
        host_s=first.host_s,
    )


def layer_glue(model: ModelSpec, profile: Profile, path: Path) -> float:
    """Seconds of a decode layer beyond the sum of its kernels, from the `layer` bench behind the profile; 0 if none.

    Below 0 where kernels in a graph start sooner after each other than between two events.
    """
    results = (load_yaml(path).get("calibration") or {}).get("results", {})
    two, one = (StepCost(replace(model, layers=n, pattern=model.pattern[:n]), profile) for n in (2, 1))
    rest = []
    for name, microseconds in results.get("layer_us", {}).items():
        batch, seq = map(int, name.split(" x "))
        parts = [float(cost.decode_steps(batch, batch * seq, (), 1).seconds) for cost in (two, one)]
        rest.append(1e-6 * microseconds - (parts[0] - parts[1]))
    return sorted(rest)[len(rest) // 2] if rest else 0.0


def _step_rows(name: str, lesson: Lesson, blind: Lesson) -> list[Row]:
    rows = []
    for group in (*CLASSES, "all"):
        names = () if group == "all" else (group,)
        errors, without = lesson.errors(*names), blind.errors(*names)
        if errors is None or without is None:
            continue
        beside = group in {"h2d", "d2h", "both"}
        mean = float(lesson.measured.mean())
        label = f"steps, {group}"
        target = COPY_MAPE if beside else STEP_MAPE
        rows.append(Row(name, f"{label}: mean error", mean, errors.mape, without.mape, target))
        target_bias = STEP_BIAS if group == "all" else None
        rows.append(Row(name, f"{label}: bias", None, errors.bias, without.bias, target_bias))
        if group == "all":
            rows.append(Row(name, f"{label}: p99", None, errors.p99, without.p99, STEP_P99))
    return rows


def _closed_rows(name: str, run: Run, setting: Setting, model: ModelSpec, path: Path, host_time: float) -> list[Row]:
    """The simulator alone, with the profile as it is and without contention."""
    real, page_bytes = measured(run.log, run.scheduler), PAGE * model.kv_bytes_per_token
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        plan = scenario(setting, run.variant, draw(setting.load), place, path.resolve(), model, host_time)
        found = simulated(plan, page_bytes)
        blind = simulated(without_contention(plan, place), page_bytes)
    rows = []
    for quantity, target in CLOSED.items():
        values = [getattr(outcome, quantity) for outcome in (real, found, blind)]
        close = quantity.startswith("ttft") and abs(values[1] - values[0]) <= TTFT_SLACK_S
        rows.append(
            Row(
                name,
                f"alone, {quantity.replace('_', ' ')}",
                values[0],
                values[1] / values[0] - 1,
                values[2] / values[0] - 1,
                None if close else target,
            )
        )
    rows += _hits(name, real, found, blind)
    return rows


def _hits(name: str, real: Outcome, found: Outcome, blind: Outcome) -> list[Row]:
    rows = [
        Row(name, f"alone, hits in {tier}", real.hit[tier], found.hit[tier] - hit, blind.hit[tier] - hit, HIT_POINTS)
        for tier, hit in real.hit.items()
    ]
    for direction, pages in real.moved.items():
        if pages:
            errors = [outcome.moved[direction] / pages - 1 for outcome in (found, blind)]
            rows.append(Row(name, f"alone, pages {direction}", float(pages), errors[0], errors[1], BYTES))
    return rows


def _ablation(runs: Mapping[str, Run], lessons: Mapping[str, Lesson]) -> list[Row]:
    """How much faster one variant's mean step is than another's: does the model see the difference?"""
    rows = []
    for slower, faster in (("B", "C"), ("D", "C"), ("C", "E")):
        if slower in lessons and faster in lessons:
            real, said = (
                getattr(lessons[slower], what).mean() / getattr(lessons[faster], what).mean()
                for what in ("measured", "predicted")
            )
            rows.append(Row(f"{slower}/{faster}", "mean step, ratio", float(real), float(said / real - 1), None, None))
    return rows
