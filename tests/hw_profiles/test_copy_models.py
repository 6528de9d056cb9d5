"""Copy methods and devices: closed forms, each parameter moves the time the right way, what a profile gives."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles import schema
from hw_profiles.cost_models import CopyModel, DeviceLink, LinkModel
from hw_profiles.documents import read_document
from hw_profiles.errors import InputError
from hw_profiles.loader import list_profiles, load_profile
from hw_profiles.yaml_io import dump_yaml

H100 = Path(__file__).parents[2] / "hw_profiles" / "profiles" / "h100-sxm.yaml"


def light() -> dict[str, Any]:
    """The H100's document without the tables of its kernels, which are slow to write."""
    document, _ = read_document(H100)
    for group in document["kernels"].values():
        group.pop("residual", None)
    return document


KIB = 1024
BATCH = CopyModel(alpha=1e-7, beta=50e9, cut=24 * KIB, small_alpha=5e-7, small_beta=8e9, submit=5e-7)
DEVICE = DeviceLink(latency=1e-4, bandwidth=8e9, single=0.25, saturation=5, per_io=1e-5)


def test_segments_meet_at_the_cut() -> None:
    at, above = 24 * KIB, 24 * KIB + 1
    assert BATCH.seconds(10 * at, 10) == pytest.approx(10 * (5e-7 + at / 8e9))
    assert BATCH.seconds(10 * above, 10) == pytest.approx(10 * (1e-7 + above / 50e9))
    assert BATCH.rate(28.0 * KIB) > 5 * BATCH.rate(24.0 * KIB)  # the cliff


def test_submission_hides_behind_copying_or_the_other_way_round() -> None:
    small = dataclasses.replace(BATCH, cut=0)
    assert small.seconds(1000 * 4 * KIB, 1000) == pytest.approx(1000 * 5e-7)
    assert small.seconds(1000 * 64 * KIB, 1000) == pytest.approx(1000 * (1e-7 + 64 * KIB / 50e9))


@given(st.integers(1, 2**40), st.integers(1, 10_000))
def test_one_segment_is_the_link_model_to_the_bit(nbytes: int, copies: int) -> None:
    assert CopyModel(3e-6, 5e10).seconds(nbytes, copies) == LinkModel(3e-6, 5e10).seconds(nbytes, copies)


def test_arrays_give_what_scalars_give() -> None:
    nbytes, copies = np.array([1e3, 24 * KIB, 3e8, 4e6]), np.array([1.0, 1.0, 1e4, 1e3])
    assert BATCH.seconds(nbytes, copies).tolist() == [BATCH.seconds(*x) for x in zip(nbytes, copies, strict=True)]
    assert BATCH.rate(nbytes).tolist() == [BATCH.rate(x) for x in nbytes]


@pytest.mark.parametrize("block", [4 * KIB, 64 * KIB])
@pytest.mark.parametrize(
    ("key", "sign"), [("alpha", 1), ("beta", -1), ("small_alpha", 1), ("small_beta", -1), ("submit", 1)]
)
def test_copy_parameters_move_the_time_where_they_apply(block: int, key: str, sign: int) -> None:
    base = dataclasses.replace(BATCH, submit=0.0) if key != "submit" else dataclasses.replace(BATCH, submit=1e-5)
    more = dataclasses.replace(base, **{key: 2 * getattr(base, key)})
    change = more.seconds(100 * block, 100) - base.seconds(100 * block, 100)
    applies = key == "submit" or key.startswith("small") == (block <= base.cut)
    assert change * sign > 0 if applies else change == 0


def test_a_larger_cut_slows_the_blocks_between() -> None:
    wider = dataclasses.replace(BATCH, cut=64 * KIB)
    assert wider.seconds(32 * KIB, 1) > BATCH.seconds(32 * KIB, 1)
    assert wider.seconds(16 * KIB, 1) == BATCH.seconds(16 * KIB, 1)
    assert wider.seconds(128 * KIB, 1) == BATCH.seconds(128 * KIB, 1)


def test_device_ramp_is_linear_up_to_saturation() -> None:
    assert [DEVICE.rate(q) / 8e9 for q in (0, 1, 2, 3, 5, 50)] == pytest.approx([0.25, 0.25, 0.4375, 0.625, 1, 1])
    assert DeviceLink(1e-4, 8e9, single=1.0, saturation=1).rate(1) == 8e9


def test_device_charges_latency_only_when_idle() -> None:
    idle = DEVICE.seconds(8e6, 2, outstanding=2, idle=True)
    assert idle == pytest.approx(1e-4 + 2e-5 + 8e6 / (0.4375 * 8e9))
    assert DEVICE.seconds(8e6, 2, outstanding=2, idle=False) == pytest.approx(idle - 1e-4)


@pytest.mark.parametrize(
    ("key", "sign"), [("latency", 1), ("bandwidth", -1), ("single", -1), ("saturation", 1), ("per_io", 1)]
)
def test_device_parameters_move_the_time(key: str, sign: int) -> None:
    more = dataclasses.replace(DEVICE, **{key: 2 * getattr(DEVICE, key)})
    assert (more.seconds(1e7, 3, outstanding=3) - DEVICE.seconds(1e7, 3, outstanding=3)) * sign > 0


