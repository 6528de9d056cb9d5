"""Machines of which one resource is larger or smaller: every value that stands for it, times a factor.

A rate is multiplied, a time divided: factor 2 is twice the resource, except for the fixed times of `FIXED`, which are
not a rate: factor 2 is twice the time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from hw_profiles.devices import Device, quantity_of_device
from hw_profiles.errors import InputError
from hw_profiles.profile import Profile
from hw_profiles.quantity import Quantity
from hw_profiles.sampling import l2_holds, within_bounds
from hw_profiles.schema import ProfileValue, quantity_of


class Machine(NamedTuple):
    """What a run takes its times from: the profile, devices by tier, shared bandwidths (bytes/s) by name."""

    profile: Profile
    devices: Mapping[str, Device]
    caps: Mapping[str, float]


class _Scaled(NamedTuple):
    """Values of a profile that a resource stands behind: rates, and times that fall as it grows."""

    rates: re.Pattern[str]
    times: re.Pattern[str]


_NONE = re.compile(r"(?!)")
HBM, COMPUTE, FIXED, EXCHANGE = "hbm_bandwidth", "compute", "fixed_times", "exchange"
PCIE = ("pcie_h2d", "pcie_d2h")
_KERNEL = r"kernels\.(?!allreduce_|launch)\w+\."
_BY_RESOURCE: Mapping[str, _Scaled] = MappingProxyType(
    {
        # per_kv and per_write of prefill attention are passes over HBM (hw_profiles.prefill_cost)
        HBM: _Scaled(
            re.compile(rf"tiers\.hbm\.(read|peak)|{_KERNEL}bandwidth"), re.compile(rf"{_KERNEL}per_(kv|write)")
        ),
        # per_token and per_context are work per query, which the arithmetic units do
        COMPUTE: _Scaled(re.compile(rf"peaks\.\w+|{_KERNEL}flops"), re.compile(rf"{_KERNEL}per_(token|context)")),
        FIXED: _Scaled(
            re.compile(rf"{_KERNEL}(t0|floor|split|per_seq|per_split)|kernels\.launch\.(stream|graph)"), _NONE
        ),
        EXCHANGE: _Scaled(re.compile(r"kernels\.allreduce_\d+\.beta"), re.compile(r"kernels\.allreduce_\d+\.alpha")),
        **{name: _Scaled(re.compile(rf"links\.{name}\.(\w+\.)?(beta|small_beta|pageable)"), _NONE) for name in PCIE},
    }
)
_DEVICE_RATES = ("read.bandwidth", "write.bandwidth", "caps.joint")


def scaled(machine: Machine, resource: str, factor: float) -> Machine:
    """The machine with `factor` (> 0) times a resource: HBM, COMPUTE, FIXED, EXCHANGE, one of PCIE, `device.<tier>`
    (reads, writes and both together), or `cap.<name>` of the shared bandwidths. InputError for one that it has not."""
    profile, devices, caps = machine
    group, _, name = resource.partition(".")
    if resource in _BY_RESOURCE:
        return machine._replace(profile=_scaled_profile(profile, _BY_RESOURCE[resource], factor))
    if group == "device" and name in devices:
        shared = f"{name}_joint"
        caps = {**caps, shared: caps[shared] * factor} if shared in caps else caps
        return Machine(profile, {**devices, name: _scaled_device(devices[name], factor)}, caps)
    if group == "cap" and name in caps:
        return machine._replace(caps={**caps, name: caps[name] * factor})
    allowed = [*_BY_RESOURCE, *(f"device.{tier}" for tier in devices), *(f"cap.{cap}" for cap in caps)]
    raise InputError("no such resource", found=resource, allowed=allowed, near=allowed)


def _scaled_profile(profile: Profile, chosen: _Scaled, factor: float) -> Profile:
    entries = {}
    for path, value in profile.entries.items():
        if chosen.rates.fullmatch(path):
            value = _times(value, factor, quantity_of(path))
        elif chosen.times.fullmatch(path):
            value = _times(value, 1 / factor, quantity_of(path))
        entries[path] = value
    return replace(profile, entries=l2_holds(entries))


def _scaled_device(device: Device, factor: float) -> Device:
    entries = {
        path: _times(value, factor, quantity_of_device(path)) if path in _DEVICE_RATES else value
        for path, value in device.entries.items()
    }
    return replace(device, entries=entries)


def _times(value: ProfileValue, factor: float, quantity: Quantity | None) -> ProfileValue:
    return replace(value, value_si=within_bounds(value.value_si * factor, quantity))
