"""Where a number about attention comes from, so that a comparison with the same paper is called calibrated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["fitted", "published table", "assumed", "recorded"]


@dataclass(frozen=True)
class Fact:
    """A statistic that a provider answers from.

    quantity  the question of the protocol that it serves: recalls, keys_for, hit_ratio, coverage, new_fraction
    value     what the paper says, or what is assumed
    source    paper and figure, and how it was read
    kind      fitted: a parameter was chosen so that this comes out. published table: answered as printed
    system    the system whose paper it is: figures of that system are then calibrated where the quantity matters
    """

    quantity: str
    value: str
    source: str
    kind: Kind
    system: str | None = None


RECALLS = Fact(
    "recalls",
    "60 recalls per step in 32 layers at 16 selected and 16 cached pages, to 0.2 at 128 cached",
    "ArkVale (NeurIPS'24) Fig. 4b, read: LongChat-7B on LongBench, pages of 32; less 1.0 for the page that fills",
    "fitted",
    "arkvale",
)
MASS = Fact(
    "coverage",
    "99 % of attention in fewer than 10 pages of 32 tokens",
    "ArkVale (NeurIPS'24) Fig. 3, read; all but the first layers",
    "fitted",
    "arkvale",
)
KEYS = Fact(
    "keys_for",
    "80, 146, 160, 164 keys hold 0.9 of attention at queries 500, 1000, 1500, 2000",
    "InfiniGen (OSDI'24), figure on cumulative attention, from secondary notes; as at 2000 beyond",
    "published table",
    "infinigen",
)
TAIL = Fact("keys_for", "320 keys hold 0.99", MASS.source, "fitted", "arkvale")
HITS = Fact(
    "hit_ratio",
    "0.6 of selected tokens are in a cache of 4096 tokens in blocks of 128",
    "PQCache (SIGMOD'25), from secondary notes; selected 1/10 of 16000 tokens: the authors' test_latency.py, read",
    "fitted",
    "pqcache",
)
FRESH = Fact(
    "new_fraction",
    "0.55 of selected tokens were not selected a step before",
    "arXiv 2603.13430, from secondary notes; that a tenth of the context is selected is assumed",
    "fitted",
    "dsa",
)
LAYERS = Fact(
    "layer_overlap",
    "0.36 of selected tokens are selected by the layer before too",
    FRESH.source,
    "fitted",
    "dsa",
)
GUESS = Fact(
    "guessed",
    "0.9 of the keys that hold 0.9 of attention are found when 20 % are fetched on a guess",
    "after InfiniGen's limit of 20 % of the context; the ratio of 0.9 is assumed",
    "assumed",
    "infinigen",
)
REGION = Fact("hit_ratio", "relevance is alike over 128 tokens", "nobody has published it", "assumed")
