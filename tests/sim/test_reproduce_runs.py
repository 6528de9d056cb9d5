"""Settings of papers on the real engine: what is read from a run, and one quick row of each kind."""

import pytest

from sim.reproduce.harness import reproduce, settings_of
from sim.reproduce.measure import Failed, Measured, measure
from sim.reproduce.models import PAPER_MODELS, config_of
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import MOST, Setting

SMALL = Setting("llama-2-7b", "a100-80", 4, 1000, 64)


def run(setting: Setting) -> Measured:
    found = measure(setting)
    assert isinstance(found, Measured), found
    return found


def test_a_run_adds_up() -> None:
    found = run(SMALL)
    assert found.batch == 4
    assert sum(found.parts.values()) == pytest.approx(found.step_ms, rel=1e-6)
    assert found.tokens_per_s * found.total_s == pytest.approx(4 * 64)
    assert found.decode_per_s == pytest.approx(4e3 / found.step_ms)
    assert found.token_bytes == 512 * 1024
    assert found.kv_per_sequence == pytest.approx(1064 * found.token_bytes, rel=0.02)  # whole blocks of 16
    assert 13e9 < found.peak_bytes - found.kv_bytes < 20e9
    assert found.ttft_ms < 1e3 * found.total_s


def test_other_takes_what_it_is_said_to_take() -> None:
    found = run(SMALL.but(other_ms=20.0))
    assert found.step_ms - found.parts["attention"] == pytest.approx(20.0, abs=0.01)


def test_the_most_sequences_fit_and_one_more_does_not() -> None:
    setting = Setting("llama-2-13b", "a100-80", MOST, 3000, 64)
    found = run(setting)
    assert found.summary["preemptions"] == 0
    more = run(setting.but(batch=found.batch + 1))
    assert more.summary["preemptions"] > 0 or more.summary["queue"]["waiting"]["max"] > 0
    assert run(setting.but(at_most=3)).batch == 3


def test_a_context_beyond_the_models_is_run_as_the_paper_did() -> None:
    assert run(Setting("opt-6.7b", "a100-80", 1, 4000, 8)).context == 4008
    assert config_of("opt-6.7b", 100)["max_position_embeddings"] == 2048
    assert config_of("opt-6.7b", 5000)["max_position_embeddings"] == 5000


@pytest.mark.parametrize("name", PAPER_MODELS)
def test_models_of_papers_run(name: str) -> None:
    ranks = {"tp": 8} if name == "qwen3-235b-a22b" else {}
    assert run(Setting(name, "a100-80", 1, 100, 4, hardware=ranks)).step_ms > 0


def test_what_is_wrong_is_said_and_stops_nothing() -> None:
    bad = SMALL.but(model="no-such-model")
    assert isinstance(measure(bad), Failed)
    figures = tuple(Figure(s.model, 1.0, "ms", (s,), lambda m: m.step_ms) for s in (bad, SMALL))
    (found,) = reproduce([Table("h2o", "here", "R", "nowhere", figures)], workers=1)
    assert "no-such-model" in found.rows[0].note
    assert found.rows[1].simulated > 0


def test_a_setting_that_two_figures_need_runs_once() -> None:
    twice = tuple(Figure(name, 1.0, "ms", (SMALL, SMALL.but()), lambda a, b: a.step_ms / b.step_ms) for name in "ab")
    made = Table("h2o", "here", "D", "nowhere", twice)
    assert settings_of([made]) == [SMALL]
    (found,) = reproduce([made], workers=1)
    assert [row.simulated for row in found.rows] == [1.0, 1.0]
