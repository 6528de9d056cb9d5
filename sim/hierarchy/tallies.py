"""What some tiers count of their blocks beside bytes: children, hashes that larger blocks span, page-locked memory."""

from __future__ import annotations

from collections.abc import Collection

from policies.base import Block
from sim.invariants import ensure


class Tallies:
    """Kept as blocks come and go; the arguments are those of `Tier`."""

    def __init__(self, *, leaf_only: bool, span: int, page_locked: int | None) -> None:
        self.kept = leaf_only or span > 1 or page_locked is not None
        """False if nothing is counted."""
        self.children: dict[int, int] = {}
        """Resident children by key of the parent, which need not be resident; kept for `leaf_only` alone."""
        self.spanned: dict[int, int] = {}
        """Resident blocks that span a hash, by its key; kept for a `span` above 1."""
        self._leaf_only = leaf_only
        self._span = span
        self._page_locked = page_locked
        self._locked = 0
        """Bytes of blocks in page-locked memory, where that is limited."""

    def add(self, block: Block) -> None:
        """The block came."""
        if self._page_locked is not None:
            block.pageable = 0
            self.grow(block, block.size)
        if self._leaf_only and block.parent is not None:
            self.children[block.parent] = self.children.get(block.parent, 0) + 1
        for key in block.members or ():
            self.spanned[key] = self.spanned.get(key, 0) + 1

    def remove(self, block: Block) -> None:
        """The block left."""
        if self._leaf_only and block.parent is not None:
            _count_down(self.children, block.parent)
        for key in block.members or ():
            _count_down(self.spanned, key)
        if self._page_locked is not None:
            self._locked -= block.size - block.pageable

    def grow(self, block: Block, size: int) -> None:
        """The block takes `size` more bytes of memory, page-locked as far as there is some."""
        if self._page_locked is not None:
            locked = min(size, self._page_locked - self._locked)
            self._locked += locked
            block.pageable += size - locked

    def check(self, blocks: Collection[Block], label: str) -> None:
        """Recount them over all resident blocks. Raises InvariantError."""
        spans = sum(len(b.members or ()) for b in blocks)
        ensure(spans == sum(self.spanned.values()), f"tier {label}: hashes that blocks span do not add up")
        ensure(self._span == 1 or spans == self._span * len(blocks), f"tier {label}: a block is not whole")
        locked = sum(b.size - b.pageable for b in blocks) if self._page_locked is not None else 0
        ensure(locked == self._locked <= (self._page_locked or 0), f"tier {label}: page-locked bytes do not add up")


def _count_down(counts: dict[int, int], key: int) -> None:
    left = counts.pop(key) - 1
    if left:
        counts[key] = left
