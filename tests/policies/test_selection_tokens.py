"""Selection of tokens, InfiniGen, PQCache and KCache: memory and bytes by the papers' arithmetic."""

from dataclasses import replace

import pytest

from hw_profiles.lines import CONTEXT, NOTHING, Line
from policies.selection.infinigen import InfiniGen
from policies.selection.kcache import KCache
from policies.selection.pqcache import PQCache
from policies.sequence.plan import FULL, Form
from tests.policies.selection_cases import MIB, Stub, layer, model, moved

# ---- InfiniGen


OPT_13B = layer(heads=40, layers=40, max_context=2048)


def test_infinigen_partial_keys_of_opt_13b() -> None:
    """5.0 GB at batch 20, 2048 tokens, ratio 0.3 (its layers but the first)."""
    partial = 2048 * OPT_13B.token_bytes / 2 * 0.3
    assert 20 * 40 * partial == pytest.approx(5.03e9, rel=0.01)
    plan = InfiniGen(partial_ratio=0.3).plan(OPT_13B, FULL)
    buffers = 2 / 40 * 0.08 * 2048 * OPT_13B.token_bytes
    assert plan.extra.at(2048, 1920) == pytest.approx(partial + buffers)
    assert plan.kept == NOTHING
    assert plan.fixed_extra == 0.3 * 5120 * 5120 * 2


def test_infinigen_fetches_8_percent_ahead_and_the_first_layers_everything() -> None:
    """Fig. 18, batch 8, 2048 tokens: 335.5 MB per layer in all, of which 8 % cross the link."""
    plans = model(InfiniGen(), OPT_13B)
    whole = 8 * 2048 * OPT_13B.token_bytes
    assert whole == pytest.approx(335.5e6, rel=1e-3)
    assert 8 * moved(plans[0], "h2d", 2048, when="critical") == whole
    assert plans[0] == plans[1]
    assert plans[0].attended == CONTEXT
    # one buffer for all KV of a layer, which both use
    assert sum(p.extra.at(2048, 0) for p in plans[:2]) == 2048 * OPT_13B.token_bytes
    for plan in plans[2:]:
        assert 8 * moved(plan, "h2d", 2048, when="ahead") == pytest.approx(0.08 * whole)
        assert moved(plan, "h2d", 2048, when="critical") == 0.0
        assert moved(plan, "d2h", 2048) == OPT_13B.token_bytes
        assert plan.attended.at(2048, 0) == pytest.approx(0.08 * 2048)
    assert next(m for m in plans[2].moves if m.direction == "h2d").via == "gather"


def test_infinigen_without_prefetch_waits() -> None:
    """The ablation moves the same bytes; the layer waits for them."""
    ahead, late = InfiniGen().plan(OPT_13B, FULL), InfiniGen(prefetch=False).plan(OPT_13B, FULL)
    assert moved(late, "h2d", 2048, when="critical") == moved(ahead, "h2d", 2048, when="ahead") > 0
    assert moved(late, "h2d", 2048, when="ahead") == 0.0


def test_infinigen_fetches_at_most_its_share() -> None:
    """Keys for the mass until they are 20 % of the context: below that share only."""
    keys = Line(base=60.0, slope=0.05)
    policy = InfiniGen(max_share=0.2)
    fetched = policy.attended(layer(importance=Stub(keys=keys)))
    for n in (1, 100, 399, 400, 401, 2000, 20_000):
        assert fetched.at(n, 0) == pytest.approx(min(60 + 0.05 * n, 0.2 * n))
    everything = InfiniGen(max_share=1.0).plan(layer(importance=Stub(keys=CONTEXT)), FULL)
    assert moved(everything, "h2d", 5000) == 5000 * layer().token_bytes


# ---- PQCache


MISTRAL = layer(kv_heads=8, max_context=32768)


def test_pqcache_codes_are_0_59_percent_of_the_keys() -> None:
    assert PQCache().code_bytes(MISTRAL) / (MISTRAL.token_bytes / 2) == pytest.approx(0.0059, rel=0.01)
    assert PQCache().centroid_bytes(MISTRAL) == 8 * 64 * 128 * 2
    plan = PQCache().plan(MISTRAL, FULL)
    codes = 20_000 * PQCache().code_bytes(MISTRAL) + PQCache().centroid_bytes(MISTRAL)
    assert moved(plan, "h2d", 20_000, 20_000, when="ahead") == pytest.approx(codes)


