"""Which kernels of a profile stand for a model's, and what is said where there are none."""

from pathlib import Path
from typing import Any

import pytest

from hw_profiles import picks
from hw_profiles.documents import read_document
from hw_profiles.errors import InputError
from hw_profiles.loader import load_profile
from hw_profiles.profile import Profile
from hw_profiles.yaml_io import dump_yaml

SHIPPED = Path(__file__).parents[2] / "hw_profiles" / "profiles"


def with_groups(tmp_path: Path, groups: dict[str, Any], peaks: dict[str, float] | None = None) -> Profile:
    """The H100's document with only the required kernels, these groups and datasheet peaks (TFLOP/s)."""
    document, _ = read_document(SHIPPED / "h100-sxm.yaml")
    kept = {name: document["kernels"][name] for name in ("gemm_bf16", "decode_attn", "prefill_attn", "launch")}
    for group in kept.values():
        group.pop("residual", None)
    document["kernels"] = {**kept, **groups}
    document["peaks"] = {
        name: {"v": value, "unit": "TFLOP/s", "src": "system", "rel": 0} for name, value in (peaks or {}).items()
    }
    file = tmp_path / "mine.yaml"
    file.write_text(dump_yaml(document))
    return load_profile(file)


def entry(value: float, unit: str) -> dict[str, Any]:
    return {"v": value, "unit": unit, "src": "fit_gemm_bf16", "rel": 0.05}


def gemm(flops: float) -> dict[str, Any]:
    times = {"t0": entry(5, "us"), "bandwidth": entry(3, "TB/s"), "flops": entry(flops, "TFLOP/s")}
    return {**times, "p": entry(4, "1")}


def decode(bandwidth: float) -> dict[str, Any]:
    times = {name: entry(1, "us") for name in ("floor", "t0", "per_seq")}
    return {**times, "bandwidth": entry(bandwidth, "GB/s")}


def prefill(flops: float) -> dict[str, Any]:
    return {"t0": entry(1, "us"), "per_token": entry(1, "ns"), "flops": entry(flops, "TFLOP/s")}


def test_measured_formats_are_used_as_they_are(tmp_path: Path) -> None:
    profile = with_groups(tmp_path, {"gemm_fp8": gemm(1200)})
    pick = picks.gemm(profile, "fp8")
    assert (pick.group, pick.estimate) == ("kernels.gemm_fp8", "")
    assert pick.model.flops == 1200e12
    assert [value.path for value in pick.values] == [
        f"kernels.gemm_fp8.{key}" for key in ("t0", "bandwidth", "flops", "p")
    ]
    assert profile.gemm_for("fp16") == profile.gemm_for("bf16") == profile.gemm
    blocks = picks.gemm(profile, "fp8_block")
    assert blocks.model == pick.model
    assert "as those in fp8" in blocks.estimate


def test_other_formats_scale_with_the_datasheet_and_say_so(tmp_path: Path) -> None:
    profile = with_groups(tmp_path, {}, {"bf16": 1000, "fp8": 2000})
    base, pick = profile.gemm, picks.gemm(profile, "fp8")
    assert pick.model.flops == pytest.approx(2 * base.flops)
    assert (pick.model.t0, pick.model.bandwidth, pick.model.p) == (base.t0, base.bandwidth, base.p)
    flops = {value.path: value for value in pick.values}["kernels.gemm_fp8.flops"]
    assert (flops.src_key, flops.rel) == ("estimate", 0.3)
    assert flops.lo == pytest.approx(1.4 * base.flops)
    assert "ratio of the datasheet peaks, 2" in flops.source_text
    unpacked = picks.gemm(profile, "int4")
    assert unpacked.model.flops == base.flops
    assert "unpacked and multiplied in bf16" in unpacked.estimate
    assert picks.gemm(profile, "nvfp4").model.flops == base.flops  # no fp4 arithmetic on this machine
    assert picks.gemm(profile, "w4a4").model.flops == base.flops  # nor int4
    ampere = load_profile("rtx-3090")
    ints = picks.gemm(ampere, "w4a4")
    assert ints.model.flops == pytest.approx(8 * 0.56 * ampere.gemm.flops)
    assert ints.model.flops == pytest.approx(320e12, rel=0.05)  # QuaRot, table 14
    assert "56% were measured" in ints.estimate
    assert not any(path.startswith("kernels.gemm_fp8") for path in profile.entries)


def test_decode_takes_the_nearest_kernel(tmp_path: Path) -> None:
    groups = {f"decode_attn_{name}": decode(rate) for name, rate in (("bf16_g8_d128", 3000), ("fp8_g4_d128", 2000))}
    profile = with_groups(tmp_path, groups)
    assert profile.decode_for() == profile.decode
    assert profile.decode_for(group=8).bandwidth == 3000e9
    assert profile.decode_for("fp16", 16, 64).bandwidth == 3000e9
    assert profile.decode_for("int4", 8).bandwidth == 2000e9
    assert picks.decode(profile, "bf16", 8, 128, 8).estimate == ""
    assert "as over bf16, 8 x 128" in picks.decode(profile, "bf16", 7, 128, 8).estimate


def test_what_a_sequence_costs_goes_with_its_heads(tmp_path: Path) -> None:
    profile = with_groups(tmp_path, {})
    one = profile.decode_for(kv_heads=1)
    assert one.per_seq == profile.decode.per_seq / 8
    assert one.bandwidth == profile.decode.bandwidth


def test_prefill_and_latent_attention(tmp_path: Path) -> None:
    groups = {"prefill_attn_bf16_d64": prefill(300), "prefill_attn_fp8_d128": prefill(900)}
    profile = with_groups(tmp_path, {**groups, "mla_decode_bf16_h16": decode(1500), "moe_fp8_block": gemm(700)})
    assert profile.prefill_for() == profile.prefill
    assert profile.prefill_for("bf16", 80).flops == 300e12
    assert profile.prefill_for("fp8").flops == 900e12
    latent = picks.mla_decode(profile, "fp8", 16)
    assert latent is not None
    assert latent.model.bandwidth == 1500e9
    assert "as over bf16" in latent.estimate
    assert profile.moe_for("fp8_block").flops == 700e12
    assert profile.moe_for("bf16") == profile.gemm
    assert with_groups(tmp_path, {}).mla_decode("bf16") is None


def test_allreduce_by_ranks(tmp_path: Path) -> None:
    profile = with_groups(tmp_path, {"allreduce_4": {"alpha": entry(9, "us"), "beta": entry(180, "GB/s")}})
    model = profile.allreduce(4)
    assert model is not None
    assert model.seconds(1.8e9) == pytest.approx(9e-6 + 0.01)
    assert profile.allreduce(2) is None


def test_unknown_formats_and_groups(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown number format, found 'fp9'.*did you mean 'fp8'"):
        load_profile("h100-sxm").gemm_for("fp9")
    with pytest.raises(InputError, match=r"kernels: unknown key, found 'gemm_fp9'"):
        with_groups(tmp_path, {"gemm_fp9": gemm(1)})
    broken = gemm(1)
    del broken["p"]
    with pytest.raises(InputError, match=r"kernels\.gemm_fp8: missing value 'p'"):
        with_groups(tmp_path, {"gemm_fp8": broken})
