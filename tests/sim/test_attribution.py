"""Every second of a request is in one part, and in the right one."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sim.attribution import PARTS, PHASES, WAITS

DISK = {"ssd_read": {"bandwidth": "2 GB/s"}, "ssd_write": {"bandwidth": "2 GB/s"}}
GENERATED = {
    "requests": 60,
    "rate": 6,
    "turns": 3,
    "think_time": "4 s",
    "first_tokens": {"mean": 1500, "sigma": 1},
    "output_tokens": {"mean": 150, "sigma": 0.8},
    "max_input": 6000,
}
CLIENTS = {"clients": 12, "rounds": 3, "input_tokens": 900, "output_tokens": 120, "think_time": "1 s"}


def columns(phase):
    return [f"{phase}_{part}_s" for part in PARTS if (phase, part) != ("prefill", "beside")]


def check_sums(result):
    """Parts are not negative and add up, request by request."""
    rows = result.frames["requests"]
    rows = rows[rows.status == "finished"]
    loads = [f"load_{tier}_s" for tier in list(result.summary["tiers"])[1:]]
    every = ["queue_s", "load_s", "prefetch_wait_s", *loads, *columns("prefill"), *columns("decode")]
    assert (rows[every].to_numpy() >= -1e-9).all()
    assert (rows.prefetch_wait_s <= rows.queue_s + 1e-9).all()
    for total, parts in (
        (rows.ttft_s, ["queue_s", "load_s", "prefill_s"]),
        (rows.load_s if loads else 0 * rows.load_s, loads),
        (rows.prefill_s, columns("prefill")),
        (rows.e2e_s - rows.ttft_s, columns("decode")),
    ):
        assert np.allclose(rows[parts].sum(axis=1), total, rtol=0, atol=1e-9)


def check_steps(result):
    """The waits of requests, counted again step by step: who was in a step waited as long as it did."""
    steps, lost = result.frames["steps"], result.frames["preemptions"]
    rows = result.frames["requests"].set_index("request_id")
    for request, row in rows[rows.status == "finished"].iterrows():
        here = steps[steps.replica == row.replica]
        mid = (here.start_s + here.end_s) / 2
        away = np.zeros(len(here), dtype=bool)
        for loss in lost[lost.request_id == request].itertuples():
            away |= ((loss.start_s < mid) & (mid < loss.restart_s)).to_numpy()
        spans = pairwise((row.first_chunk_s, row.first_token_s, row.finish_s))
        for phase, (start, end) in zip(PHASES, spans, strict=True):
            member = here[(start < mid) & (mid < end) & ~away]
            for part, column in WAITS.items():
                assert row[f"{phase}_{part}_s"] == pytest.approx(member[column].sum(), abs=1e-9)
    assert len(lost) == result.summary["preemptions"] == rows.preemptions.sum()


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    load=st.sampled_from([{"generate": GENERATED}, {"generate": {**GENERATED, "rate": 30}}, {"clients": CLIENTS}]),
    offload=st.sampled_from(["write_through", "write_back"]),
    prefetch=st.sampled_from(["none", {"name": "on_arrival", "into": "dram", "stop": "wait_complete"}]),
    mode=st.sampled_from(["blocking", "layerwise", "synchronous"]),
    blocks=st.sampled_from([420, 520, 1500]),
    replicas=st.integers(1, 2),
    seed=st.integers(0, 5),
)
def test_parts_add_up_whatever_happens(run, load, offload, prefetch, mode, blocks, replicas, seed):
    result = run(
        blocks=blocks,
        tiers=[{"name": "hbm"}, {"name": "dram", "capacity": "1 GiB"}, {"name": "ssd", "capacity": "20 GiB"}],
        links={**DISK, "pcie_h2d": {"bandwidth": "2 GB/s"}},
        policies={"offload": offload, "prefetch": prefetch},
        engine={"max_num_seqs": 24, "max_num_batched_tokens": 1024, "loading": {"mode": mode}},
        hardware={"profile": "h100-sxm", "replicas": replicas},
        trace=load,
        seed=seed,
    )
    check_sums(result)
    check_steps(result)


def test_every_part_is_somewhere(run):
    """What the property above adds up is not all zeros: runs in which each part exists."""
    seen = set()
    for mode, offload in (("blocking", "write_back"), ("layerwise", "write_through")):
        result = run(
            blocks=520,
            tiers=[{"name": "hbm"}, {"name": "dram", "capacity": "1 GiB"}, {"name": "ssd", "capacity": "20 GiB"}],
            links={**DISK, "pcie_h2d": {"bandwidth": "2 GB/s"}},
            policies={"offload": offload},
            engine={"max_num_seqs": 24, "max_num_batched_tokens": 1024, "loading": {"mode": mode}},
            trace={"generate": GENERATED},
        )
        rows = result.frames["requests"]
        seen |= {name for name in (*columns("prefill"), *columns("decode")) if rows[name].max() > 0}
        if mode == "blocking":
            assert rows.load_dram_s.max() > 0
            assert rows.load_ssd_s.max() > 0
    assert seen >= set(columns("decode")) - {"decode_kv_moves_s"}
    assert seen >= {f"prefill_{part}_s" for part in ("compute", "copies", "layer_wait", "store_wait")}


def test_a_request_alone_only_computes(run, prompt):
    row = run([(0, 1000, 50, prompt(1, 1000))]).frames["requests"].iloc[0]
    assert row.prefill_compute_s == row.prefill_s == row.ttft_s
    assert row.decode_compute_s == row.e2e_s - row.ttft_s > 0
    assert row[[c for c in (*columns("prefill"), *columns("decode")) if not c.endswith("compute_s")]].sum() == 0


def test_tokens_beside_a_prompt(run, prompt):
    """One step with the second request's prompt is in between: exactly that is counted as such."""
    result = run([(0, 1000, 50, prompt(1, 1000)), (0.2, 3000, 1, prompt(2, 3000))])
    steps, first = result.frames["steps"], result.frames["requests"].iloc[0]
    shared = steps[(steps.prefill_seqs > 0) & (steps.decode_seqs > 0)]
    assert len(shared) == 1
    assert first.decode_beside_s == pytest.approx(float((shared.end_s - shared.start_s).sum()), rel=1e-9)


