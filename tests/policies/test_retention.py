"""What of a sequence is kept: budgets, memory, limit cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.lines import upto
from policies.kv_format.kivi import KIVI
from policies.retention.audiokv import AudioKV
from policies.retention.baklava import BaKlaVa
from policies.retention.corm import CORM
from policies.retention.elastic import ElasticCache
from policies.retention.h2o import H2O
from policies.retention.kvcrush import KVCrush
from policies.retention.lacache import LaCache
from policies.retention.less import LESS
from policies.retention.scissorhands import Scissorhands
from policies.retention.snapkv import SnapKV
from policies.retention.snapstream import SnapStream
from policies.retention.streaming_llm import StreamingLLM
from policies.retention.xkv import XKV
from policies.retention.zigzagkv import ZigZagKV
from policies.sequence.plan import FULL, SequencePolicy
from policies.tables import RETENTION
from tests.policies.layer_cases import fold
from tests.policies.retention_cases import LONGEST, PLACE, layer

# ---- what is kept


@given(place=PLACE, heavy=st.integers(0, 3000), recent=st.integers(1, 3000))
def test_h2o_keeps_tokens(place: tuple[int, int], heavy: int, recent: int) -> None:
    plan = H2O(heavy=heavy, recent=recent).plan(layer(), FULL)
    assert plan.kept.at(*place) == plan.attended.at(*place) == min(place[0], heavy + recent)


@given(place=PLACE, share=st.floats(0.01, 0.5))
def test_h2o_keeps_shares_of_the_prompt(place: tuple[int, int], share: float) -> None:
    plan = H2O(heavy=share, recent=share).plan(layer(), FULL)
    assert plan.kept.at(*place) == pytest.approx(2 * share * place[1])
    assert plan.kept.at(*place) <= place[0] * (1 + 1e-9)


def test_no_heavy_hitters_are_none_of_either_kind() -> None:
    assert H2O(heavy=0, recent=0.2).plan(layer(), FULL) == H2O(heavy=0.1, recent=0.1).plan(layer(), FULL)
    assert H2O(heavy=200, recent=0.0).plan(layer(), FULL) == H2O(heavy=100, recent=100).plan(layer(), FULL)


@given(place=PLACE, sinks=st.integers(0, 64), window=st.integers(1, 5000))
def test_streaming_keeps_sinks_and_window(place: tuple[int, int], sinks: int, window: int) -> None:
    plan = StreamingLLM(sinks=sinks, window=window).plan(layer(), FULL)
    assert plan.kept.at(*place) == plan.attended.at(*place) == min(place[0], sinks + window)


@given(place=PLACE, budget=st.integers(33, 5000))
def test_snapkv_keeps_part_of_the_prompt_and_what_follows(place: tuple[int, int], budget: int) -> None:
    context, prompt = place
    plan = SnapKV(budget=budget).plan(layer(), FULL)
    assert plan.kept.at(*place) == plan.attended.at(*place) == min(prompt, budget) + context - prompt


@given(place=PLACE, budget=st.floats(0.01, 1))
def test_elastic_keeps_a_share_of_what_was_seen(place: tuple[int, int], budget: float) -> None:
    plan = ElasticCache(budget=budget).plan(layer(), FULL)
    assert plan.kept.at(*place) == plan.attended.at(*place) == pytest.approx(budget * place[0])


@given(place=PLACE, heavy=st.floats(0, 0.5), recent=st.floats(0.01, 0.5), sparse=st.sampled_from(["h2o", "lambda"]))
def test_less_keeps_shares_of_the_longest_context(
    place: tuple[int, int], heavy: float, recent: float, sparse: str
) -> None:
    plan = LESS(heavy=heavy, recent=recent, sparse=sparse).plan(layer(), FULL)
    assert plan.kept.at(*place) == min(place[0], int(heavy * LONGEST) + int(recent * LONGEST))


# ---- memory


def test_h2o_keeps_a_sum_per_token_and_head() -> None:
    plan = H2O(heavy=100, recent=100).plan(layer(), FULL)
    assert plan.extra.at(3000, 2000) == 200 * 32 * 4
    assert plan.extra.at(50, 20) == 50 * 32 * 4
    assert H2O(heavy=100, recent=100).plan(layer(8), FULL).extra.at(3000, 2000) == 200 * 8 * 4


def test_less_keeps_a_state_of_four_tokens() -> None:
    view = layer()
    plan = LESS(sparse="lambda").plan(view, FULL)
    assert plan.extra.at(4000, 10) == plan.extra.at(0, 0) == 32 * (8 * 128 + 8) * 2
    assert plan.extra.at(4000, 10) / view.token_bytes == pytest.approx(4.03, abs=0.005)
    assert plan.kept.at(4096, 10) == 204  # the paper's 5 % of 4096 for Llama-2
    assert LESS().plan(view, FULL).extra == plan.extra + upto(204) * (32 * 4)
    network = 128 * 512 + 512 * 8
    assert plan.fixed_extra == plan.works[-1].fixed == 64 * network * 2
    assert LESS(heavy=102, recent=102, sparse="lambda").plan(view, FULL) == plan
    longer = LESS(max_positions=2048).plan(view, FULL)
    assert longer.kept.at(4096, 10) == 102


H2O_LOGS = [(24, 32, 32, 2048, 2048, 48.0, 74.764 - 36.392), (4, 40, 40, 5000, 5000, 30.518, 70.919 - 46.511)]
"""(batch, layers, heads, prompt, answer, GiB of the full cache, GiB by which the peak fell), of OPT-6.7B and 13B.
SOURCE: FMInference/H2O, h2o_flexgen/benchmark/h2o/a100_80, gbs24 and gbs4."""


@pytest.mark.parametrize(("batch", "layers", "heads", "prompt", "answer", "full", "saved"), H2O_LOGS)
def test_h2o_frees_what_its_logs_say(
    batch: int, layers: int, heads: int, prompt: int, answer: int, full: float, saved: float
) -> None:
    view = replace(layer(heads), max_context=prompt + answer)
    gib = batch * layers * view.token_bytes / 2**30
    context = prompt + answer
    assert FULL.kept.at(context, prompt) * gib == pytest.approx(full, abs=0.001)
    plan = H2O(heavy=0.2, recent=0.2).plan(view, FULL)  # hh_ratio 0.2
    freed = full - plan.kept.at(context, prompt) * gib - plan.extra.at(context, prompt) * batch * layers / 2**30
    assert freed == pytest.approx(saved, rel=0.005)


# ---- limit cases: a budget that nothing exceeds


WHOLE = [
    H2O(heavy=LONGEST, recent=0),
    StreamingLLM(sinks=4, window=LONGEST),
    SnapKV(budget=LONGEST),
    ElasticCache(budget=1),
    LESS(heavy=0.5, recent=0.5),
    LESS(heavy=0.5, recent=0.5, sparse="lambda"),
    Scissorhands(budget=LONGEST),
    CORM(recent=LONGEST),
    SnapStream(sinks=4, selected=2000, ring=2092),
    LaCache(budget=LONGEST),
    KVCrush(budget=LONGEST),
    XKV(budget=LONGEST),
    ZigZagKV(budget=LONGEST),
    BaKlaVa(budget=LONGEST),
    AudioKV(budget=LONGEST),
]


@pytest.mark.parametrize("policy", WHOLE, ids=lambda p: type(p).__name__)
def test_a_budget_that_holds_the_longest_sequence_is_the_full_cache(policy: SequencePolicy) -> None:
    assert policy.plan(layer(), FULL) is FULL
    packed = KIVI().plan(layer(), FULL)
    assert policy.plan(layer(), packed) is packed
    if not isinstance(policy, StreamingLLM | LaCache):
        assert policy.coverage(layer(), LONGEST, LONGEST) == 1.0  # type: ignore[attr-defined]


def test_nothing_kept_is_dropped() -> None:
    assert fold(layer(), RETENTION["none"]()) is FULL


@pytest.mark.parametrize("name", RETENTION)
def test_layers_with_a_sliding_window_are_left_alone(name: str) -> None:
    policy = RETENTION[name]()
    assert policy.plan(layer(window=512), FULL) is FULL
    if hasattr(policy, "coverage"):
        assert policy.coverage(layer(window=512), 4000, 3000) == 1.0
