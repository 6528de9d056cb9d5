"""Decode attention by a kernel that reads at a share of the HBM's rate, and what a prefetch into L2 gives back."""

import pytest

from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from sim.cost.step import StepCost

SHARE = 0.471
"""XFormers on an H20: HBM throughput of 47.1 % (arXiv 2504.06319)."""


def attention(lookahead: int = 0, share: float | None = SHARE, seqs: int = 64, tokens: int = 4096) -> float:
    cost = StepCost(load_model("llama-2-7b"), load_profile("h20"), 0.0, lookahead, attention_share=share)
    times = cost.decode_steps(seqs, seqs * tokens, [], 1, tokens)
    return float(times.attention)


def test_attention_takes_what_its_share_says() -> None:
    """64 x 4096 tokens of 512 KiB at 47.1 % of the HBM's rate, and what it takes besides."""
    hbm = load_profile("h20").hbm_bandwidth
    reading = 64 * 4096 * 512 * 1024 / (SHARE * hbm)
    assert reading < attention() < 1.05 * reading


def test_prefetch_gives_back_what_the_kernel_leaves() -> None:
    """At most 1 / share; nothing to speak of for the profile's kernel; less than nothing beyond what L2 holds."""
    gain = attention() / attention(8 << 20)
    assert 1.8 < gain < 1 / SHARE
    assert attention(share=None) / attention(8 << 20, share=None) == pytest.approx(1.0, abs=0.02)
    assert attention(64 << 20) > 1.3 * attention(8 << 20)
