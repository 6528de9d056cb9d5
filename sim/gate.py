"""Admission control at work: what it may see of the replica that a request goes to, and who is turned away."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isnan

from hw_profiles.errors import InputError
from policies.admission_control.base import AdmissionControl
from policies.base import RequestView
from policies.build import build_policy
from sim.clock import Clock
from sim.cost.step import StepCost
from sim.cost.times import at
from sim.engine.replica import Replica
from sim.engine.sequence import Sequence as Seq
from sim.routing import View
from sim.scenario import Scenario


class Expectation(View):
    """What admission control may see of a replica (policies.admission_control.base.GateView).

    step_tokens   prompt tokens that a step of the engine computes at most
    """

    def __init__(self, replica: Replica, clock: Clock, cost: StepCost, step_tokens: int) -> None:
        super().__init__(replica, clock)
        self._cost = cost
        self._step_tokens = step_tokens
        self._ahead: list[tuple[Seq, int, float]] = []
        """Requests that were sent here and had no token when this was last looked at, tokens to compute, seconds."""

    @property
    def now(self) -> float:
        return self._clock.now

    def sent(self, seq: Seq) -> None:
        """A request goes there."""
        self._ahead.append((seq, self._uncached(seq), self.prefill_s(seq)))

    @property
    def queue_s(self) -> float:
        """Prompts in order of arrival, each as it would take alone, as far as they are not computed; with what decodes
        beside the steps that they take."""
        self._ahead = [entry for entry in self._ahead if isnan(entry[0].first_token_s)]
        alone, tokens = 0.0, 0.0
        for seq, fresh, seconds in self._ahead:
            left = min(1.0, (seq.known - seq.computed) / fresh)
            alone += left * seconds
            tokens += left * fresh
        seqs = self._replica.batch.decoding.count
        if not seqs or not tokens:
            return alone
        context = max(seqs, self.active_tokens)
        beside = self._cost.decode(seqs, context, windowed=self._cost.alike(seqs, context, 0))
        return alone + ceil(tokens / self._step_tokens) * beside

    def prefill_s(self, request: RequestView) -> float:
        fresh = self._uncached(request)
        return self._cost.recompute_s(fresh, request.input_tokens - fresh)

    @property
    def decoding_s(self) -> Sequence[float]:
        now = self._clock.now
        running = self._replica.batch.running.values()
        return [now - seq.first_token_s for seq in running if not isnan(seq.first_token_s)]

    def step_s(self, seqs: int) -> float:
        here = len(self._replica.batch.running)
        context = max(seqs, seqs * self.active_tokens // max(1, here))
        seconds = self._cost.decode_steps(seqs, context, self._cost.alike(seqs, context, 0), 1).seconds
        return at(seconds, 0) / self._cost.tokens_per_step

    def _uncached(self, request: RequestView) -> int:
        """Tokens of a prompt that must be computed: the last one at least."""
        return max(1, request.input_tokens - self.cached_tokens(request.keys))


class Gate:
    """Turns away the requests that the scenario's `admission_control` does not admit."""

    def __init__(self, scenario: Scenario, clock: Clock, cost: StepCost) -> None:
        spec = scenario.spec.admission_control
        assert spec is not None
        path = "admission_control"
        try:
            policy = build_policy(path, spec.model_dump(), base_dir=scenario.base_dir, path=path)
        except InputError as error:
            raise error.at(where=scenario.where) from None
        self._policy: AdmissionControl = policy
        self._clock = clock
        self._cost = cost
        self._step_tokens = scenario.spec.engine.max_num_batched_tokens
        self._views: dict[int, Expectation] = {}
        self.refusal = f"rejected: turned away by {spec.name}"
        """The status of a request that is not admitted."""

    def admits(self, seq: Seq, replica: Replica) -> bool:
        """True if the request is to be served by this replica. Raises InputError for a policy that breaks its
        contract."""
        view = self._views.get(replica.index)
        if view is None:
            view = self._views[replica.index] = Expectation(replica, self._clock, self._cost, self._step_tokens)
        if not self._policy.admit(seq, view):
            return False
        view.sent(seq)
        return True
