"""Every offload, admission and prefetch policy, and every option of one, moves the bytes that it should: hand counts.

One replica and requests that do not overlap, but where a fetch needs a queue to hide in.
"""

from pathlib import Path

import pytest

from policies.build import policy_options
from policies.tables import ADMISSION, OFFLOAD, PREFETCH

COUNT, TOKENS = 8, 1024
FULL = 512
HBM = 2 * TOKENS // 16
"""Engine blocks: two prompts fit."""


def there_and_back(tokens=TOKENS, back=COUNT):
    """Prompts of their own, one after the other, and the last `back` of them again in reverse."""
    blocks = -(-tokens // FULL)
    order = [*range(COUNT), *list(reversed(range(COUNT)))[:back]]
    return [(20.0 * i, tokens, 1, [10 * family + b for b in range(blocks)]) for i, family in enumerate(order)]


@pytest.fixture
def stored(run, hand):
    """Tokens that are stored behind HBM under some policies."""

    def go(rows, blocks=HBM, **policies):
        result = run(rows, blocks=blocks, dram="100 GiB", policies=policies)
        moved = result.frames["transfers"].query("reason == 'store'").bytes.sum()
        assert moved == result.summary["tiers"]["dram"]["stored_bytes"]
        return moved / hand.token_bytes

    return go


# ---- offload

# Policy, which prompts come again, tokens stored.
OFFLOADED = [
    ("none", 8, 0),
    ("write_through", 0, COUNT * TOKENS),
    ("write_through", 8, COUNT * TOKENS),  # what is there already is not stored twice
    ("write_back", 0, (COUNT - 2) * TOKENS),  # the last two are still in HBM
    ("write_back", 8, COUNT * TOKENS),
    ("write_through_selective", 0, 0),
    ("write_through_selective", 8, 2 * (TOKENS - 16)),  # those that HBM still had are hit there, but for the last block
    ({"name": "write_through_selective", "after": 2}, 8, 0),
    ({"name": "by_cost", "weight": 0}, 0, COUNT * TOKENS),
    ({"name": "by_cost", "weight": 1e6}, 8, 0),
]


@pytest.mark.parametrize(("policy", "back", "tokens"), OFFLOADED)
def test_what_an_offload_policy_stores(stored, policy, back, tokens):
    assert stored(there_and_back(back=back), offload=policy) == tokens


def test_what_is_hit_above_is_stored_again_if_it_has_left(run):
    """Host memory for one prompt, HBM for two: the first prompt is hit in HBM when host memory has the second.

    Its last block, of which the last 16 tokens are computed again, is stored either way; the one before if asked for.
    """
    rows = [(20.0 * i, TOKENS, 1, [10 * family, 10 * family + 1]) for i, family in enumerate((0, 1, 0))]
    stored = []
    for hits in (False, True):
        policies = {"offload": {"name": "write_through", "hits": hits}}
        result = run(rows, blocks=HBM + 2, dram=f"{TOKENS * 131072} B", policies=policies)
        stored.append(result.summary["tiers"]["dram"]["stored_bytes"] / 131072)
    assert stored[1] - stored[0] == FULL


def test_dearer_stores_are_fewer(run):
    """`weight` is what a second of the link is worth; a slower link is the same thing. And it learns by its history."""
    load = {"requests": 150, "rate": 4, "turns": 3, "think_time": "20 s", "system_prompts": 5}
    load |= {"first_tokens": {"mean": 2000, "sigma": 1}, "output_tokens": {"mean": 30, "sigma": 0.8}}

    def bytes_for(rate="50 GB/s", **options):
        policies = {"offload": {"name": "by_cost", **options}}
        links = {"pcie_d2h": {"bandwidth": rate}}
        result = run(trace={"generate": load}, blocks=500, dram="100 GiB", policies=policies, links=links)
        return result.summary["tiers"]["dram"]["stored_bytes"]

    by_weight = [bytes_for(weight=weight) for weight in (0, 2.0, 4.0, 16.0)]
    assert sorted(set(by_weight), reverse=True) == by_weight
    by_rate = [bytes_for(rate, weight=1.0) for rate in ("50 GB/s", "12 GB/s", "3 GB/s")]
    assert sorted(set(by_rate), reverse=True) == by_rate
    assert bytes_for(weight=1.0, history_ratio=1.0) < bytes_for(weight=1.0, history_ratio=16.0)


# ---- admission

PARTLY = 1200
"""Tokens of a prompt of two full blocks and 176 tokens."""
ADMITTED = [
    ("always", TOKENS, 0, COUNT * TOKENS),
    ("always", PARTLY, 0, COUNT * PARTLY),
    ("by_size", PARTLY, 0, COUNT * 2 * FULL),
    ({"name": "by_size", "least_tokens": 100}, PARTLY, 0, COUNT * PARTLY),
    ({"name": "by_size", "least_tokens": 1, "most_tokens": 200}, PARTLY, 0, COUNT * 176),
    ("second_hit", TOKENS, 0, 0),
    # Two prompts are hit in HBM and compute the end of their last block again; all others knock a second time.
    ("second_hit", TOKENS, 8, (COUNT - 2) * TOKENS + 2 * FULL),
    ({"name": "second_hit", "ghost_ratio": 0}, TOKENS, 8, 2 * FULL),
]


@pytest.mark.parametrize(("policy", "tokens", "back", "expected"), ADMITTED)
def test_what_an_admission_policy_lets_in(stored, policy, tokens, back, expected):
    assert stored(there_and_back(tokens, back), blocks=2 * tokens // 16, admission=policy) == expected


def test_refused_keys_are_remembered_as_long_as_the_list_is(run):
    """Eight prompts of two blocks: the list of a tier of sixteen blocks remembers 4, 8 or all of those refused."""
    found = []
    for ratio in (0.25, 0.5, 1.0):
        policies = {"admission": {"name": "second_hit", "ghost_ratio": ratio}}
        result = run(there_and_back(), blocks=HBM, dram=f"{16 * FULL * 131072} B", policies=policies)
        found.append(result.summary["tiers"]["dram"]["stored_bytes"] / 131072 - 2 * FULL)
    # in reverse: the prompts refused last come back first; the last two of them are in HBM
    assert found == [0, 2 * TOKENS, 6 * TOKENS]


# ---- prefetch


@pytest.fixture
def behind_another(run, prompt):
    """A prompt that lies in host memory (or further) arrives while a long prefill has just begun."""

    def go(prefetch, *, into_hbm_only=True, **keywords):
        rows = [(0, 1600, 1, prompt(1, 1600)), (5, 4000, 1, prompt(2, 4000)), (10, 4000, 1, prompt(3, 4000))]
        rows += [(30.0, 3000, 1, prompt(4, 3000)), (30.001, 1600, 1, prompt(1, 1600))]
        tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "1100 MiB" if not into_hbm_only else "10 GiB"}]
        if not into_hbm_only:
            tiers.append({"name": "ssd", "capacity": "10 GiB"})
        policies = {"offload": "write_through", **({"prefetch": prefetch} if prefetch else {})}
        result = run(rows, blocks=320, tiers=tiers, policies=policies, **keywords)
        return result.frames["requests"].iloc[4], result

    return go


