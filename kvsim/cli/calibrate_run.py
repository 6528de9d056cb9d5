"""`kvsim calibrate run`: measure the GPU of this machine; raw samples on disk as they come."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hw_profiles.errors import InputError
from kvsim.cli import _print
from kvsim.cli._options import AsJson, Quiet
from kvsim.cli._progress import count_bar

if TYPE_CHECKING:
    from calibration.suite.plan import Plan

DEVICES = ("cuda", "cpu")


def run(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where samples.jsonl goes.")] = Path(
        "out/calibration"
    ),
    plan_only: Annotated[bool, typer.Option("--plan", help="Show what would be measured; needs no GPU.")] = False,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", metavar="PROFILE", help="With --plan: the machine to predict for. [default: h100-sxm]"
        ),
    ] = None,
    budget_s: Annotated[
        float | None, typer.Option("--budget-s", metavar="SECONDS", help="Leave out what matters least to fit.")
    ] = None,
    only: Annotated[str | None, typer.Option("--only", metavar="BENCH,...", help="Only these benches.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the samples in DIR.")] = False,
    nvme: Annotated[
        Path | None, typer.Option("--nvme", metavar="DIR", help="Measure the disk of DIR too (1 GiB, removed again).")
    ] = None,
    device: Annotated[str, typer.Option("--device", hidden=True)] = "cuda",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure this machine's GPU: kernels, copies, kernels beside copies. Settings of the card stay as they are."""
    from calibration.suite.facts import costs_of, cpu_costs, facts_of
    from calibration.suite.plan import make_plan
    from calibration.suite.preflight import device_facts, gpu_errors
    from hw_profiles.loader import load_profile

    if device not in DEVICES:
        raise InputError("", where="--device", found=device, allowed=DEVICES, near=DEVICES)
    chosen = _benches(only, nvme)
    if profile is not None and not plan_only:
        raise InputError(
            "only for a plan: a run measures this machine", where="--profile", found=profile, allowed="--plan"
        )
    if budget_s is not None and not (math.isfinite(budget_s) and budget_s > 0):
        raise InputError("", where="--budget-s", found=budget_s, allowed="seconds above 0")
    if nvme is not None and not nvme.is_dir():
        raise InputError("not a folder", where="--nvme", found=str(nvme))
    machine = load_profile(profile or "h100-sxm")
    if plan_only:
        facts = facts_of(machine)
    else:
        _may_measure(out, resume)
        facts = device_facts(device)
    costs = cpu_costs(facts.l2_bytes) if facts.kind == "cpu" else costs_of(machine, facts.peak)
    plan = make_plan(facts, costs, nvme=nvme is not None, only=chosen)
    if budget_s is not None:
        plan = plan.within(budget_s)
    if plan_only:
        _show_plan(plan, machine.name, as_json)
        return

    from calibration.suite.samples import FILE, read_samples, same_device

    path = out / FILE
    before = read_samples(path, half_line=True) if resume and path.exists() else None
    if before is not None:
        same_device(path, before.env, {"device": asdict(facts)}, "this machine")

    from calibration.suite.runner import run_plan

    if not quiet:
        _print.note(f"{facts.name}: {len(plan.points)} points, {plan.passes} passes, about {plan.seconds:.0f} s")
    with count_bar(not quiet, "points measured") as tick, gpu_errors():
        run_plan(
            facts,
            plan,
            path,
            before=before,
            budget_s=budget_s,
            disk=nvme,
            progress=lambda done, count, _: tick(done, count) if tick else None,
        )
    _report(path, as_json)


def _benches(only: str | None, nvme: Path | None) -> tuple[str, ...]:
    """The benches of --only, none for all. Raises InputError for an empty name, and for the disk's without a disk."""
    if only is None:
        return ()
    names = tuple(name.strip() for name in only.split(","))
    if not all(names):
        raise InputError("a bench without a name", where="--only", found=only, allowed="names with commas between them")
    if "nvme" in names and nvme is None:
        raise InputError("no disk to measure", where="--only", found="nvme", allowed="--nvme DIR beside it")
    return names


def _may_measure(out: Path, resume: bool) -> None:
    """Raise InputError unless samples may be written to `out`."""
    from calibration.suite.samples import FILE

    path = out / FILE
    if path.exists() and not resume:
        raise InputError("there are samples already: go on with --resume, or choose another --out", where=path)
    if out.exists() and not out.is_dir():
        raise InputError("not a folder", where=out)


def _show_plan(plan: Plan, machine: str, as_json: bool) -> None:
    from calibration.suite.plan import totals

    rows = totals(plan.points)
    if as_json:
        _print.document(
            {
                "machine": machine,
                "seconds": plan.seconds,
                "passes": plan.passes,
                "overhead_s": plan.overhead_s,
                "points": [
                    {
                        "bench": point.bench,
                        "key": point.key,
                        "seconds": point.seconds,
                        "priority": point.priority,
                        "heldout": point.heldout,
                    }
                    for point in plan.points
                ],
                "dropped": [point.name for point in plan.dropped],
            }
        )
        return
    numbers = [_print.Column(title, right=True) for title in ("points", "held out", "seconds a pass")]
    columns: list[str | _print.Column] = ["bench", *numbers]
    _print.table(columns, [(bench, str(count), str(held), f"{s:.2f}") for bench, count, held, s in rows])
    left_out = f", {len(plan.dropped)} left out" if plan.dropped else ""
    _print.line(
        f"{len(plan.points)} points{left_out}; {plan.passes} shuffled passes {plan.points_s:.0f} s + start, compiling, "
        f"checks and anchors {plan.overhead_s:.0f} s = {plan.seconds:.0f} s, as predicted for {machine}"
    )


def _report(path: Path, as_json: bool) -> None:
    from calibration.suite.samples import read_samples

    found = read_samples(path)
    odd = sum(bool(record["flags"]) for record in found.samples)
    failed = sorted({str(record["name"]) for record in found.problems})
    wrong = {str(record["kernel"]): str(record.get("problem", "")) for record in found.checks if not record["ok"]}
    if as_json:
        counts = {"samples": len(found.samples), "odd": odd, "failed": failed, "wrong_kernels": list(wrong)}
        _print.document({"path": str(path), "device": found.env["device"]["name"], **counts})
    else:
        _print.line(f"{found.env['device']['name']}: {len(found.samples)} points measured, {odd} of them with a flag")
    for name, problem in wrong.items():
        _print.note(f"warning: {name} disagrees with torch and was not timed ({problem})")
    for line in _alike(found.problems):
        _print.note(f"warning: {line}")
    if not as_json:
        _print.line(f"samples: {path}; next: kvsim calibrate fit {path.parent}")


def _alike(problems: Iterable[Mapping[str, Any]]) -> list[str]:
    """What failed, a line per kind of problem and not per point."""
    points: dict[str, set[str]] = {}
    for record in problems:
        points.setdefault(str(record["problem"]), set()).add(str(record["name"]))
    lines = []
    for problem, names in points.items():
        more = f" and {len(names) - 1} more points" if len(names) > 1 else ""
        lines.append(f"{min(names)}{more}: {problem}")
    return lines
