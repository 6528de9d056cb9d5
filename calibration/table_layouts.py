"""The axes and grids that the table of ratios of a kernel may have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.fitting import Array
from calibration.points import Points
from calibration.residual_fit import Layout
from hw_profiles.kernel_groups import BASE_KV_HEADS
from hw_profiles.prefill_cost import BASE_HEADS

TILE_ROWS = 64
"""Rows of the smallest output tile of matrix products: 64 is what one wgmma instruction of Hopper computes (PTX ISA,
wgmma: M is 64), and tables show a step at every 64 rows on the other machines as well."""
NK_GRID = (
    *(256, 512, 768, 1024, 1536, 2048, 2560, 3072, 3584, 4096),
    *(5120, 6144, 7168, 8192, 10240, 12288, 16384, 65536),
)
"""Columns and depths of the tables of products: those that public tables have, and powers of two."""
AREA_GRID = np.unique(2.0 ** np.concatenate([np.arange(8, 31), np.arange(18.75, 24, 0.125)]))
AREA_STRETCH = (4.0, 1.0, 1.0)
"""Output values of a product: fine where there are a quarter of a wave to eight waves of 128 x 128 tiles on the
multiprocessors of any of the machines. What a wave leaves idle goes by the area first, by its shape after that."""


def layouts(points: Points) -> list[Layout]:
    """Layouts that the table of ratios may have, the smaller one first; none for MLA's prefill."""
    shape = points.shape
    if points.name == "gemm_bf16":
        plain = _products(points, NK_GRID)
        rows, n, k = plain.where
        grids = (AREA_GRID, *(grid for _, grid in plain.axes[1:]))
        return [plain, Layout([rows * n, n, k], list(zip(("area", "n", "k"), grids, strict=True)), AREA_STRETCH)]
    if points.kind == "gemm":
        return [_products(points, NK_GRID[1::2])]
    if points.kind == "moe":
        places = [shape[name] for name in "mnk"]
        return [Layout(places, [(name, _octave_grid(place)) for name, place in zip("mnk", places, strict=True)])]
    if points.kind == "decode":
        rows = shape["batch"] * shape["kv_heads"] / BASE_KV_HEADS
        plain = Layout([rows, shape["bytes"]], [("batch", np.unique(rows)), ("bytes", _bytes_grid(points))])
        kv_heads = np.unique(shape["kv_heads"])
        if len(kv_heads) == 1:
            return [plain]
        axes = [("kv_heads", kv_heads), ("batch", _octave_grid(rows)), ("bytes", _bytes_grid(points))]
        return [plain, Layout([shape["kv_heads"], *plain.where], axes)]
    if points.kind == "prefill":
        return [] if points.name.startswith("mla") else _prompts(points)
    return [Layout([shape["bytes"]], [("bytes", np.unique(shape["bytes"]))])]


def _products(points: Points, sizes: Sequence[int]) -> Layout:
    m, n, k = (points.shape[name] for name in "mnk")
    rows = np.where(m > TILE_ROWS, -(-m // TILE_ROWS) * TILE_ROWS, m)
    grids = [_thinned(np.unique(rows))]
    grids += [_within(sizes, axis) for axis in (n, k)]
    return Layout([rows, n, k], list(zip("mnk", grids, strict=True)))


def _prompts(points: Points) -> list[Layout]:
    shape = points.shape
    tokens, group = shape["tokens"] * shape["heads"] / BASE_HEADS, shape["heads"] / shape["kv_heads"]
    where = [shape["heads"], tokens, shape["context"], group]
    grids = [np.unique(shape["heads"]), _octave_grid(tokens), np.unique(shape["context"]), np.unique(group)]
    axes = list(zip(("heads", "tokens", "context", "group"), grids, strict=True))
    return [Layout(where[1:], axes[1:]), Layout(where, axes)]


def _thinned(values: Array) -> Array:
    """Ascending values of which each is a tenth (up to `TILE_ROWS`: a third) above the last; the ends stay."""
    kept = [values[0]]
    for value in values[1:-1]:
        if value >= (1.1 if value > TILE_ROWS else 1.3) * kept[-1]:
            kept.append(value)
    return np.array([*kept, *values[-1:]]) if len(values) > 1 else values


def _within(sizes: Sequence[int], values: Array) -> Array:
    """The sizes among the values; the values' ends where there is none."""
    inside = [x for x in sizes if values.min() <= x <= values.max()]
    return np.array(inside, dtype=np.float64) if inside else np.unique([values.min(), values.max()])


def _bytes_grid(points: Points) -> Array:
    """Powers of two where KV is cold, of four below."""
    grid = _octave_grid(points.shape["bytes"])
    cold = grid >= points.l2_bytes
    return np.concatenate([grid[~cold][::2], grid[cold]])


def _octave_grid(values: Array) -> Array:
    """Powers of two that span the values."""
    first, last = np.floor(np.log2(values.min())), np.ceil(np.log2(values.max()))
    return np.asarray(2.0 ** np.arange(first, last + 1))
