"""`engine.l2_prefetch` in whole runs: what it moves, what it leaves alone, and what the run says about it."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from hw_profiles.errors import InputError

KV_PER_LAYER = 4096  # bytes of a token of Llama-3.1-8B: 2 x 8 heads x 128 x 2 B
L2_SIZES = ("12.5 MiB", "50 MiB", "200 MiB")


@pytest.fixture
def profile_with(hand, tmp_path):
    """The path of h100-sxm with the values at dotted paths replaced, or left out where the text is None."""

    def write(**values):
        raw = yaml.safe_load(hand.profile.read_text())
        for path, text in values.items():
            *groups, key = path.split("__")
            node = raw
            for group in groups:
                node = node[group]
            if text is None:
                del node[key]
            else:
                number, unit = text.split()
                node[key] = {**node[key], "v": float(number), "unit": unit}
        file = tmp_path / f"h100-{len(list(tmp_path.iterdir()))}.yaml"
        file.write_text(yaml.safe_dump(raw, sort_keys=False))
        return {"profile": str(file)}

    return write


@pytest.fixture
def apart(prompt):
    """Requests that do not overlap, each with more KV per layer than any L2 here holds."""
    return [(20 * i, n, 60, prompt(i, n)) for i, n in enumerate((20_000, 40_000, 60_000, 90_000))]


def test_decoding_is_faster_and_strides_are_single_steps(run, prompt):
    """Everything before the first token is as it was."""
    rows = [(0, 1000 + 40 * i, 300, prompt(i, 1000 + 40 * i)) for i in range(6)]
    plain, ahead = run(rows), {"l2_prefetch": "4 MB"}
    strides, singles = run(rows, engine=ahead), run(rows, engine=ahead, single_step=True)
    for name in ("requests", "transfers", "samples"):
        pd.testing.assert_frame_equal(strides.frames[name], singles.frames[name], check_exact=True)
    before, after = plain.frames["requests"], strides.frames["requests"]
    assert list(before.ttft_s) == list(after.ttft_s)
    assert (after.tpot_s < before.tpot_s).all()


def test_none_is_exactly_as_it_was(run, apart):
    plain, none = run(apart), run(apart, engine={"l2_prefetch": "0 B"})
    for name, frame in plain.frames.items():
        pd.testing.assert_frame_equal(frame, none.frames[name], check_exact=True)


def test_the_size_of_l2_moves_decoding_only_with_a_prefetch(run, profile_with, apart):
    """Sizes in steps of four: every request decodes faster with more L2, its first token stays where it was."""
    hardware = [profile_with(capacity__l2_bytes=size) for size in L2_SIZES]
    plain = [run(apart, hardware=h).frames for h in hardware]
    for frames in plain[1:]:
        for name, frame in frames.items():
            pd.testing.assert_frame_equal(plain[0][name], frame, check_exact=True)
    ahead = {"l2_prefetch": "8 MiB"}
    small, medium, large = (run(apart, hardware=h, engine=ahead).frames["requests"] for h in hardware)
    assert (small.tpot_s > medium.tpot_s).all()
    assert (medium.tpot_s > large.tpot_s).all()
    assert (small.ttft_s == large.ttft_s).all()
    assert (large.tpot_s < plain[0]["requests"].tpot_s).all()


def test_a_look_ahead_past_l2_costs_time(run, apart):
    """Every request with more KV per layer than is requested ahead decodes slower than without any."""
    cold = run(apart).frames["requests"]
    fits = run(apart, engine={"l2_prefetch": "4 MiB"}).frames["requests"]
    thrashes = run(apart, engine={"l2_prefetch": "75 MiB"}).frames["requests"]
    assert (fits.tpot_s < cold.tpot_s).all()
    assert (thrashes.tpot_s > 1.02 * cold.tpot_s).all()
    ratio = thrashes.tpot_s / cold.tpot_s
    assert (apart[-1][1] * KV_PER_LAYER) > 3 * (75 << 20)
    assert list(ratio) == sorted(ratio)  # the more of a step is attention, the more it suffers
    assert list(thrashes.ttft_s) == list(cold.ttft_s)


def test_the_run_says_what_it_used(run, apart):
    plain, ahead = run(apart[:1]), run(apart[:1], engine={"l2_prefetch": "2 MiB"})
    read = {"tiers.l2.read", "tiers.l2.full_hit_bytes", "tiers.l2.full_miss_bytes", "capacity.l2_bytes"}
    read |= {"tiers.l2.measured_bytes", "tiers.hbm.latency"}
    used = [{v["path"] for v in result.profile_values if v["used"]} for result in (plain, ahead)]
    assert used[1] - used[0] == read
    assert "2.00 MiB of KV per layer that are prefetched" in " ".join(ahead.summary["assumptions"])
    assert "prefetch" not in " ".join(plain.summary["assumptions"])
    assert yaml.safe_load(ahead.scenario_yaml)["engine"]["l2_prefetch"] == "2 MiB"
    assert plain.summary["config_sha256"] != ahead.summary["config_sha256"]


def test_the_widest_uncertainty_is_that_of_a_value_in_use(run, profile_with, apart):
    """An L2 that nobody knows counts where KV is prefetched into it."""
    file = Path(profile_with()["profile"])
    raw = yaml.safe_load(file.read_text())
    raw["tiers"]["l2"]["full_miss_bytes"]["rel"] = 7.5
    file.write_text(yaml.safe_dump(raw, sort_keys=False))
    widest = [
        run(apart[:1], hardware={"profile": str(file)}, engine=engine).summary["profile"]["widest_value"]
        for engine in ({}, {"l2_prefetch": "2 MiB"})
    ]
    assert widest[0] != widest[1] == "tiers.l2.full_miss_bytes"


def test_an_l2_that_the_profile_does_not_describe_is_refused(scenario, profile_with, apart):
    hardware = profile_with(tiers__l2__read=None)
    scenario(apart, hardware=hardware)
    said = r"^scenario: engine.l2_prefetch: profile h100-sxm does not say how its L2 behaves: it has no tiers.l2.read$"
    with pytest.raises(InputError, match=said):
        scenario(apart, hardware=hardware, engine={"l2_prefetch": "2 MiB"}).run()
