"""Admission control in a run: what it does to goodput, and that it foresees what then happens."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import InputError
from sim.run import simulate

FOUR = {"profile": "h100-sxm", "replicas": 4}
ONE = {"profile": "h100-sxm"}


@pytest.fixture(scope="module")
def conversation(scenario):
    """The beginning of the Mooncake conversation trace at a multiple of its rate, with room for more than one of it."""
    folder = os.environ.get("KVSIM_TRACES", "")
    if not folder or not (Path(folder) / "mooncake" / "conversation_trace.jsonl.gz").is_file():
        pytest.skip("KVSIM_TRACES has no mooncake/conversation_trace.jsonl.gz")

    @cache
    def go(rate_scale, control=None, **options):
        trace = {"name": "mooncake-conversation", "spread_arrivals": "3 s", "limit": 700, "rate_scale": rate_scale}
        built = scenario(
            trace=trace,
            hardware=FOUR,
            tiers=[{"name": "hbm"}],
            routing="least_loaded",
            slo={"ttft_p99": "2 s", "tpot_p95": "50 ms"},
        )
        return simulate(built.set("admission_control", {"name": control, **options}) if control else built, check=True)

    return go


def test_early_rejection_raises_goodput_under_overload(conversation):
    plain, early = conversation(2.5).summary, conversation(2.5, "early_rejection").summary
    assert plain["requests"]["rejected"] == 0
    assert 0 < early["requests"]["rejected"] < 0.3 * early["requests"]["arrived"]
    assert early["slo"]["goodput_per_s"] > 2 * plain["slo"]["goodput_per_s"]
    assert early["slo"]["attainment"] > plain["slo"]["attainment"]
    [warning] = [text for text in early["warnings"] if "rejected" in text]
    assert warning == f"{early['requests']['rejected']} requests were rejected: turned away by early_rejection"
    nobody = conversation(2.5, "early_rejection", ttft="1 ms").summary
    assert nobody["requests"]["finished"] == 0
    assert nobody["slo"]["attainment"] == 0


@pytest.mark.parametrize("control", ["none", "early_rejection", "queue_limit", "token_limit", "token_rate"])
def test_without_load_it_changes_nothing(control, conversation, same_requests):
    options = {"ttft": "20 s"} if control == "early_rejection" else {"rate": 1e9} if control == "token_rate" else {}
    same_requests(conversation(0.2), conversation(0.2, control, **options))


def test_limits_are_kept(conversation):
    waits = [conversation(2.5, "queue_limit", waiting=n).summary for n in (16, 4, 1)]
    rejected = [s["requests"]["rejected"] for s in waits]
    assert rejected == sorted(rejected)
    assert rejected[0] < rejected[-1]
    assert waits[-1]["ttft_ms"]["mean"] < waits[0]["ttft_ms"]["mean"]
    run = conversation(2.5, "token_rate", rate=50_000, burst=200_000)
    served = run.frames["requests"].query("status == 'finished'")
    assert served.input_tokens.sum() <= 200_000 + 50_000 * served.arrival_s.max()
    assert served.input_tokens.sum() > 0.8 * 50_000 * served.arrival_s.max()


WATCH = """
import kvsim

class Watch(kvsim.AdmissionControl):
    def admit(self, request, replica):
        print(request.index, replica.queue_s + replica.prefill_s(request), replica.step_s(4), len(replica.decoding_s))
        return {answer}
