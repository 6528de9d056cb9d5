"""Latency of one load after another, in L2, in HBM or in pinned host memory, by where the links of the chain lie."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from calibration.kernels.spec import EXACT, Build, Check, Place

LINE = 32
"""Words of 8 bytes between links: no two links share 256 bytes, the two lines that may be fetched together."""


@triton.jit
def pointer_chase(chain, end, steps):
    """Follow the chain for `steps` loads, each of which needs the one before."""
    place = tl.load(chain)
    for _ in range(steps):
        place = tl.load(chain + place)
    tl.store(end, place)


def chain(nbytes: int, device: torch.device, pinned: bool = False, seed: int = 0) -> torch.Tensor:
    """A random cycle over `nbytes` of int64 words, one link every `LINE` words; on the host if `pinned`."""
    links = nbytes // (8 * LINE)
    order = torch.randperm(links, generator=torch.Generator().manual_seed(seed)) * LINE
    words = torch.zeros(links * LINE, dtype=torch.int64, pin_memory=pinned)
    words[order] = order.roll(-1)
    return words if pinned else words.to(device)


def follow(words: torch.Tensor, end: torch.Tensor, steps: int) -> None:
    """Launch one thread's walk; `end` (int64) gets the last link."""
    pointer_chase[(1,)](words, end, steps, num_warps=1)


def check_chase(place: Place) -> float:
    """1 if the walk ends at another link than on the host."""
    words, end = chain(1 << 16, place.device), place.poison(1, dtype=torch.int64)
    steps = 100
    follow(words, end, steps)
    host, at = words.tolist(), 0
    for _ in range(steps + 1):
        at = host[at]
    return float(int(end) != at)


CHECKS = (Check("pointer_chase", check_chase, EXACT, dtypes=("f32",)),)
BUILDS = (
    Build("pointer_chase", pointer_chase, {"chain": "*i64", "end": "*i64", "steps": "i32"}, {}, {"num_warps": 1}),
)
