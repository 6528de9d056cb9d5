"""Bandwidth shared by transfers in flight: max-min fair over a graph of links.

A transfer in service is a flow over a path of resources (a PCIe direction, the joint cap of both directions, a host's
root complex, its DRAM, a NIC). Alone it progresses at its own pace, which already contains its set-up times; when a
resource on its path is short, flows get max-min fair rates (Bertsekas and Gallager, Data Networks, section 6.5.2:
progressive filling), and a flow never gets more than its own pace needs.

Progress is kept in seconds of work at the own pace, so a flow that is never held up ends at exactly start + service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from math import inf

from sim.clock import Clock


class Resource:
    """Something with a bandwidth that flows share; `capacity` in bytes/s, as soon as there are `least` flows.

    What the two directions of a device move together is no limit to one of them alone (`least` 2): memory that reads
    and writes at once may move less than memory that only reads.
    """

    __slots__ = ("bytes", "capacity", "demand", "flows", "least", "name")

    def __init__(self, name: str, capacity: float, *, least: int = 1) -> None:
        self.name = name
        self.capacity = capacity
        self.least = least
        self.flows: dict[Flow, None] = {}
        self.demand = 0.0
        """Sum of the own paces of the flows, bytes/s."""
        self.bytes = 0
        """Bytes of all flows that have begun."""

    def __repr__(self) -> str:
        return f"Resource({self.name!r}, {self.capacity:g} B/s, {len(self.flows)} flows)"


class Flow:
    """A transfer in service."""

    __slots__ = ("done", "left", "number", "pace", "path", "since", "speed")

    def __init__(
        self, path: tuple[Resource, ...], pace: float, work: float, now: float, done: Callable[[], None]
    ) -> None:
        self.path = path
        self.pace = pace
        """Bytes/s when nothing holds it up."""
        self.left = work
        """Seconds of work at its own pace that were left at `since`."""
        self.since = now
        self.speed = 1.0
        """Share of its own pace that it gets now."""
        self.done = done
        self.number = 0
        """Counts reschedulings; an end event of an older number is void."""


class Network:
    """Flows over resources in simulated time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def start(
        self, now: float, path: tuple[Resource, ...], size: int, service_s: float, done: Callable[[], None]
    ) -> Flow:
        """Begin to move `size` bytes, which take `service_s` seconds when nothing is in the way.

        `done()` is called when the last byte has arrived. `path` may be empty. Raises ValueError for no bytes or time.
        """
        if size <= 0 or service_s <= 0:
            raise ValueError(f"a flow needs bytes and time, not {size} B in {service_s} s")
        flow = Flow(path, size / service_s, service_s, now, done)
        tight = False
        for resource in flow.path:
            resource.flows[flow] = None
            resource.demand += flow.pace
            resource.bytes += size
            tight = tight or resource.demand > resource.capacity
        if tight:
            self._set_speeds(now, _neighbours(flow))
        if not flow.number:
            self._schedule_end(now, flow)
        return flow

    def capacities_changed(self, now: float, resources: Iterable[Resource]) -> None:
        """Resources have other capacities from `now` on: share them out again."""
        flows = dict.fromkeys(flow for resource in resources for flow in resource.flows)
        self._set_speeds(now, flows)

    @staticmethod
    def left_s(flow: Flow, now: float) -> float:
        """Seconds of work at its own pace that a flow has left at `now`, not before its last change of speed."""
        return max(0.0, flow.left - (now - flow.since) * flow.speed)

    def _end(self, flow: Flow, number: int) -> None:
        if number != flow.number:
            return
        now = self._clock.now
        held_up = False
        for resource in flow.path:
            held_up = held_up or resource.demand > resource.capacity
        group = _neighbours(flow) if held_up else {}
        for resource in flow.path:
            del resource.flows[flow]
            # Recount rather than subtract: rounding must not pile up over a long run.
            resource.demand = sum([other.pace for other in resource.flows]) if resource.flows else 0.0
        if held_up:
            del group[flow]
            self._set_speeds(now, group)
        flow.done()

    def _set_speeds(self, now: float, flows: dict[Flow, None]) -> None:
        """Give the flows their fair speeds from `now` on."""
        for flow, speed in _fair_speeds(flows).items():
            if speed == flow.speed:
                continue
            flow.left -= (now - flow.since) * flow.speed
            flow.since = now
            flow.speed = speed
            self._schedule_end(now, flow)

    def _schedule_end(self, now: float, flow: Flow) -> None:
        flow.number += 1
        end = flow.since + max(0.0, flow.left) / flow.speed
        self._clock.at(max(now, end), partial(self._end, flow, flow.number))


def _neighbours(flow: Flow) -> dict[Flow, None]:
    """Every flow connected to this one through shared resources, itself included, in a fixed order."""
    found: dict[Flow, None] = {flow: None}
    seen: dict[Resource, None] = {}
    todo = [flow]
    while todo:
        for resource in todo.pop().path:
            if resource in seen:
                continue
            seen[resource] = None
            for other in resource.flows:
                if other not in found:
                    found[other] = None
                    todo.append(other)
    return found


def _fair_speeds(flows: dict[Flow, None]) -> dict[Flow, float]:
    """Max-min fair share of every flow, as a share of its own pace, by progressive filling.

    All flows rise together until one has its own pace or a resource is full; those are fixed, the rest rises on.
    """
    rising = dict(flows)
    speeds: dict[Flow, float] = {}
    left = {r: r.capacity if len(r.flows) >= r.least else inf for flow in flows for r in flow.path}
    while rising:
        count: dict[Resource, int] = {}
        for flow in rising:
            for resource in flow.path:
                count[resource] = count.get(resource, 0) + 1
        shares = {resource: max(0.0, left[resource]) / n for resource, n in count.items()}
        level = min(*shares.values(), *(flow.pace for flow in rising))
        fixed = [
            flow for flow in rising if flow.pace <= level or any(shares[resource] <= level for resource in flow.path)
        ]
        for flow in fixed:
            rate = min(flow.pace, level)
            speeds[flow] = rate / flow.pace
            del rising[flow]
            for resource in flow.path:
                left[resource] -= rate
    return speeds
