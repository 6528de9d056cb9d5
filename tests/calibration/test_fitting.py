"""Fits find known parameters again despite noise and outliers, and their scores are right."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.fit_link import fit_link, link_rows
from calibration.fitting import Fit, score
from calibration.kernel_fits import KernelFit, fit_kernel
from calibration.points import Points
from hw_profiles.cost_models import AllReduceModel, DecodeModel, GemmModel, LinkModel
from hw_profiles.loader import load_profile
from hw_profiles.prefill_cost import PrefillMemory, PrefillModel

REPOSITORY = Path(__file__).parents[2]
TRACES = os.environ.get("KVSIM_TRACES")
DATA = Path(TRACES).parent if TRACES else REPOSITORY.parent / "shared" / "data"


def noisy(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """3 % noise on every point; one point in twenty disturbed by a factor of two."""
    rng = np.random.Generator(np.random.Philox(7))
    disturbed = np.where(rng.random(len(seconds)) < 0.05, 2.0, 1.0)
    return np.asarray(seconds * rng.lognormal(0, 0.03, len(seconds)) * disturbed)


def points(name: str, seconds: NDArray[np.float64], **shape: NDArray[np.float64]) -> Points:
    everything = np.ones(len(seconds), dtype=bool)
    return Points(name, shape, seconds, everything, {"all": everything}, "kernels", "rows", "table")


def mesh(*axes: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return [axis.ravel() for axis in np.meshgrid(*axes)]


def close(fit: KernelFit, truth: dict[str, float], rel: float) -> None:
    for name, value in truth.items():
        found = fit.values[name]
        assert found.value == pytest.approx(value, rel=rel), name
        assert found.low < found.value < found.high, name
        assert found.low < value * (1 + rel), name
        assert found.high > value * (1 - rel), name


def test_gemm_parameters_are_found() -> None:
    m, n, k = mesh(2.0 ** np.arange(14), *[np.array([1024.0, 2048, 4096, 8192, 16384])] * 2)
    truth = {"t0": 4e-6, "bandwidth": 3e12, "flops": 8e14, "p": 3.0}
    nbytes, flops = 2 * (m * k + k * n + m * n), 2 * m * n * k
    exact = GemmModel(**truth, tile_rows=64).seconds(nbytes, flops, (m, n, k))
    shape = {"m": m, "n": n, "k": k, "bytes": nbytes, "flops": flops}
    close(fit_kernel(points("gemm_bf16", noisy(exact), **shape), resamples=20), truth, rel=0.12)
    clean = fit_kernel(points("gemm_bf16", exact, **shape))
    assert clean.fitted.max < 2e-3
    assert clean.values["tile_rows"].value == 64


def test_bandwidth_stays_below_the_peak_of_the_memory() -> None:
    """Weights that a benchmark reads again come from L2: what exceeds the peak is left to the table."""
    m, n, k = mesh(2.0 ** np.arange(8), *[np.array([1024.0, 4096, 16384])] * 2)
    nbytes, flops = 2 * (m * k + k * n + m * n), 2 * m * n * k
    warm = GemmModel(4e-6, 6e12, 8e14, 3.0).seconds(nbytes, flops)
    shape = {"m": m, "n": n, "k": k, "bytes": nbytes, "flops": flops}
    found = fit_kernel(points("gemm_bf16", warm, **shape), peak=3e12)
    assert found.values["bandwidth"].value <= 3e12
    assert found.fitted.mape < 0.05


def test_decode_parameters_are_found() -> None:
    batch, seq = mesh(2.0 ** np.arange(10), 2.0 ** np.arange(7, 17))
    nbytes = batch * seq * 4096
    keep = (nbytes > 1e8) & (nbytes < 4e9)
    truth = {"t0": 2e-5, "per_seq": 8e-8, "bandwidth": 3.2e12}
    exact = DecodeModel(12e-6, **truth).seconds(batch[keep], nbytes[keep])
    shape = {"batch": batch[keep], "kv_heads": np.full(keep.sum(), 8.0), "seq": seq[keep], "bytes": nbytes[keep]}
    found = fit_kernel(points("decode_attn", noisy(exact), **shape), resamples=20)
    close(found, truth, rel=0.25)
    assert found.values["bandwidth"].value == pytest.approx(3.2e12, rel=0.05)


def test_prefill_parameters_are_found_with_the_span_of_few_tiles() -> None:
    tokens, prefix = mesh(np.round(2.0 ** np.linspace(4, 14, 12)), np.array([0.0, 1024, 4096, 16384]))
    truth = {"t0": 1.3e-5, "per_token": 1.1e-8, "flops": 6.8e14, "per_context": 1.5e-8}
    flops = 4 * 32 * 128 * (tokens * prefix + tokens * tokens / 2)
    exact = PrefillModel(**truth).seconds(tokens, flops)
    heads = {"heads": np.full_like(tokens, 32.0), "kv_heads": np.full_like(tokens, 8.0)}
    shape = {"tokens": tokens, **heads, "context": prefix + tokens / 2, "flops": flops}
    found = fit_kernel(points("prefill_attn", noisy(exact), **shape), resamples=20)
    close(found, truth, rel=0.35)
    without = PrefillModel(1.3e-5, 1.1e-8, 6.8e14).seconds(tokens, flops)
    long_prefix = (tokens < 64) & (prefix == 16384)
    assert (exact[long_prefix] > 3 * without[long_prefix]).all()


def test_what_prefill_moves_and_where_it_splits_is_found() -> None:
    """Keys and values by KV head, L2 that overflows, contexts that a planner cuts while there are few tiles."""
    batch, length, heads, kv_heads = mesh(
        np.array([1.0, 4, 16, 64]),
        2.0 ** np.arange(7, 14),
        np.array([4.0, 16, 64]),
        np.array([1.0, 4, 16]),
    )
    keep = (kv_heads <= heads) & (batch * length <= 65536)
    batch, length, heads, kv_heads = (x[keep] for x in (batch, length, heads, kv_heads))
    tokens, context = batch * length, length / 2
    flops = 4 * heads * 128 * tokens * context
    moved = PrefillMemory(4e-10, 3e-9, warm=0.4, warm_bytes=25e6, split=8e-6, per_split=7e-8, split_tiles=132)
    truth = PrefillModel(1.2e-5, 8e-9, 6.5e14, per_context=9e-9, memory=moved)
    shape = {"tokens": tokens, "heads": heads, "kv_heads": kv_heads, "context": context, "flops": flops}
    made = replace(points("prefill_attn", np.ones_like(tokens), **shape), l2_bytes=50e6, split_tiles=132)
    found = fit_kernel(replace(made, seconds=made.predict(truth)))
    assert found.fitted.max < 0.01
    for name in ("per_kv", "per_write", "warm", "warm_bytes", "split", "per_split"):
        assert found.values[name].value == pytest.approx(getattr(moved, name), rel=0.05), name


def test_allreduce_parameters_are_found() -> None:
    nbytes = 2.0 ** np.arange(8, 31)
    exact = AllReduceModel(8, 8e-6, 2e11).seconds(nbytes)
    close(
        fit_kernel(points("allreduce_8", noisy(exact), bytes=nbytes), resamples=20), {"alpha": 8e-6, "beta": 2e11}, 0.1
    )


def test_link_parameters_are_found_despite_outliers() -> None:
    nbytes = 2.0 ** np.linspace(12, 24, 40)
    exact = LinkModel(3.5e-6, 52e9).seconds(nbytes, np.ones_like(nbytes))
    fitted: Fit = fit_link(nbytes, noisy(exact), resamples=20)
    for name, value in {"alpha": 3.5e-6, "beta": 52e9}.items():
        assert fitted.params[name] == pytest.approx(value, rel=0.04), name
        low, high = fitted.interval[name]
        assert low < fitted.params[name] < high
    assert fitted.heldout.n == 20


def test_score() -> None:
    got = score(np.array([1.1, 0.9, 2.0]), np.array([1.0, 1.0, 1.0]))
    assert (got.n, got.mape, got.max, got.bias) == (3, pytest.approx(0.4), pytest.approx(1.0), pytest.approx(1 / 3))


@pytest.mark.skipif(not (DATA / "measured" / "pcie_block_copy").is_dir(), reason=f"no measured copy curves in {DATA}")
@pytest.mark.parametrize("direction", ["h2d", "d2h"])
def test_the_h100_quotes_the_line_through_its_copies(direction: str) -> None:
    fitted = fit_link(*link_rows(DATA, direction))
    for name, value in fitted.params.items():
        assert load_profile("h100-sxm").si(f"links.pcie_{direction}.{name}") == pytest.approx(value, rel=1e-3)
