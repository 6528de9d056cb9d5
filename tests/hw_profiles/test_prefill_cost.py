"""Prefill attention: what is moved by KV heads, L2 that overflows, contexts that are split, tables by name."""

from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.cost_models import DecodeModel, GemmModel
from hw_profiles.loader import load_profile
from hw_profiles.prefill_cost import PrefillMemory, PrefillModel, prefill_flops
from hw_profiles.residual import Residual

MOVED = PrefillMemory(per_kv=4e-10, per_write=4e-9)
MODEL = PrefillModel(1e-5, 8e-9, 7e14, per_context=8e-9, memory=MOVED)


def flops(tokens: float, prefix: float = 0.0, heads: int = 32) -> float:
    return prefill_flops(tokens, prefix, heads, 128)


def test_keys_and_values_cost_by_kv_head() -> None:
    tokens, work = 4096.0, flops(4096.0)
    eight, thirty_two = (replace(MODEL, kv_heads=count).seconds(tokens, work) for count in (8, 32))
    assert thirty_two - eight == pytest.approx(24 * 4e-10 * tokens)


def test_a_token_is_written_by_at_most_512_threads() -> None:
    alone = replace(MODEL, memory=PrefillMemory(per_write=4e-9))
    one, four, sixteen = (replace(alone, kv_heads=count).seconds(1000.0, flops(1000.0)) for count in (1, 4, 16))
    assert four - one == pytest.approx(0.75 * 4e-9 * 1000)
    assert sixteen == four


def test_what_fits_in_l2_is_cheaper() -> None:
    """100 MB of it here: 128 x (4 x 32 + 8 x 8) bytes per token, so up to 4,069 tokens."""
    warm = replace(MODEL, memory=replace(MOVED, warm=0.25, warm_bytes=1e8))
    per_token, written = 8e-9 + 8 * 4e-10, 4e-9
    base = replace(MODEL, memory=PrefillMemory(), per_token=0.0)
    for tokens, share in ((2000.0, 0.25), (1.5 * 1e8 / (128 * 192), 0.625), (10000.0, 1.0)):
        expected = base.seconds(tokens, flops(tokens)) + tokens * (share * per_token + written)
        assert warm.seconds(tokens, flops(tokens)) == pytest.approx(expected)


def test_few_tiles_are_split_and_merged() -> None:
    """132 tiles of 128 query rows: 528 tokens of 32 heads. Split contexts have no long tile, but are merged."""
    split = replace(MODEL, memory=replace(MOVED, split=6e-6, per_split=5e-8, split_tiles=132))
    below, above = 528.0, 529.0
    assert split.seconds(above, flops(above)) == MODEL.seconds(above, flops(above))
    no_span = replace(MODEL, per_context=0.0)
    expected = no_span.seconds(below, flops(below)) + 6e-6 + 5e-8 * below
    assert split.seconds(below, flops(below)) == pytest.approx(expected)
    assert split.seconds(64.0, flops(64.0)) == MODEL.seconds(64.0, flops(64.0))  # a context of one part
    assert split.seconds(64.0, flops(64.0, 4096)) != MODEL.seconds(64.0, flops(64.0, 4096))  # many after a prefix


@pytest.mark.parametrize(
    "axes",
    [
        (("heads", (8.0, 32.0)), ("tokens", (64.0, 4096.0)), ("context", (64.0, 8192.0)), ("group", (1.0, 4.0))),
        (("tokens", (64.0, 4096.0)), ("context", (64.0, 8192.0)), ("group", (1.0, 4.0))),
        (("heads", (8.0, 32.0)), ("tokens", (64.0, 4096.0)), ("context", (64.0, 8192.0))),
    ],
)
def test_tables_are_asked_by_name(axes: tuple[tuple[str, tuple[float, ...]], ...]) -> None:
    size = 2 ** len(axes)
    table = Residual(axes, tuple(1.0 + 0.05 * number for number in range(size)))
    moved = replace(MOVED, warm=0.4, warm_bytes=3e7, split=6e-6, per_split=5e-8, split_tiles=132)
    tokens = np.array([100.0, 512.0, 700.0, 8192.0])
    for kv_heads in (8, 32):
        model = replace(MODEL, residual=table, kv_heads=kv_heads, memory=moved)
        work = np.array([flops(x) for x in tokens])
        assert model.seconds(tokens, work).tolist() == [model.seconds(*x) for x in zip(tokens, work, strict=True)]
    plain = replace(MODEL, residual=table)
    where = {"heads": 32.0, "tokens": 512.0, "context": 256.0, "group": 4.0}
    ratio = table.at(*(where[name] for name in table.names))
    assert plain.seconds(512.0, flops(512.0)) == pytest.approx(ratio * MODEL.seconds(512.0, flops(512.0)))


def test_products_by_area_and_decode_by_kv_heads() -> None:
    area = Residual((("area", (1e4, 1e6)), ("n", (256.0, 4096.0)), ("k", (4096.0,))), (1.0, 1.1, 1.2, 1.3))
    gemm = GemmModel(4e-6, 3e12, 8e14, 3.0, area, tile_rows=64)
    plain = replace(gemm, residual=None)
    args = (4e7, 2.0 * 100 * 4096 * 4096, (100, 4096, 4096))
    assert gemm.seconds(*args) == pytest.approx(plain.seconds(*args) * area.at(128.0 * 4096, 4096.0, 4096.0))
    heads = Residual((("kv_heads", (1.0, 8.0)), ("batch", (1.0,)), ("bytes", (1e8,))), (1.0, 2.0))
    decode = DecodeModel(1e-6, 1e-5, 1e-7, 3e12, heads)
    bare = replace(decode, residual=None)
    assert decode.seconds(4, 1e8) == pytest.approx(2.0 * bare.seconds(4, 1e8))
    assert replace(decode, share=0.125).seconds(4, 1e8) == pytest.approx(bare.seconds(4, 1e8))
    assert decode.seconds(np.array(4.0), np.array([1e8])).tolist() == [decode.seconds(4.0, 1e8)]


@pytest.mark.parametrize("name", ["h100-sxm", "a100-80", "l40s", "b200", "rtx-pro-6000"])
def test_mha_takes_longer_than_gqa_on_every_machine(name: str) -> None:
    """By a few passes over the keys and values at the HBM peak: read, written to the cache, read again."""
    profile = load_profile(name)
    tokens, work = 16384.0, flops(16384.0) / 8  # eight prompts of 2,048 tokens
    gqa, mha = (profile.prefill_for(heads=32, kv_heads=count).seconds(tokens, work) for count in (8, 32))
    passes = (mha - gqa) * profile.si("tiers.hbm.peak") / (24 * 512 * tokens)
    assert 1 < passes < 5
