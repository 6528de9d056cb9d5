"""One resource of a machine times a factor: its values, and no others."""

import pytest

from hw_profiles.devices import load_device
from hw_profiles.errors import InputError
from hw_profiles.loader import load_profile
from hw_profiles.scaling import COMPUTE, EXCHANGE, FIXED, HBM, Machine, scaled


@pytest.fixture(scope="module")
def machine():
    return Machine(load_profile("h100-sxm"), {"ssd": load_device("nvme-gen4")}, {"pcie_joint": 80e9, "ssd_joint": 5e9})


def moved(machine, resource, factor):
    """Ratio of new to old by path of every value that the resource stands behind."""
    new = scaled(machine, resource, factor).profile.entries
    old = machine.profile.entries
    return {path: new[path].value_si / old[path].value_si for path in old if new[path].value_si != old[path].value_si}


@pytest.mark.parametrize(
    ("resource", "rates", "times"),
    [
        (HBM, ("tiers.hbm.read", "kernels.gemm_bf16.bandwidth", "kernels.decode_attn.bandwidth"),
         ("kernels.prefill_attn.per_kv", "kernels.prefill_attn.per_write")),
        (COMPUTE, ("kernels.gemm_bf16.flops", "kernels.prefill_attn.flops"),
         ("kernels.prefill_attn.per_token", "kernels.prefill_attn.per_context")),
        (EXCHANGE, ("kernels.allreduce_4.beta",), ("kernels.allreduce_4.alpha",)),
        ("pcie_h2d", ("links.pcie_h2d.beta", "links.pcie_h2d.loop.beta", "links.pcie_h2d.loop.small_beta"), ()),
        (FIXED, ("kernels.launch.graph", "kernels.gemm_bf16.t0", "kernels.decode_attn.floor"), ()),
    ],
)  # fmt: skip
def test_rates_grow_and_times_shrink(machine, resource, rates, times):
    found = moved(machine, resource, 2.0)
    assert {path: found.get(path) for path in (*rates, *times)} == pytest.approx(
        {**dict.fromkeys(rates, 2.0), **dict.fromkeys(times, 0.5)}
    )


def test_no_value_belongs_to_two_resources(machine):
    seen = [
        path for name in (HBM, COMPUTE, FIXED, EXCHANGE, "pcie_h2d", "pcie_d2h") for path in moved(machine, name, 2)
    ]
    seen = [path for path in seen if path != "tiers.l2.read"]  # is kept above the rate of HBM
    assert len(seen) == len(set(seen))
    left = {path for path in machine.profile.entries if path.startswith("kernels.")} - set(seen)
    assert {path.rpartition(".")[2] for path in left} <= {"p", "tile_rows", "warm", "warm_bytes", "factor", "share",
        "sharpness", "min_tiles", "split_tiles"}  # fmt: skip


def test_l2_stays_faster_than_hbm(machine):
    profile = scaled(machine, HBM, 8.0).profile
    assert profile.si("tiers.l2.read") > profile.si("tiers.hbm.read") == 8 * machine.profile.si("tiers.hbm.read")


def test_a_device_has_all_of_its_rates_changed_and_a_cap_itself_alone(machine):
    half = scaled(machine, "device.ssd", 0.5)
    assert half.devices["ssd"].read.bandwidth == machine.devices["ssd"].read.bandwidth / 2
    assert half.devices["ssd"].write.bandwidth == machine.devices["ssd"].write.bandwidth / 2
    assert half.caps == {"pcie_joint": 80e9, "ssd_joint": 2.5e9}
    assert scaled(machine, "cap.pcie_joint", 2.0) == machine._replace(caps={"pcie_joint": 160e9, "ssd_joint": 5e9})


def test_a_resource_that_is_not_there_is_named(machine):
    with pytest.raises(InputError, match=r"no such resource, found 'device\.tape'.*did you mean 'device\.ssd'"):
        scaled(machine, "device.tape", 2.0)
