"""The page of a sweep: its numbers are those of the runs, names are text, and broken folders are one line."""

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape

from hw_profiles.errors import InputError
from reports.figures.parallel import parallel
from reports.figures.pareto import front, pareto
from reports.figures.sweep_axes import along, heat, heat_choice
from reports.kinds import write_report
from reports.sweep_data import COST, SweepData, load_sweep_runs
from reports.sweep_report import best_table, headline, render, run_table, target
from sim.whatif.prices import load_prices
from sim.whatif.sweep import chosen_and_run
from sim.whatif.sweep_document import save_sweep
from sim.whatif.sweep_file import load_sweep

NASTY = "</script><img src=x onerror=alert(1)>'\""
SCENARIO = """\
schema: kvsim-scenario/1
trace: {generate: {requests: 30, rate: 8, turns: 2, first_tokens: {mean: 3000, sigma: 1}}}
model: llama-3.1-8b
hardware: {profile: h100-sxm}
engine: {num_gpu_blocks: 4000}
tiers: [{name: hbm}, {name: dram, capacity: 64 GiB, shared: node}]
slo: {ttft_p99: 900ms, tpot_p95: 30ms}
"""
GRID = """\
schema: kvsim-sweep/1
scenario: small.yaml
vary:
  tiers.dram.capacity: [64 GiB, 0 B]
  hardware.replicas: [1, 2, 3]
  engine.num_gpu_blocks: [4000, 900000000]
"""


