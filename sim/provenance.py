"""Where a run's hardware numbers come from, which of them it used, and how sure they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hw_profiles.devices import DIRECTIONS, Device
from hw_profiles.schema import OVERRIDDEN, ProfileValue
from sim.cluster import Cluster
from sim.cost.interference import direction_of
from sim.link_inputs import GPU_LINKS, copy_method
from sim.spec import ScenarioSpec

STEP_VALUES = ("kernels.launch.", "capacity.hbm_bytes", "capacity.reserved_bytes", "tiers.hbm.read")
"""Starts of the paths that the step times of every run are made from, besides those of the kernels that it has."""
L2_PREFETCH_VALUES = ("tiers.l2.full_", "tiers.l2.measured_bytes", "tiers.l2.read", "capacity.l2_bytes")
"""Those that `sim.cost.l2_prefetch` reads besides, with the latency of HBM."""


def value_rows(cluster: Cluster) -> list[dict[str, Any]]:
    """Every value of the hardware profile and of the devices behind tiers for `profile.json`, in their order.

    Those of devices are called `devices.<tier>.<path>`; values that were estimated for kernels that the profile does
    not have follow its own. `used`: this run's cost model read it.
    """
    return [_row(value, used) for value, used in _values(cluster)]


def profile_summary(cluster: Cluster) -> dict[str, Any]:
    """The profile in `summary.json`.

    The widest stated uncertainty (relative half-width of a 90 % interval) among the values that the run used, those of
    devices included; the share of its step time outside the range that the profile was fitted on; and the share of the
    bytes over devices that moved in copies of sizes that their rates were not measured with (None where no device
    says).
    """
    profile = cluster.inputs.profile
    stated = [value for value, used in _values(cluster) if used and value.rel is not None]
    widest = max(stated, key=lambda value: value.rel or 0.0, default=None)
    return {
        "name": profile.name,
        "kind": profile.kind,
        "widest_uncertainty": widest.rel if widest else None,
        "widest_value": widest.path if widest else None,
        "extrapolated_fraction": _extrapolated(cluster),
        "extrapolated_copies_fraction": _extrapolated_copies(cluster),
    }


def _values(cluster: Cluster) -> Iterator[tuple[ProfileValue, bool]]:
    starts, links, taken = _starts(cluster.scenario.spec), _link_paths(cluster), cluster.cost.kernels.values
    profile = cluster.inputs.profile
    for value in profile.values():
        yield value, value.path.startswith(starts) or value.path in links or value.path in taken
    yield from ((value, True) for path, value in taken.items() if path not in profile.entries)
    built = {name for link in cluster.links for name in (link.name, link.name.rpartition("_")[0])}
    for tier, device in cluster.inputs.devices.items():
        unread = _unread(device)
        for value in device.values():
            src = value.src_key if value.src_key == OVERRIDDEN else f"{device.name}/{value.src_key}"
            named = replace(value, path=f"devices.{tier}.{value.path}", src_key=src)
            yield named, tier in built and value.path not in unread


def _unread(device: Device) -> set[str]:
    """Paths of a device's values that move nothing: those of the ramp where there is none, and for memory."""
    paths = {"measured_copies.least", "measured_copies.most"}
    for way, link in (("read", device.read), ("write", device.write)):
        if device.kind == "memory":
            paths |= {f"{way}.single", f"{way}.saturation", f"{way}.per_io"}
        elif link.single == 1:
            paths.add(f"{way}.saturation")
    return paths


def _row(value: ProfileValue, used: bool) -> dict[str, Any]:
    return {
        "path": value.path,
        "value_si": value.value_si,
        "si_unit": value.si_unit,
        "text": value.text,
        "rel": value.rel,
        "lo": value.lo,
        "hi": value.hi,
        "src": value.src_key,
        "source": value.source_text,
        "used": used,
    }


def _starts(spec: ScenarioSpec) -> tuple[str, ...]:
    ahead = (*L2_PREFETCH_VALUES, "tiers.hbm.latency") if spec.engine.l2_prefetch else ()
    return (*STEP_VALUES, *ahead)


def _link_paths(cluster: Cluster) -> set[str]:
    """Paths of the values that the copies over the GPU's own link read."""
    if not cluster.links:
        return set()
    spec, profile = cluster.scenario.spec, cluster.inputs.profile
    small = spec.engine.kv_layout != "block"
    methods = {link: copy_method(spec, link) for link in GPU_LINKS}
    used = set()
    for link, method in methods.items():
        used |= {path for path in profile.copy_paths(link, method) if small or ".small_" not in path}
        factor = f"interference.{direction_of(link)}"
        used |= {f"{factor}_kernel", "capacity.sms"} if method == "kernel" else {factor}
        if any(tier.page_locked is not None for tiers in cluster.tiers for tier in tiers):
            used.add(f"links.{link}.pageable")
    joint = profile.joint_path("kernel" if "kernel" in methods.values() else "loop")
    return used if joint is None else used | {joint}


def _extrapolated(cluster: Cluster) -> float:
    busy = sum(r.accounts.times.compute_s for r in cluster.replicas)
    return sum(r.accounts.extrapolated_s for r in cluster.replicas) / busy if busy else 0.0


def _extrapolated_copies(cluster: Cluster) -> float | None:
    transfers = cluster.recorder.transfers
    sizes, copies = transfers.numbers("bytes"), transfers.numbers("copies")
    inside = moved = 0
    for tier, device in cluster.inputs.devices.items():
        if device.measured_copies is not None:
            least, most = device.measured_copies
            own = transfers.among("link", tier, *[f"{tier}_{way}" for way in DIRECTIONS])
            each = sizes[own] / copies[own]
            moved += int(sizes[own].sum())
            inside += int(sizes[own][(each >= least) & (each <= most)].sum())
    return 1 - inside / moved if moved else None
