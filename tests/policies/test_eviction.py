"""What each eviction policy does, on sequences short enough to follow by hand, and the values its options refuse."""

import math
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.errors import InputError
from policies.base import Block, EvictionPolicy, TierInfo
from policies.build import build_policy, policy_options
from policies.contract import ModelTier
from policies.eviction.gdsf import GDSF
from policies.eviction.ranked import Ranked
from policies.tables import EVICTION

SIZE = 10


def tier_of(name: str, blocks: int, **options: Any) -> ModelTier:
    return ModelTier(EVICTION[name](TierInfo("t", blocks * SIZE, SIZE), **options), blocks * SIZE)


def block(key: int, *, start: int = 0, tokens: int = SIZE) -> Block:
    return Block(key, start, tokens, tokens, tokens)


def replay(tier: ModelTier, keys: str) -> str:
    """Request blocks named by letters; the letters that were hit, in capitals."""
    return "".join(c.upper() if tier.get(block(ord(c))) else c for c in keys)


def order(tier: ModelTier) -> str:
    """The letters of the resident blocks, coldest first."""
    return "".join(chr(b.key) for b in tier.policy.victims())


@pytest.mark.parametrize(
    ("name", "requests", "coldest_first"),
    [
        ("fifo", "abcaab", "abc"),
        ("lru", "abca", "bca"),
        ("lfu", "abcaab", "cba"),
        ("lfu", "abcabcb", "acb"),  # among equals the one used longest ago
        ("clock", "abcb", "acb"),
        ("sieve", "abcb", "acb"),
        ("arc", "abca", "bca"),
        ("lru_k", "abcdba", "cdab"),  # c and d have no second use; of the others, a's last but one lies further back
        ("length_aware", "abca", "bca"),
    ],
)
def test_order(name: str, requests: str, coldest_first: str) -> None:
    tier = tier_of(name, 8)
    replay(tier, requests)
    assert order(tier) == coldest_first


def test_sieve_keeps_the_hand_and_the_places() -> None:
    tier = tier_of("sieve", 3)
    replay(tier, "abca" + "d")  # the hand spares a, evicts b and stops at c
    assert order(tier) == "cda"
    tier = tier_of("sieve", 3)
    replay(tier, "abca" + "d" + "e")
    assert sorted(map(chr, tier.blocks)) == ["a", "d", "e"]  # c fell though a is older: the hand had passed a
    clock = tier_of("clock", 3)
    replay(clock, "abca" + "d" + "e" + "f")
    assert "a" not in map(chr, clock.blocks)  # CLOCK put a behind d, and its chance is used up


def test_clock_counts_up_to_its_bound() -> None:
    def survives(max_hits: int) -> int:
        tier = tier_of("clock", 2, max_hits=max_hits)
        replay(tier, "aaaaaaaab")
        for n in range(100, 200):
            tier.get(block(n))
            if ord("a") not in tier.blocks:
                return n - 100
        raise AssertionError

    assert [survives(m) for m in (1, 2, 3)] == sorted({survives(m) for m in (1, 2, 3)})


def test_s3fifo_lets_one_hit_wonders_pass_and_recognises_what_returns() -> None:
    tier = tier_of("s3fifo", 10)
    replay(tier, "abcdefghij")  # a fills the small share, the rest goes to main before the first eviction
    replay(tier, "k")  # main is not over its share: the small queue gives up a
    assert ord("a") not in tier.blocks
    replay(tier, "a")  # remembered: into main, and main is full now
    assert replay(tier, "lmnopa") == "lmnopA"  # a outlives a scan that passes through the small queue


@pytest.mark.parametrize("name", ["s3fifo", "2q", "arc"])
def test_a_block_that_comes_back_without_a_miss_is_recognised(name: str) -> None:
    """From another tier a block is inserted without a miss; ghost lists must know it all the same."""

    def kept(*, miss: bool) -> list[int]:
        tier = tier_of(name, 8)
        for key in (1, 1, 2, 2, *range(3, 30)):  # two of them used again, so that ARC has something to balance
            tier.get(block(key))
        gone = max(key for key in range(1, 30) if key not in tier.blocks)
        if miss:
            tier.policy.miss(gone)
        tier.make_room(SIZE)
        tier.insert(block(gone))
        for key in range(100, 130):
            tier.get(block(key))
        return [key for key in tier.blocks if key < 100 and key == gone]

    assert kept(miss=True) == kept(miss=False) != []


