"""Running the command line as a user does: in a folder of one's own, with a scenario that takes a moment."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from kvsim.cli.main import run

SCENARIO = """\
schema: kvsim-scenario/1
trace: {generate: {requests: 60, rate: 4, turns: 2, first_tokens: {mean: 2000, sigma: 1}}}
model: llama-3.1-8b
hardware: {profile: h100-sxm, replicas: 2}
tiers: [{name: hbm}, {name: dram, capacity: 64 GiB, shared: node}]
slo: {ttft_p99: 30s}
"""


class Answer(NamedTuple):
    """What a call of `kvsim` came to."""

    code: int
    out: str
    err: str


Kvsim = Callable[..., Answer]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with `small.yaml` in it; no traces from outside."""
    (tmp_path / "small.yaml").write_text(SCENARIO)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KVSIM_TRACES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def kvsim(folder: Path, capsys: pytest.CaptureFixture[str]) -> Kvsim:
    """Call `kvsim ARGUMENTS...` in `folder`, in this process."""

    def call(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Answer(code, *capsys.readouterr())

    return call
