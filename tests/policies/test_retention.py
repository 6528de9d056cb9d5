"""What of a sequence is kept: budgets, memory, kernels, limit cases, combinations, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line, constant, upto
from policies.kv_format.int4 import Int4
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
from policies.sequence.plan import FULL, LayerPlan, LayerView, SequencePolicy
from policies.tables import KV_FORMAT, RETENTION

LONGEST = 4096
PLACE = st.tuples(st.integers(0, LONGEST), st.integers(1, LONGEST)).map(lambda pair: (max(pair), min(pair) or 1))
"""(context, prompt)"""


class Halves:
    """Attention that half of the tokens hold three quarters of."""

    name = "halves"

    def coverage(self, kept: float, context: float) -> float:
        return min(1.0, 1.5 * kept / context)

    def recalls(self, selected: int, cached: int, page_tokens: int) -> Line:
        return constant(0.01)


def layer(kv_heads: int = 32, *, latent: bool = False, window: int | None = None, layers: int = 32) -> LayerView:
    """A layer of Llama-2-7B, or with fewer KV heads; latent: of DeepSeek (512 + 64 values)."""
    return LayerView(
        index=3,
        layers=layers,
        hidden=4096,
        heads=32,
        kv_heads=1 if latent else kv_heads,
        head_dim=128,
        token_bytes=1152 if latent else 2 * kv_heads * 128 * 2,
        element_bytes=2,
        latent=latent,
        window=window,
        max_context=LONGEST,
        max_seqs=64,
        importance=Halves(),  # type: ignore[arg-type]
    )


def fold(view: LayerView, *policies: SequencePolicy) -> LayerPlan:
    return reduce(lambda plan, policy: policy.plan(view, plan), policies, FULL)


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


# ---- kernels


def test_h2o_needs_the_scores_of_the_whole_prompt() -> None:
    plan = H2O().plan(layer(), FULL)
    assert plan.prefill_flops == 2.0  # no causal half is left out
    assert plan.pair_bytes == 2 * 5 * 2 * 32
    assert H2O().plan(layer(8), FULL).pair_bytes == plan.pair_bytes  # scores are of query heads


def test_h2o_scores_what_it_attends_in_each_step() -> None:
    plan = H2O(heavy=100, recent=100).plan(layer(), FULL)
    each = 4 * 2 * 32 + 2 * 32 + 3 * 4 * 32
    assert plan.works[0].nbytes.at(3000, 2000) == 200 * each
    assert plan.works[0].nbytes.at(150, 20) == 150 * each


def test_what_a_prompt_leaves_is_read_and_written_once() -> None:
    view = layer()
    for policy, tokens in ((H2O(), 0.2 * 3000), (SnapKV(budget=1024), 1024), (StreamingLLM(window=1020), 1024)):
        gathered = [w for w in policy.plan(view, FULL).after_prompt if w.kernel == "gather what is kept"]
        assert [w.nbytes.at(3000, 3000) for w in gathered] == [pytest.approx(2 * tokens * view.token_bytes)]


def test_snapkv_scores_its_window_alone() -> None:
    view = layer(8)
    plan = SnapKV(budget=1024, window=32).plan(view, FULL)
    assert (plan.pair_bytes, plan.prefill_flops, plan.works) == (0.0, 1.0, ())
    vote = plan.after_prompt[0]
    assert vote.nbytes.at(3000, 3000) == 3000 * (view.token_bytes / 2 + 32 * 5 * 2 * 32)
    assert vote.flops.at(3000, 3000) == 3000 * 2 * 32 * 32 * 128
    wider = SnapKV(budget=1024, window=64).plan(view, FULL).after_prompt[0]
    assert wider.flops.at(3000, 3000) == 2 * vote.flops.at(3000, 3000)


def test_streaming_sets_the_positions_of_all_kept_keys() -> None:
    view = layer()
    plan = StreamingLLM(sinks=4, window=996, fused_rope=False).plan(view, FULL)
    assert [w.nbytes.at(3000, 10) for w in plan.works] == [1000 * view.token_bytes]  # keys read and written
    assert not StreamingLLM(fused_rope=True).plan(view, FULL).works
    assert StreamingLLM().plan(view, FULL) == StreamingLLM(fused_rope=True).plan(view, FULL)
    assert (plan.pair_bytes, plan.prefill_flops) == (0.0, 1.0)


def test_elastic_loops_over_what_it_drops_on_the_host() -> None:
    view = layer()
    rank = ElasticCache(budget=0.2, call="10 us").plan(view, FULL).after_prompt[0]
    assert rank.host_seconds.at(900, 900) == pytest.approx(900 * (3 / 32 + 4 * 0.8) * 10e-6)
    assert ElasticCache(call=0.0).plan(view, FULL).after_prompt[0].host_seconds.zero
    merge = ElasticCache(budget=0.2).plan(view, FULL).after_prompt[1]
    assert merge.nbytes.at(900, 900) == pytest.approx(900 * 1.2 * view.token_bytes)


def test_elastic_copies_its_cache_to_drop_a_token() -> None:
    view = layer()
    plan = ElasticCache(budget=0.2).plan(view, FULL)
    assert plan.works[0].nbytes.at(1000, 900) == pytest.approx(2 * 200 * 0.8 * view.token_bytes)
    assert not ElasticCache(budget=0.2, drop="in_place").plan(view, FULL).works


def test_less_maps_a_token_per_step_and_adds_what_the_prompt_drops() -> None:
    view = layer()
    plan = LESS().plan(view, FULL)
    step = plan.works[-1]
    network = 128 * 512 + 512 * 8
    assert step.flops.at(4000, 10) == 2 * 64 * network
    assert step.nbytes.at(4000, 10) == 3 * 32 * 8 * 129 * 2
    fold_work = plan.after_prompt[-1]
    assert fold_work.nbytes.at(204, 204) == fold_work.flops.at(204, 204) == 0
    flops = 2 * 32 * (network + 8 * 128)
    assert fold_work.flops.at(1204, 1204) == pytest.approx(1000 * flops)
    assert LESS(sparse="lambda").plan(view, FULL).pair_bytes == 0 < plan.pair_bytes


@pytest.mark.parametrize("name", RETENTION)
def test_kernels_and_their_sources(name: str) -> None:
    plan = RETENTION[name]().plan(layer(), FULL)
    assert all(work.source for work in (*plan.works, *plan.after_prompt))
    assert hash(plan) == hash(RETENTION[name]().plan(layer(), FULL))


# ---- coverage


def test_coverage_is_what_as_many_tokens_hold_at_best() -> None:
    view = layer()
    assert H2O(heavy=500, recent=500).coverage(view, 3000, 2000) == pytest.approx(0.5)
    assert H2O().coverage(view, 3000, 2000) == pytest.approx(1.5 * 400 / 3000)
    assert SnapKV(budget=500).coverage(view, 3000, 2000) == pytest.approx(0.75)
    assert ElasticCache(budget=0.2).coverage(view, 3000, 2000) == pytest.approx(0.3)
    assert LESS().coverage(view, 3000, 2000) == pytest.approx(1.5 * 204 / 3000)
    assert H2O(heavy=500, recent=500).coverage(view, 400, 100) == 1.0
    assert not hasattr(StreamingLLM(), "coverage")  # it does not choose by attention


# ---- combinations


@pytest.mark.parametrize("name", RETENTION)
@pytest.mark.parametrize("stored", KV_FORMAT)
def test_what_is_kept_is_stored_in_the_format(name: str, stored: str) -> None:
    view, form = layer(), KV_FORMAT[stored]()
    whole: dict[str, object] = {"budget": 1000} if name == "scissorhands" else {}  # 0.15 P reaches no window exactly
    plan = fold(view, form, RETENTION[name](**whole))
    assert plan.form == form.plan(view, FULL).form
    assert plan.kept == RETENTION[name](**whole).plan(view, FULL).kept
    kept = plan.kept.at(4000, 3000)
    found = plan.form.of(plan.kept).at(4000, 3000)
    expected = plan.form.key / 2 * max(0.0, kept - plan.form.key_full) + min(kept, plan.form.key_full) / 2
    expected += plan.form.value / 2 * max(0.0, kept - plan.form.value_full) + min(kept, plan.form.value_full) / 2
    assert found == pytest.approx(expected)


def test_kept_tokens_are_gathered_in_their_format() -> None:
    view = layer()
    plain, packed = fold(view, H2O()), fold(view, Int4(), H2O())
    assert packed.after_prompt[1].nbytes.at(3000, 3000) == pytest.approx(
        plain.after_prompt[1].nbytes.at(3000, 3000) * 4.5 / 16
    )


@pytest.mark.parametrize(
    "policy", [H2O(), SnapKV(), LESS(), Scissorhands(), CORM(), XKV(), KVCrush()], ids=lambda p: type(p).__name__
)
def test_what_is_per_head_refuses_latents(policy: SequencePolicy) -> None:
    with pytest.raises(InputError, match=r"latent attention \(MLA\)"):
        policy.plan(layer(latent=True), FULL)


def test_latents_may_be_dropped_for_all_heads_together() -> None:
    for policy in (StreamingLLM(), ElasticCache(), LaCache()):
        plan = policy.plan(layer(latent=True), FULL)
        assert plan.kept.at(4000, 3000) < 4000


def test_budgets_on_top_of_budgets() -> None:
    view = layer()
    first = StreamingLLM(window=996).plan(view, FULL)
    assert H2O(heavy=100, recent=100).plan(view, first).kept == upto(200)
    assert ElasticCache(budget=0.5).plan(view, first).kept == upto(1000) * 0.5
    with pytest.raises(InputError, match="give tokens"):
        H2O().plan(view, first)
    with pytest.raises(InputError, match="another policy has dropped"):
        SnapKV().plan(view, first)
    later = replace(FULL, kept=Line(slope=1.0, prompt=-0.5), attended=CONTEXT)
    with pytest.raises(InputError, match="a budget on top of one"):
        StreamingLLM().plan(view, later)


# ---- options


@pytest.mark.parametrize(
    ("policy", "options", "named"),
    [
        (H2O, {"heavy": 1.5}, "heavy"),
        (H2O, {"heavy": -1}, "heavy"),
        (H2O, {"heavy": True}, "heavy"),
        (H2O, {"heavy": 100, "recent": 0.1}, "recent"),
        (H2O, {"heavy": 0.6, "recent": 0.6}, "recent"),
        (H2O, {"heavy": 0, "recent": 0}, "heavy"),
        (StreamingLLM, {"sinks": -1}, "sinks"),
        (StreamingLLM, {"window": 0}, "window"),
        (StreamingLLM, {"fused_rope": "no"}, "fused_rope"),
        (SnapKV, {"budget": 32}, "budget"),
        (SnapKV, {"window": 0}, "window"),
        (ElasticCache, {"budget": 0}, "budget"),
        (ElasticCache, {"drop": "never"}, "drop"),
        (ElasticCache, {"call": "10 parsecs"}, "call"),
        (LESS, {"heavy": 1.5}, "heavy"),
        (LESS, {"heavy": -2}, "heavy"),
        (LESS, {"recent": 0}, "recent"),
        (LESS, {"sparse": "sliding"}, "sparse"),
        (LESS, {"rank": 0}, "rank"),
        (LESS, {"hidden": 0}, "hidden"),
        (LESS, {"max_positions": 0}, "max_positions"),
        (Scissorhands, {"budget": 0}, "budget"),
        (Scissorhands, {"drop": 0}, "drop"),
        (Scissorhands, {"budget": 100, "recent": 51}, "recent"),
        (CORM, {"window": 0}, "window"),
        (CORM, {"page": 0}, "page"),
        (SnapStream, {"ring": 0}, "ring"),
        (SnapStream, {"slots": "some"}, "slots"),
        (LaCache, {"span": 0}, "span"),
        (LaCache, {"overlap": 16}, "overlap"),
        (KVCrush, {"important": 2}, "important"),
        (XKV, {"budget": 31}, "budget"),
        (ZigZagKV, {"weights": [1]}, "weights"),
        (BaKlaVa, {"head_weights": [0, 0]}, "head_weights"),
        (AudioKV, {"weights": [1, -1]}, "weights"),
        (AudioKV, {"storage": "packed"}, "storage"),
    ],
)
def test_wrong_options_are_named(policy: type, options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}: found .*expected"):
        policy(**options)
