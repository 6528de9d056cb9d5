"""Which part of a prompt lies in which tier, and what a load of it moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import inf
from typing import NamedTuple

from policies.base import Block
from sim.engine.sequence import Sequence as Seq
from sim.hierarchy.mover import Load
from sim.hierarchy.offload import Costs
from sim.hierarchy.tier import Tier


class Found(NamedTuple):
    """A block that a lookup found: the tier (0 is HBM), the copy there, and the tokens of it that the request uses."""

    level: int
    block: Block
    tokens: int


class Prefix(NamedTuple):
    """What a lookup found of a prompt from its start on: the blocks, their tokens, and those that HBM does not have."""

    found: list[Found]
    tokens: int
    behind: int


NOTHING_FOUND = Prefix([], 0, 0)


def _in_hbm(found: list[Found]) -> Prefix:
    """The prefix as far as HBM has it without a gap."""
    here = next((place for place, each in enumerate(found) if each.level), len(found))
    return Prefix(found[:here], sum(each.tokens for each in found[:here]), 0)


def count_hits(seq: Seq, found: list[Found], hit: int) -> None:
    """Count what is reused for the first time: after a preemption, only what the sequence did not have before."""
    reached = seq.reached
    if hit <= reached:
        return
    end, hits = 0, seq.hit_tokens
    for level, _, tokens in found:
        end += tokens
        if end > reached:
            hits[level] += min(tokens, end - reached)
    seq.reached = hit


_found: Callable[[tuple[int, Block, int]], Found] = partial(tuple.__new__, Found)  # sooner than Found(...)


class Lookup:
    """Looks prompts up in the tiers of a replica, HBM first; the arguments are those of `ReplicaCache`."""

    def __init__(
        self,
        tiers: Sequence[Tier],
        *,
        hash_tokens: int,
        block_tokens: int,
        token_bytes: int,
        choose: Costs | None,
        least: int = 0,
    ) -> None:
        self._least = least
        self._reach: int | None = None
        self._tiers = tiers
        self._hash_tokens = hash_tokens
        self._block_tokens = block_tokens
        self._token_bytes = token_bytes
        self._choose = choose
        same_sizes = all(tier.block_tokens <= block_tokens for tier in tiers)
        self._nearest = self._nearest_alike if same_sizes else self._nearest_sized

    def reach(self, level: int | None) -> None:
        """From now on tiers behind the level are not looked into: only fetches bring what they have. None: all are."""
        self._reach = level

    def prefix(self, seq: Seq, full: int) -> Prefix:
        """The longest cached prefix over all tiers in reach, each block from the nearest tier that has it. full: tokens
        of the prompt in whole engine blocks that carry a hash.

        At most floor((known - 1) / block_tokens) engine blocks, so at least one token is left to compute
        (vLLM: KVCacheManager.get_computed_blocks).
        """
        limit = (seq.known - 1) // self._block_tokens * self._block_tokens
        keys, prompt, hash_tokens, hbm = seq.keys, min(full, limit), self._hash_tokens, self._tiers[0].blocks
        found: list[Found] = []
        start = behind = 0
        for key in (*keys, -1 - seq.index):
            want = limit - start if key < 0 else prompt - start
            if want > hash_tokens and key >= 0:
                want = hash_tokens
            if want <= 0:
                break
            near = hbm.get(key)
            if near is not None and near.start == start and near.tokens >= want:  # HBM has it all
                found.append(_found((0, near, want)))
                start += want
                continue
            hit = self._nearest(key, keys, start, want, full, self._reach, seq.fetch_level is None)
            if hit is None:
                break
            level, _, tokens = hit
            found.append(hit)
            start += tokens
            if level:
                behind += tokens
            if tokens < want:
                break
        if 0 < behind < self._least:
            return _in_hbm(found)
        prefix = Prefix(found, start, behind)
        return self._worth(prefix, self._choose) if behind and self._choose is not None else prefix

    def cached_tokens(self, keys: Sequence[int], level: int | None = None) -> int:
        """Tokens of the prompt with these blocks that a request would find now, in tiers up to `level` (None: all in
        reach)."""
        start = 0
        if level is None:
            level = self._reach
        full = len(keys) * self._hash_tokens
        for key in keys:
            hit = self._nearest(key, keys, start, self._hash_tokens, full, level, True)
            start += hit.tokens if hit else 0
            if hit is None or hit.tokens < self._hash_tokens:
                break
        return start

    def _worth(self, prefix: Prefix, costs: Costs) -> Prefix:
        """As much of the prefix as makes load + recompute seconds least (links idle).

        Within one tier the sum is concave in the place of the cut, since a token is the dearer to compute the more
        come before it: the best cut lies where the tier changes, or at an end.
        """
        found, total, _ = prefix
        ends, start = [], 0
        for f in found:
            start += f.tokens
            ends.append(start)
        cuts = [i for i, f in enumerate(found) if f.level and (not i or found[i - 1].level != f.level)]
        best, least = len(found), inf
        for cut in (len(found), *reversed(cuts)):
            kept = ends[cut - 1] if cut else 0
            seconds = 0.0
            for level in dict.fromkeys(f.level for f in found[:cut] if f.level):
                size = sum(size for _, size in self.moved(found[:cut], level))
                seconds += costs.load_s(self._tiers[level].name, size)
            seconds += costs.recompute_s(kept, total - kept) if kept < total else 0.0
            if seconds < least:
                best, least = cut, seconds
        first = found[:best]
        return Prefix(first, ends[best - 1] if best else 0, sum(f.tokens for f in first if f.level))

    def moved(self, found: list[Found], level: int) -> Iterator[tuple[Block, int]]:
        """The blocks of a tier that were found, each once, and the bytes that it moves for them: whole blocks of its
        own."""
        last = None
        for at, block, tokens in found:
            if at == level and block is not last:
                last = block
                yield block, self.size_of(level, block, tokens)

    def size_of(self, level: int, block: Block, tokens: int) -> int:
        """Bytes that a tier moves for so many tokens of a block there."""
        tier = self._tiers[level]
        grain = tier.block_tokens
        return block.size if tier.span > 1 else -(-tokens // grain) * grain * self._token_bytes

    def loads(self, found: list[Found], targets: list[Block]) -> dict[int, list[Load]]:
        """The loads from each tier behind HBM that has some, with the HBM blocks that they fill."""
        loads: dict[int, list[Load]] = {}
        sources: dict[int, Block] = {}
        for (level, block, tokens), target in zip(found, targets, strict=True):
            if not level:
                continue
            if sources.get(level) is block:
                loads[level][-1].targets.append(target)
                continue
            sources[level] = block
            load = Load(block, [target], self.size_of(level, block, tokens))
            if level in loads:
                loads[level].append(load)
            else:
                loads[level] = [load]
        return loads

    def _nearest_alike(
        self, key: int, _keys: Sequence[int], start: int, want: int, _full: int, most: int | None, waits: bool
    ) -> Found | None:
        """The nearest tier, up to the level `most`, that has (or is receiving) the most tokens of the block with this
        prefix.

        In HBM a block on its way is waited for; further away one that is being fetched is (not one being stored), but
        with `waits` false only what of it has arrived counts: a request does not wait for a fetch of its own.
        """
        best: Found | None = None
        tiers = self._tiers if most is None else self._tiers[: most + 1]
        for level, tier in enumerate(tiers):
            block = tier.blocks.get(key)
            if block is None:
                continue
            if block.start != start:
                break  # an id that is not chained: another prefix came before it
            coming = block.waiters is not None
            held = block.ready if level and not (coming and waits) else block.tokens
            tokens = min(held, want)
            if tokens > (best.tokens if best else 0):
                best = Found(level, block, tokens)
            if tokens == want or (block.pins if level == 0 else coming):
                break  # all of it, or in use and perhaps growing, or not to be fetched twice
        return best

    def _nearest_sized(
        self, key: int, keys: Sequence[int], start: int, want: int, full: int, most: int | None, waits: bool
    ) -> Found | None:
        """As `_nearest_alike`, where tiers have blocks of their own sizes: one of them counts if the prompt, of which
        `keys` name `full` tokens, has all of it."""
        best: Found | None = None
        for level, tier in enumerate(self._tiers if most is None else self._tiers[: most + 1]):
            first, reach, end = start, want, key
            if tier.span > 1 and key >= 0:
                first -= start % tier.block_tokens
                last = first + tier.block_tokens
                if last > full:
                    continue
                end = keys[last // self._hash_tokens - 1]
            elif key >= 0:
                reach = (full - start) // tier.block_tokens * tier.block_tokens
            block = tier.blocks.get(end)
            if block is None:
                continue
            if block.start != first:
                break
            coming = block.waiters is not None
            held = block.ready if level and not (coming and waits) else block.tokens
            tokens = min(held - (start - first), want, reach)
            if tokens > (best.tokens if best else 0):
                best = Found(level, block, tokens)
            if tokens == want or (block.pins if level == 0 else coming):
                break
        return best
