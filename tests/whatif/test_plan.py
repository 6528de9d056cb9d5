"""`plan` finds what an exhaustive search finds, says what binds, and counts what hardware costs."""

import pytest

from hw_profiles.errors import InputError
from kvsim import Scenario
from sim.whatif.grids import search_of
from sim.whatif.plan import PlanJob, least, parse_slo, run_plan, with_slo
from sim.whatif.prices import Prices, cost, load_prices
from sim.whatif.runs import Job

PRICES = Prices("USD", {"h100-sxm": 2.0}, 0.5, {"dram": 0.01}, ())
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


def plan(find, slo, *among):
    scenario = with_slo(SCENARIO, slo)
    return scenario, run_plan(PlanJob(Job.of("it", scenario), find, among, PRICES))


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


def test_a_tier_without_a_price_is_named():
    summary = SCENARIO.run().summary
    assert cost(summary, 4, Prices("USD", {"h100-sxm": 1.0}, 0, {}, ())).unpriced == ("dram",)
    with pytest.raises(InputError, match="no price for this GPU"):
        cost(summary, 4, Prices("USD", {"a100-80": 1.0}, 0, {}, ()))


def test_prices_of_ones_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("schema: kvsim-prices/1\ncurrency: EUR\ngpu: {h100-sxm: 3}\nhost: 1.5\ntiers: {ssd: 0.0001}\n")
    assert load_prices(file) == Prices("EUR", {"h100-sxm": 3.0}, 1.5, {"ssd": 0.0001}, ())
    shipped = load_prices()
    assert shipped.gpu["h100-sxm"] > 0
    assert shipped.sources


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


@pytest.mark.parametrize("text", ["ttft_p99", "ttft_p99=", "ttft_p99=2s,,", "ttft_p99=2s,ttft_p99=3s"])
def test_wrong_targets(text):
    with pytest.raises(InputError, match="--slo"):
        parse_slo(text)
