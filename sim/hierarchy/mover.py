"""Copies toward the HBM of one replica, from any tier behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from policies.base import Block
from sim.engine.sequence import Sequence as Seq
from sim.hierarchy.place import Place
from sim.hierarchy.route import PIPELINE_GROUPS, Route, send
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

    def load(self, seq: Seq, level: int, sources: list[Block], targets: list[Block]) -> None:
        """Copy pinned `sources` of the tier at `level` (1: next to HBM) into HBM blocks `targets`, for `seq`.

        No copy is queued before evicted blocks have left the memory that it goes to. A source that is itself on its
        way to its tier is waited for, not fetched again.
        """
        place, route, _, _ = self._sources[level - 1]
        seq.pending += len(targets)
        for original, block in zip(sources, targets, strict=True):
            place.tier.used_ahead(original)
            original.uses += 1
            block.waiters = [seq]
            place.tier.counters.loaded_bytes += block.size
        ready = [pair for pair in zip(sources, targets, strict=True) if pair[0].waiters is None]
        if ready:
            self._fetch(level, [s for s, _ in ready], [t for _, t in ready])
        for source, target in zip(sources, targets, strict=True):
            if source.waiters is not None:
                self.loads += 1
                done = partial(self._arrived, level, [source], [target], [None])
                source.waiters.append(partial(self.here.when_free, partial(send, route, [target.size], "load", done)))
        place.hit(sources)

    def _fetch(self, level: int, sources: list[Block], targets: list[Block]) -> None:
        _, route, stop, _ = self._sources[level - 1]
        copies: list[Block | None] = [None] * len(sources)
        if stop is not None:
            copies = [stop.receive(s, t.tokens) for s, t in zip(sources, targets, strict=True)]

        def passed(item: int) -> None:
            copy = copies[item]
            if stop is None:
                return
            if copy is None:
                stop.tier.counters.passed_bytes += targets[item].size
            else:
                stop.received(copy)

        sizes = [target.size for target in targets]
        self.loads += 1
        done = partial(self._arrived, level, sources, targets, copies)
        submit = partial(send, route, sizes, "load", done, passed, groups=PIPELINE_GROUPS)
        if stop is not None and any(copy is not None for copy in copies):
            submit = partial(stop.when_free, submit)
        self.here.when_free(submit)

    def fetch(self, keys: Sequence[int], into: int, done: Callable[[], None]) -> None:
        """Copy blocks of a prefix that lie behind the tier at level `into` into it; `done()` when all have arrived.

        What `into` or a nearer tier has, or is receiving, is skipped; the first block that no tier has ends the fetch.
        What `into` has of the prefix stays there until the rest has come, and room is made for that elsewhere.
        """
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
                for block in reversed(kept):
                    target.unpin(block)
                done()

        for level, sources in wanted.items():
            if into:
                self._bring(level, into, sources, one_done)
            else:
                self._bring_to_hbm(level, sources, one_done)

    def _tier(self, level: int) -> Tier:
        return self._sources[level - 1].place.tier if level else self.here.tier

    def _behind(self, keys: Sequence[int], into: int) -> tuple[dict[int, list[Block]], list[Block]]:
        """The blocks to fetch, by the level that has them nearest, and those of the prefix that `into` has."""
        nearer = [self._tier(level) for level in range(into + 1)]
        wanted: dict[int, list[Block]] = {}
        kept: list[Block] = []
        for key in keys:
            if key in nearer[into].blocks:
                kept.append(nearer[into].blocks[key])
            if any(key in tier.blocks for tier in nearer):
                continue
            for level in range(into + 1, len(self._sources) + 1):
                block = self._sources[level - 1].place.tier.blocks.get(key)
                if block is not None and block.ready == block.tokens:
                    wanted.setdefault(level, []).append(block)
                    break
            else:
                break
        return wanted, kept

    def _bring(self, level: int, into: int, sources: list[Block], done: Callable[[], None]) -> None:
        """Pinned sources into a tier behind HBM, as far as it admits the blocks and has room."""
        place, target = self._sources[level - 1].place, self._sources[into - 1].place
        pairs: list[tuple[Block, Block]] = []
        for source in sources:
            copy = target.receive(source, source.tokens)
            if copy is None:
                break  # a prefix with a gap is of no use
            self._fetched(place.tier, source, target.tier, copy)
            pairs.append((source, copy))
        for source in reversed(sources[len(pairs) :]):
            place.tier.unpin(source)
        if not pairs:
            done()
            return
        self.loads += 1

        def arrived() -> None:
            self.loads -= 1
            for source, copy in reversed(pairs):
                place.give_up([source])
                target.received(copy)
                target.tier.unpin(copy)
            target.filled([copy for _, copy in pairs])
            done()
            self.here.woken()

        sizes = [copy.size for _, copy in pairs]
        route = self._sources[level - 1].into[into]
        target.when_free(partial(send, route, sizes, "prefetch", arrived))

    def _bring_to_hbm(self, level: int, sources: list[Block], done: Callable[[], None]) -> None:
        """Pinned sources into HBM, as far as room can be made; whoever looks them up meanwhile waits for them."""
        place, route, stop, _ = self._sources[level - 1]
        hbm = self.here.tier
        pairs: list[tuple[Block, Block]] = []
        for source in sources:
            if not self.here.make_room(source.size):
                break
            block = Block(source.key, source.start, source.tokens, source.size, 0, source.parent, source.turn)
            block.pins = 1
            block.waiters = []
            hbm.insert(block)
            hbm.counters.stored_bytes += block.size
            self._fetched(place.tier, source, hbm, block)
            pairs.append((source, block))
        for source in reversed(sources[len(pairs) :]):
            place.tier.unpin(source)
        if not pairs:
            done()
            return
        self.loads += 1

        def arrived() -> None:
            self.here.arriving()
            self.loads -= 1
            for source, block in reversed(pairs):
                place.give_up([source])
                self._ready(block)
                hbm.unpin(block)
            done()
            self.here.woken()

        def passed(item: int) -> None:
            if stop is not None:
                stop.tier.counters.passed_bytes += pairs[item][1].size

        sizes = [block.size for _, block in pairs]
        self.here.when_free(partial(send, route, sizes, "prefetch", arrived, passed, groups=PIPELINE_GROUPS))

    def _fetched(self, tier: Tier, source: Block, target: Tier, copy: Block) -> None:
        """Keep the accounts of a block that a fetch brings from `tier` to `target`."""
        tier.used_ahead(source)
        source.sent = True
        tier.counters.loaded_bytes += copy.size
        target.brought_ahead(copy)

    def _ready(self, block: Block) -> None:
        """The block's bytes are in HBM: tell the sequences that wait for it."""
        block.ready = block.tokens
        waiters, block.waiters = block.waiters, None
        for seq in waiters or ():
            assert isinstance(seq, Seq)
            seq.pending -= 1
            if not seq.pending:
                self.loaded(seq)

    def join(self, seq: Seq, block: Block) -> None:
        """Wait for a block that is on its way already; it is not fetched twice."""
        if block.waiters is not None:
            block.waiters.append(seq)
            seq.pending += 1

    def _arrived(self, level: int, sources: list[Block], targets: list[Block], copies: list[Block | None]) -> None:
        place, _, stop, _ = self._sources[level - 1]
        self.here.arriving()
        self.loads -= 1
        for source, block, copy in zip(reversed(sources), reversed(targets), reversed(copies), strict=True):
            place.give_up([source])
            if copy is not None and stop is not None:
                stop.tier.unpin(copy)
            self._ready(block)
        if stop is not None:
            stop.filled([copy for copy in copies if copy is not None])
        self.here.woken()