def test_the_slowest_tier_has_the_wait(run, prompt):
    """Prompt 1 is on the disk alone when it comes back, prompt 3 in host memory."""
    rows = [
        (10 * i, tokens, 1, prompt(family, tokens))
        for i, (family, tokens) in enumerate([(1, 1600), (2, 2000), (3, 4000), (1, 1600), (2, 2000), (3, 4000)])
    ]
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "800 MiB"}, {"name": "ssd", "capacity": "10 GiB"}]
    requests = run(rows, blocks=256, tiers=tiers, links=DISK).frames["requests"]
    assert (requests.load_s[3:] > 0).all()
    for row in requests[3:].itertuples():
        slow = "ssd" if row.hit_ssd_tokens else "dram"
        assert getattr(row, f"load_{slow}_s") == row.load_s
    assert requests.load_ssd_s[3] > 0


def test_waiting_for_its_own_prefetch(run, prompt):
    rows = [(0, 1600, 1, prompt(1, 1600)), (10, 2000, 1, prompt(2, 2000)), (20, 4000, 1, prompt(3, 4000))]
    rows.append((30, 1600, 1, prompt(1, 1600)))
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "540 MiB"}, {"name": "ssd", "capacity": "10 GiB"}]
    policies = {"offload": "write_through", "prefetch": {"name": "on_arrival", "into": "dram", "stop": "wait_complete"}}
    requests = run(rows, blocks=256, tiers=tiers, links=DISK, policies=policies).frames["requests"]
    assert requests.prefetch_wait_s[:3].tolist() == [0, 0, 0]
    assert requests.prefetch_wait_s[3] == pytest.approx(requests.queue_s[3], rel=1e-9)
    assert requests.prefetch_wait_s[3] > 0.05


