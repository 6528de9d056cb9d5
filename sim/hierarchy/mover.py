"""Copies toward the HBM of one replica, from any tier behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from policies.base import Block
from sim.engine.sequence import Sequence as Seq
from sim.hierarchy.batches import Batches
from sim.hierarchy.place import Place
from sim.hierarchy.route import PIPELINE_GROUPS, Route, send
from sim.hierarchy.sizes import cut
from sim.hierarchy.tier import Tier


class Source(NamedTuple):
    """A tier behind HBM as this replica loads from it.

    route   the links from it to HBM
    into    the ways from it to the tiers between it and HBM, by level; for fetches ahead of need
    stop    the tier between the first and the second link, which may keep a copy of what passes; None for a bounce
            buffer, and for a route of one link
    """

    place: Place
    route: Route
    stop: Place | None
    into: Mapping[int, Route]


class Load(NamedTuple):
    """A block of a tier behind HBM, the HBM blocks that its tokens go to, and the bytes that are moved for them.

    A tier moves whole blocks of its own (`Tier.block_tokens`), also where HBM has a part of one already.
    """

    source: Block
    targets: list[Block]
    size: int


class Mover:
    """Executes loads into HBM; `here` is HBM with its moves away.

    loaded    called with a sequence whose last load has arrived
    """

    def __init__(self, here: Place, sources: Sequence[Source]) -> None:
        self.loads = 0
        """Loads queued or in flight."""
        self.loaded: Callable[[Seq], None] = lambda _seq: None
        self.here = here
        self._sources = tuple(sources)

    @property
    def copying(self) -> int:
        """Copies toward and away from HBM, queued or in flight."""
        return self.loads + self.here.copying

    @property
    def leaving(self) -> int:
        """Transfers that carry blocks evicted from HBM, whose memory cannot be used yet."""
        return self.here.leaving

    def load(self, seq: Seq, level: int, loads: Sequence[Load]) -> None:
        """Make copies of pinned blocks of the tier at `level` (1: next to HBM) in HBM, for `seq`.

        No copy is queued before evicted blocks have left the memory that it goes to. A source that is itself on its
        way to its tier is waited for, not fetched again.
        """
        place = self._sources[level - 1].place
        ready: list[Load] = []
        coming: list[Load] = []
        for load in loads:
            source, targets, size = load
            seq.pending += len(targets)
            if source.ahead:
                place.tier.used_ahead(source)
            source.uses += 1
            place.tier.counters.loaded_bytes += size
            for block in targets:
                block.waiters = [seq]
            (ready if source.waiters is None else coming).append(load)
        if ready:
            self._fetch(level, ready)
        for load in coming:
            self.loads += 1
            assert load.source.waiters is not None
            load.source.waiters.append(partial(self.here.when_free, self._sending(level, [load], [()])))
        if place.offload.hears_hit:
            place.hit([load.source for load in loads])

    def _fetch(self, level: int, loads: Sequence[Load]) -> None:
        stop = self._sources[level - 1].stop
        self.loads += 1
        if stop is None:
            self.here.when_free(self._sending(level, loads, [()] * len(loads)))
            return
        copies = [stop.receive(load.source, load.size) for load in loads]
        submit = self._sending(level, loads, copies)
        if any(copies):
            submit = partial(stop.when_free, submit)
        self.here.when_free(submit)

    def _sending(self, level: int, loads: Sequence[Load], copies: Sequence[Sequence[Block]]) -> Callable[[], None]:
        """What queues the loads; `copies` of each stay at the stop on their way."""
        place, route, stop, _ = self._sources[level - 1]

        def passed(item: int) -> None:
            if stop is not None:
                stop.tier.counters.passed_bytes += loads[item].size - sum(copy.size for copy in copies[item])
                for copy in copies[item]:
                    stop.received(copy)

        done = partial(self._arrived, level, loads, copies)
        sizes = [load.size for load in loads]
        slow: list[int] = []
        if place.tier.page_locked is not None:
            slow = [load.source.pageable * load.size // load.source.size for load in loads]
        elif stop is not None and stop.tier.page_locked is not None:
            slow = [sum(copy.pageable for copy in kept) for kept in copies]
        return partial(send, route, sizes, "load", done, passed, groups=PIPELINE_GROUPS, pageable=slow)

    def fetch(self, keys: Sequence[int], into: int, done: Callable[[], None], batches: Batches) -> None:
        """Copy blocks of a prefix that lie behind the tier at level `into` into it; `done()` when all have arrived, or
        no more will come.

        What `into` or a nearer tier has, or is receiving, is skipped; the first block that no tier has ends the fetch.
        What `into` has of the prefix stays there until the rest has come, and room is made for that elsewhere.
        """
        self.here.arriving()  # what HBM has now depends on the memory that the steps begun so far have taken
        wanted, kept = self._behind(keys, into)
        left = len(wanted)
        if not left:
            done()
            return
        target = self._tier(into)
        for block in kept:
            target.pin(block)
        for level, sources in wanted.items():
            for source in sources:  # all of them before room is made for the first: what leaves `into` may go there
                self._tier(level).pin(source)

        def one_done() -> None:
            nonlocal left
            left -= 1
            if not left:
                target.unpin_all(reversed(kept))
                done()

        for level, sources in wanted.items():
            bring = partial(self._bring, level, into) if into else partial(self._bring_to_hbm, level)
            batches.run(self._tier(level), sources, bring, one_done)

    def _tier(self, level: int) -> Tier:
        return self._sources[level - 1].place.tier if level else self.here.tier

    def _behind(self, keys: Sequence[int], into: int) -> tuple[dict[int, list[Block]], list[Block]]:
        """The blocks to fetch, by the level that has them nearest, and those of the prefix that `into` has."""
        nearer = [self._tier(level).covering_each(keys) for level in range(into + 1)]
        wanted: dict[int, list[Block]] = {}
        kept: list[Block] = []
        for index, near in enumerate(zip(*nearer, strict=True)):
            here = near[into]
            if here is not None and here not in kept[-1:]:
                kept.append(here)
            if near.count(None) < len(near):
                continue
            for level in range(into + 1, len(self._sources) + 1):
                block = self._sources[level - 1].place.tier.covering(keys, index)
                if block is not None and block.ready == block.tokens:
                    found = wanted.setdefault(level, [])
                    if block not in found[-1:]:
                        found.append(block)
                    break
            else:
                break
        return wanted, kept

    def _bring(self, level: int, into: int, sources: list[Block], done: Callable[[bool], None]) -> None:
        """Pinned sources into a tier behind HBM, as far as it admits the blocks and has room; `done(all of them?)`."""
        place, target = self._sources[level - 1].place, self._sources[into - 1].place
        pairs: list[tuple[Block, list[Block]]] = []
        for source in sources:
            copies = target.receive(source, source.size)
            if not copies:
                break  # a prefix with a gap is of no use
            self._fetched(place.tier, source, target.tier, copies)
            pairs.append((source, copies))
        for source in reversed(sources[len(pairs) :]):
            place.tier.unpin(source)
        if not pairs:
            done(False)
            return
        self.loads += 1

        def arrived() -> None:
            self.loads -= 1
            place.give_up([source for source, _ in reversed(pairs)])
            came: list[Block] = []
            for source, copies in reversed(pairs):
                target.tier.counters.passed_bytes += source.size - sum([copy.size for copy in copies])
                for copy in copies:
                    target.received(copy)
                came += reversed(copies)
            target.tier.unpin_all(came)
            target.filled([copy for _, copies in pairs for copy in copies])
            done(len(pairs) == len(sources))
            self.here.woken()

        sizes = [source.size for source, _ in pairs]
        route = self._sources[level - 1].into[into]
        target.when_free(partial(send, route, sizes, "prefetch", arrived))

    def _bring_to_hbm(self, level: int, sources: list[Block], done: Callable[[bool], None]) -> None:
        """Pinned sources into HBM, as far as room can be made; whoever looks them up meanwhile waits for them."""
        place, route, stop, _ = self._sources[level - 1]
        hbm = self.here.tier
        pairs: list[tuple[Block, list[Block]]] = []
        for source in sources:
            copies = [copy for copy in cut(source, hbm, source.size) if copy.key not in hbm.blocks]
            size = sum(copy.size for copy in copies)
            if not self.here.make_room(size):
                break
            for block in copies:
                block.pins = 1
                block.waiters = []
            hbm.insert_all(copies, size)
            hbm.counters.stored_bytes += size
            self._fetched(place.tier, source, hbm, copies)
            pairs.append((source, copies))
        for source in reversed(sources[len(pairs) :]):
            place.tier.unpin(source)
        if not pairs:
            done(False)
            return
        self.loads += 1

        def arrived() -> None:
            self.here.arriving()
            self.loads -= 1
            place.give_up([source for source, _ in reversed(pairs)])
            came = [block for _, copies in reversed(pairs) for block in reversed(copies)]
            for block in came:
                self._ready(block, level)
            hbm.unpin_all(came)
            done(len(pairs) == len(sources))
            self.here.woken()

        def passed(item: int) -> None:
            if stop is not None:
                stop.tier.counters.passed_bytes += pairs[item][0].size

        sizes = [source.size for source, _ in pairs]
        slow = [source.pageable for source, _ in pairs]
        submit = partial(send, route, sizes, "prefetch", arrived, passed, groups=PIPELINE_GROUPS, pageable=slow)
        self.here.when_free(submit)

    def _fetched(self, tier: Tier, source: Block, target: Tier, copies: Sequence[Block]) -> None:
        """Keep the accounts of a block that a fetch brings from `tier` to `target`, where it leaves `copies`."""
        tier.used_ahead(source)
        source.sent = True
        tier.counters.loaded_bytes += source.size
        for copy in copies:
            target.brought_ahead(copy)
        target.counters.prefetched_bytes += source.size - sum(copy.size for copy in copies)

    def _ready(self, block: Block, level: int) -> None:
        """The block's bytes are in HBM, from the tier at `level`: tell the sequences that wait for it."""
        block.ready = block.tokens
        waiters, block.waiters = block.waiters, None
        for seq in waiters or ():
            assert isinstance(seq, Seq)
            seq.pending -= 1
            if not seq.pending:
                seq.last_level = level
                self.loaded(seq)

    def join(self, seq: Seq, block: Block) -> None:
        """Wait for a block that is on its way already; it is not fetched twice."""
        if block.waiters is not None:
            block.waiters.append(seq)
            seq.pending += 1

    def _arrived(self, level: int, loads: Sequence[Load], copies: Sequence[Sequence[Block]]) -> None:
        place, _, stop, _ = self._sources[level - 1]
        self.here.arriving()
        self.loads -= 1
        place.give_up([load.source for load in reversed(loads)])
        if stop is not None:
            stop.tier.unpin_all([copy for kept in reversed(copies) for copy in reversed(kept)])
        for load in reversed(loads):
            for block in reversed(load.targets):
                self._ready(block, level)
        if stop is not None:
            stop.filled([copy for kept in copies for copy in kept])
        self.here.woken()
