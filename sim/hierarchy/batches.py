"""A fetch that its request may end: blocks that come in batches, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from policies.base import Block
from sim.hierarchy.tier import Tier

BATCH_PAGES = 128
"""Engine blocks that a fetch asks for at once, where its request may end it.

Source: SGLang, mem_cache/hicache_storage.py (STORAGE_BATCH_SIZE) and managers/cache_controller.py (_page_transfer:
before each batch it looks whether the fetch has been ended; what earlier batches brought counts).
"""


class Batches:
    """Says how a fetch is cut, and whether it goes on. `tokens`: of a batch, at least; None: all at once."""

    def __init__(self, tokens: int | None = None) -> None:
        self._tokens = tokens
        self._ended = False

    def end(self) -> None:
        """No batch is begun any more; the one on its way still arrives."""
        self._ended = True

    def run(
        self,
        tier: Tier,
        sources: Sequence[Block],
        bring: Callable[[list[Block], Callable[[bool], None]], None],
        done: Callable[[], None],
    ) -> None:
        """`bring(batch, then)` pinned blocks of `tier`, batch by batch; `done()` when no more will come.

        `then` is told whether all of the batch came: what lies behind a gap is of no use. What is left is unpinned.
        """
        left = self._cut(sources)

        def go_on(whole: bool) -> None:
            if left and whole and not self._ended:
                bring(left.pop(0), go_on)
                return
            for batch in reversed(left):
                for source in reversed(batch):
                    tier.unpin(source)
            left.clear()
            done()

        go_on(True)

    def _cut(self, sources: Sequence[Block]) -> list[list[Block]]:
        if self._tokens is None:
            return [list(sources)]
        batches: list[list[Block]] = []
        held = self._tokens
        for source in sources:
            if held >= self._tokens:
                batches.append([])
                held = 0
            batches[-1].append(source)
            held += source.tokens
        return batches