def test_a_fetch_hides_in_the_queue(behind_another, hand):
    """TTFT = queue + load + prefill without, and max(queue, load) + prefill with a fetch into HBM on arrival."""
    rate = {"links": {"pcie_h2d": {"bandwidth": "20 GB/s", "latency": "0 s"}}}
    plain, _ = behind_another(None, **rate)
    load = 1584 * hand.token_bytes / 20e9
    step = hand.mixed_step([(16, 1584)], sampled=1)
    assert plain.load_s == pytest.approx(load, rel=1e-9)
    assert plain.queue_s > load
    assert plain.ttft_s == pytest.approx(plain.queue_s + load + step, rel=1e-9)
    early, result = behind_another({"name": "on_arrival", "into": "hbm", "stop": "wait_complete"}, **rate)
    assert early.hit_hbm_tokens == plain.hit_dram_tokens == 1584
    (fetch,) = result.frames["transfers"].query("reason == 'prefetch'").itertuples()
    # HBM takes what comes between two steps, so the fetch begins when the prefill ends
    assert early.load_s == 0
    assert early.ttft_s == pytest.approx(fetch.end_s - 30.001 + step, rel=1e-9)


def test_a_request_joins_what_was_fetched_for_it(behind_another):
    """Its turn comes before its blocks have: it waits for them as for a load, and computes nothing that is stored."""
    rate = {"links": {"ssd_read": {"bandwidth": "0.5 GB/s"}}}
    for policy in ({"name": "look_ahead", "stop": "join"}, {"name": "on_arrival", "stop": "join"}):
        row, result = behind_another({**policy, "into": "dram"}, into_hbm_only=False, **rate)
        assert row.hit_dram_tokens == 1584
        assert row.hit_ssd_tokens == 0
        assert row.load_s > 0.1
        assert (result.frames["transfers"].reason == "prefetch").any()


