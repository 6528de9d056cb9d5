"""Prompts beside decoding and sequences of unequal length: charged where the profile has them, by hand arithmetic."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from sim.cost.step import StepCost

CLOSED_FORM = Path(__file__).parent / "closed_form.yaml"

MIXED = {
    "factor": 1.2,
    "residual": {"axes": {"prefill_per_decode": [1], "batch": [1], "context": [1]}, "ratio": [[[1.5]]]},
}
IMBALANCE = {"share": 0.125, "sharpness": 1.5, "min_tiles": 300}


@pytest.fixture(scope="session")
def with_effects(tmp_path_factory):
    """Writes the closed-form profile with the groups given; returns the file."""
    folder = tmp_path_factory.mktemp("effects")

    def write(**groups):
        raw = yaml.safe_load(Path(load_profile(CLOSED_FORM).source).read_text())
        for name, group in groups.items():
            values = {k: {"v": v, "unit": "1", "src": "made_up"} for k, v in group.items() if k != "residual"}
            raw["kernels"][name] = {**values, **({"residual": group["residual"]} if "residual" in group else {})}
            raw["sources"]["made_up"] = {"what": "made up"}
        path = folder / f"{'-'.join(groups) or 'plain'}.yaml"
        path.write_text(yaml.safe_dump(raw, sort_keys=False))
        return str(path)

    return write


def test_a_mixed_step_is_a_multiple_of_its_halves(with_effects):
    model = load_model("llama-3.1-8b")
    plain, mixed = (StepCost(model, load_profile(with_effects(**g))) for g in ({}, {"mixed_attn": MIXED}))
    chunks = [(512, 0)]
    before = plain.mixed_step(32, 32_000, (), chunks, 544, 33)
    after = mixed.mixed_step(32, 32_000, (), chunks, 544, 33)
    assert before.attention == pytest.approx(plain.prefill(chunks) + plain.decode(32, 32_000))
    assert after.attention == pytest.approx(1.2 * 1.5 * before.attention)
    assert after.linear == before.linear
    assert mixed.mixed_step(0, 0, (), chunks, 512, 1).seconds == plain.mixed_step(0, 0, (), chunks, 512, 1).seconds
    assert mixed.decode_steps(32, 32_000, (), 1).seconds == plain.decode_steps(32, 32_000, (), 1).seconds


def test_the_longest_sequence_sets_the_pace(with_effects):
    model = load_model("llama-3.1-8b")
    cost = StepCost(model, load_profile(with_effects(decode_imbalance=IMBALANCE)))
    plain = StepCost(model, load_profile(CLOSED_FORM))
    assert cost.asks_longest
    assert not plain.asks_longest
    seqs, context, longest = 64, 64_000, 9_000
    even = plain.decode_steps(seqs, context, (), 1).attention
    uneven = cost.decode_steps(seqs, context, (), 1, longest).attention
    tall, flat = longest / (0.125 * context), 1 / (0.125 * seqs)
    assert uneven / even == pytest.approx(((1 + tall**1.5) / (1 + flat**1.5)) ** (1 / 1.5), rel=1e-12)
    assert cost.decode_steps(16, 16_000, (), 1, 9_000).seconds == plain.decode_steps(16, 16_000, (), 1).seconds


def test_one_step_is_the_first_of_many(with_effects):
    cost = StepCost(load_model("llama-3.1-8b"), load_profile(with_effects(decode_imbalance=IMBALANCE)))
    many = cost.decode_steps(64, 70_000, (), 9, 9_000)
    for i in range(9):
        one = cost.decode_steps(64, 70_000 + 64 * i, (), 1, 9_000 + i)
        assert one.seconds == np.asarray(many.seconds)[i]


def test_runs_feel_both_and_strides_stay_exact(run, prompt, with_effects):
    """A long sequence among short ones, and prompts that arrive while others decode."""
    rows = [(0.0, 30_000, 300, prompt(1, 30_000))]
    rows += [(2.0 + 0.02 * i, 200, 200, prompt(2 + i, 200)) for i in range(60)]
    means = {}
    for name, groups in (("plain", {}), ("mixed", {"mixed_attn": MIXED}), ("uneven", {"decode_imbalance": IMBALANCE})):
        hardware = {"profile": with_effects(**groups)}
        strides, steps = (run(rows, hardware=hardware, single_step=single) for single in (False, True))
        assert strides.frames["requests"].equals(steps.frames["requests"])
        means[name] = strides.frames["requests"].tpot_s.mean()
    assert means["mixed"] > 1.01 * means["plain"]
    assert means["uneven"] > 1.01 * means["plain"]
