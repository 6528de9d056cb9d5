"""The fitted page process: how well it fits, that the shipped tables are its own, limits and monotony."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import numpy as np
import pytest

from hw_profiles.errors import InputError
from hw_profiles.lines import NOTHING
from traces.importance import coverage, grid
from traces.importance.pages import PAGE_TOKENS, PINNED_SCORE, SETTINGS, STEPS, Setting, page_scores
from traces.importance.published import cells, recalls_at
from traces.importance.replay import recalls
from traces.importance.synthetic import ERROR, LEAST, Synthetic, recall_points
from traces.random import stream

MIXTURE = {90: 0.25, 200: 0.35, 350: 0.25, 550: 0.15}
"""Pages of the contexts that the process was fitted to, and their weights (docs/importance.md)."""
FITTED, HELD_OUT, FAILS = (4, 8, 16, 32, 40), (6, 12, 24), (64,)
PUBLISHED = {  # rms logarithmic error: rows fitted to, rows held out, the row that no setting reproduces
    "recommended": (0.50, 0.55, 1.9),
    "best_log": (0.45, 0.41, 2.0),
    "slow": (0.47, 0.39, 2.1),
}


def predicted(setting: str, selected: int, cached: int) -> float:
    line = Synthetic(setting).recalls(selected, cached, PAGE_TOKENS)
    return sum(weight * line.at(pages * PAGE_TOKENS, 0) for pages, weight in MIXTURE.items())


def rms(setting: str, rows: tuple[int, ...]) -> float:
    errors = [math.log(max(predicted(setting, k, c), 1e-3) / recalls_at(k, c)) for k, c in cells(rows)]
    return math.sqrt(sum(error**2 for error in errors) / len(errors))


@pytest.mark.parametrize("setting", SETTINGS)
def test_it_fits_arkvales_matrix_as_well_as_published(setting):
    assert (len(cells(FITTED)), len(cells(HELD_OUT)), len(cells(FAILS))) == (32, 21, 3)
    found = [rms(setting, rows) for rows in (FITTED, HELD_OUT, FAILS)]
    fitted, held_out, fails = PUBLISHED[setting]
    assert found[0] < fitted + 0.02
    assert found[1] < held_out + 0.02
    assert found[2] == pytest.approx(fails, abs=0.15)  # no setting reproduces it: selected * page_tokens <= 1280


def test_where_recalls_are_many_the_recommended_setting_is_close():
    """Cells of 0.1 or more per layer and step: median error 11 %, all but one (4 of 6 pages, 56 %) within 45 %."""
    many = [(k, c) for k, c in cells(FITTED + HELD_OUT) if recalls_at(k, c) >= 0.1]
    errors = sorted(abs(predicted("recommended", k, c) / recalls_at(k, c) - 1) for k, c in many)
    assert len(many) == 27
    assert float(np.median(errors)) < 0.115
    assert errors[-2] < 0.45
    assert errors[-1] < 0.56


@pytest.mark.parametrize("pages", [12, 48])
def test_the_shipped_recalls_are_what_the_command_makes(pages):
    place = grid.PAGES.index(pages)
    for setting in SETTINGS if pages == 12 else ("slow",):
        made = grid.make_grid(setting, pages=(pages,))[:, :, 0]
        shipped = grid.shipped(setting).values[:, :, place]
        assert np.array_equal(np.isnan(made), np.isnan(shipped))
        one = 2 / grid.layers_for(pages) / STEPS  # a page or two: the last digit of a logarithm may differ
        assert np.nanmax(np.abs(made - shipped)) < one


def test_the_shipped_coverage_is_what_the_command_makes():
    made, shipped = coverage.make_coverage("best_log", pages=coverage.PAGES[:2]), coverage.shipped("best_log").missed
    assert made == pytest.approx(shipped[:, :2], rel=1e-5)


@pytest.mark.parametrize(("selected", "cached", "pages"), [(16, 24, 350), (20, 50, 300), (40, 128, 938)])
def test_lines_agree_with_a_simulation_between_the_points_of_the_table(selected, cached, pages):
    draws = stream(99, "test", pages)
    scores = page_scores(SETTINGS["recommended"], pages, draws, steps=STEPS, layers=10)
    line = Synthetic().recalls(selected, cached, 32)
    assert line.at(pages * 32, 0) == pytest.approx(recalls(scores, selected, [cached])[0], rel=0.15)


def test_a_larger_cache_recalls_less_and_one_as_large_as_the_context_nothing():
    for selected in (4, 11, 16, 40):
        for pages in (60, 300, 1000, 4000):
            sizes = sorted({min(selected * part // 4, pages) for part in (4, 5, 6, 8, 12, 16, 24, 48)})
            found = [Synthetic().recalls(selected, size, 32).at(pages * 32, 0) for size in sizes]
            steps = [low / high - 1 for high, low in pairwise(found) if high > LEAST]
            assert max(steps, default=0) < ERROR, (selected, pages, found)  # no more than a line may be off
            assert found[-1] == 0 or sizes[-1] < pages
    line = Synthetic().recalls(16, 64, 32)
    assert [line.at(n, 0) for n in (0, 100, 2047, 2048)] == pytest.approx([0] * 4, abs=1e-12)
    assert line.at(2049, 0) > 0


def test_a_longer_context_recalls_no_less_and_never_more_than_is_selected():
    for selected, cached in ((4, 4), (8, 16), (40, 64), (40, 128)):
        line = Synthetic("best_log").recalls(selected, cached, 32)
        found = [line.at(n, 0) for n in range(0, 2_000_000, 9_973)]
        assert min(np.diff(found)) >= -1e-9
        assert max(found) <= selected


def test_the_settings_differ_where_the_data_does_not_tell_them_apart():
    found = [Synthetic(setting).recalls(40, 128, 32).at(30_000, 0) for setting in SETTINGS]
    assert len({round(value, 3) for value in found}) == 3


def test_what_is_always_selected_is_never_recalled():
    for selected in (1, 2, 3):
        assert Synthetic().recalls(selected, 8, 32) == NOTHING
    four = Synthetic().recalls(4, 8, 32).at(10_000, 0)
    assert 0 < four < 1


def test_sizes_beyond_the_table_are_simulated_and_said():
    began = time.process_time()
    provider = Synthetic()
    line = provider.recalls(200, 1500, 16)
    assert time.process_time() - began < 4
    assert line.at(1500 * 16, 0) == pytest.approx(0, abs=1e-9)
    assert 0 < line.at(3000 * 16, 0) < 200
    assert len(provider.notes) == 2
    assert "200 selected pages of 16 tokens are more than the 1280 tokens" in provider.notes[0]
    assert "pages of 16 tokens are taken to change as those of 32 do" in provider.notes[1]
    began = time.process_time()
    line = provider.recalls(4000, 32_768, 32)
    assert time.process_time() - began < 4
    assert 0 < line.at(2_097_152, 0) < 4000
    quiet = Synthetic()
    quiet.recalls(40, 64, 32)
    assert quiet.notes == ()


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ((0, 8, 32), "selected pages: nothing can be recalled, found 0, expected 1 or more"),
        ((8, 4, 32), "a cache must hold the 8 pages that are selected, found 4"),
        ((8, 16, 0), "tokens of a page"),
        ((8, 40_000, 32), "a page cache this large is not simulated, found 40000, expected <= 32768 pages"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(sizes, says):
    with pytest.raises(InputError) as error:
        Synthetic().recalls(*sizes)
    assert says in str(error.value)


def test_coverage_is_all_of_it_or_what_ten_pages_hold():
    for setting in SETTINGS:
        provider = Synthetic(setting)
        assert provider.coverage(320, 550 * 32) == pytest.approx(0.99, abs=1e-3)
        assert provider.coverage(5000, 5000) == 1.0
        assert provider.coverage(0, 5000) == 0.0
        for context in (40, 300, 5000, 100_000):
            found = [provider.coverage(context * part / 40, context) for part in range(41)]
            assert found == sorted(found)
        by_context = [provider.coverage(200, context) for context in (200, 400, 1600, 6400, 100_000, 5_000_000)]
        assert by_context == sorted(by_context, reverse=True)


def test_keys_and_coverage_tell_the_same_story():
    """Keys come from InfiniGen, coverage from ArkVale: 164 tokens hold 0.9, in whole pages somewhat more."""
    provider = Synthetic()
    for context in (2000, 8000, 17_600):
        assert 0.88 < provider.coverage(provider.keys_for(0.9).at(context, 0), context) < 0.98


def test_the_process_is_the_one_described():
    """Variance, correlation over tau steps, tails of Student's t with 3 degrees of freedom, pinned pages."""
    still = page_scores(Setting(50, 0.0, 0.0, ""), 4000, stream(1, "drift"), steps=51, layers=2)
    assert (still[:, :, [0, -2, -1]] == PINNED_SCORE).all()
    first, last = still[0, :, 1:-2].ravel(), still[50, :, 1:-2].ravel()
    assert float(np.var(last)) == pytest.approx(1, rel=0.05)
    assert float(np.corrcoef(first, last)[0, 1]) == pytest.approx(math.exp(-1), abs=0.03)
    spread = page_scores(Setting(1, 0.0, 3.0, ""), 4000, stream(1, "spread"), steps=30, layers=1)
    assert float(np.var(spread[:, :, 1:-2].mean(axis=0))) == pytest.approx(9, rel=0.1)
    jitter = math.sqrt(3) * 1000
    tails = page_scores(Setting(1, jitter, 0.0, ""), 4000, stream(1, "tails"), steps=10, layers=1)[:, :, 1:-2] / 1000
    for value, share in ((0.765, 0.5), (2.353, 0.1), (5.841, 0.01)):  # two-sided quantiles of t(3)
        assert float((np.abs(tails) > value).mean()) == pytest.approx(share, rel=0.1)


def test_the_same_everywhere():
    scores = [page_scores(SETTINGS["slow"], 60, stream(0, "same"), steps=20, layers=2) for _ in range(2)]
    assert np.array_equal(*scores)
    assert recall_points.__wrapped__("slow", 200, 300) == recall_points.__wrapped__("slow", 200, 300)


def test_a_line_takes_few_terms():
    """The engine keeps a sum for each of them."""
    for selected, cached in ((8, 16), (16, 32), (32, 64), (40, 128), (80, 256)):
        assert len(Synthetic().recalls(selected, cached, 32).caps) <= 12
