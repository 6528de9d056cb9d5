"""`make bench`: how fast the simulator runs the examples on this machine. Not a test: nothing here can fail.

Prints, for each example, requests, wall and CPU seconds of the simulation (without start-up, tables on disk and
report) and requests per CPU second, the best of three runs.
"""

from __future__ import annotations

from pathlib import Path

import kvsim
from hw_profiles.errors import InputError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
REPEATS = 3


def main() -> None:
    """Run every example and print its line."""
    print(f"{'example':<22}{'requests':>9}{'wall s':>9}{'CPU s':>9}{'requests / CPU s':>18}")
    for path in sorted(EXAMPLES.glob("*.yaml")):
        try:
            runs = [kvsim.load(path).run().summary for _ in range(REPEATS)]
        except InputError as error:
            print(f"{path.stem:<22}skipped: {error}")
            continue
        best = min((run["simulator"] for run in runs), key=lambda simulator: simulator["cpu_s"])
        arrived = runs[0]["requests"]["arrived"]
        print(
            f"{path.stem:<22}{arrived:>9,}{best['wall_s']:>9.2f}{best['cpu_s']:>9.2f}"
            f"{best['requests_per_cpu_s']:>18,.0f}"
        )


if __name__ == "__main__":
    main()
