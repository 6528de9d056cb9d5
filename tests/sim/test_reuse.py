"""Caches of answers and the index of prefixes in a run: who never reaches a GPU, and who waits for what."""

import numpy as np
import pytest

from hw_profiles.errors import InputError
from sim.run import simulate

CHAT = {
    "requests": 300,
    "rate": 12,
    "turns": 2,
    "think_time": "2 s",
    "first_tokens": {"mean": 1500, "sigma": 0.8},
    "output_tokens": {"mean": 80, "sigma": 0.8},
}
TWO = {"profile": "h100-sxm", "replicas": 2, "gpus_per_node": 2}
TIERS = [{"name": "hbm", "capacity": "3 GiB"}, {"name": "dram", "capacity": "8 GiB", "shared": "node"}]


@pytest.fixture(scope="module")
def chat(scenario):
    def build(reuse=None, **sections):
        policies = {"policies": {"reuse": reuse}} if reuse else {}
        return scenario(trace={"generate": CHAT}, hardware=TWO, **{"tiers": TIERS, **policies, **sections})

    return build


def parts_add_up(summary):
    for span in ("ttft_ms", "e2e_ms"):
        for group in summary["attribution"][span].values():
            assert sum(group["parts"].values()) == pytest.approx(group["mean"], abs=1e-9)


def test_equal_prompts_are_answered_once_by_a_gpu(run, prompt):
    """Three times the same question: while it is being answered for the first time nobody knows the answer."""
    rows = [(t, 3000, 50, prompt(1, 3000)) for t in (0.0, 0.1, 30.0)] + [(40.0, 3000, 50, prompt(2, 3000))]
    result = run(rows, policies={"reuse": {"name": "response_cache", "lookup": "3 ms"}})
    requests, summary = result.frames["requests"], result.summary
    assert list(requests.reason) == ["", "", "answered by response_cache", ""]
    assert list(requests.status) == ["finished"] * 4
    assert list(requests.replica) == [0, 0, -1, 0]
    assert requests.ttft_s[2] == requests.e2e_s[2] == requests.lookup_s[2] == pytest.approx(3e-3)
    assert list(requests.lookup_s) == pytest.approx([3e-3] * 4)
    assert requests.computed_tokens[2] == 0
    found = summary["response_cache"]
    assert (found["hits"], found["bypassed_input_tokens"], found["bypassed_output_tokens"]) == (1, 3000, 50)
    assert summary["attribution"]["ttft_ms"]["all"]["parts"]["lookup"] == pytest.approx(3.0)
    assert summary["prefix"]["input_tokens"] == 9000
    parts_add_up(summary)


def test_an_answer_has_no_room_in_a_small_cache(run, prompt):
    rows = [(10.0 * t, 3000, 50, prompt(1, 3000)) for t in range(3)]
    for capacity, hits in ((4 * 3050, 2), (4 * 3050 - 1, 0)):
        reuse = {"name": "response_cache", "capacity": capacity}
        assert run(rows, policies={"reuse": reuse}).summary["response_cache"]["hits"] == hits


def test_two_caches_of_one_name_are_counted_apart(run, prompt):
    """The first is too small for any answer."""
    rows = [(10.0 * t, 3000, 50, prompt(1, 3000)) for t in range(3)]
    reuse = [{"name": "response_cache", "capacity": "1 KB"}, "response_cache"]
    caches = run(rows, policies={"reuse": reuse}).summary["response_cache"]["caches"]
    assert [(cache["lookups"], cache["hits"]) for cache in caches] == [(3, 0), (3, 2)]


def test_half_of_the_load_never_comes(chat):
    """SOURCE: arXiv 2411.13820: what is found bypasses the GPU, so the others decode in smaller batches."""
    plain, cached = simulate(chat(), check=True).summary, simulate(chat("instcache"), check=True).summary
    found = cached["response_cache"]
    assert found["hit_ratio"] == pytest.approx(0.51, abs=0.08)
    assert cached["queue"]["running"]["mean"] < 0.6 * plain["queue"]["running"]["mean"]
    assert found["gpu_tpot_mean_ms"] < plain["tpot_ms"]["mean"]
    assert cached["requests"]["finished"] == plain["requests"]["finished"] == 300
    parts_add_up(cached)
    hits = [
        simulate(chat({"name": "instcache", "capacity": size})).summary["response_cache"]["hits"]
        for size in ("1 MB", "100 MB", "10 GB")
    ]
    assert hits == sorted(hits)
    assert hits[0] < hits[-1]


