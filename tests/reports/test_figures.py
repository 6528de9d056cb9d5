import json
from dataclasses import replace

import numpy as np
import pytest

from reports.bins import time_bins
from reports.figures.base import Figure, plot_text, script_safe, time_axis, values
from reports.figures.cache import cache_figures
from reports.figures.latency import latency_figures
from reports.figures.links import link_figures
from reports.figures.load import engine_time, load_figures
from reports.figures.parts import split_groups
from reports.figures.replica_time import MOST_BARS, replica_time
from reports.load import load_run
from reports.tables import priority_tables
from sim.time_split import PARTS

KV_BYTES = 131072


@pytest.fixture(scope="module")
def run(shared_run):
    return load_run(shared_run)


@pytest.fixture(scope="module")
def axis(run):
    return time_axis(time_bins(run.start_s, run.end_s, len(run.arrivals)))


@pytest.fixture(scope="module")
def figures(run, axis):
    made = [f(run, axis) for f in (load_figures, cache_figures, link_figures, latency_figures)]
    return {figure.key: figure for family in [*made, [engine_time(run, axis)]] for figure in family}


def trace(figure: Figure, name: str) -> np.ndarray:
    """The y values of a trace, gaps as NaN."""
    (found,) = [t for t in figure.data if t["name"] == name]
    return np.array(found["y"], dtype=float)


def test_every_figure_explains_itself(figures):
    for figure in figures.values():
        assert figure.title
        assert figure.read.endswith(".")
        assert not figure.empty
        axes = [v for k, v in figure.layout.items() if k.startswith(("xaxis", "yaxis")) and "showgrid" not in v]
        assert len(axes) >= 1
        assert all(a["title"]["text"] for a in axes)


@pytest.mark.parametrize("span", ["ttft", "e2e"])
def test_groups_add_up_to_the_mean(run, span):
    labels, parts, means = split_groups(run, span)
    assert labels == ["fastest half", "p50 to p90", "p90 to p99", "slowest 1 %", "all requests"]
    assert means.shape == (5, len(parts))
    assert means[-1].sum() == pytest.approx(run.finished[f"{span}_s"].mean())
    longest = np.sort(run.finished[f"{span}_s"])
    assert means[3].sum() == pytest.approx(longest[int(np.ceil(0.99 * len(longest))) :].mean())
    assert means[:4].sum(axis=1).tolist() == sorted(means[:4].sum(axis=1))


def test_one_request_makes_one_group_and_the_mean(make_run_dir, tmp_path):
    labels, _, means = split_groups(load_run(make_run_dir(tmp_path, n=1, replicas=1, steps=3)), "ttft")
    assert len(labels) == len(means) == 2
    assert means[0].tolist() == means[1].tolist()


def test_cdf_passes_through_the_percentiles_and_marks_the_slo(run, figures):
    figure = figures["cdf-ttft"]
    x, y = np.array(figure.data[0]["x"]), np.array(figure.data[0]["y"])
    assert np.interp(50, y, x) == pytest.approx(np.percentile(run.finished["ttft_s"], 50), rel=0.02)
    assert (figure.data[1]["x"], figure.data[1]["y"]) == ([30.0], [99.0])
    assert figure.layout["shapes"][0]["x0"] == 30.0
    assert len(figures["cdf-e2e"].data) == 1  # no target on E2E


def test_request_rates_hold_every_request(run, axis, figures):
    figure = figures["requests-per-second"]
    assert trace(figure, "arrived").sum() * axis.bins.width == pytest.approx(1500, rel=1e-3)
    assert trace(figure, "finished").sum() * axis.bins.width == pytest.approx(1497, rel=1e-3)


def test_token_rates_hold_every_token(run, axis, figures):
    figure = figures["tokens-per-second"]
    for name, column in (("input", "input_tokens"), ("output", "output_tokens")):
        assert trace(figure, name).sum() * axis.bins.width == pytest.approx(run.finished[column].sum(), rel=1e-3)


def test_token_sources_add_up_to_the_prompts(run, axis, figures):
    figure = figures["token-sources"]
    total = sum(trace(figure, name).sum() for name in ("HBM hit", "DRAM hit", "computed")) * axis.bins.width
    assert total == pytest.approx(run.finished["input_tokens"].sum(), rel=1e-3)


