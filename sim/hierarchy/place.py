"""A tier in its hierarchy: who may enter, what leaves it for the tiers behind it, and the accounts of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import not_
from typing import NamedTuple

from policies.base import AdmissionPolicy, Block, Event
from sim.hierarchy.copies import Copies, lacking
from sim.hierarchy.offload import Offload
from sim.hierarchy.route import Route, send
from sim.hierarchy.sizes import cut
from sim.hierarchy.tier import Tier


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
        self.admission = admission
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
        return self.admission is None or self.admission.admit(block)

    # ---- events of the offload policy

    def filled(self, blocks: list[Block]) -> None:
        """These blocks have been computed, or have arrived, here."""
        if self.offload.hears_filled and blocks:
            self.store(self.offload.plan(Event.FILLED, blocks))

    def hit(self, blocks: Sequence[Block]) -> None:
        """A request reuses these blocks; what is still on its way has no bytes to copy yet."""
        if self.offload.hears_hit:
            ready = [b for b in blocks if not b.private and b.ready == b.tokens]
            if ready:
                self.store(self.offload.plan(Event.HIT, ready))

    # ---- away from the GPU

    def store(self, plan: Mapping[str, Sequence[Block]], evicted: Sequence[Block] = ()) -> None:
        """Start the copies of a plan: blocks by the tier that they go to.

        Only tokens that the target does not hold yet are copied; blocks that it does not admit, or for which it cannot
        make room, are not. A target of larger blocks takes a block when its last part is copied, if all of it is here.
        `evicted` blocks are leaving: they are not pinned, and nobody uses their memory until `leaving` is zero again.
        """
        leaving, tier = bool(evicted), self.tier
        for to, blocks in plan.items():
            target, route, near = self.behind[to]
            copies = lacking(blocks, tier, target.tier, target.admission, evicted, self._token_bytes)
            if copies.blocks:
                copies = target.take(copies)
            if not copies.blocks:
                continue
            tier.pin_all(copies.kept(leaving))
            if near is None or self._host is None:
                self._send(target, route, copies, leaving)
            else:
                by_host = self._are_near(self._host, copies)
                if all(by_host):
                    self._send(target, near, copies, leaving)
                else:
                    self._send(target, near, copies.where(by_host), leaving)
                    self._send(target, route, copies.where(map(not_, by_host)), leaving)
            self._tell_others(target.tier)

    @staticmethod
    def _are_near(host: Tier, copies: Copies) -> list[bool]:
        """Of each copy: whether host memory has as many tokens of the block, in blocks of its own size."""
        held, found = host.blocks.get, []
        for copy, tokens in zip(copies.copies, copies.ends, strict=True):
            if copy.members is None:
                block = held(copy.key)
                found.append(block is not None and block.ready >= tokens)
            else:
                parts = [held(key) for key in host.cut(copy)]
                found.append(all(part is not None and part.ready * len(parts) >= tokens for part in parts))
        return found

    def _send(self, target: Place, route: Route, copies: Copies, leaving: bool) -> None:
        if not copies.blocks:
            return
        self.copying += 1
        self.leaving += leaving
        size = copies.tokens * self._token_bytes
        sizes = [size] if len(route) == 1 else copies.sizes(self._token_bytes)
        slow = copies.pageable() if target.tier.page_locked is not None else ()
        done = partial(self._stored, target, copies, size, leaving)
        if target.leaving:
            target.when_free(partial(send, route, sizes, "store", done, pageable=slow))
        else:
            send(route, sizes, "store", done, pageable=slow)

    def take(self, copies: Copies) -> Copies:
        """Take memory here for the copies, pinned until they have arrived; those for which there was room.

        All at once if possible; else one by one, in order.
        """
        tier, size = self.tier, copies.tokens * self._token_bytes
        if copies.grow:
            tier.pin_all(copies.grown)  # these are there already, and must not be evicted for the others
        if size <= tier.capacity - tier.used - tier.reserved or self.make_room(size):
            self._enter(copies)
            return copies
        taken = []
        for i, (copy, start, size) in enumerate(
            zip(copies.copies, copies.starts, copies.sizes(self._token_bytes), strict=True)
        ):
            taken.append(self.make_room(size))
            if taken[-1]:
                self._enter(copies.where(j == i for j in range(len(copies.copies))))
                continue
            tier.counters.refused_bytes += size
            if start:
                tier.unpin(copy)
        return copies.where(taken)

    def _enter(self, copies: Copies) -> None:
        """Put the copies into the memory that was made free."""
        new, tokens = copies.copies, copies.tokens
        if copies.grow:
            new = [copy for copy, start in zip(new, copies.starts, strict=True) if not start]
            for copy, start, end in zip(copies.copies, copies.starts, copies.ends, strict=True):
                if start:
                    tokens -= end - start
                    self.tier.grow(copy, end, end * self._token_bytes)
        self.tier.insert_all(new, tokens * self._token_bytes)

    def _stored(self, target: Place, copies: Copies, size: int, leaving: bool) -> None:
        self.arriving()
        self.copying -= 1
        self.leaving -= leaving
        tier = target.tier
        tier.counters.stored_bytes += size
        copies.land()
        tier.unpin_all(copies.copies)
        self.tier.unpin_all(copies.kept(leaving))
        if target.offload.hears_filled:
            target.filled([copy for copy in reversed(copies.copies) if copy.ready == copy.tokens])
        self._tell_others(tier)
        if self._held_back and not self.leaving:
            held_back, self._held_back = self._held_back, []
            for submit in held_back:
                submit()
        self.woken()

    def _tell_others(self, tier: Tier) -> None:
        """Wake the replicas that share the tier: what their queues wait for may have come or gone."""
        if not any(tier.queues):
            return
        for (waiting, loaded, stalled), wake in tier.listeners:
            if (waiting or loaded or stalled) and wake != self.woken:
                wake()

    # ---- toward the GPU

    def receive(self, source: Block, size: int) -> list[Block]:
        """Memory here for copies of the first `size` bytes of a block that comes from behind, pinned: one, or as many
        as make up a larger block. Left out is what may not enter, is here already, or has no room."""
        copies: list[Block] = []
        if not self.inclusive or (source.members is None and source.key in self.tier.blocks):
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
        if self.inclusive:
            tier.unpin_all(blocks)
            return
        for block in blocks:
            tier.unpin(block)
            if not block.pins and tier.blocks.get(block.key) is block:
                tier.drop(block)
                tier.counters.moved_bytes += block.size


class Behind(NamedTuple):
    """A tier behind another one, and the way there.

    near   the way for what host memory holds too, which then need not be read from a disk or a network again
    """

    place: Place
    route: Route
    near: Route | None = None
