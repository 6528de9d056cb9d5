"""What the plan of a scaling policy comes to."""

from __future__ import annotations

from collections.abc import Iterable

from hw_profiles.errors import InputError
from policies.fleet.base import FleetWindow, ReplicaState, Start, Stop

OFF, STARTING, SERVING, DRAINING = ReplicaState


def actions_of(plan: object, window: FleetWindow, name: str) -> list[Start | Stop]:
    """The starts and stops of a plan (policies.fleet.base.Scaling). Raises InputError if it breaks the contract."""
    on = [r.index for r in window.replicas if r.state in (SERVING, STARTING)]
    if isinstance(plan, int) and not isinstance(plan, bool):
        if plan < 0:
            raise _broken(name, f"plan() returned {plan!r}, expected 0 or more")
        wanted = min(window.most, max(window.least, plan))
        return _grow(window, wanted - len(on)) if wanted > len(on) else _shrink(window, len(on) - wanted)
    if not isinstance(plan, Iterable):
        raise _broken(name, f"plan() returned {plan!r}, expected a number, or Start and Stop")
    actions, seen = list(plan), set[int]()
    number = len(on)
    for action in actions:
        if not isinstance(action, Start | Stop):
            raise _broken(name, f"plan() returned {action!r} among its actions, expected Start or Stop")
        if not 0 <= action.replica < len(window.replicas) or action.replica in seen:
            raise _broken(name, f"{action!r}: no such replica, or named twice")
        seen.add(action.replica)
        if (action.replica in on) is isinstance(action, Start):
            raise _broken(name, f"{action!r}: the replica is {window.replicas[action.replica].state.value}")
        number += 1 if isinstance(action, Start) else -1
    if not window.least <= number <= window.most:
        raise _broken(name, f"its actions leave {number} replicas on, expected {window.least} to {window.most}")
    return actions


def _grow(window: FleetWindow, count: int) -> list[Start | Stop]:
    draining = sorted((r for r in window.replicas if r.state is DRAINING), key=lambda r: -(r.running + r.waiting))
    off = [r for r in window.replicas if r.state is OFF]
    return [Start(r.index) for r in [*draining, *off][:count]]


def _shrink(window: FleetWindow, count: int) -> list[Start | Stop]:
    starting = sorted((r for r in window.replicas if r.state is STARTING), key=lambda r: -r.since_s)
    serving = sorted(
        (r for r in window.replicas if r.state is SERVING), key=lambda r: (r.running + r.waiting, -r.index)
    )
    return [Stop(r.index) for r in [*starting, *serving][:count]]


def _broken(name: str, what: str) -> InputError:
    return InputError(f"scaling policy {name} broke its contract: {what}")
