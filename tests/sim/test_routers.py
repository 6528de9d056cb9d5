"""Routers at work: how they balance, what stays together, and what old knowledge costs."""

import os
from pathlib import Path

import pytest

from sim.run import simulate

FOUR = {"profile": "h100-sxm", "replicas": 4}
BUSY = {
    "requests": 500,
    "rate": 40,
    "first_tokens": {"mean": 2000, "sigma": 0.8},
    "output_tokens": {"mean": 30, "sigma": 0.8},
}
CHAT = {**BUSY, "requests": 240, "rate": 12, "turns": 4, "think_time": "2 s", "system_prompts": 3}


def conversation(requests, **more):
    """The beginning of the Mooncake conversation trace."""
    file = Path(os.environ.get("KVSIM_TRACES", "")) / "mooncake" / "conversation_trace.jsonl.gz"
    if not os.environ.get("KVSIM_TRACES") or not file.is_file():
        pytest.skip("KVSIM_TRACES has no mooncake/conversation_trace.jsonl.gz")
    return {"name": "mooncake-conversation", "spread_arrivals": "3 s", "limit": requests, **more}


@pytest.fixture(scope="module")
def queueing(scenario):
    """Mean ms in the queue under a router, on eight busy replicas with places for two requests each."""
    hardware = {"profile": "h100-sxm", "replicas": 8}
    built = scenario(trace={"generate": BUSY}, hardware=hardware, tiers=[{"name": "hbm"}], engine={"max_num_seqs": 2})

    def go(name, **options):
        return simulate(built.set("routing", {"name": name, **options})).summary["queue_ms"]["mean"]

    return go


def test_two_choices_are_far_better_than_one_and_no_better_than_all(queueing):
    drawn, two = (queueing("power_of_two", choices=n) for n in (1, 2))
    assert two < 0.5 * drawn
    assert queueing("least_loaded", waiting_weight=1) <= two


def test_old_knowledge_hurts_the_least_loaded_more_than_two_choices(queueing):
    """SOURCE: Mitzenmacher, "How Useful Is Old Information?" (IEEE TPDS 2000): everybody joins the queue that was the
    shortest, which is worse than a random one once reports are far apart; two random choices spread them."""

    def waits(name):
        return [queueing(name, stale=age, add_sent=False) for age in (0, "3 s")]

    least, two = waits("least_loaded"), waits("power_of_two")
    assert least[0] < two[0] < two[1] < least[1]
    assert least[1] > queueing("power_of_two", choices=1)


@pytest.mark.parametrize("name", ["least_loaded", "kv_load_aware", "cache_aware"])
def test_a_router_that_adds_what_it_sent_suffers_little_from_old_reports(queueing, name):
    exact, old, blind = queueing(name), queueing(name, stale="3 s"), queueing(name, stale="3 s", add_sent=False)
    assert exact < old < 0.5 * blind
    assert queueing(name, add_sent=False) == exact


def test_who_is_turned_away_does_not_count_as_sent(scenario, prompt, tmp_path, capsys):
    (tmp_path / "watch.py").write_text(REPLICAS)
    rows = [(0.5 + t / 10, 1000, 4, prompt(t, 1000)) for t in range(3)]
    control = {"name": "token_rate", "rate": 1, "burst": 1500}
    built = scenario(
        rows,
        hardware={"profile": "h100-sxm", "replicas": 2},
        routing=f"{tmp_path}/watch.py:Watch",
        admission_control=control,
    )
    assert simulate(built).summary["requests"]["rejected"] == 2
    seen = [line.partition(", (")[0] for line in capsys.readouterr().out.splitlines() if line]
    assert seen == ["[(0, 0, 0)", "[(0, 1000, 0)", "[(0, 1000, 0)"]


