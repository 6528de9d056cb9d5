"""`plan.html`: what to buy, the runs that say so, and what they rest on; by `kvsim plan` and `kvsim report DIR`."""

from collections.abc import Sequence

from reports.document import Section, document
from reports.figures.plan_cost import cost_figure
from reports.figures.plan_search import search_choice
from reports.figures.plan_seeds import seeds_choice
from reports.plan_data import ATTAINMENT, Bill, PlanData, Searched, Tried, target_label
from reports.plan_worth import worth_tables
from reports.tables import TextTable
from reports.text import NBSP, NO_VALUE, number, percent, seconds
from sim.whatif.grids import gpus_beside

SHARED = (
    "Runs of one search share every random stream: what differs between two of them is the hardware and not luck. The "
    "search is exact where more hardware never makes the SLO fail; queues and routing may break that by a little, so "
    "it goes on below close misses.",
    "A run ends early (lost early) when no completion of its remaining requests could meet the SLO any more.",
    "Costs are list prices by the hour; they say nothing of discounts, power beyond the GPUs, or people.",
)


def render(data: PlanData) -> str:
    """The whole plan as one HTML document."""
    return document(
        "study.html.j2",
        scripts=("explore.js",),
        title="plan",
        eyebrow="kvsim plan",
        name=capital(data.searches[0].what),
        about="to meet the SLO",
        facts=data.facts,
        state="met" if data.best else "missed",
        headline=headline(data),
        tiles=tiles(data),
        sections=sections(data),
        notes=[*SHARED, *(f"Price: {text}." for text in data.price_sources)],
    )


def sections(data: PlanData) -> list[Section]:
    """Every section with figures and tables, in the order of the page: recommendation, evidence, assumptions."""
    seeds, cost = seeds_choice(data), cost_figure(data)
    first = [table for table in (bill_table(data), beside_table(data), variants_table(data)) if table]
    told, worths = data.best or data.searches[0], worth_tables(data)
    return [
        Section("recommendation", "Recommendation", [], first, notes_of(data)),
        Section("evidence", "Evidence", [search_choice(data)]),
        *([Section("over-seeds", "Is it luck?", [seeds], seed_tables(data))] if seeds else []),
        *([Section("money", "What more money buys", [cost] if cost else [], worths)] if cost or worths else []),
        Section("runs", "Every run", [], [run_table(one) for one in data.searches]),
        Section(
            "assumptions",
            "What it rests on",
            [],
            (),
            [*(f"Warning: {text}" for text in told.warnings), *told.assumptions]
            or ["No run ended, so there is nothing to say."],
        ),
    ]


def headline(data: PlanData) -> list[str]:
    """The recommendation in a sentence, then what binds and what is beside it."""
    if data.best is None or data.best.answer is None:
        return ["Nothing that was tried meets the SLO", *(text for one in data.searches for text in _named(data, one))]
    best, answer = data.best, data.best.answer
    variant = f" with {best.variant}" if len(data.searches) > 1 else ""
    price = "" if answer.bill is None else f", for {money(answer.bill)}"
    said = [f"{capital(best.what)}: {answer.shown}{gpus_beside(best.path, answer.shown, answer.gpus)}{variant}{price}"]
    limits = ", ".join(_within(answer, key) for key in answer.limits)
    tight = answer.tightest
    binds = f" {target_label(tight[0])} binds: it is at {percent(tight[1])} of its limit." if tight else ""
    said.append(f"It meets the SLO: {limits}.{binds}")
    below, above = best.beside(-1), best.beside(1)
    if below is not None:
        said.append(f"Just below, {below.shown}: {outcome(below)}.")
    if above is not None:
        said.append(f"Just above, {above.shown}: {outcome(above)}.")
    return [*said, *luck(best)]


def luck(search: Searched) -> list[str]:
    """If the answer holds with other seeds; nothing where that was not asked for."""
    held = {one.shown: one for one in search.seeds}
    if search.answer is None or search.answer.shown not in held:
        return []
    check = held[search.answer.shown]
    told = f"With other seeds it meets the SLO in {sum(check.met)} of {len(check.met)}"
    if all(check.met):
        return [f"{told}: it does not hang on luck."]
    sure = next((one.shown for one in search.seeds if all(one.met)), None)
    more = f"{sure} does in all." if sure else "nothing that was checked does in all, so buy more than this."
    return [f"{told}; {more}"]


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _named(data: PlanData, one: Searched) -> list[str]:
    name = f"{one.label}: " if len(data.searches) > 1 else ""
    return [f"{name}{text if name else capital(text)}." for text in one.notes]


