"""Offload policies: what each copies, at which event, in HBM and in a tier behind it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import kvsim
from hw_profiles.errors import InputError
from policies.base import Block, Event, Move, Moves, OffloadPolicy
from policies.build import build_policy, policy_options
from policies.guard import guard
from policies.offload.by_cost import ByCost
from policies.tables import OFFLOAD

SIZE = 10


class View:
    """A tier for `blocks` blocks; a block takes 1 s to recompute, 0.1 s to load and 0.2 s to store."""

    def __init__(self, name: str = "hbm", below: str | None = "dram", *, blocks: int = 10) -> None:
        self.name = name
        self.below = below
        self.capacity = blocks * SIZE
        self.used = 0
        self.now = 0.0
        self.stored: set[int] = set()
        self.recompute, self.load, self.store = 1.0, 0.1, 0.2

    def holds_below(self, block: Block) -> bool:
        return block.key in self.stored

    def recompute_s(self, block: Block) -> float:
        return self.recompute

    def load_s(self, block: Block, tier: str) -> float:
        return self.load

    def store_s(self, block: Block, tier: str) -> float:
        return self.store


def block(key: int, *, uses: int = 0, start: int = 0, turn: int = -1) -> Block:
    found = Block(key, start, SIZE, SIZE, SIZE, turn=turn)
    found.uses = uses
    return found


class All(OffloadPolicy):
    """Copies away what it is given, or the first of it."""

    def __init__(self, *, first: int | None = None) -> None:
        self._first = first

    def plan(self, event: Event, blocks: Sequence[Block], tier: Any) -> Moves:
        return kvsim.moves(blocks[: self._first] if self._first else blocks, "dram")


def test_moves_of_all_blocks_pass_the_guard_whole() -> None:
    blocks = (block(1), block(2))
    policy = guard("offload", All())
    plan = policy.plan(Event.FILLED, blocks, View())
    assert type(plan) is Moves
    assert plan.blocks is blocks
    some = guard("offload", All(first=1)).plan(Event.FILLED, blocks, View())
    assert some == [Move(blocks[0], "dram")]


def test_moves_of_others_do_not() -> None:
    class Another(All):
        def plan(self, event: Event, blocks: Sequence[Block], tier: Any) -> Moves:
            return kvsim.moves((block(1),), "dram")

    with pytest.raises(InputError, match=r"plan\(\) moves Block\(key=1, .* not one of the blocks that it was given"):
        guard("offload", Another()).plan(Event.FILLED, (block(1),), View())


@pytest.mark.parametrize(("name", "below"), [("hbm", "dram"), ("dram", "ssd"), ("ssd", None)])
@pytest.mark.parametrize(
    ("policy", "event", "copied"),
    [
        ("none", None, []),
        ("write_through", Event.FILLED, [1, 2, 3]),
        ("write_through_selective", Event.HIT, [2, 3]),
        ("write_back", Event.EVICTED, [1, 2]),
    ],
)
def test_each_policy_copies_at_its_event(
    policy: str, event: Event | None, copied: list[int], name: str, below: str | None
) -> None:
    """Block 1 was never hit, 2 once and 3 twice; the tier below holds 3."""
    made = OFFLOAD[policy]()
    assert made.listens == (() if event is None else (event,))
    view, blocks = View(name, below), [block(1), block(2, uses=1), block(3, uses=2)]
    view.stored.add(3)
    for heard in made.listens:
        plan = list(made.plan(heard, blocks, view))
        assert plan == ([] if below is None else [Move(blocks[key - 1], below) for key in copied])


class TestByCost:
    """What is copied follows from the costs, and from what became of blocks of the same kind."""

    def test_the_inequality(self) -> None:
        view = View()
        assert self.stores(ByCost(weight=2.2), view)  # 0.5 x (1 - 0.1) = 0.45 > 2.2 x 0.2
        assert not self.stores(ByCost(weight=2.3), view)
        view.load = 1.0
        assert not self.stores(ByCost(weight=0), view)  # nothing is saved
        view.load, view.store = 0.99, 1e9
        assert self.stores(ByCost(weight=0), view)
        assert not self.stores(ByCost(), view)

    def test_a_prefix_is_copied_with_what_follows_it(self) -> None:
        """Deep blocks take longest to compute again; without the ones before them their copies would be useless."""

        class Deep(View):
            def recompute_s(self, block: Block) -> float:
                return 1.0 if block.start >= 30 else 0.0

        blocks = [Block(key, 10 * key, SIZE, SIZE, SIZE, key - 1 if key else None) for key in range(5)]
        other = Block(9, 10, SIZE, SIZE, SIZE, 8)
        view = Deep()
        view.stored.add(1)
        plan = list(ByCost().plan(Event.FILLED, [*blocks, other], view))
        assert sorted(move.block.key for move in plan) == [0, 2, 3, 4]
        assert [b.start for b, _ in plan] == sorted(b.start for b, _ in plan)

    def test_what_is_there_already_is_left_alone(self) -> None:
        view = View()
        view.stored.add(1)
        assert not self.stores(ByCost(), view)

    def test_the_last_tier_has_nowhere_to_copy_to(self) -> None:
        assert not self.stores(ByCost(), View("dram", None))

    def test_it_stops_storing_what_nobody_asks_for_again(self) -> None:
        policy, view = ByCost(history_ratio=1), View()
        stored = [self.stores(policy, view, key, start=5_000) for key in range(200)]
        assert all(stored[:10])  # none of them has been forgotten yet
        assert not any(stored[100:])

    def test_it_goes_on_storing_what_comes_back(self) -> None:
        """The heads of prompts are computed again and again, the tails never: HBM is too small for both."""
        policy, view = ByCost(weight=1, history_ratio=3), View()
        heads, tails = [], []
        for n in range(300):
            view.stored.clear()
            heads.append(self.stores(policy, view, n % 5))
            tails.append(self.stores(policy, view, 1_000 + n, start=5_000))
            policy.plan(Event.EVICTED, [block(n % 5), block(1_000 + n)], view)
        assert all(heads)
        assert not any(tails[100:])

    def test_growth_is_no_reuse(self) -> None:
        """A block that a prefill computes in two steps is announced twice."""
        policy, view = ByCost(), View()
        for _ in range(2):
            policy.plan(Event.FILLED, [block(1)], view)
        assert policy._settled_all == 0
        policy.plan(Event.HIT, [block(1, uses=1)], view)
        assert (policy._settled_all, policy._again_all) == (1, 1)

    def test_departures_in_a_row_mean_loads_in_between(self) -> None:
        policy, view = ByCost(), View()
        policy.plan(Event.FILLED, [block(1)], view)
        for _ in range(3):
            policy.plan(Event.EVICTED, [block(1)], view)
        assert (policy._settled_all, policy._again_all) == (2, 2)
        policy.plan(Event.EVICTED, [block(2)], view)  # never seen: nothing to learn from
        assert policy._settled_all == 2

    def test_kinds_are_told_apart_by_sights_turn_and_depth(self) -> None:
        policy, view = ByCost(), View()
        policy.plan(Event.FILLED, [block(1), block(2, turn=2), block(3, turn=9), block(4, start=4_096)], view)
        policy.plan(Event.HIT, [block(1, uses=1)], view)
        assert {kind for kind, _ in policy._seen.values()} == {(2, -1, 0), (1, 2, 0), (1, 3, 0), (1, -1, 7)}

    def test_memory_is_bounded(self) -> None:
        policy, view = ByCost(history_ratio=2), View(blocks=10)
        for key in range(1_000):
            policy.plan(Event.FILLED, [block(key)], view)
        assert len(policy._seen) == 20

    @staticmethod
    def stores(policy: OffloadPolicy, view: View, key: int = 1, *, start: int = 0) -> bool:
        moved = block(key, start=start)
        plan = list(policy.plan(Event.FILLED, [moved], view))
        assert plan in ([], [Move(moved, view.below or "")])
        return bool(plan)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight": -1}, "weight: found -1, expected a number >= 0"),
        ({"history_ratio": 0}, "history_ratio: found 0, expected a number > 0"),
    ],
)
def test_what_by_cost_refuses(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build_policy("offload", {"name": "by_cost", **options}, base_dir=Path(), path="policies.offload")


@pytest.mark.parametrize("name", OFFLOAD)
def test_every_policy_builds_from_its_defaults_and_says_what_it_is(name: str) -> None:
    options = policy_options(OFFLOAD[name])
    policy = build_policy("offload", {"name": name, **options}, base_dir=Path(), path="")
    assert isinstance(policy, OffloadPolicy)
    assert all(option in (type(policy).__doc__ or "") for option in options)
