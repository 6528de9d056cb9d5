"""Request by request against libCacheSim, the C library of the authors of S3-FIFO and SIEVE."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hw_profiles.errors import InputError
from policies.base import Block, EvictionPolicy, TierInfo
from policies.contract import ModelTier
from policies.eviction.gdsf import GDSF
from policies.eviction.lru_k import LRUK
from policies.tables import EVICTION
from traces.catalog import load_trace

lcs = pytest.importorskip("libcachesim", reason="libcachesim is not installed (it has no wheel for every platform)")

SEEDS = range(5)
REQUESTS = 20_000
KEYS = 2_000
Factory = Callable[[TierInfo], EvictionPolicy]


def zipf(seed: int) -> list[int]:
    """Independent requests, popularity ~ rank^-0.9."""
    weights = [rank**-0.9 for rank in range(1, KEYS + 1)]
    return random.Random(seed).choices(range(1, KEYS + 1), weights, k=REQUESTS)


def block_sizes(seed: int, *, varied: bool) -> list[int]:
    source = random.Random(seed + 1_000)
    return [source.randint(1, 20) if varied else 1 for _ in range(KEYS + 1)]


def theirs(cache: Any, keys: Sequence[int], sizes: Sequence[int]) -> list[bool]:
    hits = []
    request = lcs.Request()
    for time, key in enumerate(keys):
        request.obj_id, request.obj_size, request.clock_time = key, sizes[key], time
        hits.append(bool(cache.get(request)))
    return hits


def ours(tier: ModelTier, keys: Sequence[int], sizes: Sequence[int], tokens: int = 1) -> list[bool]:
    return [tier.get(Block(key, 0, tokens, sizes[key], tokens)) for key in keys]


def compare(
    factory: Factory,
    library: str,
    *,
    varied: bool,
    tier: type[ModelTier] = ModelTier,
    tokens: int = 1,
    **options: Any,
) -> tuple[int, float]:
    """Requests that were a hit on one side only, and the difference of the hit ratios in points, over all seeds."""
    capacity = 2_000 if varied else 200
    info = TierInfo("t", capacity, 1)
    mismatches, difference = 0, 0
    for seed in SEEDS:
        keys, sizes = zipf(seed), block_sizes(seed, varied=varied)
        a = theirs(getattr(lcs, library)(cache_size=capacity, hashpower=14, **options), keys, sizes)
        b = ours(tier(factory(info), capacity), keys, sizes, tokens)
        assert sum(a) > REQUESTS // 5  # the comparison has hits and misses to compare
        mismatches += sum(x != y for x, y in zip(a, b, strict=True))
        difference += sum(b) - sum(a)
    return mismatches, 100 * difference / (REQUESTS * len(SEEDS))


PAIRS = [
    ("lru", "LRU"),
    ("fifo", "FIFO"),
    ("lfu", "LFU"),
    ("clock", "Clock"),
    ("sieve", "Sieve"),
    ("s3fifo", "S3FIFO"),
    ("2q", "TwoQ"),
]


@pytest.mark.parametrize("varied", [False, True], ids=["unit", "varied"])
@pytest.mark.parametrize(("name", "library"), PAIRS)
def test_no_request_differs(name: str, library: str, *, varied: bool) -> None:
    assert compare(EVICTION[name], library, varied=varied)[0] == 0


def test_no_request_differs_for_arc() -> None:
    """The paper knows pages of one size only; how to adapt with several is each implementation's own choice."""
    assert compare(EVICTION["arc"], "ARC", varied=False)[0] == 0


@pytest.mark.parametrize(("name", "library"), [*PAIRS, ("arc", "ARC")])
def test_no_request_differs_in_small_caches(name: str, library: str) -> None:
    """A few blocks bring out what is rare in a large cache: empty queues, targets that are met exactly.

    The library admits nothing that fills a queue's whole share, so the capacities leave two blocks for the smallest.
    """
    capacities = {"s3fifo": (20, 25, 30), "2q": (8, 10, 13)}.get(name, (2, 4, 6, 10, 13))
    for seed in range(60):
        source = random.Random(seed)
        capacity = source.choice(capacities)
        keys = source.choices(range(1, 3 * capacity + 1), [n**-0.6 for n in range(1, 3 * capacity + 1)], k=400)
        sizes = [1] * (3 * capacity + 1)
        expected = theirs(getattr(lcs, library)(cache_size=capacity, hashpower=10), keys, sizes)
        assert ours(ModelTier(EVICTION[name](TierInfo("t", capacity, 1)), capacity), keys, sizes) == expected, seed


