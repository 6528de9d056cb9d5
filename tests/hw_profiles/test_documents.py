"""Profiles that take values over from a machine sheet or from another profile."""

from pathlib import Path

import pytest

from hw_profiles.documents import MACHINES, list_shipped, read_document
from hw_profiles.errors import InputError
from hw_profiles.loader import list_profiles, load_profile
from hw_profiles.yaml_io import dump_yaml, load_yaml

LIGHT = {
    "schema": "kvsim-hw/1",
    "name": "mine",
    "kind": "measured",
    "sources": {"mine": {"what": "measured here"}, "unused": {"what": "nothing refers to it"}},
    "validity": {"batch": [1, 8], "seq": [1, 8], "prefill": [1, 8], "prefix": [0, 8]},
}


def entry(value: float, unit: str) -> dict[str, object]:
    return {"v": value, "unit": unit, "src": "mine", "rel": 0.1}


def write(folder: Path, name: str, **changed: object) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(dump_yaml({**LIGHT, **changed}))
    return file


KERNELS = {
    "gemm_bf16": {
        "t0": entry(5, "us"),
        "bandwidth": entry(1, "TB/s"),
        "flops": entry(100, "TFLOP/s"),
        "p": entry(2, "1"),
    },
    "decode_attn": {key: entry(1, "us") for key in ("floor", "t0", "per_seq")} | {"bandwidth": entry(1, "TB/s")},
    "prefill_attn": {"t0": entry(1, "us"), "per_token": entry(1, "ns"), "flops": entry(100, "TFLOP/s")},
}


def test_a_machine_gives_what_is_not_fitted(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, "mine", machine="h100-sxm", kernels=KERNELS))
    h100 = load_profile("h100-sxm")
    assert (profile.name, profile.kind, profile.vendor) == ("mine", "measured", "nvidia")
    assert profile.gemm.flops == 1e14
    for path in ("capacity.hbm_bytes", "links.pcie_h2d.loop.beta", "kernels.launch.stream", "interference.h2d"):
        assert profile.si(path) == h100.si(path)
    assert "unused" not in profile.sources
    assert {value.src_key for value in profile.values()} == set(profile.sources)


def test_a_base_gives_kernels_as_well(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, "mine", base="h100-sxm", kernels={"decode_attn": KERNELS["decode_attn"]}))
    h100 = load_profile("h100-sxm")
    assert profile.decode.bandwidth == 1e12
    assert profile.decode.residual is None
    assert profile.gemm == h100.gemm
    assert profile.gemm.residual is not None
    assert profile.kernels.family["gemm_bf16"] == h100.kernels.family["gemm_bf16"]
    assert profile.validity.batch == (1, 8)


def test_a_base_may_be_a_file_beside(tmp_path: Path) -> None:
    write(tmp_path, "one", machine="a100-80", kernels=KERNELS)
    changed = {"peak": entry(2, "TB/s"), "read": entry(1.5, "TB/s")}
    two = load_profile(write(tmp_path, "two", base="one.yaml", kernels={}, tiers={"hbm": changed}))
    assert two.si("tiers.hbm.peak") == 2e12
    assert two.gemm.flops == 1e14
    before = two.content_sha256
    write(
        tmp_path,
        "one",
        machine="a100-80",
        kernels={**KERNELS, "allreduce_2": {"alpha": entry(1, "us"), "beta": entry(1, "GB/s")}},
    )
    assert load_profile(tmp_path / "two.yaml").content_sha256 != before


def test_a_file_is_read_into_a_profile_once(tmp_path: Path) -> None:
    file = write(tmp_path, "mine", machine="h100-sxm", kernels=KERNELS)
    first = load_profile(file)
    assert load_profile(file) is first
    document, _ = read_document(file)
    document["kernels"]["gemm_bf16"]["t0"]["v"] = 7  # its own copy
    assert load_profile(write(tmp_path, "other", base="mine.yaml", kernels={})).gemm == first.gemm


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"machine": "h100"}, r"mine\.yaml: unknown machine, found 'h100'"),
        ({"base": "h100"}, r"mine\.yaml: unknown profile, found 'h100'"),
        ({"base": "h100-sxm", "machine": "h100-sxm"}, r"mine\.yaml: machine: either a machine or a base"),
        ({"base": 3}, r"mine\.yaml: base: found 3, expected a name or a path"),
        ({"base": "mine.yaml"}, "too many profiles that are based on one another"),
        (
            {"machine": "h100-sxm", "kernels": {"gemm_bf16": KERNELS["gemm_bf16"]}},
            r"kernels\.decode_attn: expected a mapping",
        ),
    ],
)
def test_what_cannot_be_taken_over(tmp_path: Path, changed: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as error:
        load_profile(write(tmp_path, "mine", **{"kernels": KERNELS, **changed}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", list_shipped(MACHINES))
def test_every_machine_sheet_is_in_a_profile(name: str) -> None:
    sheet = load_yaml(MACHINES / f"{name}.yaml")
    assert sheet["name"] == name
    assert sheet["devices"]
    assert name in list_profiles()
    profile = load_profile(name)
    for path in ("tiers.hbm.peak", "peaks.bf16", "links.pcie_h2d.batch.submit", "links.pcie_d2h.kernel.sms"):
        assert path in profile.entries, path
    document, _ = read_document(Path(profile.source))
    assert set(sheet["sources"]) <= set(document["sources"]) | {"interference_kernel"}
