"""`kvsim report --png`: pictures of figures where Kaleido and a browser are there, else one line."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports import pictures

Kvsim = Callable[..., Any]


@pytest.fixture
def run(kvsim: Kvsim) -> Path:
    assert kvsim("run", "small.yaml", "--out", "d").code == 0
    return Path("d")


def test_without_kaleido_it_says_what_to_install(kvsim: Kvsim, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    answer = kvsim("report", run, "--png", "goodput")
    assert answer.code == 2
    assert "pip install 'kvsim[png]'" in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert not Path("d-figures").exists()


def test_a_figure_that_there_is_not(kvsim: Kvsim, run: Path) -> None:
    answer = kvsim("report", run, "--png", "godput")
    assert answer.code == 2
    assert "did you mean 'goodput'?" in answer.err


def test_a_browser_that_fails_is_one_line(kvsim: Kvsim, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import plotly.graph_objects as go

    def broken(self: go.Figure, **_: object) -> bytes:
        raise RuntimeError("no\nbrowser")

    monkeypatch.setattr(pictures, "find_spec", lambda name: name)
    monkeypatch.setattr(go.Figure, "to_image", broken)
    answer = kvsim("report", run, "--png", "all")
    assert answer.code == 2
    assert "Kaleido could not draw it (no browser)" in answer.err


@pytest.mark.skipif(importlib.util.find_spec("kaleido") is None, reason="no kaleido (pip install 'kvsim[png]')")
@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium (make test-tools)")
def test_pictures_are_png_files(kvsim: Kvsim, run: Path) -> None:
    answer = kvsim("report", run, "--png", "goodput", "--png", "byte-flow", "--out", "pictures")
    assert answer.code == 0
    for name in ("goodput", "byte-flow"):
        data = Path("pictures", f"{name}.png").read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert len(data) > 5000
