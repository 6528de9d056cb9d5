"""The page of a comparison: complete, offline, and what it says is what was found."""

import html
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import InputError
from kvsim.cli.main import run
from reports.compare_data import Compared, changed, load_comparison
from reports.compare_report import render
from reports.compare_tables import within_tables
from reports.compare_text import cells, difference_text, headline
from reports.figures.compared import cdfs, goodput_figure, link_choice, parts, sources
from reports.figures.differences import differences
from reports.kinds import write_report
from sim.scenario import Scenario
from sim.whatif.compare import LESS, SAME, UNSURE, Comparison, Difference, Row, compare
from sim.whatif.runs import Job, run_jobs
from sim.whatif.variants import expand

SCENARIO = """\
schema: kvsim-scenario/1
trace: {generate: {requests: 120, rate: 6, turns: 3, first_tokens: {mean: 2500, sigma: 1}}}
model: llama-3.1-8b
hardware: {profile: h100-sxm}
engine: {num_gpu_blocks: 4000}
tiers: [{name: hbm}, {name: dram, capacity: 16 GiB, shared: node}]
slo: {ttft_p99: 1s, tpot_p95: 30ms}
"""


@pytest.fixture(scope="module")
def found() -> Comparison:
    """The shipped trace on one replica with little memory, and with more."""
    document = {
        "schema": "kvsim-scenario/1",
        "trace": {"name": "quickstart", "limit": 1200},
        "model": "llama-3.1-8b",
        "hardware": {"profile": "h100-sxm"},
        "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "30 GiB"}],
    }
    variants = expand(Scenario.from_dict(document), [("tiers.dram.capacity", ["0 B", "30 GiB", "300 GiB"])])
    return compare([[run] for run in run_jobs([Job.of(v.label, v.scenario) for v in variants], workers=1)])


def test_points_are_the_differences_in_per_cent(found: Comparison) -> None:
    figure = differences(found)
    assert [trace["name"] for trace in figure.data] == ["30 GiB", "300 GiB"]
    rows = {row.metric["label"]: row for row in found.rows}
    for place, trace in enumerate(figure.data):
        assert len(trace["y"]) > 5
        for label, x, up, down in zip(
            trace["y"], trace["x"], trace["error_x"]["array"], trace["error_x"]["arrayminus"], strict=True
        ):
            points = label.endswith(", points")
            row = rows[label.removesuffix(", points")]
            assert points == (row.metric["unit"] == "%")
            difference, first = row.differences[place], 100 if points else row.values[0]
            assert x == pytest.approx(100 * difference.value / first, rel=1e-4)
            assert up == pytest.approx(100 * (difference.high - difference.value) / first, rel=1e-4)
            assert down == pytest.approx(100 * (difference.value - difference.low) / first, rel=1e-4)


