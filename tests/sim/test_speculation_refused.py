"""Speculative decoding: what does not go together is told in one line."""

import pytest

from hw_profiles.errors import InputError
from tests.sim.speculation_cases import engine


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"engine": {**engine(tokens=0)}}, "tokens"),
        ({"engine": {**engine(acceptance=1.5)}}, "acceptance"),
        ({"engine": {**engine(acceptance=[0.5, 0.5])}}, "acceptance"),
        ({"engine": {**engine(method="mtp")}}, "lookup_time"),
        ({"engine": {"speculation": {"method": "draft", "tokens": 2, "acceptance": 0.5}}}, "model"),
        ({"engine": {**engine(), "scheduling": "static", "prefix_caching": False}}, "scheduling"),
        ({"engine": {**engine(), "framework": "hf_concat"}}, "framework"),
        ({"engine": {**engine(), "max_num_seqs": 256, "max_num_batched_tokens": 512}}, "max_num_batched_tokens"),
        ({"engine": {**engine(), "kind": "sglang", "mixed_chunk": True}}, "mixed_chunk"),
        ({"engine": {**engine(), "l2_prefetch": "2 MiB"}}, "l2_prefetch"),
        ({"engine": engine(), "hardware": {"profile": "h100-sxm", "pp": 2}}, "pipeline"),
        ({"engine": engine(), "policies": {"architecture": "cla"}}, "architecture"),
        (
            {"engine": {**engine(), "prefix_caching": False}, "policies": {"retention": "streaming_llm"}},
            "policies.retention",
        ),
        (
            {"engine": {"speculation": {"method": "draft", "model": "qwen3-8b", "tokens": 2, "acceptance": 0.5}}},
            "vocabulary",
        ),
        (
            {
                "engine": {
                    "speculation": {
                        "method": "draft",
                        "model": "llama-3.1-8b",
                        "tokens": 2,
                        "acceptance": 0.5,
                        "draft_tp": 2,
                    }
                }
            },
            "draft_tp",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(run, prompt, sections, said):
    with pytest.raises(InputError, match=said):
        run([(0, 100, 5, prompt(0, 100))], **sections)


@pytest.mark.parametrize(
    ("acceptance", "said"),
    [
        (1.5, r"engine\.speculation\.acceptance: found 1\.5"),
        (True, r"engine\.speculation\.acceptance: found True"),
    ],
)
def test_a_wrong_chance_is_told_by_its_key_alone(run, prompt, acceptance, said):
    with pytest.raises(InputError, match=said):
        run([(0, 100, 5, prompt(0, 100))], engine=engine(acceptance=acceptance))


def test_experts_of_a_dense_model_are_not_shared_out(run, prompt):
    """vLLM refuses it too: nothing would change."""
    hardware = {"profile": "h100-sxm", "tp": 4, "expert_parallel": True}
    with pytest.raises(InputError, match=r"hardware\.expert_parallel: .* has no experts"):
        run([(0, 100, 5, prompt(0, 100))], hardware=hardware)
    with pytest.raises(InputError, match=r"engine\.expert_skew: .* has no experts"):
        run([(0, 100, 5, prompt(0, 100))], engine={"expert_skew": 1.0})


def test_engines_settle_how_many_sequences_run(scenario, prompt):
    rows = [(0, 100, 5, prompt(0, 100))]
    seqs = {}
    for kind in ("vllm", "sglang", "tensorrt_llm"):
        spec = scenario(rows, engine={"kind": kind, **engine()}).spec
        seqs[kind] = spec.engine.max_num_seqs
    assert seqs == {"vllm": 256, "sglang": 48, "tensorrt_llm": 2048}
