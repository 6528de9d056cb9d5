from reports.text import NBSP
from reports.verdict import verdict


def summary(**targets):
    return {
        "throughput": {"requests_per_s": 3.393}, "ttft_ms": {"p99": 4917.0},
        "slo": {"targets": {k: {"target_ms": t, "value_ms": v, "met": m} for k, (t, v, m) in targets.items()},
                "attainment": 0.964, "goodput_per_s": 3.27},
    }  # fmt: skip


def line(**targets):
    return verdict(summary(**targets)).line.replace(NBSP, " ")


def test_missed_says_which_and_by_how_much():
    assert line(ttft_p99=(2000, 2600.0, False), tpot_p95=(50, 12.2, True)) == (
        "SLO missed: TTFT p99 is 2.6 s against 2 s, 30 % over the limit"
    )
    assert line(ttft_p99=(2000, 4917.0, False)).endswith("4.92 s against 2 s, 2.5 × the limit")


def test_met_says_the_margin_of_every_target():
    shown = line(ttft_p99=(2000, 1000.0, True), tpot_p95=(50, 50.0, True))
    assert shown == "SLO met: TTFT p99 is 1 s, 50 % below the limit; TPOT p95 is 50 ms, exactly at the limit"


def test_without_an_slo_the_headline_numbers():
    result = verdict({**summary(), "slo": {"targets": {}, "met": None}})
    assert result.state == "none"
    assert result.line.replace(NBSP, " ") == "No SLO set: 3.39 requests/s with a p99 TTFT of 4.92 s"


def test_bar_has_the_limit_in_the_middle_and_stays_on_the_scale():
    fills = [verdict(summary(x=(100, v, False))).targets[0].fill for v in (100.0, 25.0, 900.0)]
    assert fills == [50.0, 12.5, 100.0]


def test_a_target_without_a_value_is_missed_and_says_so():
    result = verdict(summary(ttft_p99=(2000, None, False)))
    assert result.state == "missed"
    assert "no value to compare" in result.line
