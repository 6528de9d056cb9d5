"""Fits of noisy samples find the formulas that the samples were made with, and say how sure they are."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from calibration.suite.facts import facts_of
from calibration.suite.fit import fit_samples
from calibration.suite.preflight import check_profile
from calibration.suite.samples import read_samples
from hw_profiles.errors import InputError
from hw_profiles.loader import load_profile
from hw_profiles.yaml_io import load_yaml
from kvsim.cli.main import run


@pytest.fixture(scope="module")
def fitted(samples_file):
    return fit_samples(read_samples(samples_file), resamples=40)


@pytest.fixture(scope="module")
def values(fitted):
    return fitted.part.values()


def _check(values, path, expected, rel, *, covered=True):
    entry = values[path]
    assert entry.value == pytest.approx(expected, rel=rel), path
    assert entry.low <= entry.value <= entry.high
    if covered:
        slack = 0.02 * expected
        assert entry.low - slack <= expected <= entry.high + slack, (path, entry)


def test_kernels(values, truth):
    for name, rel in (("t0", 0.10), ("bandwidth", 0.02), ("flops", 0.02)):
        _check(values, f"kernels.gemm_bf16.{name}", getattr(truth.gemm, name), rel)
    _check(values, "kernels.gemm_bf16.p", truth.gemm.p, 0.3)
    _check(values, "kernels.gemm_fp8.flops", truth.gemm_fp8.flops, 0.03)
    _check(values, "kernels.decode_attn.bandwidth", truth.decode.bandwidth, 0.02)
    _check(values, "kernels.decode_attn.t0", truth.decode.t0, 0.10)
    _check(values, "kernels.decode_attn.floor", truth.decode.floor, 0.05, covered=False)
    for form in ("int8", "fp8", "int4"):
        expected = truth.decode.bandwidth / truth.slower[form]
        _check(values, f"kernels.decode_attn_{form}_g4_d128.bandwidth", expected, 0.05, covered=False)
    _check(values, "kernels.decode_attn_bf16_g8_d128.bandwidth", truth.decode.bandwidth, 0.02)
    _check(values, "kernels.prefill_attn.flops", truth.prefill.flops, 0.02)
    _check(values, "kernels.prefill_attn.t0", truth.prefill.t0, 0.10)
    latent = next(path for path in values if path.startswith("kernels.mla_decode_bf16") and path.endswith("bandwidth"))
    _check(values, latent, truth.mla.bandwidth, 0.03)


def _known(truth):
    """What the samples were made with, by the path in a profile."""
    known = {
        "tiers.hbm.read": truth.line["read"].beta,
        "tiers.hbm.latency": truth.latency["hbm"],
        "caps.pcie_joint": truth.joint["loop"],
    }
    for group, model in (("gemm_bf16", truth.gemm), ("gemm_fp8", truth.gemm_fp8)):
        known |= {f"kernels.{group}.{name}": getattr(model, name) for name in ("t0", "bandwidth", "flops", "p")}
    for name in ("t0", "bandwidth", "per_seq"):
        known[f"kernels.decode_attn.{name}"] = getattr(truth.decode, name)
    for name in ("t0", "per_token", "flops", "per_context"):
        known[f"kernels.prefill_attn.{name}"] = getattr(truth.prefill, name)
    known |= {f"tiers.l2.{name}": getattr(truth.l2, name) for name in ("read", "full_hit_bytes", "full_miss_bytes")}
    for link in ("h2d", "d2h"):
        known |= {f"links.pcie_{link}.{name}": getattr(truth.copy[link], name) for name in ("alpha", "beta")}
        known |= {f"links.pcie_{link}.loop.{name}": getattr(truth.blocks["loop"], name) for name in ("alpha", "beta")}
        known[f"links.pcie_{link}.kernel.beta"] = truth.blocks["kernel"].beta
        known[f"links.pcie_{link}.batch.submit"] = truth.submit["batch"]
    return known | {f"interference.{link}": kappa for link, kappa in truth.kappa.items()}


def _covered(values, known):
    return np.mean([values[path].low <= value <= values[path].high for path, value in known.items()])


def test_intervals_cover_what_is_true(values, truth):
    """Nine of ten would: that the samples are disturbed to one side, too, the intervals of a profile can stand."""
    known = _known(truth)
    assert _covered(values, known) >= 0.8
    assert np.median([(values[path].high - values[path].low) / value for path, value in known.items()]) < 0.1


@pytest.mark.slow
def test_intervals_cover_what_is_true_whatever_the_noise(make_samples, tmp_path, truth):
    """0.94 over these six; without the spread between the passes in them it was 0.75."""
    known = _known(truth)
    covered = []
    for seed in range(100, 106):
        path = make_samples(tmp_path / f"{seed}.jsonl", seed=seed)
        covered.append(_covered(fit_samples(read_samples(path), resamples=40).part.values(), known))
    assert np.mean(covered) >= 0.85


def test_a_clock_that_ticks_is_seen_through(make_samples, tmp_path, truth):
    """Events resolve half a microsecond, or one: a tenth of the shortest kernels. Medians would miss by up to 5 %."""
    ticking = make_samples(tmp_path / "s.jsonl", tick=1.024e-6, noise=0.01)
    values = fit_samples(read_samples(ticking), resamples=0).part.values()
    for path, model in (("decode_attn", truth.decode), ("gemm_bf16", truth.gemm), ("prefill_attn", truth.prefill)):
        assert values[f"kernels.{path}.t0"].value == pytest.approx(model.t0, rel=0.02)
    assert values["kernels.launch.stream"].value == pytest.approx(truth.launch["stream"], rel=0.02)
    assert values["links.pcie_h2d.alpha"].value == pytest.approx(truth.copy["h2d"].alpha, rel=0.02)


def test_memory(values, truth):
    _check(values, "tiers.hbm.read", truth.line["read"].beta, 0.02)
    _check(values, "tiers.hbm.latency", truth.latency["hbm"], 0.05, covered=False)
    _check(values, "tiers.l2.latency", truth.latency["l2"], 0.05, covered=False)
    _check(values, "tiers.l2.read", truth.l2.read, 0.03)
    _check(values, "tiers.l2.full_hit_bytes", truth.l2.full_hit_bytes, 0.05)
    _check(values, "tiers.l2.full_miss_bytes", truth.l2.full_miss_bytes, 0.05)
    _check(values, "kernels.launch.graph", truth.launch["graph_1000"], 0.05, covered=False)


def test_links(values, truth):
    for direction in ("h2d", "d2h"):
        _check(values, f"links.pcie_{direction}.alpha", truth.copy[direction].alpha, 0.05)
        _check(values, f"links.pcie_{direction}.beta", truth.copy[direction].beta, 0.02)
        _check(values, f"links.pcie_{direction}.pageable", truth.pageable, 0.05, covered=False)
        _check(values, f"links.pcie_{direction}.loop.alpha", truth.blocks["loop"].alpha, 0.05, covered=False)
        _check(values, f"links.pcie_{direction}.loop.beta", truth.blocks["loop"].beta, 0.06, covered=False)
        _check(values, f"links.pcie_{direction}.kernel.beta", truth.blocks["kernel"].beta, 0.03, covered=False)
        assert values[f"links.pcie_{direction}.kernel.sms"].value == 12
    batch = truth.blocks["batch"]
    assert 24 * 1024 <= values["links.pcie_h2d.batch.cut"].value < 28 * 1024  # the cliff is found where it is
    _check(values, "links.pcie_h2d.batch.small_beta", batch.small_beta, 0.15, covered=False)
    _check(values, "links.pcie_h2d.batch.submit", truth.submit["batch"], 0.02)


def test_both_directions(values, truth):
    _check(values, "caps.pcie_joint", truth.joint["loop"], 0.04)
    _check(values, "caps.pcie_joint_kernel", truth.joint["kernel"], 0.04)


def test_interference(fitted, values, truth):
    """The noise of a slowdown of 2 % is large: the factors are known to a third, and their intervals say so."""
    for direction, kappa in truth.kappa.items():
        entry = values[f"interference.{direction}"]
        assert entry.low - 0.3 <= kappa <= entry.high + 0.3, (direction, entry)
    matrix = fitted.part.extras["interference"]
    assert matrix["stream_read"]["d2d"]["slowdown"] == pytest.approx(1 / 3.01, abs=0.06)
    assert abs(matrix["gemm"]["h2d"]["slowdown"]) < 0.06
    assert matrix["decode"]["both"]["GBps"] == pytest.approx(100)


def test_interference_is_exact_without_noise(make_samples, tmp_path, truth):
    found = fit_samples(read_samples(make_samples(tmp_path / "s.jsonl", noise=0.0, disturbed=0.0)), resamples=0)
    values = found.part.values()
    for direction, kappa in truth.kappa.items():
        assert values[f"interference.{direction}"].value == pytest.approx(kappa, rel=0.02)
    assert values["caps.pcie_joint"].value == pytest.approx(truth.joint["loop"], rel=0.005)
    assert max(held.score.mape for held in found.part.heldout if held.target) < 0.005
    assert found.readings.spread < 1e-3


def test_results_without_a_place_in_profiles(fitted):
    extras = fitted.part.extras
    assert extras["elementwise_rms_norm"]["beta_GBps"] == pytest.approx(2200, rel=0.05)
    assert extras["skew_per_cv"] == pytest.approx(0.08, abs=0.05)
    assert extras["pin_GBps"] == pytest.approx(2.4, rel=0.1)
    saved = {(row["method"], row["MiB"], row["other_MiB"]): row["saved"] for row in extras["l2_prefetch"]}
    assert saved["pages", 32, 0] > saved["lines", 32, 0] > saved["pages", 32, 64]
    assert extras["gemm_slowed_by_prefetch"]["pages"] == pytest.approx(0.03, abs=0.03)
    assert extras["behind_64MiB_us"]["h2d"]["64 MiB"] > 8 * extras["behind_64MiB_us"]["h2d"]["4 MiB"]
    assert extras["copy_kernel_GBps_by_programs"]["h2d"]["2"] == pytest.approx(12, rel=0.1)
    assert extras["fit_decode_attn_int2_g4_d128"]["bandwidth"] > 0


def test_held_out_points_are_not_fitted(make_samples, tmp_path, fitted):
    """Held-out points that are three times as slow change no value, only the scores; and the verdict."""
    odd = make_samples(tmp_path / "s.jsonl", wrong=lambda point: 3.0 if point.heldout else 1.0)
    other = fit_samples(read_samples(odd), resamples=0)
    mine = {path: entry.value for path, entry in fitted.part.values().items()}
    for entry in other.part.values().values():
        assert entry.value == pytest.approx(mine[entry.path], rel=1e-9), entry.path
    assert {"gemm_bf16", "decode_attn", "prefill_attn"} <= {held.what for held in other.missed}
    assert not {"gemm_bf16", "decode_attn", "prefill_attn"} & {held.what for held in fitted.missed}


def test_impossible_points_are_left_out(samples_file, tmp_path):
    """A kernel that is faster than the memory was cached, or wrong."""
    lines = samples_file.read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        if record.get("bench") == "stream" and record["key"] == {"op": "read", "bytes": 2**32}:
            record["flags"], record["us"] = ["below_floor"], [1.0]
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = fit_samples(read_samples(path), resamples=0)
    assert found.readings.refused == 1
    value = found.part.values()["tiers.hbm.read"].value
    assert value == pytest.approx(3.01e12, rel=0.02)


def test_a_peak_that_is_reported_wrong_is_not_believed(samples_file, tmp_path, truth):
    """As if the driver told half the memory's clock: all streams would be faster than the hardware can be."""
    records = [json.loads(line) for line in samples_file.read_text().splitlines()]
    records[0]["device"]["peak"] /= 2
    for record in records:
        if record.get("bench") in {"stream", "decode"} and record["nbytes"] > 4 * records[0]["device"]["l2_bytes"]:
            record["flags"] = ["below_floor"]
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = fit_samples(read_samples(path), resamples=0)
    values = found.part.values()
    assert "tiers.hbm.peak" not in values
    assert found.readings.refused == 0
    for name, model in (("tiers.hbm.read", truth.line["read"].beta), ("kernels.decode_attn.bandwidth", 2.98e12)):
        assert values[name].value == pytest.approx(model, rel=0.02)


