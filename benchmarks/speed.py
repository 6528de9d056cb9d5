"""Speed of a whole `kvsim run`, report included: CPU seconds, peak memory, requests and steps per CPU second.

    python benchmarks/speed.py [SCENARIO ...] [--runs 3] [--vs OTHER_KVSIM]

Timings of one machine on one day are worth little: quote ratios. `--vs` names the `kvsim` command of another
environment (say, one with the last release installed); both are run in turn and the ratio of their CPU seconds is
printed, pair by pair. Needs a Unix system (resource usage of child processes).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = [ROOT / "examples" / "quickstart.yaml", ROOT / "examples" / "conversation.yaml"]


class Usage(NamedTuple):
    """What one run took: CPU seconds of the whole process, peak resident bytes, and its summary."""

    cpu_s: float
    peak_bytes: int
    summary: dict[str, Any]


def run(command: str, scenario: Path) -> Usage:
    """Run `command run scenario` with its report in a temporary folder. Raises SystemExit if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        process = subprocess.Popen(
            [command, "run", str(scenario), "--out", str(out), "--json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        _, status, used = os.wait4(process.pid, 0)
        assert process.stderr is not None
        if os.waitstatus_to_exitcode(status):
            sys.exit(process.stderr.read().decode().strip())
        summary = json.loads((out / "summary.json").read_text())
    # ru_maxrss is in KiB on Linux and in bytes on macOS
    scale = 1 if sys.platform == "darwin" else 1024
    return Usage(used.ru_utime + used.ru_stime, used.ru_maxrss * scale, summary)


def main() -> None:
    """Measure each scenario and print one line for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", type=Path, default=DEFAULT)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--vs", metavar="OTHER_KVSIM")
    options = parser.parse_args()
    command = str(Path(sys.executable).with_name("kvsim"))
    print(f"{'scenario':<16}{'CPU s':>8}{'sim s':>8}{'MB':>7}{'requests/CPU s':>16}{'steps/CPU s':>14}")
    for scenario in options.scenarios:
        ours, ratios = [], []
        for _ in range(options.runs):
            ours.append(run(command, scenario))
            if options.vs:
                ratios.append(ours[-1].cpu_s / run(options.vs, scenario).cpu_s)
        cpu = statistics.median(usage.cpu_s for usage in ours)
        simulator = ours[0].summary["simulator"]
        simulated = statistics.median(usage.summary["simulator"]["cpu_s"] for usage in ours)
        peak = max(usage.peak_bytes for usage in ours) / 1e6
        requests = ours[0].summary["requests"]["arrived"]
        line = f"{scenario.stem:<16}{cpu:>8.2f}{simulated:>8.2f}{peak:>7.0f}{requests / cpu:>16,.0f}"
        line += f"{simulator['steps'] / cpu:>14,.0f}"
        if ratios:
            line += f"   CPU {statistics.median(ratios):.2f} x the other's"
        print(line)


if __name__ == "__main__":
    main()
