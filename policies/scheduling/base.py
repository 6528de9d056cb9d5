"""What a scheduling policy may see and say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, SupportsIndex


class WaitingRequest(Protocol):
    """A request that waits to be admitted. Lengths in tokens, times in seconds."""

    @property
    def index(self) -> int:
        """Number in the trace."""

    @property
    def arrival_s(self) -> float:
        """When it came to the queue."""

    @property
    def priority(self) -> int:
        """As the trace says; lower ones are more urgent."""

    @property
    def session(self) -> int:
        """Number of its conversation, or -1."""

    @property
    def turn(self) -> int:
        """Turn in its conversation from 0, or -1."""

    @property
    def input_tokens(self) -> int:
        """Length of its prompt."""

    @property
    def known_tokens(self) -> int:
        """Tokens to compute before its next one: the prompt, and what it had produced before it gave way."""

    @property
    def predicted_tokens(self) -> int:
        """Output tokens that it is predicted to produce from now on, 1 at least."""

    @property
    def preemptions(self) -> int:
        """How often it gave way."""

    def cached_tokens(self) -> int:
        """Tokens of its prompt that are cached in HBM now. Costs a look at every block of the prompt."""


class RunningRequest(Protocol):
    """A request that was admitted: in the batch, or waiting for its prefix to be loaded."""

    @property
    def index(self) -> int:
        """Number in the trace."""

    @property
    def tokens(self) -> int:
        """Tokens of prompt and output that it has so far; those of the prompt all, however many are computed."""

    @property
    def predicted_tokens(self) -> int:
        """Output tokens that it is predicted to produce from now on, 1 at least."""


class QueueView(Protocol):
    """What a scheduling policy may see of a replica. Valid during the call alone."""

    @property
    def now(self) -> float:
        """Simulated time, s."""

    @property
    def waiting(self) -> Sequence[WaitingRequest]:
        """Requests that may be admitted, in ascending order of `rank`; one or more."""

    @property
    def running(self) -> Sequence[RunningRequest]:
        """Requests that were admitted, in order of admission."""

    @property
    def capacity_tokens(self) -> int:
        """Tokens of KV that HBM can hold."""

    @property
    def free_tokens(self) -> int:
        """Tokens of KV that nobody's request holds now; what is merely cached counts as free."""

    def peak_tokens(self, request: WaitingRequest) -> int:
        """The most KV that running requests will hold at any time from now on if `request` is admitted now and nobody
        after it, by the predictions: tokens, whole blocks, shared ones once."""


class Scheduler(ABC):
    """Says which waiting request is admitted next, and when nobody is.

    The engine keeps waiting requests in ascending order of `rank`, which it asks when a request arrives, and again when
    one that gave way comes back; of equals, those that gave way go first, then who came first. It calls `choose` while
    a step has room for another sequence and its tokens, after something has happened: a request arrived, ended, gave
    way, or has its first token, or a prefix was loaded. Who was chosen and finds no room stays chosen until something
    else happens. Who gives way when memory is short is the engine's choice: the newest in the batch.

    What a scheduler promises: `rank` returns a number; `choose` returns the place of a request in `queue.waiting`, and
    None only if a request is running; both change nothing that they are shown, and follow from the calls and from what
    the views show alone.
    """

    error: float = 0.0
    """Standard deviation of the logarithm of predicted over true output lengths (lognormal, median 1); 0: exact."""

    def rank(self, request: WaitingRequest) -> float:
        """Place in the queue, lower ones first; by default all are equal, so by arrival."""
        return 0.0

    @abstractmethod
    def choose(self, queue: QueueView) -> int | None:
        """Place in `queue.waiting` of the request to admit now; None: nobody, until something happens."""


def place_of(answer: object, count: int) -> int | None:
    """The place of one of `count` waiting requests that an answer is, numpy's whole numbers included; None if it is
    none."""
    if isinstance(answer, bool) or not isinstance(answer, SupportsIndex):
        return None
    place = answer.__index__()
    return place if 0 <= place < count else None
