"""Points of attention: paged decode by batch, context, heads, page and format; MLA; prefill after a prefix."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from calibration.suite.facts import Facts
from calibration.suite.point import Costs, Key, Point, point

BATCHES, CONTEXTS = (1, 4, 16, 64, 256), (128, 512, 2048, 8192, 32768, 131072)
HEADS = ((32, 8), (64, 8), (32, 32))
"""(query heads, KV heads): grouped by 4 and by 8, and none shared."""
SOME = ((1, 8192), (16, 2048), (64, 2048), (64, 8192), (256, 2048))
"""(batch, context) where pages and formats are compared."""
PAGES, FORMATS = (64, 256), (("int8", 16), ("fp8", 16), ("int4", 16), ("int2", 64))
SOME_MORE, FORMATS_HELDOUT = ((4, 2048), (4, 512), (4, 32768)), ((16, 2048), (4, 32768))
HELDOUT = (
    *((2, 1024), (8, 256), (8, 4096), (32, 1024), (32, 16384), (128, 512)),
    *((128, 4096), (2, 65536), (48, 3000), (5, 7000), (100, 1500), (17, 20000)),
)
BYTES_PER_NUMBER = {"bf16": 2.0, "int8": 1.02, "fp8": 1.02, "int4": 0.54, "int2": 0.38}
KV_SHARE = 0.25
"""Largest cache measured, as a share of the device memory that is free."""
SKEWS = ("even", "uniform", "bimodal", "one_long", "geometric")
MLA, MLA_HELDOUT = tuple(itertools.product((1, 8, 64, 256), (512, 4096, 32768))), ((4, 2048), (32, 1024), (128, 8192))
MLA_MOST_TOKENS = 4 << 20
NEW, PREFIXES = (128, 512, 2048, 8192), (0, 2048, 8192, 32768)
PREFILL_HELDOUT = ((300, 1000), (1024, 4096), (4096, 0), (700, 20000), (1536, 16384), (3000, 3000))
HEAD_DIM, LATENT = 128, 576


def decode_bytes(batch: int, seq: int, kv_heads: int, form: str = "bf16", head_dim: int = HEAD_DIM) -> float:
    """Keys and values of one layer, read by one step."""
    return batch * seq * kv_heads * head_dim * 2 * BYTES_PER_NUMBER[form]


def decode_points(costs: Costs, facts: Facts) -> Iterator[Point]:
    """Cold: rotating page tables and a flush see to it."""

    def one(
        heads: int, kv_heads: int, page: int, form: str, batch: int, seq: int, priority: int = 1
    ) -> Iterator[Point]:
        nbytes = decode_bytes(batch, seq, kv_heads, form)
        if nbytes > KV_SHARE * facts.free_bytes:
            return
        held = (batch, seq) in (HELDOUT if form == "bf16" else FORMATS_HELDOUT)
        seconds = 2 * costs.launch + nbytes / costs.hbm * (1.0 if form == "bf16" else 1.6)
        key: Key = {"format": form, "heads": heads, "kv_heads": kv_heads, "page": page, "batch": batch, "seq": seq}
        yield point(costs, "decode", seconds, key, heldout=held, priority=priority)

    for (heads, kv_heads), batch, seq in itertools.product(HEADS, BATCHES, CONTEXTS):
        yield from one(heads, kv_heads, 16, "bf16", batch, seq, priority=int((heads, kv_heads) != HEADS[0]))
    for batch, seq in HELDOUT:
        yield from one(*HEADS[0], 16, "bf16", batch, seq)
    for page, (batch, seq) in itertools.product(PAGES, SOME):
        yield from one(*HEADS[0], page, "bf16", batch, seq, priority=2)
    for (form, page), (batch, seq) in itertools.product(FORMATS, (*SOME, *SOME_MORE)):
        if form != "fp8" or facts.fp8:
            yield from one(*HEADS[0], page, form, batch, seq)


def skew_points(costs: Costs) -> Iterator[Point]:
    """Batches with the same number of tokens, spread differently over the sequences."""
    for skew, batch in itertools.product(SKEWS, (8, 32)):
        seconds = 2 * costs.launch + decode_bytes(batch, 4096, 8) / costs.hbm
        yield point(costs, "decode_skew", seconds, {"skew": skew, "batch": batch, "seq": 4096}, priority=2)


def skewed(name: str, batch: int, mean: int) -> list[int]:
    """Lengths of a batch that sum to batch x mean: even; uniform from 0 to 2 x mean; half short and half long; one that
    holds half of all tokens; each 0.7 times the one before."""
    total = batch * mean
    weights = {
        "even": [1.0] * batch,
        "uniform": [i + 0.5 for i in range(batch)],
        "bimodal": [1.0 if i % 2 else 0.1 for i in range(batch)],
        "one_long": [float(batch - 1), *[1.0] * (batch - 1)],
        "geometric": [0.7**i for i in range(batch)],
    }[name]
    lengths = [max(1, int(total * weight / sum(weights))) for weight in weights]
    lengths[0] += total - sum(lengths)
    return lengths


def mla_points(costs: Costs, facts: Facts, heads: int = 128) -> Iterator[Point]:
    """A latent of 512 + 64 numbers per token, all heads."""
    for batch, seq in (*MLA, *MLA_HELDOUT):
        nbytes = batch * seq * LATENT * 2.0
        if batch * seq > MLA_MOST_TOKENS or nbytes > KV_SHARE * facts.free_bytes:
            continue
        seconds = 2 * costs.launch + max(nbytes / costs.hbm, 4 * heads * LATENT * batch * seq / (0.4 * costs.attention))
        held = (batch, seq) in MLA_HELDOUT
        yield point(costs, "mla", seconds, {"heads": heads, "batch": batch, "seq": seq}, heldout=held)


def prefill_points(costs: Costs) -> Iterator[Point]:
    """Our kernel, and torch's beside it where there is no prefix to page in."""
    for tokens, prefix in (*itertools.product(NEW, PREFIXES), *PREFILL_HELDOUT):
        held = (tokens, prefix) in PREFILL_HELDOUT
        flops = 4 * 32 * HEAD_DIM * tokens * (prefix + tokens / 2)
        for impl in ("triton", "sdpa"):
            seconds = costs.launch + flops / costs.attention
            key: Key = {"impl": impl, "heads": 32, "kv_heads": 8, "tokens": tokens, "prefix": prefix}
            priority = 0 if impl == "triton" else 3
            yield point(costs, "prefill", seconds, key, heldout=held, samples=8, priority=priority)
