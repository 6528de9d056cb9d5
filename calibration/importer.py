"""`kvsim calibrate import`: a profile from public measurements."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from calibration.aic_attention import decode_points, mla_decode_points, mla_prefill_points, prefill_points
from calibration.aic_products import allreduce_points, gemm_points, moe_points
from calibration.aic_source import BACKENDS, Source
from calibration.check import check
from calibration.fit_batching import batching_lines
from calibration.kernel_fits import KernelFit, fit_kernel
from calibration.llmservingsim import batch_tables, llmservingsim_points, runs
from calibration.machines import Machine, check_machine, load_machine, machine_of
from calibration.points import Points
from calibration.profile_text import kernel_lines, mapping_lines, source_lines
from calibration.tables import check_flops
from hw_profiles.errors import InputError
from hw_profiles.kernel_groups import REQUIRED_GROUPS
from hw_profiles.schema import SCHEMA

URLS: Mapping[str, str] = MappingProxyType(
    {
        "aiconfigurator": "https://github.com/ai-dynamo/aiconfigurator",
        "llmservingsim": "https://github.com/casys-kaist/LLMServingSim",
    }
)
LAYOUTS = tuple(URLS)
RESAMPLES = 40
"""Refits behind each 90 % interval."""


@dataclass(frozen=True)
class Measured:
    """What is measured of one machine: the points of every kernel, and where they are from."""

    layout: str
    backend: str
    folder: Path
    device: str
    machine: Machine
    points: tuple[Points, ...]
    batches: tuple[Path, int] | None = None
    """Folder with tables of mixed steps and of unequal lengths (`fit_batching`), and the KV heads of a rank there."""


def read_points(
    path: str | Path,
    layout: str | None = None,
    backend: str = "vllm",
    machine: str | None = None,
    versions: Mapping[str, str] | None = None,
) -> Measured:
    """Every point of a machine's folder. Raises InputError.

    path: a folder, or "aiconfigurator-core:SYSTEM" for the tables of the installed package. The layout is found by what
    is in the folder, the machine by the device that the rows name, unless they are given.
    """
    folder = _folder(str(path))
    layout = layout or ("llmservingsim" if any(folder.glob("**/meta.yaml")) else "aiconfigurator")
    if layout not in LAYOUTS:
        raise InputError("unknown layout", found=layout, allowed=LAYOUTS, near=LAYOUTS)
    if layout == "llmservingsim":
        device, found = runs(folder)
        chosen = load_machine(machine) if machine else machine_of(device, folder)
        check_machine(chosen, device, folder)
        points = tuple(llmservingsim_points(folder, found))
        for each in points:
            if each.kind in ("gemm", "prefill"):
                most = chosen.memory.most_flops("bf16")
                check_flops(folder / each.table, each.name, each.shape["flops"], each.seconds, most)
        return Measured(layout, "vllm", folder, device, chosen, points, batch_tables(found))
    source = Source(folder, backend, versions)
    first = source.need("attention", "generation_attention_perf.parquet", "batch_size", "step", "num_heads")
    chosen = load_machine(machine) if machine else machine_of(source.device, first.table.path)
    check_machine(chosen, source.device, first.table.path)
    points = (
        *gemm_points(source, chosen.memory),
        *decode_points(source, chosen.memory),
        *prefill_points(source, chosen.memory, chosen.sms),
        *moe_points(source, chosen.memory),
        *mla_decode_points(source, chosen.memory),
        *mla_prefill_points(source, chosen.memory),
        *allreduce_points(source),
    )
    return Measured(layout, backend, folder, source.device, chosen, points)


def fit_all(measured: Measured, resamples: int = RESAMPLES) -> list[KernelFit]:
    """A fit per kernel. Raises InputError when the tables lack a kernel that every profile has."""
    names = {points.name for points in measured.points}
    for name in REQUIRED_GROUPS:
        if name not in names and name != "launch":
            raise InputError("no measurements of a kernel that every profile has", where=measured.folder, found=name)
    return [fit_kernel(points, measured.machine.memory.peak, resamples) for points in measured.points]


def profile_text(name: str, measured: Measured, fits: list[KernelFit], created: date, base: str | None = None) -> str:
    """The YAML of the profile that the fits make. What is not fitted is the machine's, or that of a `base` profile."""
    lines = [
        f"schema: {SCHEMA}",
        f"name: {name}",
        "kind: public_fit",
        f"base: {base}" if base else f"machine: {measured.machine.name}",
        f"created: {created.isoformat()}",
        "calibration:",
        *(f"  {line}" for line in mapping_lines(_calibration(measured, fits))),
        "",
        "# Every `src` below is a key here or of the machine's sheet. Fitted on every second value of each axis of the",
        '# tables (ends kept) and on no matrix shape whose SHA-256 of "n,k" is even; intervals are 90 %, by bootstrap.',
        "sources:",
    ]
    for fit in fits:
        lines += source_lines(_key(fit), _what(measured, fit), URLS[measured.layout], created.isoformat())
    batching: list[str] = []
    if measured.batches is not None:
        told, batching = batching_lines(*measured.batches, measured.machine.sms)
        for key, what in zip(("fit_mixed_attn", "fit_decode_imbalance"), told, strict=True):
            lines += source_lines(key, what, URLS[measured.layout], created.isoformat())
    lines += ["", "kernels:"]
    for fit in fits:
        lines += kernel_lines(fit, _key(fit))
    lines += batching
    lines += ["", "validity:", *(f"  {line}" for line in _validity(fits)), ""]
    return "\n".join(lines)


