"""What keeps a GPU from being measured: each is one line that says what to do."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict, replace

import pytest

from calibration.suite import preflight
from calibration.suite.facts import GIB, facts_of
from calibration.suite.samples import SCHEMA
from hw_profiles.errors import InputError
from hw_profiles.loader import load_profile
from kvsim.cli.calibrate_run import _alike
from kvsim.cli.main import run

FACTS = facts_of(load_profile("h100-sxm"))


def test_a_free_card_passes():
    assert preflight.check_free(FACTS, "3") is FACTS
    context = replace(FACTS, free_bytes=FACTS.memory_bytes - GIB // 2)
    assert preflight.check_free(context) is context


@pytest.mark.parametrize(
    ("free", "busy", "message"),
    [
        (
            FACTS.memory_bytes - 20 * GIB,
            "",
            r"in use by others \(nvidia-smi .*CUDA_VISIBLE_DEVICES.*\), found '20.0 of 79.1 GiB taken'",
        ),
        (FACTS.memory_bytes, "98", r"in use by others .*found '98 % busy'"),
    ],
)
def test_a_card_in_use_is_left_alone(free, busy, message):
    with pytest.raises(InputError, match=message):
        preflight.check_free(replace(FACTS, free_bytes=free), busy)


def test_too_little_memory():
    small = replace(FACTS, memory_bytes=8 * GIB, free_bytes=7 * GIB)
    with pytest.raises(
        InputError, match=r"too little memory on h100-sxm, found '7.0 GiB free', expected at least 12 GiB"
    ):
        preflight.check_free(small)


def test_a_card_without_bf16_is_refused():
    with pytest.raises(InputError, match=r"compute capability of h100-sxm, found '7\.5', expected at least 8\.0"):
        preflight.check_able(replace(FACTS, arch="7.5"))
    for arch in ("8.0", "12.0"):
        card = replace(FACTS, arch=arch)
        assert preflight.check_able(card) is card
    amd = replace(FACTS, kind="hip", arch="gfx942:sramecc+:xnack-")
    assert preflight.check_able(amd) is amd


def test_a_profile_of_another_machine_validates_nothing(tmp_path):
    device = {"kind": "cuda", "name": "h100-sxm", "arch": "9.0"}
    preflight.check_profile({"calibration": {"device": device}}, tmp_path, FACTS)
    for document, found in (({"calibration": {"device": device | {"name": "H200"}}}, "H200"), ({}, None)):
        with pytest.raises(InputError, match="the profile was measured on another machine") as caught:
            preflight.check_profile(document, tmp_path, FACTS)
        assert caught.value.found in {found, None}


def test_reasons_for_no_gpu(monkeypatch):
    assert "built for CPUs only" in preflight.why_no_gpu("2.13.0+cpu", gpu_build=False, hip=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES='' hides them" in preflight.why_no_gpu("2.13.0", gpu_build=True, hip=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(preflight.ctypes.util, "find_library", lambda name: None)
    assert "no NVIDIA driver (libcuda)" in preflight.why_no_gpu("2.13.0", gpu_build=True, hip=False)
    monkeypatch.setattr(preflight.ctypes.util, "find_library", lambda name: "libcuda.so.1")
    assert "the driver reports none" in preflight.why_no_gpu("2.13.0", gpu_build=True, hip=False)
    assert "too old; --plan" in preflight.why_no_gpu("2.13.0", gpu_build=True, hip=False, said="too old")


@pytest.mark.parametrize("missing", ["torch", "triton"])
def test_missing_packages_are_named_with_the_extra(monkeypatch, capsys, tmp_path, missing):
    find = importlib.util.find_spec
    there = {"torch": True, "triton": True, missing: None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: there.get(name, find(name, *rest)))
    assert run(["calibrate", "run", "--out", str(tmp_path / "samples")]) == 2
    error = capsys.readouterr().err
    assert f"error: {missing} is not installed: install kvsim with its extra `gpu`" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "samples").exists()


def test_old_samples_are_not_overwritten(tmp_path, capsys):
    (tmp_path / "samples.jsonl").write_text("mine\n")
    assert run(["calibrate", "run", "--out", str(tmp_path)]) == 2
    assert "there are samples already: go on with --resume" in capsys.readouterr().err
    assert (tmp_path / "samples.jsonl").read_text() == "mine\n"


def test_samples_of_another_card_are_not_gone_on_with(tmp_path, capsys, monkeypatch):
    """Two cards of one name: the file would be worth nothing."""
    env = {"type": "env", "schema": SCHEMA, "device": asdict(replace(FACTS, uuid="GPU-1"))}
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(env) + "\n")
    monkeypatch.setattr(preflight, "device_facts", lambda kind: replace(FACTS, uuid="GPU-2"))
    assert run(["calibrate", "run", "--out", str(tmp_path), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "samples of two devices: this machine has another uuid, found 'GPU-2', expected GPU-1" in error
    assert error.count("\n") == 1
    assert path.read_text() == json.dumps(env) + "\n"


def test_points_that_failed_alike_are_one_line():
    records = [{"name": f"blocks {n}", "problem": "code 801"} for n in (2, 1, 3)] + [{"name": "mla", "problem": "x"}]
    assert _alike(records) == ["blocks 1 and 2 more points: code 801", "mla: x"]


def test_a_host_without_nvidia_smi_has_no_settings(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert preflight.read_settings("") == {}
