"""What a simulation costs: CPU seconds, peak memory, requests per CPU second, of whole `kvsim run` commands.

    python benchmarks/speed.py                        # the three below
    python benchmarks/speed.py examples/quickstart.yaml --runs 5 [--vs OTHER_KVSIM]

conversation   examples/conversation.yaml: HBM and DRAM, eight replicas
tiers          examples/four_tiers.yaml against the same trace with HBM alone: the price of three tiers and shared links
million        benchmarks/million.yaml with a quarter and with all of `--requests` N: how cost and memory grow with the
               requests, report included

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
OURS = str(Path(sys.executable).with_name("kvsim"))
HBM_ALONE = ("tiers=[{name: hbm}]", "links={}", "policies={eviction: lru}")
"""Settings that leave a scenario no tier but HBM."""


class Usage(NamedTuple):
    """What one run took: CPU seconds of the whole process, peak resident bytes, and its summary."""

    cpu_s: float
    peak_bytes: int
    summary: dict[str, Any]

    @property
    def simulated_s(self) -> float:
        """CPU seconds of the simulation alone, without start-up, files and report."""
        return float(self.summary["simulator"]["cpu_s"])

    @property
    def requests(self) -> int:
        """Requests that arrived."""
        return int(self.summary["requests"]["arrived"])


def run(command: str, scenario: Path, settings: Sequence[str] = ()) -> Usage:
    """Run `command run scenario` with its report in a temporary folder. Raises SystemExit if it fails."""
    sets = [part for setting in settings for part in ("--set", setting)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        process = subprocess.Popen(
            [command, "run", str(scenario), *sets, "--out", str(out), "--json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status):
            sys.exit(said.decode().strip())
        summary = json.loads((out / "summary.json").read_text())
    # ru_maxrss is in KiB on Linux and in bytes on macOS
    scale = 1 if sys.platform == "darwin" else 1024
    return Usage(used.ru_utime + used.ru_stime, used.ru_maxrss * scale, summary)


def line(name: str, runs: Sequence[Usage]) -> str:
    """One row of the table, medians over runs."""
    cpu = statistics.median(usage.cpu_s for usage in runs)
    simulated = statistics.median(usage.simulated_s for usage in runs)
    peak = max(usage.peak_bytes for usage in runs) / 1e6
    steps = runs[0].summary["simulator"]["steps"]
    return f"{name:<22}{cpu:>8.2f}{simulated:>8.2f}{peak:>8.0f}{runs[0].requests / cpu:>16,.0f}{steps / cpu:>14,.0f}"


def scenarios(paths: Sequence[Path], runs: int, other: str | None) -> None:
    """A row for each scenario, against another installation if there is one."""
    for path in paths:
        ours, ratios = [], []
        for _ in range(runs):
            ours.append(run(OURS, path))
            if other:
                ratios.append(ours[-1].cpu_s / run(other, path).cpu_s)
        ratio = f"   CPU {statistics.median(ratios):.2f} x the other's" if ratios else ""
        print(line(path.stem, ours) + ratio)


def tiers(runs: int) -> None:
    """Four tiers against HBM alone, in turn."""
    path = ROOT / "examples" / "four_tiers.yaml"
    pairs = [(run(OURS, path, HBM_ALONE), run(OURS, path)) for _ in range(runs)]
    print(line("HBM alone", [alone for alone, _ in pairs]))
    ratio = statistics.median(four.simulated_s / alone.simulated_s for alone, four in pairs)
    print(line("four tiers", [four for _, four in pairs]) + f"   sim {ratio:.2f} x HBM alone")


def million(requests: int) -> None:
    """A quarter of the requests, then all: cost by request, and what a million would take at the last rate."""
    path = ROOT / "benchmarks" / "million.yaml"
    quarter, whole = (run(OURS, path, [f"trace.prefixes.requests={n}"]) for n in (requests // 4, requests))
    print(line(f"{quarter.requests:,} short", [quarter]))
    growth = (whole.cpu_s / whole.requests) / (quarter.cpu_s / quarter.requests)
    each = (whole.cpu_s - quarter.cpu_s) / (whole.requests - quarter.requests)
    print(
        line(f"{whole.requests:,} short", [whole]) + f"   CPU by request {growth:.2f} x; {each * 1e6:.0f} s per million"
    )


def main() -> None:
    """Measure, one row at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", type=Path, help="scenarios to measure instead of the three benchmarks")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--requests", type=int, default=100_000, metavar="N", help="of the last benchmark")
    parser.add_argument("--vs", metavar="OTHER_KVSIM")
    options = parser.parse_args()
    print(f"{'':<22}{'CPU s':>8}{'sim s':>8}{'MB':>8}{'requests/CPU s':>16}{'steps/CPU s':>14}")
    scenarios(options.scenarios or [ROOT / "examples" / "conversation.yaml"], options.runs, options.vs)
    if not options.scenarios:
        tiers(options.runs)
        million(options.requests)


if __name__ == "__main__":
    main()
