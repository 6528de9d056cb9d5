"""`plan` finds what an exhaustive search finds, says what binds, and counts what hardware costs."""

import pytest

from hw_profiles.errors import InputError
from kvsim import Scenario
from sim.whatif.grids import search_of
from sim.whatif.plan import PlanJob, least, parse_slo, run_plan, run_plans, with_slo
from sim.whatif.plan_document import cheapest, frontier, price_sources
from sim.whatif.prices import Prices, cost, load_prices
from sim.whatif.runs import Job
from sim.whatif.variants import expand
from sim.whatif.worth import worth

PRICES = Prices("USD", {"h100-sxm": 2.0}, 0.5, {"dram": 0.01}, 0)
SCENARIO = Scenario.from_dict(
    {
        "schema": "kvsim-scenario/1",
        "trace": {"generate": {"requests": 150, "rate": 12, "turns": 3, "first_tokens": {"mean": 6000, "sigma": 1}}},
        "model": "llama-3.1-8b",
        "hardware": {"profile": "h100-sxm", "replicas": 2, "gpus_per_node": 4},
        "engine": {"num_gpu_blocks": 9000},
        "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "64 GiB", "shared": "node"}],
    }
)


def plan_job(find, slo, *among, prices=PRICES):
    return PlanJob(Job.of("it", with_slo(SCENARIO, slo)), find, among, prices, parse_slo(slo)[1])


def plan(find, slo, *among):
    job = plan_job(find, slo, *among)
    return job.job.scenario, run_plan(job)


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_the_search_is_exhaustive_search_where_more_is_never_worse(count):
    for truth in [*range(count), None]:
        for start in range(count):
            asked = []

            def meets(index, truth=truth, asked=asked):
                asked.append(index)
                return truth is not None and index >= truth

            assert least(count, start, meets) == truth
            assert len(set(asked)) == len(asked) <= 9
            if truth:
                assert truth - 1 in asked  # the neighbour that misses


@pytest.mark.parametrize(
    ("find", "among"),
    [
        ("replicas", (1, 2, 3, 4, 6)),
        ("rate", (0.25, 0.5, 1, 2, 4)),
        ("tiers.dram.capacity", ("0 B", "8 GiB", "64 GiB")),
    ],
)
def test_plans_are_those_of_an_exhaustive_search(find, among):
    search = search_of(find, SCENARIO, among)
    summaries = [SCENARIO.set(search.path, value).run().summary for value in search.values]
    worst = [summary["ttft_ms"]["p95"] for summary in summaries]
    assert worst[0] > worst[-1]
    for share in (0.3, 0.7):
        limit = worst[-1] + share * (worst[0] - worst[-1])
        _, found = plan(find, f"ttft_p95={limit}ms,tpot_p95=1s", *among)
        meets = [value <= limit for value in worst]
        if meets == sorted(meets):  # where more is never worse
            assert found.answer.shown == search.shown[meets.index(True)]
        tried = {point.index for point in found.points}
        assert found.answer.index - 1 in tried or found.answer.index == 0
        assert found.answer.index + 1 in tried or found.answer.index == len(among) - 1
        assert found.answer.targets["ttft_p95"]["value_ms"] == worst[found.answer.index]


def test_an_slo_that_nothing_meets_names_what_binds():
    _, found = plan("replicas", "ttft_p99=1us,tpot_p95=10s", 1, 2)
    assert found.answer is None
    assert [point.met for point in found.points][-1] is False
    assert "at 2 ttft_p99 binds" in found.notes[0]
    target = found.points[-1].targets["ttft_p99"]
    assert f"{target['value_ms'] / 1e-3:.3g} times the limit" in found.notes[0]


def test_one_replica_and_no_capacity_are_not_the_end_of_a_range():
    for find in ("replicas", "tiers.dram.capacity"):
        _, found = plan(find, "ttft_p99=1000s")
        assert found.answer.index == 0
        assert not any("end of the range" in note for note in found.notes)


def test_the_most_clients_are_those_of_an_exhaustive_search():
    clients = {"clients": 8, "rounds": 2, "input_tokens": 4000, "output_tokens": 20, "think_time": "1 s"}
    loop = SCENARIO.set("trace", {"clients": clients})
    counts = (8, 16, 32, 64)
    values = [loop.set("trace.clients.clients", n).run().summary["ttft_ms"]["p95"] for n in counts]
    assert values == sorted(values)
    limit = (values[1] + values[2]) / 2
    scenario = with_slo(loop, f"ttft_p95={limit}ms")
    found = run_plan(PlanJob(Job.of("it", scenario), "clients", counts, PRICES))
    assert (found.what, found.answer.shown) == ("most clients", "16")
    assert not any("held back" in note for note in found.notes)
    capped = with_slo(loop.set("trace.clients.max_parallel", 4), f"ttft_p95={limit}ms")
    found = run_plan(PlanJob(Job.of("it", capped), "clients", counts, PRICES))
    assert found.answer.shown == "64"  # who waits at the client is in no latency
    assert any("held back" in note for note in found.notes)
    assert search_of("clients", loop).values[0] == 32 * 8
    with pytest.raises(InputError, match="cannot be searched for"):
        search_of("clients", SCENARIO)


