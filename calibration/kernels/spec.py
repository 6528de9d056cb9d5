"""What a kernel file declares about itself: checks against torch, and builds for GPUs that are not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

DTYPES: Mapping[str, torch.dtype] = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
ROUNDING: Mapping[str, float] = {"f32": 2e-5, "f16": 4e-3, "bf16": 3e-2}
"""Largest relative error (Frobenius norm, against float64) that rounding to a type explains: about 4 units in the last
place after sums of a few hundred products."""
EXACT: Mapping[str, float] = dict.fromkeys(DTYPES, 0.0)
TARGETS = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")
"""GPUs that kernels are compiled for: A100, H100 and H200, B200, MI300X."""
CUDA = TARGETS[:3]


@dataclass(frozen=True)
class Place:
    """Where a check runs. The sizes follow: a GPU gets those of the timed kernels, the interpreter tiny ones."""

    device: torch.device
    dtype: torch.dtype

    @property
    def full_size(self) -> bool:
        """Whether the sizes that are timed fit."""
        return str(self.device.type) != "cpu"

    def random(self, *shape: int, seed: int = 0) -> torch.Tensor:
        """Normal random numbers; the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, generator=generator).to(self.device, self.dtype)

    def poison(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """An output that a kernel must overwrite whole: NaN, or -1 for whole numbers."""
        kind = dtype or self.dtype
        return torch.full(shape, float("nan") if kind.is_floating_point else -1, dtype=kind, device=self.device)


@dataclass(frozen=True)
class Check:
    """A kernel against its torch reference: `run` returns the relative error."""

    name: str
    run: Callable[[Place], float]
    tolerance: Mapping[str, float] = field(default_factory=lambda: ROUNDING)
    dtypes: tuple[str, ...] = tuple(DTYPES)
    interpreter: bool = True
    """False for what the interpreter cannot do or gets wrong: inline assembly, casts to fp8."""
    needs: tuple[int, int] = (0, 0)
    """Least compute capability."""


@dataclass(frozen=True)
class Build:
    """A kernel compiled ahead of time.

    `must` maps a target (or "cuda" for all three) to the features that its code must have, of `compile_ahead.FEATURES`;
    `whole` names the integer arguments that callers keep multiples of 16 (pointers always are).
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, object]
    options: Mapping[str, int] = field(default_factory=dict)
    whole: tuple[str, ...] = ()
    targets: tuple[str, ...] = TARGETS
    must: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def relative_error(result: torch.Tensor, reference: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of the reference; NaN where the result has one."""
    a, b = result.double().cpu(), reference.double().cpu()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


def mismatches(result: torch.Tensor, reference: torch.Tensor) -> float:
    """Share of elements that differ."""
    return float((result.cpu() != reference.cpu()).double().mean())
