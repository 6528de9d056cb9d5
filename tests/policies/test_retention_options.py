"""Options of retention: wrong ones are named."""

from __future__ import annotations

import pytest

from policies.retention.audiokv import AudioKV
from policies.retention.baklava import BaKlaVa
from policies.retention.corm import CORM
from policies.retention.elastic import ElasticCache
from policies.retention.h2o import H2O
from policies.retention.kvcrush import KVCrush
from policies.retention.lacache import LaCache
from policies.retention.less import LESS
from policies.retention.scissorhands import Scissorhands
from policies.retention.snapkv import SnapKV
from policies.retention.snapstream import SnapStream
from policies.retention.streaming_llm import StreamingLLM
from policies.retention.xkv import XKV
from policies.retention.zigzagkv import ZigZagKV


@pytest.mark.parametrize(
    ("policy", "options", "named"),
    [
        (H2O, {"heavy": 1.5}, "heavy"),
        (H2O, {"heavy": -1}, "heavy"),
        (H2O, {"heavy": True}, "heavy"),
        (H2O, {"heavy": 100, "recent": 0.1}, "recent"),
        (H2O, {"heavy": 0.6, "recent": 0.6}, "recent"),
        (H2O, {"heavy": 0, "recent": 0}, "heavy"),
        (StreamingLLM, {"sinks": -1}, "sinks"),
        (StreamingLLM, {"window": 0}, "window"),
        (StreamingLLM, {"fused_rope": "no"}, "fused_rope"),
        (SnapKV, {"budget": 32}, "budget"),
        (SnapKV, {"window": 0}, "window"),
        (ElasticCache, {"budget": 0}, "budget"),
        (ElasticCache, {"drop": "never"}, "drop"),
        (ElasticCache, {"call": "10 parsecs"}, "call"),
        (LESS, {"heavy": 1.5}, "heavy"),
        (LESS, {"heavy": -2}, "heavy"),
        (LESS, {"recent": 0}, "recent"),
        (LESS, {"sparse": "sliding"}, "sparse"),
        (LESS, {"rank": 0}, "rank"),
        (LESS, {"hidden": 0}, "hidden"),
        (LESS, {"max_positions": 0}, "max_positions"),
        (Scissorhands, {"budget": 0}, "budget"),
        (Scissorhands, {"drop": 0}, "drop"),
        (Scissorhands, {"budget": 100, "recent": 51}, "recent"),
        (CORM, {"window": 0}, "window"),
        (CORM, {"page": 0}, "page"),
        (SnapStream, {"ring": 0}, "ring"),
        (SnapStream, {"slots": "some"}, "slots"),
        (LaCache, {"span": 0}, "span"),
        (LaCache, {"overlap": 16}, "overlap"),
        (KVCrush, {"important": 2}, "important"),
        (XKV, {"budget": 31}, "budget"),
        (ZigZagKV, {"weights": [1]}, "weights"),
        (BaKlaVa, {"head_weights": [0, 0]}, "head_weights"),
        (AudioKV, {"weights": [1, -1]}, "weights"),
        (AudioKV, {"storage": "packed"}, "storage"),
    ],
)
def test_wrong_options_are_named(policy: type, options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}: found .*expected"):
        policy(**options)
