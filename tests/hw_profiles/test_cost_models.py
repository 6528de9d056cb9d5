"""Cost formulas: limits, floors, scalars and arrays alike."""

from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.cost_models import DecodeModel, GemmModel, LinkModel
from hw_profiles.prefill_cost import PrefillModel, prefill_flops

GEMM = GemmModel(t0=4e-6, bandwidth=3e12, flops=8e14, p=3.0)
DECODE = DecodeModel(floor=12e-6, t0=5e-6, per_seq=1e-7, bandwidth=3e12)


def test_gemm_tends_to_memory_and_to_compute() -> None:
    assert GEMM.seconds(3e9, 1.0) == pytest.approx(4e-6 + 1e-3)
    assert GEMM.seconds(1.0, 8e11) == pytest.approx(4e-6 + 1e-3)
    assert GEMM.seconds(3e9, 8e11) == pytest.approx(4e-6 + 2 ** (1 / 3) * 1e-3)


@pytest.mark.parametrize("p", [1.0, 3.3, 56.8, 400.0])
def test_gemm_of_a_sharp_corner_loses_no_short_time(p: float) -> None:
    """Microseconds to a power of 57 are below the least number, times 1e6 are not."""
    model = replace(GEMM, p=p)
    for nbytes, flops in ((3e6, 4e8), (3e6, 8e8), (1.0, 8e8), (3e6, 0.0)):
        memory, compute = nbytes / 3e12, flops / 8e14
        longer = 4e-6 + max(memory, compute) * (1 + (min(memory, compute) / max(memory, compute)) ** p) ** (1 / p)
        assert model.seconds(nbytes, flops) == pytest.approx(longer, rel=1e-12)
        assert model.seconds(np.array([nbytes]), np.array([flops]))[0] == pytest.approx(longer, rel=1e-12)
    assert model.seconds(0.0, 0.0) == 4e-6


def test_decode_floor_then_linear() -> None:
    assert DECODE.seconds(1, 0.0) == 12e-6
    assert DECODE.seconds(64, 3e8) == pytest.approx(5e-6 + 6.4e-6 + 100e-6)


def test_prefill_counts_causal_work() -> None:
    assert prefill_flops(1024, 0, heads=32, head_dim=128) == 4 * 32 * 128 * 1024 * 512
    assert prefill_flops(1024, 4096, heads=32, head_dim=128) == 4 * 32 * 128 * (1024 * 4096 + 1024 * 512)
    assert PrefillModel(1e-5, 1e-8, 5e14).seconds(1000, 5e11) == pytest.approx(1e-5 + 1e-5 + 1e-3)


def test_chunks_do_the_work_of_the_whole() -> None:
    whole = prefill_flops(8192, 0, 32, 128)
    assert sum(prefill_flops(2048, start, 32, 128) for start in range(0, 8192, 2048)) == whole


def test_link_charges_every_copy() -> None:
    assert LinkModel(3e-6, 5e10).seconds(5e10, 1000) == pytest.approx(1.003)


def test_arrays_give_what_scalars_give() -> None:
    batch, nbytes = np.array([1.0, 64.0, 256.0]), np.array([1e3, 3e8, 1e9])
    assert DECODE.seconds(batch, nbytes).tolist() == [DECODE.seconds(*x) for x in zip(batch, nbytes, strict=True)]
    assert GEMM.seconds(nbytes, nbytes).tolist() == pytest.approx([GEMM.seconds(x, x) for x in nbytes.tolist()])
