"""`cache.html`: hit ratio against capacity, of `kvsim cache TRACE`."""

from collections.abc import Sequence

from hw_profiles.units import format_count, text_tokens
from reports.document import Section, document
from reports.figures.hit_curve import hit_curves, ratio, share
from reports.text import NBSP, number
from sim.cache.study import BELADY, BOUNDS, RATIOS, UNBOUNDED, Row, Study

MOST = 0.9
"""Share of the unbounded cache's hits that the headline asks a capacity for."""


def render(study: Study) -> str:
    """The whole report of `study` as one HTML document."""
    return document(
        "cache.html.j2",
        trace=study.trace,
        facts=facts(study),
        headline=headline(study),
        tiles=tiles(study),
        sections=sections(study),
        tables=[("hit-ratio", "Hit ratio, % of input tokens"), ("block-hit-ratio", "Block hit ratio, % of accesses")],
        columns=columns(study),
        rows={key: [_cells(row, key) for row in grid(study)] for key in ("hit-ratio", "block-hit-ratio")},
        notes=notes(study),
    )


def sections(study: Study) -> list[Section]:
    """Every section with figures, in the order of the page."""
    return [Section("curves", "Hit ratio by capacity", hit_curves(study))]


def columns(study: Study) -> list[str]:
    """The policies of a table, belady last if it was not asked for."""
    extra = [BELADY] if study.belady and BELADY not in study.policies else []
    return [*study.policies, *extra]


def grid(study: Study) -> list[tuple[str, list[Row]]]:
    """A table of capacities by policies: (capacity in words, a row for each of `columns`), unbounded last."""
    curves = [study.curve(name) for name in columns(study)]
    finite = [(text_tokens(rows[0].capacity_tokens or 0), list(rows)) for rows in zip(*curves, strict=True)]
    ceilings = {row.policy: row for row in study.ceilings}
    return [*finite, (UNBOUNDED, [ceilings.get(name, study.unbounded) for name in columns(study)])]


def headline(study: Study) -> str:
    """The least capacity with most of the hits that are possible, or how far the largest one gets."""
    ceiling = study.unbounded.hit_ratio
    limit = f"an unbounded cache reaches {share(ceiling)}"
    names = [name for name in study.policies if name != BELADY] or [BELADY]
    curves = [study.curve(name) for name in names]
    if ceiling == 0:
        return "No prompt of this trace repeats the start of another one"
    if not curves[0]:
        return f"{limit[0].upper()}{limit[1:]} of input tokens"
    best = [max(rows, key=lambda row: row.hit_ratio) for rows in zip(*curves, strict=True)]
    row = next((row for row in best if row.hit_ratio >= MOST * ceiling), best[-1])
    size = text_tokens(row.capacity_tokens or 0)
    return (
        f"{size} with {row.policy} reach a hit ratio of {share(row.hit_ratio)}; {limit}, "
        f"so this is {share(row.hit_ratio / ceiling)} of what can be had"
    )


def facts(study: Study) -> list[tuple[str, str]]:
    """What identifies the study: (label, value), in reading order."""
    return [
        ("requests", number(study.requests)),
        ("input tokens", number(study.input_tokens)),
        ("block", f"{study.block_tokens}{NBSP}tokens"),
        ("block accesses", number(study.accesses)),
        ("policies", number(len(study.policies))),
    ]


def tiles(study: Study) -> list[tuple[str, str, str]]:
    """The few numbers people look for first: (label, value, what it is)."""
    held = format_count(study.distinct_blocks * study.block_tokens).replace(" ", NBSP)
    return [
        ("Unbounded", share(study.unbounded.hit_ratio), "of input tokens hit"),
        ("Unbounded, blocks", share(study.unbounded.block_hit_ratio), "of block accesses hit"),
        ("Distinct blocks", number(study.distinct_blocks), f"room for {held}tok holds them all"),
    ]


def notes(study: Study) -> list[str]:
    """How the figures are counted, one sentence or two each."""
    return [
        RATIOS,
        BOUNDS,
        f"A capacity holds floor(tokens / {study.block_tokens}) blocks; a partial last block takes a whole one and is "
        "hit by its id.",
        "A request is looked up whole; then its blocks are used one by one, children before parents: touched if "
        "resident, else inserted, which may evict any block, another one of the same request included. Nothing is "
        "pinned, output is not stored, and there is no time: copies and computing are instantaneous.",
    ]


def _cells(row: tuple[str, Sequence[Row]], key: str) -> tuple[str, list[str]]:
    return row[0], [f"{100 * ratio(cell, key):.2f}" for cell in row[1]]
