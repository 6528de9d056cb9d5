"""Which blocks leave a tier: what its policy offers, checked as far as it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from hw_profiles.errors import InputError
from policies.base import Block, EvictionPolicy

Broken = Callable[[str], InputError]
"""The error for a policy that breaks its contract in the way that the text says."""


def coldest(policy: EvictionPolicy, need: int, broken: Broken) -> list[Block]:
    """The coldest unpinned blocks that hold `need` bytes; `broken(...)` for a policy that breaks its contract."""
    victims = []
    try:
        for block in policy.victims():
            if not block.pins:
                victims.append(block)
                need -= block.size
                if need <= 0:
                    return victims
    except (AttributeError, TypeError) as error:
        raise broken(f"victims() must yield blocks: {error}") from None
    raise broken(f"victims() ended {need} bytes short although unpinned blocks remain")


def leaves(
    policy: EvictionPolicy, need: int, held: Mapping[int, Block], children: Mapping[int, int], broken: Broken
) -> list[Block] | None:
    """As `coldest`, but only blocks without resident children; None if pinned children keep too much.

    held: resident blocks by key; children: how many of them follow a block, by its key. A block that is skipped for its
    children is taken as soon as the last of them is, since it is colder than all that the policy offers later: no block
    is looked at twice, so skipping is O(1) amortised.
    """
    victims: list[Block] = []
    skipped: dict[int, Block] = {}
    gone: dict[int, int] = {}  # children taken so far, by parent
    for block in _offers(policy, held, broken):
        if block.pins:
            continue
        if children.get(block.key, 0) > gone.get(block.key, 0):
            skipped[block.key] = block
            continue
        leaf: Block | None = block
        while leaf is not None:
            victims.append(leaf)
            need -= leaf.size
            if need <= 0:
                return victims
            parent = held.get(leaf.parent) if leaf.parent is not None else None
            leaf = None
            if parent is not None:
                gone[parent.key] = gone.get(parent.key, 0) + 1
                if parent.key in skipped and children[parent.key] == gone[parent.key]:
                    leaf = skipped.pop(parent.key)
    return None


def _offers(policy: EvictionPolicy, held: Mapping[int, Block], broken: Broken) -> Iterator[Block]:
    """The policy's order, each block checked to be in the tier."""
    seen: set[int] = set()
    try:
        for block in policy.victims():
            if held.get(block.key) is not block:
                raise broken(f"victims() yielded {block}, which is not in the tier")
            if block.key in seen:
                raise broken(f"victims() yielded {block} twice")
            seen.add(block.key)
            yield block
    except (AttributeError, TypeError) as error:
        raise broken(f"victims() must yield blocks: {error}") from None
