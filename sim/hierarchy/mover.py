"""Copies between the HBM of one replica and the tiers behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from policies.base import Block, Move
from sim.engine.sequence import Sequence as Seq
from sim.hierarchy.link import CopyEngine
from sim.hierarchy.tier import Tier
from sim.hierarchy.transfer import Transfer


class LowerTier(NamedTuple):
    """A tier behind HBM and this replica's link to and from it."""

    tier: Tier
    load: CopyEngine
    store: CopyEngine


class Part(NamedTuple):
    """Tokens `start` to `end` of a block, on their way to its copy in another tier."""

    block: Block
    copy: Block
    start: int
    end: int


def _land(part: Part) -> None:
    """The part has arrived. Parts on different links may overtake each other: only what follows on is ready."""
    copy = part.copy
    if copy.ready != part.start or copy.parts:
        copy.parts = sorted([*(copy.parts or ()), (part.start, part.end)])
        while copy.parts and copy.parts[0][0] <= copy.ready:
            copy.ready = max(copy.ready, copy.parts.pop(0)[1])
    else:
        copy.ready = part.end


class Mover:
    """Executes copies: makes room, pins both ends until the last byte has arrived, keeps the accounts.

    arriving  called when a copy has finished, before anything of it is unpinned
    woken     called after that, since memory may have become free
    loaded    called with a sequence whose last load has arrived
    """

    def __init__(self, hbm: Tier, lower: tuple[LowerTier, ...], token_bytes: int, block_bytes: int) -> None:
        self.copying = 0
        """Transfers queued or in flight."""
        self.leaving = 0
        """Those of them that carry evicted blocks, whose memory cannot be used yet."""
        self.arriving: Callable[[], None] = lambda: None
        self.woken: Callable[[], None] = lambda: None
        self.loaded: Callable[[Seq], None] = lambda _seq: None
        self._hbm = hbm
        self._by_name = {low.tier.name: low for low in lower}
        self._token_bytes = token_bytes
        self._block_bytes = block_bytes
        self._held_back: list[Callable[[], None]] = []

    # ---- away from the GPU

    def store(self, moves: Iterable[Move], *, leaving: bool = False) -> None:
        """Start the copies of a plan.

        Only tokens that the target does not hold yet are copied, and blocks for which it cannot make room are refused.
        `leaving` blocks were evicted: they are not pinned, and nobody uses their memory until `leaving` is zero again.
        """
        wanted: dict[str, list[Part]] = {}
        for block, to in moves:
            copy = self._by_name[to].tier.blocks.get(block.key)
            if copy is None:
                copy = Block(block.key, block.start, 0, 0, 0)
            if copy.tokens < block.tokens:
                wanted.setdefault(to, []).append(Part(block, copy, copy.tokens, block.tokens))
        for to, parts in wanted.items():
            low = self._by_name[to]
            parts = self._make_room(low.tier, parts)
            if not parts:
                continue
            if not leaving:
                for part in parts:
                    self._hbm.pin(part.block)
            size = self._bytes(parts)
            transfer = Transfer(self._hbm.name, to, size, size // self._block_bytes, "store")
            self.copying += 1
            self.leaving += leaving
            low.store.submit(transfer, partial(self._stored, low.tier, parts, size, leaving))
            self._tell_others(low.tier)

    def _bytes(self, parts: list[Part]) -> int:
        return sum(part.end - part.start for part in parts) * self._token_bytes

    def _make_room(self, tier: Tier, parts: list[Part]) -> list[Part]:
        """Take memory for the copies, pinned until they have arrived; the parts for which there was room.

        All at once if possible; else one by one, in order.
        """
        for part in parts:
            if part.start:  # its copy is there already, and must not be evicted for the others
                tier.pin(part.copy)
        if tier.make_room(self._bytes(parts)) is not None:
            self._enter(tier, parts)
            return parts
        taken = []
        for part in parts:
            size = self._bytes([part])
            if tier.make_room(size) is not None:
                self._enter(tier, [part])
                taken.append(part)
                continue
            tier.counters.refused_bytes += size
            if part.start:
                tier.unpin(part.copy)
        return taken

    def _enter(self, tier: Tier, parts: list[Part]) -> None:
        """Put the copies into the memory that was made free."""
        for block, copy, start, end in parts:
            if start:
                tier.grow(copy, end, end * self._token_bytes)
            else:
                copy.tokens, copy.size, copy.pins = block.tokens, block.size, 1
                tier.insert(copy)

    def _stored(self, tier: Tier, parts: list[Part], size: int, leaving: bool) -> None:
        self.arriving()
        self.copying -= 1
        self.leaving -= leaving
        tier.counters.stored_bytes += size
        for part in reversed(parts):  # children are released before their parents
            _land(part)
            tier.unpin(part.copy)
            if not leaving:
                self._hbm.unpin(part.block)
        self._tell_others(tier)
        if not self.leaving:
            held_back, self._held_back = self._held_back, []
            for submit in held_back:
                submit()
        self.woken()

    def _tell_others(self, tier: Tier) -> None:
        """Wake the other replicas that share the tier: what their queues wait for may have come or gone."""
        for woken in tier.changed:
            if woken != self.woken:
                woken()

    # ---- toward the GPU

    def load(self, seq: Seq, source: str, sources: list[Block], targets: list[Block]) -> None:
        """Copy pinned `sources` of the tier named `source` into HBM blocks `targets`, for which `seq` waits.

        The copy is not queued before evicted blocks have left the memory that it goes to.
        """
        low = self._by_name[source]
        size = sum(block.size for block in targets)
        low.tier.counters.loaded_bytes += size
        for original, block in zip(sources, targets, strict=True):
            original.uses += 1
            block.waiters = [seq]
        seq.pending += len(targets)
        transfer = Transfer(source, self._hbm.name, size, size // self._block_bytes, "load")
        self.copying += 1
        submit = partial(low.load.submit, transfer, partial(self._arrived, low.tier, sources, targets))
        if self.leaving:
            self._held_back.append(submit)
        else:
            submit()

    def join(self, seq: Seq, block: Block) -> None:
        """Wait for a block that is on its way already; it is not fetched twice."""
        if block.waiters is not None:
            block.waiters.append(seq)
            seq.pending += 1

    def _arrived(self, tier: Tier, sources: list[Block], targets: list[Block]) -> None:
        self.arriving()
        self.copying -= 1
        for source, block in zip(reversed(sources), reversed(targets), strict=True):
            tier.unpin(source)
            block.ready = block.tokens
            waiters, block.waiters = block.waiters, None
            for seq in waiters or ():
                assert isinstance(seq, Seq)
                seq.pending -= 1
                if not seq.pending:
                    self.loaded(seq)
        self.woken()
