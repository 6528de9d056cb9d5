"""Links of a scenario: their cost models, and the bandwidths that they share.

A GPU has `pcie_h2d` and `pcie_d2h` under `pcie_joint`, a host may have `host_root` and `dram`, a tier with a device has
`<tier>_read` toward the GPU and `<tier>_write` away from it, under `<tier>_joint`. Their values come from the machine's
profile and from the devices; the scenario's `links` section replaces them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hw_profiles.cost_models import CopyModel, DeviceLink, LinkModel
from hw_profiles.devices import DIRECTIONS, Device, load_device
from hw_profiles.errors import InputError
from hw_profiles.profile import Profile
from hw_profiles.schema import CAPS
from hw_profiles.units import format_bytes, format_rate
from sim.spec import ScenarioSpec
from sim.spec_base import resolved_path
from sim.tier_spec import LinkSpec, TierSpec

Link = LinkModel | CopyModel | DeviceLink

GPU_LINKS = ("pcie_h2d", "pcie_d2h")
NODE_CAPS = ("host_root", "dram")
"""Shared bandwidths of a host that exist only when the scenario gives them: its PCIe root complex, its memory."""


def own_links(spec: ScenarioSpec) -> list[str]:
    """Names of the links of tiers that are not reached over the GPU's own link alone."""
    return [f"{tier.name}_{way}" for tier in spec.tiers if tier.device_name for way in DIRECTIONS]


def joint_name(tier: TierSpec) -> str:
    """Name of what reads and writes of a tier's device share."""
    return f"{tier.name}_joint"


def copy_method(spec: ScenarioSpec, link: str) -> str:
    """How the GPU's link copies blocks."""
    return spec.links.get(link, LinkSpec()).method or "loop"


def link_models(
    profile: Profile, devices: Mapping[str, Device], spec: ScenarioSpec, lanes: float = 1
) -> dict[str, Link]:
    """Every link's model by name; InputError for a copy method that the profile does not have.

    The GPUs of a replica copy their parts of a block at the same time, each over its own link: the model is of all
    `lanes` together. Memory behind a link of its own has a latency for each copy, which the GPU's copy engine makes
    one by one.
    """
    models: dict[str, Link] = {}
    for name in GPU_LINKS:
        own = profile.copy_model(name, copy_method(spec, name))
        models[name] = replace(own, beta=own.beta * lanes, cut=own.cut * lanes, small_beta=own.small_beta * lanes)
    for tier in spec.tiers:
        if tier.name in devices:
            device = devices[tier.name]
            for way, model in (("read", device.read), ("write", device.write)):
                each = model.bandwidth * (lanes if tier.on_gpu else 1)
                plain = tier.kind == "memory"
                models[f"{tier.name}_{way}"] = LinkModel(model.latency, each) if plain else model
    return models


def check_pinned(profile: Profile, spec: ScenarioSpec) -> None:
    """InputError if the GPU is to copy memory that is not page-locked, and cannot or no one knows how fast."""
    for tier in spec.tiers:
        if tier.pinned is None or tier.capacity is None or tier.pinned >= tier.capacity:
            continue
        path = f"tiers.{tier.name}.pinned"
        for name in GPU_LINKS:
            if copy_method(spec, name) == "kernel":
                problem = f"a copy kernel (links.{name}.method) reaches page-locked memory only"
                raise InputError(
                    problem, path=path, found=format_bytes(tier.pinned), allowed="all of the tier's capacity"
                )
            if profile.pageable(name) is None:
                problem = f"profile {profile.name} has no rate for pageable memory; give links.{name}.pageable"
                raise InputError(problem, path=path, found=format_bytes(tier.pinned))


def of_replicas(caps: Mapping[str, float], spec: ScenarioSpec, lanes: float) -> dict[str, float]:
    """Shared bandwidths as replicas meet them: those of a GPU's links times `lanes`, those of hosts times its nodes."""
    of_gpu = {*CAPS, *(joint_name(tier) for tier in spec.tiers if tier.on_gpu)}
    times = {**dict.fromkeys(of_gpu, lanes), **dict.fromkeys(NODE_CAPS, spec.hardware.parallel.nodes)}
    return {name: rate * times.get(name, 1) for name, rate in caps.items()}


def load_tier_device(spec: ScenarioSpec, tier: TierSpec, base_dir: Path) -> Device:
    """The device behind a tier, with the values that `links` gives in place of its own.

    A bandwidth from there is a plain one: no ramp with queue depth, no time per copy. Raises InputError.
    """
    assert tier.device_name is not None
    path, kinds = f"tiers.{tier.name}.device", ("memory",) if tier.kind == "memory" else ("storage", "network")
    try:
        device = load_device(resolved_path(tier.device_name, base_dir))
    except InputError as error:
        raise error if error.where is not None else error.at(path=path) from None
    if device.kind not in kinds:
        problem = f"a device of kind {device.kind} cannot be behind this tier"
        raise InputError(problem, path=path, found=tier.device_name, allowed=kinds)
    for way in DIRECTIONS:
        link = spec.links.get(f"{tier.name}_{way}", LinkSpec())
        device = device.with_link(way, bandwidth=link.bandwidth or None, latency=link.latency)
    joint = spec.links.get(joint_name(tier), LinkSpec()).bandwidth
    return device.with_joint(joint) if joint else device


def with_links(profile: Profile, devices: Mapping[str, Device], spec: ScenarioSpec) -> tuple[Profile, dict[str, float]]:
    """The profile with the scenario's links, and the shared bandwidths in bytes/s by name. Raises InputError."""
    own, joints = own_links(spec), [joint_name(tier) for tier in spec.tiers if tier.device_name]
    joint = profile.joint_path("kernel" if any(copy_method(spec, name) == "kernel" for name in GPU_LINKS) else "loop")
    caps = {f"{name}_joint": device.joint for name, device in devices.items() if device.joint is not None}
    if joint is not None:
        caps["pcie_joint"] = profile.si(joint)
    names = (*profile.links, *CAPS, *NODE_CAPS, *own, *joints)
    for name, link in spec.links.items():
        path = f"links.{name}"
        if name not in names:
            raise InputError("unknown link", path="links", found=name, allowed=names, near=names)
        if link.bandwidth is not None and not link.bandwidth > 0:
            raise InputError("", path=f"{path}.bandwidth", found="0", allowed="a rate > 0, such as '50 GB/s'")
        if name in profile.links:
            method = link.method or "loop"
            profile = profile.with_link(name, method, bandwidth=link.bandwidth, latency=link.latency)
            if link.pageable is not None:
                profile = profile.with_pageable(name, link.pageable)
            continue
        if link.method is not None:
            raise InputError("only the GPU's own link has a copy method", path=f"{path}.method", found=link.method)
        if link.pageable is not None:
            problem = "only the GPU's own link copies pageable memory"
            raise InputError(problem, path=f"{path}.pageable", found=format_rate(link.pageable))
        if name in own:
            continue
        if link.latency is not None:
            raise InputError("a shared bandwidth has no latency", path=f"{path}.latency", found=link.latency)
        if link.chunk is not None:
            raise InputError("a shared bandwidth copies nothing itself", path=f"{path}.chunk", found=link.chunk)
        if link.bandwidth is not None:
            caps[name] = link.bandwidth
            if name in CAPS and joint is not None:
                profile = profile.override(joint, link.bandwidth)
    return profile, caps
