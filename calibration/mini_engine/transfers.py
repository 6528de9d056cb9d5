"""Copies between HBM and host memory: what the offload policy wants stored, what a request needs loaded.

Both ends of a copy are pinned until its last byte has arrived.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from calibration.mini_engine.sequence import Sequence
from calibration.mini_engine.store import Store
from calibration.mini_engine.view import HostView
from policies.base import Block, Event, OffloadPolicy


class Copy(NamedTuple):
    """Pages to copy, as one transfer. direction: h2d or d2h; pages: (from, to); done: call when all have arrived."""

    direction: str
    pages: tuple[tuple[int, int], ...]
    done: Callable[[], None]


class Transfers:
    """`copies` collects transfers for the executor to submit, in order; it must empty the list.

    loaded: called with a sequence when the last block that it waits for has arrived.
    """

    def __init__(
        self, hbm: Store, host: Store | None, offload: OffloadPolicy, loaded: Callable[[Sequence], None]
    ) -> None:
        self.copies: list[Copy] = []
        self._hbm = hbm
        self._host = host
        self._page = hbm.page
        self._offload = offload
        self._view = HostView(hbm, host)
        self._loaded = loaded

    def filled(self, blocks: list[Block]) -> None:
        """The step that computed these blocks has ended."""
        for block in blocks:
            block.ready = block.tokens
        if blocks and self._host is not None and Event.FILLED in self._offload.listens:
            self._store([block for block, _ in self._offload.plan(Event.FILLED, blocks, self._view)])

    def hit(self, blocks: list[Block]) -> None:
        """A request reuses these blocks; what is still on its way has no bytes to copy yet."""
        ready = [block for block in blocks if block.ready == block.tokens]
        if ready and self._host is not None and Event.HIT in self._offload.listens:
            self._store([block for block, _ in self._offload.plan(Event.HIT, ready, self._view)])

    def load(self, pairs: list[tuple[Block, Block]]) -> None:
        """Copy pinned blocks of the host to their places in HBM, whose waiters are called when all have arrived."""
        host = self._host
        assert host is not None
        pages = [
            pair
            for source, target in pairs
            for pair in zip(host.pages[source.key], self._hbm.pages[target.key], strict=True)
        ]
        host.counters.loaded_pages += len(pages)
        self._hbm.counters.stored_pages += len(pages)

        def arrived() -> None:
            for source, target in reversed(pairs):
                host.unpin(source)
                target.ready = target.tokens
                waiters, target.waiters = target.waiters, None
                for waiter in waiters or ():
                    assert isinstance(waiter, Sequence)
                    waiter.pending -= 1
                    if not waiter.pending:
                        self._loaded(waiter)

        self.copies.append(Copy("h2d", tuple(pages), arrived))

    def _store(self, blocks: list[Block]) -> None:
        """Copy what the host does not hold yet, as far as it has room."""
        host = self._host
        assert host is not None
        parts = []
        for block in blocks:
            held = host.blocks.get(block.key)
            if held is None or held.tokens < block.tokens:
                parts.append((block, held))
        if not parts:
            return
        for _, held in parts:
            if held is not None:  # there in part: not to be evicted for the others
                host.pin(held)
        needs = [(block.tokens - (held.tokens if held else 0)) // self._page for block, held in parts]
        all_fit = host.make_room(sum(needs))
        taken: list[tuple[Block, Block, int]] = []
        pages: list[tuple[int, int]] = []
        for (block, held), count in zip(parts, needs, strict=True):
            if not (all_fit or host.make_room(count)):
                host.counters.refused_pages += count
                if held is not None:
                    host.unpin(held)
                continue
            copy = self._enter(host, block, held, count)
            taken.append((block, copy, block.tokens))
            pages += zip(self._hbm.pages[block.key][-count:], host.pages[block.key][-count:], strict=True)
        if not taken:
            return
        for block, _, _ in taken:
            self._hbm.pin(block)

        def arrived() -> None:
            for _, copy, end in reversed(taken):
                copy.ready = end
                host.unpin(copy)
            for block, _, _ in reversed(taken):
                self._hbm.unpin(block)

        host.counters.stored_pages += len(pages)
        self.copies.append(Copy("d2h", tuple(pages), arrived))

    def _enter(self, host: Store, block: Block, held: Block | None, count: int) -> Block:
        """A pinned copy in the host, with `count` new pages for which there is room."""
        if held is not None:
            host.grow(held, host.take(count))
            return held
        copy = Block(block.key, block.start, block.tokens, block.size, 0, block.parent)
        copy.pins = 1
        host.admit(copy)
        return copy
