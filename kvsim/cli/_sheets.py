"""Everything about one name, as text, a table and a JSON document: what `kvsim show` prints.

Each function takes a name and returns a Sheet, or None when the name is not of its kind.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from hw_profiles.errors import InputError
from kvsim.cli._print import Column

if TYPE_CHECKING:
    from hw_profiles.schema import ProfileValue
    from policies.system import System


class Sheet(NamedTuple):
    """`text` comes first, then a table of `rows` under `columns`; `data` is the same for programs."""

    text: str
    columns: Sequence[str | Column]
    rows: Sequence[Sequence[str]]
    data: Mapping[str, Any]


VALUES = ("value of", Column("value", right=True), Column("interval", right=True), Column("source", fold=True))
FACTS = (Column("what"), Column("value", fold=True))


def of_policy(name: str) -> Sheet | None:
    """A policy's docstring, and its options with their defaults. `eviction.lru` names the family too."""
    from policies.build import policy_options
    from policies.tables import NAMED

    found = [
        (family, key, cls)
        for family, table in NAMED.items()
        for key, cls in table.items()
        if name in (key, f"{family}.{key}")
    ]
    if not found:
        return None
    if len(found) > 1:
        names = [f"{family}.{key}" for family, key, _ in found]
        raise InputError("several families have a policy of that name", found=name, allowed=names)
    family, key, cls = found[0]
    text = inspect.getdoc(cls) or ""
    options = {
        option: default
        for option, default in policy_options(cls).items()
        if default is not inspect.Parameter.empty  # without a default: given by the simulator
    }
    rows = [(f"{option} =", repr(default)) for option, default in options.items()]
    data = {"name": key, "family": family, "description": text, "options": options}
    data["source"] = f"{cls.__module__.replace('.', '/')}.py"
    return Sheet(f"{key}: {family} policy\n\n{text}", (Column("option"), "default"), rows, data)


def of_system(name: str) -> Sheet | None:
    """What a system is made of, with the docstrings and options of its policies."""
    from policies.systems import SYSTEMS, expand

    system = SYSTEMS.get(name)
    if system is None:
        return None
    if system.setup is not None:
        return _of_store(name, system)
    made, engine, _ = expand(name)
    parts = [p for given in made.values() for p in (given if isinstance(given, list) else [given])]
    sheets = [sheet for family, given in made.items() for sheet in _parts(family, given)]
    settings = "".join(f"\nengine.{key}: {value}" for key, value in engine.items())
    text = f"{name}: system\n\n{system.about}. Source: {system.source}.{settings}"
    rows = [row for sheet in sheets for row in sheet.rows]
    data = {"name": name, "about": system.about, "source": system.source, "policies": made, "engine": engine}
    data["made_of"] = parts
    return Sheet("\n\n".join([text, *(sheet.text for sheet in sheets)]), (Column("option"), "default"), rows, data)


def _of_store(name: str, system: System) -> Sheet:
    """A system across sequences: its docstring, its options, and what it sets up with their defaults."""
    from policies.build import policy_options
    from policies.systems import expand

    assert system.setup is not None
    setup, text = expand(name).setups[name], inspect.getdoc(system.setup) or ""
    options = policy_options(system.setup)
    tiers = {
        part.name: {"needed": part.needed, **part.settings, **part.defaults, **part.alone, **part.policies}
        for part in setup.tiers
    }
    sets = {"engine": {**setup.engine, **setup.engine_defaults}, "links": setup.links, "policies": setup.policies}
    lines = [f"{section}.{key}: {_inline(value)}" for section, given in sets.items() for key, value in given.items()]
    lines += [f"tiers.{tier}.{key}: {_inline(value)}" for tier, given in tiers.items() for key, value in given.items()]
    about = {"name": name, "about": system.about, "source": system.source, "description": text}
    data = {**about, "options": options, **sets, "tiers": tiers}
    heading = f"{name}: system\n\n{system.about}. Source: {system.source}."
    text = "\n\n".join([heading, text, "With its defaults it sets\n" + "\n".join(lines)])
    rows = [(f"{option} =", repr(default)) for option, default in options.items()]
    return Sheet(text, (Column("option"), "default"), rows, data)


