"""The page of a cache study: complete, offline, and what it says is what the study holds."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports.cache_report import grid, headline, render
from reports.figures.hit_curve import hit_curves
from reports.kinds import write_report
from sim.cache.save import save_study
from sim.cache.study import Row, Study, run_study
from traces.request import Trace

NASTY = "<img src=x onerror='window.pwned=1'></script><script>window.pwned=2</script>"


def make_study(*sizes: int | None, policies: tuple[str, ...] = ("lru", "fifo"), bounds: bool = True) -> Study:
    rng = np.random.default_rng(2)
    counts = rng.integers(1, 6, 80)
    trace = Trace(
        name="made",
        block_tokens=16,
        arrival_s=np.arange(80.0),
        input_tokens=counts * 16,
        output_tokens=np.ones(80),
        hash_ids=np.concatenate([np.arange(n) + 7 * rng.integers(0, 9) for n in counts]),
        hash_offsets=np.concatenate(([0], np.cumsum(counts))),
        content_sha256="",
        source="made",
    )
    return run_study(trace, policies, sizes, bounds=bounds)


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study(640, None, 80, 200)


def test_the_curves_hold_every_policy_and_both_bounds_by_capacity(study: Study) -> None:
    hits, blocks = hit_curves(study)
    for figure, key in ((hits, "hit_ratio"), (blocks, "block_hit_ratio")):
        assert [line["name"] for line in figure.data] == ["lru", "fifo", "belady"]
        assert figure.layout["xaxis"]["type"] == "log"
        for line in figure.data:
            assert line["x"] == [80, 200, 640]
            rows = study.curve(line["name"])
            assert line["y"] == pytest.approx([100 * getattr(row, key) for row in rows], rel=1e-4)
        assert figure.layout["shapes"][0]["y0"] == pytest.approx(100 * getattr(study.unbounded, key))
        low, high = figure.layout["xaxis"]["range"]
        assert low < np.log10(80) < np.log10(640) < high
        assert all(low <= np.log10(tick) <= high for tick in figure.layout["xaxis"]["tickvals"])
    assert "bounds block hits and not this share" in hits.read
    assert "No policy can be above belady" in blocks.read


def test_a_policy_that_drops_by_age_has_its_own_figure_without_a_limit(study: Study) -> None:
    lost = replace(study, ceilings=(Row("lru", None, 0.125, 0), *study.ceilings[1:]))
    name, rows = grid(lost)[-1]
    assert (name, [row.hit_ratio for row in rows]) == ("unbounded", [0.125, *2 * [study.unbounded.hit_ratio]])


def test_the_finding_names_the_capacity_where_policies_differ_most(study: Study) -> None:
    gaps = {
        rows[0].capacity_tokens: abs(rows[0].hit_ratio - rows[1].hit_ratio)
        for rows in zip(study.curve("lru"), study.curve("fifo"), strict=True)
    }
    size = max(gaps, key=lambda key: gaps[key])
    assert hit_curves(study)[0].finding.startswith(f"Policies differ most at {size} tok: ")
    assert hit_curves(make_study(80, policies=("lru",)))[0].finding == ""


@pytest.mark.parametrize("sizes", [(80,), (10**12,), (16, 10**9), (100, 110)])
def test_every_range_of_capacities_has_a_labelled_axis(sizes: tuple[int, ...]) -> None:
    axis = hit_curves(make_study(*sizes))[0].layout["xaxis"]
    assert axis["range"][0] < np.log10(sizes[0]) <= np.log10(sizes[-1]) < axis["range"][1]
    assert 1 <= len(axis["tickvals"]) == len(axis["ticktext"]) <= 12


def test_the_page_needs_nothing_else_and_shows_every_number(study: Study, tmp_path: Path) -> None:
    save_study(study, tmp_path / "new")
    path = write_report(tmp_path / "new")
    page = path.read_text("utf-8")
    assert page == render(study)  # nothing is lost on the way through the file
    assert path == tmp_path / "new" / "cache.html"
    assert "default-src 'none'" in html.unescape(page)
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", outside)
    figures = re.findall(r'<script type="application/json" id="([a-z-]+)-data">(.*?)</script>', page, re.DOTALL)
    assert [key for key, _ in figures] == ["hit-ratio", "block-hit-ratio"]
    assert all(json.loads(text)["data"] for _, text in figures)
    cells = re.findall(r'<td class="n">([0-9.]+)</td>', outside)
    shown = [row for _, rows in grid(study) for row in rows]
    expected = [f"{100 * row.hit_ratio:.2f}" for row in shown] + [f"{100 * row.block_hit_ratio:.2f}" for row in shown]
    assert cells == expected
    assert len(cells) == 2 * 4 * 3
    assert headline(study) in page
    assert "It does not bound the hit ratio in tokens" in page


def test_names_are_text(study: Study) -> None:
    row = replace(study.rows[0], policy=NASTY)
    nasty = replace(study, trace=NASTY, policies=(NASTY,), rows=(row,), belady=(), capacities=(640,))
    page = render(nasty)
    assert "<img src=x" not in page
    assert page.count("&lt;img src=x") >= 4


def test_the_headline_asks_for_most_of_what_can_be_had() -> None:
    study = make_study(80, 160)
    rows = [Row("lru", 80, 0.2, 0), Row("lru", 160, 0.37, 0), Row("fifo", 80, 0.1, 0), Row("fifo", 160, 0.38, 0)]
    study = replace(study, rows=tuple(rows), unbounded=Row("unbounded", None, 0.4, 0))
    assert headline(study).startswith("160 tok with fifo reach a hit ratio of 38.0")
    assert "95.0" in headline(study)
    study = replace(study, unbounded=Row("unbounded", None, 0.5, 0))  # nobody gets that far: the largest
    assert headline(study).startswith("160 tok with fifo reach a hit ratio of 38.0")
    study = replace(study, unbounded=Row("unbounded", None, 0.2, 0))
    assert headline(study).startswith("80 tok with lru reach a hit ratio of 20.0")
    assert headline(replace(study, unbounded=Row("unbounded", None, 0.0, 0))).startswith("No prompt of this trace")
    assert headline(make_study(None)).startswith("An unbounded cache reaches ")


def test_only_the_unbounded_cache_has_no_curve_to_draw() -> None:
    figure = hit_curves(make_study(None))[0]
    assert figure.empty
    assert "Only the unbounded cache was asked for." in render(make_study(None))
