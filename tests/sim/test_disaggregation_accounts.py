"""Prefill and decode on different replicas: what is told of it, and what is refused."""

import numpy as np
import pytest

from hw_profiles.errors import InputError
from sim.attribution import BETWEEN
from tests.sim.disaggregation_cases import PROFILE, rate

# ---- accounts


@pytest.mark.parametrize("transfer", ["whole", "chunk", "layer"])
def test_e2e_splits_exactly(apart, prompt, transfer):
    rows = [(0.01 * i, 1500, 300, prompt(i, 1500)) for i in range(8)]
    result = apart(rows, 1, 1, blocks=300, link=rate(5e9), pools={"transfer": transfer})
    frame = result.frames["requests"]
    between = [f"decode_{part}_s" for part in BETWEEN]
    decoding = [c for c in frame if c.startswith("decode_") and c.endswith("_s") and c != "decode_start_s"]
    prefill = [c for c in frame if c.startswith("prefill_") and c != "prefill_s"]
    assert np.allclose(frame[decoding].sum(axis=1), frame.e2e_s - frame.ttft_s, rtol=0, atol=1e-9)
    assert np.allclose(frame[prefill].sum(axis=1), frame.prefill_s, rtol=0, atol=1e-9)
    assert np.allclose(frame[between].sum(axis=1), frame.decode_start_s - frame.first_token_s, rtol=0, atol=1e-9)
    assert (frame[between] >= 0).all(axis=None)
    parts = result.summary["attribution"]["e2e_ms"]["all"]
    assert sum(parts["parts"].values()) == pytest.approx(parts["mean"], rel=1e-9)
    assert parts["parts"]["handoff_transfer"] == pytest.approx(1e3 * frame.decode_transfer_s.mean())
    assert parts["parts"]["handoff_memory"] > 0


def test_without_it_nothing_is_said_of_it(run, prompt):
    result = run([(0, 600, 3, prompt(1, 600))])
    assert "disaggregation" not in result.summary
    assert "decode_replica" not in result.frames["requests"]
    assert "handoff_transfer" not in result.summary["attribution"]["e2e_ms"]["all"]["parts"]


def test_the_pools_say_how_many_replicas_there_are(scenario, prompt):
    rows = [(0, 600, 3, prompt(1, 600))]
    built = scenario(rows, hardware={"profile": PROFILE}, disaggregation={"prefill": 2, "decode": 3})
    assert built.spec.hardware.replicas == 5
    assert built.set("disaggregation.decode", 7).spec.hardware.replicas == 9
    assert built.resolved()["hardware"]["replicas"] == 5
    alone = built.set("disaggregation", None)
    assert alone.spec.hardware.replicas == 1


# ---- refused


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"hardware": {"profile": PROFILE, "replicas": 3}}, "hardware.replicas: disaggregation has 1 prefill and 1"),
        (
            {"engine": {"speculation": {"method": "mtp", "tokens": 1, "acceptance": 0.7}}},
            "engine.speculation: not with",
        ),
        ({"engine": {"kind": "sglang"}}, "engine.kind: not with disaggregation"),
        ({"engine": {"scheduling": "static", "prefix_caching": False}}, "engine.scheduling: two pools"),
        ({"engine": {"framework": "hf_concat"}}, "engine.scheduling: two pools"),
        ({"policies": {"retention": "h2o"}, "engine": {"prefix_caching": False}}, "policies.retention: what a policy"),
        (
            {"disaggregation": {"prefill": 1, "decode": 1, "transfer": "block"}},
            "disaggregation.transfer: found 'block'",
        ),
        ({"disaggregation": {"prefill": 0, "decode": 2}}, "disaggregation.prefill"),
        ({"disaggregation": {"prefill": 1, "decode": 1, "link": "rdma-900g"}}, "disaggregation.link.device: unknown"),
        (
            {"disaggregation": {"prefill": 1, "decode": 1, "link": "nvme-gen4"}},
            "disaggregation.link.device: a device of",
        ),
        ({"disaggregation": {"prefill": 1, "decode": 1, "link": {"bandwidth": "0 GB/s"}}}, "disaggregation.link.band"),
        ({"disaggregation": {"prefill": 1, "decode": 1, "routing": "fastest"}}, "disaggregation.routing"),
        (
            {"disaggregation": {"prefill": 1, "decode": 1, "prefill_engine": {"max_num_batched_tokens": 10**6}}},
            "more than engine.max_num_batched_tokens",
        ),
        (
            {"disaggregation": {"prefill": 1, "decode": 1, "decode_engine": {"max_num_batched_tokens": 8}}},
            "each decoding sequence takes a token",
        ),
    ],
)
def test_what_does_not_go_together_says_so(run, prompt, sections, said):
    base = {"hardware": {"profile": PROFILE, "replicas": 2}, "disaggregation": {"prefill": 1, "decode": 1}}
    with pytest.raises(InputError) as error:
        run([(0, 600, 3, prompt(1, 600))], **{**base, **sections})
    assert said in str(error.value)
    assert "\n" not in str(error.value)
