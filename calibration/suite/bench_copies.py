"""Trials of copies: single, many blocks, both ways at once, one behind another, copy kernels by size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from calibration.suite.block_copies import BlockCopier, Submit
from calibration.suite.lab import WAIT_STEPS, Lab
from calibration.suite.timing import Custom, Kernel, Reading, Trial

KIB, MIB = 2**10, 2**20
STEP_S = 0.2e-6
"""Least time of one step of `Lab.wait`."""
SUBMIT_S = {"loop": 5e-6, "batch": 0.8e-6, "kernel": 0.0}
"""Time that the host may need per block: so long the stream waits, so that what is timed is the copying."""
MOST_QUEUED = 512
"""Copies that a stream takes before the host has to wait (its queue holds about a thousand)."""
BOTH_BYTES, BOTH_BLOCK = 256 * MIB, 2 * MIB
BEHIND_BYTES, BEHIND_SMALL = 64 * MIB, 4 * KIB


def copy(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: direction, memory (pinned, pageable), bytes."""
    device = lab.pool("copy device", key["bytes"])
    host = lab.pool(f"copy {key['memory']}", key["bytes"], host=key["memory"])
    target, source = (device, host) if key["direction"] == "h2d" else (host, device)
    return Kernel(lambda _: target.copy_(source, non_blocking=True), nbytes=float(key["bytes"]))


def blocks(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: direction, method, bytes (of one block), blocks. Device time of all; the host's time of submitting all.

    Where the queue cannot hold all copies, the device time is that of submitting and copying together (`queued` 0).
    """
    method, count = key["method"], key["blocks"]
    stream = lab.inward if key["direction"] == "h2d" else lab.outward
    submit = BlockCopier(lab).blocks(key["direction"], method, key["bytes"], count, stream)
    queued = method != "loop" or count <= MOST_QUEUED
    steps = WAIT_STEPS + int(count * SUBMIT_S[method] / STEP_S) if queued else WAIT_STEPS

    def take(_: int) -> Reading:
        device_s, host_s = _timed(lab, stream, submit, steps)
        return Reading(device_s, host_s, {"queued": float(queued)})

    return Custom(take, nbytes=float(key["bytes"] * count))


def programs(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: direction, programs: 64 MiB in blocks of 64 KiB by a copy kernel of so many programs."""
    stream = lab.inward if key["direction"] == "h2d" else lab.outward
    copier = BlockCopier(lab)
    submit = copier.blocks(key["direction"], "kernel", 64 * KIB, 1024, stream, programs=key["programs"])
    return Custom(lambda _: Reading(*_timed(lab, stream, submit, WAIT_STEPS)), nbytes=64.0 * MIB)


def _timed(lab: Lab, stream: Any, submit: Submit, steps: int) -> tuple[float, float]:
    start, end = lab.event(), lab.event()
    lab.wait(stream, steps)
    started = time.perf_counter()
    start.record(stream)
    submit()
    end.record(stream)
    host = time.perf_counter() - started
    end.synchronize()
    return 1e-3 * start.elapsed_time(end), host


def both_ways(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: h2d, d2h (methods): 256 MiB each way in blocks of 2 MiB, started together; seconds until both are done."""
    copier, count = BlockCopier(lab), BOTH_BYTES // BOTH_BLOCK
    streams = (lab.inward, lab.outward)
    work = [
        copier.blocks(direction, key[direction], BOTH_BLOCK, count, stream)
        for direction, stream in zip(("h2d", "d2h"), streams, strict=True)
    ]

    def take(_: int) -> Reading:
        (h2d, d2h), host = together(lab, streams, work)
        return Reading(max(h2d, d2h), host, {"h2d_s": h2d, "d2h_s": d2h})

    return Custom(take, nbytes=2.0 * BOTH_BYTES)


def behind(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: direction, chunk: seconds until a copy of 4 KiB is done that became ready just after 64 MiB in chunks."""
    copier, chunk = BlockCopier(lab), key["chunk"]
    streams = (lab.inward, lab.side) if key["direction"] == "h2d" else (lab.outward, lab.side)
    long = copier.blocks(key["direction"], "loop", chunk, BEHIND_BYTES // chunk, streams[0])
    # its own pools: a copy of 4 KiB that shares no bytes with the long one
    device, host = lab.pool("behind device", BEHIND_SMALL), lab.pool("behind host", BEHIND_SMALL, host="pinned")
    target, source = (device, host) if key["direction"] == "h2d" else (host, device)

    def small() -> None:
        with torch.cuda.stream(streams[1]):
            target.copy_(source, non_blocking=True)

    def take(_: int) -> Reading:
        (all_s, small_s), host_s = together(lab, streams, [long, small])
        return Reading(small_s, host_s, {"all_s": all_s})

    return Custom(take, nbytes=float(BEHIND_SMALL))


def together(
    lab: Lab, streams: Sequence[Any], work: Sequence[Callable[[], None]], waits: int = 20
) -> tuple[list[float], float]:
    """(seconds from a common start until each stream has done its work, the host's time); all are let go at once."""
    start, ends = lab.event(), [lab.event() for _ in streams]
    lab.wait(steps=waits * WAIT_STEPS)
    start.record()
    started = time.perf_counter()
    for stream, submit, end in zip(streams, work, ends, strict=True):
        stream.wait_event(start)
        submit()
        end.record(stream)
    host = time.perf_counter() - started
    lab.synchronize()
    return [1e-3 * start.elapsed_time(end) for end in ends], host