"""


def test_what_is_expected_happens(scenario, prompt, tmp_path, capsys):
    """Four prompts that come together, then one while their answers decode: first tokens come when they should."""
    (tmp_path / "watch.py").write_text(WATCH.replace("{answer}", "True"))
    rows = [(0.0, 6000, 400, prompt(i, 6000)) for i in range(4)] + [(1.5, 3000, 2, prompt(9, 3000))]
    rows += [(2.0, 3000, 2, prompt(9, 3000))]
    built = scenario(rows, tiers=[{"name": "hbm"}], admission_control=f"{tmp_path}/watch.py:Watch")
    requests = simulate(built, check=True).frames["requests"]
    seen = np.array([[float(x) for x in line.split()] for line in capsys.readouterr().out.splitlines() if line])
    assert list(seen[:, 3]) == [0, 0, 0, 0, 4, 4]
    # Whole steps of 8,192 tokens hold prompts of several: the last of the four is known best.
    assert requests.ttft_s[3] == pytest.approx(seen[3, 1], rel=0.05)
    assert requests.ttft_s[4] == pytest.approx(seen[4, 1], rel=0.1)
    assert requests.ttft_s[5] < 0.3 * requests.ttft_s[4]  # its prompt is cached
    assert seen[5, 1] < 0.3 * seen[4, 1]
    assert requests.tpot_s[:4].mean() == pytest.approx(seen[4, 2], rel=0.15)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("1", r"admission_control policy Watch broke its contract: admit\(request 0\) returned 1"),
        ("1 // 0", r"admission_control policy Watch failed in admit\(request 0\): ZeroDivisionError"),
    ],
)
def test_a_policy_that_breaks_its_contract_is_named(answer, said, scenario, prompt, tmp_path):
    (tmp_path / "watch.py").write_text(WATCH.replace("{answer}", answer))
    built = scenario([(2.5, 100, 2, prompt(1, 100))], admission_control=f"{tmp_path}/watch.py:Watch")
    with pytest.raises(InputError, match=rf"{said}.*, at 2.5 s"):
        built.run()


def test_strides_and_single_steps_agree(scenario, same_requests):
    chat = {
        "requests": 80,
        "rate": 25,
        "first_tokens": {"mean": 3000, "sigma": 1},
        "output_tokens": {"mean": 60, "sigma": 1},
    }
    built = scenario(
        trace={"generate": chat},
        hardware={"profile": "h100-sxm", "replicas": 2},
        tiers=[{"name": "hbm", "capacity": "3 GiB"}, {"name": "dram", "capacity": "8 GiB", "shared": "node"}],
        admission_control={
            "name": "early_rejection",
            "ttft": "400 ms",
            "tpot": "9 ms",
            "load": "then",
            "decode_time": "1 s",
        },
    )
    strided = simulate(built, check=True)
    assert 0 < strided.summary["requests"]["rejected"] < 80
    same_requests(strided, simulate(built, single_step=True))


def test_the_resolved_scenario_runs_the_same(scenario, prompt, tmp_path):
    (tmp_path / "watch.py").write_text(WATCH.replace("{answer}", "request.index < 1"))
    rows = [(i, 100, 2, prompt(i, 100)) for i in range(3)]
    built = scenario(rows, admission_control=f"{tmp_path}/watch.py:Watch")
    first = built.run()
    (tmp_path / "again.yaml").write_text(built.to_yaml())
    again = type(built).load(tmp_path / "again.yaml").run()
    assert first.summary["requests"] == again.summary["requests"] == {"arrived": 3, "finished": 1, "rejected": 2}
    assert list(first.frames["requests"].status) == ["finished", "rejected", "rejected"]
    (tmp_path / "watch.py").write_text(WATCH.replace("{answer}", "request.index < 2"))
    assert built.run().summary["config_sha256"] != first.summary["config_sha256"]


def test_a_fleet_hears_of_who_is_turned_away(scenario, prompt):
    """Replicas that start for those who come: the load does not count who was turned away, and the run ends."""
    rows = [(0.1 * i, 6000, 20, prompt(i, 6000)) for i in range(60)]
    built = scenario(
        rows,
        hardware={"profile": "h100-sxm", "replicas": 2},
        tiers=[{"name": "hbm"}],
        fleet={"scaling": {"name": "target_utilization", "requests": 4}, "min": 1, "start_time": "1 s"},
        admission_control={"name": "early_rejection", "ttft": "600 ms"},
    )
    result = simulate(built, check=True)
    assert 0 < result.summary["requests"]["rejected"] < 60
    assert set(result.frames["requests"].query("status == 'rejected'").replica) == {-1}
