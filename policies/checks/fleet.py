"""Does a scaling policy keep its contract?"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from policies.checks.error import Watch
from policies.fleet.base import FleetWindow, ReplicaState, ReplicaStatus, Scaling, Start, Stop

MOST = 6
WINDOW_S = 5.0


def check_scaling(factory: Callable[[], Scaling], *, seed: int, operations: int) -> None:
    """Drive a scaling policy through windows of random load over fleets of one replica and more.

    Checked: `plan` returns a number of replicas, 0 or more, or some Start and Stop, each replica once, none that is in
    that state already, and leaving no fewer and no more than allowed; it raises nothing; two policies built alike
    agree. The fleet does what was planned, and starts and drains take some windows. Raises ContractError.
    """
    for most in range(1, MOST + 1):
        _check(factory, most, seed, -(-operations // MOST))


def _check(factory: Callable[[], Scaling], most: int, seed: int, operations: int) -> None:
    source = random.Random(seed + most)
    first, twin = factory(), factory()
    watch = Watch("fleet", first, twin)
    least = source.randint(0, most)
    state = [ReplicaState.SERVING if i < least else ReplicaState.OFF for i in range(most)]
    since = [0.0] * most
    for operation in range(operations):
        watch.operation = operation
        now = WINDOW_S * (operation + 1)
        window = _window(source, now, state, since, least, most)
        about = f"window {operation}, {most} replicas"
        plans = [watch.guarded("plan", policy.plan, window, about=about) for policy in (first, twin)]
        plans = [list(plan) if isinstance(plan, Iterable) else plan for plan in plans]
        if plans[0] != plans[1]:
            watch.fail("two policies built alike planned differently", about)
        before = list(state)
        _carry_out(watch, plans[0], state, least, most, about)
        for i in range(most):
            if state[i] is ReplicaState.STARTING is before[i] and source.random() < 0.3:
                state[i] = ReplicaState.SERVING
            elif state[i] is ReplicaState.DRAINING is before[i] and source.random() < 0.3:
                state[i] = ReplicaState.OFF
            if state[i] is not before[i]:
                since[i] = now


def _carry_out(watch: Watch, plan: object, state: list[ReplicaState], least: int, most: int, about: str) -> None:
    on = [i for i, s in enumerate(state) if s in (ReplicaState.SERVING, ReplicaState.STARTING)]
    off = [i for i in range(most) if i not in on]
    if isinstance(plan, int) and not isinstance(plan, bool):
        if plan < 0:
            watch.fail("plan() returned fewer than 0 replicas", f"{plan!r}, {about}")
        wanted = min(most, max(least, plan))
        for i in off[: max(0, wanted - len(on))]:
            state[i] = ReplicaState.STARTING
        for i in on[: max(0, len(on) - wanted)]:
            state[i] = ReplicaState.DRAINING
        return
    if not isinstance(plan, list) or not all(isinstance(action, Start | Stop) for action in plan):
        watch.fail("plan() returned neither a number nor Start and Stop", f"{plan!r}, {about}")
    named = [action.replica for action in plan]
    if len(set(named)) < len(named) or not set(named) <= set(range(most)):
        watch.fail("plan() named a replica twice, or one that there is not", f"{plan!r}, {about}")
    for action in plan:
        if (action.replica in on) is isinstance(action, Start):
            watch.fail("plan() starts what is on, or stops what is off", f"{action!r}, {about}")
        if isinstance(action, Start):
            state[action.replica] = ReplicaState.STARTING
        else:
            state[action.replica] = (
                ReplicaState.OFF if state[action.replica] is ReplicaState.STARTING else ReplicaState.DRAINING
            )
    left = sum(s in (ReplicaState.SERVING, ReplicaState.STARTING) for s in state)
    if not least <= left <= most:
        watch.fail(f"plan() leaves {left} replicas on, expected {least} to {most}", about)


def _window(
    source: random.Random, now: float, state: list[ReplicaState], since: list[float], least: int, most: int
) -> FleetWindow:
    """A window of an idle fleet as often as not."""
    busy = source.random() < 0.5
    status = [
        ReplicaStatus(
            i,
            s,
            since[i],
            source.randint(0, 40) if busy and s in (ReplicaState.SERVING, ReplicaState.DRAINING) else 0,
            source.randint(0, 5) if busy and s is ReplicaState.SERVING else 0,
            source.random() if busy else 0.0,
        )
        for i, s in enumerate(state)
    ]
    arrived = source.randint(0, 60) if busy else 0
    finished = source.randint(0, arrived)
    load = float(sum(s.running + s.waiting for s in status))
    peak = round(load) + source.randint(0, 9)
    waiting = 0 if any(s.state is ReplicaState.SERVING for s in status) else arrived
    missed = source.randint(0, finished)
    return FleetWindow(now, WINDOW_S, arrived, finished, missed, load, peak, waiting, status, least, most, 20.0)