@pytest.mark.parametrize(("share", "found"), [(0.2, 1), (0.4, 2), (0.7, 3), (1.0, 4)])
def test_the_window_is_a_share_of_the_tier(run, prompt, share, found):
    """Four prompts wait behind a long one, whose blocks are on the drive; memory has room for twenty blocks of 512."""
    rows = [(5.0 * i, 2048, 1, prompt(i, 2048)) for i in range(1, 5)]
    rows += [(60.0, 12_000, 1, prompt(9, 12_000)), *((60.01 + i / 1e4, 2048, 1, prompt(i, 2048)) for i in range(1, 5))]
    tiers = [
        {"name": "hbm"},
        {"name": "dram", "capacity": f"{20 * 512 * 131072} B"},
        {"name": "ssd", "capacity": "1 TiB"},
    ]
    policies = {"prefetch": {"name": "look_ahead", "into": "dram", "share": share}}
    # host memory is written over by a prompt that nobody asks for again
    rows.insert(4, (40.0, 12_000, 1, prompt(8, 12_000)))
    result = run(rows, blocks=800, tiers=tiers, policies=policies, engine={"max_num_seqs": 1})
    moved = result.frames["transfers"].query("reason == 'prefetch' and 60 < queued_s < 60.02")
    assert round(moved.bytes.sum() / 131072 / 2048) == found


def test_each_rule_waits_as_it_says(behind_another):
    """From a slow drive into host memory: best effort waits for nothing, a time-out so long, the last rule for all."""
    rate = {"links": {"ssd_read": {"bandwidth": "0.5 GB/s"}}}

    def waited(**options):
        row, _ = behind_another({"name": "on_arrival", "into": "dram", **options}, into_hbm_only=False, **rate)
        return row.admit_s - row.arrival_s, row.hit_dram_tokens

    none = waited(stop="best_effort")
    short, long = (waited(stop="timeout", timeout=text) for text in ("100 ms", "200 ms"))
    whole = waited(stop="wait_complete")
    assert none[0] < short[0] < long[0] < whole[0]
    assert short[0] == pytest.approx(0.100, abs=1e-3)
    assert long[0] == pytest.approx(0.200, abs=1e-3)
    assert none[1] == short[1] == long[1] == 512  # host memory still had the first block
    assert whole[1] == 1584
    assert waited(stop="timeout", timeout="0 s", timeout_per_ki_token="100 ms")[0] > 0.100


def test_what_no_fetch_was_begun_for_is_loaded_or_computed(behind_another):
    """All that the drive has is below the threshold; with `only` nothing but a fetch reaches it."""
    found = {}
    for only in (False, True):
        prefetch = {"name": "on_arrival", "into": "dram", "threshold": 5000, "only": only}
        row, result = behind_another(prefetch, into_hbm_only=False)
        found[only] = row.hit_dram_tokens, row.hit_ssd_tokens
        assert result.summary["links"]["ssd_read"]["bytes"] == row.hit_ssd_tokens * 131_072
    assert found == {False: (0, 1584), True: (0, 0)}


TALK = {
    "clients": 6,
    "rounds": 4,
    "first_input_tokens": 1500,
    "input_tokens": 512,
    "output_tokens": 8,
    "think_time": "10 s",
    "ramp_up": "9 s",
    "block_tokens": 512,
}
"""Six clients whose conversations do not fit the HBM together; between two turns of one come five of others."""