def notes_of(data: PlanData) -> list[str]:
    """What to know about the answers, of every variant."""
    return [] if data.best is None else [text for one in data.searches for text in _named(data, one)]


def money(bill: Bill) -> str:
    """`7.47 USD/h`, or `7.47 USD/h + ssd` where something that it takes has no price."""
    return " + ".join([f"{number(bill.total)} {bill.currency}/h", *bill.unpriced])


def _within(one: Tried, key: str) -> str:
    value, limit = one.values.get(key), one.limits[key]
    if key == ATTAINMENT:
        return f"{percent(value)} of requests within every limit, of {percent(limit)}"
    return f"{target_label(key)} is {seconds(value)} of {seconds(limit)}"


def outcome(one: Tried) -> str:
    """What became of a run, in words."""
    if one.failed:
        return f"does not run ({one.why})"
    if one.lost is not None:
        return f"misses the SLO, and ended early ({one.why})"
    tight = one.tightest
    verb = "meets" if one.met else "misses"
    near = f" ({_within(one, tight[0])})" if tight else ""
    price = "" if one.bill is None else f", for {money(one.bill)}"
    return f"{verb} the SLO{near}{price}"


def tiles(data: PlanData) -> list[tuple[str, str, str]]:
    """The few numbers people look for first: (label, value, what it is)."""
    answer = None if data.best is None else data.best.answer
    if data.best is None or answer is None:
        near = [one.nearest for one in data.searches if one.nearest is not None]
        found = [("Answer", "none", "meets the SLO")]
        if near:
            top = min(near, key=lambda one: (one.tightest or ("", 0.0))[1])
            tight = top.tightest or ("", 0.0)
            found.append(("Nearest", top.shown, f"{target_label(tight[0])} at {percent(tight[1])} of its limit"))
        return found
    found = [(capital(data.best.what), answer.shown, "meets the SLO")]
    if answer.bill is not None:
        bill = answer.bill
        found.append((f"Cost, {bill.currency}/h", number(bill.total), _of_what(bill)))
        if bill.per_mtok is not None:
            found.append((f"Output, {bill.currency}", number(bill.per_mtok, 3), "per million tokens"))
        if bill.watts is not None:
            found.append(("Power", f"{number(bill.watts / 1e3, 3)} kW", "of GPUs, at most"))
    binds = answer.tightest
    if binds is not None:
        found.append((target_label(binds[0]), percent(binds[1]), "of its limit: what binds"))
    if answer.requests_per_s is not None:
        found.append(("Throughput", f"{number(answer.requests_per_s, 3)} req/s", "served"))
    return found


def _of_what(bill: Bill) -> str:
    return f"without {' and '.join(bill.unpriced)}: no price" if bill.unpriced else "of the hardware"


def bill_table(data: PlanData) -> TextTable | None:
    """What the recommended hardware costs, by part."""
    answer = None if data.best is None else data.best.answer
    if answer is None or answer.bill is None:
        return None
    bill = answer.bill
    rows = [
        (name, f"{number(value)} {bill.currency}/h", percent(value / bill.total) if bill.total else NO_VALUE)
        for name, value in bill.parts.items()
        if value or name != "energy"
    ]
    rows += [(name, "no price", NO_VALUE) for name in bill.unpriced]
    rows.append(("all", money(bill), percent(1.0)))
    power = ""
    if bill.watts is not None and bill.j_per_token is not None:
        power = f" GPUs draw {number(bill.watts / 1e3)} kW at most, {number(bill.j_per_token)} J per token of output."
    tokens = "" if bill.per_mtok is None else f"{number(bill.per_mtok, 3)} {bill.currency} per million output tokens."
    return TextTable("bill", "What it costs", f"{tokens}{power}", ("Of", "Cost", "Share"), rows, (1, 2))


