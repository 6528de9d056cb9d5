"""Before the next turn of the conversation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from policies.base import CacheView, Fetch, PrefetchPolicy, RequestView, Trigger
from policies.options import choice, seconds
from policies.prefetch.into import level_of

CONVERSATIONS = 100_000
"""Conversations whose last turn's end is remembered; the one that ended longest ago is forgotten first."""


class NextTurn(PrefetchPolicy):
    """Brings a finished request's prompt back shortly before the next turn of its conversation is due.

    The next turn's prompt begins with this one's, so its blocks are wanted again after the user (or the tool) has
    thought. The fetch starts `lead` before that, or at once if less time is left.

    into       tier to bring the blocks into
    lead       how long before the next turn the fetch starts: text with a unit or a number of seconds. It should cover
               the load itself; what comes earlier may be evicted again before it is used
    estimate   "recorded": the trace's own time to the next turn, and no fetch where there is none: knowledge of the
               future, so a bound on what better estimates can bring. "mean": the mean of the times seen so far, from
               the end of a request to the arrival of its conversation's next; it fetches for last turns too, in vain

    Where the next turn carries the answer, that is brought back with the prompt. Else the answer is not among the
    request's blocks, and the prompt's last block is left where it is: as a rule it is partial, and the next turn has
    another block in its place, which holds more.

    Source: the idea of CachedAttention (B. Gao et al., USENIX ATC 2024), which fetches for the requests in its queue,
    and KVFlow (Z. Pan et al., arXiv 2507.07400), which fetches for the agents that its workflow runs next, carried over
    to the time between turns.

    Complexity: O(1) per request and the length of its prompt; memory for 100,000 conversations at most.
    """

    def __init__(self, *, into: str = "hbm", lead: float | str = "1 s", estimate: str = "recorded") -> None:
        self._into = into
        self._lead = seconds("lead", lead)
        self._learns = choice("estimate", estimate, ("recorded", "mean")) == "mean"
        self.listens = (Trigger.ARRIVED, Trigger.FINISHED) if self._learns else (Trigger.FINISHED,)
        self._ended: OrderedDict[int, float] = OrderedDict()
        self._thought_s = 0.0
        self._thoughts = 0

    def plan(self, trigger: Trigger, request: RequestView, cache: CacheView) -> Iterable[Fetch]:
        if trigger is Trigger.ARRIVED:
            self._learn(request, cache.now)
            return ()
        think_s = self._estimate(request, cache.now) if self._learns else request.think_s
        keys = request.keys if request.carried else request.keys[:-1]
        if think_s is None or not keys or level_of(self._into, cache) is None:
            return ()
        return (Fetch(keys, self._into, max(0.0, think_s - self._lead)),)

    def _learn(self, request: RequestView, now: float) -> None:
        """A turn arrives: the time since the end of the last one, if that has ended, is what its user thought."""
        ended = self._ended.pop(request.session, None) if request.session >= 0 else None
        if ended is not None:
            self._thought_s += now - ended
            self._thoughts += 1

    def _estimate(self, request: RequestView, now: float) -> float | None:
        """The mean so far, None while there is none or for a request of no conversation."""
        if request.session < 0:
            return None
        self._ended[request.session] = now
        self._ended.move_to_end(request.session)
        if len(self._ended) > CONVERSATIONS:
            self._ended.popitem(last=False)
        return self._thought_s / self._thoughts if self._thoughts else None