def test_a_fleet_is_searched_from_the_replicas_that_it_needs():
    fleet = {"scaling": "target_utilization", "min": 3}
    assert search_of("replicas", SCENARIO.set_all([("hardware.replicas", 4), ("fleet", fleet)])).values[0] == 3
    assert search_of("replicas", SCENARIO).values[0] == 1


def test_a_range_that_is_too_easy_says_so():
    _, found = plan("replicas", "ttft_p99=1000s", 2, 3)
    assert found.answer.shown == "2"
    assert any("end of the range" in note for note in found.notes)


def test_cost_is_gpus_hosts_and_memory():
    _, found = plan("replicas", "ttft_p99=1000s", 5)
    price, point = found.answer.cost, found.answer
    assert (price.gpu, price.host, price.memory) == (5 * 2.0, 2 * 0.5, pytest.approx(2 * 64 * 0.01))  # two nodes
    assert price.total == pytest.approx(price.gpu + price.host + price.memory)
    tokens = SCENARIO.set("hardware.replicas", 5).run().summary["throughput"]["output_tokens_per_s"]
    assert price.per_mtok == pytest.approx(price.total / (tokens * 3600) * 1e6)
    assert point.requests_per_s > 0


def test_attainment_is_that_of_an_exhaustive_search():
    rates = (2, 1, 0.5, 0.25)
    shares = []
    for rate in rates:
        frame = SCENARIO.set("trace.rate_scale", rate).run().frames["requests"]
        shares.append(float(((frame["ttft_s"] <= 0.6) & ~(frame["tpot_s"] > 0.05)).mean()))
    assert shares == sorted(shares)
    assert shares[0] < 0.9 < shares[-1]
    _, found = plan("rate", "ttft=600ms,tpot=50ms,attainment=90%", *rates)
    wanted = next(index for index, share in enumerate(shares) if share >= 0.9)
    assert found.answer.index == wanted
    assert found.answer.attainment == {"value": shares[wanted], "target": 0.9, "met": True}
    _, none = plan("rate", "ttft=1us,attainment=95%", 2, 1)
    assert (
        "0 % of the requests are within every limit, 95 % were asked for; ttft binds: 0 % are within 1e-06 s"
        in none.notes[0]
    )


def test_the_cheapest_gpu_that_serves_is_found():
    prices = Prices("USD", {"h100-sxm": 3.0, "a100-80": 2.0, "h100-pcie-none": 9.0}, 0, {}, 0)
    both = [SCENARIO.set("hardware.profile", name).run().summary["ttft_ms"]["p95"] for name in ("a100-80", "h100-sxm")]
    assert both[0] > both[1]  # the cheaper one is slower
    for limit, answer in ((2 * both[0], "a100-80"), ((both[0] + both[1]) / 2, "h100-sxm")):
        found = run_plan(plan_job("gpu", f"ttft_p95={limit}ms", "h100-sxm", "a100-80", prices=prices))
        assert found.answer.shown == answer
    found = run_plan(plan_job("gpu", "ttft_p95=1us", prices=Prices("USD", {"rtx-9999": 1.0}, 0, {}, 0)))
    assert found.answer is None
    assert "rtx-9999" in found.notes[0]
    with pytest.raises(InputError, match="did you mean 'h100-sxm'"):
        run_plan(plan_job("gpu", "ttft_p95=1s", "h100-sxn"))


def test_processes_do_not_change_the_answer():
    jobs = [plan_job("rate", f"ttft_p95={limit}ms", 0.25, 0.5, 1, 2, 4) for limit in (200, 500)]
    assert run_plans(jobs, workers=1) == run_plans(jobs, workers=2) == [run_plan(job) for job in jobs]


def test_the_frontier_is_what_nothing_cheaper_beats():
    plans = [run_plan(plan_job("replicas", slo, 1, 2, 3, 4)) for slo in ("ttft_p95=1000s", "ttft_p95=500ms")]
    found = frontier(plans)
    costs, ratios = [cost.total for *_, cost, _ in found], [ratio for *_, ratio in found]
    assert costs == sorted(set(costs))
    assert ratios == sorted(set(ratios), reverse=True)
    for one in plans:
        for point in one.points:
            if point.whole:
                assert any(cost.total <= point.cost.total and ratio <= point.worst[1] for *_, cost, ratio in found)


def test_a_tier_without_a_price_is_named():
    summary = SCENARIO.run().summary
    assert cost(summary, 4, Prices("USD", {"h100-sxm": 1.0}, 0, {}, 0)).unpriced == ("dram",)
    with pytest.raises(InputError, match="no price for this GPU"):
        cost(summary, 4, Prices("USD", {"a100-80": 1.0}, 0, {}, 0))


