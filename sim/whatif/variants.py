"""Variants of a scenario: lists of values on dotted paths, and their cross product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import yaml

from hw_profiles.errors import InputError
from policies.build import policy_class
from policies.tables import FAMILIES, WITHIN
from sim.scenario import Scenario

EXAMPLE = "PATH=VALUE,VALUE, such as policies.eviction=lru,s3fifo"


@dataclass(frozen=True)
class Variant:
    """One scenario of several: `settings` (dotted path: value as written) is how it differs from the others."""

    label: str
    scenario: Scenario
    settings: Mapping[str, Any]


def parse_vary(text: str) -> tuple[str, list[Any]]:
    """The dotted path and the values of "a.b=x,y,{name: z, k: 2}". Raises InputError."""
    path, equals, values = (part.strip() for part in text.partition("="))
    if not (path and equals):
        raise InputError("", where="--vary", found=text, allowed=EXAMPLE)
    return path, read_list("--vary", values, path)


def read_list(option: str, text: str, path: str | None = None) -> list[Any]:
    """The values of "x, y, {name: z, k: 2}" given with an option. Raises InputError, for none too."""
    try:
        found: list[Any] = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError:
        raise InputError("", where=option, path=path, found=text, allowed="values with commas between them") from None
    if not found:
        raise InputError("no values", where=option, path=path, allowed="values with commas between them")
    return found


def expand(
    scenario: Scenario,
    lists: Sequence[tuple[str, Sequence[Any]]],
    *,
    where: str = "--vary",
    common: Sequence[tuple[str, Any]] = (),
) -> list[Variant]:
    """Every combination of the values of `lists` (path, values), the last one changing fastest; all have `common`.

    Raises InputError for a path or a value that the scenario does not take, a path or value that is given twice, and
    a list without values: before anything runs.
    """
    paths = [path for path, _ in lists]
    for path, values in lists:
        if paths.count(path) > 1:
            raise InputError("given twice", where=where, path=path)
        if not values:
            raise InputError("no values", where=where, path=path)
        shown = [value_label(value) for value in values]
        twice = next((text for text in shown if shown.count(text) > 1), None)
        if twice is not None:
            raise InputError("the same value twice", where=where, path=path, found=twice)
    plain = len(lists) == 1 and not all(isinstance(value, int | float) for value in lists[0][1])
    combinations = product(*(values for _, values in lists))
    return [settled(scenario, dict(zip(paths, v, strict=True)), plain=plain, common=common) for v in combinations]


def settled(
    scenario: Scenario,
    settings: Mapping[str, Any],
    *,
    plain: bool = False,
    common: Sequence[tuple[str, Any]] = (),
) -> Variant:
    """The variant with a value on each path, after those in `common`; `plain`: called by the values alone.

    Only the scenario with all of them has to be valid. Raises InputError.
    """
    found = scenario.set_all([*common, *settings.items()])
    check_policies(found)
    names = short_paths(list(settings))
    texts = [value_label(value) if plain else f"{names[path]}={value_label(value)}" for path, value in settings.items()]
    return Variant(", ".join(texts) or "as it stands", found, settings)


def check_policies(scenario: Scenario) -> None:
    """Look every policy of the scenario up. Raises InputError for one that there is not."""
    spec = scenario.spec
    for section, prefix in ((spec.policies, "policies"), *((tier, f"tiers.{tier.name}") for tier in spec.tiers)):
        for family in (*FAMILIES, "scheduling", "reuse", *WITHIN):
            named = getattr(section, family, None)
            for policy in (named if isinstance(named, tuple) else [named]) if named else ():
                try:
                    policy_class(family, policy.name, base_dir=scenario.base_dir, path=f"{prefix}.{family}")
                except InputError as error:
                    raise error.at(where=scenario.where) from None


def value_label(value: Any) -> str:
    """A value as people write it: a policy by its name and options, anything else as YAML would have it."""
    if isinstance(value, list):
        return f"[{', '.join(map(value_label, value))}]"
    if isinstance(value, dict) and "name" in value:
        options = ", ".join(f"{key}={value_label(item)}" for key, item in value.items() if key != "name")
        return f"{value['name']}({options})" if options else str(value["name"])
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {value_label(item)}' for key, item in value.items())}}}"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def short_paths(paths: Sequence[str]) -> dict[str, str]:
    """Each path by as few of its last words as tell it from the others; `tiers.dram.capacity` is `dram.capacity`."""
    short = {}
    for path in paths:
        words = path.split(".")
        least = 2 if words[0] == "tiers" and len(words) > 2 else 1
        counts = range(least, len(words) + 1)
        others = [other.split(".") for other in paths if other != path]
        kept = next((n for n in counts if all(words[-n:] != other[-n:] for other in others)), len(words))
        short[path] = ".".join(words[-kept:])
    return short
