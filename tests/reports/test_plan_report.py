"""The page of a plan: recommendation, evidence and seeds are those of the runs; broken files are one line."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from markupsafe import escape

from hw_profiles.errors import InputError
from reports.figures.plan_cost import cost_figure
from reports.figures.plan_search import search_choice, searched
from reports.figures.plan_seeds import over_seeds
from reports.kinds import write_report
from reports.plan_data import PlanData, load_plan
from reports.plan_report import beside_table, headline, render, run_table, sections
from sim.scenario import Scenario
from sim.whatif.plan import PlanJob, run_plans
from sim.whatif.plan_document import plan_document
from sim.whatif.plan_seeds import with_seeds
from sim.whatif.prices import load_prices
from sim.whatif.runs import Job
from sim.whatif.variants import expand

NASTY = "</script><img src=x onerror=alert(1)>'\""
SCENARIO = {
    "schema": "kvsim-scenario/1",
    "trace": {"generate": {"requests": 60, "rate": 12, "turns": 2, "first_tokens": {"mean": 3000, "sigma": 1}}},
    "model": "llama-3.1-8b",
    "hardware": {"profile": "h100-sxm"},
    "engine": {"num_gpu_blocks": 4000},
    "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "64 GiB", "shared": "node"}],
    "slo": {"ttft_p99": "1500ms", "tpot_p95": "30ms"},
}


def saved(folder: Path, *, seeds: int = 0, attainment: float | None = None, **changes: object) -> Path:
    """A folder with the plan of two variants."""
    variants = expand(Scenario.from_dict({**SCENARIO, **changes}), [("tiers.dram.capacity", ["0 B", "64 GiB"])])
    prices = load_prices()
    jobs = [PlanJob(Job.of(v.label, v.scenario), "replicas", (1, 2, 3, 4), prices, attainment) for v in variants]
    plans = run_plans(jobs, workers=1)
    plans = with_seeds(plans, jobs, seeds, workers=1) if seeds else plans
    document = plan_document(plans, variants, "replicas", prices)
    folder.mkdir(exist_ok=True)
    text = json.dumps(document, default=list).replace("Infinity", "null")
    (folder / "plan.json").write_text(text)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("plan") / "p", seeds=3)


@pytest.fixture(scope="module")
def data(folder: Path) -> PlanData:
    return load_plan(folder)


def test_the_recommendation_is_the_cheapest_answer_with_its_neighbours(data, folder):
    document = json.loads((folder / "plan.json").read_text())
    assert data.best.label == document["cheapest"]
    answer = data.best.answer
    first, second, *others = headline(data)
    assert first.startswith(f"Fewest replicas: {answer.shown} with dram.capacity={data.best.label}, for ")
    assert f"{answer.bill.total:.4g}" in first
    assert "TTFT p99 binds" in second or "TPOT p95 binds" in second
    below = data.best.beside(-1)
    assert not below.met
    assert any(text.startswith(f"Just below, {below.shown}: misses the SLO") for text in others)
    roles = [row[0] for row in beside_table(data).rows]
    assert roles[:2] == ["just below", "recommended"]


def test_points_are_the_values_of_the_runs(data):
    for search in data.searches:
        for key, limit in search.targets.items():
            figure = searched(search, key)
            heights = {
                name: y
                for trace in figure.data
                if "lost early" not in trace["name"]
                for name, y in zip(trace["x"], trace["y"], strict=True)
                if y is not None
            }
            ended = {one.shown: one.values[key] for one in search.tried if one.whole}
            assert heights == pytest.approx(ended, rel=1e-4)
            assert figure.layout["shapes"][0]["y0"] == pytest.approx(limit)
            lost = {x for trace in figure.data if "lost early" in trace["name"] for x in trace["x"]}
            (line,) = figure.layout["shapes"][
                1:
            ]  # at the place of the answer on an axis of names that look like numbers
            names = figure.layout["xaxis"]["categoryarray"]
            assert names[line["x0"]] == names[figure.layout["annotations"][1]["x"]] == search.answer.shown
            assert lost == {one.shown for one in search.tried if one.lost in (key, "rejected")}
        shares = searched(search, None)
        assert shares.layout["shapes"][0]["y0"] == 100
        for key, trace in zip(search.targets, (t for t in shares.data if "early" not in t["name"]), strict=True):
            ended = {one.shown: 100 * one.values[key] / one.limits[key] for one in search.tried if one.whole}
            drawn = {x: y for x, y in zip(trace["x"], trace["y"], strict=True) if y is not None}
            assert drawn == pytest.approx(ended, rel=1e-4)


def test_every_run_is_in_the_tables_and_the_answer_is_marked(data):
    for search in data.searches:
        rows = run_table(search).rows
        assert [row[0].removeprefix("▶ ") for row in rows] == [one.shown for one in search.tried]
        assert [row[0] for row in rows if row[0].startswith("▶")] == [f"▶ {search.answer.shown}"]


def test_seeds_are_runs_of_their_own_with_the_mean_between_its_ends(data):
    for search in data.searches:
        assert search.answer.shown in {check.shown for check in search.seeds}
        for check in search.seeds:
            assert check.seeds == (0, 1, 2)
            searched_value = next(one for one in search.tried if one.shown == check.shown).values["ttft_p99"]
            if searched_value is not None:
                assert check.values["ttft_p99"][0] == searched_value
            low, high = check.intervals["ttft_p99"]
            mean = sum(check.values["ttft_p99"]) / 3
            assert low < mean < high
            assert len(set(check.values["ttft_p99"])) == 3
        dots, means = over_seeds(search, "ttft_p99").data
        assert len(dots["x"]) == 3 * len(search.seeds)
        assert dots["y"] == pytest.approx([v for c in search.seeds for v in c.values["ttft_p99"]], rel=1e-4)
        assert len(means["x"]) == len(search.seeds)
    assert any(text.startswith("With other seeds") for text in headline(data))


def test_the_frontier_is_what_nothing_cheaper_beats(data, folder):
    figure = cost_figure(data)
    line = next(trace for trace in figure.data if trace["name"] == "frontier")
    told = json.loads((folder / "plan.json").read_text())["frontier"]
    assert line["x"] == pytest.approx([one["cost"]["total"] for one in told], rel=1e-4)
    assert line["y"] == pytest.approx([100 * one["of_limit"] for one in told], rel=1e-4)
    assert len(figure.items) == len(told)


def test_nothing_meets_it_and_the_nearest_is_named(tmp_path):
    data = load_plan(saved(tmp_path / "none", slo={"ttft_p99": "1ms"}))
    assert data.best is None
    text = " ".join(headline(data))
    assert text.startswith("Nothing that was tried meets the SLO")
    assert "ttft_p99 binds" in text
    page = render(data)
    assert "verdict missed" in page


def test_an_attainment_is_a_target_too(tmp_path):
    data = load_plan(saved(tmp_path / "share", attainment=0.9, slo={"ttft_p50": "300ms", "tpot_p50": "20ms"}))
    page = render(data)
    assert "attainment" in page
    assert len(search_choice(data).menus[1][1]) == 4


def test_the_page_begins_with_the_recommendation_and_is_one_file(data, folder, tmp_path):
    assert [section.key for section in sections(data)][:2] == ["recommendation", "evidence"]
    page = write_report(folder, tmp_path / "plan.html").read_text("utf-8")
    assert len(page.encode()) < 6_000_000
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", outside)
    assert page == render(load_plan(folder))


def test_names_are_text(folder, tmp_path):
    document = json.loads((folder / "plan.json").read_text())
    document["cheapest"] = document["plans"][0]["label"] = NASTY
    document["asked"] = dict.fromkeys(document["asked"], NASTY)
    document["price_sources"] = [NASTY]
    for plan in document["plans"]:
        plan |= {key: [NASTY] for key in ("notes", "assumptions", "warnings")}
        plan |= {"what": NASTY, "path": NASTY}
        for point in (*plan["points"], plan["answer"], *plan["seeds"]):
            point["shown"] = NASTY + point["shown"]
        for point in plan["points"]:
            point["stopped"] = point["stopped"] and NASTY
            point["cost"]["currency"] = NASTY
    (tmp_path / "plan.json").write_text(json.dumps(document))
    page = render(load_plan(tmp_path))
    assert "<img" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert page.count(str(escape(NASTY))) > 10


def test_broken_files_are_one_line(folder, tmp_path):
    document = json.loads((folder / "plan.json").read_text())
    whole = json.dumps(document)
    broken = json.loads(whole)
    broken["plans"][0]["points"][0]["targets"] = None
    cases = [
        whole[:500],
        "3",
        json.dumps({**document, "schema": "kvsim-plan/7"}),
        json.dumps({**document, "plans": []}),
        json.dumps({**document, "plans": [{}]}),
        json.dumps({key: value for key, value in document.items() if key != "asked"}),
        json.dumps(broken),
    ]
    for text in cases:
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(InputError) as caught:
            write_report(tmp_path)
        assert "plan.json" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "plan.html").exists()


def test_seeds_that_change_nothing_are_refused(tmp_path):
    scenario = Scenario.from_dict({**SCENARIO, "trace": {"name": "quickstart", "limit": 20}})
    job = PlanJob(Job.of("a", scenario), "replicas", (1, 2), load_prices())
    plans = run_plans([job], workers=1)
    with pytest.raises(InputError, match="drawn by the seed"):
        with_seeds(plans, [replace(job)], 3, workers=1)
