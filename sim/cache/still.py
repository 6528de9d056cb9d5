"""A scenario's hierarchy with time standing still: requests one after the other, every copy and step in no time."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np

from sim.cache.instant import Done, Instant
from sim.cache.replay import no_cycle_search
from sim.clock import Clock
from sim.cluster import too_long
from sim.engine.sequence import Sequence
from sim.hierarchy.cache import ReplicaCache
from sim.hierarchy.link import CopyEngine
from sim.inputs import Inputs
from sim.policy_failure import failures_named
from sim.recorder import Recorder
from sim.replicas import step_cost
from sim.scenario import Scenario
from sim.topology import Topology
from traces.request import Ints, Trace


class Still:
    """The tiers of a scenario, those of all its replicas and nodes put together, and its trace in order of arrival.

    The engine's own cache (`sim.hierarchy`) with its policies, admission, offload and exclusive tiers; but one replica
    has the memory of all, a request is looked up, loaded, computed and released before the next one comes, and copies
    arrive at once. So routing, queueing, batching and time spent on links are left out, prefetching has nothing to run
    ahead of, and output is not stored. The clock of policies shows the arrival times of the trace.
    """

    def __init__(self, scenario: Scenario, inputs: Inputs) -> None:
        spec = scenario.spec
        self._cost = step_cost(spec, inputs)
        real = Topology(scenario, inputs, Clock(), Recorder(), self._cost)
        self.costs = real.costs(0)
        """What loads and computing take in the tiers as they are."""
        self.trace: Trace = inputs.trace
        held = real.held_bytes()
        self.capacities = {name: size // inputs.token_bytes for name, size in held.items()}
        """KV tokens that each tier holds, HBM first."""
        fits = [too_long(request, inputs, spec.engine) is None for request in inputs.trace]
        self.served: Ints = np.flatnonzero(fits)
        """Requests that a replica of its own could serve."""
        hbm = spec.tiers[0].name
        together = tuple(
            tier.model_copy(update={"capacity": held.get(tier.name, 0), "shared": "private"}) for tier in spec.tiers
        )
        one = spec.hardware.model_copy(update={"replicas": 1})
        self._scenario = replace(scenario, spec=spec.model_copy(update={"hardware": one, "tiers": together}))
        self._inputs = replace(inputs, hbm_bytes=held[hbm], trace=replace(inputs.trace, closed_loop=False))

    def hits(self, eviction: dict[str, Any] | None) -> Ints:
        """int64[requests served, tiers]: tokens of each prompt that each tier served.

        `eviction` is the policy of every tier in place of the scenario's, as a mapping of its name and options.
        Raises InputError for a policy that is not known or breaks its contract.
        """
        scenario = self._scenario
        if eviction is not None:
            tiers = [tier.model_copy(update={"eviction": None}) for tier in scenario.spec.tiers]
            chosen = type(scenario.spec.policies.eviction).model_validate(eviction)
            policies = scenario.spec.policies.model_copy(update={"eviction": chosen})
            scenario = replace(
                scenario, spec=scenario.spec.model_copy(update={"tiers": tuple(tiers), "policies": policies})
            )
        arrived: deque[Done] = deque()
        clock = Clock()

        def engine(*args: Any, **options: Any) -> CopyEngine:
            link = Instant(*args, **options)
            link.under_way = arrived
            return link

        topology = Topology(scenario, self._inputs, clock, Recorder(), self._cost, engine)
        cache = topology.cache(0)

        def settle() -> None:
            while arrived:
                arrived.popleft()()

        found = []
        with failures_named(lambda: clock.now, scenario.where), no_cycle_search():
            for index in self.served.tolist():
                request = self.trace.request(index)
                clock.skip(request.arrival_s)
                seq = Sequence(request, request.hash_ids, len(self.capacities))
                _serve(cache, seq, settle)
                found.append(seq.hit_tokens)
        return np.array(found, np.int64).reshape(len(found), len(self.capacities))


def _serve(cache: ReplicaCache, seq: Sequence, settle: Done) -> None:
    """Look a request up, load and compute its prompt, and let go of it; `settle()` lets copies arrive."""
    if not cache.admit(seq, cache.lookup(seq)):
        raise AssertionError("an empty engine refuses a prompt that fits")
    settle()
    if not cache.extend(seq, seq.known - seq.computed):
        raise AssertionError("an empty engine has no room for a prompt that fits")
    seq.computed = seq.known
    cache.filled(seq.filled)
    seq.filled = []
    settle()
    cache.release(seq)
