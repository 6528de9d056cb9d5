"""What keeping costs: kernels and their sources, coverage, combinations with formats."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line, upto
from policies.kv_format.int4 import Int4
from policies.retention.corm import CORM
from policies.retention.elastic import ElasticCache
from policies.retention.h2o import H2O
from policies.retention.kvcrush import KVCrush
from policies.retention.lacache import LaCache
from policies.retention.less import LESS
from policies.retention.scissorhands import Scissorhands
from policies.retention.snapkv import SnapKV
from policies.retention.streaming_llm import StreamingLLM
from policies.retention.xkv import XKV
from policies.sequence.plan import FULL, SequencePolicy
from policies.tables import KV_FORMAT, RETENTION
from tests.policies.layer_cases import fold
from tests.policies.retention_cases import layer

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