@pytest.mark.parametrize(("name", "library"), [*PAIRS, ("arc", "ARC")])
def test_no_request_differs_on_a_real_trace(name: str, library: str) -> None:
    """The first blocks that conversations ask for: long runs, scans, and popularity that moves."""
    try:
        trace = load_trace("mooncake-conversation")
    except InputError as error:
        pytest.skip(f"the trace is not here: {error}")
    keys = (trace.hash_ids[:60_000] + 1).tolist()
    sizes = [1] * (max(keys) + 1)
    capacity = 4_000
    expected = theirs(getattr(lcs, library)(cache_size=capacity, hashpower=16), keys, sizes)
    assert sum(expected) > 4_000
    assert ours(ModelTier(EVICTION[name](TierInfo("t", capacity, 1)), capacity), keys, sizes) == expected


@pytest.mark.parametrize("options", [{"small_ratio": 0.3}, {"ghost_ratio": 0.3}, {"threshold": 1}], ids=str)
def test_options_of_s3fifo_mean_the_same(options: dict[str, Any]) -> None:
    names = {
        "small_ratio": "small_size_ratio",
        "ghost_ratio": "ghost_size_ratio",
        "threshold": "move_to_main_threshold",
    }
    theirs = {names[name]: value for name, value in options.items()}
    factory: Factory = lambda info: EVICTION["s3fifo"](info, **options)  # noqa: E731
    assert compare(factory, "S3FIFO", varied=False, **theirs)[0] == 0


def test_counters_of_clock_mean_the_same() -> None:
    factory: Factory = lambda info: EVICTION["clock"](info, max_hits=3)  # type: ignore[call-arg]  # noqa: E731
    assert compare(factory, "Clock", varied=False, n_bit_counter=2)[0] == 0


@pytest.mark.parametrize("varied", [False, True], ids=["unit", "varied"])
@pytest.mark.parametrize("k", [2, 3])
def test_lru_k_without_history(k: int, *, varied: bool) -> None:
    """The library forgets an object's uses when it leaves: our history_ratio 0. Equal for K = 2.

    For K > 2 it takes objects with fewer than K uses first in, first out, where ours takes them least recently used
    first (the paper leaves the subsidiary policy open), so only the ratios are close.
    """
    mismatches, points = compare(lambda info: LRUK(info, k=k, history_ratio=0), "LRUK", varied=varied, k=k)
    if k == 2:
        assert mismatches == 0
    else:
        assert mismatches > 0
        assert abs(points) < 2


def gdsf(info: TierInfo) -> EvictionPolicy:
    """The library's cost is the same for every object; a million tokens stand for its factor of 1e6."""
    return GDSF(info, attention_tokens=math.inf)


class InsertFirst(ModelTier):
    """Ranks the newcomer before it makes room, as the report does: the newcomer's age is that before the eviction."""

    def get(self, block: Block) -> bool:
        if block.key in self.blocks:
            return super().get(block)
        block.pins = 1
        self.insert(block)
        assert self.make_room(0)
        block.pins = 0
        return False


@pytest.mark.parametrize("varied", [False, True], ids=["unit", "varied"])
def test_gdsf(*, varied: bool) -> None:
    """The library ranks a newcomer before it evicts for it; a tier here evicts first. Nothing else differs."""
    mismatches, points = compare(gdsf, "GDSF", varied=varied, tokens=10**6)
    assert abs(points) < 0.2
    assert mismatches > 0
    assert compare(gdsf, "GDSF", varied=varied, tokens=10**6, tier=InsertFirst)[0] == 0
