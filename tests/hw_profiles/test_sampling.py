"""Machines drawn from intervals: medians and 90 % ends are those stated, bounds hold, the same draw is the same."""

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.devices import list_devices, load_device
from hw_profiles.loader import list_profiles, load_profile
from hw_profiles.sampling import MEAN_TO_SIGMA, sampled_device, sampled_profile
from hw_profiles.schema import quantity_of


def constant(u: float):
    return lambda name: u


def uniform(seed: int):
    """A number for each name, other for each seed."""

    def draw(name: str) -> float:
        return float(
            np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())])).uniform(1e-9, 1 - 1e-9)
        )

    return draw


def test_the_median_is_the_value_and_the_ends_are_the_interval() -> None:
    profile = load_profile("h100-sxm")
    profile = replace(profile, kernels=replace(profile.kernels, heldout={}))
    middle, low, high = (sampled_profile(profile, constant(u)) for u in (0.5, 0.05, 0.95))
    for path, value in profile.entries.items():
        assert middle.entries[path].value_si == pytest.approx(value.value_si, rel=1e-12), path
        quantity = quantity_of(path)
        assert quantity is not None
        if value.lo is not None and value.hi is not None and not quantity.whole:
            assert low.entries[path].value_si == pytest.approx(max(value.lo, quantity.least), rel=1e-9, abs=1e-15), path
            assert high.entries[path].value_si == pytest.approx(min(value.hi, quantity.most), rel=1e-9), path


def test_ninety_per_cent_of_draws_lie_inside() -> None:
    profile = load_profile("h100-sxm")
    path = "links.pcie_h2d.beta"
    value = profile.entries[path]
    drawn = [sampled_profile(profile, uniform(i)).entries[path].value_si for i in range(400)]
    inside = np.mean([value.lo <= x <= value.hi for x in drawn])
    assert 0.85 < inside < 0.95
    assert np.median(drawn) == pytest.approx(value.value_si, rel=0.005)


def test_a_kernel_takes_its_held_out_error_on_all_its_times() -> None:
    profile = load_profile("h100-sxm")
    mape = profile.heldout["gemm_bf16"].mape
    half = 0.9772498680518208  # two standard deviations
    slow = sampled_profile(profile, lambda name: half if name == "kernels.gemm_bf16" else 0.5)
    factor = math.exp(2 * MEAN_TO_SIGMA * mape)
    assert slow.gemm.seconds(1e8, 1e9) == pytest.approx(factor * profile.gemm.seconds(1e8, 1e9), rel=1e-6)
    assert slow.decode == profile.decode
    assert slow.gemm.p == profile.gemm.p


@pytest.mark.parametrize("name", list_profiles())
def test_every_profile_can_be_drawn(name: str) -> None:
    profile = load_profile(name)
    for seed in range(5):
        drawn = sampled_profile(profile, uniform(seed))
        for path, value in drawn.entries.items():
            quantity = quantity_of(path)
            assert quantity is not None
            assert quantity.least <= value.value_si <= quantity.most, path
            assert value.value_si > 0 or not quantity.above_zero, path
            assert not quantity.whole or value.value_si == int(value.value_si), path
        assert drawn.gemm.seconds(1e8, 1e12) > 0
        if "tiers.l2.read" in drawn.entries:
            assert drawn.si("tiers.l2.full_hit_bytes") < drawn.si("tiers.l2.full_miss_bytes")
            assert drawn.si("tiers.l2.read") > drawn.si("tiers.hbm.read")
        assert {v.value_si for v in drawn.values()} != {v.value_si for v in profile.values()}


@pytest.mark.parametrize("name", list_devices())
def test_every_device_can_be_drawn(name: str) -> None:
    device = load_device(name)
    for seed in range(5):
        drawn = sampled_device(device, uniform(seed))
        assert drawn.read.seconds(1e6, 4) > 0
        assert 0 < drawn.write.single <= 1
        assert drawn.write.saturation >= 1
    assert sampled_device(device, constant(0.5)).read == device.read


def test_the_same_draw_is_the_same_machine() -> None:
    profile = load_profile("a100-80")
    one, again, other = (sampled_profile(profile, uniform(seed)) for seed in (1, 1, 2))
    assert one.values() == again.values()
    assert one.values() != other.values()
