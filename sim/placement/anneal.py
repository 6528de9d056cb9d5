"""The bound with knowledge of the future: simulated annealing over where every page lies in every step.

SOURCE: arXiv 2508.13231 takes the result of simulated annealing for the best there is. A move swaps two pages, or
brings one in or out, over a range of steps. It starts from the best of the placements that it is given and keeps the
best that it sees, so it is never worse than any of them; that nothing is better it cannot say: `floor_s` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sim.placement.model import Machine, Steps, seconds
from traces.random import stream

STREAM = "placement.annealing"


def annealed(machine: Machine, attended: Steps, starts: Sequence[Steps], *, moves: int, seed: int = 0) -> Steps:
    """The best placement found from the best of `starts` and of the best one that never moves, in `moves` tries."""
    given = [*starts, best_fixed(machine, attended)]
    placed = min(given, key=lambda p: float(seconds(machine, attended, p).sum())).copy()
    search = _Search(machine, attended, placed)
    draws = stream(seed, STREAM, len(attended), attended.shape[1])
    best, least, now = placed.copy(), search.total, search.total
    start = 0.02 * search.total / len(attended)
    for number in range(moves):
        heat = start * (1 - number / moves) ** 2
        change = search.propose(draws)
        if change is None:
            continue
        if change <= 0 or draws.random() < math.exp(-change / max(heat, 1e-30)):
            search.accept()
            now += change
            if now < least * (1 - 1e-12):
                least, best = now, search.placed.copy()
    return best


def best_fixed(machine: Machine, attended: Steps) -> Steps:
    """The best of the placements that never change and hold the pages attended most often: for every number of them."""
    hbm, host, _, _ = machine.unit_s
    order = np.argsort(-attended.sum(axis=0), kind="stable")
    near = np.cumsum(attended[:, order], axis=1)[:, : machine.info.capacity]
    far = attended.sum(axis=1, keepdims=True) - near
    costs = np.maximum(near * hbm, far * host).sum(axis=0)
    count = int(np.argmin(costs)) + 1 if len(costs) else 0
    placed = np.zeros(attended.shape[1], dtype=np.bool_)
    placed[order[:count]] = True
    return np.broadcast_to(placed, attended.shape).copy()


class _Search:
    """A placement, its cost by step, and the change that is being looked at."""

    def __init__(self, machine: Machine, attended: Steps, placed: Steps) -> None:
        self.placed = placed
        self.total = float(seconds(machine, attended, placed).sum())
        self._attended = attended
        self._units = machine.unit_s
        self._capacity = machine.info.capacity
        self._near = (attended & placed).sum(axis=1).astype(np.float64)
        self._count = attended.sum(axis=1).astype(np.float64)
        self._held = placed.sum(axis=1)
        self._change: tuple[int, int, list[int]] = (0, 0, [])

    def propose(self, draws: np.random.Generator) -> float | None:
        """Draw a change; the seconds that it adds, None if it is not possible."""
        steps, pages = self.placed.shape
        begin = int(draws.integers(steps))
        page = int(draws.integers(pages))
        length = max(1, int(steps ** draws.random()))
        end = min(begin + length, steps)
        inside = bool(self.placed[begin, page])
        run = self.placed[begin:end, page] == inside
        end = end if run.all() else begin + int(np.argmin(run))
        toggled = [page]
        if not inside and int(self._held[begin:end].max()) >= self._capacity:
            held = np.flatnonzero(self.placed[begin:end].all(axis=0))
            if not len(held):
                return None
            uses = self._attended[begin:end, held].sum(axis=0)
            few = held[uses == uses.min()] if draws.random() < 0.7 else held
            toggled.append(int(few[int(draws.integers(len(few)))]))
        self._change = (begin, end, toggled)
        return self._reads(begin, end, toggled) + self._moves(begin, end, toggled)

    def accept(self) -> None:
        """Make the change."""
        begin, end, toggled = self._change
        for page in toggled:
            was = self.placed[begin:end, page]
            sign = np.where(was, -1.0, 1.0)
            self._near[begin:end] += sign * self._attended[begin:end, page]
            self._held[begin:end] += sign.astype(self._held.dtype)
            self.placed[begin:end, page] = ~was

    def _reads(self, begin: int, end: int, toggled: list[int]) -> float:
        hbm, host, _, _ = self._units
        near, count = self._near[begin:end], self._count[begin:end]
        then = near.copy()
        for page in toggled:
            then += np.where(self.placed[begin:end, page], -1.0, 1.0) * self._attended[begin:end, page]
        before = np.maximum(near * hbm, (count - near) * host)
        after = np.maximum(then * hbm, (count - then) * host)
        return float((after - before).sum())

    def _moves(self, begin: int, end: int, toggled: list[int]) -> float:
        """What the ends of the range add: inside of it a page moves no more than before, for it does not move."""
        _, _, into, out = self._units
        total = 0.0
        for page in toggled:
            column = self.placed[:, page]
            inside = bool(column[begin])
            for edge, outer in ((begin, begin - 1), (end, end)):
                if not 0 < edge < len(column):
                    continue
                beyond = bool(column[outer])
                # at the begin the page comes from `beyond`, at the end it goes there
                for state, sign in ((inside, -1.0), (not inside, 1.0)):
                    if state != beyond:
                        comes = state if edge == begin else beyond
                        total += sign * (into if comes else out)
        return total
