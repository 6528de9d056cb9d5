"""check_policy on all families but eviction: each way to break their contracts is found and named."""

import random
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

import pytest

from policies.base import (
    AdmissionPolicy,
    Block,
    CacheView,
    Event,
    Fetch,
    Move,
    OffloadPolicy,
    PrefetchPolicy,
    RequestView,
    TierInfo,
    TierView,
    Trigger,
)
from policies.contract import ContractError, check_policy
from policies.routing.base import ReplicaView, Router
from policies.tables import ROUTING

CALLS = count()


class Admits(AdmissionPolicy):
    answer: Any = 1

    def admit(self, block: Block) -> bool:
        found: bool = self.answer
        return found


class AdmitsMaybe(Admits):
    answer = None


class AdmissionRaises(Admits):
    def admit(self, block: Block) -> bool:
        raise KeyError(block.key)


class AdmissionWrites(Admits):
    def admit(self, block: Block) -> bool:
        block.uses += 1
        return True


class AdmissionByChance(Admits):
    def admit(self, block: Block) -> bool:
        return random.random() < 0.5


class AdmissionShares(Admits):
    """Counts for all policies of its kind together."""

    def admit(self, block: Block) -> bool:
        return next(CALLS) % 2 == 0


class Moves(OffloadPolicy):
    def plan(self, event: Event, blocks: Sequence[Block], tier: TierView) -> Iterable[Move]:
        return [self.move(block, tier) for block in blocks] if tier.below else []

    def move(self, block: Block, tier: TierView) -> Any:
        return Move(block, tier.below or "")


class MovesIntoTheVoid(Moves):
    def plan(self, event: Event, blocks: Sequence[Block], tier: TierView) -> Iterable[Move]:
        return [self.move(block, tier) for block in blocks]  # also from the last tier


class MovesToNowhere(Moves):
    def move(self, block: Block, tier: TierView) -> Move:
        return Move(block, "tape")


class MovesNearer(Moves):
    def move(self, block: Block, tier: TierView) -> Move:
        return Move(block, tier.name)


class MovesTwice(Moves):
    def plan(self, event: Event, blocks: Sequence[Block], tier: TierView) -> Iterable[Move]:
        return [*super().plan(event, blocks, tier), *super().plan(event, blocks, tier)]


class MovesAnother(Moves):
    def move(self, block: Block, tier: TierView) -> Move:
        return Move(Block(block.key, block.start, block.tokens, block.size, block.ready), tier.below or "")


class MovesPrivate(Moves):
    def move(self, block: Block, tier: TierView) -> Move:
        return Move(Block(-1, 0, 16, 16, 16), tier.below or "")


class MovesTuples(Moves):
    def move(self, block: Block, tier: TierView) -> Any:
        return (block, tier.below)


class MovesNothing(Moves):
    def plan(self, event: Event, blocks: Sequence[Block], tier: TierView) -> Iterable[Move]:
        return None  # type: ignore[return-value]


class MoveRaises(Moves):
    def move(self, block: Block, tier: TierView) -> Move:
        raise LookupError(block.key)


class MoveWrites(Moves):
    def move(self, block: Block, tier: TierView) -> Move:
        block.pins = 1
        return Move(block, tier.below or "")


class MovesByChance(Moves):
    def plan(self, event: Event, blocks: Sequence[Block], tier: TierView) -> Iterable[Move]:
        return super().plan(event, blocks[: random.randint(0, len(blocks))], tier)


class ListensToNoise(Moves):
    listens: Any = ("filled",)


class Fetches(PrefetchPolicy):
    def plan(self, trigger: Trigger, request: RequestView, cache: CacheView) -> Iterable[Fetch]:
        return [self.fetch(request, cache)]

    def fetch(self, request: RequestView, cache: CacheView) -> Any:
        return Fetch(request.keys, cache.tiers[0])


class FetchesIntoNowhere(Fetches):
    def fetch(self, request: RequestView, cache: CacheView) -> Fetch:
        return Fetch(request.keys, "tape")


