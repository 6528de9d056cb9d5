"""Requests taken out many at a time are the trace's own."""

from dataclasses import replace

import numpy as np
import pytest

from traces.generate import GenerateSpec, generate
from traces.prefixes import PrefixesSpec, with_prefixes
from traces.request import Trace
from traces.rows import ROWS, Rows


def plain() -> Trace:
    return with_prefixes(PrefixesSpec(requests=2 * ROWS + 7, prefixes=3), seed=1)


def with_priorities() -> Trace:
    trace = with_prefixes(PrefixesSpec(requests=50), seed=1)
    return replace(trace, priorities=np.arange(50) % 3)


def conversations() -> Trace:
    return generate(GenerateSpec.model_validate({"requests": 60, "think_time": "1 s"}), seed=1)


@pytest.mark.parametrize("trace", [plain(), plain().without_prefixes(), with_priorities(), conversations()])
def test_each_request_is_that_of_the_trace(trace: Trace) -> None:
    rows = Rows(trace)
    for index in (*range(len(trace)), 0, len(trace) - 1, len(trace) // 2):
        request = rows.request(index)
        assert request == trace.request(index)
        assert type(request.arrival_s) is float


@pytest.mark.parametrize("index", [-1, 2 * ROWS + 7])
def test_there_are_no_others(index: int) -> None:
    rows = Rows(plain())
    rows.request(ROWS)
    with pytest.raises(IndexError, match=f"request {index} of a trace of"):
        rows.request(index)
