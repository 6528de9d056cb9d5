"""`kvsim calibrate validate`: a small engine really runs on the GPU, and the simulator is held to what it did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hw_profiles.errors import InputError
from kvsim.cli import _print
from kvsim.cli._options import AsJson, Quiet

if TYPE_CHECKING:
    from calibration.mini_engine.verdict import Row, Verdict

CPU_VARIANTS = ("A", "B", "C")
"""On the CPU a copy kernel is a copy, and L2 is not asked for anything."""


def validate(
    profile: Annotated[Path, typer.Argument(metavar="PROFILE", help="A measured profile of this machine (YAML).")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Logs of the engine and validate.json.")] = Path(
        "out/validate"
    ),
    variants: Annotated[str, typer.Option("--variants", metavar="A,B,...", help="Which ones; all by default.")] = "",
    device: Annotated[str, typer.Option("--device", hidden=True)] = "cuda",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Hold the simulator to a real engine on this GPU. Exit code 1 if a target is missed."""
    import json

    from calibration.mini_engine.setting import VARIANTS
    from calibration.suite.preflight import check_profile, device_facts, gpu_errors
    from hw_profiles.files import write_atomic
    from hw_profiles.loader import load_profile
    from hw_profiles.yaml_io import load_yaml

    machine = load_profile(profile)
    if machine.kind != "measured":
        raise InputError("not a measured profile: only one of this machine says anything about it", where=profile)
    known = tuple(VARIANTS) if device != "cpu" else CPU_VARIANTS
    chosen = tuple(name for name in variants.split(",") if name) or known
    for name in chosen:
        if name not in known:
            raise InputError("unknown variant", where="--variants", found=name, allowed=known)
    for method in {VARIANTS[name].method for name in chosen}:  # what the profile lacks is said before minutes are spent
        for direction in ("h2d", "d2h"):
            machine.copy_paths(f"pcie_{direction}", method)
    facts = device_facts(device)
    check_profile(load_yaml(profile), profile, facts)

    from calibration.mini_engine.measure import Bench, run_variants
    from calibration.mini_engine.model import ModelShape
    from calibration.mini_engine.setting import PAGE
    from calibration.mini_engine.settings import GPU, cpu_setting
    from calibration.mini_engine.verdict import judge
    from calibration.suite.lab import Lab
    from hw_profiles.models import load_model

    out.mkdir(parents=True, exist_ok=True)
    setting = cpu_setting(out) if facts.kind == "cpu" else GPU
    tell = (lambda _name: None) if quiet or as_json else (lambda name: _print.note(f"variant {name} ..."))
    with gpu_errors():
        bench = Bench(Lab(facts), setting, ModelShape.of(load_model(setting.model), PAGE))
        runs = run_variants(bench, chosen, out, tell)
    verdict = judge(runs, setting, machine, profile)
    document = {"profile": str(profile), "device": facts.name, **verdict.document()}
    write_atomic(out / "validate.json", json.dumps(document, indent=2))
    if as_json:
        _print.document(document)
    else:
        _show(verdict, out)
    if verdict.missed or not verdict.integrity:
        raise typer.Exit(1)


def _show(verdict: Verdict, out: Path) -> None:
    titles = ("measured", "error", "without contention", "target")
    columns: list[str | _print.Column] = ["", "", *(_print.Column(title, right=True) for title in titles), ""]
    missed = verdict.missed
    rows = [
        (
            row.variant,
            row.what,
            _measured(row),
            f"{row.error:+.1%}",
            "" if row.without_contention is None else f"{row.without_contention:+.1%}",
            "" if row.target is None else f"{row.target:.0%}",
            "missed" if row in missed else "",
        )
        for row in verdict.rows
    ]
    _print.table(columns, rows)
    pages = f"{verdict.checked_pages} pages compared with their copies, {verdict.wrong_pages} differ"
    _print.line(
        f"{pages}; {verdict.unlike_outputs} outputs differ between variants; repeating changes {verdict.repeat:.1%}"
    )
    _print.line(f"logs and validate.json: {out}")


def _measured(row: Row) -> str:
    if row.measured is None:
        return ""
    if row.what.startswith(("steps", "alone, t")):
        return f"{1e3 * row.measured:.2f} ms"
    return f"{row.measured:,.3g}" if row.measured < 1000 else f"{row.measured:,.0f}"