@pytest.mark.parametrize("name", list_profiles())
@pytest.mark.parametrize("link", schema.REQUIRED_LINKS)
def test_shipped_profiles_have_every_method(name: str, link: str) -> None:
    profile = load_profile(name)
    assert profile.copy_methods(link) == ("loop", "batch", "kernel")
    assert set(profile.links) == set(schema.REQUIRED_LINKS)
    large = 8 * 2**20
    for method in profile.copy_methods(link):
        model = profile.copy_model(link, method)
        assert (model.sms > 0) == (method == "kernel")
        assert 0.85 < model.rate(large) / profile.links[link].beta < 1.15
        if method == "loop" or link == "pcie_d2h":  # a batch toward the GPU falls off a cliff instead
            seconds = [model.seconds(size, 1) for size in range(KIB, 512 * KIB, KIB)]
            assert seconds == sorted(seconds)
    slow = profile.pageable(link)
    assert slow is not None
    fast = profile.copy_model(link).beta
    assert slow < fast or (name == "sn40l" and slow == fast)  # its DDR is its own: nothing to lock pages for


def test_loop_falls_back_to_the_line_of_the_link() -> None:
    a100 = load_profile("a100-80")
    assert a100.copy_model("pcie_h2d") == CopyModel(3.5e-6, 26e9)
    assert a100.copy_paths("pcie_h2d", "loop") == ("links.pcie_h2d.alpha", "links.pcie_h2d.beta")
    h100 = load_profile("h100-sxm")
    assert h100.copy_model("pcie_h2d").cut == 64 * KIB
    assert "links.pcie_h2d.loop.small_beta" in h100.copy_paths("pcie_h2d", "loop")


def test_joint_caps_by_method() -> None:
    h100, a100 = load_profile("h100-sxm"), load_profile("a100-80")
    assert [h100.joint_cap(m) for m in schema.COPY_METHODS] == [83.4e9, 83.4e9, 68.5e9]
    assert a100.joint_cap("kernel") == a100.joint_cap("loop") == 37.2e9  # no value of its own


def test_with_link_scales_small_blocks_too() -> None:
    base = load_profile("h100-sxm")
    half = base.with_link("pcie_h2d", "loop", bandwidth=25.945e9)
    model, was = half.copy_model("pcie_h2d"), base.copy_model("pcie_h2d")
    assert (model.beta, model.alpha) == (25.945e9, was.alpha)
    assert model.small_beta == pytest.approx(was.small_beta / 2)
    assert half.copy_model("pcie_h2d", "kernel") == base.copy_model("pcie_h2d", "kernel")
    late = base.with_link("pcie_d2h", "batch", latency=1e-7).copy_model("pcie_d2h", "batch")
    assert (late.alpha, late.submit) == (1e-7, 1e-7)
    assert base.with_link("pcie_d2h", "batch", latency=1e-5).copy_model("pcie_d2h", "batch").submit == 5.15e-7
    assert half.entries["links.pcie_h2d.loop.beta"].src_key == "override"


def test_absent_methods_and_links_are_one_line(tmp_path: Path) -> None:
    profile = load_profile("h100-sxm")
    with pytest.raises(InputError, match=r"links\.pcie_h2d: no such copy method.*'kernl'.*did you mean 'kernel'"):
        profile.copy_model("pcie_h2d", "kernl")
    with pytest.raises(InputError, match=r"no such link, found 'nvme', expected one of pcie_h2d, pcie_d2h"):
        profile.copy_model("nvme")
    document: dict[str, Any] = light()
    del document["links"]["pcie_h2d"]["kernel"]
    file = tmp_path / "machine.yaml"
    file.write_text(dump_yaml(document))
    with pytest.raises(InputError, match=r"machine\.yaml: links\.pcie_h2d: no such copy method.*one of loop, batch"):
        load_profile(file).copy_model("pcie_h2d", "kernel")


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("loop.beta", None, r"links\.pcie_h2d\.loop: missing value 'beta'"),
        ("loop.small_beta", None, r"links\.pcie_h2d\.loop: missing value 'small_beta', expected cut, small_alpha"),
        ("loop.smal_beta", {}, r"links\.pcie_h2d\.loop: unknown key.*did you mean 'small_beta'"),
        ("lop", {}, r"links\.pcie_h2d: unknown key, found 'lop'.*did you mean 'loop'"),
        ("kernel", 3, r"links\.pcie_h2d\.kernel: found 3, expected a mapping"),
        ("kernel.sms", {"v": 0, "unit": "1", "src": "vllm_sms"}, r"kernel\.sms\.v: found 0, expected a number above 0"),
        ("pageable", {"v": 9, "unit": "GB", "src": "pageable"}, r"links\.pcie_h2d\.pageable\.unit: unknown unit"),
    ],
)
def test_malformed_methods(tmp_path: Path, path: str, value: object, problem: str) -> None:
    document: Any = light()
    node = document["links"]["pcie_h2d"]
    *parents, last = path.split(".")
    for key in parents:
        node = node[key]
    if value is None:
        del node[last]
    else:
        node[last] = value
    file = tmp_path / "machine.yaml"
    file.write_text(dump_yaml(document))
    with pytest.raises(InputError, match=problem) as caught:
        load_profile(file)
    assert "\n" not in str(caught.value)


def test_method_paths_have_quantities() -> None:
    assert schema.quantity_of("links.pcie_h2d.batch.submit") == schema.TIME
    assert schema.quantity_of("links.pcie_h2d.pageable") == schema.RATE
    for path in ("links.pcie_h2d.batch.pageable", "links.pcie_h2d.dma.alpha", "links.PCIe.alpha"):
        assert schema.quantity_of(path) is None
