"""`compare.html`: variants side by side, written by `kvsim compare --out DIR`."""

from reports.compare_data import Compared
from reports.compare_tables import changed_table, tiers_table, verdict_table, within_tables
from reports.compare_text import COLUMNS_NOTE, cells, headline, method_lines, window_line
from reports.document import Section, document
from reports.figures.compared import distributions, goodput_figure, link_choice, parts_choice, sources
from reports.figures.differences import differences
from reports.provenance import times_of
from reports.tables import TextTable
from reports.text import number, seconds
from sim.whatif.compare import Comparison

BOUND = (
    "Variants marked (bound) have an eviction policy that knows the future of the trace: something to compare with, "
    "not something to deploy. Timing changes the order of accesses, so even these may lose on latency."
)
NOTES = (
    "Differences, not values, have intervals: variants see the same requests at the same times, so what they share "
    "cancels.",
    "Requests of a queue depend on each other. Whole blocks of time are resampled, as long as the correlation of the "
    "differences asks for and at least as long as the longest time over which a queue did not empty; the requests of a "
    "conversation stay together.",
    "At 90 %, about one metric in ten that does not differ looks as if it did. Intervals are about this load: they do "
    "not hold what the hardware profile is unsure of.",
)


def render(compared: Compared) -> str:
    """The whole comparison as one HTML document."""
    found = compared.named
    first = found.summaries[0]
    seeds = compared.variants[0].seeds
    return document(
        "compare.html.j2",
        scripts=("explore.js",),
        labels=[one.name for one in compared.variants],
        facts=[
            ("trace", str(first["trace"]["name"])),
            ("requests", number(first["requests"]["arrived"])),
            ("model", str(first["model"]["name"])),
            ("hardware", ", ".join(dict.fromkeys(str(each["hardware"]["profile"]) for each in found.summaries))),
            ("hardware times", times_of(found.summaries)),
            *((("seeds", number(seeds)),) if seeds > 1 else ()),
            *((("judged", f"after {seconds(found.since_s)}"),) if found.since_s is not None else ()),
            ("kvsim", str(first["version"])),
        ],
        headline=headline(found),
        sections=sections(compared),
        notes=[*method_lines(found), *NOTES, *([BOUND] if any(one.bound for one in compared.variants) else [])],
    )


def sections(compared: Compared) -> list[Section]:
    """Every section with figures and tables, in the order of the page."""
    found, variants = compared.named, compared.variants
    links, within = link_choice(variants), within_tables(variants)
    return [
        Section("verdict", "Verdict", [], [verdict_table(variants), changed_table(variants)]),
        Section("metrics", "Metrics", [differences(found)], [metric_table(found)]),
        Section("latency", "Latency", [*distributions(variants), goodput_figure(variants), parts_choice(variants)]),
        Section("cache", "Cache", [sources(variants)], [tiers_table(variants)]),
        *([Section("links", "Links", [links])] if links else []),
        *([Section("within", "Within a sequence", [], within)] if within else []),
    ]


def metric_table(found: Comparison) -> TextTable:
    """Every metric: value of each variant, and difference of each later one."""
    heads = ["Metric", "Unit", found.labels[0]]
    for label in found.labels[1:]:
        heads += [label, "Difference [90 %]"]
    terms = [(str(row.metric["label"]), str(row.metric["definition"])) for row in found.rows]
    rows = [cells(found, row) for row in found.rows]
    read = " ".join([*window_line(found), COLUMNS_NOTE])
    return TextTable("values", "Every metric", read, heads, rows, range(2, len(heads)), terms)
