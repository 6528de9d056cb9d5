"""The files of a new scaling policy."""

from __future__ import annotations

from kvsim.cli._template_parts import Template, with_contract

POLICY = '''\
"""A scaling policy for kvsim; as it stands, a replica for every eight requests."""

from collections.abc import Iterable
from math import ceil

from kvsim import FleetWindow, Scaling, Start, Stop


class $cls(Scaling):
    """ceil(load / each) replicas; load: requests in the system, in the mean."""

    # Keyword arguments are options of the scenario, set by
    # `fleet: {scaling: {name: "$name.py:$cls", each: 16}}`;
    # raise ValueError for a value that makes no sense.
    def __init__(self, *, each: int = 8) -> None:
        if each < 1:
            raise ValueError(f"each: found {each!r}, expected a whole number >= 1")
        self._each = each

    def plan(self, window: FleetWindow) -> int | Iterable[Start | Stop]:
        """The replicas that are to be on from now on; asked once per window."""
        # A window has now_s, window_s, arrived, finished, missed (their SLO), load
        # and peak (requests in the system), waiting (at the gateway), replicas (index,
        # state, since_s, running, waiting, kv_use), on, least, most and start_s.
        # Instead of a number, `[Start(2), Stop(0)]` says what to do with which.
        return ceil(window.load / self._each)
'''

TEST = with_contract(
    '''\
def window(load: float) -> kvsim.FleetWindow:
    """Five seconds with so many requests in a system that has no replica on."""
    return kvsim.FleetWindow(5.0, 5.0, 0, 0, 0, load, 0, 0, [], 0, 8, 30.0)


def test_it_has_a_replica_for_every_eight_requests() -> None:
    assert [$cls().plan(window(load)) for load in (0.0, 8.0, 8.5)] == [0, 1, 2]


def test_a_scenario_runs_with_it() -> None:
    assert run({"scaling": "$name.py:$cls"})["requests"]["finished"] == 200


def test_it_is_target_utilization_at_its_bound_so_far() -> None:
    """Say here what your policy is to do better than one with a single target."""
    mine = run({"scaling": "$name.py:$cls"})
    bound = {"requests": 8, "lower": 1, "upper": 1, "protect": 0}
    target = run({"scaling": {"name": "target_utilization", **bound}})
    assert mine["ttft_ms"] == target["ttft_ms"]
    assert mine["fleet"]["gpu_hours"] == target["fleet"]["gpu_hours"]
''',
    chosen='"fleet": policy',
    hardware=', "replicas": 2',
)

FLEET = Template(POLICY, TEST)
