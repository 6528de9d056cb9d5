"""`plan` with prefill and decode instances: both in their ratio, or one pool beside the other as it is."""

import pytest

from hw_profiles.errors import InputError
from sim.scenario import Scenario
from sim.whatif.grids import POOLS, search_of, with_value
from sim.whatif.plan import PlanJob, parse_slo, run_plan, with_slo
from sim.whatif.prices import load_prices
from sim.whatif.runs import Job

GENERATED = {"requests": 60, "rate": 12, "first_tokens": {"mean": 3000, "sigma": 0.5}}


def scenario(prefill, decode):
    return Scenario.from_dict(
        {
            "schema": "kvsim-scenario/1",
            "trace": {"generate": GENERATED},
            "model": "llama-3.1-8b",
            "hardware": {"profile": "h100-sxm", "replicas": prefill + decode},
            "disaggregation": {"prefill": prefill, "decode": decode},
        }
    )


def sizes(found):
    pools = found.spec.disaggregation
    return pools.prefill, pools.decode, found.spec.hardware.replicas


def test_replicas_keep_the_ratio_of_the_pools():
    base = scenario(2, 4)
    search = search_of("replicas", base)
    assert search.values == tuple(range(3, 65, 3))
    assert search.values[search.start] == 6
    assert search.shown[:2] == ("3 (1 + 2)", "6 (2 + 4)")
    for value in search.values:
        assert sizes(with_value(base, search.path, value)) == (value // 3, value // 3 * 2, value)
    with pytest.raises(InputError, match="multiples of 3"):
        search_of("replicas", base, (3, 4))


def test_one_pool_leaves_the_other_as_it_is():
    base = scenario(2, 4)
    for path, expected in zip(POOLS, ((7, 4, 11), (2, 7, 9)), strict=True):
        assert search_of(path, base).values == tuple(range(1, 65))
        assert sizes(with_value(base, path, 7)) == expected
    alone = base.set("disaggregation", None)
    with pytest.raises(InputError, match="cannot be searched for"):
        search_of("disaggregation.decode", alone)


@pytest.mark.parametrize(("find", "among"), [("replicas", (2, 4, 6)), ("disaggregation.decode", (1, 2, 3))])
def test_the_answer_is_that_of_an_exhaustive_search(find, among):
    base, slo = scenario(1, 1), "tpot_p95=11ms"
    search = search_of(find, base, among)
    tpot = [with_value(base, search.path, value).run().summary["tpot_ms"]["p95"] for value in among]
    assert tpot[0] > 11 > tpot[-1]
    job = PlanJob(Job.of("it", with_slo(base, slo)), find, among, load_prices(None), parse_slo(slo)[1])
    assert run_plan(job).answer.index == next(i for i, value in enumerate(tpot) if value <= 11)
