"""What a cache of pages has to recall while scores change: ArkVale's replacement, replayed over scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]


def recalls(scores: Floats, selected: int, cached: Sequence[int]) -> list[float]:
    """Pages per layer and step that are among the `selected` best and not in the cache, for each size of `cached`.

    scores: [steps, layers, pages]; the cache begins with the best pages of the first step, which is not counted.
    A page that was not there a step before (-inf) is made, not recalled. A missing page takes the place of the worst
    cached page that is not selected (ArkVale, NeurIPS'24, section 4); so of two sizes the larger cache holds all that
    the smaller one does, and never recalls more.
    Sizes are pages, each at least `selected`.
    """
    steps, layers, pages = scores.shape
    sizes = sorted({size for size in cached if selected <= size < pages})
    if steps < 2 or selected >= pages or not sizes:
        return [0.0] * len(cached)
    scores = _in_play(scores, selected, sizes[-1])
    caches = [_Cache(scores[0], size) for size in sizes]
    for step in range(1, steps):
        now = scores[step]
        wanted = _best(now, selected)
        old = np.isfinite(np.take_along_axis(scores[step - 1], wanted, axis=1))
        for cache in caches:
            if not cache.take(now, wanted, old):  # then a larger cache misses nothing either
                break
    counts = {cache.size: cache.recalls for cache in caches}
    return [counts.get(size, 0) / (layers * (steps - 1)) for size in cached]


class _Cache:
    """One size of cache in every layer: places [layers, size] of its pages, and who is in it [layers, pages]."""

    def __init__(self, scores: Floats, size: int) -> None:
        self.size = size
        self.places = _best(scores, size)
        self.held = np.zeros(scores.shape, dtype=np.bool_)
        np.put_along_axis(self.held, self.places, True, axis=1)
        self.recalls = 0

    def take(self, now: Floats, wanted: Places, old: Mask) -> bool:
        """Bring in what is wanted and missing; False if nothing was. `old`: which of `wanted` may be recalled."""
        missing = ~np.take_along_axis(self.held, wanted, axis=1)
        rows = np.flatnonzero(missing.any(axis=1))
        if not len(rows):
            return False
        self.recalls += int((missing & old).sum())
        chosen, places = wanted[rows], self.places[rows]
        used = np.zeros((len(rows), now.shape[1]), dtype=np.bool_)
        np.put_along_axis(used, chosen, True, axis=1)
        worth = np.take_along_axis(now[rows], places, axis=1)
        worth[np.take_along_axis(used, places, axis=1)] = -np.inf  # they come in with `chosen`
        kept = np.take_along_axis(places, _best(worth, self.size - chosen.shape[1]), axis=1)
        new = np.concatenate([kept, chosen], axis=1)
        inside = np.zeros_like(used)
        np.put_along_axis(inside, new, True, axis=1)
        self.held[rows], self.places[rows] = inside, new
        return True


def _in_play(scores: Floats, selected: int, cached: int) -> Floats:
    """The scores of the pages that are ever selected or cached in some layer: the same recalls from fewer columns."""
    pages = scores.shape[2]
    if pages < 4 * cached:
        return scores
    used = np.zeros(scores.shape[1:], dtype=np.bool_)
    np.put_along_axis(used, _best(scores[0], cached), True, axis=1)
    for now in scores[1:]:
        np.put_along_axis(used, _best(now, selected), True, axis=1)
    width = int(used.sum(axis=1).max())
    order = np.argsort(~used, axis=1, kind="stable")[:, :width]
    filled = np.take_along_axis(used, order, axis=1)
    return np.where(filled, np.take_along_axis(scores, order[None], axis=2), np.float32(-np.inf))


def _best(scores: Floats, count: int) -> Places:
    """Places of the `count` highest scores of each row, in no order."""
    if not count:
        return np.empty((len(scores), 0), dtype=np.intp)
    return np.argpartition(scores, scores.shape[1] - count, axis=1)[:, scores.shape[1] - count :]
