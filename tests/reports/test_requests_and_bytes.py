"""Goodput, interactivity, slowest requests, what became of prompts and bytes: all equal the numbers of the run."""

import json

import numpy as np
import pytest

from reports.bins import time_bins
from reports.figures.base import time_axis
from reports.figures.flow import COMPUTED, NEVER, REUSED, flow_figures, flows
from reports.figures.goodput import goodput, interactivity, meets_slo
from reports.figures.memory import budget_parts, budget_table, hbm_budget
from reports.figures.parts import part_bars
from reports.figures.slowest import MOST, slowest_figures, slowest_rows, slowest_tables, waterfall_parts
from reports.load import load_run
from reports.request_tables import percentile_table, reuse_table
from reports.text import seconds


@pytest.fixture(scope="module")
def run(shared_run):
    return load_run(shared_run)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The quickstart with its 300 first requests and an SLO that some of them miss."""
    from pathlib import Path

    from kvsim import Scenario

    example = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
    changed = [
        ("trace.limit", 300),
        ("slo", {"ttft_p99": "60 ms", "tpot_p95": "9 ms"}),
        ("tiers.dram.capacity", "20 GiB"),
    ]
    return load_run(Scenario.load(example).set_all(changed).run().save(tmp_path_factory.mktemp("run") / "run"))


@pytest.fixture(scope="module")
def axis(run):
    return time_axis(time_bins(run.start_s, run.end_s, len(run.arrivals)))


def of(run):
    return time_axis(time_bins(run.start_s, run.end_s, len(run.arrivals)))


def total(figure, name):
    (trace,) = [t for t in figure.data if t["name"] == name]
    return np.nansum(np.array(trace["y"], dtype=float))


def test_goodput_is_that_of_the_summary(real):
    axis = of(real)
    met = meets_slo(real)
    assert 0 < met.sum() < real.finished.rows
    assert met.mean() == pytest.approx(real.summary["slo"]["attainment"])
    figure = goodput(real, axis)
    assert total(figure, "within the SLO") * axis.bins.width == pytest.approx(met.sum(), rel=1e-3)
    assert total(figure, "finished") * axis.bins.width == pytest.approx(real.finished.rows, rel=1e-3)
    assert total(figure, "within the SLO") * axis.bins.width / real.summary["duration_s"] == pytest.approx(
        real.summary["slo"]["goodput_per_s"], rel=1e-3
    )


def test_without_an_slo_goodput_says_why_it_is_empty(make_run_dir, tmp_path):
    run = load_run(make_run_dir(tmp_path, n=50, replicas=1, span=50, steps=10, slo={}))
    assert "No SLO" in goodput(run, of(run)).empty


def test_interactivity_of_the_whole_run_is_tokens_over_seconds_of_decoding(run, axis):
    figure = interactivity(run, axis)
    mean = figure.data[1]
    done = run.finished
    decoding = (done["finish_s"] - done["first_token_s"]).sum()
    assert mean["x"][0] == pytest.approx((done["output_tokens"] - 1).sum() / decoding, rel=1e-3)
    span = run.end_s - run.start_s
    assert mean["y"][0] == pytest.approx(done["output_tokens"].sum() / span / run.replicas, rel=1e-3)
    bins = figure.data[0]
    assert len(bins["x"]) == len(bins["y"]) <= axis.bins.count
    assert sum(bins["y"]) * axis.bins.width * run.replicas == pytest.approx(done["output_tokens"].sum(), rel=1e-2)


def test_percentiles_are_those_of_the_table_of_requests(real):
    rows = {row[0]: row[1:] for row in percentile_table(real).rows}
    for name, label in (("ttft", "TTFT"), ("tpot", "TPOT"), ("e2e", "E2E")):
        column = real.finished[f"{name}_s"]
        column = column[np.isfinite(column)]
        wanted = [column.mean(), *np.percentile(column, [50, 90, 95, 99]), column.max()]
        assert rows[label] == tuple(seconds(float(value)) for value in wanted)


def test_every_prompt_token_is_in_one_row(real):
    (table,) = reuse_table(real)
    assert [row[0] for row in table.rows] == [
        "computed for the first time", "computed again", "reused from HBM", "reused from DRAM",
    ]  # fmt: skip
    prefix = real.summary["prefix"]
    assert sum(int(row[1].replace(",", "")) for row in table.rows) == prefix["input_tokens"]
    assert prefix["computed_again_tokens"] > 0
    assert int(table.rows[1][1].replace(",", "")) == prefix["computed_again_tokens"]


def test_slowest_requests_are_the_slowest_and_their_parts_add_up(real):
    for span in ("ttft", "e2e"):
        column = real.finished[f"{span}_s"]
        rows = slowest_rows(real, span)
        assert len(rows) == MOST
        assert column[rows].tolist() == sorted(column.tolist(), reverse=True)[:MOST]
        names, parts = waterfall_parts(real, span)
        assert parts.sum(axis=1) == pytest.approx(column[rows])
        assert names.index("queue") < names.index("load_dram") < names.index("prefill")
    figures, tables = slowest_figures(real), slowest_tables(real)
    ids = [row[0] for row in tables[0].rows]
    assert figures[0].data[0]["y"] == [f"request {i}" for i in ids]
    first = real.finished["request_id"] == int(ids[0])
    assert tables[0].rows[0][6] == seconds(float(real.finished["ttft_s"][first][0]))


def test_bars_of_the_slowest_are_as_long_as_their_times(real):
    names, parts = waterfall_parts(real, "e2e")
    bars = part_bars(real, ["x"] * len(parts), names, parts, "s")
    lengths = np.sum([bar["x"] for bar in bars], axis=0)
    longest = np.sort(real.finished["e2e_s"])[::-1][:MOST]
    assert lengths == pytest.approx(longest, rel=0.01)  # parts that nobody could see are in the table alone


def test_bands_of_the_flow_are_the_bytes_of_the_run(real):
    tiers, bands = real.summary["tiers"], flows(real)
    links = real.summary["links"]
    assert bands["hbm", "dram"] == links["pcie_d2h"]["bytes"] == tiers["dram"]["stored_bytes"]
    assert bands["dram", REUSED] == links["pcie_h2d"]["bytes"] == tiers["dram"]["loaded_bytes"]
    assert bands["dram", NEVER] == tiers["dram"]["never_loaded_bytes"]
    assert bands["hbm", REUSED] == tiers["hbm"]["loaded_bytes"]
    assert bands[COMPUTED, "hbm"] + links["pcie_h2d"]["bytes"] == tiers["hbm"]["stored_bytes"]
    assert tiers["dram"]["evicted_bytes"] > 0


def test_what_comes_back_through_a_tier_is_told_from_its_own(shared_run, tmp_path):
    """100 B go from the SSD to DRAM, 250 B from DRAM to HBM: 100 of these had come from behind."""
    from dataclasses import replace

    from reports.load import Codes, Table

    run = load_run(shared_run)
    names, why = ("hbm", "dram", "ssd"), ("load", "store")
    moved = {"bytes": np.array([100.0, 250.0, 400.0])}
    texts = {
        "src": Codes(np.array([2, 1, 0]), names),
        "dst": Codes(np.array([1, 0, 1]), names),
        "reason": Codes(np.array([0, 0, 1]), why),
    }
    tiers = {"hbm": {"stored_bytes": 650, "loaded_bytes": 10}, "dram": {"never_loaded_bytes": 5}, "ssd": {}}
    summary = {**run.summary, "tiers": tiers}
    made = replace(run, summary=summary, tiers=names, transfers=Table(3, moved, texts))
    assert flows(made) == {
        (COMPUTED, "hbm"): 400, ("hbm", REUSED): 10, ("hbm", "dram"): 400, ("ssd", "back in DRAM"): 100,
        ("back in DRAM", REUSED): 100, ("dram", REUSED): 150, ("dram", NEVER): 5,
    }  # fmt: skip


def test_stored_is_of_use_or_was_never_loaded(real):
    figure = flow_figures(real)[1]
    of_use, vain = (np.array(trace["x"]) for trace in figure.data)
    stored = np.array([tier["stored_bytes"] for tier in real.summary["tiers"].values()])
    assert (of_use + vain) * stored.max() / (of_use + vain).max() == pytest.approx(stored, rel=1e-3)


def test_the_memory_of_a_gpu_is_whole(real):
    budget = real.summary["hardware"]["hbm_budget"]
    parts = budget_parts(real)
    assert sum(size for _, size, _, _ in parts) == pytest.approx(budget["total"])
    assert {label: size for label, size, _, _ in parts}["KV blocks"] == budget["kv"]
    (figure,) = hbm_budget(real)
    assert sum(trace["x"][0] for trace in figure.data) * 2**30 == pytest.approx(budget["total"], rel=1e-3)
    assert len(budget_table(real)[0].rows) == len(parts) + 1


def test_a_run_without_these_numbers_leaves_their_parts_out(run_dir):
    path = run_dir / "summary.json"
    summary = json.loads(path.read_text())
    del summary["hardware"]["hbm_budget"], summary["prefix"]["computed_again_tokens"]
    path.write_text(json.dumps({**summary, "tiers": {}}))
    run = load_run(run_dir)
    assert hbm_budget(run) == budget_table(run) == reuse_table(run) == []
    assert all(figure.empty for figure in flow_figures(run))
