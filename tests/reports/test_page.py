import base64
import hashlib
import html
import json
import re

import pytest

from reports.kinds import write_report
from reports.page import short_name
from reports.provenance import link_parts, provenance, times_of, trust_line

NASTY = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
DATA = re.compile(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', re.DOTALL)


@pytest.fixture(scope="module")
def page(shared_run, tmp_path_factory):
    out = write_report(shared_run, tmp_path_factory.mktemp("page") / "deep" / "report.html")
    return out.read_text(encoding="utf-8")


def without_plotly(page: str) -> str:
    """The page less its two scripts, which are fixed text."""
    return re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def edit_summary(run_dir, **changes):
    path = run_dir / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def report(run_dir) -> str:
    return without_plotly(write_report(run_dir).read_text(encoding="utf-8"))


def test_default_place_is_the_run_directory(run_dir):
    assert write_report(run_dir) == run_dir / "report.html"


def test_same_run_same_bytes(run_dir):
    assert write_report(run_dir).read_bytes() == write_report(run_dir).read_bytes()


def test_one_file_that_asks_for_nothing(page):
    assert len(page.encode()) < 6_000_000
    rest = without_plotly(page)
    assert not re.search(r"""(src|@import|url\()\s*=?\s*["']?(https?:)?//""", rest)
    assert re.findall(r'<link [^>]*href="([^"]*)"', rest) == ["data:,"]


def test_only_the_two_scripts_of_the_policy_run(page):
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    assert len(re.findall(r"<script", without_plotly(page))) == len(DATA.findall(page))
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert policy.startswith("default-src 'none'")
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    assert allowed == [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]


def test_every_plot_has_its_data(page):
    data = dict(DATA.findall(page))
    plots = re.findall(r'data-figure="([\w-]+)"', page)
    assert len(plots) == len(set(plots)) == len(data) >= 15
    for name in plots:
        assert json.loads(data[name])["data"]


def test_says_what_was_run(page):
    text = without_plotly(page)
    for word in ("mooncake-conversation", "llama-3.1-8b", "h100-sxm", "9f2c51e07ab4", "0.1.0"):
        assert word in text
    assert "3 requests were rejected" in text.replace("\u00a0", " ")
    assert "Some arrivals share a timestamp" in text
    assert "spread_arrivals: 3 s" in text


def test_markup_in_names_is_text(run_dir):
    edit_summary(run_dir, trace={"name": NASTY}, model={"name": NASTY}, warnings=[NASTY], version=NASTY)
    path = run_dir / "scenario.yaml"
    path.write_text(path.read_text() + f"note: '{NASTY}'\n")
    text = report(run_dir)
    assert "<img" not in text
    assert "alert(2)</script>" not in text
    assert text.count(html.escape(NASTY, quote=False)) >= 5


def test_no_slo_gives_the_headline(make_run_dir, tmp_path):
    text = report(make_run_dir(tmp_path, n=50, replicas=1, span=50, steps=10, slo={}))
    assert "No SLO set: " in text
    assert "verdict none" in text


def test_ranges_under_values_are_explained(run_dir):
    assert "Under each value" not in report(run_dir)
    metrics = json.loads((run_dir / "summary.json").read_text())["metrics"]
    metrics = [{**metric, "band": [1.0, 2.0]} for metric in metrics]
    about = {"runs": 19, "failed": 1, "interval": [0.05, 0.95], "outside": ["Queue, P99"]}
    edit_summary(run_dir, metrics=metrics, uncertainty=about)
    text = report(run_dir)
    assert (
        "Under each value: its 5th to 95th percentile over 19 machines drawn from the 90 % intervals of the hardware "
        "values. 1 more could not run the scenario. Outside their own range, as they jump where machines differ "
        "little: Queue, P99." in text
    )


def test_nothing_rejected_no_note(run_dir):
    assert "Rejected:" not in report(run_dir)


def test_assumptions_of_the_run_replace_ours(run_dir):
    edit_summary(run_dir, assumptions=["the moon is a tier"])
    text = report(run_dir)
    assert "the moon is a tier" in text
    assert "token values, sampling and quality" not in text


@pytest.mark.parametrize(("n", "rejected"), [(1, 0), (3, 3), (2, 1)])
def test_degenerate_runs_have_a_page(make_run_dir, tmp_path, n, rejected):
    text = report(make_run_dir(tmp_path, n=n, replicas=1, rejected=rejected, span=0.0, steps=1))
    assert not re.search(r"\bnan\b|\binf\b", text, re.IGNORECASE)


@pytest.mark.parametrize(
    ("value", "name"),
    [("trace", "trace"), ({"name": "a", "rate_scale": 2}, "a"), ({"generate": {"kind": "chat"}}, "chat (generated)"),
     (None, ""), ({"path": "x.jsonl"}, "x.jsonl")],
)  # fmt: skip
def test_short_name(value, name):
    assert short_name(value) == name


def test_values_share_their_sources():
    entry = {"path": "a", "value_si": 2.0, "si_unit": "B/s", "text": "2 B/s", "src": "k", "source": "why", "rel": 0.1}
    values, sources = provenance([entry, {**entry, "path": "b", "rel": None, "lo": 1.0, "hi": 3.0}, {"path": "c"}])
    assert [v.source for v in values] == [0, 0, 1]
    assert [v.uncertainty.replace("\u00a0", " ") for v in values] == ["± 10 %", "−50 % to +50 %", "unknown"]
    assert (sources[0].key, sources[0].parts) == ("k", (("why", ""),))
    assert values[0].si == "2.0 B/s"


def test_an_interval_wider_than_its_value_is_told_in_factors():
    entry = {"path": "a", "value_si": 5e-6, "src": "k", "source": "why", "rel": 39.0, "lo": 2e-6, "hi": 200e-6}
    ((value,), _) = provenance([entry])
    assert value.uncertainty.replace("\u00a0", " ") == "× 0.4 to × 40"
    line = trust_line({"profile": {"name": "h", "kind": "measured", "widest_uncertainty": 39.0}})
    assert line.endswith("the least certain value that was used: by a factor of 40.")


def test_only_web_addresses_become_links():
    assert link_parts("see <https://a.b/c> and <javascript:alert(1)>") == (
        ("see ", ""), ("a.b/c", "https://a.b/c"), (" and <javascript:alert(1)>", ""),
    )  # fmt: skip


def test_trust_line_names_kind_and_widest_value():
    profile = {"name": "h", "kind": "public_fit", "widest_uncertainty": 0.34, "widest_value": "x.y"}
    assert trust_line({"profile": profile}).replace("\u00a0", " ") == (
        "Profile h: fitted to public measurements; the least certain value that was used, x.y: ± 34 %."
    )


def test_trust_line_says_how_much_lies_outside_what_was_measured():
    profile = {"name": "h", "kind": "measured", "extrapolated_fraction": 0.25, "extrapolated_copies_fraction": 0.5}
    assert trust_line({"profile": profile}).replace("\u00a0", " ") == (
        "Profile h: measured by kvsim calibrate; 25 % of the step time lies outside the range it was fitted on; 50 % "
        "of the bytes of devices moved in copies of sizes that were not measured."
    )


def test_the_head_says_how_the_hardware_times_are_known():
    summary = {"profile": {"name": "m", "kind": "datasheet"}}
    assert times_of([summary]) == "estimated from datasheets"
    both = times_of([summary, {"profile": {"kind": "public_fit"}}, summary])
    assert both == "estimated from datasheets, fitted to public measurements"


def test_the_page_names_the_kind_of_the_profile_at_its_top(page, shared_run):
    head = page[: page.index("<main")]
    assert times_of([json.loads((shared_run / "summary.json").read_text())]) in head


def test_values_say_whether_the_run_used_them(run_dir):
    path = run_dir / "profile.json"
    rows = json.loads(path.read_text())
    rows = [{**row, "used": used} for row, used in zip(rows, (True, False), strict=False)] + rows[2:]
    path.write_text(json.dumps(rows))
    cells = re.findall(r'<td class="quiet">([^<]*)</td>', report(run_dir))
    assert cells == ["used", "not used", "–"]


def test_markup_in_a_study_is_text(run_dir, make_study):
    digest = json.loads((run_dir / "summary.json").read_text())["config_sha256"]
    text = json.dumps(make_study(digest))
    for name in ("wheel", "slack", "TTFT, P99", "does not fit", "Much.", "1 TB/s", "2 TB/s", "requests/s"):
        text = text.replace(json.dumps(name), json.dumps(NASTY))
    (run_dir / "explain.json").write_text(text)
    page = report(run_dir)
    assert "<img" not in page
    assert "alert(2)</script>" not in page
    assert page.count(html.escape(NASTY, quote=False)) >= 5


@pytest.mark.slow
def test_a_hundred_thousand_requests_make_a_page_of_less_than_8_mb(make_run_dir, make_study, tmp_path):
    """Everything is binned: the page grows with neither requests nor steps nor transfers."""
    run_dir = make_run_dir(tmp_path, n=100_000, replicas=8, span=36_000.0, steps=20_000)
    digest = json.loads((run_dir / "summary.json").read_text())["config_sha256"]
    (run_dir / "explain.json").write_text(json.dumps(make_study(digest)))
    size = write_report(run_dir).stat().st_size
    assert size < 8_000_000
    small = write_report(make_run_dir(tmp_path / "small", n=2_000, replicas=8, span=720.0)).stat().st_size
    assert size < small + 200_000
