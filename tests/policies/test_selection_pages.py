"""Selection of pages, ArkVale and Quest: memory and bytes by the papers' arithmetic."""

from dataclasses import replace

import pytest

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line, constant, upto
from policies.selection.arkvale import ArkVale
from policies.selection.infinigen import InfiniGen
from policies.selection.pqcache import PQCache
from policies.selection.quest import Quest
from policies.sequence.plan import FULL
from tests.policies.selection_cases import Stub, layer, model, moved

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
