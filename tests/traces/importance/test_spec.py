"""`importance:` of a scenario: every provider by name, wrong input refused in one line."""

from __future__ import annotations

import numpy as np
import pytest

from hw_profiles.errors import InputError
from traces.importance.recorded import save
from traces.importance.spec import OPTIONS, build


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("synthetic", "synthetic/recommended"),
        ({}, "synthetic/recommended"),
        ({"name": "synthetic", "setting": "slow"}, "synthetic/slow"),
        ({"setting": "best_log"}, "synthetic/best_log"),
        ("table", "table"),
        ({"name": "recorded", "path": "runs/a.npz"}, "recorded/a.npz"),
    ],
)
def test_providers_by_name(tmp_path, spec, name):
    metadata = {"score": "relevance", "model": "m", "page_tokens": 16, "context": 64, "source": "s"}
    save(tmp_path / "runs/a.npz", np.zeros((1, 2, 4), dtype=np.float16), metadata)
    provider = build(spec, tmp_path)
    assert provider.name == name
    assert provider.about
    assert "\n" not in provider.about
    assert provider.kinds
    assert provider.notes == ()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            "synthetics",
            "importance.name: unknown provider, found 'synthetics', expected one of synthetic, table",
        ),
        ({"name": ["table"]}, "importance.name: unknown provider"),
        (
            {"setting": "fast"},
            "importance.setting: unknown setting, found 'fast', expected one of recommended",
        ),
        ({"seting": "slow"}, "not an option of synthetic, found 'seting', expected setting; did you mean 'setting'?"),
        (
            {"name": "table", "setting": "slow"},
            "not an option of table, found 'setting', expected nothing but its name",
        ),
        ("recorded", "importance.path: expected a file of recorded scores (.npz)"),
        ({"name": "recorded", "path": "none.npz"}, "none.npz: no such file"),
    ],
)
def test_wrong_input_is_refused_in_one_line(tmp_path, spec, says):
    with pytest.raises(InputError) as error:
        build(spec, tmp_path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_the_place_in_the_scenario_is_named(tmp_path):
    with pytest.raises(InputError, match=r"^a\.b\.name: unknown"):
        build("x", tmp_path, path="a.b")


def test_facts_of_papers_name_their_systems(tmp_path):
    systems = {fact.system for fact in build("synthetic", tmp_path).kinds if fact.kind == "fitted"}
    assert {"arkvale", "pqcache"} <= systems
    assert {fact.kind for fact in build("table", tmp_path).kinds} == {"published table"}
    assert set(OPTIONS) == {"synthetic", "table", "recorded"}