def test_pqcache_gathers_what_the_gpu_cache_misses() -> None:
    """Half of a fifth of the prompt is selected; 40 % of it is not in the cache; the other half is the newest."""
    p = 16_384
    plan = PQCache().plan(MISTRAL, FULL)
    selected = 0.2 * 0.5 * (p - 32)
    assert moved(plan, "h2d", p, p, when="critical") == pytest.approx(0.4 * selected * MISTRAL.token_bytes)
    assert plan.attended.at(p, p) == pytest.approx(32 + 0.2 * (p - 32))
    assert plan.kept.at(p, p) == pytest.approx(32 + 0.1 * (p - 32) + 4096)
    assert moved(plan, "d2h", p, p) == MISTRAL.token_bytes
    assert plan.attended.at(20, 20) == 20


def test_pqcache_more_cache_fewer_bytes() -> None:
    """No cache misses everything; one that holds the longest sequence misses nothing."""
    p = 16_384
    none, some, all_ = (PQCache(cache=c).plan(MISTRAL, FULL) for c in (0, 4096, 32_768))
    critical = [moved(plan, "h2d", p, p, when="critical") for plan in (none, some, all_)]
    assert moved(some, "h2d", 4096, 4096, when="critical") == 0.0  # a prompt that the cache holds
    assert critical[0] == pytest.approx(0.1 * (p - 32) * MISTRAL.token_bytes)
    assert critical[0] > critical[1] > critical[2] == 0.0
    told = PQCache(hit_ratio=0.9).plan(MISTRAL, FULL)
    assert moved(told, "h2d", p, p, when="critical") == pytest.approx(0.25 * critical[1])


def test_pqcache_codes_of_the_first_layer_and_without_prefetch_are_waited_for() -> None:
    first = PQCache().plan(replace(MISTRAL, index=0), FULL)
    assert moved(first, "h2d", 9000, 9000, when="ahead") == 0.0
    late = PQCache(prefetch=False).plan(MISTRAL, FULL)
    ahead = PQCache().plan(MISTRAL, FULL)
    assert moved(late, "h2d", 9000, 9000) == moved(ahead, "h2d", 9000, 9000)
    assert moved(late, "h2d", 9000, 9000, when="ahead") == 0.0


def test_pqcache_clusters_beside_the_prompt() -> None:
    """K-means: 2 x keys x width x centroids x iterations FLOP, on all cores; a twelfth of them: 12 times as long."""
    many, few = (PQCache(cores=c).plan(MISTRAL, FULL).prompt_works[0] for c in (48, 4))
    assert many.beside
    assert few.beside
    assert many.host_seconds.at(30_000, 0) == pytest.approx(30_000 * 2 * 8 * 128 * 64 * 3 / (48 * 10e9))
    assert few.host_seconds.at(30_000, 0) == pytest.approx(12 * many.host_seconds.at(30_000, 0))


# ---- KCache


@pytest.mark.parametrize(("selected", "megabytes"), [(32, 8.4), (64, 16.8), (128, 33.6)])
def test_kcache_bytes_of_a_step(selected: int, megabytes: float) -> None:
    """Values of N tokens of 32 heads in 32 layers."""
    plans = model(KCache(selected=selected), layer())
    assert sum(moved(plan, "h2d", 15_000) for plan in plans) == pytest.approx(megabytes * 1e6, rel=0.01)


def test_kcache_keeps_the_keys_and_scores_them_first() -> None:
    view, n = layer(), 15_000
    plan = KCache().plan(view, FULL)
    assert plan.form.of(plan.kept).at(n, 0) == n / 2
    keys = n * view.token_bytes / 2
    assert keys < plan.works[0].nbytes.at(n, 0) < 1.1 * keys
    # attention then reads N rows of values
    assert plan.form.of(plan.attended).at(n, 0) * view.token_bytes == 128 * view.token_bytes / 2
    (fetch,) = (m for m in plan.moves if m.direction == "h2d")
    assert fetch.when == "critical"
    assert fetch.via == "zero_copy"
    assert KCache(via="gather").plan(view, FULL).moves[0].rate == 30e9
    assert KCache(full_layers=6).plan(view, FULL) is FULL


def test_kcache_takes_fewer_rows_than_it_selects_from_short_contexts() -> None:
    plan = KCache(selected=128).plan(layer(), FULL)
    assert moved(plan, "h2d", 50) == 50 * layer().token_bytes / 2


def test_kcache_of_quantised_values() -> None:
    """Keys stay as the format stores them; values cross the link as it does."""
    form = Form(key=0.5, value=0.25, key_full=64, value_full=64)
    view = layer()
    plan = KCache().plan(view, replace(FULL, form=form))
    assert plan.form.of(plan.kept).at(10_000, 0) == pytest.approx((10_000 * 0.5 + 64 * 0.5) / 2)
    assert moved(plan, "h2d", 10_000) == 128 * view.token_bytes / 2 * 0.25
    assert moved(plan, "h2d", 10_000) < 4 * MIB
