"""engine.kind: tensorrt_llm. Whom its capacity scheduler admits, prompts that run whole, its memory and its graphs."""

import pytest

from sim.inputs import load_inputs
from sim.run import simulate

TRTLLM = {"kind": "tensorrt_llm", "block_tokens": 16}


def family(i, tokens):
    return [10 * i + k for k in range(-(-tokens // 512))]


@pytest.fixture
def served(run):
    """Requests and summary of `rows` (arrival, prompt, output) under the engine."""

    def go(rows, *, blocks=4000, shared=False, **engine):
        trace = [(t, i, o, family(0 if shared else n, i)) for n, (t, i, o) in enumerate(rows)]
        result = run(trace, blocks=blocks, engine={**TRTLLM, **engine})
        return result.frames["requests"], result.frames["steps"], result.summary

    return go


def test_who_is_promised_room_is_never_paused_and_who_is_not_waits(served):
    """Two sequences of 512 + 512 tokens in room for 1,600: vLLM and max_utilization run both, and one gives way."""
    rows = [(0, 512, 512), (0, 512, 512)]
    requests, _, summary = served(rows, blocks=100)
    assert summary["preemptions"] == 0
    assert requests.admit_s[1] == requests.finish_s[0]
    packed, _, summary = served(rows, blocks=100, capacity_policy="max_utilization")
    assert packed.preemptions.tolist()[0] == 0 < summary["preemptions"]  # the most recently started is paused
    assert packed.first_token_s[1] < requests.first_token_s[1]
    both, _, summary = served(rows, blocks=128)
    assert summary["preemptions"] == 0
    assert both.admit_s[1] == 0


def test_a_promise_is_for_the_last_token_too(served):
    """512 + 513 tokens have KV of 1,024: 64 blocks hold that, and the promise is 65."""
    rows = [(0, 512, 513)]
    assert served(rows, blocks=64)[0].status[0] == "rejected"
    assert served(rows, blocks=64, capacity_policy="max_utilization")[0].status[0] == "finished"
    assert served(rows, blocks=65)[0].status[0] == "finished"


def test_what_is_shared_is_promised_once(served):
    """Both prompts of 1,024 tokens are 64 blocks; shared, the second needs no more than its last block and output."""
    rows = [(0, 1024, 300), (1, 1024, 300)]
    alone, _, _ = served(rows, blocks=120)
    shared, _, summary = served(rows, blocks=120, shared=True)
    assert alone.admit_s[1] == alone.finish_s[0]
    assert shared.admit_s[1] < shared.finish_s[0]
    assert summary["preemptions"] == 0


def test_a_whole_prompt_must_be_there_at_once_to_pack_it(served):
    """A prompt in chunks of 256 needs all of its blocks when it starts, where vLLM takes them as they fill."""
    rows = [(0, 800, 200), (0.01, 800, 2)]
    packed, _, _ = served(rows, blocks=90, max_num_batched_tokens=2048, capacity_policy="max_utilization")
    assert packed.admit_s[1] >= packed.finish_s[0]


def test_prompts_run_whole_without_chunked_context(served):
    rows = [(0, 600, 2), (0, 600, 2), (0, 200, 2)]
    limits = {"max_num_batched_tokens": 1000, "max_num_seqs": 8}
    _, whole, _ = served(rows, **limits)
    _, chunked, _ = served(rows, chunked_context=True, **limits)
    assert whole.prefill_tokens[whole.prefill_seqs > 0].tolist() == [600, 800]  # the short one does not overtake
    assert chunked.prefill_tokens[chunked.prefill_seqs > 0].tolist() == [1000, 400]


def test_a_prompt_longer_than_a_step_needs_chunked_context(served):
    rows = [(0, 1200, 2)]
    limits = {"max_num_batched_tokens": 1000, "max_num_seqs": 8}
    requests, _, summary = served(rows, **limits)
    assert requests.status[0] == "rejected"
    assert any("chunked_context" in warning for warning in summary["warnings"])
    assert served(rows, chunked_context=True, **limits)[0].status[0] == "finished"


def test_a_long_prompt_waits_until_those_that_decode_leave_it_the_step(served):
    rows = [(0, 16, 40), (0.01, 1000, 2)]
    requests, _, _ = served(rows, max_num_batched_tokens=1000, max_num_seqs=8)
    assert requests.first_chunk_s[1] == requests.finish_s[0]


def test_kv_takes_its_share_of_what_is_free(scenario):
    def kv(**engine):
        return load_inputs(scenario([(0, 16, 1, [0])], engine={**TRTLLM, **engine})).budget

    whole, default, half = kv(free_gpu_memory_fraction=1.0), kv(), kv(free_gpu_memory_fraction=0.5)
    free = whole.total - whole.weights - whole.activations - whole.reserved
    for budget, share in ((whole, 1.0), (default, 0.9), (half, 0.5)):
        assert budget.usable == budget.total
        assert budget.blocks == int(share * free) // budget.block_bytes


def test_defaults_are_its_own(scenario):
    engine = scenario([(0, 16, 1, [0])], engine={"kind": "tensorrt_llm"}).spec.engine
    assert (engine.max_num_seqs, engine.max_num_batched_tokens, engine.block_tokens) == (2048, 8192, 32)
    assert (engine.capacity_policy, engine.chunked_context) == ("guaranteed_no_evict", False)
    plain = scenario([(0, 16, 1, [0])]).spec.engine
    assert (plain.max_num_seqs, plain.chunked_context, plain.capacity_policy) == (256, True, None)


def test_batches_between_two_graphs_run_without_one(served):
    """Sizes of 1 to 32, 64 and 128 are captured, and none is padded."""

    def step_s(seqs, **engine):
        _, steps, _ = served([(0, 16, 4)] * seqs, **engine)
        decode = steps[steps.prefill_seqs == 0].iloc[0]
        assert decode.decode_seqs == seqs
        return (decode.end_s - decode.start_s) / decode["count"]

    assert step_s(33) > 1.1 * step_s(32)
    assert step_s(64) < step_s(33)
    assert step_s(33, graph_batch_sizes=[64]) == pytest.approx(step_s(64), rel=0.05)


@pytest.mark.parametrize(
    ("kind", "profile", "sibling"),
    [
        ("tensorrt_llm", "h100-sxm", "h100-sxm-trtllm"),
        ("tensorrt_llm", "h100-sxm-sglang", "h100-sxm-trtllm"),
        ("vllm", "l40s-trtllm", "l40s"),
        ("tensorrt_llm", "h100-sxm-trtllm", None),
        ("tensorrt_llm", "a100-80", None),  # there is none
        ("vllm", "h100-sxm", None),
    ],
)
def test_another_engines_kernels_are_told_of_and_kept(scenario, kind, profile, sibling):
    result = simulate(scenario([(0, 64, 2, [0])], engine={"kind": kind}, hardware={"profile": profile}))
    told = [warning for warning in result.summary["warnings"] if "kernels" in warning]
    assert len(told) == (sibling is not None)
    assert all(f": {sibling} has" in warning for warning in told)
    assert result.summary["profile"]["name"] == profile
