"""The write of new keys and values into the cache is charged once."""

import pytest

from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from sim.cost.kernels import Kernels
from sim.cost.layer import LayerCost


def test_a_write_inside_of_measured_attention_is_not_charged_beside_it() -> None:
    """Public tables time attention calls that write the cache; without that, a kernel between the products does."""
    measured = load_profile("h100-sxm")
    alone = measured.override("kernels.prefill_attn.per_kv", 0.0).override("kernels.prefill_attn.per_write", 0.0)
    (count, layer), *_ = load_model("llama-3.1-8b").layer_kinds(1)
    inside, beside = (LayerCost(count, layer, Kernels(profile)) for profile in (measured, alone))
    per_token = 2 * 8 * 128 * (2 + 2) / measured.hbm_bandwidth  # K and V of 8 heads of 128 read and written in bf16
    for tokens in (1, 512):
        extra = beside.linear(tokens) - inside.linear(tokens)
        assert extra == pytest.approx(measured.launch.graph + tokens * per_token)
    assert inside.prefill([(512, 0)]) > beside.prefill([(512, 0)])
