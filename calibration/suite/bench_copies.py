"""Trials of copies: single, many blocks, both ways at once, one behind another, copy kernels by size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from calibration.suite.block_copies import BlockCopier, Submit
from calibration.suite.lab import Lab
from calibration.suite.timing import WAIT_STEPS, Custom, Kernel, Patience, Reading, Trial

KIB, MIB = 2**10, 2**20
STEP_S = 0.2e-6
"""Least time of one step of `Lab.wait`."""
SUBMIT_S = {"loop": 5e-6, "batch": 0.8e-6, "kernel": 0.0}
"""Time that the host may need per block: so long the stream waits, so that what is timed is the copying."""
MOST_QUEUED = 512
"""Copies that a stream takes before the host has to wait (its queue holds about a thousand)."""
BOTH_BYTES, BOTH_BLOCK = 256 * MIB, 2 * MIB
BEHIND_BYTES, BEHIND_SMALL = 64 * MIB, 4 * KIB
TOGETHER_WAITS = 20
"""What starts together waits so many times as long as a single kernel, to begin with."""


def copy(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: direction, memory (pinned, pageable), bytes."""
    device = lab.pool("copy device", key["bytes"])
    host = lab.pool(f"copy {key['memory']}", key["bytes"], host=key["memory"])
    target, source = (device, host) if key["direction"] == "h2d" else (host, device)
    blocking = key["memory"] == "pageable"
    return Kernel(lambda _: target.copy_(source, non_blocking=True), nbytes=float(key["bytes"]), blocking=blocking)


def blocks(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: direction, method, bytes (of one block), blocks. Device time of all; the host's time of submitting all.

    Where the queue cannot hold all copies, the device time is that of submitting and copying together (`queued` 0).
    """
    method, count = key["method"], key["blocks"]
    stream = lab.inward if key["direction"] == "h2d" else lab.outward
    submit = BlockCopier(lab).blocks(key["direction"], method, key["bytes"], count, stream)
    queued = method != "loop" or count <= MOST_QUEUED
    if not queued:
        return Custom(
            lambda _: _timed(lab, stream, submit, WAIT_STEPS)._replace(extra={"queued": 0.0}, late=False),
            nbytes=float(key["bytes"] * count),
        )
    patience = Patience(WAIT_STEPS + int(count * SUBMIT_S[method] / STEP_S))

    def take(_: int) -> Reading:
        return patience.sample(lambda steps: _timed(lab, stream, submit, steps))._replace(extra={"queued": 1.0})

    return Custom(take, nbytes=float(key["bytes"] * count))


def programs(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: direction, programs: 64 MiB in blocks of 64 KiB by a copy kernel of so many programs."""
    stream = lab.inward if key["direction"] == "h2d" else lab.outward
    copier = BlockCopier(lab)
    submit, patience = (
        copier.blocks(key["direction"], "kernel", 64 * KIB, 1024, stream, programs=key["programs"]),
        Patience(WAIT_STEPS),
    )
    return Custom(lambda _: patience.sample(lambda steps: _timed(lab, stream, submit, steps)), nbytes=64.0 * MIB)


def _timed(lab: Lab, stream: Any, submit: Submit, steps: int) -> Reading:
    start, end = lab.event(), lab.event()
    lab.wait(steps, stream)
    started = time.perf_counter()
    start.record(stream)
    submit()
    end.record(stream)
    host, late = time.perf_counter() - started, lab.has_passed(start)
    end.synchronize()
    return Reading(1e-3 * start.elapsed_time(end), host, late=late)


def both_ways(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: h2d, d2h (methods): 256 MiB each way in blocks of 2 MiB, started together; seconds until both are done."""
    copier, count = BlockCopier(lab), BOTH_BYTES // BOTH_BLOCK
    streams = (lab.inward, lab.outward)
    work = [
        copier.blocks(direction, key[direction], BOTH_BLOCK, count, stream)
        for direction, stream in zip(("h2d", "d2h"), streams, strict=True)
    ]

    def once(steps: int) -> Reading:
        (h2d, d2h), host, late = together(lab, streams, work, steps)
        return Reading(max(h2d, d2h), host, {"h2d_s": h2d, "d2h_s": d2h}, late)

    patience = Patience(TOGETHER_WAITS * WAIT_STEPS)
    return Custom(lambda _: patience.sample(once), nbytes=2.0 * BOTH_BYTES)


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

    def once(steps: int) -> Reading:
        (all_s, small_s), host_s, late = together(lab, streams, [long, small], steps)
        return Reading(small_s, host_s, {"all_s": all_s}, late)

    patience = Patience(TOGETHER_WAITS * WAIT_STEPS)
    return Custom(lambda _: patience.sample(once), nbytes=float(BEHIND_SMALL))


def together(
    lab: Lab, streams: Sequence[Any], work: Sequence[Callable[[], None]], steps: int
) -> tuple[list[float], float, bool]:
    """(seconds from a common start until each stream has done its work, the host's time, whether the start came before
    everything was submitted); all are let go at once, after so many steps of `Lab.wait`."""
    start, ends = lab.event(), [lab.event() for _ in streams]
    lab.wait(steps)
    start.record()
    started = time.perf_counter()
    for stream, submit, end in zip(streams, work, ends, strict=True):
        stream.wait_event(start)
        submit()
        end.record(stream)
    host, late = time.perf_counter() - started, lab.has_passed(start)
    lab.synchronize()
    return [1e-3 * start.elapsed_time(end) for end in ends], host, late
