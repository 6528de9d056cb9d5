"""Ends of steps: few and many of them are the same sums, whatever happens to a stride."""

from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.engine.ends import FEW, Ends, FewEnds, ManyEnds, ends_of

SECONDS = st.lists(st.floats(1e-6, 0.1), min_size=2, max_size=30)
OPS = st.lists(st.tuples(st.sampled_from(["at", "begun", "postpone", "cut"]), st.floats(0, 1)), max_size=12)


def sums(start: float, seconds: list[float]) -> list[float]:
    found = [start + seconds[0]]
    for each in seconds[1:]:
        found.append(found[-1] + each)
    return found


@pytest.mark.parametrize("kind", [FewEnds, ManyEnds])
@given(seconds=SECONDS, ops=OPS)
def test_ends_are_the_sums_one_after_the_other(kind: type[Ends], seconds: list[float], ops: list[tuple[str, float]]):
    start, seconds = 3.0, list(seconds)
    ends, plain = kind(start, np.array(seconds)), sums(start, seconds)
    for op, share in ops:
        step = round(share * (len(plain) - 1))
        if op == "at":
            assert ends.at(step) == plain[step]
        elif op == "begun":
            now = start + share * (plain[-1] - start)
            assert ends.begun(now) == min(bisect_left(plain, now) + 1, len(plain))
        elif op == "postpone":
            later = ends.at(step) + share
            ends.postpone(step, share)
            plain[step:] = sums(0.0, [later, *seconds[step + 1 :]])
        elif step:
            ends.at(step)
            ends.cut(step + 1)
            del plain[step + 1 :], seconds[step + 1 :]
    assert list(ends.values()) == plain


@pytest.mark.parametrize(("steps", "kind"), [(2, FewEnds), (FEW, FewEnds), (FEW + 1, ManyEnds)])
def test_many_steps_are_an_array(steps: int, kind: type[Ends]):
    seconds = np.random.default_rng(0).random(steps)
    ends = ends_of(1.0, seconds)
    assert type(ends) is kind
    assert list(ends.values()) == sums(1.0, seconds.tolist())
