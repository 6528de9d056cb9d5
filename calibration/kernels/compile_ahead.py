"""Compile kernels for GPUs that are not there, and read off the code what it must and must not have.

`python -m calibration.kernels.compile_ahead [--target cuda:90]... [NAME]...` prints one JSON object per kernel and
target: the fields of `Compiled`. Triton brings the assemblers along.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from calibration.kernels import catalog
from calibration.kernels.spec import TARGETS, Build

FEATURES: Mapping[str, Mapping[str, str]] = {
    "cuda": {
        "wide_access": r"(ld|st)\.global\S*\.(v4\.[bfu]32|v2\.[bfu]64|v8\.b32|v4\.b64)"
        r"|cp\.async\.c[ag]\.shared\.global [^;]*, 0x10",
        "tensor_cores": r"\bmma\.sync|wgmma\.mma_async|tcgen05\.mma",
        "wgmma": r"wgmma\.mma_async",
        "tcgen05": r"tcgen05\.mma",
        "prefetch_line": r"prefetch\.global\.L2",
        "prefetch_bulk": r"cp\.async\.bulk\.prefetch\.L2",
        "evict_first": r"L2::evict_first",
    },
    "hip": {
        "wide_access": r"(global|buffer)_(load|store)_dwordx4",
        "tensor_cores": r"v_mfma_",
    },
}
"""What code may have: patterns in PTX, and in the assembly of AMD GPUs."""
SHARED_BYTES = {"cuda:80": 163 << 10, "cuda:90": 227 << 10, "cuda:100": 227 << 10, "hip:gfx942": 64 << 10}
"""Most shared memory per block (CUDA programming guide, compute capabilities; gfx942: local data share)."""


@dataclass(frozen=True)
class Compiled:
    """One kernel for one target; `problems` is empty when all is as it must be."""

    kernel: str
    target: str
    features: list[str]
    problems: list[str]
    registers: int
    shared_bytes: int
    seconds: float


def compile_build(build: Build, target: str) -> Compiled:
    """Compile and look. A kernel that does not compile is a problem, not an exception."""
    started = time.perf_counter()
    try:
        binary = _compile(build, target)
    except Exception as error:  # noqa: BLE001 -- whatever the compiler says is the finding
        text = str(error).strip().splitlines()
        problem = f"{type(error).__name__}: {text[-1] if text else ''}"
        return Compiled(build.name, target, [], [problem], 0, 0, time.perf_counter() - started)
    backend = target.partition(":")[0]
    code = binary.asm["ptx" if backend == "cuda" else "amdgcn"]
    features = [name for name, pattern in FEATURES[backend].items() if re.search(pattern, code)]
    registers, spilled = _cuda_usage(binary.asm["cubin"]) if backend == "cuda" else _hip_usage(code)
    required = dict.fromkeys((*build.must.get(backend, ()), *build.must.get(target, ())))
    problems = [f"no {name}" for name in required if name not in features]
    if spilled:
        problems.append(f"spills ({spilled})")
    shared = int(binary.metadata.shared)
    if shared > SHARED_BYTES[target]:
        problems.append(f"{shared} bytes of shared memory")
    seconds = time.perf_counter() - started
    return Compiled(build.name, target, features, problems, registers, shared, round(seconds, 3))


def _compile(build: Build, target: str) -> Any:
    backend, _, arch = target.partition(":")
    gpu = GPUTarget("cuda", int(arch), 32) if backend == "cuda" else GPUTarget("hip", arch, 64)
    names = build.kernel.arg_names
    kinds = {**build.signature, **dict.fromkeys(build.constants, "constexpr")}
    # what a launch infers by itself: pointers and some whole numbers divisible by 16
    aligned = [name for name, kind in build.signature.items() if kind.startswith("*") or name in build.whole]
    source = ASTSource(
        build.kernel,
        {name: kinds[name] for name in names},
        constexprs=dict(build.constants),
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    return triton.compile(source, target=gpu, options=dict(build.options))


def _cuda_usage(cubin: bytes) -> tuple[int, int]:
    """(registers per thread, bytes of stack and local memory) as cuobjdump reports them."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        shown = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    numbers = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", shown)}
    return numbers["REG"], numbers["STACK"] + numbers["LOCAL"]


def _hip_usage(assembly: str) -> tuple[int, int]:
    """(vector registers, registers spilled) as the metadata of the assembly states them."""
    numbers = {key: int(value) for key, value in re.findall(r"\.(vgpr_count|[sv]gpr_spill_count):\s+(\d+)", assembly)}
    return numbers["vgpr_count"], numbers["vgpr_spill_count"] + numbers["sgpr_spill_count"]


def main(argv: list[str]) -> int:
    """Compile what is named (default: everything); 1 if anything has a problem."""
    parser = argparse.ArgumentParser(prog="python -m calibration.kernels.compile_ahead")
    parser.add_argument("--target", action="append", choices=TARGETS)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *(build.name for build in catalog.BUILDS)])
    options = parser.parse_args(argv)
    failed = False
    for build in catalog.BUILDS:
        if options.names and build.name not in options.names:
            continue
        for target in build.targets:
            if target in (options.target or TARGETS):
                result = compile_build(build, target)
                failed |= bool(result.problems)
                sys.stdout.write(json.dumps(asdict(result)) + "\n")
                sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
