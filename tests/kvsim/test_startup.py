"""What a short command loads: start-up stays quick as long as nothing heavy is imported for it."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("numpy", "pandas", "pyarrow", "simpy", "plotly", "jinja2", "scipy")  # typer itself loads pydantic


def imported(*arguments: str) -> set[str]:
    """Top-level modules that Python imported for a call."""
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert len(lines) > 10
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_importing_kvsim_loads_nothing() -> None:
    assert imported("-c", "import kvsim").isdisjoint(
        {*HEAVY, "pydantic", "typer", "rich", "yaml", "sim", "traces", "hw_profiles"}
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["list"], ["trace", "--help"]])
def test_help_and_lists_load_typer_and_rich_only(arguments: list[str]) -> None:
    script = str(Path(sys.executable).parent / "kvsim")
    loaded = imported(script, *arguments)
    assert "typer" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_a_run_and_its_report_do_without_what_is_slow_to_import(tmp_path: Path) -> None:
    scenario = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
    settings = ("--set", "trace={prefixes: {requests: 5}}", "--quiet", "--out", str(tmp_path / "run"))
    loaded = imported("-m", "kvsim", "run", str(scenario), *settings)
    assert {"numpy", "pyarrow", "jinja2"} <= loaded
    assert loaded.isdisjoint({"pandas", "scipy", "rich"})
