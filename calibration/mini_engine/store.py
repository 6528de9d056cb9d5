"""One place of the mini engine that holds KV: its pages, the blocks in them, kvsim's eviction policy over the blocks.

Keeps the promises that `policies.base.EvictionPolicy` makes for a tier, with real page numbers behind every block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from policies.base import Block, EvictionPolicy


@dataclass
class Counters:
    """What happened to a store over a run."""

    stored_pages: int = 0
    loaded_pages: int = 0
    evicted_blocks: int = 0
    refused_pages: int = 0


class Store:
    """`capacity` pages of `page` tokens. A block owns the pages that `pages` lists, in order of its tokens."""

    def __init__(self, name: str, capacity: int, page: int, page_bytes: int, policy: EvictionPolicy) -> None:
        self.name = name
        self.capacity = capacity
        self.page = page
        self.page_bytes = page_bytes
        self.policy = policy
        self.blocks: dict[int, Block] = {}
        self.pages: dict[int, list[int]] = {}
        self.counters = Counters()
        self._free = list(range(capacity - 1, -1, -1))
        self._pinned = 0  # pages of pinned blocks
        self._private = 0  # pages that sequences hold outside of blocks

    @property
    def available(self) -> int:
        """Pages that could be had by evicting every unpinned block."""
        return self.capacity - self._pinned - self._private

    def make_room(self, count: int) -> bool:
        """Evict the coldest unpinned blocks until `count` pages are free; False (nothing changed) if impossible."""
        need = count - len(self._free)
        if need <= 0:
            return True
        if count > self.available:
            return False
        victims = []
        for block in self.policy.victims():
            if block.pins:
                continue
            victims.append(block)
            need -= len(self.pages[block.key])
            if need <= 0:
                break
        for block in victims:
            self.counters.evicted_blocks += 1
            self._remove(block)
        return True

    def _remove(self, block: Block) -> None:
        self.policy.remove(block)
        del self.blocks[block.key]
        self._free += reversed(self.pages.pop(block.key))

    def take(self, count: int) -> list[int]:
        """Free pages for a sequence's own use; the caller has made room."""
        self._private += count
        return [self._free.pop() for _ in range(count)]

    def give_back(self, pages: Sequence[int]) -> None:
        """Pages of a sequence that no block has."""
        self._private -= len(pages)
        self._free += reversed(pages)

    def publish(self, block: Block, pages: Sequence[int]) -> None:
        """A sequence's pages become those of a new block, pinned as `block.pins` says."""
        self._private -= len(pages)
        self._insert(block, list(pages))

    def admit(self, block: Block) -> list[int]:
        """Free pages for a new block that is to be copied here; the caller has made room."""
        pages = [self._free.pop() for _ in range(block.tokens // self.page)]
        self._insert(block, pages)
        return pages

    def grow(self, block: Block, pages: Sequence[int]) -> None:
        """A sequence's next pages join a pinned block."""
        self._private -= len(pages)
        self._pinned += len(pages)
        self.pages[block.key] += pages
        block.tokens += len(pages) * self.page
        block.size = block.tokens // self.page * self.page_bytes

    def _insert(self, block: Block, pages: list[int]) -> None:
        self.blocks[block.key] = block
        self.pages[block.key] = pages
        self._pinned += len(pages) if block.pins else 0
        self.policy.insert(block)

    def pin(self, block: Block) -> None:
        """Keep a block until a matching `unpin`."""
        self._pinned += 0 if block.pins else len(self.pages[block.key])
        block.pins += 1

    def unpin(self, block: Block) -> None:
        """Drop one pin; with the last one the policy hears that the block was released."""
        block.pins -= 1
        if not block.pins:
            self._pinned -= len(self.pages[block.key])
            self.policy.release(block)

    def touch(self, keys: Iterable[int]) -> None:
        """Tell the policy of those of the prefix blocks that are here."""
        for key in keys:
            if key in self.blocks:
                self.policy.touch(self.blocks[key])

    def missed(self, keys: Iterable[int]) -> None:
        """Tell the policy of those that are not."""
        for key in keys:
            if key not in self.blocks:
                self.policy.miss(key)

    def check(self) -> None:
        """Recount: every page belongs to one block, to a sequence, or to nobody."""
        held = [page for pages in self.pages.values() for page in pages]
        assert len(held) + len(self._free) + self._private == self.capacity, f"{self.name}: pages were lost"
        assert len({*held, *self._free}) == len(held) + len(self._free), f"{self.name}: a page belongs to two"
        assert set(self.blocks) == set(self.pages), f"{self.name}: blocks without pages"
