"""The resources of a run that `kvsim run --explain` halves and doubles, and what each of them is now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hw_profiles.scaling import COMPUTE, EXCHANGE, FIXED, HBM, PCIE
from hw_profiles.schema import CAPS
from hw_profiles.units import format_bytes, format_rate, format_seconds
from sim.disaggregation_spec import KV_IN, KV_LINK, KV_OUT
from sim.link_inputs import copy_method
from sim.scenario import Scenario

HALF, DOUBLE = 0.5, 2.0
FACTORS = (HALF, DOUBLE)
HOST_TIME_S = 0.001
"""Host time per step to try where the scenario has none, s."""
SHARED = {"pcie_joint": "PCIe, both directions", "host_root": "host root complex", "dram": "host DRAM bandwidth"}


@dataclass(frozen=True)
class Step:
    """One change of a resource: what it is called, and what it does to the scenario and the machine.

    settings   dotted paths of the scenario and their values
    scale      resource of `hw_profiles.scaling`, or ""
    hbm_bytes  memory of a GPU in place of the profile's; None: as it is
    """

    label: str
    factor: float
    settings: Sequence[tuple[str, Any]] = ()
    scale: str = ""
    hbm_bytes: float | None = None


@dataclass(frozen=True)
class Resource:
    """A resource, what it is in the run, and the changes to try."""

    key: str
    label: str
    value: str
    what: str
    steps: Sequence[Step] = field(default_factory=tuple)


def resources(scenario: Scenario, summary: Mapping[str, Any], values: Mapping[str, float]) -> list[Resource]:
    """What to change of a run with this summary; `values`: SI numbers of its `profile.json` by path.

    Links that moved nothing and tiers without a capacity are left out: changing them changes nothing.
    """
    return [
        *_of_kernels(summary, values),
        *_of_links(scenario, summary, values),
        *_of_tiers(scenario),
        _of_hbm(scenario, summary),
        _of_host(scenario),
    ]


def _of_kernels(summary: Mapping[str, Any], values: Mapping[str, float]) -> Iterator[Resource]:
    what = "Rate at which every kernel reads and writes HBM."
    yield _scaled(HBM, "HBM bandwidth", what, values["tiers.hbm.read"])
    yield _scaled(COMPUTE, "compute rate", "Rate of arithmetic of every kernel.")
    yield _scaled(FIXED, "fixed kernel times", "Launches, ramps and floors of kernels, and their work per sequence.")
    if summary["hardware"]["tp"] * summary["hardware"]["pp"] > 1:
        yield _scaled(EXCHANGE, "GPU to GPU", "Rate and latency of sums over the GPUs of a replica.")


def _of_links(scenario: Scenario, summary: Mapping[str, Any], values: Mapping[str, float]) -> Iterator[Resource]:
    spec = scenario.spec
    moved = {name for name, link in summary["links"].items() if link["bytes"]}
    for name, label in zip(PCIE, ("PCIe, host to GPU", "PCIe, GPU to host"), strict=True):
        if name in moved:
            own = f"links.{name}.{copy_method(spec, name)}.beta"
            rate = values[own] if own in values else values[f"links.{name}.beta"]
            yield _scaled(name, label, "Bandwidth of this direction of every GPU's link; latency as it is.", rate)
    devices = [tier.name for tier in spec.tiers if tier.device_name]
    for tier in devices:
        if {f"{tier}_read", f"{tier}_write"} & moved:
            what = "Bandwidth of what is behind the tier, reads and writes."
            yield _scaled(f"device.{tier}", f"{_named(tier)} device", what, values[f"devices.{tier}.read.bandwidth"])
    if KV_LINK in moved:
        what = "Bandwidth of the links between prefill and decode instances."
        yield _scaled(f"device.{KV_LINK}", "prefill to decode", what, values[f"devices.{KV_LINK}.write.bandwidth"])
    others = {KV_OUT, KV_IN, *(f"{tier}_joint" for tier in devices)}
    for name, link in summary["links"].items():
        if "capacity_bytes_per_s" in link and name in moved and name not in others:
            lanes = summary["hardware"]["gpus"] // summary["hardware"]["replicas"] if name in CAPS else 1
            rate = link["capacity_bytes_per_s"] / max(1, link["count"] * lanes)
            what = "A bandwidth that several links share; each of them as it is."
            yield _scaled(f"cap.{name}", SHARED.get(name, f"{name}, shared"), what, rate)


def _of_tiers(scenario: Scenario) -> Iterator[Resource]:
    for tier in scenario.spec.tiers[1:]:
        if tier.capacity:
            steps = []
            for factor in FACTORS:
                size = round(tier.capacity * factor)
                settings = [(f"tiers.{tier.name}.capacity", f"{size} B")]
                if tier.pinned:
                    settings.append((f"tiers.{tier.name}.pinned", f"{round(tier.pinned * factor)} B"))
                steps.append(Step(format_bytes(size), factor, settings))
            label, what = f"{_named(tier.name)} capacity", "Capacity of every instance of the tier."
            yield Resource(f"capacity.{tier.name}", label, format_bytes(tier.capacity), what, steps)


def _of_hbm(scenario: Scenario, summary: Mapping[str, Any]) -> Resource:
    """Room for KV in HBM: so many blocks in place of those that fit, in memory that grows as they need it."""
    budget, hbm, steps = summary["hardware"]["hbm_budget"], scenario.spec.tiers[0], []
    for factor in FACTORS:
        setting = ("engine.num_gpu_blocks", max(1, round(budget["blocks"] * factor)))
        if hbm.capacity is not None:
            setting = ("tiers.hbm.capacity", f"{round(hbm.capacity * factor)} B")
        total = budget["total"] + max(0.0, (factor - 1) * budget["kv"])
        steps.append(Step(format_bytes(budget["kv"] * factor), factor, [setting], hbm_bytes=total))
    what = "Room for KV in the memory of every GPU; weights and activations as they are."
    return Resource("capacity.hbm", "HBM for KV", format_bytes(budget["kv"]), what, steps)


def _of_host(scenario: Scenario) -> Resource:
    now = scenario.spec.engine.host_time
    times = [(factor, now * factor) for factor in FACTORS] if now else [(DOUBLE, HOST_TIME_S)]
    steps = [Step(format_seconds(s), factor, [("engine.host_time", f"{s!r} s")]) for factor, s in times]
    what = "Time per step that the GPU waits for the host (engine.host_time)."
    return Resource("host_time", "host time per step", format_seconds(now), what, steps)


def _scaled(scale: str, label: str, what: str, rate: float | None = None) -> Resource:
    """A resource of the machine; without a `rate` (bytes/s) that stands for it, it is told in multiples."""
    said = [f"{factor:g} x" if rate is None else format_rate(rate * factor) for factor in FACTORS]
    steps = [Step(text, factor, scale=scale) for text, factor in zip(said, FACTORS, strict=True)]
    return Resource(scale, label, "as profiled" if rate is None else format_rate(rate), what, steps)


def _named(tier: str) -> str:
    return tier if tier == "remote" else tier.upper()
