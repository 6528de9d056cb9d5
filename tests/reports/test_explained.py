"""What limits a run, and what would move it: from explain.json to sentence, table and tornado."""

import json
import math
from pathlib import Path

import pytest

from hw_profiles.errors import InputError
from reports.explained import best, change_text, changes, first_line, scope, sentence, told
from reports.figures.tornado import MOST_OCTAVES, explain_table, octaves, tornado_figures
from reports.limits import HOW, limits
from reports.load import load_run
from reports.text import percent


@pytest.fixture
def study(make_study):
    return make_study("9f2c")


def plain(text):
    return text.replace("\u00a0", " ")


def test_what_moves_a_metric_most_is_first_and_named(study):
    ttft, goodput = study["metrics"]
    assert [row[0].resource for row in changes(study, ttft)] == ["wheel", "lever", "slack"]
    assert (best(study, ttft).resource, best(study, ttft).value) == ("wheel", 100)
    assert (best(study, goodput).resource, best(study, goodput).value) == ("lever", 4)
    moved = "explain: Wheel of 2 TB/s instead of 1 TB/s would take TTFT, P99"
    assert first_line(study) == f"{moved} (of the first 1,000 requests) from 400 ms to 100 ms."
    assert first_line({**study, "of": 1000}) == f"{moved} from 400 ms to 100 ms."


def test_where_nothing_helps_the_line_says_so(study):
    study["resources"] = study["resources"][:1]
    assert plain(first_line(study)) == "explain: Nothing that was tried improves TTFT, P99 by more than 0.5 %."
    assert all(figure.empty for figure in tornado_figures(study))


def test_bars_are_octaves_of_the_change(study):
    figure = tornado_figures(study)[0]
    half, twice = figure.data
    assert dict(zip(half["y"], half["x"], strict=True)) == pytest.approx({"wheel": math.log2(10)}, rel=1e-4)
    assert dict(zip(twice["y"], twice["x"], strict=True)) == pytest.approx(
        {"wheel": -2, "lever": math.log2(0.75)}, rel=1e-4
    )
    assert figure.layout["yaxis"]["categoryarray"] == ["lever", "wheel"]  # the last one is at the top
    assert "Not moved by 0.5 %: slack." in plain(figure.read)
    ticks = figure.layout["xaxis"]
    assert dict(zip(ticks["ticktext"], ticks["tickvals"], strict=True))["÷ 4"] == -2
    assert all(abs(tick) <= ticks["range"][1] for tick in ticks["tickvals"])


def test_a_metric_that_falls_to_nothing_has_a_bar_that_ends(study):
    half = tornado_figures(study)[1].data[0]
    assert half["x"][half["y"].index("wheel")] == -MOST_OCTAVES == octaves(0.0)
    assert octaves(1e9) == MOST_OCTAVES


def test_small_changes_have_an_axis_in_per_cent(study):
    study["resources"][1]["runs"][0]["metrics"]["ttft_p99_ms"] = 404.0
    study["resources"] = [{**study["resources"][1], "runs": study["resources"][1]["runs"][:1]}]
    ticks = tornado_figures(study)[0].layout["xaxis"]
    assert dict(zip(ticks["ticktext"], ticks["tickvals"], strict=True))["+1 %"] == pytest.approx(math.log2(1.01))


def test_a_metric_without_a_number_says_so(study):
    study["metrics"][1]["value"] = 0.0
    study["metrics"][0]["value"] = None
    assert [bool(figure.empty) for figure in tornado_figures(study)] == [True, True]
    assert first_line(study) == "explain: nothing finished, so nothing moved"


def test_the_table_has_every_rerun_and_every_problem(study):
    table = explain_table(study)
    assert [row[0] for row in table.rows] == ["as it is", "wheel", "lever", "slack"]
    assert [plain(cell) for cell in table.rows[1]] == [
        "wheel", "1 TB/s", "0.5 TB/s; 2 TB/s", "× 10; −75 %", "−100 %; +1 %",
    ]  # fmt: skip
    assert ("lever, 0.5 x", "Could not run: does not fit") in table.terms
    assert "first 1,000 of 1,500 requests" in scope(study)
    assert "first" not in scope({**study, "of": 1000})