def test_the_index_is_one_queue(run, prompt):
    """Three prompts at one time, 10 ms of the server and 5 ms of network each; nothing is written in between."""
    rows = [(1.0, 3000, 5, prompt(i, 3000)) for i in range(3)]
    index = {"name": "metadata_index", "by": "batch", "message": "10 ms", "key": 0, "round_trip": "5 ms"}
    result = run(rows, policies={"reuse": index})
    requests = result.frames["requests"]
    assert list(requests.lookup_s) == pytest.approx([0.015, 0.025, 0.035])
    found = result.summary["metadata_index"]
    assert (found["lookups"], found["keys"]) == (3, 3 * 188)
    assert found["queue_mean_ms"] == pytest.approx(10)
    parts_add_up(result.summary)
    assert result.summary["attribution"]["ttft_ms"]["all"]["parts"]["lookup"] == pytest.approx(25)
    assert (requests.ttft_s > requests.lookup_s).all()


def test_small_blocks_show_and_batches_hide_them(chat):
    """SOURCE: arXiv 2505.21919: an index matters with many small entries; one message for all of them hides it."""
    plain = simulate(chat()).summary["ttft_ms"]["mean"]

    def overhead(**options):
        summary = simulate(chat({"name": "metadata_index", **options}), check=True).summary
        return summary["attribution"]["ttft_ms"]["all"]["parts"]["lookup"] / plain

    small, large, batch = overhead(), overhead(block_tokens=512), overhead(by="batch")
    assert small > 0.1
    assert large < 0.02
    assert batch < 0.02
    assert overhead(backend="chime") < overhead(backend="sherman") < small


def test_writing_slows_reading_where_the_server_is_busy(chat):
    slow = {"name": "metadata_index", "by": "batch", "key": "100 us"}
    busy, idle = (simulate(chat({**slow, "updates": on})).summary["metadata_index"] for on in (True, False))
    assert busy["utilization"] > 1.3 * idle["utilization"]
    assert busy["queue_mean_ms"] > idle["queue_mean_ms"] > 0
    assert idle["written_keys"] == 0


def test_an_instant_index_changes_nothing(chat, same_requests):
    """And a cache that holds nothing neither."""
    nothing = {"round_trip": 0, "message": 0, "key": 0}
    plain = simulate(chat())
    for reuse in ({"name": "metadata_index", **nothing}, {"name": "instcache", "capacity": "1 B", "lookup": "0 s"}):
        found = simulate(chat(reuse))
        assert (found.frames["requests"].pop("lookup_s") == 0).all()
        same_requests(plain, found)


@pytest.mark.parametrize("reuse", [["instcache", "metadata_index"], "response_cache"])
def test_strides_and_single_steps_agree(reuse, chat, same_requests):
    built = chat(reuse, admission_control={"name": "early_rejection", "ttft": "300 ms"})
    same_requests(simulate(built, check=True), simulate(built, single_step=True))


def test_belady_and_the_bound_know_who_never_comes(chat):
    built = chat().set("policies", {"eviction": "belady", "reuse": "instcache"})
    summary = simulate(built, check=True, bound=True).summary
    assert summary["bound"]["regret"] >= 0
    assert summary["prefix"]["input_tokens"] + summary["response_cache"]["bypassed_input_tokens"] == np.sum(
        simulate(chat()).frames["requests"].input_tokens
    )


def test_a_system_brings_them_and_two_indexes_are_refused(chat):
    assert simulate(chat(policies=["instcache", {"name": "metadata_index", "by": "batch"}])).summary["metadata_index"]
    with pytest.raises(InputError, match="there is one index"):
        simulate(chat(["metadata_index", "metadata_index"]))


def test_beside_prefill_and_decode_on_different_replicas(chat):
    """Who is answered by a cache is handed to nobody; who is not waits for the lookup before its prompt is computed."""
    built = chat(["instcache", {"name": "metadata_index", "by": "batch"}], tiers=[{"name": "hbm"}])
    summary = simulate(built.set("disaggregation", {"prefill": 1, "decode": 1}), check=True).summary
    assert summary["requests"]["finished"] == 300
    assert summary["response_cache"]["hits"] > 100
    parts_add_up(summary)
