"""Closed-loop rounds: barrier, ready queue and pace in the engine, and hit ratios by round against arithmetic."""

from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pytest

from sim.run import simulate

BLOCK = 16
ROUNDS, CLIENTS, NEW, ANSWER = 8, 6, 320, 32
"""Prompts of 320 new tokens and answers of 32: 22 blocks a round, less the last token of the answer."""
MIB_PER_BLOCK = 2
GROW = {"clients": CLIENTS, "rounds": ROUNDS, "input_tokens": NEW, "output_tokens": ANSWER, "max_parallel": 1}
ONE_BY_ONE = {**GROW, "barrier": True}


def table(result):
    return result.tables["requests"].to_pandas().sort_values("request_id").reset_index(drop=True)


def prompt_tokens(k):
    """Of round k, from 1."""
    return k * NEW + (k - 1) * ANSWER


def left_blocks(k):
    """Full blocks that round k leaves: all of its prompt and of its answer but the last token."""
    return (prompt_tokens(k) + ANSWER - 1) // BLOCK


def full_rounds(blocks):
    """Rounds that find all that they can in a tier of so many blocks, for clients that take turns.

    Before the last client's turn in round k the others have left what round k leaves, and its own lies there since
    round k - 1.
    """
    held = [(CLIENTS - 1) * left_blocks(k) + left_blocks(k - 1) for k in range(2, ROUNDS + 1)]
    return 1 + sum(each <= blocks for each in held)


