"""Trials of the host: copies within its memory by threads, pinning, and a disk read and written past the page cache."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from calibration.suite.lab import Lab
from calibration.suite.timing import Custom, Kernel, Reading, Trial

MIB = 2**20
NVME_BYTES, NVME_FILE_BYTES = 64 * MIB, 1024 * MIB
NVME_NAME = ".kvsim-calibrate.tmp"


def host_memcpy(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: threads, bytes. Bytes are counted once, as copied."""
    size, threads = key["bytes"], key["threads"]
    source, target = (lab.pool(f"host {name}", size, host="pageable") for name in ("from", "to"))
    part = size // threads
    pairs = [(target[i * part :][:part], source[i * part :][:part]) for i in range(threads)]
    pool = ThreadPoolExecutor(threads)

    def one(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
        # numpy's copy lets go of the interpreter's lock and runs on this thread alone
        pair[0].numpy()[:] = pair[1].numpy()

    def take(_: int) -> Reading:
        started = time.perf_counter()
        list(pool.map(one, pairs))
        seconds = time.perf_counter() - started
        return Reading(seconds, seconds)

    return Custom(take, nbytes=float(size))


def pin(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: bytes that are there and are pinned. Not by torch's allocator, which would give the same ones out again."""
    place, runtime = lab.pool("pin", key["bytes"], host="pageable"), torch.cuda.cudart()

    def take(_: int) -> Reading:
        started = time.perf_counter()
        code = int(runtime.cudaHostRegister(place.data_ptr(), key["bytes"], 0))
        seconds = time.perf_counter() - started
        if code or int(runtime.cudaHostUnregister(place.data_ptr())):
            raise RuntimeError(f"cudaHostRegister failed with code {code}")
        return Reading(seconds, seconds)

    return Custom(take, nbytes=float(key["bytes"]))


def nvme(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: op, bytes (of one access), depth (threads). The file is made once, at the path the user named."""
    path, size = lab.disk_file(NVME_NAME, NVME_FILE_BYTES), key["bytes"]
    pool = ThreadPoolExecutor(key["depth"])
    count = max(key["depth"], NVME_BYTES // size)
    buffers = [mmap.mmap(-1, size) for _ in range(key["depth"])]  # page aligned, as O_DIRECT wants it
    slots = NVME_FILE_BYTES // size

    def worker(number: int, file: int) -> None:
        for i in range(number, count, key["depth"]):
            offset = (i * 7919) % slots * size
            if key["op"] == "read":
                os.preadv(file, [buffers[number]], offset)
            else:
                os.pwritev(file, [buffers[number]], offset)

    def take(_: int) -> Reading:
        with _opened(path) as file:
            started = time.perf_counter()
            list(pool.map(lambda number: worker(number, file), range(key["depth"])))
            seconds = time.perf_counter() - started
        return Reading(seconds, seconds)

    return Custom(take, nbytes=float(count * size))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | getattr(os, "O_DIRECT", 0))
    try:
        yield file
    finally:
        os.close(file)


def anchor(lab: Lab, what: str) -> Trial:
    """The same two measurements at start, middle and end: a product and a copy."""
    if what == "gemm":
        size = 256 if lab.cpu else 8192
        x, y = lab.random(size, size), lab.random(size, size)
        return Kernel(lambda _: torch.mm(x, y), flops=2.0 * size**3)
    count = (4 if lab.cpu else 1024) * MIB // 4
    source = lab.pool("stream x", count, torch.float32)
    target = lab.pool("stream y", count, torch.float32)
    return Kernel(lambda _: target.copy_(source), nbytes=8.0 * count)
