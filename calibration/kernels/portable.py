"""What every kernel needs to give the same result in Triton's interpreter as on a GPU."""

from __future__ import annotations

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") == "1")
"""Whether kernels run in the interpreter: the variable must be set before Triton is imported."""


@triton.jit
def dot(a, b):
    """Matrix product of two tiles, summed in fp32; fp32 operands are not rounded to tf32.

    The interpreter (Triton 3.6 to 3.9) multiplies the bit patterns of bf16 operands without an error: it gets fp32.
    """
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        return tl.dot(a, b, input_precision="ieee")


@triton.jit
def ceil_div(a, b):
    """a / b rounded up, for whole numbers."""
    return (a + b - 1) // b
