"""The unit that policies order and move."""

from __future__ import annotations

FIELDS = (
    "ahead",
    "key",
    "late",
    "members",
    "pageable",
    "parent",
    "parts",
    "pins",
    "ready",
    "sent",
    "size",
    "start",
    "tokens",
    "turn",
    "uses",
    "waiters",
)
"""Attributes of a block that say what it is; `run` is an eviction policy's own."""


class Run:
    """Blocks that follow each other in the order of an eviction policy, the coldest first (policies.eviction.runs)."""

    __slots__ = ("blocks",)

    def __init__(self, blocks: list[Block]) -> None:
        self.blocks = blocks


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
    ahead    bytes of it that a prefetch brought and no request has used yet; `late` if one had to do without them
    sent     True when a prefetch has copied it nearer to the GPU
    parent   key of the block before it in the prefix, or None for the first
    members  in a tier of larger blocks: the hashes that it spans, in order, of which `key` is the last; else None
    pageable bytes of it in host memory that is not page-locked
    turn     turn of its conversation (0 for the first) in the request that used it last, -1 where the trace has none
    run      where the eviction policy of its tier keeps it, if that keeps runs
    """

    __slots__ = (*FIELDS, "run")

    def __init__(
        self, key: int, start: int, tokens: int, size: int, ready: int, parent: int | None = None, turn: int = -1
    ) -> None:
        self.key = key
        self.parent = parent
        self.turn = turn
        self.start = start
        self.tokens = tokens
        self.size = size
        self.ready = ready
        self.pins = 0
        self.uses = 0
        self.ahead = 0
        self.late = self.sent = False
        self.parts: list[tuple[int, int]] | None = None
        self.members: tuple[int, ...] | None = None
        self.pageable = 0
        self.waiters: list[object] | None = None
        self.run: Run | None = None

    @property
    def private(self) -> bool:
        """True for a request's own output, which no other request can hit."""
        return self.key < 0

    def __repr__(self) -> str:
        return f"Block(key={self.key}, start={self.start}, tokens={self.tokens}, pins={self.pins})"