def test_hit_ratio_is_hits_over_prompts_of_the_bin(run, axis, figures):
    where = axis.bins.index(run.finished["admit_s"])
    inside = where == axis.bins.count // 2
    expected = run.finished["hit_hbm_tokens"][inside].sum() / run.finished["input_tokens"][inside].sum()
    assert trace(figures["hit-ratio"], "HBM")[axis.bins.count // 2] == pytest.approx(100 * expected, rel=1e-3)


def test_link_rate_holds_every_byte_and_utilisation_every_busy_second(run, axis, figures):
    summary = run.summary["links"]["pcie_h2d"]
    share = axis.bins.width * run.replicas
    rate = trace(figures["link-rate"], "PCIe, host to GPU")
    assert rate.sum() * share * 1e9 == pytest.approx(summary["bytes"], rel=1e-3)
    busy = trace(figures["link-busy"], "PCIe, host to GPU")
    assert busy.sum() * share / 100 == pytest.approx(summary["busy_s"], rel=1e-3)


def test_engine_parts_add_up_to_the_busy_time(run, axis, figures):
    """Steps, and what they waited before they began for evicted blocks to leave."""
    figure = figures["engine-time"]
    total = sum(np.array(t["y"]).sum() for t in figure.data) / 100 * axis.bins.width * run.replicas
    busy = (run.steps["end_s"] - run.steps["start_s"]).sum()
    assert total == pytest.approx(busy + run.steps["stall_s"].sum(), rel=1e-2)
    assert trace(figure, "slowed by copies").sum() / np.array(figure.data[0]["y"]).sum() == pytest.approx(
        0.03 / 0.55, rel=1e-2
    )


def test_occupancy_sums_instances_and_draws_the_capacity(run, figures):
    figure = figures["occupancy-0"]
    capacity = run.summary["tiers"]["hbm"]["capacity_bytes"]
    assert figure.layout["shapes"][0]["y0"] == pytest.approx(capacity / 2**30)
    assert trace(figure, "used").max() == pytest.approx(0.97 / 2 * capacity / 2**30, rel=1e-3)  # 4 of 8 instances
    assert "4 instances" in figure.read
    assert "instances" not in figures["occupancy-1"].read


def test_queue_samples_are_summed_over_replicas(run, figures):
    s = run.samples
    mask = s.texts["metric"].mask("running")
    last = s["time_s"][mask].max()
    assert trace(figures["running-waiting"], "running")[-1] == s["value"][mask & (s["time_s"] == last)].sum()


def test_figures_with_nothing_to_show_say_why(make_run_dir, tmp_path):
    run = load_run(make_run_dir(tmp_path, n=40, replicas=2, rejected=40, steps=3))
    axis = time_axis(time_bins(run.start_s, run.end_s, len(run.arrivals)))
    empty = [f for family in (latency_figures, cache_figures, link_figures) for f in family(run, axis) if f.empty]
    assert {f.key for f in empty} >= {"ttft-split", "cdf-ttft", "ttft-time", "token-sources", "link-rate"}
    assert all(not f.data for f in empty)


def test_json_cannot_end_a_script_and_stays_the_same_json():
    nasty = "</script><!--\u2028&\u2029"
    safe = script_safe(json.dumps(nasty, ensure_ascii=False))
    assert not set("<>&\u2028\u2029") & set(safe)
    assert json.loads(safe) == nasty


def test_gaps_are_null_and_digits_are_few():
    assert values(np.array([np.nan, 1.23456789, np.inf])) == [None, 1.2346, None]


def test_plot_text_shows_markup_as_text():
    assert plot_text("<b>&") == "&lt;b&gt;&amp;"


@pytest.mark.parametrize("count", [1, 3, 40])
def test_bars_of_replica_time_add_up(run, count):
    parts = [(1.0 + i, 2.0, 0.5, 0.5, 6.0 - i % 5) for i in range(count)]
    rows = [dict(zip(PARTS, row, strict=True)) for row in parts]
    split = {part: sum(row[part] for row in rows) for part in PARTS} | {"replicas": rows}
    figure = replica_time(replace(run, summary={**run.summary, "replica_time": split}))
    bars = np.array([trace["x"] for trace in figure.data])
    assert bars.shape == (5, 1 if count == 1 else 1 + min(count, MOST_BARS))
    assert bars.sum(axis=0) == pytest.approx(100, abs=0.01)
    assert ("have a bar" in figure.finding) == (count > MOST_BARS)


def test_priorities_have_a_table_where_there_are_some(run):
    assert priority_tables(run) == []
    stats = {f"{name}_ms": {"mean": 250.0, "p99": 1000.0} for name in ("ttft", "e2e", "queue")}
    rows = [{"priority": p, "requests": 10, "preemptions": p, **stats} for p in (0, 1)]
    (table,) = priority_tables(replace(run, summary={**run.summary, "priorities": rows}))
    assert [row[0] for row in table.rows] == ["0", "1"]
    assert table.rows[1][2] == "1"
    assert table.rows[0][3].replace("\xa0", " ") == "250 ms"
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_a_summary_without_replica_time_has_no_bars(run):
    assert replica_time(replace(run, summary={})).empty


def test_the_tail_of_a_bin_is_called_what_it_is(run, axis):
    """The 99th percentile of a few requests is their slowest; of hundreds it is not."""

    def shown(every):
        figure = next(f for f in latency_figures(run, every) if f.key == "ttft-time")
        return [line["name"] for line in figure.data], figure.finding

    assert run.finished.rows / axis.bins.count < 100
    names, finding = shown(axis)
    assert names == ["slowest", "median"]
    assert "slowest request" in finding
    times = run.finished["arrival_s"]
    few = time_axis(replace(time_bins(run.start_s, run.end_s, 1), count=max(1, run.finished.rows // 150)))
    assert len(times) / few.bins.count >= 100
    names, finding = shown(few)
    assert names == ["p99", "median"]
    assert "p99 is" in finding
