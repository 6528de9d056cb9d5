"""Keys by popularity: a heap in which a key can rise, and whose top can be read without taking it apart."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heappop, heappush


class Ranking:
    """At most `most` keys, each with a score and a depth; of equal scores the smaller depth ranks higher.

    Scores of a key may only rise. Adding to a full ranking drops the key that was raised longest ago. O(log n) per
    call, and O(log m) for the m-th key of `top`.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[int] = []
        self._places: dict[int, int] = {}
        self._ranks: OrderedDict[int, tuple[float, int]] = OrderedDict()
        """(-score, depth) by key, raised longest ago first; smaller is more popular."""

    def __len__(self) -> int:
        return len(self._heap)

    def score(self, key: int) -> float | None:
        """The key's score, or None."""
        rank = self._ranks.get(key)
        return None if rank is None else -rank[0]

    def raise_to(self, key: int, score: float, depth: int) -> int | None:
        """Give a key its new score; the key that had to go for it, if any."""
        self._ranks[key] = (-score, depth)
        if key in self._places:
            self._ranks.move_to_end(key)
            self._up(self._places[key])
            return None
        self._places[key] = len(self._heap)
        self._heap.append(key)
        self._up(len(self._heap) - 1)
        if len(self._heap) <= self._most:
            return None
        oldest = next(iter(self._ranks))
        self._drop(oldest)
        return oldest

    def top(self) -> Iterator[int]:
        """Keys, the most popular first. Nothing may change while it is read."""
        heap, ranks = self._heap, self._ranks
        fringe = [(ranks[heap[0]], 0)] if heap else []
        while fringe:
            _, place = heappop(fringe)
            yield heap[place]
            for child in (2 * place + 1, 2 * place + 2):
                if child < len(heap):
                    heappush(fringe, (ranks[heap[child]], child))

    def _drop(self, key: int) -> None:
        place = self._places.pop(key)
        last = self._heap.pop()
        del self._ranks[key]
        if last != key:
            self._heap[place] = last
            self._places[last] = place
            self._up(place)
            self._down(self._places[last])

    def _up(self, place: int) -> None:
        heap, ranks, places = self._heap, self._ranks, self._places
        key = heap[place]
        rank = ranks[key]
        while place:
            above = (place - 1) // 2
            if ranks[heap[above]] <= rank:
                break
            heap[place] = heap[above]
            places[heap[place]] = place
            place = above
        heap[place] = key
        places[key] = place

    def _down(self, place: int) -> None:
        heap, ranks, places = self._heap, self._ranks, self._places
        key = heap[place]
        rank = ranks[key]
        while (child := 2 * place + 1) < len(heap):
            if child + 1 < len(heap) and ranks[heap[child + 1]] < ranks[heap[child]]:
                child += 1
            if rank <= ranks[heap[child]]:
                break
            heap[place] = heap[child]
            places[heap[place]] = place
            place = child
        heap[place] = key
        places[key] = place
