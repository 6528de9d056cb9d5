"""How the GPU's link copies blocks: the method and the layout of the cache move load times as their formulas say."""

import pytest

from hw_profiles.errors import InputError
from hw_profiles.loader import load_profile

A, B, C = 1600, 2000, 4000
HIT = (A - 1) // 16 * 16


@pytest.fixture
def load_s(run, prompt):
    rows = [(t, n, 1, prompt(f, n)) for t, f, n in ((0, 1, A), (10, 2, B), (20, 3, C), (30, 1, A))]

    def load(method, layout):
        links = {"pcie_h2d": {"method": method}, "pcie_d2h": {"method": method}}
        result = run(rows, blocks=256, dram="100 GiB", links=links, engine={"kv_layout": layout})
        return result.frames["requests"].load_s[3]

    return load


@pytest.mark.parametrize("method", ["loop", "batch", "kernel"])
@pytest.mark.parametrize(("layout", "parts"), [("block", 1), ("layer", 32), ("layer_kv", 64)])
def test_a_load_takes_what_the_profile_says(load_s, hand, method, layout, parts):
    copies, size = HIT // 16 * parts, 16 * hand.token_bytes // parts
    group = f"links.pcie_h2d.{method}"
    values = hand.raw["links"]["pcie_h2d"][method]
    kib = {"KiB": 2**10}.get(values.get("cut", {}).get("unit"), 1)
    small = size <= values.get("cut", {"v": 0})["v"] * kib
    alpha, beta = hand.group(group, *(("small_alpha", "small_beta") if small else ("alpha", "beta")))
    submit = hand.value(f"{group}.submit") if "submit" in values else 0.0
    expected = copies * max(alpha + size / beta, submit)
    assert load_s(method, layout) == pytest.approx(expected, rel=1e-9)


def test_small_copies_cost_a_loop_most(load_s):
    assert load_s("loop", "layer_kv") > 3 * load_s("kernel", "layer_kv")
    assert load_s("loop", "layer_kv") > 5 * load_s("loop", "block")


def test_a_method_for_a_disk_is_refused(scenario):
    links = {"ssd_read": {"bandwidth": "5 GB/s", "method": "batch"}, "ssd_write": {"bandwidth": "2 GB/s"}}
    tiers = [{"name": "hbm"}, {"name": "ssd", "capacity": "1 GiB"}]
    with pytest.raises(InputError, match=r"links\.ssd_read\.method: only the GPU's own link .*found 'batch'"):
        scenario([(0, 100, 1, [1])], tiers=tiers, links=links).run()


def test_copy_kernels_share_less_in_both_directions():
    profile = load_profile("h100-sxm")
    kernel, engine = profile.joint_cap("kernel"), profile.joint_cap("loop")
    assert kernel is not None
    assert engine is not None
    assert kernel < engine
