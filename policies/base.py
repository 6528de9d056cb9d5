"""What a policy may see and say.

A policy is plain Python: it keeps an order or returns a plan, and never sleeps, moves bytes or reads a clock of its
own. The tier owns residency, bytes and pins; the engine executes plans and charges time for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol


class Block:
    """A resident copy of one prefix block in one tier: the unit that policies order and move.

    A block spans one hash of the trace (512 tokens in Mooncake traces); the engine's smaller blocks inside it are
    counted by arithmetic, so `tokens` is always a whole number of them.

    key      chained prefix hash (the same key means the same tokens and the same prefix before them); negative keys
             are private to one request (its output tokens) and can never be hit by another
    start    tokens of the prefix before this block
    tokens   tokens that hold memory in this tier
    ready    tokens whose bytes have arrived; `ready < tokens` while a copy is in flight
    size     bytes that the tokens occupy on one GPU
    pins     users that need the block to stay; the tier never evicts a block with pins
    uses     hits since it became resident
    """

    __slots__ = ("key", "parts", "pins", "ready", "size", "start", "tokens", "uses", "waiters")

    def __init__(self, key: int, start: int, tokens: int, size: int, ready: int) -> None:
        self.key = key
        self.start = start
        self.tokens = tokens
        self.size = size
        self.ready = ready
        self.pins = 0
        self.uses = 0
        self.parts: list[tuple[int, int]] | None = None
        self.waiters: list[object] | None = None

    @property
    def private(self) -> bool:
        """True for a request's own output, which no other request can hit."""
        return self.key < 0

    def __repr__(self) -> str:
        return f"Block(key={self.key}, start={self.start}, tokens={self.tokens}, pins={self.pins})"


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

    def holds_below(self, block: Block) -> bool:
        """True when the tier below already holds (or is receiving) every token of the block."""


@dataclass(frozen=True)
class TierInfo:
    """What an eviction policy knows about its tier when it is built."""

    name: str
    capacity_bytes: int
    block_bytes: int
    """Bytes of one full prefix block."""

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
    - `block.size` may grow while the block is resident. The other fields of a block are for reading.

    What the policy promises:
    - `victims()` yields resident blocks, coldest first and lazily, each at most once per call; run to its end, it has
      yielded every resident block.
    - A block that was yielded stays in the policy's books until `remove`: if the tier skipped it, a later call offers
      it again. A scan may reorder (second chances, a moving hand, promotion between queues) but not drop.
    - The order follows from the calls alone: no clock, no randomness without a seed among the options, nothing shared
      between two policies.
    - O(1) amortised or O(log n) per call and per block yielded, memory in proportion to the tier's capacity.

    `policies.contract.check_policy` tests these rules on any policy.
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

    @abstractmethod
    def victims(self) -> Iterator[Block]:
        """Blocks, coldest first."""

    @abstractmethod
    def remove(self, block: Block) -> None:
        """The block left the tier: evicted, as a rule."""


class OffloadPolicy(ABC):
    """Says which blocks of a tier are copied away from the GPU, and when."""

    listens: tuple[Event, ...] = tuple(Event)
    """Events that `plan` is called for; leaving some out saves the engine work."""

    @abstractmethod
    def plan(self, event: Event, blocks: Sequence[Block], tier: TierView) -> Iterable[Move]:
        """Copies to make now. Blocks already held below are skipped by the engine at no cost."""
