"""What may go wrong on a GPU, provoked with stand-ins. Run as a script; prints one line per hazard that was handled."""

from __future__ import annotations

import gc
import re
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import rehearsal
import torch

from calibration.kernels import verify
from calibration.kernels.spec import Check
from calibration.suite import bench_memory, bench_overlap, benches, preflight, runner, timing
from calibration.suite.facts import Facts, cpu_costs
from calibration.suite.lab import Lab
from calibration.suite.plan import Plan
from calibration.suite.point import point
from calibration.suite.samples import read_samples
from hw_profiles.errors import InputError

FACTS = Facts("cuda", "none", "9.0", 1, 64 * 1024, 1 << 30, 1 << 30, 1 << 30)


def refusal(call: Callable[[], object]) -> str:
    """What the InputError says that a call ends in; empty if it ends in none."""
    try:
        call()
    except InputError as error:
        return str(error)
    return ""


def a_sample_that_was_late_is_taken_again(place: Lab) -> None:
    """The first time may have compiled something; from then on the GPU waits twice as long each time."""
    waited, late = [], [True, True, True, False]
    place.wait = lambda steps, stream=None: waited.append(steps)
    place.has_passed = lambda event: late.pop(0)
    kernel = timing.Kernel(lambda _: None)
    assert not kernel.sample(place, 0, cold=False).late
    assert waited == [2, 2, 4, 8], waited
    late += [False]
    kernel.sample(place, 1, cold=False)
    assert waited[4:] == [8]  # what was found out is kept
    place.has_passed = lambda event: True
    found = timing.measure(place, timing.Kernel(lambda _: None), samples=3, warmups=0, cold=False)
    assert found.flags[-1] == "late", found.flags
    blocking = timing.measure(place, timing.Kernel(lambda _: None, blocking=True), samples=3, warmups=0, cold=False)
    assert "late" not in blocking.flags


def a_graph_keeps_its_tensors(place: Lab) -> None:
    """Their addresses are in it."""
    tensor = torch.zeros(4)
    alive = weakref.ref(tensor)
    graph = bench_memory.graph_of(place, lambda held=tensor: held.add_(1), 1)
    del tensor
    gc.collect()
    assert alive() is not None
    del graph
    gc.collect()
    assert alive() is None


def streams_are_made_once(place: Lab) -> None:
    """torch deals out the same 32 again and again."""
    made = []
    torch.cuda.Stream = lambda: made.append(rehearsal.Stream()) or made[-1]
    for _ in range(3):
        for traffic in ("h2d", "d2h_kernel", "d2d"):
            bench_overlap.beside(place, {"kernel": "stream_read", "traffic": traffic}).sample(place, 0, cold=False)
    assert len(made) == 4, len(made)


def memory_that_is_too_short_is_freed(place: Lab) -> None:
    """Pools of other benches go first."""
    place.pool("large", 1 << 20)
    asked = []

    def attempt() -> dict[str, int]:
        asked.append(len(place._pools))
        if place._pools:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return {"fits": 1}

    assert runner._with_memory(place, attempt) == {"fits": 1}
    assert asked[0] > 0 == asked[1]


def a_gpu_that_has_failed_ends_the_run(folder: Path) -> None:
    """Everything after would fail, too: it is not written down as measured, and a run that goes on measures it."""
    path, points = folder / "failed.jsonl", [point(cpu_costs(1 << 20), "launch", 1e-6, {"what": w}) for w in "abc"]
    failed = []

    def bench(lab: Lab, key: dict[str, str]) -> timing.Trial:
        if len(failed) == 0 and key["what"] == order[1]:
            failed.append(1)
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")
        return timing.Custom(lambda _: timing.Reading(1e-6, 1e-6))

    def synchronize(lab: Lab) -> None:
        if len(failed) == 1:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    plan = Plan(tuple(points), passes=1)
    order = [one.key["what"] for one in plan.order(0)]
    runner.BENCHES = {"launch": bench}
    runner._check_kernels = lambda *_: set()
    runner._anchor = lambda *_: {"us": [1.0]}
    runner.Lab = partial(Lab, device=torch.device("cpu"))
    Lab.synchronize, whole = synchronize, Lab.synchronize
    said = refusal(lambda: runner.run_plan(FACTS, plan, path))
    assert re.search("the GPU failed at launch .*illegal memory access.*--resume", said), said
    assert "\n" not in said
    found = read_samples(path)
    assert ([r["key"]["what"] for r in found.samples], len(found.problems)) == ([order[0]], 1)
    failed.append(2)
    runner.run_plan(FACTS, plan, path, before=found)
    assert [r["key"]["what"] for r in read_samples(path).samples] == [order[0], order[2]]
    runner.BENCHES, runner.Lab, Lab.synchronize = benches.BENCHES, Lab, whole


