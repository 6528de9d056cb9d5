"""Copies of many blocks between a pool on the GPU and a pinned pool, by each method, on a given stream."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch

from calibration.suite.cudart import Runtime
from calibration.suite.lab import Lab
from calibration.suite.plan_copies import COPY_PROGRAMS

SPARE = 1.25
Submit = Callable[[], None]


class BlockCopier:
    """Makes functions that submit copies; keeps the runtime library and what the functions need alive."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    @cached_property
    def runtime(self) -> Runtime:
        """The CUDA runtime."""
        return Runtime()

    def blocks(
        self, direction: str, method: str, size: int, count: int, stream: Any, *, programs: int = COPY_PROGRAMS
    ) -> Submit:
        """Copy `count` blocks of `size` bytes, scattered on both sides; direction h2d, d2h or d2d."""
        lab, slots = self.lab, int(SPARE * count) + 1
        # pools by direction: both directions at once do not touch the same bytes
        device = lab.pool(f"blocks device {direction}", slots * size)
        other = f"blocks other {direction}"
        host = lab.pool(other, slots * size) if direction == "d2d" else lab.pool(other, slots * size, host="pinned")
        rng = np.random.default_rng(count)
        near, far = (
            pool.data_ptr() + rng.permutation(slots)[:count].astype(np.uint64) * np.uint64(size)
            for pool in (device, host)
        )
        targets, sources = (near, far) if direction == "h2d" else (far, near)
        if method == "kernel":
            return self._by_kernel(targets, sources, size, programs, stream)
        if method == "batch" and not self.runtime.has_batch:
            raise RuntimeError("cudaMemcpyBatchAsync is of CUDA 12.8 and later; torch was built with an earlier one")
        if method == "batch":
            sizes = np.full(count, size, np.uint64)
            return lambda: self.runtime.copy_batch(targets, sources, sizes, stream)
        if torch.version.hip is not None:
            return self._by_torch(targets, sources, size, (device, host), direction == "h2d", stream)
        return lambda: self.runtime.copy_each(targets, sources, size, stream)

    def _by_kernel(self, targets: Any, sources: Any, size: int, programs: int, stream: Any) -> Submit:
        from calibration.kernels import pages

        to, origin = (torch.from_numpy(x.astype(np.int64)).to(self.lab.device) for x in (targets, sources))
        sizes = torch.full_like(to, size)

        def submit() -> None:
            with torch.cuda.stream(stream):
                pages.by_address(origin, to, sizes, min(programs, len(sizes)))

        return submit

    def _by_torch(
        self, targets: Any, sources: Any, size: int, pools: tuple[torch.Tensor, torch.Tensor], inward: bool, stream: Any
    ) -> Submit:
        to, origin = pools if inward else pools[::-1]
        pairs = [
            (to[int(t) - to.data_ptr() :][:size], origin[int(s) - origin.data_ptr() :][:size])
            for t, s in zip(targets, sources, strict=True)
        ]

        def submit() -> None:
            with torch.cuda.stream(stream):
                for target, source in pairs:
                    target.copy_(source, non_blocking=True)

        return submit
