"""Hits of a cache of the most often selected blocks of tokens, replayed over recorded scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def hits(scores: npt.NDArray[np.float32], selected: int, blocks: int, pages_per_block: int) -> float:
    """Share of the `selected` best pages of each step that are in the cache of `blocks` blocks.

    scores: [layer, step, page] without ties. At the end of each step the blocks selected most often so far, by pages,
    are cached (LFU; PQCache, SIGMOD'25: frequencies of the best blocks); the first step fills it and is not counted.
    """
    layers, steps, pages = scores.shape
    total = -(-pages // pages_per_block)
    if blocks >= total:
        return 1.0
    if blocks < 1:
        return 0.0
    block_of = np.arange(pages) // pages_per_block
    counts = np.zeros((layers, total))
    found = 0
    for step in range(steps):
        chosen = np.argpartition(scores[:, step], pages - selected, axis=1)[:, pages - selected :]
        places = block_of[chosen]
        if step:
            cached = np.zeros((layers, total), dtype=np.bool_)
            best = np.argsort(-counts, axis=1, kind="stable")[:, :blocks]
            np.put_along_axis(cached, best, True, axis=1)
            found += int(np.take_along_axis(cached, places, axis=1).sum())
        for layer in range(layers):
            counts[layer] += np.bincount(places[layer], minlength=total)
    return found / float(layers * (steps - 1) * selected)
