"""`cache.html` of a hierarchy: regret by policy of `kvsim cache SCENARIO`."""

from hw_profiles.units import format_count
from reports.document import Section, document
from reports.figures.regret import regret_figures, surplus
from reports.tables import TextTable
from reports.text import NBSP, number, seconds, tier_label
from sim.cache.bound import DEFINITION
from sim.cache.regret import SCENARIO, STILL, PolicyRow, Regret
from sim.cache.study import BELADY


def render(study: Regret) -> str:
    """The whole report of `study` as one HTML document."""
    return document(
        "regret.html.j2",
        scenario=study.scenario,
        trace=study.trace,
        facts=facts(study),
        headline=headline(study),
        tiles=tiles(study),
        sections=sections(study),
        notes=notes(study),
    )


def sections(study: Regret) -> list[Section]:
    """Every section with figures and tables, in the order of the page."""
    return [
        Section("regret", "Regret by policy", regret_figures(study), [policy_table(study)]),
        Section("bound", "The bound", [], [tier_table(study)]),
    ]


def headline(study: Regret) -> str:
    """The policy nearest to the bound; belady, which nobody can deploy, only where there is no other."""
    best, _ = extremes(study)
    who = "The scenario as it is" if best.policy == SCENARIO else best.policy
    return (
        f"{who} needs {surplus(best.regret)} more than the least possible, "
        f"{exact(study.bound.seconds)} s of loading and computing"
    )


def extremes(study: Regret) -> tuple[PolicyRow, PolicyRow]:
    """The rows of least and of most regret, belady aside."""
    rows = [row for row in study.rows if row.policy != BELADY] or study.rows
    return min(rows, key=lambda row: row.regret), max(rows, key=lambda row: row.regret)


def exact(value: float) -> str:
    """Seconds with five digits: policies often differ by less than the first three show."""
    return number(float(value), 5)


def facts(study: Regret) -> list[tuple[str, str]]:
    """What identifies the study: (label, value), in reading order."""
    left_out = [("left out, too long", number(study.left_out))] if study.left_out else []
    return [
        ("trace", study.trace),
        ("requests", number(study.requests)),
        *left_out,
        ("input tokens", number(study.input_tokens)),
        *((tier_label(tier.name), tokens(tier.capacity_tokens)) for tier in study.tiers),
    ]


def tiles(study: Regret) -> list[tuple[str, str, str]]:
    """The few numbers people look for first: (label, value, what it is)."""
    best, worst = extremes(study)
    return [
        ("Bound", f"{exact(study.bound.seconds)}{NBSP}s", "no policy needs less"),
        ("First use", f"{exact(study.bound.first_s)}{NBSP}s", "of computing, the same for all"),
        ("Least regret", surplus(best.regret), best.policy),
        ("Most regret", surplus(worst.regret), worst.policy),
    ]


def columns(study: Regret) -> list[str]:
    """Headings of the table of policies."""
    tiers = [tier_label(tier.name) for tier in study.tiers]
    return ["policy", *tiers, "computed", "load, s", "compute, s", "both, s", "regret"]


def cells(study: Regret, row: PolicyRow) -> list[str]:
    """A row of the table of policies: shares of input tokens, then seconds, then the regret."""
    hits = [row.hit_tokens[tier.name] for tier in study.tiers]
    shares = [share(count, study.input_tokens) for count in (*hits, row.computed_tokens)]
    spent = [exact(value) for value in (row.load_s, row.compute_s, row.seconds)]
    return [row.policy, *shares, *spent, surplus(row.regret)]


def bound_cells(study: Regret) -> list[str]:
    """The last row of the table of policies."""
    return ["bound", *[""] * (len(study.tiers) + 3), exact(study.bound.seconds), ""]


def tokens(count: int) -> str:
    """`3.51 Mtok`."""
    return f"{format_count(count)}{'' if count >= 1000 else ' '}tok".replace(" ", NBSP)


def share(part: int, whole: int) -> str:
    """Part of the whole in per cent with one decimal."""
    return f"{100 * part / whole:.1f}{NBSP}%"


def policy_table(study: Regret) -> TextTable:
    """One row per policy, and the bound below them."""
    heads = columns(study)
    return TextTable(
        "policies",
        "Policies",
        "Prompt tokens by the tier that served them, the seconds that loading them and computing the others take, and "
        "how much more that is than the bound.",
        [head[0].upper() + head[1:] for head in heads],
        [*(cells(study, row) for row in study.rows), bound_cells(study)],
        tuple(range(1, len(heads))),
    )


def tier_table(study: Regret) -> TextTable:
    """What tiers hold and cost, and the steps of the bound."""
    rows = [
        (
            tier_label(tier.name),
            tokens(tier.capacity_tokens),
            seconds(1000 * tier.load_s_per_token) if tier.load_s_per_token else "0",
            tokens(step.capacity),
            tokens(step.missed),
            exact(step.seconds),
        )
        for tier, step in zip(study.tiers, study.bound.steps, strict=True)
    ]
    cheap, dear = (seconds(1000 * price) for price in (study.prices.compute_s[0], study.prices.compute_s[-1]))
    return TextTable(
        "steps",
        "Tiers and what they cannot hold",
        f"Computing 1,000 tokens takes {cheap} at the start of a prompt and {dear} at the end of the longest. The "
        f"bound is {exact(study.bound.first_s)} s for what is used first, and the sum of the last column.",
        ("Tier", "Holds", "1,000 tokens from it", "Up to it", "Missed at least", "Costs at least, s"),
        rows,
        (1, 2, 3, 4, 5),
        (
            ("Holds", "KV tokens, over all replicas and nodes."),
            ("1,000 tokens from it", "Seconds to load them, as a part of a long load over an idle route."),
            ("Up to it", "KV tokens that this tier and those nearer to the GPU hold together."),
            ("Missed at least", "Tokens used before that a cache of that size, knowing the future, cannot have kept."),
            ("Costs at least, s", "What those cost more from the next tier, or computed, than from this one."),
        ),
    )


def notes(study: Regret) -> list[str]:
    """How the figures are counted."""
    ahead = [f"The scenario's prefetch policy, {study.prefetch}, has no part in this."] if study.prefetch else []
    return [DEFINITION, STILL, *ahead]
