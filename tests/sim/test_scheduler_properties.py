"""What must hold for every trace and every setting: budgets, order, strides equal to single steps, nothing lost."""

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from policies.tables import EVICTION

CHECKED = settings(  # a failing example is shown as found: making it smaller would take minutes
    max_examples=35,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)


def chained(paths):
    """Ids of prefix trees: the same path of choices gives the same ids, and nothing else does."""
    known: dict[tuple, int] = {}
    return [[known.setdefault(tuple(path[: i + 1]), len(known)) for i in range(len(path))] for path in paths]


@st.composite
def traces(draw):
    """2 to 12 requests over a small tree of shared 512-token blocks, some ending in a partial block."""
    count = draw(st.integers(2, 12))
    now, rows, paths = 0.0, [], []
    for _ in range(count):
        now += draw(st.sampled_from([0, 0, 0.01, 0.1, 1, 30]))
        path = draw(st.lists(st.integers(0, 1), max_size=4))
        rest = draw(st.sampled_from([0, 1, 15, 16, 17, 100, 511])) or (0 if path else 300)
        output = draw(st.sampled_from([1, 2, 3, 17, 80, 300]))
        rows.append((now, 512 * len(path) + rest, output))
        paths.append([*path, ("part", rest, draw(st.integers(0, 1)))] if rest else path)
    return [(*row, ids) for row, ids in zip(rows, chained(paths), strict=True)]


@st.composite
def kinds(draw, tokens, rows):
    """An engine and options of its own, with steps of as many tokens."""
    kind = draw(st.sampled_from(["vllm", "sglang", "tensorrt_llm"]))
    if kind == "vllm":
        whole, watermark = draw(st.booleans()), draw(st.sampled_from([0.0, 0.0, 0.05, 0.5]))
        return {"reserve_full_isl": whole, "watermark": watermark}
    if kind == "sglang":
        policy = draw(st.sampled_from(["fcfs", "lpm"]))
        cautious = draw(st.sampled_from([0.1, 1.0]))
        return {
            "kind": kind,
            "schedule_policy": policy,
            "mixed_chunk": draw(st.booleans()),
            "schedule_conservativeness": cautious,
        }
    capacity = draw(st.sampled_from(["guaranteed_no_evict", "max_utilization"]))
    whole = max(row[1] for row in rows) <= tokens and draw(st.booleans())
    return {"kind": kind, "capacity_policy": capacity, "chunked_context": not whole}


