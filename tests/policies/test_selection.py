"""Selection within a sequence: memory and bytes by the papers' arithmetic, limit cases, ablations, combinations."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, NOTHING, Line, constant, upto
from policies.selection.arkvale import ArkVale
from policies.selection.infinigen import InfiniGen
from policies.selection.kcache import KCache
from policies.selection.pqcache import PQCache
from policies.selection.quest import Quest
from policies.sequence.plan import FULL, Form, LayerPlan, LayerView, SequencePolicy
from policies.tables import SELECTION

MIB = 1 << 20
QUARTER = constant(0.25)


@dataclass(frozen=True)
class Stub:
    """Importance data that answer the same whatever is asked."""

    pages: Line = QUARTER
    keys: Line = CONTEXT * 0.08
    hits: float = 0.6
    name: str = "stub"

    def recalls(self, selected: int, cached: int, page_tokens: int) -> Line:
        return self.pages

    def keys_for(self, mass: float) -> Line:
        return self.keys

    def hit_ratio(self, cached_tokens: int, selected_tokens: int, block_tokens: int) -> float:
        return self.hits

    def coverage(self, kept: float, context: float) -> float:
        return min(1.0, kept / context)


def layer(
    heads: int = 32, layers: int = 32, kv_heads: int | None = None, importance: Stub = Stub(), **changes: Any
) -> LayerView:
    """A layer of a model with heads of 128 and 16-bit KV; Llama-2-7B (32 x 32) if nothing else is said."""
    kv = kv_heads or heads
    view = LayerView(
        index=5,
        layers=layers,
        hidden=heads * 128,
        heads=heads,
        kv_heads=kv,
        head_dim=128,
        token_bytes=2 * kv * 128 * 2,
        element_bytes=2,
        latent=False,
        window=None,
        max_context=32768,
        max_seqs=64,
        importance=importance,
    )
    return replace(view, **changes)


def moved(plan: LayerPlan, direction: str, context: float, prompt: float = 0.0, when: str | None = None) -> float:
    """Bytes that a decode step moves for one sequence and this layer."""
    moves = [m for m in plan.moves if m.direction == direction and when in (None, m.when)]
    return sum(m.nbytes.at(context, prompt) for m in moves)


def model(policy: SequencePolicy, view: LayerView, before: LayerPlan = FULL) -> list[LayerPlan]:
    """The plans of all layers."""
    return [policy.plan(replace(view, index=i), before) for i in range(view.layers)]


# ---- every policy


BIG = {"arkvale": {"budget": 32768}, "quest": {"budget": 32768}, "pqcache": {"budget": 1.0, "recent": 1.0}}


@pytest.mark.parametrize("name", BIG)
def test_budget_of_the_whole_context_changes_nothing(name: str) -> None:
    policy = SELECTION[name](**BIG[name])
    assert all(plan is FULL for plan in model(policy, layer()))


@pytest.mark.parametrize("name", SELECTION)
def test_latent_caches_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="MLA has none"):
        SELECTION[name]().plan(layer(latent=True), FULL)


@pytest.mark.parametrize("name", [n for n in SELECTION if n != "quest"])
def test_what_was_dropped_cannot_be_recalled(name: str) -> None:
    with pytest.raises(InputError, match="drops"):
        SELECTION[name]().plan(layer(), replace(FULL, kept=upto(512), attended=upto(512)))


@pytest.mark.parametrize("name", [n for n in SELECTION if n != "quest"])
def test_bytes_on_the_link_shrink_with_the_format(name: str) -> None:
    """A format at a quarter of the bytes moves a quarter of the KV; codes and guesses stay as they are."""
    quarter = replace(FULL, form=Form(key=0.25, value=0.25))
    policy = SELECTION[name]()
    plain, packed = policy.plan(layer(), FULL), policy.plan(layer(), quarter)
    codes = 0.0
    if isinstance(policy, PQCache):
        codes = 8000 * policy.code_bytes(layer()) + policy.centroid_bytes(layer())
    assert moved(packed, "h2d", 8000, 8000) - codes == pytest.approx((moved(plain, "h2d", 8000, 8000) - codes) / 4)
    assert moved(packed, "d2h", 8000, 8000) == pytest.approx(moved(plain, "d2h", 8000, 8000) / 4)


@pytest.mark.parametrize("name", [n for n in SELECTION if n not in ("quest", "zipvl")])
def test_host_memory_holds_all_kv(name: str) -> None:
    """Every selector but Quest and ZipVL has a copy of what it may need in host memory: KV, or values for KCache."""
    view = layer()
    host = SELECTION[name]().plan(view, FULL).host.at(9000, 9000)
    share = 0.5 if name == "kcache" else 1.0
    codes = 9000 * PQCache().code_bytes(view) if name == "pqcache" else 0.0
    assert host == pytest.approx(share * 9000 * view.token_bytes + codes)


@pytest.mark.parametrize("name", SELECTION)
def test_coverage_is_that_of_the_tokens_read(name: str) -> None:
    """The stub covers as much as it reads (InfiniGen: the mass that it reads the tokens of); a layer that is left
    alone covers all."""
    policy, n = SELECTION[name](), 20_000
    read = policy.plan(layer(), FULL).attended.at(n, n)
    assert policy.coverage(layer(), n, n) == pytest.approx(0.9 if name == "infinigen" else read / n)
    if name in ("arkvale", "quest", "infinigen"):
        assert policy.coverage(layer(index=0), n, n) == 1.0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("arkvale", {"budget": 0}),
        ("arkvale", {"efficiency": 2.0}),
        ("infinigen", {"max_share": 0.0}),
        ("infinigen", {"prefetch": "no"}),
        ("infinigen", {"gather_rate": "3 apples"}),
        ("pqcache", {"bits": 0}),
        ("pqcache", {"hit_ratio": 1.5}),
        ("kcache", {"via": "dma"}),
        ("quest", {"page": 0}),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: found"):
        SELECTION[name](**options)


# ---- ArkVale


def test_arkvale_page_is_512_kib() -> None:
    """LongChat-7B, 32 tokens: one recall moves 512 KiB, as one copy; one page in 32 steps is backed up."""
    plan = ArkVale(budget=2048).plan(layer(importance=Stub(pages=constant(1.0))), FULL)
    recall = next(m for m in plan.moves if m.direction == "h2d")
    assert recall.when == "critical"
    assert recall.nbytes.at(20_000, 0) == 512 * 1024
    assert recall.copies.at(20_000, 0) == 1.0
    backup = next(m for m in plan.moves if m.direction == "d2h")
    assert backup.when == "async"
    assert 32 * backup.nbytes.at(20_000, 0) == 512 * 1024
    assert 32 * backup.copies.at(20_000, 0) == 1.0


def test_arkvale_memory_and_digests() -> None:
    """30 layers x min(n, c) tokens, 2 layers whole, and digests of 1 / 32 of all KV; read once per step."""
    view, n = layer(), 30_000
    plans = model(ArkVale(budget=4096), view)
    assert [p.plain for p in plans].count(True) == 2
    assert plans[0].plain
    assert plans[1].plain
    assert plans[2].kept.at(n, n) == 4096
    assert plans[2].extra.at(n, n) == pytest.approx(n * view.token_bytes / 32)
    score = plans[2].works[0]
    assert score.nbytes.at(n, n) == pytest.approx(n * view.token_bytes / 32 + view.token_bytes / 2)
    # batch 4, 30 layers, 1.5 TB/s: 1.23 ms at full rate, as the reference derives from Fig. 9
    assert 4 * 30 * score.nbytes.at(n, n) / 1.54e12 == pytest.approx(1.23e-3, rel=0.05)


@pytest.mark.parametrize(("n", "milliseconds"), [(10_000, 1.56), (20_000, 2.43), (30_000, 2.5)])
def test_arkvale_digests_take_what_fig_9_shows(n: int, milliseconds: float) -> None:
    """Batch 4, 30 layers, an A100 PCIe whose HBM reads 1.685 TB/s: within the 11 % of the fit."""
    score = ArkVale().plan(layer(), FULL).works[0]
    each = score.seconds + 4 * score.nbytes.at(n, n) / (score.efficiency * 1.685e12)
    assert 30e3 * each == pytest.approx(milliseconds, rel=0.12)


@pytest.mark.parametrize(("budget", "attended"), [(512, 256), (1024, 512), (2048, 1024), (4096, 1280)])
def test_arkvale_attends_k_pages(budget: int, attended: int) -> None:
    """k = min(40 x 32, c / 2); a sequence that fits into the budget is read whole and recalls nothing."""
    plan = ArkVale(budget=budget).plan(layer(), FULL)
    assert plan.attended.at(20_000, 0) == attended
    assert plan.attended.at(budget, 0) == plan.kept.at(budget, 0) == budget
    assert moved(plan, "h2d", budget) == 0.0
    assert moved(plan, "h2d", 20_000) > 0.0


def test_arkvale_prompt_goes_out_as_it_is_computed() -> None:
    view = layer()
    (backup,) = ArkVale().plan(view, FULL).prompt_moves
    assert backup.direction == "d2h"
    assert backup.when == "async"
    assert backup.nbytes.at(10_000, 0) == 10_000 * view.token_bytes
    assert backup.copies.at(32_000, 0) == 1000


def test_arkvale_knobs_move_what_they_should() -> None:
    view, n = layer(), 20_000
    plan = ArkVale(budget=2048).plan(view, FULL)
    assert ArkVale(budget=2048, page=16).plan(view, FULL).extra.at(n, 0) == 2 * plan.extra.at(n, 0)
    grouped = ArkVale(budget=2048, groups=4).plan(view, FULL)
    assert grouped.moves[0].copies.at(n, 0) == 4 * plan.moves[0].copies.at(n, 0)
    assert grouped.moves[0].nbytes == plan.moves[0].nbytes
    assert ArkVale(budget=2048, selected=512).plan(view, FULL).attended.at(n, 0) == 512
    assert ArkVale(budget=64, sinks=3, windows=4).plan(view, FULL).kept.at(n, 0) == 8 * 32
    assert ArkVale(full_layers=6).plan(view, FULL) is FULL


def test_arkvale_takes_lines_of_the_context_as_they_are() -> None:
    """Importance data that say themselves where recalls begin are not changed."""
    pages = Line(caps=((5000, 1e-4),))
    plan = ArkVale(budget=2048).plan(layer(importance=Stub(pages=pages)), FULL)
    assert plan.moves[0].copies.at(1000, 0) == pytest.approx(0.1)


# ---- Quest


def test_quest_loads_one_page_th_and_the_budget() -> None:
    """Of n tokens: n / page for the digests and min(n, budget) of KV; HBM grows by 1 / page, nothing crosses a link."""
    view, n = layer(), 32_768
    plan = Quest(budget=2048).plan(view, FULL)
    read = plan.attended.at(n, 0) * view.token_bytes + plan.works[0].nbytes.at(n, 0)
    share = read / (n * view.token_bytes)
    assert share == pytest.approx(1 / 16 + 2048 / n, rel=1e-3)
    assert plan.kept == CONTEXT
    assert plan.extra.at(n, 0) == n * view.token_bytes / 16
    assert not plan.moves
    assert plan.host.zero
    assert Quest().plan(layer(index=1), FULL) is FULL


def test_quest_selects_among_what_retention_keeps() -> None:
    kept = replace(FULL, kept=upto(8192), attended=upto(8192))
    plan = Quest(budget=1024).plan(layer(), kept)
    assert plan.attended.at(30_000, 0) == 1024
    assert plan.extra.at(30_000, 0) == 8192 * layer().token_bytes / 16
    with pytest.raises(InputError, match="selected already"):
        Quest().plan(layer(), replace(FULL, attended=upto(100)))


def test_windows_within_the_budget_are_left_alone() -> None:
    view = layer(window=1024)
    assert Quest(budget=2048).plan(view, FULL) is FULL
    assert ArkVale(budget=2048).plan(view, FULL) is FULL
    assert PQCache().plan(view, FULL) is FULL
    assert InfiniGen().plan(view, FULL).host.at(20_000, 0) == 1024 * view.token_bytes


def test_windows_beyond_the_budget_are_selected_from() -> None:
    """What the engine hands over for such a layer: everything kept, the window attended."""
    view, before = layer(window=8192), replace(FULL, attended=upto(8192))
    quest = Quest(budget=1024).plan(view, before)
    assert quest.attended.at(30_000, 0) == 1024
    assert quest.extra.at(30_000, 0) == 8192 * view.token_bytes / 16
    arkvale = ArkVale(budget=2048).plan(view, before)
    assert arkvale.kept.at(30_000, 0) == 2048
    assert arkvale.host.at(30_000, 0) == 8192 * view.token_bytes


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