def by_lru(blocks):
    """Blocks that each request finds in an LRU cache of `blocks`, client after client, round after round.

    A request needs a block for every 16 tokens that it has KV of; what it no longer needs is released from its end.
    """
    held, found = OrderedDict(), []
    for k in range(1, ROUNDS + 1):
        for client in range(CLIENTS):
            names = [(client, i) for i in range(left_blocks(k))]
            usable = (prompt_tokens(k) - 1) // BLOCK
            hits = next((i for i, name in enumerate(names[:usable]) if name not in held), usable)
            for name in names[:hits]:
                held.pop(name)
            need = -(-(prompt_tokens(k) + ANSWER - 1) // BLOCK)
            while len(held) + need > blocks:
                held.popitem(last=False)
            for name in reversed(names):
                held.pop(name, None)
                held[name] = None
            found.append(hits)
    return np.array(found).reshape(ROUNDS, CLIENTS)


def hits(result):
    rows = table(result)
    rows["round"] = rows["input_tokens"].map({prompt_tokens(k): k for k in range(1, ROUNDS + 1)})
    columns = [name for name in rows if name.startswith("hit_")]
    return rows.groupby("round")[columns].sum()


def test_with_room_for_all_each_round_finds_what_the_ones_before_left(run):
    result = run(trace={"clients": ONE_BY_ONE}, blocks=4000)
    for k, row in enumerate(result.summary["rounds"], 1):
        wanted = left_blocks(k - 1) * BLOCK if k > 1 else 0
        assert row["round"] == k
        assert row["requests"] == CLIENTS
        assert row["hit_tokens"] == {"hbm": CLIENTS * wanted}
        assert row["hit_ratio"] == row["unlimited_hit_ratio"] == wanted / prompt_tokens(k)
        # k / (k + 1) of equal rounds, but for the answer's last token and what of the block it leaves open
        assert row["hit_ratio"] == pytest.approx((k - 1) / k, abs=(ANSWER + BLOCK) / prompt_tokens(k))


@pytest.mark.parametrize("blocks", [300, 420, 560, 700, 836, 837, 1000])
def test_in_hbm_alone_hits_are_those_of_an_lru_cache_of_so_many_blocks(run, blocks):
    result = run(trace={"clients": ONE_BY_ONE}, blocks=blocks)
    wanted = by_lru(blocks).sum(axis=1) * BLOCK
    assert [row["hit_tokens"]["hbm"] for row in result.summary["rounds"]] == wanted.tolist()
    full = full_rounds(blocks)
    ratios = [(row["hit_ratio"], row["unlimited_hit_ratio"]) for row in result.summary["rounds"]]
    assert all(one == best for one, best in ratios[:full])
    if full < ROUNDS:
        assert ratios[full][0] < ratios[full][1]


@pytest.mark.parametrize("blocks", [420, 560, 836])
@pytest.mark.parametrize("tier", ["dram", "ssd"])
def test_the_tier_with_most_room_puts_the_cliff_where_arithmetic_does(run, tier, blocks):
    """HBM has room for 200 blocks and, with the drive, DRAM for 260: each alone would fall off sooner."""
    behind = [{"name": "dram", "capacity": f"{blocks * MIB_PER_BLOCK} MiB"}]
    if tier == "ssd":
        behind = [{"name": "dram", "capacity": f"{260 * MIB_PER_BLOCK} MiB"}, {**behind[0], "name": "ssd"}]
    result = run(
        trace={"clients": {**ONE_BY_ONE, "think_time": "1 s"}},  # copies have arrived before the next round
        blocks=200,
        tiers=[{"name": "hbm"}, *behind],
    )
    rounds, full = result.summary["rounds"], full_rounds(blocks)
    assert full_rounds(200) < full_rounds(260) < full
    assert [row["hit_ratio"] for row in rounds[:full]] == [row["unlimited_hit_ratio"] for row in rounds[:full]]
    if full < ROUNDS:
        assert rounds[full]["hit_ratio"] < rounds[full]["unlimited_hit_ratio"]
    assert rounds[full - 1]["hit_tokens"][tier] > 0


def test_nobody_begins_a_round_before_all_have_ended_the_one_before(run):
    changes = {**GROW, "max_parallel": 3, "output_tokens": {"min": 1, "max": 200}, "think_time": {"mean": "100 ms"}}
    free, held = (run(trace={"clients": {**changes, "barrier": b}}, blocks=3000) for b in (False, True))
    rounds = held.summary["rounds"]
    for before, after in pairwise(rounds):
        assert after["start_s"] >= before["end_s"]
    assert any(after["start_s"] < before["end_s"] for before, after in pairwise(free.summary["rounds"]))
    assert held.summary["trace"]["barrier_wait_s"] > 0
    assert "barrier_wait_s" not in free.summary["trace"]
    assert held.summary["duration_s"] > free.summary["duration_s"]


def test_a_round_opens_when_the_last_one_ends_and_think_times_count_from_the_own_end(run):
    result = run(trace={"clients": {**ONE_BY_ONE, "rounds": 3, "max_parallel": None, "think_time": "2 s"}}, blocks=3000)
    rows = table(result)
    turns = (rows["input_tokens"] - NEW) // (NEW + ANSWER)
    for turn in (1, 2):
        own = rows.loc[turns == turn - 1].set_index("session")["finish_s"]
        for _, row in rows.loc[turns == turn].iterrows():
            assert row["arrival_s"] == max(own.max(), own[row["session"]] + 2.0)


def test_a_random_ready_queue_takes_others_and_spoils_the_order_that_lru_likes_least(run):
    fifo, random = (
        run(trace={"clients": {**ONE_BY_ONE, "ready_queue": queue}}, blocks=560) for queue in ("fifo", "random")
    )
    sessions = [
        table(r).sort_values("arrival_s")["session"].to_numpy().reshape(ROUNDS, CLIENTS) for r in (fifo, random)
    ]
    assert (sessions[0] == np.arange(CLIENTS)).all()
    assert (np.sort(sessions[1]) == np.arange(CLIENTS)).all()
    assert len({tuple(order) for order in sessions[1]}) > 1
    # a cyclic order is LRU's worst: at the end, beyond the cliff, a random one finds more
    last = [sum(row["hit_ratio"] for row in r.summary["rounds"][-3:]) for r in (fifo, random)]
    assert last[1] > last[0]


def test_the_request_rate_is_that_of_sending(run):
    spec = {"clients": 30, "rounds": 4, "input_tokens": 64, "output_tokens": 4}
    slow = run(trace={"clients": {**spec, "request_rate": 2.0, "request_gaps": "even"}})
    gaps = np.diff(np.sort(table(slow)["arrival_s"]))
    assert np.allclose(gaps, 0.5)
    poisson = run(trace={"clients": {**spec, "request_rate": 2.0}})
    gaps = np.diff(np.sort(table(poisson)["arrival_s"]))
    assert gaps.mean() == pytest.approx(0.5, rel=0.25)
    assert gaps.std() > 0.25
    fast = run(trace={"clients": spec})
    assert fast.summary["duration_s"] < slow.summary["duration_s"] / 5
    assert slow.summary["trace"]["sender_wait_s"] > 0


def test_strides_and_single_steps_agree(scenario, same_requests):
    spec = {**GROW, "max_parallel": 4, "barrier": True, "ready_queue": "random", "request_rate": 20.0}
    built = scenario(trace={"clients": spec}, blocks=400, dram="1 GiB")
    one, two = (simulate(built, single_step=single, check=True) for single in (False, True))
    same_requests(one, two)
    assert one.summary["rounds"] == two.summary["rounds"]


def test_an_open_trace_has_no_rounds(run):
    result = run(trace={"generate": {"requests": 20, "turns": 3.0}})
    assert "rounds" not in result.summary
    closed = run(trace={"generate": {"requests": 20, "turns": 3.0}, "closed_loop": True})
    assert closed.summary["rounds"][0]["requests"] > 0


def test_rows_add_up(run):
    result = run(trace={"clients": {**GROW, "max_parallel": 3}}, blocks=400)
    rounds, prefix = result.summary["rounds"], result.summary["prefix"]
    assert sum(row["requests"] for row in rounds) == result.summary["requests"]["finished"]
    assert sum(row["input_tokens"] for row in rounds) == prefix["input_tokens"]
    assert sum(row["hit_tokens"]["hbm"] for row in rounds) == prefix["hit_tokens"]["hbm"]
    means = [row["ttft_ms"]["mean"] * row["requests"] for row in rounds]
    assert sum(means) / len(table(result)) == pytest.approx(result.summary["ttft_ms"]["mean"])
    for row in rounds:
        assert row["requests_per_s"] == pytest.approx(row["requests"] / (row["end_s"] - row["start_s"]))
        assert row["hit_ratio"] <= row["unlimited_hit_ratio"]