def test_a_card_that_drifted_is_refused(make_samples, tmp_path):
    slow = make_samples(tmp_path / "s.jsonl", drift=0.03)
    assert fit_samples(read_samples(slow), resamples=0).drift == pytest.approx(0.03)
    with pytest.raises(InputError, match=r"anchor: the card changed its speed.*found '8.0%', expected at most 5 %"):
        fit_samples(read_samples(make_samples(tmp_path / "t.jsonl", drift=0.08)), resamples=0)


def test_the_profile_is_whole(samples_file, tmp_path, capsys, fitted):
    out = tmp_path / "mine.yaml"
    code = run(["calibrate", "fit", str(samples_file), "--out", str(out), "--name", "mine", "--resamples", "5"])
    text = capsys.readouterr().out
    assert "gemm_bf16" in text
    assert f"profile: {out}" in text
    assert code == int("missed" in text)
    profile = load_profile(out)
    assert (profile.name, profile.kind, profile.vendor) == ("mine", "measured", "nvidia")
    for entry in fitted.part.values().values():
        read = profile.entries[entry.path]
        assert read.value_si == pytest.approx(entry.value, rel=1e-5, abs=1e-12), entry.path
        assert read.lo is not None
    check_profile(load_yaml(out), out, replace(facts_of(load_profile("h100-sxm")), name="H100 of the tests"))
    assert profile.validity.batch == (1, 256)
    assert profile.validity.seq == (128, 131072)
    assert profile.validity.prefix == (0, 32768)
    assert profile.heldout["gemm_bf16"].n == 10
    assert profile.copy_methods("pcie_h2d") == ("loop", "batch", "kernel")
    assert out.read_text() == _again(samples_file, tmp_path)  # the same samples, the same bytes


