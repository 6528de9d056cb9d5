"""Every bench of the GPU suite, rehearsed on the CPU: kernels in Triton's interpreter, CUDA calls of torch played by
stand-ins, copies by address really made. What cannot be seen so is time. Run as a script: writes samples of all of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from calibration.suite import (
    bench_copies,
    bench_host,
    bench_kv,
    bench_memory,
    bench_overlap,
    bench_products,
    benches,
    block_copies,
    lab,
    runner,
    timing,
)
from calibration.suite.facts import Facts
from calibration.suite.plan import Plan
from calibration.suite.point import Point
from calibration.suite.samples import FILE

KIB = 2**10


class Event:
    def __init__(self, enable_timing=False):
        self.at = None

    def record(self, stream=None):
        self.at = time.perf_counter()

    def elapsed_time(self, other):
        return 1e3 * (other.at - self.at)

    def synchronize(self):
        assert self.at is not None

    def query(self):
        return self.at is not None


class Stream:
    cuda_stream = 0

    def wait_event(self, event):
        assert event.at is not None, "waits for an event that was never recorded"

    def wait_stream(self, stream): ...

    def synchronize(self): ...


class Graph:
    """Records nothing: the work ran when it was captured."""

    def replay(self): ...


class Runtime:
    """Copies at once, by address."""

    has_batch = True

    def copy_each(self, targets, sources, size, stream):
        for target, source in zip(targets.tolist(), sources.tolist(), strict=True):
            ctypes.memmove(target, source, size)

    def copy_batch(self, targets, sources, sizes, stream):
        for target, source, size in zip(targets.tolist(), sources.tolist(), sizes.tolist(), strict=True):
            ctypes.memmove(target, source, size)


def stand_in() -> None:
    """Play CUDA on the CPU, and shrink what an interpreter cannot do in seconds."""
    cuda = torch.cuda
    cuda.Event, cuda.Stream, cuda.CUDAGraph = Event, Stream, Graph
    cuda.stream = cuda.graph = lambda other: contextlib.nullcontext()
    cuda.synchronize = cuda.empty_cache = lambda *rest: None
    cuda.current_stream = Stream
    registers = SimpleNamespace(cudaHostRegister=lambda *_: 0, cudaHostUnregister=lambda _: 0)
    cuda.cudart = lambda: registers
    torch.Tensor.record_stream = lambda self, stream: None
    torch.Tensor.is_cuda = property(lambda self: True)
    for name in ("empty", "zeros"):
        setattr(torch, name, unpinned(getattr(torch, name)))
    lab.Lab.has_passed = lambda self, event: False
    block_copies.Runtime = Runtime
    small = {
        timing: {"WAIT_STEPS": 2},
        bench_memory: {"TINY_LAUNCHES": 2, "L2_SECONDS": 1e-9, "WAIT_STEPS": 2}
        | {"CHASE_BYTES": {"hbm": 64 * KIB, "host": 64 * KIB}, "CHASE_STEPS": {"l2": 5, "hbm": 5, "host": 5}},
        bench_copies: {"STEP_S": 1.0, "BOTH_BYTES": 64 * KIB, "BOTH_BLOCK": 16 * KIB, "BEHIND_BYTES": 64 * KIB}
        | {"WAIT_STEPS": 2},
        bench_overlap: {"BLOCK": 4 * KIB, "BLOCKS": 3, "WITHIN": 1, "MIB": 64, "OVERLAP_S": 1e-9, "WAIT_STEPS": 2},
        bench_host: {"NVME_BYTES": 64 * KIB, "NVME_FILE_BYTES": 256 * KIB},
        bench_products: {"HIDDEN": 64, "FFN": 128, "HEADS": 4, "KV_HEADS": 2, "HEAD_DIM": 32, "VOCABULARY": 100},
        bench_kv: {"KV_HEADS": 2},
    }
    for module, changes in small.items():
        for name, value in changes.items():
            assert hasattr(module, name), (module.__name__, name)
            setattr(module, name, value)


def unpinned(make):
    """A function of torch that makes tensors, without pinning them."""

    def made(*size, pin_memory=False, **more):
        return make(*size, **more)

    return made


def each(**values):
    """Every combination of the values."""
    return [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]


HEADS = {"heads": [8], "kv_heads": [2]}
WAYS = ["h2d", "d2h"]
KEYS = {
    "stream": each(op=["read", "write", "copy"], bytes=[64 * KIB, 128 * KIB, 192 * KIB, 256 * KIB]),
    "l2_read": each(bytes=[16 * KIB, 32 * KIB, 48 * KIB, 64 * KIB, 96 * KIB, 128 * KIB, 256 * KIB]),
    "chase": each(where=["l2", "hbm", "host"]),
    "l2_prefetch": each(method=["cold", "hot"], bytes=[64 * KIB], other=[0, 64 * KIB]),
    "gemm_beside_prefetch": [],  # large, and nothing but torch without the prefetch
    "launch": each(what=["stream", "single", "graph_1", "graph_100", "sync", "event", "h2d_4", "d2h_4"]),
    "decode": each(format=["bf16"], page=[16], batch=[1, 2], seq=[20, 40], **HEADS)
    + each(format=["int8", "fp8", "int4"], page=[16], batch=[2], seq=[40], **HEADS)
    + each(format=["int2"], page=[64], batch=[2], seq=[40], **HEADS),
    "decode_skew": [],  # wants 32 heads of 128: `skewed` has a test of its own
    "mla": each(heads=[16], batch=[1], seq=[40]),
    "prefill": each(impl=["triton"], tokens=[10, 20], prefix=[0, 30], **HEADS)
    + each(impl=["sdpa"], tokens=[20], prefix=[30], **HEADS),
    "gemm": each(dtype=["bf16"], impl=["torch"], m=[1, 3, 8, 30], n=[32, 64], k=[64])
    + each(dtype=["bf16"], impl=["triton"], m=[3], n=[32], k=[64]),
    "elementwise": each(op=["rms_norm", "silu_gate", "rotary", "kv_write", "sample"], tokens=[3]),
    "layer": each(batch=[2], seq=[33]),
    "page_copy": each(bytes=[4 * KIB], pages=[5]),
    "quantise": each(format=["int8", "int4", "int2"], op=["quantise", "dequantise"], numbers=[64 * 128]),
    "digest": each(what=["build", "score", "top"], pages=[24], batch=[2]),
    "copy": each(direction=WAYS, memory=["pinned"], bytes=[4 * KIB, 64 * KIB, 16384 * KIB])
    + each(direction=WAYS, memory=["pageable"], bytes=[16384 * KIB]),
    "blocks": each(direction=WAYS, method=["loop", "batch"], bytes=[KIB * 4**i for i in range(5)], blocks=[7])
    + each(direction=WAYS, method=["kernel"], bytes=[4 * KIB], blocks=[7]),
    "both_ways": each(h2d=["loop", "kernel"], d2h=["loop", "kernel"]),
    "behind": each(direction=WAYS, chunk=[16 * KIB]),
    "programs": [],  # 64 MiB in the interpreter
    "from_host": [],  # as `decode`, at 32 heads of 128
    "beside": each(kernel=["stream_read"], traffic=["none", "h2d", "both", "d2h_kernel", "d2d"])
    + each(kernel=["stream_copy"], traffic=["none", "d2h"]),
    "host_memcpy": each(threads=[2], bytes=[64 * KIB]),
    "pin": each(bytes=[64 * KIB]),
    "nvme": each(op=["read", "write"], bytes=[16 * KIB], depth=[2]),
}


def copies_arrive(place: lab.Lab) -> bool:
    """Every block of a pool lands in its own slot, by each method and direction."""
    copier = block_copies.BlockCopier(place)
    for direction in ("h2d", "d2h", "d2d"):
        for method in ("loop", "batch", "kernel"):
            submit = copier.blocks(direction, method, 256, 6, Stream())
            near, far = (place.pool(f"blocks {side} {direction}", 8 * 256) for side in ("device", "other"))
            source, target = (far, near) if direction == "h2d" else (near, far)
            source.copy_(torch.arange(8, dtype=torch.uint8).repeat_interleave(256) + 1)
            target.zero_()
            submit()
            found = sorted(int(block[0]) for block in target.view(8, 256) if bool((block == block[0]).all()))
            if found[:2] != [0, 0] or len(set(found[2:])) != 6:
                return False
    return True


def main(folder: str) -> None:
    """One pass over every point, as `kvsim calibrate run` makes it, into folder/samples.jsonl."""
    stand_in()
    cpu = torch.device("cpu")
    facts = Facts("cuda", "none", "9.0", 1, 64 * KIB, 1 << 30, 1 << 30, 1 << 30)
    assert set(KEYS) == set(benches.BENCHES)
    print(json.dumps({"copies_arrive": copies_arrive(lab.Lab(facts, device=cpu))}))
    points = [
        Point(bench, key, seconds=0.0, samples=1, warmups=0, cold=False) for bench, keys in KEYS.items() for key in keys
    ]
    runner.Lab = partial(lab.Lab, device=cpu)
    runner._check_kernels = lambda *_: set()  # a test of its own
    runner._anchor = lambda *_: {"us": [1.0]}  # the interpreter's speed is not the card's
    runner.run_plan(facts, Plan(tuple(points), passes=1), Path(folder) / FILE, disk=Path(folder))


if __name__ == "__main__":
    main(sys.argv[1])
