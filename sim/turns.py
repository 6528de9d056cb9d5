"""Prefix reuse by turn of the conversation: what summary.json holds under prefix.turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST_TURNS = 12
"""Rows at most; the last one holds all later turns too."""


def by_turn(columns: Mapping[str, np.ndarray], finished: np.ndarray, tiers: Sequence[str]) -> list[dict[str, Any]]:
    """Requests, prompt tokens and reused tokens by turn, first turn 1; empty where the trace has no conversations.

    Args: columns as int64[requests] by the names of the request table; finished: bool[requests].
    """
    turns = columns["turn"]
    if not (finished & (turns > 0)).any():
        return []
    last = min(MOST_TURNS, int(turns.max()) + 1)
    rows = []
    for turn in range(last):
        chosen = finished & ((turns >= turn) if turn == last - 1 else (turns == turn))
        rows.append(
            {
                "turn": turn + 1,
                "and_later": bool(turn == last - 1 and (turns > turn).any()),
                "requests": int(chosen.sum()),
                "input_tokens": int(columns["input_tokens"][chosen].sum()),
                "hit_tokens": {name: int(columns[f"hit_{name}_tokens"][chosen].sum()) for name in tiers},
            }
        )
    return rows
