"""Caches of answers and the index of prefixes: what they hold, find and take."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import InputError
from policies.build import build_policy, policy_class
from policies.contract import ContractError, check_policy
from policies.reuse.base import PrefixIndex, ResponseCache
from policies.reuse.instcache import LMSYS, InstCache, below, texts
from policies.reuse.metadata_index import BACKENDS, MetadataIndex
from policies.reuse.response_cache import TOKEN_BYTES, ExactResponseCache
from policies.tables import REUSE


@dataclass
class Request:
    index: int = 0
    keys: tuple[int, ...] = ()
    input_tokens: int = 1000
    output_tokens: int = 100
    turn: int = -1
    session: int = -1
    think_s: float | None = None
    carried: bool = False


def test_exact_answers_are_kept_until_others_need_the_room() -> None:
    cache = ExactResponseCache(capacity=2 * TOKEN_BYTES * 1100)
    requests = [Request(i, keys=(1, 10 + i)) for i in range(3)]
    assert not any(cache.lookup(r) for r in requests)
    for request in requests[:2]:
        cache.answered(request)
    assert (cache.entries, cache.used_bytes) == (2, 2 * TOKEN_BYTES * 1100)
    assert cache.lookup(requests[0])
    cache.answered(requests[2])
    assert [cache.lookup(r) for r in requests] == [True, False, True]
    assert not cache.lookup(Request(9, keys=(1, 10), input_tokens=1001))  # as far as its blocks go, but longer
    assert cache.used_bytes <= cache.capacity


def test_prompts_that_nobody_names_are_never_the_same() -> None:
    cache = ExactResponseCache()
    cache.answered(Request())
    assert not cache.lookup(Request())
    assert cache.entries == 0


def test_the_published_point_is_met() -> None:
    cache = InstCache(capacity="4.5 GB")
    assert cache.expected_hits == pytest.approx(0.5134, abs=5e-4)  # SOURCE: arXiv 2411.13820v1, abstract; calibrated
    assert cache.used_bytes == 4_500_000_000


def test_the_threshold_is_where_the_texts_fill_the_capacity() -> None:
    for capacity in ("1 MB", "1 GB", "100 GB"):
        cache = InstCache(capacity=capacity)
        assert texts(LMSYS, cache.threshold) == pytest.approx(cache.entries, rel=1e-2)
    assert below(LMSYS, 1e3) == pytest.approx(1)
    assert below(LMSYS, 0) == 0
    # One class, a narrow one: exp(x) is about as large everywhere, so the texts are its share of exp(mean).
    narrow = [(1.0, 10.0, 0.01)]
    cache = InstCache(classes=narrow, capacity=round(np.exp(10) * 500))
    assert cache.expected_hits == pytest.approx(0.5, abs=0.01)


def test_more_memory_finds_more_and_ever_less_of_it() -> None:
    hits = [InstCache(capacity=f"{size} MB").expected_hits for size in (1, 10, 100, 1000, 10_000)]
    assert hits == sorted(hits)
    gains = np.diff(hits) / np.array([9, 90, 900, 9000])
    assert list(gains) == sorted(gains, reverse=True)


def test_requests_draw_by_seed_and_text() -> None:
    def drawn(seed: int, **fields: Any) -> list[bool]:
        cache = InstCache()
        cache.seed = seed
        return [cache.lookup(Request(i, **fields)) for i in range(2000)]

    found = drawn(0)
    assert found == drawn(0)
    assert found != drawn(1)
    assert np.mean(found) == pytest.approx(0.5134, abs=0.03)
    assert len(set(drawn(0, keys=(7, 8)))) == 1  # the same text
    assert not any(InstCache(longest=999).lookup(Request(i)) for i in range(200))
    assert not any(InstCache(capacity=999).lookup(Request(i)) for i in range(200))


def test_what_a_lookup_of_the_index_takes() -> None:
    request = Request(input_tokens=1600)  # 100 keys of 16 tokens
    redis = BACKENDS["redis"]
    point = MetadataIndex(known=0.5).lookup(request)
    assert point.keys == 51
    assert point.network_s == pytest.approx(51 * redis.round_trip)
    assert point.server_s == pytest.approx(51 * (redis.message + redis.key))
    batch = MetadataIndex(by="batch").lookup(request)
    assert batch.network_s == redis.round_trip
    assert batch.server_s == pytest.approx(redis.message + 100 * redis.key)
    ordered = MetadataIndex(backend="sherman", by="range", sequential=1).lookup(request)
    assert ordered.server_s == pytest.approx(0.1e-6 + (1 + 99 / 32) * 0.4e-6)
    scattered = MetadataIndex(backend="sherman", by="range", sequential=0).lookup(request)
    assert scattered == MetadataIndex(backend="sherman", by="batch").lookup(request)
    assert MetadataIndex(block_tokens=512, known=1).lookup(request).keys == 4
    assert MetadataIndex(round_trip="1 ms", message=0, key=0, by="batch").lookup(request) == (1e-3, 0, 100)


def test_writing_takes_time_unless_it_is_off() -> None:
    assert MetadataIndex().update(1600).server_s == pytest.approx(10e-6 + 100e-6)
    assert MetadataIndex().update(15).server_s == 0
    assert MetadataIndex(updates=False).update(1600).server_s == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "instcach"}, "did you mean 'instcache'"),
        ({"name": "instcache", "capacity": "5 tokens"}, "capacity"),
        ({"name": "instcache", "classes": [[0.5, 1, 1]]}, "shares add up to 1"),
        ({"name": "instcache", "classes": [[1, 1]]}, "share, mean nats, deviation"),
        ({"name": "response_cache", "lookup": "-1 s"}, "lookup"),
        ({"name": "metadata_index", "backend": "etcd"}, "redis, sherman, chime"),
        ({"name": "metadata_index", "by": "range"}, "redis has no order"),
        ({"name": "metadata_index", "known": 1.5}, "known: found 1.5|known"),
    ],
)
def test_wrong_options_are_named(spec: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_policy("reuse", spec, base_dir=Path(), path="policies.reuse")


@pytest.mark.parametrize("seed", range(3))
def test_shipped_ones_keep_the_contract(seed: int) -> None:
    for name, policy in REUSE.items():
        check_policy(policy, seed=seed, operations=300)
        assert issubclass(policy, ResponseCache | PrefixIndex), name
    check_policy(lambda: ExactResponseCache(capacity=30_000), seed=seed, operations=300)


CACHE = """
from kvsim import PrefixIndex, ResponseCache, Visit
from policies.reuse.base import Reuse

