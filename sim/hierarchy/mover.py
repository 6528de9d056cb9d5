"""Copies toward the HBM of one replica, from any tier behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from policies.base import Block
from sim.engine.sequence import Sequence as Seq
from sim.hierarchy.place import Place
from sim.hierarchy.route import PIPELINE_GROUPS, Route, send


class Source(NamedTuple):
    """A tier behind HBM as this replica loads from it.

    route   the links from it to HBM
    stop    the tier between the first and the second link, which may keep a copy of what passes; None for a bounce
            buffer, and for a route of one link
    """

    place: Place
    route: Route
    stop: Place | None


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
        place, route, _ = self._sources[level - 1]
        seq.pending += len(targets)
        for original, block in zip(sources, targets, strict=True):
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
        _, route, stop = self._sources[level - 1]
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

    def join(self, seq: Seq, block: Block) -> None:
        """Wait for a block that is on its way already; it is not fetched twice."""
        if block.waiters is not None:
            block.waiters.append(seq)
            seq.pending += 1

    def _arrived(self, level: int, sources: list[Block], targets: list[Block], copies: list[Block | None]) -> None:
        place, _, stop = self._sources[level - 1]
        self.here.arriving()
        self.loads -= 1
        for source, block, copy in zip(reversed(sources), reversed(targets), reversed(copies), strict=True):
            place.give_up([source])
            if copy is not None and stop is not None:
                stop.tier.unpin(copy)
            block.ready = block.tokens
            waiters, block.waiters = block.waiters, None
            for seq in waiters or ():
                assert isinstance(seq, Seq)
                seq.pending -= 1
                if not seq.pending:
                    self.loaded(seq)
        if stop is not None:
            stop.filled([copy for copy in copies if copy is not None])
        self.here.woken()
