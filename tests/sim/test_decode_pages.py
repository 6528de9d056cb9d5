"""Times of decode attention that are remembered are those that are computed, to the last bit."""

import pytest

from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from sim.cost.decode_pages import LEAST_ASKED, MOST_PAGES, PAGE_TOKENS
from sim.cost.step import StepCost


@pytest.fixture
def cost() -> StepCost:
    return StepCost(load_model("llama-3.1-8b"), load_profile("h100-sxm"))


def test_what_is_remembered_has_the_same_bits(cost: StepCost) -> None:
    for seqs, context, steps in ((1, 5, 100), (7, 900, 50), (7, PAGE_TOKENS + 1, 300), (200, 3 * PAGE_TOKENS, 60)):
        first = cost.decode_stride(seqs, context, steps)
        assert first.flags.writeable  # computed
        for _ in range(LEAST_ASKED):
            again = cost.decode_stride(seqs, context, steps)
        assert not again.flags.writeable  # read
        assert again.tolist() == first.tolist()
        assert again.tolist() == [cost.decode(seqs, context + seqs * i) for i in range(steps)]


def test_a_stride_over_the_end_of_a_page_is_computed(cost: StepCost) -> None:
    for _ in range(2 * LEAST_ASKED):
        times, inside = cost.decode_stride(4, PAGE_TOKENS - 40, 11), cost.decode_stride(4, PAGE_TOKENS - 40, 10)
    assert times.flags.writeable
    assert not inside.flags.writeable
    assert times.tolist()[:10] == inside.tolist()


def test_pages_are_let_go_when_there_are_many(cost: StepCost) -> None:
    for seqs in range(1, MOST_PAGES + 3):
        for _ in range(LEAST_ASKED):
            times = cost.decode_stride(seqs, 100, 2)
        assert times.tolist() == [cost.decode(seqs, 100), cost.decode(seqs, 100 + seqs)]