@pytest.mark.parametrize(
    ("ratio", "text"), [(None, "–"), (1.004, "as it is"), (0.5, "−50 %"), (1.25, "+25 %"), (7, "× 7")]
)
def test_changes_are_told_in_per_cent_or_multiples(ratio, text):
    assert plain(change_text(ratio)) == text


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    from kvsim import Scenario

    example = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
    changed = [("trace.limit", 300), ("slo", {"ttft_p99": "60 ms"}), ("tiers.dram.capacity", "20 GiB")]
    return Scenario.load(example).set_all(changed).run().save(tmp_path_factory.mktemp("run") / "run")


def test_the_paragraph_has_the_numbers_of_the_summary(real):
    run = load_run(real)
    text, how = limits(run)
    split = run.summary["replica_time"]
    parts = {key: split[key] for key in ("compute_s", "hbm_s", "link_wait_s", "launch_s")}
    busy = sum(parts.values()) / (sum(parts.values()) + split["idle_s"])
    assert f"busy {percent(busy)} of the time" in text
    assert "TTFT p99 misses its target" in text
    slowest = run.summary["attribution"]["ttft_ms"]["slowest"]["parts"]
    share = max(slowest.values()) / sum(slowest.values())
    assert f"spend {percent(share)} of it" in text
    assert "DRAM was full and evicted" in text
    assert "computed again" in text
    assert how == HOW


def test_with_a_study_the_paragraph_ends_with_what_would_move_it(real, make_study):
    summary = json.loads((real / "summary.json").read_text())
    (real / "explain.json").write_text(json.dumps(make_study(summary["config_sha256"])))
    try:
        (text,) = limits(load_run(real))
        assert text.endswith("would take TTFT, P99 (of the first 1,000 requests) from 400 ms to 100 ms.")
    finally:
        (real / "explain.json").unlink()


def test_a_run_without_these_numbers_has_no_paragraph_to_break(run_dir):
    path = run_dir / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "links": {}, "tiers": {}, "slo": {}}))
    assert limits(load_run(run_dir))[1:] == [HOW]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "kvsim-explain/9"}, "explain.json: schema: found 'kvsim-explain/9', expected kvsim-explain/1"),
        ({"config_sha256": "other"}, "explain.json: config_sha256: of another run than the summary beside it"),
        ({"metrics": []}, "explain.json: metrics: expected a list of mappings with key, label, unit, value"),
        ({"resources": [{"key": "a"}]}, "explain.json: resources: expected a list of mappings with key, label, value"),
        ({"requests": "all"}, "explain.json: requests: expected numbers"),
    ],
)  # fmt: skip
def test_a_study_that_is_not_of_this_run_is_refused_in_one_line(run_dir, make_study, change, message):
    digest = json.loads((run_dir / "summary.json").read_text())["config_sha256"]
    (run_dir / "explain.json").write_text(json.dumps({**make_study(digest), **change}))
    with pytest.raises(InputError) as error:
        load_run(run_dir)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cannot_be_told_from_no_change_is_marked_and_not_recommended(study):
    for run in study["resources"][1]["runs"]:  # wheel: a factor of ten, and a quarter
        run["intervals"] = {"ttft_p99_ms": [-350.0, 3900.0] if run["factor"] == 0.5 else [-320.0, 10.0]}
    (metric,) = [m for m in study["metrics"] if m["key"] == "ttft_p99_ms"]
    row = next(row for row in changes(study, metric) if row[0].resource == "wheel")
    assert all(change.unsure for change in row)
    assert [told(change).replace("\u00a0", " ") for change in row] == ["~ × 10", "~ −75 %"]
    assert "lever" in sentence(study, "ttft_p99_ms")  # the wheel gains more, but not surely
    figure = tornado_figures(study)[0]
    ends = [bar["error_x"] for bar in figure.data if "error_x" in bar]
    assert ends
    assert all(min(*bar["array"], *bar["arrayminus"]) >= 0 for bar in ends)
    assert "~ marks" in explain_table(study).read
    assert figure.layout["xaxis"]["range"][1] >= math.log2(1 + 3900 / 400)  # its line ends within the figure


def test_what_is_recommended_says_how_surely(study):
    run = study["resources"][1]["runs"][1]
    run["intervals"] = {"ttft_p99_ms": [-320.0, -280.0]}
    assert sentence(study, "ttft_p99_ms").endswith("from 400 ms to 100 ms (90 %: 80 ms to 120 ms).")