def test_energy_is_that_of_gpus_at_their_power_limit():
    summary = SCENARIO.run().summary
    gpus, tokens_per_s = summary["hardware"]["gpus"], summary["throughput"]["output_tokens_per_s"]
    without, with_price = (cost(summary, 4, Prices("EUR", {"h100-sxm": 2.0}, 0, {}, x)) for x in (0, 0.25))
    assert without.watts == with_price.watts == gpus * 700
    assert without.j_per_token == pytest.approx(gpus * 700 / tokens_per_s)
    assert with_price.energy == pytest.approx(gpus * 0.7 * 0.25)
    assert with_price.total == pytest.approx(without.total + with_price.energy)
    summary["hardware"]["gpu_power_limit_w"] = None  # as of gh200, whose limit is of GPU and host together
    silent = cost(summary, 4, Prices("EUR", {"h100-sxm": 2.0}, 0, {}, 0))
    assert (silent.watts, silent.j_per_token, silent.total) == (None, None, without.total)
    with pytest.raises(InputError, match="power_limit"):
        cost(summary, 4, Prices("EUR", {"h100-sxm": 2.0}, 0, {}, 0.25))


def test_prices_of_ones_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "schema: kvsim-prices/1\ncurrency: EUR\ngpu: {h100-sxm: 3}\nhost: 1.5\ntiers: {ssd: 0.0001}\nenergy: 0.3\n"
    )
    assert load_prices(file) == Prices("EUR", {"h100-sxm": 3.0}, 1.5, {"ssd": 0.0001}, 0.3)
    shipped = load_prices()
    assert shipped.gpu["h100-sxm"] > 0
    assert shipped.sources["gpu.h100-sxm"].startswith("Lambda")


def test_prices_are_told_of_what_was_bought_with_what_they_are_and_their_source():
    prices = Prices("EUR", {"h100-sxm": 2.0, "l40s": 1.0}, 0, {"dram": 0.01, "ssd": 0.1}, 0, {"gpu.h100-sxm": "a list"})
    job = plan_job("replicas", "ttft_p95=1000s", 1, 2, prices=prices)
    told = price_sources([run_plan(job)], [job.job.scenario], prices)
    assert told == ("h100-sxm 2 EUR per GPU-hour: a list", "dram 0.01 EUR per GiB-hour: no source given")


def test_without_a_price_for_the_gpu_the_answer_is_the_same_and_has_no_cost():
    slo = "ttft_p95=1000s"
    with_price = run_plan(plan_job("replicas", slo, 1, 2))
    found = run_plan(plan_job("replicas", slo, 1, 2, prices=Prices("USD", {"a100-80": 1.0}, 0, {}, 0)))
    assert (found.answer.shown, found.answer.gpus, found.answer.cost) == (with_price.answer.shown, 1, None)
    assert any("no price for this GPU" in note for note in found.notes)
    two = run_plan(plan_job("replicas", slo, 2, 3, prices=Prices("USD", {"a100-80": 1.0}, 0, {}, 0)))
    assert cheapest([two, found]) is found  # the fewest GPUs
    assert cheapest([found, with_price]) is with_price


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("schema: kvsim-prices/2", "kvsim-prices/1"),
        ("schema: kvsim-prices/1\ngpus: {}", "did you mean 'gpu'"),
        ("schema: kvsim-prices/1\ngpu: {h100-sxm: -1}", "gpu.h100-sxm"),
        ("schema: kvsim-prices/1\nhost: {v: 1, src: nobody}", "unknown source"),
        ("schema: kvsim-prices/1\nhost: [1]", "host"),
        ("schema: kvsim-prices/1\ntiers: 3", "tiers"),
    ],
)
def test_wrong_prices(tmp_path, text, words):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        load_prices(file)
    assert words in str(error.value)
    assert str(error.value).startswith(str(file))


@pytest.mark.parametrize(
    "text",
    ["ttft_p99", "ttft_p99=", "ttft_p99=2s,,", "ttft_p99=2s,ttft_p99=3s", "ttft=2s,attainment=40%", "attainment=x"],
)
def test_wrong_targets(text):
    with pytest.raises(InputError, match="--slo"):
        parse_slo(text)


def test_memory_pays_below_the_price_at_which_both_answers_cost_the_same():
    slo, sizes = "ttft_p95=800ms", ["0 B", "64 GiB"]
    variants = expand(with_slo(SCENARIO, slo), [("tiers.dram.capacity", sizes)])
    jobs = [PlanJob(Job.of(v.label, v.scenario), "replicas", (4, 5, 6, 7), PRICES) for v in variants]
    plans, settings = run_plans(jobs, workers=1), [v.settings for v in variants]
    (found,) = worth(plans, settings, PRICES)
    less, more = (plan.answer.cost for plan in plans)
    assert less.gpu > more.gpu
    assert found.gib == more.gib["dram"] - less.gib["dram"] > 0
    for share, pays in ((0.9, True), (1.1, False)):
        prices = Prices("USD", PRICES.gpu, PRICES.host, {"dram": share * found.pays_below}, 0)
        dear, cheap = (
            run_plan(PlanJob(job.job, "replicas", (int(plan.answer.shown),), prices)).answer.cost.total
            for job, plan in zip(jobs, plans, strict=True)
        )
        assert (cheap < dear) is pays
    assert worth([plans[0], plans[0]], settings, PRICES)[0].pays_below is None
    assert worth(plans, [{}, {}], PRICES) == []
