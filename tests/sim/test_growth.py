"""Memory along a line: its growth against a model that looks at every sequence, and its amounts by hand."""

from fractions import Fraction
from math import ceil, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line, constant, upto
from policies.sequence.plan import Form
from sim.engine.footprint import SCALE, Curve, Footprint, PlannedMemory
from sim.engine.growth import Growth

AMOUNTS = st.sampled_from([0.0, 1.0, 0.5, 0.28125, 0.03, 1 / 3, 2.7])


@st.composite
def lines(draw):
    """Lines that never fall in the context; concave or not."""
    slopes = draw(st.lists(AMOUNTS, min_size=1, max_size=4))
    limits = sorted(draw(st.sets(st.sampled_from([1, 7, 16, 40, 64, 150]), min_size=len(slopes) - 1, max_size=3)))
    limits = limits[: len(slopes) - 1]
    slopes = slopes[: len(limits) + 1]
    caps = tuple((w, a - b) for w, a, b in zip(limits, slopes, slopes[1:], strict=False) if a != b)
    prompt = draw(st.sampled_from([0.0, 0.5, 1.0]))
    prompt_caps = ((20, draw(AMOUNTS)),) if draw(st.booleans()) else ()
    return Line(draw(st.sampled_from([0.0, 0.4, 12.0])), slopes[-1], caps, prompt, prompt_caps)


def exact(line, context, prompt):
    """The line with its numbers as they are, without rounding in between."""
    value = Fraction(line.base) + Fraction(line.slope) * context + Fraction(line.prompt) * prompt
    value += sum(Fraction(a) * min(context, w) for w, a in line.caps)
    return value + sum(Fraction(a) * min(prompt, w) for w, a in line.prompt_caps)


@given(line=lines(), context=st.integers(0, 400), prompt=st.integers(0, 400))
def test_a_curve_is_the_line_to_a_millionth_of_a_token(line, context, prompt):
    units = Curve(line).units(context, prompt)
    assert abs(units - exact(line, context, prompt) * SCALE) <= context / 2 + 1


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(1, 200), st.integers(1, 200)),
        st.tuples(st.just("advance"), st.integers(1, 60), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 99), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(line=lines(), block=st.sampled_from([1, 2, 16]), actions=ACTIONS)
def test_growth_equals_the_slow_model(line, block, actions):
    curve, units = Curve(line), block * SCALE
    growth, members, done = Growth(curve, units), {}, 0

    def blocks(context, prompt):
        return -(-curve.units(context, prompt) // units)

    def slow(steps):
        return sum(blocks(n + steps, p) - blocks(n, p) for n, p in members.values())

    for index, (action, a, b) in enumerate(actions):
        if action == "join":
            members[index] = (max(a, b), b)
            growth.join(index, max(a, b), b, done)
        elif action == "leave" and members:
            gone = list(members)[a % len(members)]
            del members[gone]
            growth.leave(gone)
        elif action == "advance":
            steps = int(min(a, growth.steps_as_planned(done)))
            done += steps
            members = {i: (n + steps, p) for i, (n, p) in members.items()}
            growth.advance(done)
        ends = [w - n for n, _ in members.values() for w in curve.limits if w > n]
        planned = growth.steps_as_planned(done)
        assert planned == min(ends, default=inf)
        most = int(min(planned, 300))
        for steps in {1, most // 2 or 1, most}:
            assert growth.blocks(steps, done) == slow(steps)
        for free in (0, 1, 5, 40):
            steps = growth.steps_within(free, most, done)
            assert 1 <= steps <= most
            assert slow(steps) - slow(1) <= free
            assert steps == most or slow(steps + 1) - slow(1) > free


def test_memory_that_falls_is_refused():
    with pytest.raises(InputError, match="falls"):
        Curve(upto(64) - CONTEXT * 0.5)


def test_blocks_by_hand():
    kivi = Form(key=0.25, value=0.25, key_full=32, value_full=64)  # the newest tokens in full
    memory = PlannedMemory(Footprint(kivi.of(CONTEXT), CONTEXT), 16)
    tokens = 0.25 * 1000 + 0.75 / 2 * (32 + 64)
    assert memory.decode_blocks(500, 1000) == ceil(tokens / 16)
    assert memory.prompt_blocks(500, 160) == 10
    assert memory.prompt_blocks(500, 500) == ceil(500 / 16)
    snapkv = Line(slope=1.0, prompt=-1.0, prompt_caps=((1024, 1.0),))  # 1,024 tokens of the prompt, all of the answer
    memory = PlannedMemory(Footprint(snapkv), 16)
    assert memory.decode_blocks(4096, 4196) == ceil((1024 + 100) / 16)
    assert memory.whole_blocks(4096, 4196) == 256
    assert memory.whole_blocks(300, 5000) == ceil(5000 / 16)
    again = memory.prompt_blocks(300, 400)  # prompt and output computed again: as when the output was decoded
    assert again == ceil(400 / 16)


def test_a_row_is_as_long_as_its_slot():
    memory = PlannedMemory(Footprint(at_once=True, slot_tokens=2048), 16)
    assert memory.whole_blocks(10, 20) == memory.whole_blocks(2000, 2048) == 128
    assert PlannedMemory(Footprint(constant(7.0), at_once=True), 1).whole_blocks(3, 900) == 7
