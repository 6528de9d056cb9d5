"""Fits find known parameters again, and the shipped profiles quote what the fits of the real tables give."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration import fit_public
from calibration.public_tables import SYSTEMS, cold_rows, decode_floor, decode_rows, kv_bytes
from hw_profiles.cost_models import DecodeModel, GemmModel, LinkModel, PrefillModel, prefill_flops
from hw_profiles.errors import InputError
from hw_profiles.loader import load_profile

REPOSITORY = Path(__file__).parents[2]
TRACES = os.environ.get("KVSIM_TRACES")
DATA = Path(TRACES).parent if TRACES else REPOSITORY.parent / "shared" / "data"
needs_data = pytest.mark.skipif(
    not (DATA / "kernels" / "aiconfigurator").is_dir(), reason=f"no public kernel tables in {DATA}"
)
PROFILES = {"h100_sxm": "h100-sxm", "a100_sxm": "a100-80"}


def noisy(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """3 % noise on every point; one point in twenty disturbed by a factor of two."""
    rng = np.random.Generator(np.random.Philox(7))
    disturbed = np.where(rng.random(len(seconds)) < 0.05, 2.0, 1.0)
    return seconds * rng.lognormal(0, 0.03, len(seconds)) * disturbed


def close(fit: fit_public.Fit, truth: dict[str, float], rel: float) -> None:
    assert list(fit.params) == list(truth)
    for name, value in truth.items():
        assert fit.params[name] == pytest.approx(value, rel=rel), name
        lo, hi = fit.interval[name]
        assert lo < fit.params[name] < hi
        assert lo < value * (1 + rel)
        assert hi > value * (1 - rel)


def test_gemm_parameters_are_found() -> None:
    m, n, k = (x.ravel() for x in np.meshgrid(2.0 ** np.arange(14), *[[1024.0, 2048, 4096, 8192, 16384]] * 2))
    truth = {"t0": 4e-6, "bandwidth": 3e12, "flops": 8e14, "p": 3.0}
    exact = GemmModel(**truth).seconds(2 * (m * k + k * n + m * n), 2 * m * n * k)
    close(fit_public.fit_gemm(m, n, k, noisy(exact), resamples=20), truth, rel=0.12)
    assert fit_public.fit_gemm(m, n, k, exact).score.max < 1e-3


def test_decode_parameters_are_found() -> None:
    batch, seq = (x.ravel() for x in np.meshgrid(2.0 ** np.arange(10), 2.0 ** np.arange(7, 17)))
    nbytes = kv_bytes(batch, seq)
    keep = (nbytes > 1e8) & (nbytes < 4e9)
    truth = {"t0": 2e-5, "per_seq": 8e-8, "bandwidth": 3.2e12}
    exact = DecodeModel(12e-6, **truth).seconds(batch[keep], nbytes[keep])
    fitted = fit_public.fit_decode(batch[keep], nbytes[keep], noisy(exact), 12e-6, resamples=20)
    close(fitted, truth, rel=0.25)
    assert fitted.params["bandwidth"] == pytest.approx(3.2e12, rel=0.05)


def test_prefill_parameters_are_found() -> None:
    tokens = np.round(2.0 ** np.linspace(7, 14, 40))
    truth = {"t0": 1.3e-5, "per_token": 1.1e-8, "flops": 6.8e14}
    exact = PrefillModel(**truth).seconds(tokens, prefill_flops(tokens, np.zeros_like(tokens), 32, 128))
    close(fit_public.fit_prefill(tokens, noisy(exact), resamples=20), truth, rel=0.2)


def test_link_parameters_are_found_despite_outliers() -> None:
    nbytes = 2.0 ** np.linspace(12, 24, 40)
    exact = LinkModel(3.5e-6, 52e9).seconds(nbytes, np.ones_like(nbytes))
    fitted = fit_public.fit_link(nbytes, noisy(exact), resamples=20)
    close(fitted, {"alpha": 3.5e-6, "beta": 52e9}, rel=0.04)
    assert fitted.heldout.n == 20


def test_score() -> None:
    got = fit_public.score(np.array([1.1, 0.9, 2.0]), np.array([1.0, 1.0, 1.0]))
    assert (got.n, got.mape, got.max, got.bias) == (3, pytest.approx(0.4), pytest.approx(1.0), pytest.approx(1 / 3))


def test_unknown_system(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown system, found 'h100'.*did you mean 'h100_sxm'"):
        fit_public.fit_system(tmp_path, "h100")


@needs_data
@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_shipped_profiles_quote_the_refit(system: str) -> None:
    profile = load_profile(PROFILES[system])
    fits = fit_public.fit_system(DATA, system)
    rounding = 1e-3  # four significant digits, and the solver's tolerance
    for place, fitted in fits.items():
        for name, value in fitted.params.items():
            entry = profile.entries[f"{place}.{name}"]
            assert entry.value_si == pytest.approx(value, rel=rounding), entry.path
        kernel = place.partition(".")[2]
        if kernel in profile.heldout:
            quoted = profile.heldout[kernel]
            assert quoted.n == fitted.heldout.n
            assert quoted.mape == pytest.approx(fitted.heldout.mape, abs=2e-4)
            assert quoted.bias == pytest.approx(fitted.heldout.bias, abs=2e-4)
    assert profile.decode.floor == pytest.approx(decode_floor(DATA, system)[0], rel=rounding)


@needs_data
@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_cold_decode_is_not_faster_than_warm(system: str) -> None:
    """The cold branch, carried on to KV that fits in L2, must not undercut the measured L2-warm times."""
    batch, seq, seconds = decode_rows(DATA, system)
    nbytes = kv_bytes(batch, seq)
    warm = (nbytes < 2 * SYSTEMS[system].l2_bytes) & (seq >= 128) & (batch <= 512)
    assert warm.sum() > 30
    predicted = load_profile(PROFILES[system]).decode.seconds(batch[warm], nbytes[warm])
    assert (predicted / seconds[warm]).min() > 0.97


@needs_data
@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_cold_rows_respect_the_memory_peak(system: str) -> None:
    batch, nbytes, seconds = cold_rows(DATA, system)
    assert (nbytes / seconds).max() < load_profile(PROFILES[system]).si("tiers.hbm.peak")
    assert batch.max() <= 512
