"""A tier in its hierarchy: who may enter, what leaves it for the tiers behind it, and the accounts of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import compress
from operator import not_
from typing import NamedTuple

from policies.base import AdmissionPolicy, Block, Event, Move
from sim.hierarchy.offload import Offload
from sim.hierarchy.route import Route, send
from sim.hierarchy.sizes import cut, joined
from sim.hierarchy.tier import NOTHING, Tier

Part = tuple[Block, Block, int, int, Sequence[Block]]
"""(block, copy, start, end, rest): tokens `start` to `end` of a block, on their way to its copy in another tier. A copy
that is larger is made of `block`, the last of several, and of those before it, of which `rest` are not leaving."""


def land(part: Part) -> None:
    """The part has arrived. Parts on different links may overtake each other: only what follows on is ready."""
    _, copy, start, end, _ = part
    if copy.ready == start and not copy.parts:
        copy.ready = end
        return
    copy.parts = sorted([*(copy.parts or ()), (start, end)])
    while copy.parts and copy.parts[0][0] <= copy.ready:
        copy.ready = max(copy.ready, copy.parts.pop(0)[1])


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
                self.store(self.offload.plan(Event.EVICTED, shareable), shareable)
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

    def store(self, moves: Iterable[Move], evicted: Sequence[Block] = ()) -> None:
        """Start the copies of a plan.

        Only tokens that the target does not hold yet are copied; blocks that it does not admit, or for which it cannot
        make room, are not. A target of larger blocks takes a block when its last part is copied, if all of it is here.
        `evicted` blocks are leaving: they are not pinned, and nobody uses their memory until `leaving` is zero again.
        """
        leaving = bool(evicted)
        for to, parts in self._wanted(moves, evicted).items():
            target, route, near = self.behind[to]
            parts = target.take(parts)
            if not parts:
                continue
            self.tier.pin_all(self._kept(target, parts, leaving))
            if near is None or self._host is None:
                self._send(target, route, parts, leaving)
            else:
                by_host = [self._is_near(part) for part in parts]
                self._send(target, near, list(compress(parts, by_host)), leaving)
                self._send(target, route, list(compress(parts, map(not_, by_host))), leaving)
            self._tell_others(target.tier)

    def _wanted(self, moves: Iterable[Move], evicted: Sequence[Block]) -> dict[str, list[Part]]:
        """By tier: what it admits and does not hold yet, in order."""
        wanted: dict[str, list[Part]] = {}
        last = None
        for block, to in moves:
            if to != last:
                last, target = to, self.behind[to].place
                held, admission, parts = target.tier.blocks, target._admission, wanted.setdefault(to, [])
                grain, larger = target.tier.block_tokens, target.tier.span > self.tier.span
            copy, end, rest = held.get(block.key), block.tokens - block.tokens % grain, NOTHING
            if copy is None:
                found = joined(block, grain, self.tier, evicted) if larger else (block, NOTHING)
                if found is None or (admission is not None and not admission.admit(block)):
                    continue
                whole, rest = found
                copy = Block(block.key, whole.start, 0, 0, 0, whole.parent, block.turn)
                copy.members = whole.members
                end = grain if larger else end
            if copy.tokens < end and copy.waiters is None:  # what is being fetched does not grow meanwhile
                parts.append((block, copy, copy.tokens, end, rest))
        return wanted

    def _kept(self, target: Place, parts: list[Part], leaving: bool) -> list[Block]:
        """The blocks here that parts are copied from, in their order (a larger one from its end), less what leaves."""
        if target.tier.span == self.tier.span:
            return [] if leaving else [block for block, _, _, _, _ in parts]
        ends = [] if leaving else [block for block, _, _, _, _ in parts]
        return [block for i, part in enumerate(parts) for block in (*ends[i : i + 1], *part[4])]

    def _is_near(self, part: Part) -> bool:
        """True if host memory has the tokens of the part, in blocks of its own size."""
        if self._host is None:
            return False
        _, copy, _, end, _ = part
        keys = self._host.cut(copy)
        near = [self._host.blocks.get(key) for key in keys]
        return all(block is not None and block.ready * len(keys) >= end for block in near)

    def _send(self, target: Place, route: Route, parts: list[Part], leaving: bool) -> None:
        if not parts:
            return
        self.copying += 1
        self.leaving += leaving
        sizes = [(end - start) * self._token_bytes for _, _, start, end, _ in parts]
        done = partial(self._stored, target, parts, sum(sizes), leaving)
        target.when_free(partial(send, route, sizes, "store", done))

    def take(self, parts: list[Part]) -> list[Part]:
        """Take memory here for the copies, pinned until they have arrived; the parts for which there was room.

        All at once if possible; else one by one, in order.
        """
        tier = self.tier
        if not parts:
            return parts
        tier.pin_all(
            [copy for _, copy, start, _, _ in parts if start]
        )  # there already: not to be evicted for the others
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
            _, copy, start, _, _ = part
            if start:
                tier.unpin(copy)
        return taken

    def _bytes(self, parts: list[Part]) -> int:
        return sum([end - start for _, _, start, end, _ in parts]) * self._token_bytes

    def _enter(self, parts: list[Part]) -> None:
        """Put the copies into the memory that was made free."""
        new = []
        for _, copy, start, end, _ in parts:
            if start:
                self.tier.grow(copy, end, end * self._token_bytes)
            else:
                copy.tokens, copy.size, copy.pins = end, end * self._token_bytes, 1
                new.append(copy)
        self.tier.insert_all(new)

    def _stored(self, target: Place, parts: list[Part], size: int, leaving: bool) -> None:
        self.arriving()
        self.copying -= 1
        self.leaving -= leaving
        tier = target.tier
        tier.counters.stored_bytes += size
        parts.reverse()  # children are released before their parents
        for part in parts:
            land(part)
        tier.unpin_all([copy for _, copy, _, _, _ in parts])
        self.tier.unpin_all(self._kept(target, parts, leaving))
        if target.offload.hears_filled:
            target.filled([copy for _, copy, _, _, _ in reversed(parts) if copy.ready == copy.tokens])
        self._tell_others(tier)
        if self._held_back and not self.leaving:
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

    def receive(self, source: Block, size: int) -> list[Block]:
        """Memory here for copies of the first `size` bytes of a block that comes from behind, pinned: one, or as many
        as make up a larger block. Left out is what may not enter, is here already, or has no room."""
        copies: list[Block] = []
        if not self.inclusive:
            return copies
        for copy in cut(source, self.tier, size):
            if copy.key in self.tier.blocks or not self.admits(copy if source.members else source):
                continue
            if not self.make_room(copy.size):
                break
            copy.pins = 1
            copy.waiters = []
            self.tier.insert(copy)
            copies.append(copy)
        return copies

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
