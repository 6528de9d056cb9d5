"""Two calls of the CUDA runtime that torch does not offer: one copy per block without torch's cost per call, and all
blocks in one call.

SOURCE: CUDA Runtime API 13.0, cudaMemcpyAsync and cudaMemcpyBatchAsync (struct cudaMemcpyAttributes: source access
order, two locations of type and id, flags); in 12.8 and 12.9 the latter has one more argument, where the number of a
failing copy goes. On the legacy default stream batches fall back to single copies, so streams are always made.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Addresses = NDArray[np.uint64]
IN_STREAM_ORDER = 1
DEFAULT_KIND = 4
"""cudaMemcpyDefault: the runtime tells host from device by the address."""


class _Attributes(ctypes.Structure):
    _fields_ = (
        *(("order", ctypes.c_int), ("source_type", ctypes.c_int), ("source_id", ctypes.c_int)),
        *(("target_type", ctypes.c_int), ("target_id", ctypes.c_int), ("flags", ctypes.c_uint)),
    )


class Runtime:
    """The runtime library that torch has loaded. Raises OSError where there is none."""

    def __init__(self) -> None:
        version = torch.version.cuda or ""
        self.major = int(version.partition(".")[0] or 0)
        self._library = _load(self.major)

    @property
    def has_batch(self) -> bool:
        """Whether it has cudaMemcpyBatchAsync (CUDA 12.8 or later)."""
        return hasattr(self._library, "cudaMemcpyBatchAsync")

    def copy_each(self, targets: Addresses, sources: Addresses, size: int, stream: Any) -> None:
        """One cudaMemcpyAsync of `size` bytes per pair of addresses."""
        call, handle = self._library.cudaMemcpyAsync, ctypes.c_void_p(stream.cuda_stream)
        count, kind, pointer = ctypes.c_size_t(size), ctypes.c_int(DEFAULT_KIND), ctypes.c_void_p
        for target, source in zip(targets.tolist(), sources.tolist(), strict=True):
            _succeed("cudaMemcpyAsync", call(pointer(target), pointer(source), count, kind, handle))

    def copy_batch(self, targets: Addresses, sources: Addresses, sizes: Addresses, stream: Any) -> None:
        """All copies in one cudaMemcpyBatchAsync."""
        pointer, count = ctypes.c_void_p, ctypes.c_size_t(len(targets))
        attributes, first = _Attributes(IN_STREAM_ORDER, 0, 0, 0, 0, 0), ctypes.c_size_t(0)
        failing = [ctypes.byref(ctypes.c_size_t(0))] if self.major < 13 else []
        arrays = [pointer(array.ctypes.data) for array in (targets, sources, sizes)]
        one = ctypes.c_size_t(1)
        code = self._library.cudaMemcpyBatchAsync(
            *(*arrays, count, ctypes.byref(attributes), ctypes.byref(first), one, *failing, pointer(stream.cuda_stream))
        )
        _succeed("cudaMemcpyBatchAsync", code)


def _succeed(name: str, code: int) -> None:
    if code:
        raise RuntimeError(f"{name} failed with code {code}")


def _load(major: int) -> ctypes.CDLL:
    for name in _names(major):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise OSError(f"no CUDA runtime library (libcudart.so.{major})")


def _names(major: int) -> Iterator[str]:
    file = f"libcudart.so.{major}"
    places = (
        (Path(torch.__file__).parents[1] / "nvidia", f"*/lib/{file}*"),
        (Path("/usr/local"), f"cuda*/lib64/{file}*"),
    )
    return itertools.chain([file], *(map(str, sorted(folder.glob(pattern))) for folder, pattern in places))
