"""The line per profile of kernels without a target: what is in a column, how rows weigh, and that it is printed."""

import pytest

from calibration.reported import REPORTED, reported_errors
from calibration.validate_kernels import Row
from kvsim.cli.main import run


def row(kernel: str, mape: float, n: int, split: str = "held out", target: float | None = None) -> Row:
    return Row("mine", kernel, split, mape, mape, 0.0, n, target)


ROWS = [
    row("gemm_fp8", 0.10, 30, "measured shapes"),
    row("gemm_fp8_block", 0.20, 10, "unseen shapes"),
    row("gemm_bf16", 0.90, 10, "unseen shapes", 0.08),
    row("decode_attn_fp8_g8_d128", 0.03, 5, "cold"),
    row("decode_attn_fp8_g8_d128", 0.70, 5, "little KV"),
    row("moe_nvfp4", 0.12, 5),
    row("moe_int4", 0.06, 5),
    row("moe_mxfp4", 0.33, 5),
]


def test_points_weigh_alike_and_kernels_with_a_target_are_left_out() -> None:
    found = reported_errors(ROWS)["mine"]
    assert found == pytest.approx({"fp8": 0.125, "decode, fp8 KV": 0.03, "MoE 4 bit": 0.09, "MoE mxfp4": 0.33})
    assert set(found) < set(REPORTED)


def test_they_are_printed_without_all(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr("calibration.validate_kernels.validate_kernels", lambda data, progress: ROWS)
    monkeypatch.setattr("calibration.data.data_folder", lambda: tmp_path)
    run(["validate", "kernels"])
    printed = capsys.readouterr().out
    assert "moe_mxfp4" not in printed  # its row is among --all
    (line,) = [each for each in printed.splitlines() if each.split()[:1] == ["mine"] and "33.0%" in each]
    assert line.split() == ["mine", "12.5%", "–", "3.0%", "–", "–", "–", "9.0%", "33.0%", "–"]
