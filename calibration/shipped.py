"""The profiles that kvsim ships from public measurements, and where their tables are.

`python -m calibration.shipped SYSTEMS LLMSERVINGSIM [NAME...]` fits and writes them: SYSTEMS holds aiconfigurator's
machines (systems/data of its repository or package), LLMSERVINGSIM the machines of LLMServingSim's profiles.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from calibration.importer import fit_all, profile_text, read_points
from hw_profiles.documents import PROFILES
from hw_profiles.files import write_atomic


class Shipped(NamedTuple):
    """A profile's tables: layout, machine folder, engine; the profile that other kernels are taken from."""

    layout: str
    system: str
    backend: str = "vllm"
    base: str | None = None


def _families(name: str, system: str, *others: str) -> dict[str, Shipped]:
    found = {name: Shipped("aiconfigurator", system)}
    return found | {f"{name}-{other}": Shipped("aiconfigurator", system, other, name) for other in others}


SHIPPED: Mapping[str, Shipped] = MappingProxyType(
    {
        **_families("a100-80", "a100_sxm", "sglang"),  # TensorRT-LLM's decode table is impossible: 1.7 x the HBM peak
        **_families("h100-sxm", "h100_sxm", "sglang", "trtllm"),
        **_families("l40s", "l40s", "sglang", "trtllm"),
        **_families("b200", "b200_sxm", "sglang", "trtllm"),
        **_families("rtx-pro-6000", "rtx_pro_6000_server", "sglang", "trtllm"),
        "rtx-4090": Shipped("llmservingsim", "RTX4090"),
        "rtx-pro-6000-vllm-0.19": Shipped("llmservingsim", "RTXPRO6000"),
    }
)


def folder_of(shipped: Shipped, data: Path) -> Path:
    """The machine's folder below a data folder that holds `kernels/<layout>/<system>`."""
    return data / "kernels" / shipped.layout / shipped.system


def ship(name: str, folder: Path, created: date) -> Path:
    """Fit one shipped profile to the tables in `folder` and write it."""
    shipped = SHIPPED[name]
    measured = read_points(folder, shipped.layout, shipped.backend)
    fits = fit_all(measured)
    if shipped.base is not None:
        fits = [
            fit for fit in fits if fit.points.own and not (shipped.backend == "sglang" and fit.points.kind == "gemm")
        ]
    target = PROFILES / f"{name}.yaml"
    write_atomic(target, profile_text(name, measured, fits, created, shipped.base))
    return target


def main(argv: list[str]) -> None:
    """Write the shipped profiles named, all by default."""
    roots = {"aiconfigurator": Path(argv[0]), "llmservingsim": Path(argv[1])}
    created = datetime.now(UTC).date()
    for name in argv[2:] or SHIPPED:
        shipped = SHIPPED[name]
        sys.stdout.write(f"{ship(name, roots[shipped.layout] / shipped.system, created)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
