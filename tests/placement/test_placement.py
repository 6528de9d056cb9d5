"""Placements of pages that are read in both memories at once: costs by hand, the bounds, limits, the verb."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from hw_profiles.loader import load_profile
from kvsim.cli.main import run
from policies.placement.base import Placement, PlacementInfo
from policies.tables import PLACEMENT
from sim.placement.anneal import annealed
from sim.placement.model import Machine, floor_s, play, seconds
from sim.placement.study import BOUND, FLOOR, attended_pages, machine_of, run_place

POLICIES = [*PLACEMENT]


def machine(pages: int, capacity: int, hbm: float = 10.0, host: float = 1.0, out: float = 0.5) -> Machine:
    return Machine(PlacementInfo(pages, capacity, hbm, host, host, out), 1.0)


def test_a_step_is_the_longer_read_and_what_moved():
    """By hand: 3 pages in HBM at 0.1 s, 1 in host memory at 1 s; then one comes (1 s) and one leaves (2 s)."""
    attended = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 0]], dtype=bool)
    placed = np.array([[1, 1, 1, 0, 1], [1, 1, 1, 1, 0]], dtype=bool)
    assert seconds(machine(5, 4), attended, placed) == pytest.approx([1.0, 0.4 + 1.0 + 2.0])


@given(
    st.integers(1, 30), st.integers(0, 30), st.integers(1, 8), st.integers(0, 2**32 - 1), st.sampled_from([0.5, 2, 20])
)
@settings(max_examples=60, deadline=None)
def test_no_policy_beats_the_bounds(pages, capacity, steps, seed, hbm):
    """Nor a placement drawn at random the floor; the annealed one is no worse than any policy that it was shown."""
    draws = np.random.default_rng(seed)
    attended = draws.random((steps, pages)) < draws.random()
    attended[:, 0] = True
    capacity = min(capacity, pages)
    m = machine(pages, capacity, hbm=hbm)
    placed = [play(PLACEMENT[name](m.info), attended) for name in POLICIES]
    least = min(float(seconds(m, attended, p).sum()) for p in placed)
    best = annealed(m, attended, placed, moves=200, seed=seed)
    assert best.sum(axis=1).max() <= capacity
    found = float(seconds(m, attended, best).sum())
    assert floor_s(m, attended) * (1 - 1e-9) <= found <= least * (1 + 1e-9)
    wild = np.zeros((steps, pages), dtype=bool)
    for step in range(steps):
        wild[step, draws.permutation(pages)[: draws.integers(capacity + 1)]] = True
    assert floor_s(m, attended) <= float(seconds(m, attended, wild).sum()) * (1 + 1e-9)


def test_small_cases_are_annealed_to_the_best():
    """Against every placement that there is: nearly always the best one, and never far from it."""
    found = np.array([_above_the_best(seed) for seed in range(60)])
    assert (found >= 1 - 1e-9).all()
    assert (found < 1 + 1e-9).mean() > 0.9
    assert found.max() < 1.5


def _above_the_best(seed: int) -> float:
    """Seconds of the annealed placement over those of the best there is, of a small case drawn at random."""
    draws = np.random.default_rng(seed)
    pages, capacity, steps = (int(draws.integers(least, most + 1)) for least, most in ((2, 5), (1, 4), (2, 3)))
    attended = draws.random((steps, pages)) < 0.6
    attended[:, 0] = True
    m = machine(pages, min(capacity, pages), hbm=3.0, host=1.0, out=1.0)
    masks = [np.array(bits) for bits in np.ndindex(*(2,) * pages) if sum(bits) <= capacity]
    least: dict[bytes, float] = {}
    for step in range(steps):  # the best way to each placement of the step
        now: dict[bytes, float] = {}
        for mask in masks:
            two = np.array([mask, mask], dtype=bool)
            alone = float(seconds(m, attended[[step, step]], two)[0])
            before = [0.0]
            if step:
                pairs = ((np.array([np.frombuffer(key, dtype=bool), mask], dtype=bool), s) for key, s in least.items())
                before = [s + float(seconds(m, np.zeros((2, pages), dtype=bool), both)[1]) for both, s in pairs]
            now[mask.astype(bool).tobytes()] = alone + min(before)
        least = now
    return float(seconds(m, attended, annealed(m, attended, [], moves=1000, seed=1)).sum()) / min(least.values())


def gains(**options: Any) -> dict[str, float]:
    profile = load_profile("gh200")
    pages, capacity = options.pop("pages", 300), options.pop("capacity", 60)
    selected = options.pop("selected", 30)
    layers = attended_pages(pages, selected, setting="recommended", steps=60, layers=1)
    study = run_place(machine_of(profile, 131072, pages, capacity), layers, POLICIES, moves=4000)
    return {row.policy: row.gain for row in study.rows} | {"limit": study.limit}


def test_where_attention_is_sparse_moving_pays_and_the_future_pays_more():
    found = gains()
    fixed = max(found[name] for name in ("host_only", "static", "proportional"))
    online = max(found["least_recently_attended"], found["attention_recency"])
    assert found["host_only"] == pytest.approx(1)
    assert fixed < 2 < online < found[BOUND] <= found[FLOOR] <= found["limit"]
    assert found[BOUND] > 5


def test_where_everything_is_attended_nothing_is_gained_by_moving():
    found = gains(selected=300, capacity=150)
    assert found[BOUND] == pytest.approx(found["static"]) == pytest.approx(2.0)


def test_with_room_for_all_dealing_by_rate_reaches_the_limit():
    found = gains(selected=300, capacity=300)
    assert found["proportional"] == pytest.approx(found["limit"], rel=0.02)
    assert found["static"] < found["limit"]


def test_no_room_is_host_memory_alone():
    found = gains(capacity=0)
    assert all(found[name] == pytest.approx(1) for name in (*POLICIES, BOUND, FLOOR))


class TooMany(Placement):
    def after(self, attended, placed):
        return np.ones(self.info.pages, dtype=bool)


class NoMask(Placement):
    def after(self, attended, placed):
        return [1, 2]


@pytest.mark.parametrize(("cls", "said"), [(TooMany, "more pages than HBM holds"), (NoMask, "expected a mask")])
def test_a_broken_contract_is_told(cls, said):
    attended = np.ones((3, 4), dtype=bool)
    with pytest.raises(InputError, match=said):
        play(cls(machine(4, 2).info), attended)


def test_the_verb(capsys, tmp_path):
    arguments = ["place", "gh200", "--context", "6400 tok", "--hbm", "1600 tok", "--steps", "30", "--moves", "500"]
    assert run([*arguments, "--json", "--layers", "1"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = {row["policy"]: row for row in document["rows"]}
    assert [*rows] == [*POLICIES, BOUND, FLOOR]
    assert rows[FLOOR]["moved"] is None
    assert run(arguments) == 0
    assert "gain: over all of it in host memory" in capsys.readouterr().out
    (tmp_path / "mine.py").write_text(
        "from kvsim import Placement\n\n\nclass Mine(Placement):\n"
        "    def after(self, attended, placed):\n        return placed\n"
    )
    assert run([*arguments, "--json", "--moves", "0", "--policy", f"static,{tmp_path / 'mine.py'}:Mine"]) == 0
    one, mine, _ = json.loads(capsys.readouterr().out)["rows"]
    assert one["step_s"] == mine["step_s"]
    for wrong, said in (
        (["--importance", "slo"], "slow"),
        (["--policy", "statik"], "static"),
        (["--hbm", "3"], "unit"),
    ):
        assert run([*arguments, *wrong]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--attended", "0"], "--attended: found '0', expected 1 tok or more"),
        (["--context", "0 tok"], "--context: found '0 tok', expected 1 tok or more"),
        (["--hbm", "much"], "--hbm: found 'much', expected a token count"),
        (["--policy", "mine.py:Raises"], "placement policy Raises failed in after(): KeyError: 3 (mine.py, line "),
        (["--policy", "mine.py:Counts"], "Counts broke its contract: expected a mask, bool[1000], found an array of"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(options, said, capsys, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from kvsim import Placement\n\n\n"
        "class Raises(Placement):\n    def after(self, attended, placed):\n        raise KeyError(3)\n\n\n"
        "class Counts(Placement):\n    def after(self, attended, placed):\n        return placed * 1.0\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run(["place", "--steps", "2", "--moves", "0", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1