def beside_table(data: PlanData) -> TextTable | None:
    """The answer with what was run just below and above it; without an answer, the nearest run."""
    search = data.best or data.searches[0]
    chosen = [
        (role, one)
        for role, one in (
            ("just below", search.beside(-1)),
            ("recommended", search.answer),
            ("just above", search.beside(1)),
            ("nearest", search.nearest if search.answer is None else None),
        )
        if one is not None
    ]
    if not chosen:
        return None
    rows = [(role, *_cells(one, search)) for role, one in chosen]
    read = "What was run beside the answer: the evidence that less does not do, and that more buys only margin."
    return TextTable("beside", "The answer and its neighbours", read, ("", *_heads(search)), rows, _numbers(search, 2))


def variants_table(data: PlanData) -> TextTable | None:
    """The answer of each variant; None for one variant."""
    if len(data.searches) < 2:
        return None
    search = data.searches[0]
    rows = []
    for one in data.searches:
        blank = ("none", *[NO_VALUE] * (len(_heads(search)) - 1))
        mark = " (recommended)" if one is data.best else ""
        rows.append((f"{one.label}{mark}", *(blank if one.answer is None else _cells(one.answer, search))))
    read = "Each variant's own answer; the recommended one costs least by the output token."
    return TextTable("variants", "By variant", read, ("Variant", *_heads(search)), rows, _numbers(search, 2))


def run_table(search: Searched) -> TextTable:
    """Every run of a search."""
    rows = [_cells(one, search, mark=one is search.answer) for one in search.tried]
    read = "In the order of what was tried; ▶ marks the answer."
    title = "All of them" if search.label == "as it stands" else search.label
    key = f"tried-{''.join(c if c.isalnum() and c.isascii() else '-' for c in search.label)[:40]}"
    heads = list(_heads(search))
    return TextTable(key, title, read, [search.path, *heads[1:]], rows, _numbers(search, 1))


def _heads(search: Searched) -> list[str]:
    limits = [
        f"{target_label(key)} (limit {percent(limit) if key == ATTAINMENT else seconds(limit)})"
        for key, limit in search.targets.items()
    ]
    return [search.path, "SLO", *limits, "Requests/s", "Cost", "Per Mtok out", "Note"]


def _numbers(search: Searched, first: int) -> Sequence[int]:
    return range(first + 1, first + 1 + len(search.targets) + 3)


def _cells(one: Tried, search: Searched, *, mark: bool = False) -> list[str]:
    values = []
    for key in search.targets:
        value = one.values.get(key)
        known = percent(value) if key == ATTAINMENT and value is not None else seconds(value)
        if one.lost == key:
            limit = search.targets[key]
            known = f"< {percent(limit)}" if key == ATTAINMENT else f"> {seconds(limit)}"
        values.append(known)
    verdict = "met" if one.met else "missed" if one.whole else "does not run" if one.failed else f"lost{NBSP}early"
    bill = one.bill
    price = [NO_VALUE, NO_VALUE]
    if bill is not None:
        price = [money(bill), NO_VALUE if bill.per_mtok is None else f"{number(bill.per_mtok, 3)} {bill.currency}"]
    told = one.why or one.rejected or ""
    return [f"▶ {one.shown}" if mark else one.shown, verdict, *values, number(one.requests_per_s, 3), *price, told]


def seed_tables(data: PlanData) -> list[TextTable]:
    """In how many seeds each checked value meets the SLO, with means and intervals of its targets."""
    rows = []
    keys = [key for key in data.searches[0].targets if key != ATTAINMENT]
    for search in data.searches:
        for check in search.seeds:
            name = f"{search.label}: {check.shown}" if len(data.searches) > 1 else check.shown
            cells = []
            for key in keys:
                known = [value for value in check.values.get(key, ()) if value is not None]
                ends = check.intervals.get(key)
                mean = seconds(sum(known) / len(known)) if known else NO_VALUE
                cells.append(f"{mean} [{seconds(ends[0])}, {seconds(ends[1])}]" if ends else mean)
            rows.append((name, f"{sum(check.met)} of {len(check.met)}", *cells))
    heads = (data.searches[0].path, "Meets the SLO", *(f"{target_label(key)}, mean [90 %]" for key in keys))
    read = "Means over seeds with the 90 % interval of Student's t; the search itself ran with the first seed."
    return [TextTable("seed-table", "Seed by seed", read, heads, rows, range(1, len(heads)))]