class FetchesThirdTier(Fetches):
    """Which is there in one hierarchy and not in the other."""

    def fetch(self, request: RequestView, cache: CacheView) -> Fetch:
        return Fetch(request.keys, "ssd")


class FetchesBeforeNow(Fetches):
    def fetch(self, request: RequestView, cache: CacheView) -> Fetch:
        return Fetch(request.keys, "hbm", (request.think_s or 0.0) - 1.0)


class FetchesAtNoTime(Fetches):
    def fetch(self, request: RequestView, cache: CacheView) -> Fetch:
        return Fetch(request.keys, "hbm", float("nan"))


class FetchesTwice(Fetches):
    def fetch(self, request: RequestView, cache: CacheView) -> Fetch:
        return Fetch([*request.keys, request.keys[0]], "hbm")


class FetchesTwiceOver(Fetches):
    def plan(self, trigger: Trigger, request: RequestView, cache: CacheView) -> Iterable[Fetch]:
        return [self.fetch(request, cache), Fetch(request.keys[:1], cache.tiers[0], 1.0)]


class FetchesPrivate(Fetches):
    def fetch(self, request: RequestView, cache: CacheView) -> Fetch:
        return Fetch([*request.keys, -1 - request.index], "hbm")


class FetchesText(Fetches):
    def fetch(self, request: RequestView, cache: CacheView) -> Fetch:
        return Fetch([str(key) for key in request.keys], "hbm")  # type: ignore[misc]


class FetchesKeys(Fetches):
    def plan(self, trigger: Trigger, request: RequestView, cache: CacheView) -> Iterable[Fetch]:
        return request.keys  # type: ignore[return-value]


class FetchesNothing(Fetches):
    def plan(self, trigger: Trigger, request: RequestView, cache: CacheView) -> Iterable[Fetch]:
        return 0  # type: ignore[return-value]


class FetchRaises(Fetches):
    def fetch(self, request: RequestView, cache: CacheView) -> Fetch:
        if request.session < 0:
            raise ZeroDivisionError
        return Fetch(request.keys, "hbm")


class FetchesByChance(Fetches):
    def fetch(self, request: RequestView, cache: CacheView) -> Fetch:
        return Fetch(request.keys, "hbm", random.random())


class StopsSomehow(Fetches):
    stop = "patience"


class WaitsForever(Fetches):
    stop = "timeout"
    timeout_s = float("inf")


class WaitsForNoTime(Fetches):
    stop = "timeout"


class ReachesNowhere(Fetches):
    def reach(self, cache: CacheView) -> str | None:
        return "tape"


class ReachRaises(Fetches):
    def reach(self, cache: CacheView) -> str | None:
        raise SystemExit(cache.tiers[9])


class ListensToEvents(Fetches):
    listens: Any = (Event.FILLED,)


