"""Every kernel against torch, on CPU tensors in Triton's interpreter."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[3] / "calibration/kernels"
WRONG = """
from calibration.kernels import verify
from calibration.kernels.spec import Check, Place, relative_error
import torch
off = Check("off", lambda place: relative_error(place.random(8) * 1.1, place.random(8)))
empty = Check("empty", lambda place: relative_error(place.poison(8), place.random(8)))
broken = Check("broken", lambda place: 1 / 0)
for check in (off, empty, broken):
    for dtype in ("f32", "bf16"):
        result = verify.verify(check, dtype, torch.device("cpu"))
        assert not result.ok and result.problem, result
        print(result.problem)
"""


@pytest.fixture(scope="module")
def rows(json_rows):
    return json_rows("calibration.kernels.verify", interpret=True)


def test_every_kernel_agrees_with_torch(rows):
    assert [row for row in rows if not row["ok"]] == []
    checked = {row["kernel"] for row in rows}
    assert {"stream_copy", "decode_gqa4", "decode_int2", "mla_decode", "prefill_prefix", "digest_score"} <= checked
    assert {row["dtype"] for row in rows} == {"f32", "f16", "bf16"}


def test_rounding_grows_with_the_type(rows):
    """bf16 operands of tensor products are really used: their error is that of 8 bits, and no more."""
    for kernel in ("decode_gqa4", "prefill"):
        errors = {row["dtype"]: row["error"] for row in rows if row["kernel"] == kernel}
        assert errors["f32"] < 1e-6 < errors["f16"] < 1e-3 < errors["bf16"] < 1e-2


def test_wrong_results_are_found(gpu_python):
    done = gpu_python("-c", WRONG, interpret=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0].split(" 0.")[0] for line in lines[::2]] == [
        "relative error",
        "relative error nan, expected at most 2e-05",
        "ZeroDivisionError",
    ]


def test_every_kernel_file_is_in_the_catalog():
    """A file with CHECKS or BUILDS that no ring runs would be a test that cannot fail."""
    declared = set()
    for path in KERNELS.glob("*.py"):
        names = {
            target.id
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        if "CHECKS" in names and path.stem != "catalog":
            declared.add(path.stem)
    catalog = (KERNELS / "catalog.py").read_text()
    listed = next(line for line in catalog.splitlines() if line.startswith("MODULES = ("))
    assert declared == set(listed.removeprefix("MODULES = (").rstrip(")").replace(" ", "").split(","))
