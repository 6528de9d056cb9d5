"""Published statistics of attention, as printed."""

from __future__ import annotations

CACHED = (4, 6, 8, 12, 16, 24, 32, 40, 64, 96, 128)
"""Columns of RECALLS: pages of the cache."""

RECALLS = {
    4: (17.2, 6.5, 4.1, 2.6, 2.0, 1.6, 1.5, 1.3, 1.2, 1.0, 1.0),
    6: (25.5, 11.4, 5.2, 3.5, 2.4, 1.9, 1.7, 1.3, 1.0, 1.0),
    8: (33.8, 10.8, 6.1, 3.5, 2.6, 2.1, 1.5, 1.1, 1.0),
    12: (47.3, 18.4, 7.4, 4.7, 3.4, 2.0, 1.2, 1.1),
    16: (60.0, 16.0, 8.6, 5.7, 2.7, 1.4, 1.2),
    24: (86.2, 28.8, 15.5, 5.3, 2.1, 1.5),
    32: (106.0, 40.7, 10.2, 3.4, 2.2),
    40: (118.7, 20.9, 7.4, 5.4),
    64: (230.1, 107.6, 99.5),
}
"""Selected pages -> page loads per step by cache, for the last columns. SOURCE: ArkVale (NeurIPS'24) Fig. 4b, read:
LongChat-7B-v1.5-32k on LongBench, pages of 32 tokens, one sequence, summed over layers (inferred: 230 > 64)."""

LAYERS = 32
FLOOR = 1.0
"""Of every cell: the page that fills, 32 layers x 1/32 step (inferred); the rest are recalls."""
RESOLUTION = 0.1
"""Of the printed numbers."""


def recalls_at(selected: int, cached: int) -> float:
    """Recalls per layer and step of a cell: its value less the floor, over the layers. Raises KeyError for none."""
    row = RECALLS[selected]
    first = CACHED.index(selected)
    return (row[CACHED.index(cached) - first] - FLOOR) / LAYERS


def cells(rows: tuple[int, ...]) -> list[tuple[int, int]]:
    """(selected, cached) of the cells of `rows` that tell a recall from none."""
    found = [(k, c) for k in rows for c in CACHED[CACHED.index(k) :]]
    return [(k, c) for k, c in found if recalls_at(k, c) > 1.5 * RESOLUTION / LAYERS]
