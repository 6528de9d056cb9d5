"""Tokens under way, and tokens per second, up to a limit."""

from __future__ import annotations

from math import inf

from policies.admission_control.base import AdmissionControl, GateView
from policies.base import RequestView
from policies.options import number, whole


class TokenLimit(AdmissionControl):
    """Turns a request away if its replica would have too many tokens under way: those in HBM for its requests, and the
    prompts of those without a token.

    outstanding   tokens that a replica may have under way, the prompt of this request included; a replica with nothing
                  to do takes any

    Source: the token count that a load balancer of LLM servers keeps per server (Llumnix, OSDI 2024, section 4.4:
    virtual usage), as a limit.

    Complexity: O(1).
    """

    def __init__(self, *, outstanding: int = 262_144) -> None:
        self._outstanding = whole("outstanding", outstanding, 1, 2**62)

    def admit(self, request: RequestView, replica: GateView) -> bool:
        under_way = replica.active_tokens + replica.prompt_tokens
        idle = not (replica.running or replica.waiting)
        return idle or under_way + request.input_tokens <= self._outstanding


class TokenRate(AdmissionControl):
    """Turns a request away if prompts have come faster than a rate: a token bucket before all replicas.

    rate    prompt tokens per second that fill the bucket
    burst   tokens that it holds at most, and at the start; by default ten seconds of the rate. A prompt that is longer
            is never served

    A request that is turned away takes nothing from the bucket. Caches do not count: a token that is found again costs
    as much as one that must be computed.

    Source: token-based rate limits of gateways (Envoy AI Gateway's and Kong's token rate limiting).

    Complexity: O(1).
    """

    def __init__(self, *, rate: float = 50_000.0, burst: float | None = None) -> None:
        self._rate = number("rate", rate, 0, inf, above=True)
        self._most = 10 * self._rate if burst is None else number("burst", burst, 1)
        self._left = self._most
        self._since = 0.0

    def admit(self, request: RequestView, replica: GateView) -> bool:
        self._left = min(self._most, self._left + self._rate * (replica.now - self._since))
        self._since = replica.now
        if request.input_tokens > self._left:
            return False
        self._left -= request.input_tokens
        return True
