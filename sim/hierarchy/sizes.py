"""Blocks of different sizes: larger ones are made of those of the tier before, and cut up on their way back.

A tier's `block_tokens` is a multiple of that of the tier before it (an LMCache chunk of 256 tokens, say, behind engine
blocks of 16). Up to a hash of the trace, its blocks are those of the trace, holding whole multiples of `block_tokens`.
Beyond, a block spans several hashes and goes by the key of its last one, which names the whole prefix up to there.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.base import Block
from sim.hierarchy.tier import Tier


def joined(last: Block, tokens: int, tier: Tier, leaving: Sequence[Block]) -> tuple[Block, list[Block]] | None:
    """The block of `tokens` tokens (empty yet) that ends with `last`, and the others of `tier` that it is made of.

    Those of its parts that have just been evicted from the tier (`leaving`) are not among the others. None if no larger
    block ends there, or if not all of it is here.
    """
    if (last.start + last.tokens) % tokens:
        return None
    gone = {block.key: block for block in leaving}
    others: list[Block] = []
    members = last.members or (last.key,)
    first = last
    while first.start % tokens:
        before = None
        if first.parent is not None:
            before = tier.blocks.get(first.parent) or gone.get(first.parent)
        if before is None or before.start + before.ready != first.start:
            return None
        members = (*(before.members or (before.key,)), *members)
        if before.key not in gone:
            others.append(before)
        first = before
    whole = Block(last.key, first.start, 0, 0, 0, first.parent, last.turn)
    whole.members = members
    return whole, others


def cut(source: Block, tier: Tier, size: int) -> list[Block]:
    """Blocks of `tier`, not in it yet, for the first `size` bytes of a block of a tier behind it."""
    token_bytes = source.size // source.tokens
    tokens = size // token_bytes
    if source.members is None or tier.span == len(source.members):
        copies = [Block(source.key, source.start, tokens, size, 0, source.parent, source.turn)]
        copies[0].members = source.members
        return copies
    copies, parent = [], source.parent
    each = source.tokens // len(source.members) * tier.span
    for number, key in enumerate(tier.cut(source)):
        copy = Block(key, source.start + number * each, each, each * token_bytes, 0, parent, source.turn)
        if tier.span > 1:
            copy.members = source.members[number * tier.span : (number + 1) * tier.span]
        copies.append(copy)
        parent = key
    return copies