@st.composite
def settings_of_a_run(draw, rows, room=(0.7, 1.05, 1.3, 2.0, 4.0)):
    """Engine, tiers and policy, with HBM for about one or a few requests, so that preemption is common."""
    block = draw(st.sampled_from([16, 64, 512]))
    longest = max(i + o - 1 for _, i, o, _ in rows)
    seqs = draw(st.sampled_from([1, 2, 4, 16]))
    tokens = draw(st.sampled_from([16, 100, 512, 700, 2048, 3000]))
    kind = draw(kinds(tokens, rows))
    return {
        "blocks": -(-int(longest * draw(st.sampled_from(room))) // block) + draw(st.integers(0, 1)),
        "dram": draw(st.sampled_from([None, "100 MiB", "400 MiB", "10 GiB"])),
        "shared": draw(st.sampled_from(["private", "node"])),
        "policies": {
            "eviction": draw(st.sampled_from(list(EVICTION))),
            "offload": draw(st.sampled_from(["none", "write_through", "write_back"])),
        },
        "engine": {"max_num_seqs": seqs, "max_num_batched_tokens": tokens, "block_tokens": block, **kind},
        "hardware": {"profile": "h100-sxm", "replicas": draw(st.integers(1, 2))},
    }


@st.composite
def cases(draw):
    rows = draw(traces())
    return rows, draw(settings_of_a_run(rows))


def steps_one_by_one(steps):
    """The strides of a steps table cut into steps: replica, step number, and what does not change inside."""
    steps = steps.loc[steps.index.repeat(steps["count"])]
    number = steps.first_step + steps.groupby(level=0).cumcount()
    kept = steps[["replica", "decode_seqs", "prefill_seqs", "prefill_tokens"]]
    return kept.assign(step=number).sort_values(["replica", "step"]).reset_index(drop=True)


@CHECKED
@given(case=cases())
def test_limits_hold_and_nobody_is_lost(run, case):
    rows, keywords = case
    result = run(rows, **keywords)
    engine, steps = keywords["engine"], result.frames["steps"]
    assert (steps.decode_seqs + steps.prefill_tokens <= engine["max_num_batched_tokens"]).all()
    assert (steps.decode_seqs + steps.prefill_seqs <= engine["max_num_seqs"]).all()
    assert (steps.running <= engine["max_num_seqs"]).all()
    assert (steps.decode_seqs + steps.prefill_tokens > 0).all()
    requests = result.frames["requests"]
    capacity = keywords["blocks"] * engine["block_tokens"]
    promised = engine.get("capacity_policy") == "guaranteed_no_evict"  # with the KV of the last token
    more = engine["block_tokens"] + 1 if engine.get("kind") == "sglang" else promised - 1
    fits = requests.input_tokens + requests.output_tokens + more <= capacity
    assert list(requests.status) == ["finished" if ok else "rejected" for ok in fits]
    if engine.get("mixed_chunk") is False:
        assert ((steps.decode_seqs == 0) | (steps.prefill_seqs == 0)).all()
    if promised:
        assert result.summary["preemptions"] == 0
    if promised and not engine["chunked_context"]:
        assert steps.prefill_seqs.sum() == fits.sum()  # every prompt ran in one step
    done = requests[fits]
    order = done[["arrival_s", "admit_s", "load_done_s", "first_chunk_s", "first_token_s", "finish_s"]].to_numpy()
    assert (np.diff(order, axis=1) >= 0).all()
    parts = done.queue_s + done.load_s + done.prefill_s
    assert np.allclose(parts, done.ttft_s, rtol=0, atol=1e-9)
    # steps of one replica never overlap
    for _, own in steps.groupby("replica"):
        assert (own.start_s.to_numpy()[1:] >= own.end_s.to_numpy()[:-1]).all()


@CHECKED
@given(case=cases())
def test_strides_are_exactly_single_steps(run, same_requests, case):
    rows, keywords = case
    strides, singles = run(rows, **keywords), run(rows, **keywords, single_step=True)
    same_requests(strides, singles)
    for name in ("transfers", "samples"):
        pd.testing.assert_frame_equal(strides.frames[name], singles.frames[name], check_exact=True)
    assert (singles.frames["steps"]["count"] == 1).all()
    one_by_one = [steps_one_by_one(r.frames["steps"]) for r in (strides, singles)]
    pd.testing.assert_frame_equal(*one_by_one)


def test_strides_evict_in_the_same_order_as_single_steps(run, same_requests, prompt):
    """A block becomes evictable in the middle of a stride: what the stride's earlier steps evicted must not change.

    Request 4 decodes alone while the slow store of request 5 pins blocks that are older than those of request 6.
    """
    rows = [
        (0, 512, 1, prompt(1, 512)),
        (10, 9000, 1, prompt(2, 9000)),  # drives the first out of HBM
        (20, 512, 600, prompt(3, 512)),
        (20.05, 8192, 1, prompt(4, 8192)),
        (21, 513, 1, [*prompt(1, 512), 99]),  # loads what the first computed
        (3000, 513, 1, [*prompt(1, 512), 98]),
    ]
    results = [
        run(
            rows,
            blocks=600,
            dram="10 GiB",
            policies={"eviction": "fifo", "offload": "write_through"},
            links={"pcie_d2h": {"bandwidth": "0.4 GB/s"}},
            single_step=single,
        )
        for single in (False, True)
    ]
    same_requests(*results)


def test_strides_stop_where_an_eviction_starts_a_copy(run, prompt):
    """Under write-back a decode step that takes an old block waits for its copy: in the step that takes it."""
    rows = [(0, 2000, 1, prompt(1, 2000)), (10, 1000, 500, prompt(2, 1000))]
    results = [run(rows, blocks=192, dram="10 GiB", offload="write_back", single_step=s) for s in (False, True)]
    for name in ("requests", "transfers"):
        pd.testing.assert_frame_equal(*(r.frames[name] for r in results), check_exact=True)
    stalls = results[0].frames["steps"].stall_s
    assert (stalls > 0).sum() == len(results[0].frames["transfers"]) > 0


def test_strides_are_cut_when_a_shared_tier_gains_what_the_head_waits_for(run):
    """Request 2 has no room to compute its prompt; once replica 1 has stored a block of it, there is room to load."""
    rows = [
        (0.00, 513, 20, [7, 12]),
        (0.01, 1636, 1, [7, 8, 9, 13]),
        (0.02, 2048, 1, [2, 14, 15, 16]),
        (0.03, 512, 1, [7]),
        (0.04, 1636, 1, [7, 8, 9, 13]),
        (0.04, 612, 1, [2, 17]),
    ]
    results = [
        run(
            rows,
            blocks=5,
            dram="100 GiB",
            shared="node",
            engine={"max_num_seqs": 2, "block_tokens": 512, "max_num_batched_tokens": 2048},
            hardware={"profile": "h100-sxm", "replicas": 2},
            single_step=single,
        )
        for single in (False, True)
    ]
    pd.testing.assert_frame_equal(*(r.frames["requests"] for r in results), check_exact=True)


def test_strides_save_rows(run, prompt):
    rows = [(0, 100, 300, prompt(0, 100)), (0, 100, 200, prompt(1, 100))]
    assert len(run(rows).frames["steps"]) == 3  # prefill, until the shorter finishes, until the longer does
    assert len(run(rows, single_step=True).frames["steps"]) == 300


@CHECKED
@given(
    kind=st.sampled_from(["vllm", "sglang", "tensorrt_llm"]),
    count=st.integers(2, 12),
    tokens=st.sampled_from([16, 300, 1024]),
    output=st.integers(1, 40),
    gaps=st.lists(st.sampled_from([0, 0.001, 0.02, 0.5]), min_size=12, max_size=12),
    seqs=st.integers(1, 4),
    budget=st.sampled_from([16, 512, 8192]),
)
@example(kind="vllm", count=12, tokens=1024, output=40, gaps=[0] * 12, seqs=1, budget=16)
def test_equal_requests_start_and_finish_in_order_of_arrival(run, kind, count, tokens, output, gaps, seqs, budget):
    arrivals = np.cumsum(gaps[:count])
    rows = [
        (float(t), tokens, output, [1000 * i + k for k in range(-(-tokens // 512))]) for i, t in enumerate(arrivals)
    ]
    engine = {"kind": kind, "max_num_seqs": seqs, "max_num_batched_tokens": budget, "chunked_context": True}
    result = run(rows, engine=engine)
    requests = result.frames["requests"]
    assert result.summary["preemptions"] == 0
    for column in ("admit_s", "first_chunk_s", "first_token_s", "finish_s"):
        assert (np.diff(requests[column]) >= 0).all(), column


def test_preemption_happens_and_is_counted(run, prompt):
    """Two sequences of 512 + 512 tokens in room for 1,600: the second gives way, and is computed again."""
    rows = [(0, 512, 512, prompt(i, 512)) for i in range(2)]
    result = run(rows, blocks=100)
    requests = result.frames["requests"]
    assert result.summary["preemptions"] == requests.preemptions.sum() > 0
    assert requests.preemptions[0] == 0  # the newest is preempted
    assert requests.recomputed_tokens[1] > 0
    assert requests.admit_s[1] == requests.queue_s[1] == 0  # of the first admission
    assert requests.finish_s[0] < requests.finish_s[1]
    assert list(requests.status) == ["finished", "finished"]


def test_preempted_output_is_not_sampled_twice(run, prompt):
    rows = [(0, 512, 512, prompt(i, 512)) for i in range(2)]
    roomy, tight = run(rows), run(rows, blocks=100)
    for result in (roomy, tight):
        steps = result.frames["steps"]
        decoded = int((steps.decode_seqs * steps["count"]).sum())
        ends_of_prefill = 2 + (1 if result is tight else 0) * int(tight.summary["preemptions"])
        assert decoded + ends_of_prefill == 1024
