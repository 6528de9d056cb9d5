"""What every pass over a trace starts from, and the loop that all passes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from sim.cache.accesses import Accesses, Hits, engine_tokens, previous_use
from traces.request import Ints


@dataclass(frozen=True, eq=False)
class Facts:
    """A sequence of accesses in plain lists, made once for all policies and capacities.

    `requests`: the keys that each request uses, children before parents; `lengths`: its prompt, tokens. By key:
    `starts` and `tokens` of the block where it is first used. `order`: the key of every access; `previous` int64[n]:
    the access before that used the same block, or -1. `arrivals`, s, and `turns` (None: unknown) by request.
    """

    requests: list[list[int]]
    lengths: list[int]
    starts: list[int]
    tokens: list[int]
    order: list[int]
    previous: Ints
    arrivals: list[float]
    turns: list[int] | None
    distinct: int
    block_tokens: int

    @classmethod
    def of(cls, accesses: Accesses) -> Facts:
        """The facts of a sequence of accesses."""
        one = list(range(accesses.distinct))  # one object per key: it is found by identity, and there are fewer of them
        order: list[int] = [one[key] for key in accesses.keys.tolist()]
        segments = accesses.segments()
        ends = accesses.prefix_tokens()
        starts, tokens = [0] * accesses.distinct, [0] * accesses.distinct
        # Backwards, so that the first use of a block is what remains.
        uses = zip(reversed(order), accesses.starts[::-1].tolist(), accesses.tokens[::-1].tolist(), strict=True)
        for key, start, count in uses:
            starts[key], tokens[key] = start, count
        return cls(
            requests=[order[lo:hi] for lo, hi in segments],
            lengths=[ends[lo] if lo < hi else 0 for lo, hi in segments],
            starts=starts,
            tokens=tokens,
            order=order,
            previous=previous_use(accesses.keys),
            arrivals=accesses.arrival_s.tolist(),
            turns=None if accesses.turns is None else accesses.turns.tolist(),
            distinct=accesses.distinct,
            block_tokens=accesses.block_tokens,
        )

    @cached_property
    def times(self) -> list[float]:
        """Arrival of the request of each access, s."""
        return [arrival for keys, arrival in zip(self.requests, self.arrivals, strict=True) for _ in keys]

    @cached_property
    def depths(self) -> list[int]:
        """By key: class of depth, in powers of four tokens (`policies.eviction.workload_aware`)."""
        return [(start.bit_length() + 1) // 2 for start in self.starts]

    @cached_property
    def levels(self) -> int:
        """Classes of depth."""
        return max(self.depths, default=0) + 1

    @cached_property
    def shapes(self) -> tuple[list[tuple[int, int]], list[int]]:
        """The (start, tokens) that blocks have, and by key the number of the block's among them."""
        numbers: dict[tuple[int, int], int] = {}
        by_key = [numbers.setdefault(shape, len(numbers)) for shape in zip(self.starts, self.tokens, strict=True)]
        return list(numbers), by_key


class Pass(NamedTuple):
    """A policy at one capacity. `resident[key]` is not 0 while a block is in the cache; `use` takes the keys that a
    request uses, in order, and returns how many of them were resident when their turn came."""

    resident: bytearray
    use: Callable[[Sequence[int]], int]


def play(one: Pass, facts: Facts) -> Hits:
    """Look every request up whole, then have it use its blocks: the rule of `sim.cache.replay.Replay`."""
    resident, use = one
    size = facts.block_tokens
    hit_tokens = hit_blocks = engine = 0
    for keys, length in zip(facts.requests, facts.lengths, strict=True):
        found = 0
        for key in reversed(keys):
            if not resident[key]:
                break
            found += 1
        if found:
            tokens = min(found * size, length)
            hit_tokens += tokens
            engine += engine_tokens(tokens, length)
        hit_blocks += use(keys)
    return Hits(hit_tokens, hit_blocks, engine)