def test_two_queue_ignores_bursts() -> None:
    tier = tier_of("2q", 8)
    replay(tier, "aaaa" + "bcdefgh" + "ij")
    assert ord("a") not in tier.blocks  # all its uses came before it left A1in
    assert replay(tier, "a" + "klmnopqr" + "a")[-1] == "A"  # but the second arrival counts


def test_arc_turns_toward_what_it_misses() -> None:
    tier = tier_of("arc", 10)
    for key in [*range(10), *range(10)]:
        tier.get(block(key))  # all in T2
    for key in range(100, 120):
        tier.get(block(key))  # a scan takes no more than T1's share of one block
    assert sum(key < 100 for key in tier.blocks) == 9
    for key in [*range(200, 206)] * 5:
        tier.get(block(key))  # a loop that B1 remembers: T1's target grows at the cost of T2
    assert sum(200 <= key < 206 for key in tier.blocks) == 6


def test_lru_k_remembers_past_uses() -> None:
    def hits(ratio: float) -> str:
        tier = tier_of("lru_k", 3, history_ratio=ratio)
        replay(tier, "abcd")
        for output in range(1, 10):  # private blocks are not remembered, so they do not displace what is
            tier.get(block(-output))
        return replay(tier, "a" + "efg" + "a")[-1]

    assert hits(0) == "a"
    assert hits(2) == "A"  # its second use, counted with the one before it left, protects it


def test_gdsf_keeps_what_is_dear_and_forgets_what_is_old() -> None:
    tier = tier_of("gdsf", 4, attention_tokens=100)
    for key, start in ((1, 0), (2, 500), (3, 100), (4, 0)):
        tier.get(block(key, start=start))
    assert [b.key for b in tier.policy.victims()] == [1, 4, 3, 2]  # cost grows with start
    tier = tier_of("gdsf", 4, attention_tokens=math.inf)
    for key in (1, 1, 1, 2, 3, 4):
        tier.get(block(key))
    for key in range(100, 112):
        tier.get(block(key))
    assert 1 not in tier.blocks  # three uses do not last for ever ...
    lfu = tier_of("lfu", 4)
    for key in (1, 1, 1, 2, 3, 4, *range(100, 112)):
        lfu.get(block(key))
    assert 1 in lfu.blocks  # ... as they do without ageing


def test_gdsf_prices_a_block_as_its_docstring_says() -> None:
    policy = GDSF(TierInfo("t", 1000, SIZE), attention_tokens=200)
    dear, cheap = Block(1, 395, 10, 10, 10), Block(2, 0, 10, 10, 10)
    policy.insert(dear)
    policy.insert(cheap)
    assert policy.ranked(dear)[0] == pytest.approx(10 * (1 + 400 / 200) / 10)
    assert policy.ranked(cheap)[0] == pytest.approx(10 * (1 + 5 / 200) / 10)
    policy.touch(cheap)
    assert policy.ranked(cheap)[0] == pytest.approx(2 * (1 + 5 / 200))


def test_gdsf_never_grows_younger() -> None:
    """A pin may keep the least valuable block until dearer ones have left: its value must not become the age then."""
    tier = tier_of("gdsf", 2, attention_tokens=100)
    cheap, new = block(1), block(4)
    tier.get(cheap)
    tier.get(block(2, start=10_000))
    cheap.pins = 1
    tier.get(block(3, start=9_000))  # in the place of the dear block
    cheap.pins = 0
    tier.get(new)  # in the place of the cheap one
    assert sorted(tier.blocks) == [3, 4]
    assert isinstance(tier.policy, Ranked)
    assert tier.policy.ranked(new)[0] > 1 + 10_000 / 100


