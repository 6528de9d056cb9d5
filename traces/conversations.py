"""Which request of a conversation follows which, where a format names conversations but not the order in them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from traces.request import Floats, Ints


class Links(NamedTuple):
    """The columns `turns`, `after` and `delay_s` of a Trace, for n requests in any order."""

    turns: Ints
    after: Ints
    delay_s: Floats


def by_session(session_ids: Ints, arrival_s: Floats, ended_s: Floats | None = None) -> Links:
    """The requests of each session one after the other, in order of arrival (ties: as given).

    `session_ids` int64[n], -1 for a request of no session; `arrival_s` float64[n]; `ended_s` float64[n], NaN where
    unknown: when each request had ended. A delay is arrival - end of the request before, 0 where the next one came
    earlier than that, NaN where the end is unknown.
    """
    n = len(session_ids)
    order = np.lexsort((arrival_s, session_ids))  # stable
    owner = session_ids[order]
    follows = np.concatenate(([False], (owner[1:] == owner[:-1]) & (owner[1:] >= 0))) if n else np.zeros(0, bool)
    place = np.arange(n)
    first = np.maximum.accumulate(np.where(follows, 0, place))  # place of the first request of the session
    turns, after, delay_s = np.full(n, -1), np.full(n, -1), np.full(n, np.nan)
    turns[order] = np.where(owner >= 0, place - first, -1)
    later, before = order[follows], order[np.flatnonzero(follows) - 1]
    after[later] = before
    if ended_s is not None:
        delay_s[later] = np.maximum(arrival_s[later] - ended_s[before], 0.0)
    return Links(turns, after, delay_s)
