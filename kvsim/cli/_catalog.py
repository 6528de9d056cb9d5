"""What has a name: policies, profiles, devices, models, traces, metrics. Each reader imports only what it lists."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple


class Entry(NamedTuple):
    """One line of `kvsim list`: the name, its group within the kind, what it is, where it comes from."""

    name: str
    group: str
    what: str
    source: str


class Kind(NamedTuple):
    """One thing that `kvsim list` can list. `group` heads the column of that name."""

    what: str
    group: str
    entries: Callable[[], list[Entry]]


def beginning(thing: object) -> str:
    """The first line of a docstring, and those after it until one ends with a sentence."""
    lines: list[str] = []
    for line in (inspect.getdoc(thing) or "").partition("\n\n")[0].splitlines():
        lines.append(line)
        if line.endswith("."):
            break
    return " ".join(lines)


def _policies() -> list[Entry]:
    from policies.tables import NAMED

    return [
        Entry(name, family, beginning(cls), f"{cls.__module__.replace('.', '/')}.py")
        for family, table in NAMED.items()
        for name, cls in table.items()
    ]


def _systems() -> list[Entry]:
    from policies.systems import SYSTEMS

    return [
        Entry(name, ", ".join(system.policies) or ("tiers" if system.setup else "none"), system.about, system.source)
        for name, system in SYSTEMS.items()
    ]


def _profiles() -> list[Entry]:
    from hw_profiles.loader import list_profiles, load_profile
    from hw_profiles.units import format_bytes, format_rate

    entries = []
    for name in list_profiles():
        profile = load_profile(name)
        attention = profile.entries["kernels.decode_attn.bandwidth"].source_text
        size = f"{format_bytes(profile.hbm_bytes)} at {format_rate(profile.hbm_bandwidth)}"
        entries.append(Entry(name, profile.kind, size, f"{_from(profile.kernels.family, attention)}"))
    return entries


def _from(family: Mapping[str, str], source: str) -> str:
    """Whose kernels a profile has: the engine and kernel that were timed, or what its source says."""
    return family.get("decode_attn") or source.removeprefix("estimate: ").partition(" (")[0] + ", carried over"


def _devices() -> list[Entry]:
    from hw_profiles.devices import list_devices, load_device

    devices = [load_device(name) for name in list_devices()]
    sources = "{} values, {} sources (`kvsim show {}`)"
    return [Entry(d.name, d.kind, d.what, sources.format(len(d.values()), len(d.sources), d.name)) for d in devices]


def _models() -> list[Entry]:
    from hw_profiles.models import list_models, load_model
    from hw_profiles.units import format_bytes, format_count

    entries = []
    for name in list_models():
        model = load_model(name)
        size = format_count(model.parameters).replace(" ", "")
        active = model.active_parameters
        moe = "" if active == model.parameters else f" ({format_count(active).replace(' ', '')} active)"
        what = f"{size} parameters{moe}, {format_bytes(model.kv_bytes_per_token)} of KV per token"
        kind, comma, window = model.attention.partition(",")
        heads = f"{model.heads}" if kind == "MLA" else f"{model.heads}/{model.kv_heads}"
        entries.append(Entry(name, f"{kind} {heads}{comma}{window}", what, model.origin or model.source))
    return entries


def _traces() -> list[Entry]:
    from traces.catalog import CATALOG

    return [Entry(entry.name, entry.format, entry.description, entry.home) for entry in CATALOG.values()]


def _metrics() -> list[Entry]:
    from sim.fields import GROUPS
    from sim.metrics import METRICS

    entries = [Entry(metric.key, metric.unit, metric.label, metric.definition) for metric in METRICS]
    for group, fields in GROUPS.items():
        entries += [Entry(f"{group}.{f.key}", f.unit, f.label, f.definition) for f in fields]
    return entries


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "policies": Kind("what orders, moves and drops KV blocks", "family", _policies),
        "systems": Kind("the field's systems, each a set of policies", "families", _systems),
        "profiles": Kind("hardware: every number with its source", "kind", _profiles),
        "devices": Kind("what tiers behind host memory are made of", "kind", _devices),
        "models": Kind("model geometry and KV size", "attention", _models),
        "traces": Kind("recorded and generated request traces", "format", _traces),
        "metrics": Kind("what a run reports, and how each is defined", "unit", _metrics),
    }
)
