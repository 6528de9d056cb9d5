"""Lines: values of sums and products, minima with a limit, the end of the prompt."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, NOTHING, Line, constant, upto

AMOUNT = st.floats(-100, 100, allow_nan=False)
POSITIVE = st.floats(0.01, 10)
LIMIT = st.integers(1, 5000)


def caps(amount: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[tuple[int, float], ...]]:
    return st.dictionaries(LIMIT, amount.filter(bool), max_size=3).map(lambda found: tuple(sorted(found.items())))


LINE = st.builds(Line, AMOUNT, AMOUNT, caps(AMOUNT), AMOUNT, caps(AMOUNT))
GROWING = st.builds(Line, st.floats(0, 10), st.floats(0, 2), caps(POSITIVE))
"""Lines of the context that grow ever more slowly."""
PLACE = st.tuples(st.integers(0, 9000), st.integers(0, 9000)).map(lambda pair: (max(pair), min(pair)))
"""(context, prompt)"""


def near(value: float, *parts: float) -> object:
    return pytest.approx(value, rel=1e-9, abs=1e-9 * (1 + sum(abs(part) for part in parts)))


@given(a=LINE, b=LINE, factor=AMOUNT, place=PLACE)
def test_sums_and_products_are_those_of_the_values(a: Line, b: Line, factor: float, place: tuple[int, int]) -> None:
    x, y = a.at(*place), b.at(*place)
    scale = 1e6
    assert (a + b).at(*place) == near(x + y, scale)
    assert (a - b).at(*place) == near(x - y, scale)
    assert (a * factor).at(*place) == near(x * factor, scale * 100)
    assert (factor * a) == a * factor


@given(line=LINE)
def test_nothing_is_neutral(line: Line) -> None:
    assert line + NOTHING == line
    assert line * 0.0 == NOTHING
    assert (line - line).zero or (line - line).at(1000, 500) == near(0.0, 1e6)


@given(line=LINE, place=PLACE)
def test_at_prompt_is_the_value_when_the_prompt_is_complete(line: Line, place: tuple[int, int]) -> None:
    prompt = place[1]
    assert line.at_prompt().at(place[0], prompt) == near(line.at(prompt, prompt), 1e6)


@given(line=GROWING, limit=st.integers(10, 5000), place=PLACE)
def test_capped_is_the_minimum_to_within_a_token(line: Line, limit: int, place: tuple[int, int]) -> None:
    exact = min(line.at(*place), limit)
    steepest = line.slope + sum(a for _, a in line.caps)
    found = line.capped(limit).at(*place)
    assert exact - 1e-6 <= found <= exact + steepest + 1e-6


@given(line=GROWING, limit=st.integers(10, 5000), place=PLACE)
def test_capped_of_the_prompt_is_that_of_the_context(line: Line, limit: int, place: tuple[int, int]) -> None:
    of_prompt = Line(line.base, 0.0, (), line.slope, line.caps)
    assert of_prompt.capped(limit).at(*place) == near(line.capped(limit).at(place[1], 0), 1e5)


@given(budget=st.integers(1, 3000), limit=st.integers(1, 3000), place=PLACE)
def test_a_part_of_the_prompt_and_all_that_follows(budget: int, limit: int, place: tuple[int, int]) -> None:
    kept = Line(slope=1.0, prompt=-1.0, prompt_caps=((budget, 1.0),))
    assert kept.at(*place) == min(place[1], budget) + place[0] - place[1]
    if limit <= budget:
        assert kept.capped(limit).at(*place) == min(kept.at(*place), limit)
    else:  # 3 decoded tokens more are below the limit or above, as the prompt was short or long: no line
        with pytest.raises(InputError, match="a budget on top of one"):
            kept.capped(limit)


@given(window=LIMIT, limit=LIMIT, context=st.integers(0, 9000))
def test_whole_tokens_are_capped_exactly(window: int, limit: int, context: int) -> None:
    assert CONTEXT.capped(limit) == upto(limit)
    assert upto(window).capped(limit) == upto(min(window, limit))
    assert constant(window).capped(limit) == constant(min(window, limit))
    assert upto(window).at(context, 0) == min(window, context)


def test_a_limit_that_is_never_reached_changes_nothing() -> None:
    line = upto(100) * 0.5
    assert line.capped(50.5) == line
    assert math.isclose(line.capped(20).at(1000, 0), 20)


@pytest.mark.parametrize(
    "line",
    [
        Line(base=10.0, slope=1.0),
        Line(slope=-1.0),
        Line(slope=1.0, caps=((10, -1.0),)),
        Line(slope=1.0, prompt=1.0),
        Line(prompt=-1.0),
    ],
    ids=["starts above", "falls", "starts late", "context and prompt", "falls with the prompt"],
)
def test_what_has_no_minimum_as_a_line_is_refused(line: Line) -> None:
    with pytest.raises(InputError, match="a budget on top of one"):
        line.capped(5)