def a_wrong_kernel_stops_its_own_points_alone() -> None:
    stopped = {
        name: [
            form for form in ("bf16", "int8", "int4") if name.startswith(benches.checked_by("decode", {"format": form}))
        ]
        for name in ("decode_int4", "decode_mha")
    }
    assert stopped == {"decode_int4": ["int4"], "decode_mha": ["bf16"]}, stopped
    for bench, key, name, stops in (
        ("gemm", {"impl": "torch"}, "gemm", False),
        ("gemm", {"impl": "triton"}, "gemm", True),
        ("prefill", {"impl": "triton"}, "prefill_prefix", True),
        ("blocks", {"method": "loop"}, "address_copy", False),
        ("blocks", {"method": "kernel"}, "address_copy", True),
        ("both_ways", {"h2d": "loop", "d2h": "kernel"}, "address_copy", True),
        ("beside", {"kernel": "gemm", "traffic": "h2d"}, "address_copy", False),
        ("beside", {"kernel": "gemm", "traffic": "d2h_kernel"}, "address_copy", True),
        ("beside", {"kernel": "stream_read", "traffic": "none"}, "stream_read", True),
        ("stream", {"op": "write"}, "stream_read", False),
        ("copy", {}, "stream_read", False),
    ):
        assert name.startswith(benches.checked_by(bench, key)) is stops, (bench, key, name)


def a_result_that_is_infinite_can_be_written() -> None:
    found = verify.verify(Check("infinite", lambda place: float("inf")), "bf16", torch.device("cpu"))
    assert (found.ok, found.error) == (False, None)


def a_compiler_that_is_missing_is_one_line() -> None:
    from calibration.kernels import chase

    def fails(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore")

    preflight.try_kernel("cpu")
    chase.follow, whole = fails, chase.follow
    said = refusal(lambda: preflight.try_kernel("cpu"))
    assert said == "Triton cannot run a kernel here: Failed to find C compiler", said
    chase.follow = whole


def errors_of_the_gpu_are_one_line() -> None:
    def raised(error: Exception) -> None:
        with preflight.gpu_errors():
            raise error

    memory = refusal(lambda: raised(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")))
    assert memory == "too little memory on the GPU: CUDA out of memory", memory
    lost = refusal(lambda: raised(RuntimeError("CUDA error: unspecified launch failure\nCompile with ...")))
    assert lost == "the GPU failed: CUDA error: unspecified launch failure", lost
    with suppress(RuntimeError):  # a bug stays what it is
        assert not refusal(lambda: raised(RuntimeError("a tensor of another shape")))


def a_driver_that_is_too_old_says_so() -> None:
    torch.cuda.is_available = lambda: False
    torch.version.cuda, torch.version.hip = "13.0", None
    preflight.ctypes.util.find_library = lambda name: "libcuda.so.1"
    preflight.os.environ.pop("CUDA_VISIBLE_DEVICES", None)

    def fails() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update")

    torch.cuda.init = fails
    assert "TRITON_INTERPRET: Triton would interpret kernels on the host" in refusal(preflight.device_facts)
    preflight.os.environ.pop("TRITON_INTERPRET")
    said = refusal(preflight.device_facts)
    assert "too old (found version 11040); --plan needs none" in said, said


def main(folder: str) -> None:
    rehearsal.stand_in()
    for hazard in (
        a_sample_that_was_late_is_taken_again,
        a_graph_keeps_its_tensors,
        streams_are_made_once,
        memory_that_is_too_short_is_freed,
    ):
        hazard(Lab(FACTS, device=torch.device("cpu")))
        print(hazard.__name__)
    a_gpu_that_has_failed_ends_the_run(Path(folder))
    print("a_gpu_that_has_failed_ends_the_run")
    for hazard in (
        a_wrong_kernel_stops_its_own_points_alone,
        a_result_that_is_infinite_can_be_written,
        a_compiler_that_is_missing_is_one_line,
        errors_of_the_gpu_are_one_line,
        a_driver_that_is_too_old_says_so,
    ):
        hazard()
        print(hazard.__name__)


if __name__ == "__main__":
    main(sys.argv[1])
