"""A bench for copy engines: one clock, one network, engines over it, and notes of what happens when."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sim.clock import Clock
from sim.hierarchy.link import CopyEngine, Model
from sim.hierarchy.network import Network, Resource
from sim.hierarchy.transfer import Transfer
from sim.recorder import Recorder


class Bench:
    """One clock, one network, engines over it; transfers at given times; when each arrived."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.recorder = Recorder()
        self.ends: dict[str, float] = {}

    def engine(self, model: Model, path: tuple[Resource, ...] = (), **keywords: object) -> CopyEngine:
        return CopyEngine("link", 0, model, path, self.network, self.clock, self.recorder, **keywords)  # type: ignore[arg-type]

    def send(self, engine: CopyEngine, name: str, at: float, size: int, copies: int = 1, pageable: int = 0) -> None:
        transfer = Transfer(name, "to", size, copies, "load", pageable)

        def note() -> None:
            self.ends[name] = self.clock.now

        self.clock.at(at, lambda: engine.submit(transfer, note))

    def ask(self, at: float, question: Callable[[], float]) -> list[float]:
        """The answer at a time, in a list that is filled when the clock gets there (after arrivals of that time)."""
        answer: list[float] = []
        self.clock.at(at, lambda: answer.append(question()))
        return answer

    def run(self) -> dict[str, float]:
        self.clock.drain(None, lambda: None)
        return self.ends

    def rows(self) -> dict[str, tuple[float, float, float, int]]:
        """Of each transfer: queued, start, end, bytes."""
        table = self.recorder.transfers
        keys = [table.numbers(name) for name in ("queued_s", "start_s", "end_s", "bytes")]
        sources = [table.texts("src")[place] for place in table.numbers("src")]
        return dict(zip(sources, zip(*keys, strict=True), strict=True))


@pytest.fixture(scope="session")
def new_bench() -> type[Bench]:
    """Makes a bench."""
    return Bench
