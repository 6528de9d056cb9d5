"""What reuse before the engine may see and say: caches of whole answers, and the index that says where prefixes lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

from policies.base import RequestView


class AnsweredView(RequestView, Protocol):
    """A request that has its answer."""

    @property
    def output_tokens(self) -> int:
        """Length of the answer."""


class Reuse:
    """Base of both."""

    seed: int = 0
    """That of the scenario, set before the first request: for policies that draw (`traces.random.stream`)."""


class ResponseCache(Reuse, ABC):
    """Answers in host memory: a request that is found gets its answer at once and never reaches a GPU.

    What the policy promises: `lookup` returns True or False, and its answers follow from the calls and `seed` alone;
    it never holds more than `capacity` bytes.
    """

    lookup_s: float
    """What every lookup takes, hit or miss, s."""
    capacity: int
    """Bytes that it may hold."""
    entries: int
    """Instructions that it holds."""
    used_bytes: int
    """Bytes that these take, with their answers."""

    @abstractmethod
    def lookup(self, request: RequestView) -> bool:
        """True if the answer is there."""

    def answered(self, request: AnsweredView) -> None:
        """A request that was not found has its answer."""


class Visit(NamedTuple):
    """What a visit of the index takes: seconds on the network, and of the server, which serves one at a time; keys."""

    network_s: float
    server_s: float
    keys: int


class PrefixIndex(Reuse, ABC):
    """Where prefixes lie is written in an index, which is asked before a request is sent to a replica."""

    @abstractmethod
    def lookup(self, request: RequestView) -> Visit:
        """What it takes to find the longest prefix of a prompt."""

    @abstractmethod
    def update(self, tokens: int) -> Visit:
        """What it takes to write down so many new tokens of a prompt; nobody waits for it."""
