"""Block Transformer (NeurIPS 2024; itsnamgyu/block-transformer): table 1, memory per sample and throughput on an H100.

SOURCE: the paper's table 1, read; batches by measure_generation_time.py: the most that fits, with Hugging Face's
generate (a cache that concatenates, logits of the whole prompt).
"""

from __future__ import annotations

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import MOST, Setting

PREFILL_HEAVY, DECODE_HEAVY = (2048, 128), (128, 2048)
VANILLA = (
    # label, model: MB per sample, thousand tokens/s; prefill-heavy and decode-heavy each
    ("vanilla 31M", "pythia-31m", (355.0, 38.5), (10.8, 41.6)),
    ("vanilla 70M", "pythia-70m", (390.0, 76.8), (6.9, 19.1)),
    ("vanilla 160M", "pythia-160m", (675.0, 229.6), (2.3, 6.2)),
    ("vanilla 410M", "pythia-410m", (1140.0, 608.2), (0.8, 2.1)),
)
BLOCK = (
    ("block 33M", "pythia-31m", (25.0, 5.0), (272.3, 809.5)),
    ("block 77M", "pythia-70m", (48.9, 9.9), (175.3, 421.4)),
    ("block 170M", "pythia-160m", (56.3, 29.1), (59.0, 134.7)),
    ("block 420M", "pythia-410m", (105.0, 77.2), (21.0, 44.1)),
    ("block 1.0B", "pythia-1b", (130.2, 102.8), (19.8, 42.5)),
    ("block 1.4B", "pythia-1.4b", (194.2, 153.9), (12.4, 25.7)),
)
ATTENTION = "670 GB/s"
"""Fitted to the four decode-heavy rows of vanilla models: HBM rate at which their attention (GPT-NeoX in eager mode,
heads of 64) would run if it were fused; eager mode then halves it (`hf_concat`). Their steps take about 55 ms, whatever
the model, at about 15 GB of KV."""
FITTED = "rate of the eager attention of GPT-NeoX on an H100, from the vanilla models' decode-heavy rows of this table"
LENGTHS = (("prefill-heavy", PREFILL_HEAVY), ("decode-heavy", DECODE_HEAVY))
EQUAL_LOSS = (("block 1.0B", "pythia-1b"), ("block 1.4B", "pythia-1.4b"))
"""About the loss of the vanilla 410M."""


def setting(model: str, lengths: tuple[int, int], *, block: bool) -> Setting:
    """As many samples as fit an H100."""
    policies: object = {"name": "block_transformer", "block": 4} if block else "full"
    return Setting(
        model,
        "h100-sxm",
        MOST,
        *lengths,
        policies,
        "hf_concat",
        engine={"block_tokens": 4},
        attention=(("bandwidth", ATTENTION),),
    )


def _cells() -> list[tuple[str, Setting, float, float]]:
    return [
        (f"{label}, {name}", setting(model, lengths, block=block), memory[k], rate[k])
        for rows, block in ((VANILLA, False), (BLOCK, True))
        for label, model, memory, rate in rows
        for k, (name, lengths) in enumerate(LENGTHS)
    ]


def _ratio(label: str, k: int) -> float:
    rates = {row[0]: row[3][k] for row in (*VANILLA, *BLOCK)}
    return rates[label] / rates["vanilla 410M"]


GAINS = tuple(
    Figure(
        f"{label} over vanilla 410M, {name}",
        _ratio(label, k),
        "x",
        (setting("pythia-410m", lengths, block=False), setting(model, lengths, block=True)),
        lambda vanilla, block: block.tokens_per_s / vanilla.tokens_per_s,
    )
    for label, model in (("block 420M", "pythia-410m"), *EQUAL_LOSS)
    for k, (name, lengths) in enumerate(LENGTHS)
)
WHERE = "H100, HF generate, as many samples as fit, 2048 + 128 (prefill-heavy) or 128 + 2048 tokens"
TABLES = (
    Table("block_transformer", "table 1, gains", "R", WHERE, GAINS, "calibrated", FITTED, quick=True),
    Table(
        "block_transformer",
        "table 1, throughput",
        "R",
        WHERE,
        tuple(Figure(name, rate, "ktok/s", (s,), lambda m: m.tokens_per_s / 1e3) for name, s, _, rate in _cells()),
        "calibrated",
        FITTED,
        "prefill-heavy rows are 1.2 to 1.6 times too fast, blocks and vanilla alike: more samples fit here (table "
        "below), and prompts run with fused attention",
    ),
    Table(
        "block_transformer",
        "table 1, memory per sample",
        "R",
        WHERE,
        tuple(
            Figure(name, memory, "MB", (s,), lambda m: m.per_sequence_bytes / 1e6) for name, s, memory, _ in _cells()
        ),
    ),
)
