"""What to know about the answer of a search: what binds if there is none, and what it rests on if there is one."""

from __future__ import annotations

from collections.abc import Sequence

from sim.whatif.grids import Search
from sim.whatif.points import Point

MOST = 0.8
"""Share of the slowest first tokens that their own prompts take, from which a shorter queue cannot help."""


def notes(search: Search, answer: Point | None, points: Sequence[Point]) -> tuple[str, ...]:
    """One sentence each; points: every run of the search, in the order of its values."""
    found = [f"{point.shown}: {point.failed}" for point in points if point.failed is not None]
    if answer is None:
        found.append(_infeasible(points))
    elif not search.linear:
        if answer.index == 0 and not search.complete:
            found.append("it meets the SLO at the end of the range: --among may give values beyond it")
        found += _untried(search, answer, points)
        again = [point.shown for point in points if point.index > answer.index and not point.met]
        if again:
            verb = "misses" if len(again) == 1 else "miss"
            found.append(
                f"{', '.join(again)} {verb} the SLO again: the margin is thin, so look at every value (--among)"
            )
    if answer is not None and answer.held > 0:
        found.append(
            f"requests were held back {answer.held:.3g} s in the mean before they were sent (max_parallel, "
            "request_rate), which is in no latency, so users waited longer than the SLO sees"
        )
    if answer is not None and answer.cost is None:
        found.append("no cost: the price table has no price for this GPU; put one into a copy of it (--prices FILE)")
    unpriced = sorted({name for point in points if point.cost is not None for name in point.cost.unpriced})
    if unpriced:
        found.append(f"not in the cost, since the price table has no price: {', '.join(unpriced)}")
    return tuple(found)


def _untried(search: Search, answer: Point, points: Sequence[Point]) -> list[str]:
    """Values before the answer that were taken to miss the SLO because one after them does."""
    tried = {point.index for point in points}
    left = [index for index in range(answer.index) if index not in tried]
    if not left:
        return []
    first, last = search.shown[left[0]], search.shown[left[-1]]
    whole = len(left) == left[-1] - left[0] + 1
    names = first if len(left) == 1 else f"{first} to {last}" if whole else f"{len(left)} values from {first} to {last}"
    return [f"not tried, but taken to miss the SLO as values after them do: {names}"]


def _infeasible(points: Sequence[Point]) -> str:
    """What binds in the run that came nearest; the last one of those that came equally near."""
    whole = [point for point in points if point.whole]
    if not whole:
        return "no value tried meets the SLO"
    nearest = min(reversed(whole), key=lambda point: point.worst[1])
    at = f"at {nearest.shown}{', the nearest of the runs that ended,' if len(whole) > 1 else ''}"
    return f"no value tried meets the SLO; {at} {_binds(nearest)}"


def _alone(point: Point) -> str:
    """What no queue is to blame for."""
    if not point.worst[0].startswith("ttft") or point.computing is None or point.computing < MOST:
        return ""
    return (
        f"; {100 * point.computing:.3g} % of the first-token time of the slowest 1 % computes their own prompts: more "
        "of this does not shorten that, a higher hardware.tp, a faster GPU or fewer bits (engine.weights_dtype) may"
    )


def _binds(point: Point) -> str:
    refused = "" if point.rejected is None else f"; {point.rejected}, and those miss every limit"
    key, ratio = point.worst
    if point.attainment is not None and not point.attainment["met"]:
        shares = {name: float(target.get("attainment", 1)) for name, target in point.targets.items()}
        tightest = min(shares, key=lambda name: shares[name])
        limit = point.targets[tightest]["target_ms"] / 1e3
        return (
            f"{100 * point.attainment['value']:.4g} % of the requests are within every limit, "
            f"{100 * point.attainment['target']:.4g} % were asked for; "
            f"{tightest.partition('_')[0]} binds: {100 * shares[tightest]:.4g} % are within {limit:.4g} s{refused}"
        )
    target = point.targets[key]
    if ratio > 1 and target["value_ms"] is not None:
        value, limit = target["value_ms"] / 1e3, target["target_ms"] / 1e3
        return f"{key} binds: {value:.4g} s against {limit:.4g} s, {ratio:.3g} times the limit{refused}{_alone(point)}"
    if point.rejected is not None:
        return f"rejected requests bind: {point.rejected}; they miss every limit, whatever the rest comes to"
    return f"no request has a {key}"