def test_preempted_while_decoding(run, prompt):
    """The second request loses its place, waits for the first to end, and computes again what it had."""
    rows = [(0, 1600, 400, prompt(1, 1600)), (0.1, 1600, 400, prompt(2, 1600))]
    result = run(rows, blocks=232)
    loss, row = result.frames["preemptions"].iloc[0], result.frames["requests"].iloc[1]
    assert result.summary["preemptions"] == 1
    assert loss.request_id == 1
    assert loss.start_s < result.frames["requests"].finish_s[0] == loss.restart_s
    assert row.decode_preempted_s == loss.restart_s - loss.start_s
    again = result.frames["steps"].query("start_s >= @loss.restart_s and prefill_seqs > 0")
    assert 0 < row.recomputed_tokens == again.prefill_tokens.sum()
    assert row.decode_recompute_s == pytest.approx(float((again.end_s - again.start_s).sum()), rel=1e-9)
    assert row.decode_beside_s == 0


def test_the_summary_has_the_means_of_the_parts(run):
    """Over all requests and over the slowest 1 %, for TTFT and for E2E; every part is defined."""
    result = run(
        blocks=520,
        dram="1 GiB",
        engine={"max_num_seqs": 24, "max_num_batched_tokens": 1024},
        trace={"generate": {**GENERATED, "requests": 230}},
    )
    rows, summary = result.frames["requests"], result.summary
    for span in ("ttft", "e2e"):
        groups = summary["attribution"][f"{span}_ms"]
        assert groups["all"]["mean"] == pytest.approx(summary[f"{span}_ms"]["mean"], rel=1e-9)
        slowest = rows[f"{span}_s"].nlargest(2)
        assert groups["slowest"]["requests"] == 2
        assert groups["slowest"]["mean"] == pytest.approx(1e3 * slowest.mean(), rel=1e-9)
        for group in groups.values():
            assert sum(group["parts"].values()) == pytest.approx(group["mean"], rel=1e-9)
        parts = groups["slowest"]["parts"]
        assert parts["queue"] == pytest.approx(1e3 * rows.queue_s[slowest.index].mean(), rel=1e-9)
        assert {part.partition("load_")[0] or "load" for part in parts} <= set(summary["definitions"]["attribution"])
    both = rows.prefill_recompute_s + rows.decode_recompute_s
    parts = summary["attribution"]["e2e_ms"]["all"]["parts"]
    assert parts["recompute"] == pytest.approx(1e3 * both.mean(), rel=1e-9)
    assert parts["recompute"] > 0


def test_no_request_no_parts(run, prompt):
    assert run([(0, 200_000, 10, prompt(1, 200_000))]).summary["attribution"] == {}


def test_preempted_in_the_middle_of_its_prompt(run, prompt):
    """The first request's tokens take the memory that the rest of the second one's prompt needs."""
    rows = [(0, 1600, 400, prompt(1, 1600)), (0.1, 3000, 5, prompt(2, 3000))]
    engine = {"max_num_seqs": 8, "max_num_batched_tokens": 256, "reserve_full_isl": False}
    result = run(rows, blocks=200, engine=engine)
    lost, row = result.frames["preemptions"], result.frames["requests"].iloc[1]
    assert len(lost) > 0
    assert (lost.request_id == 1).all()
    assert (lost.end_s <= row.first_token_s).all()
    assert row.prefill_preempted_s == pytest.approx((lost.restart_s - lost.start_s).sum(), rel=1e-9)
    assert row.recomputed_tokens > 0
    steps = result.frames["steps"].query("start_s >= @row.first_chunk_s and end_s <= @row.first_token_s")
    own = steps[steps.prefill_seqs > 0]
    spent = float((own.end_s - own.start_s).sum())
    assert row.prefill_compute_s + row.prefill_recompute_s == pytest.approx(spent, rel=1e-9)
    assert 0 < row.prefill_recompute_s < spent
    assert row.decode_preempted_s == row.decode_recompute_s == 0
    check_sums(result)
    check_steps(result)
