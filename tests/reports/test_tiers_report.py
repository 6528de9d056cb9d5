"""The report of a run over four tiers, with layer-wise loads, prefetches and conversations: nothing is missing."""

import numpy as np
import pytest

from kvsim import Scenario
from kvsim.cli._summary import print_summary
from reports.bins import time_bins
from reports.figures.base import time_axis
from reports.figures.cache import cache_figures, hits_by_turn
from reports.figures.links import away, link_figures, link_order
from reports.figures.load import engine_time
from reports.figures.prefetch import prefetch_figures
from reports.kinds import write_report
from reports.load import load_run
from reports.tables import bound_tables, link_tables, prefetch_table, tier_table, time_table
from reports.text import binary_bytes, number, percent, seconds, tier_label

TIERS = ("hbm", "dram", "ssd", "remote")
SCENARIO = {
    "schema": "kvsim-scenario/1",
    "trace": {
        "clients": {
            "clients": 12,
            "conversations": 2,
            "rounds": {"min": 3, "max": 14},
            "system_tokens": 512,
            "first_input_tokens": 3000,
            "input_tokens": 500,
            "output_tokens": 60,
            "think_time": "2 s",
            "max_parallel": 6,
            "block_tokens": 64,
        }
    },
    "model": "llama-3.1-8b",
    "hardware": {"profile": "h100-sxm", "replicas": 2, "gpus_per_node": 2},
    "engine": {"num_gpu_blocks": 800, "loading": {"mode": "layerwise"}},
    "tiers": [
        {"name": "hbm"},
        {"name": "dram", "capacity": "2 GiB", "shared": "node"},
        {"name": "ssd", "capacity": "6 GiB", "shared": "node"},
        {"name": "remote", "capacity": "100 GiB", "shared": "cluster"},
    ],
    "links": {"dram": {"bandwidth": "200 GB/s"}, "pcie_h2d": {"bandwidth": "4 GB/s"}},
    "policies": {"eviction": "lru", "offload": "write_through", "prefetch": {"name": "next_turn", "into": "dram"}},
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return Scenario.from_dict(SCENARIO).run(check=True).save(tmp_path_factory.mktemp("tiers") / "run")


@pytest.fixture(scope="module")
def run(run_dir):
    return load_run(run_dir)


@pytest.fixture(scope="module")
def axis(run):
    return time_axis(time_bins(run.start_s, run.end_s, len(run.arrivals)))


def rows(table):
    return {row[0]: row[1:] for row in table.rows}


def test_the_run_has_what_the_report_must_show(run):
    """Else the tests below would compare zeros."""
    summary = run.summary
    assert all(summary["prefix"]["hit_tokens"][tier] > 0 for tier in TIERS)
    assert summary["prefetch"]["used_bytes"] > 0
    assert summary["time"]["layer_wait_s"] > 0
    assert len(summary["prefix"]["turns"]) > 5
    assert all(
        summary["links"][f"{tier}_{way}"]["bytes"] > 0 for tier in ("ssd", "remote") for way in ("read", "write")
    )


def test_the_tier_table_has_every_field_of_every_tier(run):
    table = tier_table(run)
    assert table.columns == ("Field", *(tier_label(tier) for tier in TIERS))
    cells, tiers = rows(table), run.summary["tiers"]
    fields = run.summary["definitions"]["tiers"]
    for key, field in fields.items():
        if key == "count" or key.startswith("prefetch"):
            continue
        for i, tier in enumerate(TIERS):
            spell = binary_bytes if field["unit"] == "B" else number
            assert cells[field["label"]][i].startswith(spell(tiers[tier][key]))
    assert cells["Instances"] == ("2, one per replica", "1, one per node", "1, one per node", "1, one for all")
    assert cells["Made of"] == ("GPU memory", "host memory", "nvme-gen4", "rdma-200g")
    prompt, hits = run.summary["prefix"]["input_tokens"], run.summary["prefix"]["hit_tokens"]
    assert cells["Prompt tokens reused"] == tuple(f"{number(hits[t])} ({percent(hits[t] / prompt)})" for t in TIERS)
    assert {term for term, _ in table.terms} == set(cells)
    assert all(meaning for _, meaning in table.terms)


def test_the_time_table_holds_all_the_time_of_the_replicas(run):
    cells, spent = rows(time_table(run)), run.summary["time"]
    assert len(cells) == len(spent) + 1
    whole = 2 * np.nanmax(run.finished["finish_s"])
    assert cells["all"][:2] == ("100\u00a0%", seconds(whole))
    assert cells["waiting for layers"][:2] == (percent(spent["layer_wait_s"] / whole), seconds(spent["layer_wait_s"]))
    assert all(row[-1] for row in cells.values())


def test_the_link_table_has_both_directions_of_every_link(run):
    (table,) = link_tables(run)
    cells, links = rows(table), run.summary["links"]
    assert len(cells) == len(links)
    reason = run.transfers.texts["reason"]
    for name, label in (
        ("ssd_read", "SSD, read"),
        ("remote_write", "remote, write"),
        ("pcie_d2h", "PCIe, GPU to host"),
    ):
        of_link = run.transfers.texts["link"].mask(name)
        parts = [run.transfers["bytes"][of_link & reason.mask(why)].sum() for why in ("load", "prefetch", "store")]
        assert sum(parts) == links[name]["bytes"]
        assert cells[label][1:5] == tuple(binary_bytes(part) for part in (links[name]["bytes"], *parts))
        assert cells[label][-2:] == (percent(links[name]["utilization"]), seconds(links[name]["queue_p99_ms"] / 1e3))
    assert cells["SSD, read"][0] == "1"
    assert cells["PCIe, GPU to host"][0] == "2"
    assert cells["host DRAM, of 200\u00a0GB/s each"][-1] == "–"


def test_a_link_that_replicas_share_is_not_divided_by_them(run, axis):
    rate, busy, _ = link_figures(run, axis)
    for figure, scale, key in ((rate, 1e9, "bytes"), (busy, 0.01, "busy_s")):
        for name, trace in zip(link_order(run), figure.data, strict=True):
            link = run.summary["links"][name]
            total = np.sum(np.array(trace["y"], dtype=float)) * axis.bins.width * scale * link["count"]
            assert total == pytest.approx(link[key], rel=1e-3)
            assert (trace["line"]["dash"] == "dash") == away(name)
    assert away("ssd_write")
    assert not away("ssd_read")


def test_replica_time_shows_waits_for_layers(run, axis):
    figure = engine_time(run, axis)
    whole = axis.bins.width * run.replicas / 100
    shown = {t["name"]: sum(t["y"]) * whole for t in figure.data}
    assert shown["waiting for layers"] == pytest.approx(run.summary["time"]["layer_wait_s"], rel=1e-3)


def test_waits_for_loads_are_where_they_were(tmp_path):
    blocking = Scenario.from_dict(SCENARIO).set("engine.loading.mode", "blocking").run()
    run = load_run(blocking.save(tmp_path / "run"))
    axis = time_axis(time_bins(run.start_s, run.end_s, len(run.arrivals)))
    (waits,) = [t for t in engine_time(run, axis).data if t["name"] == "waiting for loads"]
    total = sum(waits["y"]) * axis.bins.width * run.replicas / 100
    assert total == pytest.approx(run.summary["time"]["load_wait_s"], rel=1e-2)


def test_hits_by_turn_are_those_of_the_requests(run):
    figure = hits_by_turn(run)
    by_tier = {t["name"]: t for t in figure.data}
    assert list(by_tier) == [tier_label(tier) for tier in TIERS]
    assert by_tier["HBM"]["x"][0] == "1"
    assert by_tier["HBM"]["x"][-1] == "12+"
    frame = run.summary["prefix"]["turns"]
    assert sum(row["requests"] for row in frame) == run.finished.rows
    for tier in TIERS:
        total = sum(row["hit_tokens"][tier] for row in frame)
        assert total == run.summary["prefix"]["hit_tokens"][tier]
        third = frame[2]
        share = 100 * third["hit_tokens"][tier] / third["input_tokens"]
        assert by_tier[tier_label(tier)]["y"][2] == pytest.approx(share, rel=1e-3)


def test_a_closed_loop_shows_hits_and_ttft_by_round(run, axis):
    (figure,) = [f for f in cache_figures(run, axis) if f.key in ("rounds", "hit-turns")]
    assert figure.key == "rounds"
    drawn, rounds = {t["name"]: t for t in figure.data}, run.summary["rounds"]
    assert drawn["HBM"]["x"] == [str(row["round"]) for row in rounds]
    for place, row in enumerate(rounds):
        stacked = sum(drawn[tier_label(tier)]["y"][place] for tier in TIERS)
        assert stacked == pytest.approx(100 * row["hit_ratio"], rel=1e-3, abs=1e-3)
        assert drawn["unlimited tiers"]["y"][place] == pytest.approx(100 * row["unlimited_hit_ratio"], rel=1e-3)
        for statistic in ("mean", "p50", "p90", "p99"):
            assert drawn[f"TTFT {statistic}"]["y"][place] == pytest.approx(row["ttft_ms"][statistic], rel=1e-3)


def test_prefetches_are_accounted_for(run, axis):
    table, total = prefetch_table(run), run.summary["prefetch"]
    (row,) = table.rows
    assert row[0] == "into DRAM"
    assert row[1] == binary_bytes(total["fetched_bytes"])
    assert (
        row[3] == f"{binary_bytes(total['wasted_bytes'])} ({percent(total['wasted_bytes'] / total['fetched_bytes'])})"
    )
    assert [term for term, _ in table.terms] == list(table.columns[1:])
    (figure,) = prefetch_figures(run, axis)
    moved = sum(np.sum(t["y"]) for t in figure.data) * axis.bins.width * 1e9
    assert moved == pytest.approx(total["fetched_bytes"], rel=1e-3)


def test_the_page_has_every_table_and_says_where_waits_are(run_dir):
    page = write_report(run_dir).read_text(encoding="utf-8")
    for key in ("request-parts", "replica-time", "tier-accounts", "prefetches", "link-bytes", "rounds"):
        assert f'id="{key}"' in page
    assert "closed loop, 6 at a time" in page
    assert "that is all that loading costs it" in page


def test_a_run_without_them_has_no_empty_tables(tmp_path):
    plain = Scenario.from_dict({**SCENARIO, "tiers": [{"name": "hbm"}], "policies": {}, "links": {}})
    run_dir = plain.run().save(tmp_path / "run")
    page = write_report(run_dir).read_text(encoding="utf-8")
    assert 'id="prefetches"' not in page
    assert 'id="link-bytes"' not in page
    assert 'id="tier-accounts"' in page


def test_the_regret_is_shown_where_it_was_asked_for(run, tmp_path):
    assert bound_tables(run) == []
    result = Scenario.from_dict(SCENARIO).run(bound=True)
    (table,) = bound_tables(load_run(result.save(tmp_path / "run")))
    cells, bound = rows(table), result.summary["bound"]
    assert cells["Regret"][0] == percent(bound["regret"])
    assert cells["Lower bound"][0] == seconds(bound["lower_bound_s"])
    assert set(bound) - {"definition"} == set(result.summary["definitions"]["bound"])
    assert len(cells) == len(bound) - 1


def test_the_console_shows_every_tier_and_every_link(run, capsys):
    print_summary(run.summary)
    lines = capsys.readouterr().out.splitlines()
    words = [line.split() for line in lines]
    for tier in TIERS:
        (found,) = [w for w in words if w[:1] == [tier_label(tier)]]
        assert found[1] == number(run.summary["prefix"]["hit_tokens"][tier])
    heading = next(line for line in lines if line.lstrip().startswith("tier "))
    assert "prefetched" in heading
    assert "expired" not in heading  # 0 in every tier
    assert sum(any(text in line for text in ("SSD, read", "SSD, write", "remote, read")) for line in lines) == 3
    assert "layer wait" in next(line for line in lines if line.startswith("replica time: "))
    assert next(line for line in lines if line.startswith("prefix hits by turn")).count("%") == 12
