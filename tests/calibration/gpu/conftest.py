"""Where torch and Triton are: in this environment, or in `.venv-gpu` beside `.venv` (`make gpu-tools`)."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
Rows = list[dict[str, Any]]


def _interpreter() -> str | None:
    if all(importlib.util.find_spec(name) for name in ("torch", "triton")):
        return sys.executable
    beside = Path(os.environ.get("KVSIM_GPU_PYTHON", ROOT / ".venv-gpu/bin/python"))
    return str(beside) if beside.exists() else None


@pytest.fixture(scope="session")
def gpu_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python with torch and Triton in a process of its own: kernels are interpreted or compiled, never both."""
    python = _interpreter()
    if python is None:
        pytest.skip("torch and Triton are not installed (make gpu-tools)")
    cache = tmp_path_factory.mktemp("triton")

    def run(*arguments: str, interpret: bool = False) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"TRITON_INTERPRET": str(int(interpret)), "TRITON_CACHE_DIR": str(cache)}
        environment["PYTHONPATH"] = str(ROOT)
        command = [python, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)

    return run


@pytest.fixture(scope="session")
def json_rows(gpu_python: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., Rows]:
    """What a module prints, one JSON object a line."""

    def rows(*arguments: str, interpret: bool = False) -> Rows:
        done = gpu_python("-m", *arguments, interpret=interpret)
        assert done.returncode in (0, 1), done.stderr[-2000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return rows
