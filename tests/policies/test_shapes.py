"""Lines that policies within a sequence build: through points, the lesser of two, steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line, constant, lesser, through, upto
from policies.sequence.shapes import above, as_prompt_grows

LINES = st.builds(
    lambda base, slope, caps: Line(base, slope) + Line(caps=tuple(sorted(caps.items()))),
    st.floats(0, 100),
    st.floats(0, 1),
    st.dictionaries(st.integers(1, 500), st.floats(0.01, 1), max_size=3),
)


def test_through_points() -> None:
    line = through([(0, 5.0), (10, 25.0), (40, 40.0)], slope=-1.0)
    assert [line.at(n, 0) for n in (0, 5, 10, 25, 40, 50)] == [5, 15, 25, 32.5, 40, 30]


@given(LINES, LINES, st.integers(0, 2000))
def test_lesser_of_two(a: Line, b: Line, n: int) -> None:
    """Exact but next to a crossing between two whole tokens, where it is the line between its neighbours."""
    found, exact = lesser(a, b).at(n, 0), min(a.at(n, 0), b.at(n, 0))
    step = max(abs(x.at(n + 1, 0) - x.at(max(n - 1, 0), 0)) for x in (a, b))
    assert found <= exact + 1e-6
    assert found >= exact - step - 1e-6


def test_lesser_refuses_prompts() -> None:
    with pytest.raises(InputError, match="cannot be priced"):
        lesser(Line(prompt=0.1), CONTEXT)


def test_constant_above_a_context() -> None:
    line = above(constant(6.0), 100, 10)
    assert [line.at(n, 0) for n in (50, 100, 105, 110, 5000)] == pytest.approx([0, 0, 3, 6, 6])
    assert above(upto(7), 100, 10) == upto(7)
    assert above(constant(0.0), 100, 10) == Line()


def test_while_a_prompt_grows() -> None:
    """A share of the prompt and all that follows, at n = P."""
    line = Line(base=1.0, slope=1.0, caps=((5, 1.0),), prompt=-0.8, prompt_caps=((50, 0.5),))
    grown = as_prompt_grows(line)
    for n in (1, 20, 300):
        assert grown.at(n, 0) == pytest.approx(line.at(n, n))
