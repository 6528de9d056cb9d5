"""Accounts of prefetches and of replica time: every byte and every second is in one place, and in the right one."""

import pytest

from sim.fields import GROUPS, definitions

A, B, C = 1600, 2000, 4000
BLOCKS = 256
DISK = {"ssd_read": {"bandwidth": "2 GB/s"}, "ssd_write": {"bandwidth": "2 GB/s"}}
TIERS = [{"name": "hbm"}, {"name": "dram", "capacity": "540 MiB"}, {"name": "ssd", "capacity": "10 GiB"}]
OF_PREFETCH = ("fetched_bytes", "used_bytes", "wasted_bytes", "late_bytes")


@pytest.fixture
def go(run, prompt):
    """A's blocks are on the disk alone (host memory holds one prompt); then A comes back, with nothing else to do."""

    def simulate(prefetch=None, **keywords):
        rows = [(0, A, 1, prompt(1, A)), (10, B, 1, prompt(2, B)), (20, C, 1, prompt(3, C)), (30, A, 1, prompt(1, A))]
        policies = {"offload": "write_through", **({"prefetch": prefetch} if prefetch else {})}
        return run(rows, blocks=BLOCKS, tiers=TIERS, links=DISK, policies=policies, **keywords)

    return simulate


def accounts(result):
    return {key: result.summary["prefetch"][key] for key in OF_PREFETCH}


def on_arrival(**options):
    return {"name": "on_arrival", "into": "dram", **options}


def test_what_a_request_waits_for_is_used_and_not_late(go, hand):
    result = go(on_arrival(stop="wait_complete"))
    size = A * hand.token_bytes
    assert accounts(result) == {"fetched_bytes": size, "used_bytes": size, "wasted_bytes": 0, "late_bytes": 0}
    assert result.summary["tiers"]["dram"]["prefetched_bytes"] == size


def test_what_is_computed_instead_is_late_and_wasted(go, hand):
    result = go(on_arrival())
    size = A * hand.token_bytes
    assert accounts(result) == {"fetched_bytes": size, "used_bytes": 0, "wasted_bytes": size, "late_bytes": size}
    assert result.frames["requests"].computed_tokens[3] == A


def test_what_is_joined_on_its_way_is_used_and_late(run, hand, prompt):
    """The next turn's prompt is on its way to HBM, over a link that takes 2 s, when the turn comes 1 s after that."""
    rows = [(0, A, 1, prompt(1, A)), (10, C, 1, prompt(3, C)), (30, A, 1, prompt(1, A))]
    policies = {"prefetch": {"name": "on_arrival", "into": "hbm"}}
    result = run(rows, blocks=BLOCKS, dram="10 GiB", policies=policies, links={"pcie_h2d": {"bandwidth": "0.1 GB/s"}})
    size = A * hand.token_bytes
    assert accounts(result) == {"fetched_bytes": size, "used_bytes": size, "wasted_bytes": 0, "late_bytes": size}
    assert result.frames["requests"].hit_hbm_tokens[2] > 0


@pytest.mark.parametrize("prefetch", [None, {"name": "none"}])
def test_no_policy_no_accounts(go, prefetch):
    summary = go(prefetch).summary
    assert "prefetch" not in summary
    assert not any(metric["key"].startswith("prefetch") for metric in summary["metrics"])


def test_a_fetched_copy_counts_as_loaded_from_where_it_was(go, hand):
    plain, ahead = go(), go(on_arrival(stop="wait_complete"))
    for result in (plain, ahead):
        ssd = result.summary["tiers"]["ssd"]
        assert ssd["stored_bytes"] - ssd["never_loaded_bytes"] == A * hand.token_bytes
    assert ahead.summary["tiers"]["ssd"]["loaded_bytes"] == A * hand.token_bytes


def test_waiting_for_a_fetch_is_not_idling(go):
    """While nothing else is there to do the GPU waits as long for the fetch as the request does."""
    result = go(on_arrival(stop="wait_complete"))
    row = result.frames["requests"].iloc[3]
    assert row.queue_s > 0.05
    assert result.summary["time"]["load_wait_s"] == pytest.approx(row.queue_s + row.load_s, rel=1e-9)


@pytest.mark.parametrize("mode", ["blocking", "layerwise", "synchronous"])
@pytest.mark.parametrize("offload", ["write_through", "write_back"])
def test_times_add_up_to_the_span_of_every_replica(run, prompt, mode, offload):
    rows = [(0.3 * i, 1500, 40, prompt(i % 5, 1500)) for i in range(40)]
    links = {"pcie_h2d": {"bandwidth": "0.5 GB/s"}, "pcie_d2h": {"bandwidth": "0.5 GB/s"}}
    result = run(
        rows,
        blocks=400,
        dram="10 GiB",
        engine={"loading": {"mode": mode}},
        links=links,
        policies={"offload": offload},
        hardware={"profile": "h100-sxm", "replicas": 2},
    )
    time, end = result.summary["time"], result.frames["requests"].finish_s.max()
    assert set(time) == {field.key for field in GROUPS["time"]}
    assert sum(time.values()) == pytest.approx(2 * end, rel=1e-9)
    steps = result.frames["steps"]
    inside = steps.interference_s.sum() + steps.layer_wait_s.sum()
    assert (steps.end_s - steps.start_s).sum() - inside == pytest.approx(time["compute_s"], rel=1e-9)
    assert steps.layer_wait_s.sum() == pytest.approx(time["layer_wait_s"], rel=1e-9)
    assert (time["layer_wait_s"] > 0) == (mode != "blocking")
    assert (time["store_wait_s"] > 0) == (offload == "write_back")
    shares = {m["key"]: m["value"] for m in result.summary["metrics"] if m["key"].endswith("_share")}
    busy = 100 * (time["compute_s"] + time["interference_s"]) / (2 * end)
    assert shares["compute_share"] == pytest.approx(busy, rel=1e-9)
    assert shares["compute_share"] + shares["kv_wait_share"] <= 100


def test_every_field_is_defined(go):
    """Whoever reads summary.json finds what each of its numbers is, and in which unit."""
    summary = go(on_arrival()).summary
    assert summary["definitions"] == definitions()
    for group in ("tiers", "links"):
        for fields in summary[group].values():
            assert set(fields) <= set(summary["definitions"][group])
    assert set(summary["time"]) == set(summary["definitions"]["time"])
    assert set(summary["prefetch"]) - {"policy"} == set(summary["definitions"]["prefetch"])
