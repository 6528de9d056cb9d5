"""Every kernel file, in one table."""

from __future__ import annotations

from calibration.kernels import (
    chase,
    decode,
    digest,
    elementwise,
    gemm,
    mla,
    pages,
    prefetch_l2,
    prefill,
    quantise,
    streams,
)
from calibration.kernels.spec import Build, Check

MODULES = (streams, chase, prefetch_l2, pages, decode, mla, prefill, gemm, elementwise, quantise, digest)
CHECKS: tuple[Check, ...] = tuple(check for module in MODULES for check in module.CHECKS)
BUILDS: tuple[Build, ...] = tuple(build for module in MODULES for build in module.BUILDS)