class Routes(Router):
    def choose(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        return self.pick(request, replicas)

    def pick(self, request: RequestView, replicas: Sequence[ReplicaView]) -> Any:
        return request.index % len(replicas)


class RoutesPastTheLast(Routes):
    def pick(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        return request.index % (len(replicas) + 1)


class RoutesBackwards(Routes):
    def pick(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        return -1 - request.index % len(replicas)


class RoutesToAView(Routes):
    def pick(self, request: RequestView, replicas: Sequence[ReplicaView]) -> Any:
        return replicas[0]


class RouterRaises(Routes):
    def pick(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        return request.keys[0] % len(replicas)  # a prompt may have no block


class RouterWrites(Routes):
    def pick(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        replicas[0].waiting += 1  # type: ignore[misc]
        return 0


class RoutesByChance(Routes):
    def pick(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        return random.randrange(len(replicas))


BROKEN: dict[type, str] = {
    Admits: "admit() returned something that is not a bool (1,",
    AdmitsMaybe: "admit() returned something that is not a bool (None,",
    AdmissionRaises: "admit() raised KeyError",
    AdmissionWrites: "admit() changed a block",
    AdmissionByChance: "two policies built alike disagreed",
    AdmissionShares: "two policies built alike disagreed",
    MovesIntoTheVoid: "a tier to which nothing can be moved from here, there is none behind this one ('', ",
    MovesToNowhere: "a tier to which nothing can be moved from here, expected one of dram, ssd ('tape', ",
    MovesNearer: "a tier to which nothing can be moved from here, expected one of dram, ssd ('hbm', ",
    MovesTwice: "plan() makes the same move twice",
    MovesAnother: "not one of the blocks that it was given|made different plans",
    MovesPrivate: "not one of the blocks that it was given|made different plans",
    MovesTuples: "plan() returned something that is not a Move",
    MovesNothing: "plan() did not return something to iterate over (None, ",
    MoveRaises: "plan() raised LookupError",
    MoveWrites: "plan() changed a block",
    MovesByChance: "two policies built alike made different plans",
    ListensToNoise: "listens names something that is not an Event",
    FetchesIntoNowhere: "a tier that does not exist, expected one of hbm, dram, ssd ('tape', ",
    FetchesThirdTier: "a tier that does not exist, expected one of hbm, dram ('ssd', ",
    FetchesBeforeNow: "a start that is not a time from now on",
    FetchesAtNoTime: "a start that is not a time from now on|made different plans",
    FetchesTwice: "plan() fetches the same block twice",
    FetchesTwiceOver: "plan() fetches the same block twice",
    FetchesPrivate: "plan() fetches a private block",
    FetchesText: "something that is not a sequence of keys",
    FetchesKeys: "plan() returned something that is not a Fetch",
    FetchesNothing: "plan() did not return something to iterate over (0, ",
    FetchRaises: "plan() raised ZeroDivisionError",
    FetchesByChance: "two policies built alike made different plans",
    StopsSomehow: "stop is not one of best_effort, wait_complete, timeout, join ('patience', ",
    WaitsForever: "timeout_s is not a time in seconds (inf, ",
    WaitsForNoTime: "timeout_s is not a time in seconds (0.0, ",
    ReachesNowhere: "reach() names a tier that does not exist, expected one of hbm, dram, ssd ('tape', ",
    ReachRaises: "reach() raised IndexError",
    ListensToEvents: "listens names something that is not a Trigger",
    RoutesPastTheLast: "choose() did not return the index of a replica, 0 to 0 (1, ",
    RoutesBackwards: "choose() did not return the index of a replica, 0 to 0 (-1, ",
    RoutesToAView: "choose() did not return the index of a replica, 0 to 0 (Seen(index=0, ",
    RouterRaises: "choose() raised ",
    RouterWrites: "choose() changed what it was shown",
    RoutesByChance: "two routers built alike chose different replicas",
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("broken", BROKEN, ids=lambda cls: cls.__name__)
def test_broken_policies_are_caught(broken: type, seed: int) -> None:
    with pytest.raises(ContractError) as caught:
        check_policy(broken, seed=seed, operations=1_000)
    text = str(caught.value)
    family = broken.__mro__[-3].__name__.removesuffix("Policy").lower().replace("router", "routing")
    assert text.startswith(f"{family} policy {broken.__name__} broke its contract: ")
    assert any(rule in text for rule in BROKEN[broken].split("|")), text
    assert ", operation " in text


@pytest.mark.parametrize("good", [Moves, Fetches, Routes, *ROUTING.values()])
def test_what_they_are_made_of_is_good(good: type) -> None:
    check_policy(good, seed=0, operations=500)


def test_functions_that_build_a_policy_are_told_apart_by_what_they_take() -> None:
    check_policy(lambda: Moves(), seed=0, operations=50)  # noqa: PLW0108 - a function is the point
    with pytest.raises(ContractError, match="admission policy Admits broke"):
        check_policy(lambda tier: Admits(tier), seed=0, operations=50)  # noqa: PLW0108


@pytest.mark.parametrize("nothing", [dict, lambda: 3, lambda tier: tier, TierInfo])
def test_what_makes_no_policy_is_refused(nothing: Any) -> None:
    with pytest.raises(TypeError, match="makes no policy, expected a subclass of EvictionPolicy, AdmissionPolicy, "):
        check_policy(nothing, seed=0, operations=1)
