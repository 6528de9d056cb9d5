"""Hit ratios of a trace without timing, as papers give them."""

from __future__ import annotations

import pytest

from hw_profiles.errors import InputError
from sim.cache.study import run_study
from sim.reproduce.cache_study import CacheStudy, truncated
from traces.catalog import load_trace

TRACE = "mooncake-conversation"


@pytest.fixture(scope="module")
def trace():
    try:
        return load_trace(TRACE)
    except InputError:
        pytest.skip("the conversation trace is not on this machine (KVSIM_TRACES)")


def test_it_is_what_kvsim_cache_says(trace):
    study = run_study(trace, ["lru"], [3_000_000, None], bounds=False)
    assert CacheStudy(TRACE, 3_000_000).measure().ratio == pytest.approx(study.rows[0].hit_ratio, abs=1e-12)
    assert CacheStudy(TRACE).measure().ratio == pytest.approx(study.unbounded.hit_ratio, abs=1e-12)


def test_several_caches_find_less_than_one_of_their_size(trace):
    parts = [CacheStudy(TRACE, 12_000_000 // n, n).measure().ratio for n in (1, 4, 12)]
    assert parts == sorted(parts, reverse=True)


def test_a_window_cuts_whole_blocks_from_the_start(trace):
    cut = truncated(trace, 8192)
    assert (cut.input_tokens <= 8192).all()
    assert (cut.input_tokens > 8192 - trace.block_tokens).sum() == (
        trace.input_tokens > 8192 - trace.block_tokens
    ).sum()
    short = trace.input_tokens <= 8192
    assert (cut.input_tokens[short] == trace.input_tokens[short]).all()
    whole = CacheStudy(TRACE, window=int(trace.input_tokens.max())).measure()
    assert whole.ratio == CacheStudy(TRACE).measure().ratio
    ratios = [CacheStudy(TRACE, window=window).measure().ratio for window in (4096, 16_384, 65_536)]
    assert ratios == sorted(ratios)
    assert ratios[-1] < whole.ratio
