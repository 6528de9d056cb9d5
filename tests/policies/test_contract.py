"""check_policy: every shipped policy passes, and each way to break the contract is found and named."""

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from typing import Any, ClassVar

import pytest

from policies.admission.by_size import BySize
from policies.admission.second_hit import SecondHit
from policies.base import Block, EvictionPolicy, TierInfo
from policies.contract import ContractError, check_policy
from policies.eviction.clock import Clock
from policies.eviction.lru import LRU
from policies.eviction.ttl import TTL
from policies.eviction.workload_aware import WorkloadAware
from policies.offload.by_cost import ByCost
from policies.offload.write_through_selective import WriteThroughSelective
from policies.prefetch.next_turn import NextTurn
from policies.prefetch.on_arrival import OnArrival
from policies.prefetch.popularity import Popularity
from policies.tables import FAMILIES

SHIPPED = [(family, name) for family, table in FAMILIES.items() for name in table]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("family", "name"), SHIPPED)
def test_every_shipped_policy_keeps_the_contract(family: str, name: str, seed: int) -> None:
    check_policy(FAMILIES[family][name], seed=seed, operations=4_000 if family == "eviction" else 1_000)


SETTINGS: dict[str, Callable[..., Any]] = {
    "a short life": lambda tier: TTL(tier, ttl=3),
    "workload-aware, other options": lambda tier: WorkloadAware(tier, interval=2, turns=1, ghost_ratio=0, window=0.5),
    "a long memory of refusals": lambda tier: SecondHit(tier, ghost_ratio=8),
    "sizes": lambda tier: BySize(tier, least_tokens=3, most_tokens=9),
    "hits at the third": lambda: WriteThroughSelective(after=3),
    "costly links": lambda: ByCost(weight=20, history_ratio=0.5),
    "into HBM, with a time-out": lambda: OnArrival(into="hbm", stop="timeout", timeout="2 s"),
    "a mean": lambda: NextTurn(estimate="mean", lead=0, into="dram"),
    "few blocks": lambda: Popularity(most=2, half_life=5, remember=20),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_options_change_nothing_about_that(setting: str) -> None:
    check_policy(SETTINGS[setting], seed=1, operations=1_500)


class DropsWhatItOffers(LRU):
    def victims(self) -> Iterator[Block]:
        while self._order:
            yield self._order.popitem(last=False)[1]

    def remove(self, block: Block) -> None:
        self._order.pop(block.key, None)


class OffersTwice(LRU):
    def victims(self) -> Iterator[Block]:
        for block in list(self._order.values()):
            yield block
            yield block


class EndsEarly(LRU):
    def victims(self) -> Iterator[Block]:
        return islice(self._order.values(), max(1, len(self._order) // 2))


class SkipsPinned(LRU):
    """Pins are the tier's business: a policy that leaves pinned blocks out has not offered every block."""

    def victims(self) -> Iterator[Block]:
        return (block for block in self._order.values() if not block.pins)


class RemembersTheDead(LRU):
    def remove(self, block: Block) -> None:
        if block.key % 5:
            super().remove(block)


class OffersCopies(LRU):
    def victims(self) -> Iterator[Block]:
        return (Block(b.key, b.start, b.tokens, b.size, b.ready) for b in self._order.values())


class ChokesOnResidentMiss(LRU):
    def miss(self, key: int) -> None:
        if key in self._order:
            raise KeyError(key)


class ChokesOnRelease(LRU):
    def release(self, block: Block) -> None:
        assert block.pins == 0, "still pinned"


class ForgetsOnMiss(LRU):
    def miss(self, key: int) -> None:
        self._order.pop(key, None)


class ChangesBlocks(LRU):
    def touch(self, block: Block) -> None:
        block.uses = 0


class Unseeded(LRU):
    def victims(self) -> Iterator[Block]:
        blocks = list(self._order.values())
        random.shuffle(blocks)
        return iter(blocks)


class SharesState(EvictionPolicy):
    """Two policies of this kind count with one counter, so what one does changes the other's order."""

    clock: ClassVar[Iterator[int]] = count()

    def __init__(self, tier: TierInfo) -> None:
        super().__init__(tier)
        self._order: OrderedDict[int, tuple[Block, int]] = OrderedDict()

    def insert(self, block: Block) -> None:
        self._order[block.key] = (block, next(self.clock))

    def touch(self, block: Block) -> None:
        self.insert(block)

    def victims(self) -> Iterator[Block]:
        return (b for b, time in sorted(self._order.values(), key=lambda e: e[1] * 7919 % 101))

    def remove(self, block: Block) -> None:
        del self._order[block.key]


class LosesTheSpared(Clock):
    """A block with a second chance leaves the ring and never comes back to it."""

    def victims(self) -> Iterator[Block]:
        ring, passed = self._ring, self._ring.end
        while (node := ring.after(passed)) is not None:
            if node.hits:
                ring.unlink(node)
            else:
                passed = node
                yield node.block

    def remove(self, block: Block) -> None:
        node = self._nodes.pop(block.key)
        if node.chain is not None:
            self._ring.unlink(node)


class YieldsKeys(LRU):
    def victims(self) -> Iterator[Block]:
        keys: Any = self._order
        return iter(keys)


class ExpiresTwice(LRU):
    def expired(self) -> Iterator[Block]:
        return iter([*self._order.values(), *self._order.values()])


class ExpiresTheDead(LRU):
    def __init__(self, tier: TierInfo) -> None:
        super().__init__(tier)
        self._dead: list[Block] = []

    def expired(self) -> Iterator[Block]:
        return iter(self._dead)

    def remove(self, block: Block) -> None:
        super().remove(block)
        self._dead.append(block)


class ForgetsTheExpired(LRU):
    def expired(self) -> Iterator[Block]:
        if len(self._order) > 5:
            yield self._order.popitem(last=False)[1]

    def remove(self, block: Block) -> None:
        self._order.pop(block.key, None)


class ChokesOnSeveral(LRU):
    def insert_all(self, blocks: Iterable[Block]) -> None:
        raise ValueError("one at a time")


class ForgetsSeveral(LRU):
    """Says something else of several blocks than of each."""

    def release_all(self, blocks: Iterable[Block]) -> None:
        pass


BROKEN = {
    DropsWhatItOffers: "a block that was offered and not removed is not offered again|raised KeyError",
    OffersTwice: "yielded a block twice in one call",
    EndsEarly: "victims() ended without offering a resident block",
    SkipsPinned: "victims() ended without offering|not offered again",
    RemembersTheDead: "yielded a block that is not resident",
    OffersCopies: "yielded another object|different orders",
    ChokesOnResidentMiss: "miss() raised KeyError",
    ChokesOnRelease: "release() raised AssertionError: still pinned",
    ForgetsOnMiss: "victims() ended without offering|not offered again|raised KeyError",
    ChangesBlocks: "touch() changed a block",
    Unseeded: "two policies built alike gave different orders",
    SharesState: "two policies built alike gave different orders",
    LosesTheSpared: "victims() ended without offering|not offered again",
    YieldsKeys: "yielded something that is not a block",
    ExpiresTwice: "expired() yielded a block twice in one call",
    ExpiresTheDead: "expired() yielded a block that is not resident|yielded another object",
    ChokesOnSeveral: "insert_all() raised ValueError",
    ForgetsSeveral: "different orders (the second was told by insert_all, ",
    ForgetsTheExpired: "victims() ended without offering|not offered again|raised KeyError",
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("broken", BROKEN, ids=lambda cls: cls.__name__)
def test_broken_policies_are_caught(broken: type[EvictionPolicy], seed: int) -> None:
    with pytest.raises(ContractError) as caught:
        check_policy(broken, seed=seed, operations=4_000)
    text = str(caught.value)
    assert text.startswith(f"eviction policy {broken.__name__} broke its contract: ")
    assert any(rule in text for rule in BROKEN[broken].split("|")), text
    assert ", operation " in text
    assert "Block(key=" in text or broken in (ChokesOnResidentMiss, YieldsKeys)  # there the key itself is shown


def test_seed_and_number_of_operations_may_be_left_out() -> None:
    check_policy(LRU)
    with pytest.raises(ContractError, match="different orders"):
        check_policy(Unseeded)


def test_the_same_seed_finds_the_same_place() -> None:
    texts = set()
    for _ in range(2):
        with pytest.raises(ContractError) as caught:
            check_policy(RemembersTheDead, seed=5, operations=4_000)
        texts.add(str(caught.value))
    assert len(texts) == 1
