"""The size of a block of each tier, checked against the tier before it and the trace."""

from __future__ import annotations

from hw_profiles.errors import InputError
from sim.spec import ScenarioSpec


def block_sizes(spec: ScenarioSpec, hash_tokens: int) -> dict[str, int]:
    """Tokens of one block of each tier, by name: its own, or those of the tier before it (tiers of no size are none).

    hash_tokens: tokens behind one hash of the trace, 0 if it has none. Raises InputError for a size that is no multiple
    of the one before, or that the trace cannot tell apart.
    """
    sizes: dict[str, int] = {}
    before = spec.engine.block_tokens
    for tier in spec.tiers:
        own = before if tier.block_tokens is None else tier.block_tokens
        path = f"{tier.name}.block_tokens"
        if tier.name == "hbm" and own != before:
            raise InputError("the GPU's blocks are those of the engine", path=path, found=own, allowed=f"{before}")
        if own % before:
            problem = "a block must be a whole number of blocks of the tier before"
            raise InputError(problem, path=path, found=own, allowed=f"a multiple of {before}")
        if hash_tokens and own % hash_tokens and hash_tokens % own:
            problem = "a block must be a part or a multiple of what one hash of the trace names"
            raise InputError(problem, path=path, found=own, allowed=f"a divisor or a multiple of {hash_tokens}")
        sizes[tier.name] = own
        if tier.capacity != 0:
            before = own
    return sizes
