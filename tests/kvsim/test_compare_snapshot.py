"""`kvsim compare` from a snapshot: what came after it is judged, of all variants the same requests, and it says so."""

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

Kvsim = Callable[..., Any]
SCENARIO = """\
schema: kvsim-scenario/1
trace:
  generate: {requests: 400, rate: 8, turns: 3, think_time: 3 s, first_tokens: {mean: 2500}, output_tokens: {mean: 50}}
model: llama-3.1-8b
hardware: {profile: h100-sxm, replicas: 2, gpus_per_node: 2}
engine: {num_gpu_blocks: 1200}
tiers: [{name: hbm}, {name: dram, capacity: 3 GiB, shared: node}]
slo: {ttft_p99: 1 s}
"""
AT = 25.0
CALL = ("compare", "there.yaml", "--vary", "tiers.dram.capacity=3GiB,60GiB", "--workers", "1")


@pytest.fixture
def there(kvsim: Kvsim, folder: Path) -> Path:
    """A scenario that goes on from a snapshot in the middle of a run."""
    (folder / "first.yaml").write_text(SCENARIO)
    taken = kvsim("run", "first.yaml", "--save-snapshot-at", f"{AT}s", "--out", "first", "--no-report", "--quiet")
    assert taken.code == 0
    (folder / "there.yaml").write_text(f"{SCENARIO}warm_start: first/snapshot.json\n")
    return folder


def values(document: Any, key: str) -> list[float] | None:
    found = [list(m["values"].values()) for m in document["metrics"] if m["key"] == key]
    return found[0] if found else None


def test_requests_after_the_snapshot_are_judged(kvsim: Kvsim, there: Path) -> None:
    document = json.loads(kvsim(*CALL, "--out", "d", "--json").out)
    assert document["since_s"] == AT
    runs = [there / "d" / one["run"] for one in document["variants"]]
    summaries = [json.loads((run / "summary.json").read_text()) for run in runs]
    after = [summary["from_snapshot"] for summary in summaries]
    for name in ("ttft", "tpot", "e2e"):
        for statistic in ("mean", "p95", "p99"):
            found = values(document, f"{name}_{statistic}_ms")
            assert found is None or found == pytest.approx([one[f"{name}_ms"][statistic] for one in after])
    assert values(document, "hit_ratio") == pytest.approx([100 * one["hit_ratio"] for one in after])
    assert values(document, "requests_per_s") == pytest.approx([one["requests_per_s"] for one in after])
    tables = [pd.read_parquet(run / "requests.parquet").query(f"arrival_s > {AT}") for run in runs]
    assert [len(table) for table in tables] == [one["requests"] for one in after]
    good = [(table.ttft_s <= 1).sum() / (table.finish_s.max() - AT) for table in tables]
    assert values(document, "goodput_per_s") == pytest.approx(good)
    assert values(document, "output_tokens_per_s") == pytest.approx(
        [table.output_tokens.sum() / (table.finish_s.max() - AT) for table in tables]
    )
    assert {"preemptions", "interference_share", "later_ttft_mean_ms"}.isdisjoint(m["key"] for m in document["metrics"])


def test_whole_runs_are_judged_on_request_and_differ_less(kvsim: Kvsim, there: Path) -> None:
    part, whole = (json.loads(kvsim(*CALL, *more, "--json").out) for more in ((), ("--whole",)))
    assert whole["since_s"] is None
    assert values(whole, "preemptions") is not None
    changes = [np.diff(values(document, "hit_ratio") or [])[0] for document in (part, whole)]
    assert changes[0] > changes[1] > 0


def test_the_table_and_the_page_say_so(kvsim: Kvsim, there: Path) -> None:
    answer = kvsim(*CALL, "--out", "d")
    line = "Judged: requests sent after the snapshot at 25 s, of all variants; until then they are one run."
    assert line in " ".join(answer.out.split())
    page = html.unescape((there / "d" / "compare.html").read_text()).replace("\u00a0", " ")
    assert page.count(line) == 2  # above the table, and among the notes
    assert "after 25 s" in page
    assert page.count("Of whole runs, the part before the snapshot included.") > 3
    again = (there / "d" / "compare.html").read_bytes()
    assert kvsim("report", "d").code == 0
    assert (there / "d" / "compare.html").read_bytes() == again
    whole = kvsim(*CALL, "--out", "e", "--whole")
    assert "Judged:" not in whole.out
    assert "Judged:" not in (there / "e" / "compare.html").read_text()


def test_the_curves_are_of_the_same_requests(kvsim: Kvsim, there: Path) -> None:
    import kvsim as package

    assert kvsim(*CALL, "--out", "d", "--json").code == 0
    study = package.load("d")
    assert isinstance(study, package.SavedStudy)
    for curve, run in zip(study.figures["cdf-ttft"].data, study.runs.values(), strict=True):
        later = run.frames["requests"].query(f"arrival_s > {AT}")
        assert max(curve.x) == pytest.approx(later.ttft_s.max(), rel=1e-3)
    shares = {bar.name: list(bar.x) for bar in study.figures["sources"].data}
    hits = [float(np.sum(shares_of)) for shares_of in zip(*shares.values(), strict=True)]
    assert hits == pytest.approx(values(study.document, "hit_ratio"), rel=1e-3)


def test_more_seeds_are_refused(kvsim: Kvsim, there: Path) -> None:
    answer = kvsim(*CALL, "--seeds", "3")
    assert answer.code == 2
    assert "--seeds: a run that goes on from a snapshot has the snapshot's seed, found 3" in answer.err


def test_a_run_without_the_snapshot_is_judged_whole(kvsim: Kvsim, there: Path) -> None:
    assert kvsim("run", "there.yaml", "--out", "second", "--no-report", "--quiet").code == 0
    document = json.loads(kvsim("compare", "first", "second", "--json").out)
    assert document["since_s"] is None
    assert values(document, "preemptions") is not None
