"""A tier in its hierarchy: who may enter, what leaves it for the tiers behind it, and the accounts of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from policies.base import AdmissionPolicy, Block, Event, Move
from sim.hierarchy.offload import Offload
from sim.hierarchy.route import Route, send
from sim.hierarchy.tier import Tier


class Part(NamedTuple):
    """Tokens `start` to `end` of a block, on their way to its copy in another tier."""

    block: Block
    copy: Block
    start: int
    end: int


def land(part: Part) -> None:
    """The part has arrived. Parts on different links may overtake each other: only what follows on is ready."""
    copy = part.copy
    if copy.ready != part.start or copy.parts:
        copy.parts = sorted([*(copy.parts or ()), (part.start, part.end)])
        while copy.parts and copy.parts[0][0] <= copy.ready:
            copy.ready = max(copy.ready, copy.parts.pop(0)[1])
    else:
        copy.ready = part.end


class Behind(NamedTuple):
    """A tier behind another one, and the way there.

    near   the way for what host memory holds too, which then need not be read from a disk or a network again
    """

    place: Place
    route: Route
    near: Route | None = None


class Place:
    """One tier and the moves out of it: makes room, pins both ends until the last byte has arrived, keeps the accounts.

    tier       the tier
    offload    its policy, and what that may see
    admission  asked before a block enters; None admits all
    behind     the tiers behind it by name, with the way there; empty for the last one
    host       host memory nearer to the GPU, for `Behind.near`
    inclusive  False: a block that is loaded from here toward the GPU leaves
    arriving   called when a copy away from here has finished, before anything of it is unpinned
    woken      called after that, since memory may have become free
    """

    def __init__(
        self,
        tier: Tier,
        offload: Offload,
        admission: AdmissionPolicy | None,
        behind: Mapping[str, Behind],
        token_bytes: int,
        *,
        inclusive: bool = True,
        host: Tier | None = None,
    ) -> None:
        self._host = host
        self.tier = tier
        self.offload = offload
        self.behind = behind
        self.inclusive = inclusive
        self.copying = 0
        """Transfers away from here, queued or in flight."""
        self.leaving = 0
        """Those of them that carry evicted blocks, whose memory cannot be used yet."""
        self.arriving: Callable[[], None] = lambda: None
        self.woken: Callable[[], None] = lambda: None
        self._admission = admission
        self._token_bytes = token_bytes
        self._held_back: list[Callable[[], None]] = []

    # ---- memory

    def make_room(self, size: int) -> bool:
        """Evict until `size` bytes are free; what the offload policy then copies away is not free before it has left.

        False, and nothing changed, if it cannot be had.
        """
        evicted = self.tier.make_room(size)
        if evicted and self.offload.hears_evicted:
            shareable = [b for b in evicted if not b.private]
            if shareable:
                self.store(self.offload.plan(Event.EVICTED, shareable), leaving=True)
        return evicted is not None

    def when_free(self, submit: Callable[[], None]) -> None:
        """`submit()` now, or when the evicted blocks have left the memory that it needs."""
        if self.leaving:
            self._held_back.append(submit)
        else:
            submit()

    def admits(self, block: Block) -> bool:
        """True if a block may enter."""
        return self._admission is None or self._admission.admit(block)

    # ---- events of the offload policy

    def filled(self, blocks: Sequence[Block]) -> None:
        """These blocks have been computed, or have arrived, here."""
        if self.offload.hears_filled and blocks:
            self.store(self.offload.plan(Event.FILLED, list(blocks)))

    def hit(self, blocks: Sequence[Block]) -> None:
        """A request reuses these blocks; what is still on its way has no bytes to copy yet."""
        if self.offload.hears_hit:
            ready = [b for b in blocks if not b.private and b.ready == b.tokens]
            if ready:
                self.store(self.offload.plan(Event.HIT, ready))

    # ---- away from the GPU

    def store(self, moves: Iterable[Move], *, leaving: bool = False) -> None:
        """Start the copies of a plan.

        Only tokens that the target does not hold yet are copied; blocks that it does not admit, or for which it cannot
        make room, are not. `leaving` blocks were evicted: they are not pinned, and nobody uses their memory until
        `leaving` is zero again.
        """
        wanted: dict[str, list[Part]] = {}
        for block, to in moves:
            target = self.behind[to].place
            copy = target.tier.blocks.get(block.key)
            if copy is None:
                if not target.admits(block):
                    continue
                copy = Block(block.key, block.start, 0, 0, 0, block.parent, block.turn)
            if copy.tokens < block.tokens:
                wanted.setdefault(to, []).append(Part(block, copy, copy.tokens, block.tokens))
        for to, parts in wanted.items():
            target, route, near = self.behind[to]
            parts = target.take(parts)
            if not parts:
                continue
            if not leaving:
                for part in parts:
                    self.tier.pin(part.block)
            here = parts
            if near is not None and self._host is not None:
                here = [part for part in parts if not self._is_near(part)]
                self._send(target, near, [part for part in parts if self._is_near(part)], leaving)
            self._send(target, route, here, leaving)
            self._tell_others(target.tier)

    def _is_near(self, part: Part) -> bool:
        copy = None if self._host is None else self._host.blocks.get(part.block.key)
        return copy is not None and copy.ready >= part.end

    def _send(self, target: Place, route: Route, parts: list[Part], leaving: bool) -> None:
        if not parts:
            return
        self.copying += 1
        self.leaving += leaving
        sizes = [(part.end - part.start) * self._token_bytes for part in parts]
        done = partial(self._stored, target, parts, sum(sizes), leaving)
        target.when_free(partial(send, route, sizes, "store", done))

    def take(self, parts: list[Part]) -> list[Part]:
        """Take memory here for the copies, pinned until they have arrived; the parts for which there was room.

        All at once if possible; else one by one, in order.
        """
        tier = self.tier
        for part in parts:
            if part.start:  # its copy is there already, and must not be evicted for the others
                tier.pin(part.copy)
        if self.make_room(self._bytes(parts)):
            self._enter(parts)
            return parts
        taken = []
        for part in parts:
            size = self._bytes([part])
            if self.make_room(size):
                self._enter([part])
                taken.append(part)
                continue
            tier.counters.refused_bytes += size
            if part.start:
                tier.unpin(part.copy)
        return taken

    def _bytes(self, parts: list[Part]) -> int:
        return sum(part.end - part.start for part in parts) * self._token_bytes

    def _enter(self, parts: list[Part]) -> None:
        """Put the copies into the memory that was made free."""
        for block, copy, start, end in parts:
            if start:
                self.tier.grow(copy, end, end * self._token_bytes)
            else:
                copy.tokens, copy.size, copy.pins = block.tokens, block.size, 1
                self.tier.insert(copy)

    def _stored(self, target: Place, parts: list[Part], size: int, leaving: bool) -> None:
        self.arriving()
        self.copying -= 1
        self.leaving -= leaving
        tier = target.tier
        tier.counters.stored_bytes += size
        for part in reversed(parts):  # children are released before their parents
            land(part)
            tier.unpin(part.copy)
            if not leaving:
                self.tier.unpin(part.block)
        target.filled([part.copy for part in parts if part.copy.ready == part.copy.tokens])
        self._tell_others(tier)
        if not self.leaving:
            held_back, self._held_back = self._held_back, []
            for submit in held_back:
                submit()
        self.woken()

    def _tell_others(self, tier: Tier) -> None:
        """Wake the replicas that share the tier: what their queues wait for may have come or gone."""
        for woken in tier.changed:
            if woken != self.woken:
                woken()

    # ---- toward the GPU

    def receive(self, source: Block, tokens: int) -> Block | None:
        """Memory here for a copy of the first `tokens` of a block that comes from behind, pinned; None if it may not
        enter, is here already, or there is no room."""
        if not self.inclusive or source.key in self.tier.blocks or not self.admits(source):
            return None
        size = tokens * self._token_bytes
        if not self.make_room(size):
            return None
        copy = Block(source.key, source.start, tokens, size, 0, source.parent, source.turn)
        copy.pins = 1
        copy.waiters = []
        self.tier.insert(copy)
        return copy

    def received(self, copy: Block) -> None:
        """The bytes of a copy made by `receive` have come; whoever waits for it is called."""
        self.tier.counters.stored_bytes += copy.size
        copy.ready = copy.tokens
        waiters, copy.waiters = copy.waiters, None
        for call in waiters or ():
            assert callable(call)
            call()

    def give_up(self, blocks: Iterable[Block]) -> None:
        """Blocks that were pinned to be loaded have arrived nearer to the GPU; an exclusive tier keeps none of them."""
        tier = self.tier
        for block in blocks:
            tier.unpin(block)
            if not self.inclusive and not block.pins and tier.blocks.get(block.key) is block:
                tier.drop(block)
                tier.counters.moved_bytes += block.size
