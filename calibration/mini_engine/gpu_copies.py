"""Copies of pages between the pool on the GPU and the pinned one, on a stream per direction."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from calibration.mini_engine.model import DeviceModel
from calibration.mini_engine.transfers import Copy
from calibration.suite.cudart import Runtime

METHODS = ("loop", "kernel")
"""One copy engine copy per page; a copy kernel."""


class GpuCopies:
    """Page copies on two streams."""

    def __init__(self, model: DeviceModel, method: str) -> None:
        self._lab, self._method = model.lab, method
        self._bases = {
            "h2d": (model.pool.data_ptr(), model.host.data_ptr()),
            "d2h": (model.host.data_ptr(), model.pool.data_ptr()),
        }
        self._bytes = model.pool[0].numel() * model.pool.element_size()
        self._runtime = Runtime() if torch.version.cuda else None
        self._model = model

    def start(self, copy: Copy) -> Any:
        """Submit the pages of a copy; the event that follows them."""
        stream = self._lab.inward if copy.direction == "h2d" else self._lab.outward
        to, origin = self._bases[copy.direction]
        pages = np.array(copy.pages, dtype=np.uint64)
        size = np.uint64(self._bytes)
        sources, targets = origin + pages[:, 0] * size, to + pages[:, 1] * size
        if self._method == "kernel":
            from calibration.kernels import pages as kernel
            from calibration.suite.plan_copies import COPY_PROGRAMS

            lists = (sources, targets, np.full_like(sources, self._bytes))
            there = [torch.from_numpy(x.astype(np.int64)).to(self._lab.device) for x in lists]
            with torch.cuda.stream(stream):
                kernel.by_address(there[0], there[1], there[2], min(COPY_PROGRAMS, len(pages)))
            for x in there:  # not to be given to somebody else before the kernel has read them
                x.record_stream(stream)
        elif self._runtime is not None:
            self._runtime.copy_each(targets, sources, self._bytes, stream)
        else:
            pool, host = self._model.pool, self._model.host
            target, source = (pool, host) if copy.direction == "h2d" else (host, pool)
            with torch.cuda.stream(stream):
                for a, b in copy.pages:
                    target[b].copy_(source[a], non_blocking=True)
        event = torch.cuda.Event()
        event.record(stream)
        return event
