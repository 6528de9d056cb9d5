"""timeline.json: spans nest on their tracks, and add up to the tables that they were made from."""

import json

import pytest

import reports.timeline as module
from hw_profiles.errors import InputError
from reports.timeline import LINKS, REPLICAS, SERVED, write_timeline
from sim.result import Result
from sim.scenario import Scenario

SCENARIO = {
    "schema": "kvsim-scenario/1",
    "trace": {
        "generate": {
            "requests": 120,
            "rate": 8,
            "turns": 3,
            "think_time": "4 s",
            "first_tokens": {"mean": 1500, "sigma": 1},
            "output_tokens": {"mean": 150, "sigma": 0.8},
            "max_input": 6000,
        }
    },
    "model": "llama-3.1-8b",
    "hardware": {"profile": "h100-sxm", "replicas": 2, "gpus_per_node": 2},
    "engine": {"num_gpu_blocks": 420, "max_num_seqs": 24, "max_num_batched_tokens": 1024},
    "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "1 GiB"}, {"name": "ssd", "capacity": "20 GiB"}],
    "links": {"ssd_read": {"bandwidth": "2 GB/s"}, "ssd_write": {"bandwidth": "2 GB/s"}},
    "policies": {"offload": "write_back"},
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return Scenario.from_dict(SCENARIO).run().save(tmp_path_factory.mktemp("timeline") / "run")


@pytest.fixture(scope="module")
def frames(run_dir):
    return Result.load(run_dir).frames


def spans_of(path):
    return [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "X"]


@pytest.fixture(scope="module")
def spans(run_dir):
    return spans_of(write_timeline(run_dir).path)


def seconds(spans):
    return sum(span["dur"] for span in spans) / 1e6


def test_spans_nest_on_every_track(spans):
    """Sorted as a viewer does: each span is inside the one that is open, or after it."""
    tracks = {}
    for span in spans:
        start = round(1000 * span["ts"])
        tracks.setdefault((span["pid"], span["tid"]), []).append((start, -round(1000 * span["dur"])))
    assert {group for group, _ in tracks} == {REPLICAS, LINKS, SERVED}
    for track in tracks.values():
        open_until = []
        for start, negative in sorted(track):
            while open_until and open_until[-1] <= start:
                open_until.pop()
            assert not open_until or start - negative <= open_until[-1]
            open_until.append(start - negative)


def test_every_track_has_a_name(run_dir, spans):
    events = json.loads((run_dir / "timeline.json").read_text())["traceEvents"]
    named = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert {(span["pid"], span["tid"]) for span in spans} == set(named)
    assert len(set(named.values())) == len(named)


def test_requests_add_up_to_the_table(spans, frames):
    requests = frames["requests"].set_index("request_id")
    for request, row in requests.iterrows():
        mine = [span for span in spans if (span["pid"], span["tid"]) == (SERVED, request)]
        by_name = {span["name"]: span["dur"] / 1e6 for span in mine if span["name"] not in ("preempted", "recompute")}
        assert by_name.pop(f"request {request}") == pytest.approx(row.e2e_s, abs=3e-9)
        assert sum(by_name.values()) == pytest.approx(row.e2e_s, abs=3e-9)
        loads = sum(length for name, length in by_name.items() if name.startswith("load from"))
        assert loads == pytest.approx(row.load_s, abs=3e-9)
        assert by_name["prefill"] == pytest.approx(row.prefill_s, abs=3e-9)
        away = seconds([span for span in mine if span["name"] == "preempted"])
        assert away == pytest.approx(row.prefill_preempted_s + row.decode_preempted_s, abs=1e-8)
    assert frames["requests"].preemptions.sum() > 0


def test_replicas_and_links_add_up_to_the_tables(spans, frames):
    steps, transfers = frames["steps"], frames["transfers"]
    replicas = [span for span in spans if span["pid"] == REPLICAS]
    waits = [span for span in replicas if span["name"] == "waiting for stores"]
    assert seconds(waits) == pytest.approx(steps.stall_s.sum(), rel=1e-6)
    assert seconds(waits) > 0
    assert seconds(replicas) == pytest.approx((steps.end_s - steps.start_s + steps.stall_s).sum(), rel=1e-6)
    assert sum(s["args"].get("count", 0) for s in replicas) == steps["count"].sum()
    links = [span for span in spans if span["pid"] == LINKS]
    for reason in ("load", "store"):
        chosen = [span for span in links if span["args"]["reason"] == reason]
        assert sum(span["args"]["bytes"] for span in chosen) == transfers.bytes[transfers.reason == reason].sum() > 0
    assert seconds(links) == pytest.approx((transfers.end_s - transfers.start_s).sum(), rel=1e-6)


def test_fewer_requests_end_earlier_and_the_note_says_so(run_dir, frames, tmp_path):
    drawn = write_timeline(run_dir, tmp_path, requests=5)
    spans = spans_of(drawn.path)
    assert len({span["tid"] for span in spans if span["pid"] == SERVED}) == 5
    end = frames["requests"].sort_values("arrival_s").finish_s[:5].max()
    assert max(span["ts"] for span in spans) <= round(1e6 * end, 3) < 1e6 * frames["steps"].end_s.max()
    assert drawn.note.startswith("the first 5 of 120 finished requests")
    assert json.loads(drawn.path.read_text())["otherData"]["note"] == drawn.note


def test_no_more_spans_than_fit(run_dir, frames, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_SPANS", 200)
    drawn = write_timeline(run_dir, tmp_path)
    spans = spans_of(drawn.path)
    shown = [span for span in spans if span["pid"] != SERVED and span["name"] != "waiting for stores"]
    assert len(shown) == 200
    assert "of 120 finished requests; replicas and links until" in drawn.note


def test_a_window_begins_where_it_is_asked_to(run_dir, frames, tmp_path):
    """What ends before is left out, what is under way stays whole; nothing after the last request shown has begun."""
    requests, steps = frames["requests"], frames["steps"]
    since = float(requests.finish_s.quantile(0.6))
    drawn = write_timeline(run_dir, tmp_path, requests=3, since=since)
    spans = spans_of(drawn.path)
    chosen = requests[requests.finish_s >= since].sort_values("arrival_s")
    assert {span["tid"] for span in spans if span["pid"] == SERVED} == set(chosen.request_id[:3])
    until = chosen.finish_s[:3].max()
    expected = steps[(steps.end_s >= since) & (steps.start_s <= until)]
    shown = [span for span in spans if span["pid"] == REPLICAS and span["name"] != "waiting for stores"]
    assert 0 < len(shown) == len(expected) < len(steps)
    assert drawn.note.startswith(f"the first 3 of {len(chosen)} requests that end from {since:g} s on")
    with pytest.raises(InputError, match="no request ends then or later"):
        write_timeline(run_dir, tmp_path, since=1e9)
