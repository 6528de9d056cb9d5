"""What a policy may see and say.

A policy is plain Python: it keeps an order or returns a plan, and never sleeps, moves bytes or reads a clock of its
own. The tier owns residency, bytes and pins; the engine executes plans and charges time for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol, overload

from policies.block import Block

__all__ = [
    "STOP_RULES",
    "AdmissionPolicy",
    "Block",
    "CacheView",
    "Event",
    "EvictionPolicy",
    "Fetch",
    "Move",
    "OffloadPolicy",
    "PrefetchPolicy",
    "RequestView",
    "TierInfo",
    "TierView",
    "Trigger",
    "moves",
]


class Event(Enum):
    """What happened to blocks of a tier when an offload policy is asked."""

    FILLED = "filled"
    """The engine computed the blocks in this step (end of the step)."""
    HIT = "hit"
    """A request reused the blocks (when it is admitted); those still being computed or loaded are left out."""
    EVICTED = "evicted"
    """The blocks are leaving the tier; a copy plan delays the reuse of their memory until it has finished."""


class Move(NamedTuple):
    """Copy `block` to the tier named `to`. The source keeps its copy (unless the block is being evicted)."""

    block: Block
    to: str


class Moves(Sequence[Move]):
    """A move of each of some blocks to the tier named `to`, which are made when they are looked at."""

    __slots__ = ("blocks", "to")

    def __init__(self, blocks: Sequence[Block], to: str) -> None:
        self.blocks = blocks
        self.to = to

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[Move]:
        to = self.to
        return (Move(block, to) for block in self.blocks)

    @overload
    def __getitem__(self, index: int) -> Move: ...

    @overload
    def __getitem__(self, index: slice) -> list[Move]: ...

    def __getitem__(self, index: int | slice) -> Move | list[Move]:
        if isinstance(index, slice):
            return [Move(block, self.to) for block in self.blocks[index]]
        return Move(self.blocks[index], self.to)


def moves(blocks: Sequence[Block], to: str) -> Moves:
    """A move of each block to the tier named `to`. For all blocks that a policy was given the engine takes it whole,
    which is many times as fast as a list of `Move(block, to)`."""
    return Moves(blocks, to)


class TierView(Protocol):
    """Read-only view of the tier that a policy decides for. Sizes in bytes of one GPU."""

    @property
    def name(self) -> str:
        """Name of the tier."""

    @property
    def below(self) -> str | None:
        """Name of the next tier away from the GPU, or None for the last."""

    @property
    def capacity(self) -> int:
        """Bytes that it can hold."""

    @property
    def used(self) -> int:
        """Bytes in use, what requests hold privately included."""

    @property
    def now(self) -> float:
        """Simulated time, s."""

    def holds_below(self, block: Block) -> bool:
        """True when the tier below already holds (or is receiving) every token of the block."""

    def recompute_s(self, block: Block) -> float:
        """Seconds that the GPU needs to compute the block again after its prefix."""

    def load_s(self, block: Block, tier: str) -> float:
        """Seconds that it takes to load the block from the tier named `tier` to the GPU when no link is busy."""

    def store_s(self, block: Block, tier: str) -> float:
        """Seconds that it takes to copy the block from this tier to the one named `tier` when no link is busy."""


def _zero() -> float:
    return 0.0


@dataclass(frozen=True)
class TierInfo:
    """What an eviction or admission policy knows about its tier when it is built."""

    name: str
    capacity_bytes: int
    block_bytes: int
    """Bytes of one full prefix block."""
    now: Callable[[], float] = _zero
    """Simulated time, s (arrival time of the request in progress where nothing is timed)."""
    next_use: Callable[[int], float] | None = None
    """When a key is used next: the place in order of arrival (or the arrival time) of the first request that has the
    key in its prompt and has not been admitted yet; `math.inf` if there is none. It never decreases for a key. None
    where the future is not known, as with closed-loop load. For bounds only (`policies.eviction.belady`)."""
    queue: Callable[[int], float] | None = None
    """Where in the queue the first waiting request is whose prompt has a key: 0 at its head, more behind it (of the
    replicas that use the tier, the one where it comes soonest), `math.inf` if none waits. None where nothing queues.
    What queues is kept track of from the first call on, which a policy makes when it is built."""

    @property
    def capacity_blocks(self) -> int:
        """Full prefix blocks that fit."""
        return self.capacity_bytes // self.block_bytes


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


class Trigger(Enum):
    """When a prefetch policy is asked."""

    ARRIVED = "arrived"
    """The request has come to the queue of its replica."""
    FINISHED = "finished"
    """The request has its last token; what it held in HBM has just been released."""
    ADMITTED = "admitted"
    """The request has left the queue: its blocks were looked up, and the requests behind it have moved up."""


class RequestView(Protocol):
    """What a prefetch policy may see of a request."""

    @property
    def index(self) -> int:
        """Number in the trace."""

    @property
    def keys(self) -> Sequence[int]:
        """Chained hashes of its prompt's blocks, in order; the last block may be partial. When it has ended and the
        next turn carries its answer, those of the answer too."""

    @property
    def carried(self) -> bool:
        """True if the next turn of its conversation has all of these blocks, the last one included, in its prompt."""

    @property
    def input_tokens(self) -> int:
        """Length of the prompt."""

    @property
    def turn(self) -> int:
        """Turn in its conversation from 0, or -1 where the trace names no conversations."""

    @property
    def session(self) -> int:
        """Number of its conversation, or -1."""

    @property
    def think_s(self) -> float | None:
        """Seconds from the end of this request until the next turn of its conversation is sent, where the trace (or
        the closed-loop clients) say so; None when there is no next turn or nothing is known."""


class CacheView(Protocol):
    """What a prefetch policy may see of the tiers of a replica."""

    @property
    def now(self) -> float:
        """Simulated time, s."""

    @property
    def tiers(self) -> Sequence[str]:
        """Names of the tiers, HBM first."""

    @property
    def block_bytes(self) -> int:
        """Bytes of one full prefix block on one GPU."""

    @property
    def block_tokens(self) -> int:
        """Tokens of one full prefix block."""

    @property
    def waiting(self) -> Sequence[RequestView]:
        """Requests in the queue of the replica, in the order in which the scheduler looks at them."""

    def capacity(self, tier: str) -> int:
        """Bytes that the tier can hold: 0 for one of no size, which is not among `tiers`; KeyError for no tier."""

    def free(self, tier: str) -> int:
        """Bytes of the tier that nothing occupies."""

    def holds(self, key: int, tier: str) -> bool:
        """True when the tier has the block, or is receiving it."""


class Fetch(NamedTuple):
    """Bring blocks toward the GPU, in order of the prefix: those that lie behind the tier `into` are copied into it.

    What `into` or a nearer tier has is skipped; the first block that no tier has ends the fetch.
    """

    keys: Sequence[int]
    into: str
    after_s: float = 0.0
    """Seconds from now until it starts."""
    patience_s: float | None = None
    """With `stop` "timeout": how long its request waits for it; None: `timeout_s` of the policy."""


class PrefetchPolicy(ABC):
    """Brings blocks toward the GPU before the scheduler asks for them.

    stop says what the scheduler does with a request whose own fetch (planned at ARRIVED, of blocks of its prompt) is
    not complete when its turn comes: "best_effort" uses what has arrived and computes the rest, "wait_complete" lets
    others go first until it is complete, "timeout" does so for `timeout_s` (or what the fetch says) after the fetch
    began and then is best effort (SGLang HiCache's prefetch policies of the same names). What the fetch did not bring,
    for want of room, is loaded from where it is (but see `reach`). With "join" what is on its way is waited for as a
    load is.

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
