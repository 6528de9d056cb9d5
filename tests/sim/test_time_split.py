"""summary["replica_time"] and ["queue"]: parts that add up, and numbers that can be counted by hand."""

import numpy as np
import pytest

from sim.fields import GROUPS
from sim.time_split import PARTS, PIPELINED


def parts(result):
    split = result.summary["replica_time"]
    return {part: split[part] for part in PARTS}


@pytest.mark.parametrize("hardware", [{"replicas": 3}, {"replicas": 1, "tp": 2}, {"replicas": 1, "pp": 2}])
@pytest.mark.parametrize("mode", ["blocking", "layerwise", "synchronous"])
def test_parts_add_up_to_the_time_of_each_replica(run, prompt, hardware, mode):
    rows = [(0.2 * i, 1500, 40, prompt(i % 5, 1500)) for i in range(40)]
    links = {"pcie_h2d": {"bandwidth": "0.5 GB/s"}, "pcie_d2h": {"bandwidth": "0.5 GB/s"}}
    result = run(
        rows,
        blocks=400,
        dram="10 GiB",
        engine={"loading": {"mode": mode}, "host_time": "1 ms"},
        links=links,
        policies={"offload": "write_back"},
        hardware={"profile": "h100-sxm", **hardware},
    )
    assert set(PIPELINED) == {field.key for field in GROUPS["replica_time"]}
    found, end = result.summary["replica_time"], result.frames["requests"].finish_s.max()
    assert len(found["replicas"]) == hardware["replicas"]
    for replica in found["replicas"]:
        assert sum(replica.values()) == pytest.approx(end, rel=1e-9)
        assert all(replica[part] > 0 for part in PARTS[:-1])
        assert replica["idle_s"] >= 0
    for part in PARTS:
        assert found[part] == pytest.approx(sum(replica[part] for replica in found["replicas"]), rel=1e-9)
    bubbles = found.get("bubble_s", 0.0)
    assert (bubbles > 0) == ("pp" in hardware)
    assert sum(parts(result).values()) + bubbles == pytest.approx(sum(result.summary["time"].values()), rel=1e-9)


def test_decoding_alone_waits_for_weights_and_the_fixed_times_of_kernels(run, hand, prompt):
    """One sequence reads every weight once for a token. By hand: ramps of matrix products and of attention (or its
    floor), launches inside the graph and of sampling."""
    result = run([(0, 16, 400, prompt(0, 16))])
    one = parts(result)
    assert one["compute_s"] < 0.02 * one["hbm_s"]
    floor, t0, per_seq, rate = hand.group("kernels.decode_attn", "floor", "t0", "per_seq", "bandwidth")
    fixed = (4 * hand.layers + 1) * hand.value("kernels.gemm_bf16.t0") + 4 * hand.value("kernels.launch.stream")
    fixed += 5 * hand.layers * hand.value("kernels.launch.graph")
    attention = [t0 + per_seq + (16 + j) * hand.token_bytes / hand.layers / rate for j in range(1, 400)]
    ramps = sum(floor if seconds <= floor else t0 + per_seq for seconds in attention) * hand.layers
    waits = result.frames["steps"].launch_s.sum()
    assert one["launch_s"] == pytest.approx(400 * fixed + ramps + waits, rel=0.01)


def test_a_long_prompt_is_arithmetic(run, prompt):
    one = parts(run([(0, 30_000, 1, prompt(0, 30_000))]))
    assert one["compute_s"] > 0.8 * sum(one.values())


@pytest.mark.parametrize("wait", [1e-3, 4e-3])
def test_host_time_is_launch_overhead(run, prompt, wait):
    rows = [(0, 640, 50, prompt(0, 640))]
    plain, slow = parts(run(rows)), parts(run(rows, engine={"host_time": f"{wait} s"}))
    assert slow["launch_s"] - plain["launch_s"] == pytest.approx(50 * wait, rel=1e-9)
    for part in ("compute_s", "hbm_s", "link_wait_s"):
        assert slow[part] == pytest.approx(plain[part], rel=1e-9)


def test_waits_for_kv_and_exchanges_are_links(run, prompt):
    rows = [(0, 4000, 1, prompt(1, 4000)), (10, 4000, 1, prompt(2, 4000)), (30, 4000, 1, prompt(1, 4000))]
    result = run(rows, blocks=300, dram="10 GiB", links={"pcie_h2d": {"bandwidth": "1 GB/s"}})
    time = result.summary["time"]
    assert time["load_wait_s"] > 0.1
    assert parts(result)["link_wait_s"] == pytest.approx(time["load_wait_s"] + time["interference_s"], rel=1e-9)
    together = run(rows, hardware={"profile": "h100-sxm", "tp": 2})
    exchanged = together.frames["steps"].exchange_s.sum()
    assert exchanged > 0
    assert parts(together)["link_wait_s"] == pytest.approx(exchanged, rel=1e-6)


def test_queue_lengths_are_those_of_a_sweep_over_time(run, prompt):
    """With preemptions: counted at points in time from the requests' and the preemptions' own times."""
    rows = [(0.05 * i, 500, 250, prompt(i, 500)) for i in range(16)]
    result = run(rows, blocks=160, engine={"max_num_seqs": 6})
    requests, lost = result.frames["requests"], result.frames["preemptions"]
    assert len(lost) > 5
    end = requests.finish_s.max()
    at = (np.arange(200_000) + 0.5) / 200_000 * end

    def counted(start, stop):
        opened = np.searchsorted(np.sort(start), at, side="right")
        return opened - np.searchsorted(np.sort(stop), at, side="right")

    again = lost.restart_s.fillna(lost.end_s)
    queue = result.summary["queue"]
    waiting = counted(requests.arrival_s, requests.first_chunk_s) + counted(lost.start_s, again)
    running = counted(requests.first_chunk_s, requests.finish_s) - counted(lost.start_s, again)
    for name, level in (("waiting", waiting), ("running", running)):
        assert queue[name]["mean"] == pytest.approx(level.mean(), rel=1e-3)
        assert queue[name]["max"] == level.max()
    assert running.max() <= 6
    assert queue["waiting"]["mean"] + queue["running"]["mean"] == pytest.approx(requests.e2e_s.sum() / end, rel=1e-9)


def test_a_run_without_steps_is_idle_throughout(run, prompt):
    result = run([(0, 2000, 1, prompt(0, 2000))], blocks=10)
    assert result.summary["requests"]["rejected"] == 1
    assert parts(result) == dict.fromkeys(PARTS, 0.0)
    assert result.summary["queue"]["waiting"] == result.summary["queue"]["running"] == {"mean": 0.0, "max": 0}


def test_an_idle_system_has_no_queue(run, prompt):
    result = run([(i * 5.0, 100, 2, prompt(i, 100)) for i in range(3)])
    assert result.summary["queue"]["waiting"] == {"mean": 0.0, "max": 0}
    assert result.summary["queue"]["running"]["max"] == 1
