"""The files of a new placement in two memories."""

from __future__ import annotations

from kvsim.cli._template_parts import CONTRACT, Template

POLICY = '''\
"""A placement for `kvsim place`; as it stands, what was attended last lies in HBM."""

import numpy as np
import numpy.typing as npt
from kvsim import Placement, PlacementInfo

Mask = npt.NDArray[np.bool_]


class $cls(Placement):
    """Pages that a step attended replace those attended longest ago."""

    # Keyword arguments are options:
    #     def __init__(self, info: PlacementInfo, *, margin: float = 0.5) -> None:
    # is set by `--policy '{name: "$name.py:$cls", margin: 0.2}'`;
    # raise ValueError for a value that makes no sense.
    def __init__(self, info: PlacementInfo) -> None:
        # info has pages, capacity (pages that fit HBM) and rates in bytes/s: hbm_rate,
        # host_rate, in_rate and out_rate (of pages that move).
        super().__init__(info)
        self._last = np.full(info.pages, -1)
        self._steps = 0

    # `first` may say what lies in HBM in the first step; as it is, the first pages.

    def after(self, attended: Mask, placed: Mask) -> Mask:
        """The pages in HBM in the next step, after one that attended to `attended`."""
        self._last[attended] = self._steps
        self._steps += 1
        order = np.lexsort((placed, self._last))  # those attended longest ago first
        answer = np.zeros_like(placed)
        answer[order[max(0, self.info.pages - self.info.capacity) :]] = True
        return answer
'''

HEAD = '''\
"""Tests of $name: the contract of its family, and a study."""

import json
import subprocess
import sys
from pathlib import Path

import kvsim
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # found however pytest is started

from $name import $cls

# 200 pages of 32 tokens on a GH200, of which 50 fit HBM.
STUDY = ["--context", "6400 tok", "--hbm", "1600 tok", "--steps", "40", "--moves", "0"]


def seconds(*policies: str) -> dict[str, float]:
    """Of a step and layer, by placement; floor: what none is faster than."""
    command = [sys.executable, "-m", "kvsim", "place", "gh200", *STUDY, "--json"]
    command += ["--policy", ",".join(policies)]
    here = Path(__file__).resolve().parent
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    return {row["policy"]: row["step_s"] for row in json.loads(done.stdout)["rows"]}


'''

TEST = '''\
def test_it_is_least_recently_attended_so_far() -> None:
    """Say here what your placement is to do better than the newest pages in HBM."""
    mine, shipped = "$name.py:$cls", "least_recently_attended"
    found = seconds(mine, shipped, "host_only")
    assert found[mine] == found[shipped]
    assert found["floor"] < found[mine] < found["host_only"]
'''

PLACEMENT = Template(POLICY, HEAD + CONTRACT + TEST)
