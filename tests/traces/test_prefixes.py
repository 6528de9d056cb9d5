"""Requests that share prefixes: what they share, how they arrive, how long they are."""

import numpy as np
import pytest
from pydantic import ValidationError

from traces.prefixes import PrefixesSpec, Range, with_prefixes
from traces.spec import TraceSpec, build

SPEC = PrefixesSpec(requests=20_000, rate=50.0, prefixes=40, prefix_blocks=3, block_tokens=64)


def test_a_prompt_is_a_prefix_and_blocks_of_its_own():
    trace = with_prefixes(SPEC, 1)
    seen: dict[int, tuple[int, ...]] = {}
    for request in trace:
        head, own = tuple(request.hash_ids[:3]), request.hash_ids[3:]
        assert seen.setdefault(head[0], head) == head
        assert head[0] % 3 == 0
        assert head[0] < 3 * 40
        assert 2 <= len(own) <= 14
        assert request.input_tokens == 64 * len(request.hash_ids)
        assert 16 <= request.output_tokens <= 240
    own = np.concatenate([request.hash_ids[3:] for request in trace])
    assert own.tolist() == list(range(120, 120 + len(own)))


def test_the_distributions_are_those_asked_for():
    trace = with_prefixes(SPEC, 1)
    gaps = np.diff(trace.arrival_s, prepend=0.0)
    assert np.mean(gaps) == pytest.approx(1 / 50, rel=0.03)
    assert np.mean(gaps > 1 / 50) == pytest.approx(np.exp(-1), abs=0.015)
    lengths = np.diff(trace.hash_offsets)
    assert (np.bincount(lengths)[5:] / 20_000).tolist() == pytest.approx([1 / 13] * 13, abs=0.01)
    assert np.mean(trace.output_tokens) == pytest.approx(128, rel=0.02)
    ranks = trace.hash_ids[trace.hash_offsets[:-1]] // 3 + 1
    for rank in (1, 2, 10, 40):
        expected = (1 - (rank + 1) ** -1.16) / (1 - 41**-1.16)
        assert np.mean(ranks <= rank) == pytest.approx(expected, abs=0.012)


def test_a_longer_trace_begins_like_a_shorter_one():
    short = with_prefixes(SPEC.model_copy(update={"requests": 500}), 1)
    assert list(with_prefixes(SPEC, 1))[:500] == list(short)
    assert with_prefixes(SPEC, 2).content_sha256 != with_prefixes(SPEC, 1).content_sha256
    assert list(build(TraceSpec(prefixes=SPEC), 1)) == list(with_prefixes(SPEC, 1))


def test_bad_parameters_are_refused():
    with pytest.raises(ValidationError, match="least is more than the most"):
        Range(min=3, max=2)
    with pytest.raises(ValidationError, match="1,000,000,000 at most"):
        PrefixesSpec(requests=10_000_000, prefix_blocks=1000)