class Good(ResponseCache):
    lookup_s, capacity, entries, used_bytes = 0.0, 100, 0, 0
    def lookup(self, request): return False

class Bare(Reuse): pass
class Words(Good):
    def lookup(self, request): return "no"
class Falls(Good):
    def lookup(self, request): return 1 / 0
class Past(Good):
    lookup_s = -1.0
class Full(Good):
    def answered(self, request): self.used_bytes += 60
class Pair(PrefixIndex):
    def lookup(self, request): return 1, 2
    def update(self, tokens): return Visit(0.0, 0.0, 0)
class Back(Pair):
    def lookup(self, request): return Visit(0.0, 0.0, 0)
    def update(self, tokens): return Visit(-1.0, 0.0, 0)
"""


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("Bare", "neither a ResponseCache nor a PrefixIndex"),
        ("Words", "'no'"),
        ("Falls", "ZeroDivisionError: division by zero"),
        ("Past", "lookup_s is -1.0, expected seconds"),
        ("Full", "more than its capacity of 100"),
        ("Pair", r"\(1, 2\)"),
        ("Back", r"Visit\(network_s=-1.0"),
    ],
)
def test_a_broken_one_of_a_user_is_told_of(name: str, rule: str, tmp_path: Path) -> None:
    """In a run, at the hook that broke; and by the check of its contract."""
    (tmp_path / "mine.py").write_text(CACHE)

    def use() -> None:
        policy = build_policy("reuse", {"name": f"mine.py:{name}"}, base_dir=tmp_path, path="policies.reuse")
        for index in range(2):
            policy.lookup(Request(index))
            policy.answered(Request(index)) if isinstance(policy, ResponseCache) else policy.update(16)

    with pytest.raises(InputError, match=f"reuse policy {name} (broke its contract|failed in).*{rule}"):
        use()
    if name != "Bare":
        cls = policy_class("reuse", f"mine.py:{name}", base_dir=tmp_path, path="policies.reuse")
        with pytest.raises(ContractError, match=rule):
            check_policy(cls, seed=0, operations=100)
