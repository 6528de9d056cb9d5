"""With kvsim's prices for steps and copies instead of a GPU, the mini engine is a simulator: exactly kvsim's."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.mini_engine import engine
from calibration.mini_engine.priced import PricedExecutor, step_seconds
from calibration.mini_engine.scheduler import Limits, Scheduler
from calibration.mini_engine.store import Store
from calibration.mini_engine.workload import Load, draw
from policies.base import TierInfo
from policies.tables import EVICTION, OFFLOAD
from sim.cost.step import StepCost
from sim.inputs import load_inputs
from sim.replicas import step_cost
from sim.scenario import Scenario
from traces.mooncake import BLOCK_TOKENS, write_mooncake

PAGE = 16
TOKEN_BYTES = 2 * 32 * 8 * 128 * 2  # keys and values, 32 layers, 8 heads of 128, 2 bytes
LOAD = Load(requests=80, rate=8, documents=30, document_blocks=4, tail=(40, 500), output=(2, 50))


def _scenario(folder, trace, pages, host_pages, eviction, offload):
    write_mooncake(trace, folder / "trace.jsonl")
    tiers = [{"name": "hbm"}]
    if host_pages:
        tiers.append({"name": "dram", "capacity": f"{host_pages * PAGE * TOKEN_BYTES} B"})
    document = {
        "schema": "kvsim-scenario/1",
        "trace": str(folder / "trace.jsonl"),
        "model": "llama-3.1-8b",
        "hardware": {"profile": "h100-sxm"},
        "engine": {"max_num_seqs": 8, "max_num_batched_tokens": 512, "num_gpu_blocks": pages},
        "tiers": tiers,
        "policies": {"eviction": eviction, "offload": offload},
        "links": {"pcie_joint": {"bandwidth": "9000 GB/s"}},
    }
    return Scenario.from_dict(document, base_dir=folder)


def _mini(scenario, trace, pages, host_pages, eviction, offload):
    inputs = load_inputs(scenario)
    cost = step_cost(scenario.spec, inputs)

    def store(name, count):
        info = TierInfo(name, count * PAGE * TOKEN_BYTES, BLOCK_TOKENS * TOKEN_BYTES)
        return Store(name, count, PAGE, PAGE * TOKEN_BYTES, EVICTION[eviction](info))

    host = store("dram", host_pages) if host_pages else None
    scheduler = Scheduler(store("hbm", pages), host, OFFLOAD[offload](), Limits(8, 512, BLOCK_TOKENS))
    links = {name: inputs.profile.copy_model(f"pcie_{name}") for name in ("h2d", "d2h")}
    executor = PricedExecutor(
        lambda plan: step_seconds(
            cost, len(plan.decodes), plan.context, plan.rows, [(chunk.tokens, chunk.start) for chunk in plan.chunks]
        ),
        lambda direction, count: links[direction].seconds(count * PAGE * TOKEN_BYTES, count),
    )
    log = engine.run(trace, scheduler, executor)
    for place in (scheduler.hbm, host):
        if place is not None:
            place.check()
    return log, scheduler


@pytest.mark.parametrize(
    ("pages", "host_pages", "eviction", "offload"),
    [
        (1300, 3000, "lru", "write_through"),
        (1300, 3000, "s3fifo", "write_through"),
        (1300, 1500, "lru", "write_through"),  # the host evicts as well
        (1300, 0, "lru", "none"),
        (1300, 2000, "sieve", "write_through_selective"),
    ],
)
def test_it_is_kvsim(tmp_path, monkeypatch, pages, host_pages, eviction, offload):
    """The same decisions at the same times: first tokens and ends of every request, hits, evictions, bytes."""
    monkeypatch.setattr("sim.cost.step.InterferenceModel.of", lambda *_: None)  # copies cost steps nothing here
    trace = draw(LOAD)
    scenario = _scenario(tmp_path, trace, pages, host_pages, eviction, offload)
    result = scenario.run()
    requests = result.frames["requests"].sort_values("request_id")
    log, scheduler = _mini(scenario, trace, pages, host_pages, eviction, offload)
    assert result.summary["preemptions"] == 0
    for mine, theirs in (("first_token_s", "first_token_s"), ("finish_s", "finish_s")):
        mini = np.array([getattr(sequence, mine) for sequence in log.sequences])
        np.testing.assert_allclose(mini, requests[theirs].to_numpy(), rtol=1e-12)
    for name, store in (("hbm", scheduler.hbm), ("dram", scheduler.host)):
        if store is not None:
            hits = [sequence.hit_tokens.get(name, 0) for sequence in log.sequences]
            assert hits == requests[f"hit_{name}_tokens"].tolist()
            tier = result.summary["tiers"][name]
            assert store.counters.evicted_blocks == tier["evicted_blocks"]
            assert store.counters.evicted_blocks > 0 or name == "dram"
    if host_pages:
        assert scheduler.host.counters.loaded_pages * PAGE * TOKEN_BYTES == result.summary["links"]["pcie_h2d"]["bytes"]
        assert scheduler.host.counters.stored_pages * PAGE * TOKEN_BYTES == result.summary["links"]["pcie_d2h"]["bytes"]
        assert scheduler.host.counters.loaded_pages > 100


def test_steps_are_logged_as_they_were(tmp_path):
    trace = draw(LOAD)
    scenario = _scenario(tmp_path, trace, 1300, 3000, "lru", "write_through")
    log, scheduler = _mini(scenario, trace, 1300, 3000, "lru", "write_through")
    assert len(log.decisions) == len(log.steps)
    computed = sum(tokens for step in log.steps for tokens, _ in step.chunks)
    hit = sum(sum(sequence.hit_tokens.values()) for sequence in log.sequences)
    assert computed + hit == int(trace.input_tokens.sum())
    assert sum(step.decodes for step in log.steps) == int((trace.output_tokens - 1).sum())
    assert sum(step.rows for step in log.steps) == int(trace.output_tokens.sum())
    assert sum(step.submitted.get("h2d", 0) for step in log.steps) == scheduler.host.counters.loaded_pages
    starts = np.array([step.start for step in log.steps])
    ends = np.array([step.end for step in log.steps])
    assert (starts[1:] >= ends[:-1]).all()
    tpot, ttft = log.tpot(), log.ttft()
    assert min(tpot) > 0
    assert min(ttft) > 0


def test_a_pool_too_small_is_said(tmp_path):
    trace = draw(LOAD)
    scenario = _scenario(tmp_path, trace, 1300, 0, "lru", "none")
    with pytest.raises(MemoryError, match=r"smaller batch|too small for a request"):
        _mini(scenario, trace, 300, 0, "lru", "none")


def test_the_workload_shares_documents_and_nothing_else():
    trace = draw(LOAD)
    assert (trace.arrival_s[1:] >= trace.arrival_s[:-1]).all()
    assert draw(LOAD).hash_ids.tolist() == trace.hash_ids.tolist()
    shared = 0
    seen = {}
    for request in trace:
        assert len(request.hash_ids) == -(-request.input_tokens // BLOCK_TOKENS)
        assert request.input_tokens % BLOCK_TOKENS >= PAGE
        for place, key in enumerate(request.hash_ids):
            assert seen.setdefault(key, place) == place
        shared += request.hash_ids[0] in {other.hash_ids[0] for other in trace if other.index != request.index}
    assert shared > 40


def test_prices_are_those_of_the_simulator(tmp_path):
    inputs = load_inputs(_scenario(tmp_path, draw(LOAD), 1300, 0, "lru", "none"))
    cost = StepCost(inputs.model, inputs.profile)
    assert step_seconds(cost, 4, 4000, 4, ()) == float(cost.decode_steps(4, 4000, (), 1).seconds)
    mixed = step_seconds(cost, 4, 4000, 5, ((300, 512),))
    assert mixed > step_seconds(cost, 4, 4000, 4, ())
    assert mixed == float(cost.mixed_step(4, 4000, (), [(300, 512)], 304, 5).seconds)
