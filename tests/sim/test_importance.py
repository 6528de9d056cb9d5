"""`importance:` of a scenario moves what policies recall, and the report says where it comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import InputError
from hw_profiles.models import load_model
from sim.scenario import Scenario
from sim.sequence import plan_sequence
from traces.importance.recorded import save

EXAMPLE = Path(__file__).parents[2] / "examples" / "long_context.yaml"
ARKVALE = {"selection": {"name": "arkvale", "budget": 1024}}


def planned(policies, importance=None):
    scenario = Scenario.load(EXAMPLE).set("policies", policies)
    if importance is not None:
        scenario = scenario.set("importance", importance)
    found = plan_sequence(scenario, load_model(scenario.spec.model))
    assert found is not None
    return found


def recalled(found) -> float:
    """Bytes that a layer half way up recalls per step at 30,000 tokens."""
    (move,) = (move for move in found.plan.layers[16].moves if move.when == "critical")
    return move.nbytes.at(30_000, 30_000)


@pytest.fixture
def recording(tmp_path):
    """Every other step wants other pages."""
    scores = np.zeros((2, 9, 60), dtype=np.float16)
    scores[:, ::2, 10:40] = 1
    metadata = {"score": "relevance", "model": "m", "page_tokens": 32, "context": 1920, "source": "alternating"}
    save(tmp_path / "a.npz", scores, metadata)
    return str(tmp_path / "a.npz")


def test_the_data_moves_what_is_recalled(recording):
    page = 128 * 1024  # of Llama-3.1-8B
    assert recalled(planned(ARKVALE, {"name": "table"})) == pytest.approx((8.6 - 1) / 32 * page)  # 16 of 32 in Fig. 4b
    found = [
        recalled(planned(ARKVALE, {"name": "synthetic"})),
        recalled(planned(ARKVALE, {"name": "synthetic", "setting": "slow"})),
        recalled(planned(ARKVALE, {"name": "recorded", "path": recording})),
    ]
    assert len(set(found)) == 3
    assert min(found) > 0
    assert found[0] == recalled(planned(ARKVALE))  # the default


def test_the_report_names_the_data_and_what_was_asked_beyond_it(recording):
    assert planned(ARKVALE).importance().startswith("synthetic, setting recommended; pages fitted to ArkVale")
    assert "recorded from m (alternating)" in planned(ARKVALE, {"name": "recorded", "path": recording}).importance()
    beyond = {"selection": {"name": "arkvale", "budget": 8192, "selected": 2048}}
    assert "more than the 1280 tokens that the page process was fitted to" in planned(beyond).importance()
    assert "1280" not in planned(ARKVALE).importance()


def test_data_that_no_policy_asks_for_is_not_named():
    assert planned({"retention": "streaming_llm"}, {"name": "synthetic", "setting": "slow"}).importance() is None


def test_wrong_data_is_named_by_its_own_place_in_the_scenario():
    with pytest.raises(InputError, match=r"^importance\.setting: unknown setting, found 'fast', expected one of recom"):
        planned(ARKVALE, {"name": "synthetic", "setting": "fast"})
    with pytest.raises(InputError, match=r"table has no such page size of recalls, found 16, expected 32 tokens"):
        planned({"selection": {"name": "arkvale", "page": 16}}, {"name": "table"})


def test_layers_that_a_recording_tells_apart_have_budgets_of_their_own(tmp_path):
    """The upper half of the layers attends one page, the lower half all: nearly all of the total goes there."""
    scores = np.zeros((32, 3, 60), dtype=np.float16)
    scores[16:, :, 1:] = -10
    metadata = {"score": "log_mass", "model": "m", "page_tokens": 32, "context": 1920, "source": "two kinds"}
    save(tmp_path / "two.npz", scores, metadata)
    zigzag = {"retention": {"name": "zigzagkv", "budget": 1000}}
    found = planned(zigzag, {"name": "recorded", "path": str(tmp_path / "two.npz")})
    kept = [layer.kept.at(30_000, 30_000) for layer in found.plan.layers]
    assert sum(kept) == pytest.approx(32 * 1000)
    assert len(set(kept)) == 2
    assert (kept[0] - 32) / (kept[31] - 32) == pytest.approx(54, rel=0.01)  # 0.9 of 60 pages against one
    assert {layer.kept.at(30_000, 30_000) for layer in planned(zigzag).plan.layers} == {1000}


def test_what_corm_and_zipvl_keep_follows_from_the_data(recording):
    """Settings of the process and published counts move them; a recording without masses is refused."""
    for policies in ({"retention": "corm"}, {"selection": "zipvl"}):
        kept = planned(policies).plan.layers[3].kept
        assert 0 < kept.at(30_000, 30_000) < 9000
        with pytest.raises(InputError, match="attention mass needs scores"):
            planned(policies, {"name": "recorded", "path": recording})
    slow = planned({"retention": "corm"}, {"name": "synthetic", "setting": "slow"}).plan.layers[3].kept
    assert slow != planned({"retention": "corm"}).plan.layers[3].kept
