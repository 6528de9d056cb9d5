"""`kvsim plan`: its tables, its document, its exit codes, and wrong input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Kvsim = Callable[..., Any]
FIND = ("--find", "replicas", "--among", "1,2,3", "--workers", "1")


def test_the_answer_is_marked_in_its_table(kvsim: Kvsim) -> None:
    answer = kvsim("plan", "small.yaml", *FIND, "--slo", "ttft_p99=1000s")
    assert answer.code == 0
    assert "> 1 " in answer.out
    assert "fewest replicas to meet the SLO: 1;" in answer.out
    assert "price: h100-sxm 2.49 USD per GPU-hour: Lambda" in answer.out
    assert "price: host 0 USD per node-hour, energy 0 USD per kWh: " in answer.out
    assert "price: dram 0.00425 USD per GiB-hour: " in answer.out
    assert "a100" not in answer.out.partition("price: ")[2].replace("h100-vs-a100", "")  # none is bought


def test_what_has_no_price_is_beside_the_cost(kvsim: Kvsim, folder: Path) -> None:
    (folder / "mine.yaml").write_text("schema: kvsim-prices/1\ngpu: {h100-sxm: 2}\n")
    answer = kvsim("plan", "small.yaml", *FIND, "--slo", "ttft_p99=1000s", "--prices", "mine.yaml", "--out", "p")
    assert answer.code == 0
    (row,) = (line for line in answer.out.splitlines() if line.strip().startswith("> 1 "))
    assert "2 USD + dram" in row
    page = (folder / "p" / "plan.html").read_text()
    assert "Fewest replicas: 1, for 2 USD/h + dram" in page
    assert "without dram: no price" in page


def test_replicas_of_several_gpus_say_how_many(kvsim: Kvsim, folder: Path) -> None:
    arguments = ("--set", "hardware.tp=2", "--slo", "ttft_p99=1000s", "--set", "hardware.profile=gh200", "--out", "p")
    answer = kvsim("plan", "small.yaml", *FIND, *arguments)
    assert answer.code == 0, answer.err
    assert "fewest replicas to meet the SLO: 1 (2 GPUs)\n" in answer.out  # gh200 has no price
    assert "no price for this GPU" in answer.out
    assert "Fewest replicas: 1 (2 GPUs)<" in (folder / "p" / "plan.html").read_text()


def test_the_document(kvsim: Kvsim, folder: Path) -> None:
    slo = ("--slo", "ttft_p99=1000s,tpot_p95=10s")
    answer = kvsim(
        "plan", "small.yaml", *FIND, *slo, "--vary", "tiers.dram.capacity=0 B,64 GiB", "--json", "--out", "p"
    )
    assert answer.code == 0
    found = json.loads(answer.out)
    assert found == json.loads((folder / "p" / "plan.json").read_text())
    assert [plan["label"] for plan in found["plans"]] == ["0 B", "64 GiB"]
    assert found["cheapest"] == "0 B"  # one replica does, so memory only costs
    for plan in found["plans"]:
        assert plan["answer"]["shown"] == "1"
        assert set(plan["answer"]["targets"]) == {"ttft_p99", "tpot_p95"}


def test_a_run_that_ended_early_says_which_limit_was_lost(kvsim: Kvsim) -> None:
    answer = kvsim(
        "plan", "small.yaml", "--find", "rate", "--among", "90,0.1", "--slo", "ttft_p90=400ms", "--workers", "1"
    )
    assert answer.code == 0
    (row,) = (line for line in answer.out.splitlines() if line.strip().startswith("90x"))
    assert "> 400" in row
    assert "lost early" in row
    assert "lost early: stopped when" in answer.out


def test_no_answer_is_exit_code_1(kvsim: Kvsim) -> None:
    answer = kvsim("plan", "small.yaml", *FIND, "--slo", "ttft_p99=1us")
    assert answer.code == 1
    assert "no value tried meets the SLO; at 3 ttft_p99 binds" in answer.out
    assert answer.err == ""


CALLS = {
    "a typo in the SLO": (("--find", "rate", "--slo", "ttft_p999=2s"), "did you mean 'ttft_p99'?"),
    "a time without a unit": (("--find", "rate", "--slo", "ttft_p99=2"), "--slo"),
    "no such GPU": (("--find", "gpu", "--among", "h100-sxm,h100-sxn"), "unknown profile, found 'h100-sxn'"),
    "a GPU without a price": (("--find", "gpu", "--among", "h100-sxm,gh200"), "no price for this GPU"),
    "no such tier": (("--find", "tiers.ssd.capacity"), "did you mean 'tiers.dram.capacity'?"),
    "what cannot be found": (("--find", "policies.eviction"), "cannot be searched for"),
    "an empty range": (("--find", "rate", "--among", ""), "--among: no values"),
    "half a replica": (("--find", "replicas", "--among", "1,1.5"), "whole numbers"),
    "varied and searched": (("--find", "replicas", "--vary", "hardware.replicas=1,2"), "is searched for"),
    "no price table": (("--find", "replicas", "--prices", "mine.yaml"), "mine.yaml: file not found"),
}


@pytest.mark.parametrize("case", CALLS)
def test_wrong_input_is_one_line(kvsim: Kvsim, folder: Path, case: str) -> None:
    arguments, words = CALLS[case]
    answer = kvsim("plan", "small.yaml", *arguments, "--out", "out")
    assert (answer.code, answer.out) == (2, "")
    assert words in answer.err
    assert answer.err.count("\n") == 1
    assert not (folder / "out").exists()


def test_a_scenario_without_targets_needs_some(kvsim: Kvsim) -> None:
    answer = kvsim("plan", "small.yaml", "--find", "rate", "--set", "slo={}")
    assert answer.code == 2
    assert "--slo: no target" in answer.err
