"""Does admission control keep its contract?"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass

from policies.admission_control.base import AdmissionControl
from policies.base import RequestView
from policies.checks.error import Watch
from policies.checks.routing import Seen, a_replica, a_request


@dataclass
class Gate(Seen):
    """A replica (policies.admission_control.base.GateView) that computes a token in a tenth of a millisecond."""

    now: float
    queue_s: float
    decoding_s: tuple[float, ...]

    def prefill_s(self, request: RequestView) -> float:
        return 1e-4 * max(0, request.input_tokens - self.cached_tokens(request.keys))

    def step_s(self, seqs: int) -> float:
        return 0.01 + 1e-3 * seqs


def check_admission_control(factory: Callable[[], AdmissionControl], *, seed: int, operations: int) -> None:
    """Drive admission control through requests to replicas whose load and caches change at random.

    Checked: `admit` returns True or False, changes nothing and raises nothing; two policies built alike agree. Raises
    ContractError.
    """
    source = random.Random(seed)
    first, twin = factory(), factory()
    watch = Watch("admission_control", first, twin)
    now = 0.0
    for operation in range(operations):
        watch.operation = operation
        now += source.choice((0.0, 0.001, 1.0))
        request, gate = a_request(source, operation), _gate(source, now)
        before = asdict(request), asdict(gate)
        about = f"request {operation}"
        answers = [watch.guarded("admit", policy.admit, request, gate, about=about) for policy in (first, twin)]
        if (asdict(request), asdict(gate)) != before:
            watch.fail("admit() changed what it was shown", about)
        for answer in answers:
            if not isinstance(answer, bool):
                watch.fail("admit() did not return True or False", repr(answer))
        if answers[0] != answers[1]:
            watch.fail("two policies built alike gave different answers", about)


def _gate(source: random.Random, now: float) -> Gate:
    seen = a_replica(source, source.randint(0, 4))
    decoding = tuple(source.random() * 20 for _ in range(source.randint(0, seen.running)))
    return Gate(**asdict(seen), now=now, queue_s=1e-4 * seen.prompt_tokens, decoding_s=decoding)
