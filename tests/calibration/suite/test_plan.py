"""The plan: what is measured, what it is predicted to take, what a budget leaves out."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.suite.facts import costs_of, cpu_costs, facts_of
from calibration.suite.plan import make_plan, totals
from calibration.suite.plan_attention import SKEWS, skewed
from hw_profiles.errors import InputError
from hw_profiles.loader import list_profiles, load_profile
from kvsim.cli.main import run


@pytest.fixture(scope="module")
def h100():
    profile = load_profile("h100-sxm")
    return make_plan(facts_of(profile), costs_of(profile))


def test_two_passes_take_less_than_four_minutes_on_an_h100(h100):
    assert h100.passes == 2
    assert 60 < h100.seconds < 240
    assert h100.seconds == pytest.approx(h100.overhead_s + 2 * 1.15 * sum(point.seconds for point in h100.points))


def test_the_docs_say_what_is_planned(h100):
    text = (Path(__file__).parents[3] / "docs/calibration.md").read_text()
    said = {name: int(count) for name, count in re.findall(r"^\| (\w+) \| (\d+) \|", text, re.MULTILINE)}
    assert said == {"nvme": 0} | {bench: count for bench, count, _, _ in totals(h100.points)}
    seconds, points_s = map(float, re.search(r"point: (\d+) s, of which (\d+) s are the points", text).groups())
    assert seconds == pytest.approx(h100.seconds, abs=1)
    assert points_s == pytest.approx(h100.points_s, abs=1)


def test_every_promised_kind_is_there(h100):
    keys = {}
    for point in h100.points:
        keys.setdefault(point.bench, []).append(point.key)
    assert {key["op"] for key in keys["stream"]} == {"read", "write", "copy"}
    assert {(key["heads"], key["kv_heads"]) for key in keys["decode"]} == {(32, 8), (64, 8), (32, 32)}
    assert {key["format"] for key in keys["decode"]} == {"bf16", "int8", "fp8", "int4", "int2"}
    assert {16, 64} <= {key["page"] for key in keys["decode"]}
    assert {key["where"] for key in keys["chase"]} == {"l2", "hbm", "host"}
    assert {key["method"] for key in keys["blocks"]} == {"loop", "batch", "kernel"}
    assert {key["memory"] for key in keys["copy"]} == {"pinned", "pageable"}
    assert {(key["kernel"], key["traffic"]) for key in keys["beside"]} >= {("decode", "h2d"), ("gemm", "d2h_kernel")}
    assert any(key["prefix"] for key in keys["prefill"])
    for bench in ("l2_read", "l2_prefetch", "mla", "gemm", "elementwise", "page_copy", "quantise", "digest"):
        assert bench in keys
    for bench in ("both_ways", "behind", "from_host", "host_memcpy", "launch", "layer"):
        assert bench in keys
    assert "nvme" not in keys


def test_skewed_batches_have_the_same_tokens():
    longest = {}
    for name in SKEWS:
        lengths = skewed(name, 8, 4096)
        assert sum(lengths) == 8 * 4096
        assert min(lengths) > 0
        longest[name] = max(lengths) / 4096
    assert longest["even"] == 1.0
    assert longest["one_long"] == pytest.approx(4.0, rel=0.01)


def test_points_have_names_of_their_own(h100):
    assert max(Counter(point.name for point in h100.points).values()) == 1


def test_the_knee_has_points_on_its_slope(h100):
    """H100: everything hits up to 39 MB, nothing from 63 MB on (profile h100-sxm)."""
    sizes = [point.key["bytes"] for point in h100.points if point.bench == "l2_read" and not point.heldout]
    assert sum(39e6 < size < 63e6 for size in sizes) >= 3


def test_held_out_points_lie_between_fitted_ones(h100):
    for bench, axis in (("decode", "seq"), ("stream", "bytes"), ("copy", "bytes"), ("gemm", "m")):
        fitted = [point.key[axis] for point in h100.points if point.bench == bench and not point.heldout]
        held = [point.key[axis] for point in h100.points if point.bench == bench and point.heldout]
        assert len(held) >= 8
        assert min(fitted) <= min(held) <= max(held) <= max(fitted)


def test_passes_are_shuffled_and_the_same_again(h100):
    first, second = ([point.name for point in h100.order(turn)] for turn in (0, 1))
    assert first != second != [point.name for point in h100.points]
    assert sorted(first) == sorted(second)
    assert first == [point.name for point in h100.order(0)]
    neighbours = sum(a.split()[0] == b.split()[0] for a, b in itertools.pairwise(first))
    assert neighbours < 0.25 * len(first)


def test_a_budget_drops_the_least_important_first(h100):
    short = h100.within(100)
    assert short.seconds <= 100 < h100.seconds
    assert {point.name for point in (*short.points, *short.dropped)} == {point.name for point in h100.points}
    first_dropped = min(point.priority for point in short.dropped)
    assert first_dropped > 0
    assert max(point.priority for point in short.points) <= first_dropped
    assert h100.within(1000).points == h100.points


def test_a_budget_for_less_than_a_profile_is_refused(h100):
    with pytest.raises(InputError, match=r"--budget-s: too short for the least suite, found 20, expected at least \d+"):
        h100.within(20)


def test_what_a_card_cannot_do_is_not_planned():
    profile = load_profile("h100-sxm")
    facts, costs = facts_of(profile), costs_of(profile)
    ampere = {point.name for point in make_plan(replace(facts, arch="8.0"), costs).points}
    assert not any("fp8" in name or "method=pages" in name for name in ampere)
    amd = {point.name for point in make_plan(replace(facts, kind="hip", arch="gfx942"), costs).points}
    assert not any("fp8" in name or "method=batch" in name or name.startswith("l2_prefetch") for name in amd)
    small = make_plan(replace(facts, free_bytes=16 << 30), costs)
    sizes = [point.key["batch"] * point.key["seq"] for point in small.points if point.bench == "decode"]
    assert max(sizes) * 4096 <= 4 << 30


def test_every_shipped_profile_makes_a_plan():
    for name in list_profiles():
        profile = load_profile(name)
        assert make_plan(facts_of(profile), costs_of(profile)).seconds < 600, name


def test_a_slower_card_takes_longer():
    """The profile is one's guess; what the driver says of the memory counts."""
    profile = load_profile("h100-sxm")
    facts = facts_of(profile)
    seconds = [make_plan(facts, costs_of(profile, peak)).points_s for peak in (0.0, 3.35e12, 0.6e12)]
    assert seconds[1] == pytest.approx(seconds[0], rel=0.05)
    assert seconds[2] > 1.5 * seconds[0]