def test_turns_of_a_conversation_stay_together(scenario):
    built = scenario(trace={"generate": CHAT}, hardware=FOUR, tiers=[{"name": "hbm"}], routing="session_sticky")
    requests = simulate(built).frames["requests"]
    assert requests.session.nunique() < len(requests)
    assert (requests.groupby("session").replica.nunique() == 1).all()
    assert requests.replica.nunique() == 4
    bounded = simulate(built.set("routing", "{name: session_sticky, overload: 1}"))
    spread = bounded.frames["requests"].groupby("session").replica.nunique()
    assert spread.max() > 1
    blind = simulate(built.set("routing", "round_robin"))
    assert blind.summary["prefix"]["hit_ratio"] < bounded.summary["prefix"]["hit_ratio"]
    assert bounded.summary["prefix"]["hit_ratio"] < simulate(built).summary["prefix"]["hit_ratio"]


@pytest.fixture(scope="module")
def hits(scenario):
    """Hit ratio under a router of four replicas with their own DRAM."""
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "400 GiB"}]
    built = scenario(trace=conversation(800, rate_scale=0.5), hardware=FOUR, tiers=tiers)

    def go(name, **options):
        return simulate(built.set("routing", {"name": name, **options})).summary["prefix"]["hit_ratio"]

    return go


def test_old_knowledge_of_caches_costs_hits_on_a_real_trace(hits):
    ages = [hits("cache_aware", stale=age) for age in (0, "120 s", "24 h")]
    assert ages == sorted(ages, reverse=True)
    assert len(set(ages)) == 3
    assert hits("cache_aware") == ages[0]
    assert hits("round_robin") == ages[-1]  # there is but one report, of empty replicas


def test_a_record_of_what_was_sent_is_as_good_as_asking_until_it_is_too_short(hits):
    """Tiers that keep all: the record then says what the caches would."""
    found = [hits("approximate_prefix", limit=limit) for limit in (200_000, 1_000_000, 2**24)]
    assert found[0] < found[1] < found[2]
    assert found[2] == pytest.approx(hits("cache_aware"), rel=0.02)


REPLICAS = """
import kvsim

class Watch(kvsim.Router):
    stale_s = 2.0
    def choose(self, request, replicas):
        print([(r.running, r.prompt_tokens, r.cached_tokens(request.keys)) for r in replicas])
        return 0
"""


@pytest.mark.parametrize("adds", [True, False])
def test_what_an_old_report_shows(scenario, prompt, tmp_path, capsys, adds):
    (tmp_path / "watch.py").write_text(REPLICAS.replace("2.0", f"2.0; adds_sent = {adds}"))
    rows = [(t, 1000, 400, prompt(1, 1000)) for t in (0.5, 1.5, 2.5, 3.9, 50.0, 50.1)]
    built = scenario(rows, hardware={"profile": "h100-sxm", "replicas": 2}, routing=f"{tmp_path}/watch.py:Watch")
    simulate(built, check=True)
    seen = [line.partition(", (")[0] for line in capsys.readouterr().out.splitlines() if line]
    # Nothing by the report at 0.5 s; two requests by that at 2 s; at 50 s it is idle, and says so, and what it has.
    # What was sent in between counts as a prompt, or not at all.
    sent = 1000 if adds else 0
    shows = [(0, 0, 0), (0, sent, 0), (2, 0, 992), (2, sent, 992), (0, 0, 992), (0, sent, 992)]
    assert seen == [f"[{row}" for row in shows]


@pytest.mark.parametrize("routing", [{"name": "prefix_aware", "stale": "0.7 s"}, "power_of_two", "approximate_prefix"])
def test_strides_and_single_steps_agree(routing, scenario, same_requests):
    built = scenario(
        trace={"generate": {**CHAT, "requests": 80}},
        hardware=FOUR,
        routing=routing,
        tiers=[{"name": "hbm", "capacity": "3 GiB"}, {"name": "dram", "capacity": "8 GiB", "shared": "node"}],
    )
    same_requests(simulate(built, check=True), simulate(built, single_step=True))


@pytest.mark.parametrize("stale", ["-1.0", "'soon'", "float('inf')", "True"])
def test_an_age_that_is_none_is_named(stale, scenario, prompt, tmp_path):
    (tmp_path / "watch.py").write_text(REPLICAS.replace("2.0", stale))
    rows = [(0, 100, 2, prompt(1, 100))]
    built = scenario(rows, hardware={"profile": "h100-sxm", "replicas": 2}, routing=f"{tmp_path}/watch.py:Watch")
    with pytest.raises(Exception, match="stale_s is"):
        built.run()
