"""Hash ids as array indices: first uses and counts in linear time, also for tens of millions of blocks."""

from __future__ import annotations

import numpy as np

from traces.request import Ints

SPARE = 1 << 20  # a table may have this many unused rows whatever the trace


def numbered(ids: Ints) -> tuple[Ints, int]:
    """(codes, size): `ids` as numbers from 0 to size - 1, equal where ids are equal.

    Ids that count up, as nearly all traces have, are their own codes; only scattered ones are sorted.
    """
    top = int(ids.max()) + 1 if len(ids) else 0
    if top <= 2 * len(ids) + SPARE and (not len(ids) or int(ids.min()) >= 0):
        return ids, top
    distinct, codes = np.unique(ids, return_inverse=True)
    return codes.reshape(-1).astype(np.int64), len(distinct)


def first_table(codes: Ints, size: int, values: Ints) -> Ints:
    """int64[size]: the least of `values` at each code, 2**63 - 1 where a code is not used."""
    table = np.full(size, np.iinfo(np.int64).max)
    np.minimum.at(table, codes, values)
    return table


def first_places(ids: Ints) -> Ints:
    """int64[len(ids)]: for every place, the first place that holds the same id."""
    codes, size = numbered(ids)
    return first_table(codes, size, np.arange(len(ids)))[codes]
