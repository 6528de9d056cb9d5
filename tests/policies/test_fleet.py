"""Scaling policies: what each wants of what it sees, and that each keeps its contract."""

from itertools import count

import pytest

from policies.contract import ContractError, check_policy
from policies.fleet.base import FleetWindow, ReplicaState, ReplicaStatus, Scaling, Start, Stop
from policies.fleet.forecast import Forecast
from policies.fleet.predictive import Predictive
from policies.fleet.scheduled import Scheduled
from policies.fleet.target_utilization import TargetUtilization

NUMBERS = count()
SERVING, STARTING, OFF = ReplicaState.SERVING, ReplicaState.STARTING, ReplicaState.OFF


def window(load, states, now=100.0, peak=0, since=0.0, start_s=10.0, least=0):
    replicas = [ReplicaStatus(i, state, since, int(load), 0, 0.5) for i, state in enumerate(states)]
    return FleetWindow(now, 5.0, 0, 0, 0, load, peak, 0, replicas, least, len(states), start_s)


FACTORIES = {
    "target_utilization": TargetUtilization,
    "stable": lambda: TargetUtilization(stabilization="20 s", protect=0, requests=4),
    "predictive": lambda: Predictive(period="50 s", requests=4),
    "scheduled": lambda: Scheduled(at={"0 s": 1, "20 s": 4, "40 s": 0}, period="60 s"),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", FACTORIES)
def test_every_shipped_policy_keeps_the_contract(name, seed):
    check_policy(FACTORIES[name], seed=seed, operations=1_000)


@pytest.mark.parametrize(
    ("load", "wanted"),
    [(32.0, 2), (51.2, 2), (51.3, 3), (76.8, 3), (76.9, 4), (130.0, 6)],
)
def test_target_utilization_scales_out_to_the_upper_bound(load, wanted):
    """Two replicas of 32: out above 51.2 to what 25.6 each need, in below 32."""
    states = [SERVING, SERVING, OFF, OFF, OFF, OFF]
    assert TargetUtilization().plan(window(load, states)) == wanted


def test_target_utilization_scales_in_to_the_lower_bound_after_its_protection():
    states = [SERVING] * 4
    old, new = window(17.0, states), window(17.0, states, since=96.0)
    assert TargetUtilization().plan(old) == [Stop(3), Stop(2)]  # 17 / 16 is two
    assert TargetUtilization().plan(new) == []
    assert TargetUtilization(protect=0).plan(new) == [Stop(3), Stop(2)]


def test_who_starts_is_given_up_first():
    assert TargetUtilization().plan(window(10.0, [SERVING, SERVING, STARTING])) == [Stop(2), Stop(1)]


def test_stabilization_holds_the_most_of_its_time():
    policy = TargetUtilization(stabilization="30 s", protect=0)
    assert policy.plan(window(80.0, [SERVING, OFF, OFF, OFF], now=5.0)) == 4
    assert policy.plan(window(1.0, [SERVING] * 4, now=10.0)) == 4
    assert policy.plan(window(1.0, [SERVING] * 4, now=34.0)) == 4  # that of 5 s
    assert policy.plan(window(1.0, [SERVING] * 4, now=36.0)) == [Stop(3), Stop(2), Stop(1)]


def test_forecast_is_the_past_and_what_it_was_off_by():
    forecast = Forecast(3)
    assert forecast.ahead() == 0
    for value in (10, 20, 30):
        forecast.add(value)
    assert forecast.ahead() == pytest.approx(10)  # as a period before
    assert forecast.ahead(2) == pytest.approx(20)
    forecast.add(14)  # 4 more than a period before
    assert forecast.ahead() == pytest.approx(20 + 4)
    forecast.add(26)  # 6 more
    assert forecast.ahead() == pytest.approx(30 + (6 + 4 / 2) / 1.5)


def test_forecast_without_a_past_is_what_was_seen_lately():
    forecast = Forecast(100)
    forecast.add(10)
    forecast.add(40)
    assert forecast.ahead() == pytest.approx((40 + 10 / 2) / 1.5)


def test_forecast_of_a_period_of_many_is_exact_and_the_past_is_a_mean():
    forecast = Forecast(4)
    for _ in range(3):
        for value in (1, 8, 2, 4):
            forecast.add(value)
    assert [forecast.ahead(i) for i in range(1, 5)] == [1, 8, 2, 4]


def test_predictive_starts_ahead_of_a_load_that_repeats():
    """Windows of 5 s, a start of 10 s: three windows ahead of a peak in each fourth one."""
    policy = Predictive(requests=10, utilization=1.0, period="40 s")
    wanted = []
    for i in range(24):
        peak = 35 if i % 8 == 7 else 5
        wanted.append(policy.plan(window(5.0, [SERVING] * 8, peak=peak, start_s=10.0)))
    assert wanted[16:] == [1, 1, 1, 1, 4, 4, 4, 1]


def test_predictive_is_never_below_what_is_there():
    assert Predictive(requests=10, utilization=0.5).plan(window(31.0, [SERVING] * 8)) == 7


def test_scheduled_is_the_number_of_the_time():
    policy = Scheduled(at={"10 s": 3, "30 s": 0}, period="40 s")
    found = [policy.plan(window(0.0, [OFF] * 4, now=t)) for t in (5.0, 10.0, 29.0, 30.0, 45.0, 50.0)]
    assert found == [0, 3, 3, 0, 0, 3]


class Endless(Scaling):
    def __init__(self, answer):
        self.answer = answer

    def plan(self, window):
        return self.answer(window)


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (lambda w: -1, "fewer than 0"),
        (lambda w: 1.5, "neither"),
        (lambda w: ["start"], "neither"),
        (lambda w: [Start(0), Start(0)], "twice"),
        (lambda w: [Start(w.most)], "there is not"),
        (lambda w: [Stop(i) for i in range(w.most)], "stops what is off|leaves"),
        (lambda w: {}["x"], "raised KeyError"),
        (lambda w: next(NUMBERS), "built alike"),
    ],
)
def test_each_broken_rule_is_named(answer, rule):
    with pytest.raises(ContractError, match=rule):
        check_policy(lambda: Endless(answer), seed=0, operations=300)
