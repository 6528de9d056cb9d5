"""Trials of kernels beside copies: what each kind of traffic does to each kind of kernel."""

from __future__ import annotations

import math
from typing import Any

import torch

from calibration.suite.bench_attention import decode
from calibration.suite.bench_copies import TOGETHER_WAITS, together
from calibration.suite.bench_memory import stream_launch
from calibration.suite.block_copies import BlockCopier, Submit
from calibration.suite.lab import Lab
from calibration.suite.plan_copies import OVERLAP_S
from calibration.suite.timing import WAIT_STEPS, Custom, Kernel, Launch, Patience, Reading, Trial

MIB = 2**20
BLOCK, BLOCKS = 2 * MIB, 64
"""Traffic comes in rounds of 64 blocks of 2 MiB, within HBM of as many bytes in fewer blocks."""
WITHIN = 16
"""So many times as large, and as few: a stream's queue holds about a thousand copies."""
GATE_WAITS = 100
"""Everything waits for a common start, so many times as long as a single kernel (to begin with), while the host
submits."""
LONGER = 1.4
"""Traffic is made to last longer than the kernels."""


def beside(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: kernel, traffic. Seconds per launch of the kernel; extra: bytes of traffic, its seconds, launches.

    `covered` is 1 if the traffic outlasted the kernels, as it must for the slowdown to be that of the traffic.
    """
    launch, nbytes, flops = _kernel(lab, key["kernel"])
    alone = min(Kernel(launch).sample(lab, number, cold=False).device_s for number in range(3))
    repeats = max(1, math.ceil(OVERLAP_S / alone))
    traffic, compute = _traffic(lab, key["traffic"]), lab.compute
    rounds = [math.ceil(LONGER * OVERLAP_S / _round_s(lab, stream, submit)) for stream, submit in traffic]

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

    def once(steps: int) -> Reading:
        (kernel_s, *traffic_s), host_s, late = together(lab, streams, work, steps)
        extra = {"launches": float(repeats), "covered": float(all(s >= kernel_s for s in traffic_s))}
        for number, (count, seconds) in enumerate(zip(rounds, traffic_s, strict=True)):
            extra |= {f"traffic_{number}_bytes": float(count * BLOCK * BLOCKS), f"traffic_{number}_s": seconds}
        return Reading(kernel_s / repeats, host_s, extra, late)

    patience = Patience(GATE_WAITS * WAIT_STEPS)
    return Custom(lambda _: patience.sample(once), nbytes=nbytes, flops=flops)


def _round_s(lab: Lab, stream: Any, submit: Submit) -> float:
    """Seconds of one round of traffic alone: the second, since the first finds nothing ready."""
    return [together(lab, [stream], [submit], TOGETHER_WAITS * WAIT_STEPS)[0][0] for _ in range(2)][1]


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


def _traffic(lab: Lab, name: str) -> list[tuple[Any, Submit]]:
    """(stream, function that submits one round) per direction."""
    copier, streams = BlockCopier(lab), {"h2d": lab.inward, "d2h": lab.outward, "d2d": lab.side}
    if name == "d2d":
        return [(lab.side, copier.blocks("d2d", "loop", WITHIN * BLOCK, BLOCKS // WITHIN, lab.side))]
    directions = {"none": [], "both": ["h2d", "d2h"]}.get(name, [name.removesuffix("_kernel")])
    method = "kernel" if name.endswith("_kernel") else "loop"
    return [
        (streams[direction], copier.blocks(direction, method, BLOCK, BLOCKS, streams[direction]))
        for direction in directions
    ]