def test_length_aware_breaks_ties_by_depth() -> None:
    for keep, expected in (("head", [3, 2, 1]), ("tail", [1, 2, 3])):
        tier = tier_of("length_aware", 4, keep=keep)
        for key in (2, 1, 3):
            tier.get(block(key, start=key * SIZE))
        assert [b.key for b in tier.policy.victims()] == expected
        tier.get(block(expected[0], start=expected[0] * SIZE))
        assert [b.key for b in tier.policy.victims()] == [*expected[1:], expected[0]]  # hits come first


@pytest.mark.parametrize("name", ["lru", "lfu", "arc", "2q", "lru_k", "gdsf", "length_aware"])
def test_children_leave_before_their_parents(name: str) -> None:
    """Blocks of a prompt arrive from its start and are released from its end."""
    options: dict[str, dict[str, Any]] = {"gdsf": {"attention_tokens": math.inf}, "2q": {"out_ratio": 1}}
    tier = tier_of(name, 4, **options.get(name, {}))
    prompt = [block(key, start=key * SIZE) for key in range(1, 5)]
    for turn in range(2):
        for b in prompt:
            tier.policy.miss(b.key)
            tier.insert(b)
        for b in reversed(prompt):
            tier.policy.release(b)
        if turn == 0:  # leave and come back: 2Q keeps an order of use only for blocks that did
            for b in prompt:
                tier.remove(b)
    assert [b.start for b in tier.policy.victims()] == sorted((b.start for b in prompt), reverse=True)


@pytest.mark.parametrize(
    ("name", "option", "value", "expected"),
    [
        ("clock", "max_hits", 0, "a whole number from 1 to 255"),
        ("clock", "max_hits", 1.5, "a whole number from 1 to 255"),
        ("s3fifo", "small_ratio", 1.5, "a number >= 0 and <= 1"),
        ("s3fifo", "ghost_ratio", -1, "a number >= 0 and <= 100"),
        ("s3fifo", "threshold", True, "a whole number from 1 to 3"),
        ("2q", "in_ratio", "much", "a number >= 0 and <= 1"),
        ("2q", "out_ratio", math.nan, "a number >= 0 and <= 100"),
        ("lru_k", "k", 0, "a whole number from 1 to 16"),
        ("lru_k", "history_ratio", -0.5, "a number >= 0 and <= 100"),
        ("gdsf", "attention_tokens", 0, "a number > 0"),
        ("length_aware", "keep", "middle", "one of head, tail"),
    ],
)
def test_options_out_of_range_are_refused(name: str, option: str, value: Any, expected: str) -> None:
    info = TierInfo("t", 100, SIZE)
    spec = {"name": name, option: value}
    with pytest.raises(InputError) as caught:
        build_policy("eviction", spec, info, base_dir=Path(), path="policies.eviction")
    assert f"{option}: found {value!r}, expected {expected}" in str(caught.value)


@pytest.mark.parametrize("name", EVICTION)
def test_every_policy_builds_from_its_defaults_and_says_what_it_is(name: str) -> None:
    info = TierInfo("t", 100, SIZE)
    options = policy_options(EVICTION[name], skip=1)
    policy = build_policy("eviction", {"name": name, **options}, info, base_dir=Path(), path="policies.eviction")
    assert isinstance(policy, EvictionPolicy)
    text = type(policy).__doc__ or ""
    assert len(text.splitlines()[0]) <= 120
    for option in options:
        assert option in text


def test_a_policy_made_from_a_shipped_one_is_guarded_for_several_blocks_too(tmp_path: Path) -> None:
    """It inherits what that does with several blocks at once, which the guard must see as well."""
    (tmp_path / "mine.py").write_text("from policies.eviction.lru import LRU\n\n\nclass Mine(LRU):\n    pass\n")
    policy = build_policy("eviction", {"name": "mine.py:Mine"}, TierInfo("t", 100, SIZE), base_dir=tmp_path, path="p")
    blocks = [block(key) for key in range(3)]
    policy.insert_all(blocks)
    policy.touch_all(blocks[:1])
    assert [b.key for b in policy.victims()] == [1, 2, 0]
    policy.remove_all(blocks[1:])
    assert [b.key for b in policy.victims()] == [0]
