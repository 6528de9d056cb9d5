"""Run the checks of kernels against torch: on the GPU, or in Triton's interpreter on CPU tensors.

`[TRITON_INTERPRET=1] python -m calibration.kernels.verify [NAME]...` prints one JSON object per check and dtype:
`{"kernel", "dtype", "error", "tolerance", "ok", "seconds"}`; `error` is null where the kernel did not run.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch

from calibration.kernels import catalog
from calibration.kernels.portable import INTERPRETED
from calibration.kernels.spec import DTYPES, Check, Place


@dataclass(frozen=True)
class Verified:
    """One check in one dtype; `problem` says what went wrong when `ok` is false."""

    kernel: str
    dtype: str
    error: float | None
    tolerance: float
    ok: bool
    seconds: float
    problem: str = ""


def verify(check: Check, dtype: str, device: torch.device) -> Verified:
    """Run one check. A kernel that raises is not ok, and the rest goes on."""
    started, error, problem = time.perf_counter(), math.nan, ""
    try:
        error = check.run(Place(device, DTYPES[dtype]))
    except Exception as raised:  # noqa: BLE001 -- a kernel that fails must not stop the others
        problem = " ".join(f"{type(raised).__name__}: {raised}".split())[:300]
    tolerance = check.tolerance[dtype]
    ok = error <= tolerance  # false for NaN
    if not ok and not problem:
        problem = f"relative error {error:.2g}, expected at most {tolerance:.2g}"
    seconds = round(time.perf_counter() - started, 3)
    return Verified(check.name, dtype, error if math.isfinite(error) else None, tolerance, ok, seconds, problem)


def verify_all(device: torch.device, names: Sequence[str] = (), dtypes: Sequence[str] = ()) -> Iterator[Verified]:
    """Every check that can run on `device`, in the order of the catalog."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    for check in catalog.CHECKS:
        if (names and check.name not in names) or not (check.interpreter or capability):
            continue
        if capability is not None and torch.version.cuda and capability < check.needs:
            continue
        for dtype in _dtypes(check, dtypes, interpreted=capability is None):
            yield verify(check, dtype, device)


def _dtypes(check: Check, wanted: Sequence[str], *, interpreted: bool) -> list[str]:
    """On a GPU the types that engines use: tiles of fp32 at the sizes that are timed do not fit shared memory."""
    known = [dtype for dtype in check.dtypes if interpreted or dtype != "f32"] or list(check.dtypes)
    return [dtype for dtype in known if not wanted or dtype in wanted]


def main(argv: list[str]) -> int:
    """Check what is named (default: everything); 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m calibration.kernels.verify")
    parser.add_argument("--dtype", action="append", choices=list(DTYPES))
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *(check.name for check in catalog.CHECKS)])
    options = parser.parse_args(argv)
    device = torch.device("cpu" if INTERPRETED else "cuda")
    failed = False
    for result in verify_all(device, options.names, options.dtype or ()):
        failed |= not result.ok
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
        sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