def _inline(value: Any) -> str:
    """A value as it stands in a scenario, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        if value.keys() == {"name"}:
            return str(value["name"])
        return "{" + ", ".join(f"{key}: {_inline(item)}" for key, item in value.items()) + "}"
    return str(value)


def _parts(family: str, given: Any) -> list[Sheet]:
    key = f"sequence_{family}" if family in ("offload", "prefetch") else family
    names = [p["name"] for p in (given if isinstance(given, list) else [given])]
    return [sheet for name in names if (sheet := of_policy(f"{key}.{name}")) is not None]


def of_profile(name: str) -> Sheet | None:
    """Every value of a hardware profile with its interval and its source. A YAML file works too."""
    from hw_profiles.loader import list_profiles, load_profile

    if name not in list_profiles() and not name.endswith((".yaml", ".yml")):
        return None
    profile = load_profile(name)
    values = profile.values()
    data = {
        "name": profile.name,
        "profile_kind": profile.kind,
        "widest_uncertainty": profile.widest_uncertainty,
        "values": [dataclasses.asdict(value) for value in values],
    }
    return Sheet(f"{profile.name}: hardware profile ({profile.kind})", VALUES, _value_rows(values), data)


def of_device(name: str) -> Sheet | None:
    """Every value of a device behind a tier. A YAML file works too."""
    from hw_profiles.devices import list_devices, load_device

    if name not in list_devices() and not _is_device_file(name):
        return None
    device = load_device(name)
    values = device.values()
    data = {
        "name": device.name,
        "device_kind": device.kind,
        "what": device.what,
        "values": [dataclasses.asdict(value) for value in values],
    }
    return Sheet(f"{device.name}: {device.kind}, {device.what}", VALUES, _value_rows(values), data)


def _is_device_file(name: str) -> bool:
    from hw_profiles.devices import SCHEMA
    from hw_profiles.yaml_io import load_yaml

    return name.endswith((".yaml", ".yml")) and load_yaml(Path(name)).get("schema") == SCHEMA


def _value_rows(values: Sequence[ProfileValue]) -> list[tuple[str, str, str, str]]:
    """Path, text, interval and source of each value; a source that the value above has too is not said again."""
    interval = {value.path: "unknown" if value.rel is None else f"± {100 * value.rel:.3g} %" for value in values}
    before = (None, *(value.source_text for value in values))
    sources = [
        "as above" if value.source_text == last else value.source_text
        for value, last in zip(values, before, strict=False)
    ]
    return [(value.path, value.text, interval[value.path], said) for value, said in zip(values, sources, strict=True)]


def of_model(name: str) -> Sheet | None:
    """A model's geometry and its size in memory. A `config.json` works too."""
    from hw_profiles.models import list_models, load_model
    from hw_profiles.units import format_bytes, format_count

    if name not in list_models() and not name.endswith(".json"):
        return None
    model = load_model(name)
    data: dict[str, Any] = {**model.facts(), "origin": model.origin, "source": model.source}
    rows = [(key, f"{value:,}" if type(value) is int else str(value)) for key, value in data.items()]
    sizes = {
        "parameters": (model.parameters, format_count(model.parameters)),
        "active_parameters": (model.active_parameters, format_count(model.active_parameters)),
        "weight_bytes": (model.weight_bytes, format_bytes(model.weight_bytes)),
        "kv_bytes_per_token": (model.kv_bytes_per_token, format_bytes(model.kv_bytes_per_token)),
    }
    rows += [(key, f"{value:,} ({readable})") for key, (value, readable) in sizes.items()]
    data |= {key: value for key, (value, _) in sizes.items()}
    return Sheet(f"{model.name}: model", FACTS, rows[1:], data)


def of_trace(name: str) -> Sheet | None:
    """A catalog entry: what it is, its licence, its public home, and where it lies on this machine."""
    from traces.catalog import CATALOG, locate

    if name not in CATALOG:
        return None
    entry = CATALOG[name]
    try:
        here: str | None = str(locate(name))
    except InputError:
        here = None
    ways = f"`kvsim trace fetch {name}`, or set KVSIM_TRACES" if entry.url else "set KVSIM_TRACES"
    rows = [
        ("format", entry.format),
        ("licence", entry.licence),
        ("original", entry.home),
        ("sha256", entry.sha256),
        ("on this machine", here or f"no; {ways}"),
    ]
    data = {**dataclasses.asdict(entry), "path": here}
    return Sheet(f"{entry.name}: {entry.description}", FACTS, rows, data)


def of_metric(name: str) -> Sheet | None:
    """A metric's definition, its unit, and which direction is better; or a field of the summary."""
    from sim.fields import GROUPS
    from sim.metrics import METRICS

    keys: tuple[str, ...] = ("key", "label", "unit", "better", "definition")
    found = {metric.key: {key: getattr(metric, key) for key in keys} for metric in METRICS}
    for group, fields in GROUPS.items():
        found |= {f"{group}.{field.key}": {**field._asdict(), "key": f"{group}.{field.key}"} for field in fields}
    if name not in found:
        return None
    data = found[name]
    return Sheet(f"{name}: metric", FACTS, [(key, str(value)) for key, value in data.items()], {"name": name, **data})


def of_contract(name: str) -> Sheet | None:
    """What a policy of one's own must do, by its family or the base class of that."""
    from kvsim.cli._contracts import contract

    found = contract(name)
    return None if found is None else Sheet(found[0], FACTS, (), found[1])


READERS: Mapping[str, Callable[[str], Sheet | None]] = MappingProxyType(
    {
        "systems": of_system,
        "policies": of_policy,
        "devices": of_device,
        "profiles": of_profile,
        "models": of_model,
        "traces": of_trace,
        "metrics": of_metric,
        "contracts": of_contract,
    }
)
"""One reader for each kind of `kvsim list`, and for the contract of a family of policies."""