def made(folder: Path, text: str, name: str = "grid") -> Path:
    """The folder of a sweep that ran."""
    (folder / "small.yaml").write_text(SCENARIO)
    (folder / f"{name}.yaml").write_text(text)
    sweep, out = load_sweep(folder / f"{name}.yaml"), folder / name
    variants, rows = chosen_and_run(sweep, out, workers=1)
    save_sweep(name, sweep, variants, rows, load_prices(), out)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of three axes, half of whose runs do not fit."""
    return made(tmp_path_factory.mktemp("sweep"), GRID)


@pytest.fixture(scope="module")
def data(folder: Path) -> SweepData:
    return load_sweep_runs(folder)


@pytest.fixture(scope="module")
def document(folder: Path) -> dict:
    return json.loads((folder / "sweep.json").read_text())


def test_axes_are_in_order_and_runs_are_those_of_the_table(data, document):
    assert [axis.values for axis in data.axes] == [("0 B", "64 GiB"), ("1", "2", "3"), ("4000", "900000000")]
    assert [run.error is None for run in data.runs] == [True, False] * 6
    for run, told in zip(data.runs, document["runs"], strict=True):
        if run.error is None:
            assert run.measures["ttft_p99_ms"] == told["metrics"]["ttft_p99_ms"]
            gpus = told["gpus"]
            assert gpus == int(told["values"]["hardware.replicas"])
            memory = 64 * 0.00425 if told["values"]["tiers.dram.capacity"] == "64 GiB" else 0
            assert run.measures[COST] == pytest.approx(2.49 * gpus + memory)


@pytest.mark.parametrize("lower", list(product((True, False), repeat=2)))
def test_the_front_is_what_nothing_beats(lower):
    points = [tuple(pair) for pair in np.random.default_rng(3).integers(0, 12, (60, 2)).tolist()]
    signs = [1 if one else -1 for one in lower]

    def beaten(p):
        return any(q != p and all(s * b <= s * a for s, a, b in zip(signs, p, q, strict=True)) for q in points)

    found = [points[i] for i in front(points, lower)]
    assert len(set(found)) == len(found)
    assert {p for p in points if not beaten(p)} == set(found)


def test_the_figure_of_the_front_has_every_run_and_its_values(data):
    x, y = data.measure(COST), data.measure("ttft_p99_ms")
    figure = pareto(data, x, y)
    *clouds, line = figure.data
    assert sum(len(trace["x"]) for trace in clouds) == len(data.done)
    unit = 1e3 if "(s)" in figure.layout["yaxis"]["title"]["text"] else 1
    runs = sorted((run.measures[COST], run.measures["ttft_p99_ms"]) for run in data.done)
    shown = sorted((a, b * unit) for trace in clouds for a, b in zip(trace["x"], trace["y"], strict=True))
    assert np.array(shown) == pytest.approx(np.array(runs), rel=1e-4)
    assert len(line["x"]) == len(figure.items)
    assert all(any(run.label in item for run in data.done) for item in figure.items)


def test_a_cell_is_the_mean_of_its_runs_and_failures_are_marked(data):
    metric = data.measure("ttft_p99_ms")
    dram, replicas, blocks = data.axes
    (trace,) = heat(data, replicas, dram, metric).data
    scale = (lambda v: 10**v) if "tickvals" in trace["colorbar"] else float
    for r, row in enumerate(trace["y"]):
        for c, column in enumerate(trace["x"]):
            (run,) = (run for run in data.done if (run.values[dram.path], run.values[replicas.path]) == (row, column))
            assert scale(trace["z"][r][c]) == pytest.approx(run.measures["ttft_p99_ms"], rel=1e-3)
            assert "1 failed" in trace["customdata"][r][c]
    (failed,) = heat(data, blocks, replicas, metric).data
    assert [line[1] for line in failed["text"]] == ["×"] * 3
    assert all("does not fit" in line[1] or "engine.num_gpu_blocks" in line[1] for line in failed["customdata"])
    assert len(heat_choice(data).menus[0][1]) == 3


def test_lines_go_through_the_runs(data):
    metric = data.measure("ttft_p99_ms")
    figure = along(data, data.axes[1], metric)
    unit = 1e3 if "(s)" in figure.layout["yaxis"]["title"]["text"] else 1
    assert len(figure.data) == 2  # with and without DRAM
    for trace in figure.data:
        assert trace["x"] == ["1", "2", "3"]
        for told, y in zip(trace["customdata"], trace["y"], strict=True):
            (run,) = (run for run in data.done if told.startswith(f"{run.label}: "))
            assert y * unit == pytest.approx(run.measures["ttft_p99_ms"], rel=1e-4)


def test_every_run_is_a_line_through_all_rails(data):
    figure = parallel(data, data.measure("ttft_p99_ms"))
    rails = len(figure.layout["xaxis"]["ticktext"])
    assert sum(trace["x"].count(0) for trace in figure.data) == len(data.done)
    for trace in figure.data:
        assert all(0 <= height <= 1 for height in trace["y"] if height is not None)
        assert len(trace["x"]) % (rails + 1) == 0


def test_of_equal_costs_the_one_furthest_below_its_limits_is_named(data):
    slo = {"ttft_p99": 100.0, "tpot_p95": 100.0}
    first = data.done[0]
    runs = [
        replace(first, label=name, slo_met=True, measures={COST: 5.0, "ttft_p99_ms": ttft, "tpot_p95_ms": tpot})
        for name, ttft, tpot in (("late", 90.0, 10.0), ("early", 40.0, 50.0), ("slow", 10.0, 60.0))
    ]
    runs.append(replace(runs[0], label="dear", measures={**runs[2].measures, COST: 6.0, "tpot_p95_ms": 1.0}))
    equal = replace(data, runs=tuple(runs), slo=slo, search=None)
    assert target(equal).label == "early"
    assert {row[0]: row[2] for row in best_table(equal).rows}["Cost"] == "early"


def test_costs_close_to_each_other_are_not_drawn_from_zero(data):
    cost, ttft = data.measure(COST), data.measure("ttft_p99_ms")
    near = [replace(run, measures={**run.measures, COST: 5 + 0.1 * i}) for i, run in enumerate(data.done)]
    assert "rangemode" not in pareto(replace(data, runs=tuple(near)), cost, ttft).layout["xaxis"]
    near.append(replace(near[0], measures={**near[0].measures, COST: 2.0}))
    assert pareto(replace(data, runs=tuple(near)), cost, ttft).layout["xaxis"]["rangemode"] == "tozero"


def test_the_answer_is_the_cheapest_that_meets_the_slo(data):
    met = [run for run in data.done if run.slo_met]
    assert met
    assert target(data) is min(met, key=lambda run: run.measures[COST])
    assert target(data).label in headline(data)[0]
    assert f"{len(met)} of 12 runs meet the SLO" in headline(data)[1]
    rows = {row[0]: row for row in best_table(data).rows}
    assert rows["TTFT, P99"][2] == min(met, key=lambda run: run.measures["ttft_p99_ms"]).label


def test_the_table_has_every_run_with_what_it_is_sorted_by(data):
    table = run_table(data)
    at = next(i for i, name in enumerate(table.columns) if name.startswith("TTFT, P99"))
    for run, values, state in zip(data.runs, table.values, table.state, strict=True):
        if run.error is None:
            assert values[at] == run.measures["ttft_p99_ms"]
            assert state == ("met" if run.slo_met else "missed")
        else:
            assert (values[-1], state) == (run.error, "failed")


def test_the_page_is_one_small_file_that_asks_for_nothing(folder, tmp_path):
    page = write_report(folder, tmp_path / "deep" / "page.html")
    text = page.read_text("utf-8")
    assert len(text.encode()) < 6_000_000
    assert text == render(load_sweep_runs(folder))
    outside = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", outside)
    assert len(re.findall(r"<script>", text)) == 3
    data = dict(re.findall(r'<script type="application/json" id="([\w-]+)"[^>]*>(.*?)</script>', outside, re.DOTALL))
    assert all(json.loads(one)["data"] for one in data.values())
    for key in re.findall(r'data-figure="([\w-]+)"', outside):
        assert key in data


def test_a_range_is_a_scale_and_a_search_names_what_it_found(tmp_path):
    text = GRID.partition("vary:")[0] + (
        "samples: 10\n"
        "sample: {tiers.dram.capacity: {log_uniform: [1 GiB, 512 GiB]}, hardware.replicas: {uniform: [1, 3]}}\n"
    )
    out = made(tmp_path, text, "random")
    found = load_sweep_runs(out)
    capacity, replicas = found.axes
    assert not capacity.grid
    assert replicas.grid
    assert capacity.unit == "GiB"
    figure = along(found, capacity, found.measure("ttft_p99_ms"))
    assert sorted(figure.data[0]["x"]) == pytest.approx(sorted(r.numbers[capacity.path] for r in found.done), rel=1e-4)
    cells = heat(found, capacity, replicas, found.measure("ttft_p99_ms")).data[0]["z"]
    assert 0 < sum(value is not None for line in cells for value in line) <= 10
    path = out / "sweep.json"
    search = {"metric": "ttft_p99_ms", "largest": False, "meet_slo": False}
    path.write_text(json.dumps({**json.loads(path.read_text()), "search": search, "way": "TPE search"}))
    best = min(found.done, key=lambda run: run.measures["ttft_p99_ms"])
    assert headline(load_sweep_runs(out))[0].startswith(f"Least TTFT, P99: {best.label}")


def test_names_are_text(folder, tmp_path):
    text = (folder / "sweep.json").read_text()
    document = json.loads(text)
    for run in document["runs"]:
        run["label"] = run["label"] + NASTY
        run["values"]["tiers.dram.capacity"] = NASTY + run["values"]["tiers.dram.capacity"]
        run["error"] = run["error"] and NASTY
    for axis in document["axes"]:
        axis["label"] = NASTY + axis["label"]
    document |= {"name": NASTY, "trace": NASTY, "scenario": NASTY, "version": NASTY, "way": NASTY, "currency": NASTY}
    document |= {"price_sources": [NASTY], "no_price": [NASTY], "common": {NASTY: NASTY}}
    for metric in document["metrics"]:
        metric |= {"label": NASTY + metric["label"], "definition": NASTY}
    (tmp_path / "sweep.json").write_text(json.dumps(document))
    page = render(load_sweep_runs(tmp_path))
    assert "<img" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert page.count(str(escape(NASTY))) > 10


def test_a_thousand_runs_make_a_page_below_8_mb(folder, tmp_path):
    document = json.loads((folder / "sweep.json").read_text())
    runs = [run for run in document["runs"] if run["error"] is None]
    many = []
    for k in range(1000):
        run = json.loads(json.dumps(runs[k % len(runs)]))
        run["label"] += f", {'a policy of a long name'}={k}"
        run["metrics"] = {key: value and value * (1 + k / 500) for key, value in run["metrics"].items()}
        many.append(run)
    (tmp_path / "sweep.json").write_text(json.dumps({**document, "runs": many}))
    assert write_report(tmp_path).stat().st_size < 8_000_000


def test_broken_folders_are_one_line(folder, tmp_path):
    document = json.loads((folder / "sweep.json").read_text())
    whole = json.dumps(document)
    cases = {
        whole[: len(whole) // 2]: "not valid JSON",
        "[]": "expected a JSON object",
        json.dumps({**document, "schema": "kvsim-sweep-runs/9"}): "kvsim-sweep-runs/9",
        json.dumps({key: value for key, value in document.items() if key != "axes"}): "axes",
        json.dumps({**document, "runs": [{}]}): "not as kvsim writes it",
        json.dumps({**document, "runs": 3}): "not as kvsim writes it",
        json.dumps({**document, "axes": [{"path": 1}]}): "not as kvsim writes it",
    }
    for text, words in cases.items():
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(InputError) as caught:
            write_report(tmp_path)
        assert words in str(caught.value)
        assert "sweep.json" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "sweep.html").exists()


def test_a_sweep_that_was_killed_says_how_to_go_on(folder, tmp_path):
    (tmp_path / "rows").mkdir()
    with pytest.raises(InputError, match="--resume"):
        write_report(tmp_path)


def test_where_none_meets_the_slo_the_nearest_is_named_and_the_best_are_of_all(tmp_path, monkeypatch):
    strict = SCENARIO.replace("ttft_p99: 900ms", "ttft_p95: 1ms")  # p95 is no metric of the table
    monkeypatch.setattr(f"{__name__}.SCENARIO", strict)
    grid = "schema: kvsim-sweep/1\nscenario: small.yaml\nvary:\n  hardware.replicas: [1, 3]\n"
    found = load_sweep_runs(made(tmp_path, grid))
    worst = {run.label: run.worst for run in found.runs}
    assert worst["replicas=3"][1] < worst["replicas=1"][1]
    assert headline(found)[0].startswith("No run meets the SLO; replicas=3 comes nearest, with TTFT p95 at ")
    assert best_table(found).read == "Among all runs: none meets the SLO."