def _again(samples_file, tmp_path):
    run(
        [
            "calibrate",
            "fit",
            str(samples_file),
            "--out",
            str(tmp_path / "again.yaml"),
            "--name",
            "mine",
            "--resamples",
            "5",
        ]
    )
    return (tmp_path / "again.yaml").read_text()


def test_a_simulation_runs_on_it(samples_file, tmp_path, capsys):
    run(["calibrate", "fit", str(samples_file), "--out", str(tmp_path / "mine.yaml"), "--resamples", "0"])
    capsys.readouterr()
    profile = f"hardware.profile={tmp_path / 'mine.yaml'}"
    options = ["--set", profile, "--json", "--out", str(tmp_path / "out"), "--no-report"]
    assert run(["run", "examples/quickstart.yaml", *options]) == 0
    assert json.loads(capsys.readouterr().out)["profile"]["kind"] == "measured"


def test_a_missed_target_exits_with_1_and_still_writes(make_samples, tmp_path, capsys):
    odd = make_samples(
        tmp_path / "s.jsonl", wrong=lambda point: 1.5 if point.heldout and point.bench == "gemm" else 1.0
    )
    assert run(["calibrate", "fit", str(odd), "--json", "--resamples", "0"]) == 1
    rows = json.loads(capsys.readouterr().out)["heldout"]
    missed = {row["what"]: row for row in rows if row["missed"]}
    assert missed["gemm_bf16"]["mape"] == pytest.approx(0.33, abs=0.03)
    assert missed["gemm_bf16"]["target"] == 0.08
    assert load_profile(tmp_path / "profile.yaml").heldout["gemm_bf16"].mape > 0.3


