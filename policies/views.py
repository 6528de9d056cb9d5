"""What policies are shown, and what they answer: events, views of tiers and requests, moves and fetches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol, overload

from policies.block import Block


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