def check_text(text: str, measured: Measured) -> None:
    """What `calibrate check` says of a profile that is not written yet. Raises InputError, which names the table."""
    with TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.yaml"
        draft.write_text(text, encoding="utf-8")
        try:
            check(str(draft))
        except InputError as error:
            words = (error.path or "").split(".")
            table = next((p.table for p in measured.points if words[:2] == ["kernels", p.name]), None)
            if table is None:
                raise
            raise InputError(
                f"impossible table: fitted, it is {error.message}",
                where=measured.folder / table,
                path=error.path,
                found=error.found,
                allowed=error.allowed,
            ) from None


def default_name(measured: Measured) -> str:
    """The machine's name, with the backend's where it is not vLLM."""
    stem = Path(measured.machine.name).stem
    return stem if measured.backend == "vllm" else f"{stem}-{measured.backend}"


def _folder(path: str) -> Path:
    package, colon, system = path.partition(":")
    if package.replace("-", "_") != "aiconfigurator_core":
        folder = Path(path)
        if not folder.is_dir():
            raise InputError("no such folder", found=path, allowed="a folder, or aiconfigurator-core:SYSTEM")
        return folder
    spec = importlib.util.find_spec("aiconfigurator_core")
    if spec is None or spec.origin is None:
        raise InputError("aiconfigurator-core is not installed (pip install aiconfigurator-core)", found=path)
    systems = Path(spec.origin).parent / "systems" / "data"
    names = sorted(folder.name for folder in systems.glob("*") if (folder / "attention").is_dir())
    if not colon or system not in names:
        allowed = [f"aiconfigurator-core:{name}" for name in names]
        raise InputError("unknown system", found=path, allowed=allowed, near=allowed)
    return systems / system


def _calibration(measured: Measured, fits: list[KernelFit]) -> dict[str, object]:
    tables: dict[str, str] = {}
    for fit in fits:
        parts = fit.points.table.split("/")
        if measured.layout == "aiconfigurator" and len(parts) >= 3:
            tables.setdefault("/".join(parts[:2]), parts[2])
    about = {"layout": measured.layout, "system": measured.folder.name, "device": measured.device}
    return {**about, "backend": measured.backend, "versions": tables} if tables else dict(about)


def _key(fit: KernelFit) -> str:
    return f"fit_{fit.points.name}"


def _what(measured: Measured, fit: KernelFit) -> str:
    scores = "; ".join(f"{name}: MAPE {score.mape:.1%} of {score.n}" for name, score in fit.scores.items())
    table = " with a table of ratios" if fit.model.residual is not None else ""
    return (
        f"kvsim fit of {measured.layout} {measured.folder.name}/{fit.points.table}, {fit.points.family}: "
        f"{fit.points.what}; soft-L1 on log residuals{table}, {fit.fitted.n} points fitted, "
        f"MAPE {fit.fitted.mape:.1%}; {scores}"
    )


def _validity(fits: list[KernelFit]) -> list[str]:
    decode = next(fit.points for fit in fits if fit.points.name == "decode_attn")
    prefill = next(fit.points for fit in fits if fit.points.name == "prefill_attn")
    seq, tokens = decode.shape["seq"], prefill.shape["tokens"]
    return [
        f"batch: [1, {int(decode.shape['batch'].max())}]",
        f"seq: [{int(min(seq.min(), 128))}, {int(seq.max())}]",
        f"prefill: [{int(tokens.min())}, {int(tokens.max())}]",
        f"prefix: [{prefill.prefix[0]}, {prefill.prefix[1]}]",
        "note: decode rows are cold in L2; outside the box the efficiency of its border holds",
    ]


BACKEND_NAMES = tuple(BACKENDS)
