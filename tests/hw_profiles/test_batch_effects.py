"""What a batch adds to its parts: closed forms, limits, and what a profile may say."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from hw_profiles import picks
from hw_profiles.batch_effects import ImbalanceModel, MixedModel
from hw_profiles.errors import InputError
from hw_profiles.loader import load_profile
from hw_profiles.residual import Residual

MODEL = ImbalanceModel(0.125, 1.5, 300)


def test_equal_lengths_cost_nothing() -> None:
    for seqs in (40.0, 64.0, 256.0):
        total = np.array([seqs * 1000.0])
        assert MODEL.ratio(seqs, 8, np.array([1000.0]), total) == pytest.approx(1.0, rel=1e-12)


def test_a_longer_sequence_costs_more_and_less_so_in_a_larger_batch() -> None:
    longest, total = np.array([1000.0, 2000.0, 8000.0]), 64_000.0
    ratios = np.asarray(MODEL.ratio(64.0, 8, longest, np.full(3, total)))
    assert (np.diff(ratios) > 0).all()
    larger = np.asarray(MODEL.ratio(256.0, 8, longest, np.full(3, 4 * total)))
    assert (larger[1:] < ratios[1:]).all()


def test_one_very_long_sequence_takes_its_share_of_the_bandwidth() -> None:
    """L -> infinity: time -> L / share, as a multiple of T."""
    longest = 1e12
    ratio = float(np.asarray(MODEL.ratio(64.0, 8, np.array([longest]), np.array([longest + 64e3])))[0])
    even = (1 + (1 / (0.125 * 64)) ** 1.5) ** (1 / 1.5)
    assert ratio * even == pytest.approx((1 + 8**1.5) ** (1 / 1.5), rel=1e-6)


def test_small_batches_are_split() -> None:
    assert MODEL.ratio(37.0, 8, np.array([9e9]), np.array([1e10])) == 1.0
    assert float(np.asarray(MODEL.ratio(38.0, 8, np.array([9e9]), np.array([1e10])))[0]) > 2


def test_mixed_ratio_is_the_factor_times_the_table() -> None:
    axes = (("prefill_per_decode", (0.5, 2.0)), ("batch", (8.0, 64.0)), ("context", (1024.0,)))
    model = MixedModel(1.25, Residual(axes, (1.0, 1.6, 1.0, 1.2)))
    assert model.ratio(1e-4, 2e-4, 64, 1024) == pytest.approx(1.25 * 1.6)
    assert model.ratio(1e-3, 1e-5, 999, 7) == pytest.approx(1.25 * 1.2)  # held at the border
    assert 1.25 * 1.2 < model.ratio(1e-4, 1e-4, 64, 1024) < 1.25 * 1.6
    assert MixedModel(1.25).ratio(1.0, 1.0, 1, 1) == 1.25


def test_profiles_may_have_both(hbm_profile) -> None:
    table = {"axes": {"prefill_per_decode": [1], "batch": [1, 2], "context": [1]}, "ratio": [[[1.5], [2]]]}
    path = hbm_profile(mixed_attn={"factor": 1.1, "residual": table}, decode_imbalance={"share": 0.2, "sharpness": 2})
    with pytest.raises(InputError, match=r"kernels.decode_imbalance: missing value 'min_tiles'"):
        load_profile(path)
    groups = {"decode_imbalance": {"share": 0.2, "sharpness": 2, "min_tiles": 300}}
    profile = load_profile(hbm_profile(mixed_attn={"factor": 1.1, "residual": table}, **groups))
    found, mixed = picks.imbalance(profile), picks.mixed(profile)
    assert found is not None
    assert found.model == ImbalanceModel(0.2, 2.0, 300)
    assert [value.path for value in found.values] == [
        f"kernels.decode_imbalance.{key}" for key in groups["decode_imbalance"]
    ]
    assert mixed is not None
    assert mixed.model.ratio(1.0, 1.0, 2, 1) == pytest.approx(2.2)
    with pytest.raises(InputError, match="at most 1"):
        load_profile(hbm_profile(decode_imbalance={"share": 1.2, "sharpness": 2, "min_tiles": 300}))


def test_shipped_profiles_without_them_say_so() -> None:
    profile = load_profile("h100-sxm")
    assert picks.mixed(profile) is None
    assert picks.imbalance(profile) is None


@pytest.fixture
def hbm_profile(tmp_path):
    """Writes h100-sxm with more kernel groups; returns the file."""

    def write(**groups):
        raw = yaml.safe_load(Path(load_profile("h100-sxm").source).read_text())
        for name, group in groups.items():
            values = {k: {"v": v, "unit": "1", "src": "made_up"} for k, v in group.items() if k != "residual"}
            raw["kernels"][name] = {**values, **({"residual": group["residual"]} if "residual" in group else {})}
        raw["sources"]["made_up"] = {"what": "made up"}
        path = tmp_path / "made-up.yaml"
        path.write_text(yaml.safe_dump(raw, sort_keys=False))
        return str(path)

    return write
