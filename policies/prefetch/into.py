"""The tier that a prefetch policy's `into` option names."""

from __future__ import annotations

from hw_profiles.errors import InputError
from policies.base import CacheView


def level_of(into: str | None, cache: CacheView) -> int | None:
    """Place of the tier `into` (None: the one behind HBM) among the tiers; None if no tier lies behind it, or if it
    has no size.

    Raises InputError for a tier that does not exist.
    """
    tiers = list(cache.tiers)
    if into is not None and into not in tiers:
        try:
            cache.capacity(into)
        except KeyError:
            text = "no such tier to prefetch into"
            raise InputError(text, path="policies.prefetch.into", found=into, allowed=tiers, near=tiers) from None
        return None
    level = 1 if into is None else tiers.index(into)
    return level if level < len(tiers) - 1 else None
