"""Is there a GPU to measure, and may we: each thing that is missing is one line that says what to do.

Settings of the card are only read, never changed.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calibration.suite.facts import GIB, Facts
from hw_profiles.errors import InputError

EXTRA = "install kvsim with its extra `gpu`, such as: pip install -e '.[gpu]'"
LEAST_FREE = 12 * GIB
"""Device memory that the suite's pools and weights need."""
CONTEXT_BYTES, CONTEXT_SHARE = 1.5 * GIB, 0.05
"""What a CUDA context and a display may take (the larger counts); more means that somebody works on the card."""
MOST_BUSY = 10
"""Percent of the time that kernels of others may run."""
LEAST_CAPABILITY = (8, 0)
"""Ampere, the first with bf16 tensor cores."""
CPU_CACHE_BYTES = 2 * 2**20
"""What passes through a CPU's caches between two uses of a weight of the mini engine's model is a few times as much."""
_IN_USE = "is in use by others (nvidia-smi shows by whom; CUDA_VISIBLE_DEVICES chooses another card)"
SETTINGS = (
    *("name", "uuid", "driver_version", "pcie.link.gen.current", "pcie.link.gen.max", "pcie.link.width.current"),
    *("clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "temperature.gpu", "power.draw", "power.limit"),
    *("utilization.gpu", "ecc.mode.current", "mig.mode.current"),
)


def require(*modules: str) -> None:
    """Raise InputError for a module that is not installed, naming the extra."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise InputError(f"{module} is not installed: {EXTRA}")


def device_facts(kind: str = "cuda") -> Facts:
    """What there is to measure; `kind` cpu is for tests. Raises InputError when it cannot be measured."""
    if kind == "cpu":
        require("torch")
        return cpu_facts()
    require("torch", "triton")
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        raise InputError("Triton would interpret kernels on the host: unset it", where="TRITON_INTERPRET", found="1")
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what is said here in one line
        there, said = torch.cuda.is_available(), ""
        if not there and (torch.version.cuda or torch.version.hip):
            try:
                torch.cuda.init()
            except (RuntimeError, AssertionError) as error:
                said = first_line(error)
    if not there:
        hip = torch.version.hip is not None
        build = hip or torch.version.cuda is not None
        raise InputError(why_no_gpu(torch.__version__, gpu_build=build, hip=hip, said=said))
    with gpu_errors():
        facts = check_able(_gpu_facts())
    check_free(facts, read_settings(facts.uuid).get("utilization.gpu", ""))
    try_kernel()
    return facts


def check_able(facts: Facts) -> Facts:
    """`facts` if the kernels can run there at all. Raises InputError."""
    if facts.kind == "cuda" and tuple(map(int, facts.arch.split("."))) < LEAST_CAPABILITY:
        allowed = f"at least {'.'.join(map(str, LEAST_CAPABILITY))}: the kernels multiply bf16"
        raise InputError(f"compute capability of {facts.name}", found=facts.arch, allowed=allowed)
    return facts


def try_kernel(place: str = "cuda") -> None:
    """Compile and launch the smallest kernel: Triton wants a C compiler, and a driver that knows its code."""
    import torch

    from calibration.kernels import chase

    try:
        device = torch.device(place)
        chase.follow(chase.chain(4096, device), torch.zeros(1, dtype=torch.int64, device=device), 16)
        torch.cuda.synchronize()
    except Exception as error:  # noqa: BLE001 -- whatever it says is the finding
        raise InputError(f"Triton cannot run a kernel here: {first_line(error)}") from None


def check_profile(document: Mapping[str, Any], where: Path, facts: Facts) -> None:
    """Raise InputError unless a measured profile is of this machine."""
    device = (document.get("calibration") or {}).get("device") or {}
    for name, mine in (("kind", facts.kind), ("name", facts.name), ("arch", facts.arch)):
        if device.get(name) != mine:
            problem = "the profile was measured on another machine"
            raise InputError(
                problem, where=where, path=f"calibration.device.{name}", found=device.get(name), allowed=mine
            )


@contextmanager
def gpu_errors() -> Iterator[None]:
    """Turn what the GPU and its memory refuse into an InputError of one line."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(f"too little memory on the GPU: {first_line(error)}") from None
    except RuntimeError as error:
        if not first_line(error).startswith(("CUDA", "HIP", "cuda", "hip", "Triton")):
            raise
        raise InputError(f"the GPU failed: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """The first sentence of what an error says."""
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0][:200] if lines else type(error).__name__


def check_free(facts: Facts, busy: str = "") -> Facts:
    """`facts` if the card is ours to measure; busy: percent of time that kernels ran lately. Raises InputError."""
    taken = facts.memory_bytes - facts.free_bytes
    if taken > max(CONTEXT_BYTES, CONTEXT_SHARE * facts.memory_bytes):
        found = f"{taken / GIB:.1f} of {facts.memory_bytes / GIB:.1f} GiB taken"
        raise InputError(f"{facts.name} {_IN_USE}", found=found)
    if busy.isdigit() and int(busy) > MOST_BUSY:
        raise InputError(f"{facts.name} {_IN_USE}", found=f"{busy} % busy")
    if facts.free_bytes < LEAST_FREE:
        found, allowed = f"{facts.free_bytes / GIB:.1f} GiB free", f"at least {LEAST_FREE / GIB:g} GiB"
        raise InputError(f"too little memory on {facts.name}", found=found, allowed=allowed)
    return facts


def cpu_facts() -> Facts:
    """The host itself, for tests of the suite."""
    size = _host_bytes()
    return Facts("cpu", "cpu", "", os.cpu_count() or 1, CPU_CACHE_BYTES, size, size // 2, size)


def why_no_gpu(version: str, *, gpu_build: bool, hip: bool, said: str = "") -> str:
    """Why torch finds no GPU, in a line. said: what torch says when it is made to look for one."""
    if not gpu_build:
        return f"no GPU can be measured: torch {version} is built for CPUs only; install its CUDA or ROCm build"
    hidden = os.environ.get("HIP_VISIBLE_DEVICES" if hip else "CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in {"", "-1"}:
        return f"no GPU can be measured: {'HIP' if hip else 'CUDA'}_VISIBLE_DEVICES={hidden!r} hides them"
    if not hip and ctypes.util.find_library("cuda") is None:
        return "no GPU can be measured: there is no NVIDIA driver (libcuda); --plan needs none"
    return f"no GPU can be measured: {said or 'the driver reports none'}; --plan needs none"


def read_settings(gpu: str) -> dict[str, str]:
    """Settings of a card by its uuid, as nvidia-smi reads them; empty where there is no nvidia-smi."""
    query = [f"--query-gpu={','.join(SETTINGS)}", "--format=csv,noheader,nounits", *([f"--id={gpu}"] if gpu else [])]
    try:
        done = subprocess.run(["nvidia-smi", *query], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values = done.stdout.splitlines()[0].split(", ") if done.returncode == 0 and done.stdout else []
    return dict(zip(SETTINGS, values, strict=False))


def _gpu_facts() -> Facts:
    import torch

    free, _ = torch.cuda.mem_get_info()
    properties = torch.cuda.get_device_properties(0)
    hip = torch.version.hip is not None
    uuid = getattr(properties, "uuid", None)
    return Facts(
        kind="hip" if hip else "cuda",
        name=properties.name,
        arch=properties.gcnArchName if hip else f"{properties.major}.{properties.minor}",
        sms=properties.multi_processor_count,
        l2_bytes=properties.L2_cache_size,
        memory_bytes=properties.total_memory,
        free_bytes=free,
        host_bytes=_host_bytes(),
        # clock in kHz, two transfers a cycle, width in bits
        peak=2e3 * getattr(properties, "memory_clock_rate", 0) * getattr(properties, "memory_bus_width", 0) / 8,
        uuid="" if hip or uuid is None else f"GPU-{uuid}",
    )


def _host_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