def test_percentages_are_in_points_in_the_chart() -> None:
    metric = {"key": "hit_ratio", "label": "Prefix hit ratio", "unit": "%", "better": "higher"}
    row = Row(metric, (20.0, 15.0), (Difference(-5.0, -6.0, -4.0, LESS),))
    (trace,) = differences(Comparison(("a", "b"), (row,), ("",), ())).data
    assert list(trace["x"]) == [-5.0]
    assert list(trace["y"]) == ["Prefix hit ratio, points"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `kvsim compare` writes: a policy, another one and a bound, two seeds each."""
    top = tmp_path_factory.mktemp("compare")
    (top / "small.yaml").write_text(SCENARIO)
    vary = ("--vary", "policies.eviction=lru,s3fifo,belady")
    assert (
        run(["compare", str(top / "small.yaml"), *vary, "--seeds", "2", "--workers", "1", "--out", str(top / "c")]) == 0
    )
    return top / "c"


@pytest.fixture(scope="module")
def compared(folder: Path) -> Compared:
    return load_comparison(folder)


def test_the_page_needs_nothing_else_and_shows_every_number(compared: Compared, folder: Path, tmp_path: Path) -> None:
    page = write_report(folder, tmp_path / "page.html").read_text("utf-8")
    assert page == (folder / "compare.html").read_text("utf-8")
    assert len(page.encode()) < 8_000_000
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", outside)
    (figure,) = re.findall(r'<script type="application/json" id="differences-data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(figure)["data"]
    shown = [html.unescape(cell) for cell in re.findall(r'<td class="n">([^<]*)</td>', outside)]
    found = compared.named
    for row in found.rows:
        assert [cell for cell in cells(found, row)[2:] if cell not in shown] == []
    assert headline(found)[1].startswith("belady (bound) against lru")
    assert all(sentence in html.unescape(page) for sentence in headline(found))


def test_what_was_written_reads_back_as_it_was(compared: Compared, folder: Path) -> None:
    document = json.loads((folder / "compare.json").read_text())
    again = compared.found.document()
    assert again["metrics"] == document["metrics"]
    assert again["methods"] == document["methods"]
    assert [entry["run"] for entry in document["variants"]] == ["1-lru", "2-s3fifo", "3-belady"]


def test_a_bound_is_called_one(compared: Compared, folder: Path) -> None:
    assert [one.name for one in compared.variants] == ["lru", "s3fifo", "belady (bound)"]
    page = (folder / "compare.html").read_text("utf-8")
    assert "knows the future" in page
    assert "belady (bound)" in page


def test_what_changed_is_the_setting_alone(compared: Compared) -> None:
    rows = changed(compared.variants)
    assert [row for row in rows if "eviction" in row[0]] == [("policies.eviction.name", ["lru", "s3fifo", "belady"])]


def test_curves_are_those_of_the_requests(compared: Compared) -> None:
    for metric in ("ttft", "tpot", "e2e"):
        figure = cdfs(compared.variants, metric)
        assert [trace["name"] for trace in figure.data] == [one.name for one in compared.variants]
        for one, trace in zip(compared.variants, figure.data, strict=True):
            column = np.sort(one.run.finished[f"{metric}_s"])
            column = column[np.isfinite(column)]
            for x, y in list(zip(trace["x"], trace["y"], strict=True))[::7]:
                share = 100 * np.searchsorted(column, x * (1 + 1e-4), side="right") / len(column)
                assert share == pytest.approx(y, abs=100 / len(column) + 0.1)


@pytest.mark.parametrize("span", ["ttft", "e2e"])
@pytest.mark.parametrize("group", ["all", "slowest"])
def test_bars_of_parts_add_up_to_the_mean(compared: Compared, span: str, group: str) -> None:
    figure = parts(compared.variants, span, group, "")
    unit = 1e3 if "(s)" in figure.layout["xaxis"]["title"]["text"] else 1
    sums = np.sum([trace["x"] for trace in figure.data], axis=0) * unit
    means = [one.run.summary["attribution"][f"{span}_ms"][group]["mean"] for one in compared.variants]
    assert sums == pytest.approx(means, rel=0.01)


def test_goodput_links_and_hits_are_those_of_the_summaries(compared: Compared) -> None:
    figure = goodput_figure(compared.variants)
    for one, trace in zip(compared.variants, figure.data, strict=True):
        count = sum(trace["y"]) * trace["dx"]
        slo = one.run.summary["slo"]
        assert count == pytest.approx(slo["attainment"] * one.run.summary["requests"]["arrived"], rel=1e-3)
    hits = sources(compared.variants)
    totals = np.sum([trace["x"] for trace in hits.data], axis=0) / 100
    assert totals == pytest.approx([one.run.summary["prefix"]["hit_ratio"] for one in compared.variants], rel=1e-3)
    moved = link_choice(compared.variants).figures[0,]
    for one, trace in zip(compared.variants, moved.data, strict=True):
        found = [link["bytes"] for link in one.run.summary["links"].values() if "queue_p99_ms" in link]
        assert [x * 2**30 for x in trace["x"]] == pytest.approx(found, rel=1e-4)


def test_policies_within_sequences_have_their_coverage_and_bytes(compared: Compared) -> None:
    assert within_tables(compared.variants) == []
    did = {
        "policies": [{"name": "h2o"}],
        "h2d_bytes": 2**30,
        "d2h_bytes": 0,
        "move_wait_s": 1.5,
        "coverage": {"x": 0.9},
    }
    first, *others = compared.variants
    told = replace(first, run=replace(first.run, summary={**first.run.summary, "within": did}))
    (table,) = within_tables([told, *others])
    rows = {row[0]: [cell.replace("\u00a0", " ") for cell in row[1:]] for row in table.rows}
    assert rows["Attention covered by x"] == ["90 %", "–", "–"]
    assert rows["Moved toward the GPUs"][0] == "1 GiB"


def test_names_are_text(folder: Path, tmp_path: Path) -> None:
    nasty = "</script><img src=x onerror=alert(1)>"
    shutil.copytree(folder, tmp_path / "c")
    path = tmp_path / "c" / "compare.json"
    text = path.read_text().replace('"s3fifo"', json.dumps(nasty)).replace('"3 seeds', json.dumps(nasty)[:-1])
    path.write_text(text)
    scenario = tmp_path / "c" / "2-s3fifo" / "scenario.yaml"
    scenario.write_text(scenario.read_text() + f"note: '{nasty}'\n")
    page = render(load_comparison(tmp_path / "c"))
    assert "<img" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert page.count("&lt;img") >= 5


def test_broken_folders_are_one_line(folder: Path, tmp_path: Path) -> None:
    def refused(change: Callable[[Path], object]) -> str:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        (copy / "compare.html").unlink()
        change(copy)
        with pytest.raises(InputError) as caught:
            write_report(copy)
        assert "\n" not in str(caught.value)
        assert not (copy / "compare.html").exists()
        return str(caught.value)

    def rewritten(**changes: object) -> Callable[[Path], object]:
        document = {**json.loads((folder / "compare.json").read_text()), **changes}
        return lambda copy: (copy / "compare.json").write_text(json.dumps(document))

    assert "kvsim-compare/0" in refused(rewritten(schema="kvsim-compare/0"))
    assert "not as kvsim writes it" in refused(rewritten(metrics=[{"key": 1}]))
    assert "not as kvsim writes it" in refused(rewritten(variants=[{}]))
    assert "not valid JSON" in refused(lambda copy: (copy / "compare.json").write_text('{"schema": '))
    assert "2-s3fifo" in refused(lambda copy: shutil.rmtree(copy / "2-s3fifo"))
    assert "requests.parquet" in refused(lambda copy: (copy / "1-lru" / "requests.parquet").write_bytes(b"PAR1"))
    variants = json.loads((folder / "compare.json").read_text())["variants"]
    other = [{**variants[0], "config_sha256": "0"}, *variants[1:]]
    assert "another configuration" in refused(rewritten(variants=other))
    none = [{**variants[0], "run": None}, *variants[1:]]
    assert "--out" in refused(rewritten(variants=none))


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (Difference(-12.34, -15.0, -9.8, LESS), "-12.3 [-15, -9.8]"),
        (Difference(0.4, -1.0, 2.0, UNSURE), "~ +0.4 [-1, +2]"),
        (Difference(0.0, 0.0, 0.0, SAME), "0"),
        (None, "–"),
    ],
)
def test_differences_in_words(difference: Difference | None, text: str) -> None:
    assert difference_text(difference, "ms") == text


def test_the_headline_tells_names_with_commas_apart(found: Comparison) -> None:
    text = headline(found)[0]
    for metric in ("TTFT, mean", "E2E, mean"):
        before = text[: text.index(metric)]
        assert before.endswith((": ", "; "))
