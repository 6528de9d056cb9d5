"""Every provider of `traces.importance` answers what `policies.sequence.plan.Importance` asks."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.lines import Line
from policies.sequence.plan import Importance
from traces.importance.recorded import Recorded
from traces.importance.synthetic import Synthetic
from traces.importance.table import Table

ROOT = Path(__file__).parents[2]
METADATA = {"score": "log_mass", "model": "m", "page_tokens": 32, "context": 16 * 32, "source": "s"}
SCORES = np.log(np.linspace(1, 2, 4 * 3 * 16).reshape(3, 4, 16)).astype(np.float32)
PROVIDERS = (Synthetic(), Table(), Recorded(SCORES, METADATA, "a.npz"))
STATIC = """
from policies.sequence.plan import Importance
from traces.importance.provider import Provider
from traces.importance.recorded import Recorded
from traces.importance.synthetic import Synthetic
from traces.importance.table import Table

def ask(*who: Importance) -> None: ...
def show(*who: Provider) -> None: ...
def both(a: Synthetic, b: Table, c: Recorded, d: Provider) -> None:
    ask(a, b, c, d)
    show(a, b, c)
"""


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda p: type(p).__name__)
def test_it_has_every_question_with_the_same_arguments(provider):
    asked = [name for name, _ in inspect.getmembers(Importance, inspect.isfunction) if not name.startswith("_")]
    assert asked == ["coverage", "hit_ratio", "keys_for", "recalls"]
    for name in asked:
        wanted = list(inspect.signature(getattr(Importance, name)).parameters)[1:]
        offered = inspect.signature(getattr(provider, name)).parameters
        assert list(offered)[: len(wanted)] == wanted
        assert all(p.default is not p.empty for p in list(offered.values())[len(wanted) :])
    assert isinstance(provider.name, str)


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda p: type(p).__name__)
def test_it_answers(provider):
    assert isinstance(provider.recalls(4, 8, 32), Line)
    assert isinstance(provider.keys_for(0.9), Line)
    assert 0 < provider.hit_ratio(4096, 1600, 128) <= 1
    assert 0 < provider.coverage(64, 512) < provider.coverage(256, 512) <= provider.coverage(512, 512) == 1


@pytest.mark.slow
def test_the_type_checker_agrees(tmp_path):
    (tmp_path / "check.py").write_text(STATIC)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(tmp_path / "check.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
