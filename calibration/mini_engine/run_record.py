"""One variant, measured: what comparisons need of it, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from calibration.mini_engine.engine import Log
from calibration.mini_engine.scheduler import Scheduler
from calibration.mini_engine.setting import Variant

Outputs = Mapping[tuple[int, int], Any]
"""Hidden numbers (a tensor) of the last token of each prompt, by (request, position)."""
ALIKE = 0.05
"""Largest relative difference of hidden numbers between variants. On a CPU, in bf16, prompts that are cut into other
chunks differ by 2 % after 32 layers (0.2 % after 2)."""


@dataclass(frozen=True)
class Run:
    """One variant, measured. host_s: the engine's own time per step; wrong_pages: pages that differ from their copy."""

    variant: Variant
    log: Log
    scheduler: Scheduler
    outputs: Outputs
    host_s: float
    wrong_pages: int
    checked_pages: int


def unlike(a: Outputs, b: Outputs) -> int:
    """Requests whose outputs differ between two variants by more than other batches explain."""
    different = 0
    for key, one in a.items():
        other = b[key]
        different += not float((one - other).norm() / one.norm()) <= ALIKE
    return different
