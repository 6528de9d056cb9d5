"""The table of a plan that says what memory is worth: at which price more of a tier stops paying."""

from reports.plan_data import PlanData
from reports.tables import TextTable
from reports.text import NO_VALUE, number

READ = (
    "From one capacity to the next, all else the same: what the rest of the hardware then costs less, over the GiB "
    "that are bought more, is the price below which they pay. Replicas come whole, so a step may save none."
)


def worth_tables(data: PlanData) -> list[TextTable]:
    """One table, or none where no capacity was varied."""
    rows = []
    for one in data.worth:
        most, price, unit = one["pays_below"], one["price"], one["currency"]
        verdict = NO_VALUE if most is None or price is None else "pays" if price < most else "does not pay"
        rows.append(
            (
                f"{one['tier']}: {one['more']} instead of {one['less']}",
                one["beside"] or NO_VALUE,
                f"{number(one['saves'])} {unit}/h",
                f"{number(one['gib'])} GiB",
                NO_VALUE if most is None else f"{number(most, 3)} {unit}",
                NO_VALUE if price is None else f"{number(price, 3)} {unit}",
                verdict,
            )
        )
    heads = ("Step", "Beside", "Saves", "For", "Pays below, per GiB-hour", "In the price table", "So it")
    return [TextTable("worth", "What memory is worth", READ, heads, rows, range(2, 6))] if rows else []
