"""What a policy is: the hooks of each family. What they are shown and what they answer: policies.views.

A policy is plain Python: it keeps an order or returns a plan, and never sleeps, moves bytes or reads a clock of its
own. The tier owns residency, bytes and pins; the engine executes plans and charges time for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from policies.block import Block
from policies.views import (
    CacheView,
    Event,
    Fetch,
    Move,
    Moves,
    RequestView,
    TierInfo,
    TierView,
    Trigger,
    moves,
)

__all__ = [
    "STOP_RULES",
    "AdmissionPolicy",
    "Block",
    "CacheView",
    "Event",
    "EvictionPolicy",
    "Fetch",
    "Move",
    "Moves",
    "OffloadPolicy",
    "PrefetchPolicy",
    "RequestView",
    "TierInfo",
    "TierView",
    "Trigger",
    "moves",
]


class EvictionPolicy(ABC):
    """Orders the resident blocks of one tier. The tier owns bytes, pins and residency; the policy owns only order.

    What the tier promises:
    - `insert` and `remove` alternate for a key; `touch` and `release` come for resident blocks only, pinned ones too.
    - `miss` may come for any key: one that is inserted much later or never, and a resident one that a request could not
      use because the prefix before it was missing. A block that comes from another tier is inserted without a miss.
    - To make room it runs through `victims()`, skips pinned blocks, stops when it has enough, and only then calls
      `remove` for each block that it took, which is when ghost lists learn of them. No hook is called during a scan,
      and one scan is over before the next begins. `remove` may also come for a block that no scan offered.
    - `block.size` may grow while the block is resident. The other fields of a block are for reading. `block.turn` is
      that of the request in progress when `insert` or `touch` is called.
    - Before each lookup it runs `expired()` to its end, and only then calls `remove` for each block without pins.

    What the policy promises:
    - `victims()` yields resident blocks, coldest first and lazily, each at most once per call; run to its end, it has
      yielded every resident block.
    - `victims()` yields pinned blocks too, which is no error: the policy need not look at pins, the tier skips them.
    - A block that was yielded stays in the policy's books until `remove`: if the tier skipped it, a later call offers
      it again. A scan may reorder (second chances, a moving hand, promotion between queues) but not drop.
    - `expired()` yields resident blocks, each at most once per call.
    - The order follows from the calls and from `tier.now()` alone: no clock of its own, no randomness without a seed
      among the options, nothing shared between two policies.
    - O(1) amortised or O(log n) per call and per block yielded, memory in proportion to the tier's capacity.

    `policies.contract.check_policy` tests these rules on any policy, and those of the other families on theirs.
    """

    def __init__(self, tier: TierInfo) -> None:
        self.tier = tier

    def miss(self, key: int) -> None:  # noqa: B027 - an optional hook
        """A lookup did not find `key` (ghost lists)."""

    @abstractmethod
    def insert(self, block: Block) -> None:
        """The block became resident."""

    @abstractmethod
    def touch(self, block: Block) -> None:
        """A request hit the block."""

    def release(self, block: Block) -> None:  # noqa: B027 - an optional hook
        """Its last user is done with the block (children come before their parents)."""

    def expired(self) -> Iterator[Block]:
        """Blocks that must not be hit any more: the tier drops those without pins before each lookup. None here."""
        return iter(())

    # The same for several blocks, in order: a policy with little to do for each saves the calls. The tier calls these.

    def insert_all(self, blocks: Iterable[Block]) -> None:
        """`insert` each."""
        for block in blocks:
            self.insert(block)

    def touch_all(self, blocks: Iterable[Block]) -> None:
        """`touch` each."""
        for block in blocks:
            self.touch(block)

    def release_all(self, blocks: Iterable[Block]) -> None:
        """`release` each."""
        for block in blocks:
            self.release(block)

    def remove_all(self, blocks: Iterable[Block]) -> None:
        """`remove` each."""
        for block in blocks:
            self.remove(block)

    def __init_subclass__(cls) -> None:
        """A class that says anew what happens to one block says so of several too, unless it has its own for them."""
        super().__init_subclass__()
        for hook in ("insert", "touch", "release", "remove"):
            if hook in cls.__dict__ and f"{hook}_all" not in cls.__dict__:
                setattr(cls, f"{hook}_all", getattr(EvictionPolicy, f"{hook}_all"))

    @abstractmethod
    def victims(self) -> Iterator[Block]:
        """Blocks, coldest first."""

    @abstractmethod
    def remove(self, block: Block) -> None:
        """The block left the tier: evicted, as a rule."""


class OffloadPolicy(ABC):
    """Says which blocks of a tier are copied away from the GPU, and when.

    One policy object decides for one tier. For a tier behind HBM the events are those of that tier: FILLED when the
    bytes of blocks have arrived there, HIT when a load has read them, EVICTED when they are leaving it.

    What the policy promises: `plan` returns moves of blocks that it was given (the same objects, none of them private),
    each to a tier farther away, the same move at most once; it changes no block; its plans follow from the calls and
    from what the view shows alone.
    """

    listens: tuple[Event, ...] = tuple(Event)
    """Events that `plan` is called for; leaving some out saves the engine work."""

    @abstractmethod
    def plan(self, event: Event, blocks: Sequence[Block], tier: TierView) -> Iterable[Move]:
        """Copies to make now. Blocks already held below are skipped by the engine at no cost."""


class AdmissionPolicy(ABC):
    """Says whether a block may enter a tier behind HBM: when it is stored there, or passes it on its way to the GPU.

    A block that is refused is not copied into the tier; a load that passes the tier goes on without leaving a copy.

    What the policy promises: `admit` returns a bool, changes no block, and answers by the calls and `tier.now()` alone;
    what it remembers is bounded by the tier's capacity.
    """

    def __init__(self, tier: TierInfo) -> None:
        self.tier = tier

    @abstractmethod
    def admit(self, block: Block) -> bool:
        """True if `block` (of the tier that it comes from; not of this one) may enter. Called once per attempt."""


class PrefetchPolicy(ABC):
    """Brings blocks toward the GPU before the scheduler asks for them.

    stop says what the scheduler does with a request whose own fetch (planned at ARRIVED, of blocks of its prompt) is
    not complete when its turn comes: "best_effort" uses what has arrived and computes the rest, "wait_complete" lets
    others go first until it is complete, "timeout" does so for `timeout_s` (or what the fetch says) after the fetch
    began and then is best effort (SGLang HiCache's prefetch policies of the same names). With the first and the last of
    them it is fetched in batches, and none is begun when its turn has come (sim.hierarchy.batches). What the fetch did
    not bring, for want of room, is loaded from where it is (but see `reach`). With "join" what is on its way is waited
    for as a load is.

    What the policy promises: `plan` returns fetches into tiers that `cache.tiers` names, of keys that are not private
    (not negative), no key twice into the same tier in one plan, `after_s` finite and not negative; its plans follow
    from the calls and from what the views show alone.
    """

    listens: tuple[Trigger, ...] = (Trigger.ARRIVED, Trigger.FINISHED)
    stop: str = "best_effort"
    timeout_s: float = 0.0

    @abstractmethod
    def plan(self, trigger: Trigger, request: RequestView, cache: CacheView) -> Iterable[Fetch]:
        """Fetches to make."""

    def reach(self, cache: CacheView) -> str | None:
        """The furthest tier from which requests load when their turn comes: what lies behind it only fetches bring,
        and is computed otherwise. None: requests load from all tiers."""
        return None


STOP_RULES = ("best_effort", "wait_complete", "timeout", "join")