@pytest.fixture
def talk(run):
    def go(prefetch, **keywords):
        policies = {"offload": "write_through", **({"prefetch": prefetch} if prefetch else {})}
        result = run(trace={"clients": TALK}, blocks=300, dram="100 GiB", policies=policies, **keywords)
        prefix = result.summary["prefix"]["hit_tokens"]
        return prefix["hbm"], prefix["dram"], result.summary["ttft_ms"]["mean"], result

    return go


def test_the_next_turn_finds_its_prefix_in_hbm(talk):
    """Recorded think times: every later turn is fetched just before it comes; earlier, it may be lost again."""
    plain, ahead = talk(None), talk({"name": "next_turn", "lead": "1 s"})
    assert plain[0] == 0
    assert plain[1] > 0
    assert ahead[0] == plain[1]
    assert ahead[1] == 0
    assert ahead[2] < plain[2]
    late, early, lost = (talk({"name": "next_turn", "lead": lead}) for lead in ("0 s", "2 s", "5 s"))
    assert late[2] == pytest.approx(plain[2], rel=1e-9)  # it starts when the request comes, which joins it
    assert ahead[2] < early[2] < lost[2]
    assert ahead[0] > early[0] > lost[0] == 0
    for *_, run in (late, ahead, early, lost):
        assert len(run.frames["transfers"].query("reason == 'prefetch'")) == 6 * 3


def test_a_mean_of_think_times_fetches_in_vain_after_the_last_turn(talk):
    recorded = talk({"name": "next_turn", "lead": "1 s"})[3].summary["tiers"]["dram"]["loaded_bytes"]
    learned = talk({"name": "next_turn", "lead": "1 s", "estimate": "mean"})[3].summary["tiers"]["dram"]["loaded_bytes"]
    assert learned > recorded


def test_next_turn_into_another_tier_leaves_hbm_alone(run):
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "2 GiB"}, {"name": "ssd", "capacity": "100 GiB"}]
    policies = {"prefetch": {"name": "next_turn", "into": "dram", "lead": "2 s"}}
    result = run(trace={"clients": {**TALK, "clients": 30}}, blocks=600, tiers=tiers, policies=policies)
    moved = result.frames["transfers"].query("reason == 'prefetch'")
    assert len(moved)
    assert set(moved.dst) == {"dram"}


@pytest.fixture
def popular(run):
    """X is asked for three times and Y once, later; HBM forgets both after ten seconds. Then comes another prompt: how
    many tokens of X (two blocks of 512) and Y (one of 288) are brought back when it comes and when it ends?"""

    def go(into="hbm", **options):
        rows = [(t, n, 1, ids) for t, n, ids in ((0, 1024, [1, 2]), (1, 1024, [1, 2]), (2, 1024, [1, 2]))]
        rows += [(14, 288, 1, [11]), (40, 1024, 1, [21, 22])]
        short = {"name": "ttl", "ttl": "10 s"}
        tiers = [{"name": "hbm", "eviction": short}, {"name": "dram", "capacity": "10 GiB", "eviction": short}]
        tiers.append({"name": "ssd", "capacity": "10 GiB"})
        policies = {"prefetch": {"name": "popularity", "into": into, **options}}
        moved = run(rows, blocks=2000, tiers=tiers, policies=policies).frames["transfers"]
        return moved.query("reason == 'prefetch' and start_s > 30 and dst == @into").bytes.sum() // 131072

    return go


@pytest.mark.parametrize("into", ["hbm", "dram"])
def test_the_popular_come_first(popular, into):
    """One block at each event is X, or Y where uses fade soon; remembered is what was asked for last."""
    assert popular(into, most=1) == 1024
    assert popular(into, most=1, half_life="2 s") == 512 + 288
    assert popular(into, most=8) == 1024 + 288
    assert popular(into, most=8, remember=3) == 288
    assert popular(into, most=8, remember=2) == 0


def test_every_policy_and_option_is_named_here():
    text = Path(__file__).read_text()
    for table, skip in ((OFFLOAD, 0), (ADMISSION, 1), (PREFETCH, 0)):
        for name, policy in table.items():
            assert f'"{name}"' in text
            for option in policy_options(policy, skip=skip):
                assert f'"{option}"' in text or f"{option}=" in text
