"""Blocks on their way from one tier to another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress

from policies.base import AdmissionPolicy, Block
from sim.hierarchy.sizes import joined
from sim.hierarchy.tier import NOTHING, Tier


class Copies:
    """Blocks that are copied together, their copies in the other tier, and which of their tokens go there.

    starts   tokens of each that the copy has already, or is receiving
    ends     tokens of each that the copy has when these have arrived (it may be growing further by then)
    rests    where a copy is larger: of each block, the last part of the copy, those before it that are not leaving
    """

    __slots__ = ("blocks", "copies", "ends", "grow", "rests", "starts", "tokens")

    def __init__(
        self,
        blocks: list[Block],
        copies: list[Block],
        starts: list[int],
        ends: list[int],
        rests: list[Sequence[Block]] | None,
    ) -> None:
        self.blocks = blocks
        self.copies = copies
        self.starts = starts
        self.ends = ends
        self.rests = rests
        had = sum(starts)
        self.tokens = sum(ends) - had
        """Tokens that are copied."""
        self.grow = had > 0
        """True if a copy was there before."""

    @property
    def grown(self) -> list[Block]:
        """Copies that were there before."""
        return list(compress(self.copies, self.starts))

    def sizes(self, token_bytes: int) -> list[int]:
        """Bytes that are copied of each."""
        return [(end - start) * token_bytes for start, end in zip(self.starts, self.ends, strict=True)]

    def pageable(self) -> list[int]:
        """Bytes that are copied of each into memory that is not page-locked: as much of a part as of its block."""
        parts = zip(self.copies, self.starts, self.ends, strict=True)
        return [copy.pageable * (end - start) // copy.tokens for copy, start, end in parts]

    def kept(self, leaving: bool) -> list[Block]:
        """The blocks that are copied from, in their order (a larger one from its end), less what is `leaving`."""
        if self.rests is None:
            return [] if leaving else self.blocks
        rests = zip(self.blocks, self.rests, strict=True)
        return [each for block, rest in rests for each in (rest if leaving else (block, *rest))]

    def where(self, chosen: Iterable[bool]) -> Copies:
        """Those of them that are chosen, in order."""
        chosen = list(chosen)
        blocks, copies = (list(compress(each, chosen)) for each in (self.blocks, self.copies))
        starts, ends = (list(compress(each, chosen)) for each in (self.starts, self.ends))
        return Copies(blocks, copies, starts, ends, self.rests and list(compress(self.rests, chosen)))

    def land(self) -> None:
        """They have arrived. Children are released before their parents, so the lists turn round."""
        if self.grow:
            for copy, start, end in zip(self.copies, self.starts, self.ends, strict=True):
                land(copy, start, end)
        else:
            for copy, end in zip(self.copies, self.ends, strict=True):
                if copy.ready or copy.parts:
                    land(copy, 0, end)
                else:
                    copy.ready = end
        self.blocks.reverse()
        self.copies.reverse()
        if self.rests is not None:
            self.rests.reverse()


def land(copy: Block, start: int, end: int) -> None:
    """Tokens have arrived. Parts on different links may overtake each other: only what follows on is ready."""
    if copy.ready == start and not copy.parts:
        copy.ready = end
        return
    copy.parts = sorted([*(copy.parts or ()), (start, end)])
    while copy.parts and copy.parts[0][0] <= copy.ready:
        copy.ready = max(copy.ready, copy.parts.pop(0)[1])


def lacking(
    blocks: Sequence[Block],
    source: Tier,
    target: Tier,
    admission: AdmissionPolicy | None,
    evicted: Sequence[Block],
    token_bytes: int,
) -> Copies:
    """What of blocks of one tier another one admits and does not hold yet, in order; new copies have one pin.

    evicted: blocks that are just leaving the source.
    """
    held, grain, spans, larger = target.blocks, target.block_tokens, target.span > 1, target.span > source.span
    if admission is None and not (spans or larger or source.block_tokens % grain):
        whole = _all_of(blocks, held, token_bytes)
        if whole is not None:
            return whole
    wanted: list[Block] = []
    copies: list[Block] = []
    starts: list[int] = []
    ends: list[int] = []
    rests: list[Sequence[Block]] | None = [] if larger else None
    rest = NOTHING
    for block in blocks:
        key, tokens = block.key, block.tokens
        copy, end = held.get(key), tokens - tokens % grain
        if copy is None:
            made = block
            if larger:
                found = joined(block, grain, source, evicted)
                if found is None:
                    continue
                (made, rest), end = found, grain
            if (admission is not None and not admission.admit(block)) or not end:
                continue
            copy = Block(key, made.start, end, end * token_bytes, 0, made.parent, block.turn)
            copy.pins = 1
            if spans:
                copy.members = made.members
            starts.append(0)
        elif copy.tokens < end and copy.waiters is None:  # what is being fetched does not grow meanwhile
            starts.append(copy.tokens)
            rest = NOTHING
        else:
            continue
        wanted.append(block)
        copies.append(copy)
        ends.append(end)
        if rests is not None:
            rests.append(rest)
    return Copies(wanted, copies, starts, ends, rests)


def _all_of(blocks: Sequence[Block], held: Mapping[int, Block], token_bytes: int) -> Copies | None:
    """New copies of whole blocks, which is what most stores are; None if one of them is held already."""
    copies: list[Block] = []
    ends: list[int] = []
    for block in blocks:
        key, tokens = block.key, block.tokens
        if key in held:
            return None
        copy = Block(key, block.start, tokens, tokens * token_bytes, 0, block.parent, block.turn)
        copy.pins = 1
        copies.append(copy)
        ends.append(tokens)
    return Copies(list(blocks), copies, [0] * len(ends), ends, None)