def test_the_disk_alone(tmp_path, capsys):
    assert run(["calibrate", "run", "--plan", "--json", "--only", "nvme", "--nvme", str(tmp_path)]) == 0
    assert {point["bench"] for point in json.loads(capsys.readouterr().out)["points"]} == {"nvme"}


def test_the_disk_only_when_asked():
    profile = load_profile("h100-sxm")
    plan = make_plan(facts_of(profile), costs_of(profile), nvme=True)
    assert len([point for point in plan.points if point.bench == "nvme"]) == 24


def test_benches_by_name():
    plan = make_plan(facts_of(load_profile("h100-sxm")), cpu_costs(1 << 20), only=("gemm", "chase"))
    assert [row[0] for row in totals(plan.points)] == ["chase", "gemm"]


def test_the_command_prints_the_plan_without_a_gpu(capsys):
    assert run(["calibrate", "run", "--plan"]) == 0
    text = capsys.readouterr().out
    assert "835 points; 2 shuffled passes" in text
    assert run(["calibrate", "run", "--plan", "--json", "--budget-s", "110"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["seconds"] <= 110
    assert len(plan["points"]) + len(plan["dropped"]) == 835
    assert {"bench", "key", "seconds", "priority", "heldout"} <= set(plan["points"][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plan", "--only", "decod"], "unknown bench, found 'decod'"),
        (["--plan", "--profile", "h900"], "unknown profile, found 'h900'"),
        (["--plan", "--budget-s", "3"], "too short for the least suite"),
        (["--plan", "--budget-s", "nan"], "--budget-s: found nan, expected seconds above 0"),
        (["--plan", "--budget-s", "inf"], "--budget-s: found inf"),
        (["--plan", "--only", ""], "--only: a bench without a name, found ''"),
        (["--plan", "--only", "gemm,"], "--only: a bench without a name"),
        (["--plan", "--only", "nvme"], "--only: no disk to measure, found 'nvme', expected --nvme DIR"),
        (["--plan", "--nvme", "nowhere"], "--nvme: not a folder, found 'nowhere'"),
        (["--profile", "h200"], "--profile: only for a plan"),
        (["--device", "gpu"], "--device: found 'gpu', expected one of cuda, cpu"),
        (["--nvme", "nowhere"], "--nvme: not a folder"),
    ],
)
def test_wrong_options_are_one_line(arguments, message, capsys):
    assert run(["calibrate", "run", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
