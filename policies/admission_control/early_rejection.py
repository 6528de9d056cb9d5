"""Who would come too late is turned away on arrival."""

from __future__ import annotations

from policies.admission_control.base import AdmissionControl, GateView
from policies.base import RequestView
from policies.options import choice, number, seconds


class EarlyRejection(AdmissionControl):
    """Turns a request away if its first token, or the steps of its decoding, would come too late.

    ttft          the first token must be expected within this: prompts in the queue, then its own
    margin        what is expected counts this many times: above 1 turns away earlier, below 1 later
    tpot          a decode step of its replica must be expected to take no more than this; None: it is not looked at
    load          whose steps those are: "now", those of the requests running and this one; "then", of those that will
                  run when its prompt is done: without the ones that have ended by then, with those that wait before it
    decode_time   with `load: then`: how long every request is taken to decode

    Source: Mooncake (Qin et al., FAST 2025; arXiv 2407.00079): Algorithm 1 rejects if the expected TTFT exceeds its
    SLO, section 7.2 the early rejection, 7.3 why the load of now makes it swing, 7.4 the prediction at the level of
    the system with one decode time for all.

    Complexity: O(requests on the replica).
    """

    def __init__(
        self,
        *,
        ttft: float | str = 2.0,
        margin: float = 1.0,
        tpot: float | str | None = None,
        load: str = "now",
        decode_time: float | str = 10.0,
    ) -> None:
        self._ttft = seconds("ttft", ttft, above=True)
        self._margin = number("margin", margin, 0, above=True)
        self._tpot = None if tpot is None else seconds("tpot", tpot, above=True)
        self._then = choice("load", load, ("now", "then")) == "then"
        self._decode_s = seconds("decode_time", decode_time, above=True)

    def admit(self, request: RequestView, replica: GateView) -> bool:
        wait = replica.queue_s + replica.prefill_s(request)
        if self._margin * wait > self._ttft:
            return False
        if self._tpot is None:
            return True
        beside = replica.running
        if self._then:
            ages = replica.decoding_s
            prompts = replica.running - len(ages) + replica.waiting
            beside = prompts + sum(age + wait < self._decode_s for age in ages)
        return self._margin * replica.step_s(beside + 1) <= self._tpot
