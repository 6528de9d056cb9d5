"""Cases that once went wrong, each as small as it gets."""

import pytest

from hw_profiles.errors import InputError
from sim.run import simulate


def test_a_store_makes_no_room_from_its_own_copies(run):
    """DRAM of three blocks for three replicas: what is there of a growing block must not be evicted for the rest."""
    rows = [
        (0.05, 2048, 2, [1, 2, 3, 4]),
        (0.1, 4877, 17, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (0.15, 4100, 1, [1, 2, 3, 4, 5, 11, 12, 13, 14]),
        (0.15, 4699, 17, [1, 2, 3, 4, 15, 16, 17, 18, 19, 20]),
        (0.2, 5345, 2, [1, 2, 3, 4, 21, 22, 23, 24, 25, 26, 27]),
        (0.205, 3961, 300, [1, 28, 29, 30, 31, 32, 33, 34]),
        (0.205, 3072, 100, [1, 35, 36, 37, 38, 39]),
        (0.205, 1024, 300, [40, 41]),
        (0.205, 1250, 1, [40, 41, 42]),
        (0.21, 3072, 100, [43, 44, 45, 46, 47, 48]),
        (0.26, 2718, 300, [40, 49, 50, 51, 52, 53]),
        (0.265, 512, 300, [54]),
        (0.265, 3360, 17, [55, 56, 57, 58, 59, 60, 61]),
        (0.265, 1646, 300, [62, 63, 64, 65]),
        (0.265, 7671, 2, [1, 2, 3, 4, 21, 22, 23, 24, 25, 66, 67, 68, 69, 70, 71]),
        (0.315, 1536, 2, [54, 72, 73]),
        (0.365, 512, 1, [62]),
        (0.665, 1793, 17, [62, 63, 64, 74]),
        (0.715, 2560, 100, [75, 76, 77, 78, 79]),
        (0.72, 4083, 100, [40, 80, 81, 82, 83, 84, 85, 86]),
    ]
    result = run(
        rows,
        blocks=962,
        dram="200 MiB",
        shared="cluster",
        policies={"eviction": "lru", "offload": "write_through"},
        engine={"max_num_batched_tokens": 2048, "max_num_seqs": 8},
        hardware={"profile": "a100-80", "replicas": 3, "gpus_per_node": 2},
    )
    assert (result.frames["requests"].status == "finished").all()
    assert result.summary["tiers"]["dram"]["refused_bytes"] > 0


def test_rejected_requests_miss_the_slo(scenario, prompt):
    rows = [(i, 100, 2, prompt(i, 100)) for i in range(98)] + [
        (200, 5000, 2, prompt(98, 5000)),
        (201, 5000, 2, prompt(99, 5000)),
    ]
    base = scenario(rows, blocks=64)

    def met(key: str) -> bool:
        slo = simulate(base.set("slo", {key: "10 s"})).summary["slo"]
        assert slo["attainment"] == pytest.approx(0.98)
        return bool(slo["met"])

    assert met("ttft_p95")  # 98 of 100 requests were in time
    assert not met("ttft_p99")
    assert not met("ttft_mean")


def test_what_no_request_has_cannot_be_missed(scenario, prompt):
    """One-token outputs have no TPOT; where nobody is served, nothing is met."""
    slo = {"tpot_p95": "1 ms", "ttft_p99": "10 s"}
    served = simulate(scenario([(0, 100, 1, prompt(1, 100))]).set("slo", slo)).summary["slo"]
    assert served["targets"]["tpot_p95"]["value_ms"] is None
    assert served["met"]
    refused = simulate(scenario([(0, 5000, 1, prompt(1, 5000))], blocks=64).set("slo", slo)).summary["slo"]
    assert not refused["met"]
    assert not any(target["met"] for target in refused["targets"].values())


def test_strict_refuses_a_trace_that_needs_a_warning(scenario, prompt, tmp_path):
    rows = [(5, 100, 1, prompt(1, 100)), (0, 100, 1, prompt(2, 100))]
    unordered = scenario(rows)
    assert unordered.run().summary["warnings"]
    with pytest.raises(InputError, match="earlier"):
        unordered.run(strict=True)


def test_bytes_that_leave_hbm_had_entered_it(run, prompt):
    rows = [(10 * i, 1024, 40, prompt(i % 3, 1024)) for i in range(12)]
    hbm = run(rows, blocks=150, dram="10 GiB").summary["tiers"]["hbm"]
    assert 0 < hbm["evicted_bytes"] <= hbm["stored_bytes"]
    assert hbm["never_loaded_bytes"] <= hbm["stored_bytes"]


def test_room_is_asked_for_what_the_step_has_left(run, prompt):
    """The second request needs room only for the tokens that fit the step's budget, if not for all of its prompt."""
    rows = [(0, 1000, 1, prompt(1, 1000)), (0, 2000, 1, prompt(2, 2000))]
    engine = {"max_num_batched_tokens": 1024, "reserve_full_isl": False}
    requests = run(rows, blocks=128, engine=engine).frames["requests"]
    assert requests.first_chunk_s[1] == 0.0


def test_prefill_after_a_prefix_counts_as_extrapolated(run, prompt):
    """The profile has no prefill after a cached prefix; one chunk without one is inside the measured range."""
    alone = run([(0, 1000, 1, prompt(1, 1000))])
    assert alone.summary["profile"]["extrapolated_fraction"] == 0.0
    again = run([(0, 1000, 1, prompt(1, 1000)), (10, 1500, 1, prompt(1, 1500))])
    steps = again.frames["steps"]
    share = (steps.end_s[1] - steps.start_s[1]) / (steps.end_s - steps.start_s).sum()
    assert again.summary["profile"]["extrapolated_fraction"] == pytest.approx(share)


def test_the_warning_names_the_prefix_where_the_profile_has_none(run, prompt):
    """LLMServingSim's tables have chunks after a prefix: they are left for other reasons, as by a long chunk."""
    rows = [(i, 24_000, 1, prompt(i, 24_000)) for i in range(3)]
    for profile, chunk, named in (("h100-sxm", 2048, True), ("rtx-4090", 24_000, False)):
        limits = {"num_gpu_blocks": 4096, "max_num_batched_tokens": chunk}
        summary = run(rows, hardware={"profile": profile}, engine=limits).summary
        assert summary["profile"]["extrapolated_fraction"] > 0.5
        (said,) = [text for text in summary["warnings"] if "outside the range" in text]
        assert ("no prefill after a cached prefix" in said) == named


def test_an_absurd_cluster_is_refused(scenario, prompt):
    with pytest.raises(InputError, match="replicas"):
        scenario([(0, 100, 1, prompt(1, 100))]).set("hardware.replicas", 100_000_000)


def test_a_block_is_not_copied_before_it_is_computed(run, prompt):
    """Two requests of one prompt in a step: the second hits what the first is computing, too early to store."""
    rows = [(0, 1024, 1, prompt(1, 1024)), (0, 1024, 1, prompt(1, 1024)), (10, 1024, 1, prompt(1, 1024))]
    result = run(rows, blocks=300, dram="10 GiB", policies={"eviction": "lru", "offload": "write_through_selective"})
    assert result.frames["requests"].hit_hbm_tokens.tolist() == [0, 1008, 1008]
    assert (result.frames["transfers"].queued_s >= 10).all()
    assert len(result.frames["transfers"]) == 1
