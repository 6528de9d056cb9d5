"""Trials of kernels beside copies: what each kind of traffic does to each kind of kernel."""

from __future__ import annotations

import math
from typing import Any

import torch

from calibration.suite.bench_attention import decode
from calibration.suite.bench_copies import together
from calibration.suite.bench_memory import stream_launch
from calibration.suite.block_copies import BlockCopier, Submit
from calibration.suite.lab import Lab
from calibration.suite.plan_copies import OVERLAP_S
from calibration.suite.timing import Custom, Kernel, Launch, Reading, Trial

MIB = 2**20
BLOCK, BLOCKS = 2 * MIB, 64
"""Traffic comes in rounds of 64 blocks of 2 MiB."""
GATE_WAITS = 100
"""Everything waits for a common start, so many times `Lab.wait` or about 10 ms, while the host submits."""
LONGER = 1.4
"""Traffic is made to last longer than the kernels."""
LINK, MEMORY = 55e9, 1.2e12
"""Rates (bytes/s) that traffic is expected to have at most: copies over the link, copies within HBM."""


def beside(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: kernel, traffic. Seconds per launch of the kernel; extra: bytes of traffic, its seconds, launches.

    `covered` is 1 if the traffic outlasted the kernels, as it must for the slowdown to be that of the traffic.
    """
    launch, nbytes, flops = _kernel(lab, key["kernel"])
    alone = min(Kernel(launch).sample(lab, number, cold=False).device_s for number in range(3))
    repeats = max(1, math.ceil(OVERLAP_S / alone))
    traffic, rates = _traffic(lab, key["traffic"])
    compute = torch.cuda.Stream()
    rounds = [math.ceil(LONGER * OVERLAP_S * rate / (BLOCK * BLOCKS)) for rate in rates]

    def kernels() -> None:
        with torch.cuda.stream(compute):
            for number in range(repeats):
                launch(number)

    def again(submit: Submit, count: int) -> Submit:
        def rounds_of_copies() -> None:
            for _ in range(count):
                submit()

        return rounds_of_copies

    streams = [compute, *(stream for stream, _ in traffic)]
    work = [kernels, *(again(submit, count) for (_, submit), count in zip(traffic, rounds, strict=True))]

    def take(_: int) -> Reading:
        (kernel_s, *traffic_s), host_s = together(lab, streams, work, waits=GATE_WAITS)
        extra = {"launches": float(repeats), "covered": float(all(s >= kernel_s for s in traffic_s))}
        for number, (count, seconds) in enumerate(zip(rounds, traffic_s, strict=True)):
            extra |= {f"traffic_{number}_bytes": float(count * BLOCK * BLOCKS), f"traffic_{number}_s": seconds}
        return Reading(kernel_s / repeats, host_s, extra)

    return Custom(take, nbytes=nbytes, flops=flops)


def _kernel(lab: Lab, name: str) -> tuple[Launch, float, float]:
    """(launch, bytes, FLOP): far larger than L2, so that repetitions are cold."""
    if name == "gemm":
        x, weight = lab.random(4096, 8192), lab.random(8192, 8192)
        y = torch.empty(4096, 8192, dtype=lab.dtype, device=lab.device)
        return lambda _: torch.mm(x, weight.t(), out=y), 0.0, 2.0 * 4096 * 8192 * 8192
    if name == "decode":
        trial = decode(lab, {"format": "bf16", "heads": 32, "kv_heads": 8, "page": 16, "batch": 32, "seq": 8192})
        assert isinstance(trial, Kernel)
        return trial.launch, trial.nbytes, 0.0
    op = name.removeprefix("stream_")
    count = 512 * MIB // 4
    x, y = lab.pool("stream x", count, torch.float32), lab.pool("stream y", count, torch.float32)
    return stream_launch(lab, op, x, y), 4.0 * count * (2 if op == "copy" else 1), 0.0


def _traffic(lab: Lab, name: str) -> tuple[list[tuple[Any, Submit]], list[float]]:
    """(stream, function that submits one round) per direction, and the rates to expect."""
    directions = {"none": [], "both": ["h2d", "d2h"]}.get(name, [name.removesuffix("_kernel")])
    method = "kernel" if name.endswith("_kernel") else "loop"
    copier, streams = BlockCopier(lab), {"h2d": lab.inward, "d2h": lab.outward, "d2d": lab.side}
    work = [
        (streams[direction], copier.blocks(direction, method, BLOCK, BLOCKS, streams[direction]))
        for direction in directions
    ]
    return work, [MEMORY if direction == "d2d" else LINK for direction in directions]
