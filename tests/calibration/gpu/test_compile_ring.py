"""Every kernel compiled ahead of time for GPUs that are not there, and static checks of the code."""

from __future__ import annotations

import pytest

MISTAKES = """
import dataclasses
from calibration.kernels import catalog, compile_ahead
builds = {build.name: build for build in catalog.BUILDS}
copy = builds["stream_copy"]
unaligned = dataclasses.replace(copy, whole=())
no_wgmma = dataclasses.replace(copy, must={"cuda": ("wgmma",)})
crowded = dataclasses.replace(builds["decode_gqa4"], options={"num_warps": 1, "num_stages": 3})
missing = dataclasses.replace(copy, constants={"BLOCK": 4095})
for build in (unaligned, no_wgmma, crowded, missing):
    print(*compile_ahead.compile_build(build, "cuda:90").problems, sep=" | ")
"""


def _problems(rows):
    return [(row["kernel"], row["target"], row["problems"]) for row in rows if row["problems"]]


def test_every_kernel_compiles_for_hopper(json_rows):
    rows = json_rows("calibration.kernels.compile_ahead", "--target", "cuda:90")
    assert _problems(rows) == []
    features = {row["kernel"]: row["features"] for row in rows}
    assert "wgmma" in features["prefill"]
    assert "prefetch_bulk" in features["l2_prefetch_pages"]
    assert "evict_first" in features["stream_copy"]
    assert len(features) > 30


def test_some_kernels_compile_elsewhere(json_rows):
    names = ("stream_copy", "prefill", "prefill_small", "address_copy")
    targets = ("--target", "cuda:80", "--target", "cuda:100", "--target", "hip:gfx942")
    rows = json_rows("calibration.kernels.compile_ahead", *targets, *names)
    assert _problems(rows) == []
    assert len(rows) == 2 * 3 + 1 + 2  # the large tile of prefill is for Blackwell, the small one for the others


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda:80", "cuda:100", "hip:gfx942"])
def test_every_kernel_compiles(json_rows, target):
    rows = json_rows("calibration.kernels.compile_ahead", "--target", target)
    assert _problems(rows) == []
    assert len(rows) > 25


def test_mistakes_are_found(gpu_python):
    """Sizes that are not multiples of 16 lose 16-byte accesses; too few warps spill; tiles must be powers of two."""
    done = gpu_python("-c", MISTAKES)
    assert done.returncode == 0, done.stderr
    unaligned, no_wgmma, crowded, missing = done.stdout.splitlines()
    assert unaligned == "no wide_access"
    assert no_wgmma == "no wgmma"
    assert "spills" in crowded
    assert "power of 2" in missing