def test_no_target_below_the_noise_of_the_measurement(make_samples, tmp_path):
    """Two passes that differ by 10 % cannot be held to 3 %."""
    noisy = fit_samples(read_samples(make_samples(tmp_path / "s.jsonl", noise=0.3, disturbed=0.0)), resamples=0)
    assert noisy.readings.spread > 0.05
    worst = [held for held in noisy.part.heldout if held.missed]
    assert all(held.score.mape > 2 * noisy.readings.spread for held in noisy.missed)
    assert len(noisy.missed) < len(worst)


def test_what_is_shown_as_the_target_is_what_is_held_to(make_samples, tmp_path, capsys):
    """An error above the number in the column is a missed one, and none other is."""
    samples = make_samples(tmp_path / "s.jsonl", noise=0.3, disturbed=0.0)
    run(["calibrate", "fit", str(samples), "--resamples", "0"])
    said = capsys.readouterr().out
    assert "twice what the passes differ by" in said
    rows = [
        re.match(r" (.+?)  +\d+ +([\d.]+)%.* (\d+)%(?: \((\d+)%\))?(  missed)? *$", line) for line in said.splitlines()
    ]
    judged = [(float(row[2]), float(row[3]), bool(row[5])) for row in rows if row]
    assert judged
    assert any(row and row[4] for row in rows)
    for error, limit, missed in judged:
        assert missed == (error > limit) or abs(error - limit) <= 0.5  # rounded as shown


def test_too_few_samples_are_one_line(samples_file, tmp_path, capsys):
    lines = samples_file.read_text().splitlines()
    kept = [line for line in lines if '"bench": "prefill"' not in line and '"type": "end"' not in line]
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(kept) + "\n")
    assert run(["calibrate", "fit", str(tmp_path), "--resamples", "0"]) == 2
    error = capsys.readouterr().err
    assert "too few samples of bench 'prefill' for kernels.prefill_attn.t0" in error
    assert "--resume" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "profile.yaml").exists()


@pytest.mark.parametrize("damage", ["half", "mixed"])
def test_damaged_files_are_one_line_and_stay_as_they_are(samples_file, tmp_path, capsys, damage):
    path = tmp_path / "samples.jsonl"
    text = samples_file.read_text()
    if damage == "half":
        path.write_text(text[:-50])
    else:
        env = json.loads(text.splitlines()[0])
        env["device"]["name"] = "H200"
        path.write_text(text + json.dumps(env) + "\n")
    before = path.read_bytes()
    assert run(["calibrate", "fit", str(path)]) == 2
    error = capsys.readouterr().err
    assert ("cut off in its last line" if damage == "half" else "samples of two devices") in error
    assert error.count("\n") == 1
    assert path.read_bytes() == before
