"""The sweep file (schema kvsim-sweep/1): a scenario, and which runs of it to make.

`vary:` lists by dotted path, every combination; or `sample:` ranges by dotted path with `samples:` draws of all of
them; or ranges with `search:`, where a search chooses as many points, by what those before gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.yaml_io import load_yaml
from sim.metrics import METRICS
from sim.scenario import Scenario
from sim.whatif.ranges import Range, read_ranges, sampled
from sim.whatif.variants import Variant, expand, settled

SCHEMA = "kvsim-sweep/1"
KEYS = ("schema", "scenario", "set", "vary", "sample", "samples", "seed", "search")
SEARCH_KEYS = ("minimize", "maximize", "meet_slo")


@dataclass(frozen=True)
class Search:
    """What a search looks for: the least, or the largest, value of a metric; of runs that meet the SLO, if wished."""

    metric: str
    largest: bool
    meet_slo: bool


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep: `variants` in order, or, with `search`, `runs` of them that it will choose from `ranges`."""

    scenario: Scenario
    variants: tuple[Variant, ...]
    ranges: tuple[Range, ...] = ()
    runs: int = 0
    seed: int = 0
    search: Search | None = None
    common: tuple[tuple[str, Any], ...] = ()
    """What the file sets in every run: (dotted path, value)."""

    def variant(self, settings: Mapping[str, Any]) -> Variant:
        """The variant with these settings."""
        return settled(self.scenario, settings, common=self.common)


def load_sweep(path: Path, samples: int | None = None) -> Sweep:
    """Read a sweep file; `samples` in place of its own. Raises InputError, one line, before anything runs."""
    document = load_yaml(path)
    for key in document:
        if key not in KEYS:
            raise InputError("unknown key", where=path, found=key, allowed=KEYS, near=KEYS)
    if document.get("schema") != SCHEMA:
        raise InputError("", where=path, path="schema", found=document.get("schema"), allowed=SCHEMA)
    name = document.get("scenario")
    if not isinstance(name, str):
        raise InputError("", where=path, path="scenario", found=name, allowed="the path of a scenario file")
    scenario = Scenario.load(path.parent / name)
    common = tuple(_mapping(document, "set", path).items())
    if "sample" in document:
        return _of_ranges(document, scenario, common, path, samples)
    for key in ("samples", "seed", "search"):
        if key in document:
            raise InputError("needs ranges", where=path, path=key, allowed="sample: {a.b: {uniform: [1, 8]}}")
    if samples is not None:
        raise InputError("the sweep has no ranges to draw from", where="--samples", allowed="a file with `sample:`")
    vary = _mapping(document, "vary", path)
    if not vary:
        raise InputError("", where=path, path="vary", found=document.get("vary"), allowed="{a.b: [x, y]}")
    for key, values in vary.items():
        if not isinstance(values, list) or not values:
            raise InputError("", where=path, path=f"vary.{key}", found=values, allowed="a list of one value or more")
    variants = expand(scenario, list(vary.items()), where=str(path), common=common)
    return Sweep(scenario, tuple(variants), common=common)


def _of_ranges(
    document: Mapping[str, Any],
    scenario: Scenario,
    common: tuple[tuple[str, Any], ...],
    path: Path,
    samples: int | None,
) -> Sweep:
    if "vary" in document:
        raise InputError("either lists or ranges, not both", where=path, path="vary", allowed="vary: or sample:")
    ranges = read_ranges(_mapping(document, "sample", path), str(path))
    if not ranges:
        raise InputError("", where=path, path="sample", found=document["sample"], allowed="{a.b: {uniform: [1, 8]}}")
    valid = _check_ends(ranges, scenario, common)
    count, where = (samples, "--samples") if samples is not None else (document.get("samples"), str(path))
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        at = None if samples is not None else "samples"
        raise InputError("", where=where, path=at, found=count, allowed="how many runs: a whole number >= 1")
    seed = document.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError("", where=path, path="seed", found=seed, allowed="a whole number >= 0")
    search = _search(document["search"], valid, path) if "search" in document else None
    draws = [] if search else sampled(ranges, count, seed)
    variants = tuple(settled(scenario, draw, common=common) for draw in draws)
    return Sweep(scenario, variants, tuple(ranges), count, seed, search, common)


def _check_ends(ranges: Sequence[Range], scenario: Scenario, common: Sequence[tuple[str, Any]]) -> Scenario:
    """A scenario of the ranges. Raises InputError for an end that is valid neither alone nor beside others' ends."""
    corners: list[dict[str, Any]] = [{}, *({one.path: one.ends()[end] for one in ranges} for end in (0, -1))]
    found = scenario
    for one in ranges:
        for value in one.ends():
            wrong = None
            for corner in corners:
                try:
                    found = settled(scenario, {**corner, one.path: value}, common=common).scenario
                    break
                except InputError as error:
                    wrong = wrong or error
            else:
                if wrong is not None:
                    raise wrong
    return found


def _search(node: Any, scenario: Scenario, path: Path) -> Search:
    allowed = "{minimize: METRIC} or {maximize: METRIC}, and meet_slo: true"
    if not isinstance(node, dict) or ("minimize" in node) == ("maximize" in node):
        raise InputError("", where=path, path="search", found=node, allowed=allowed)
    for key in node:
        if key not in SEARCH_KEYS:
            raise InputError("unknown key", where=path, path="search", found=key, allowed=SEARCH_KEYS, near=SEARCH_KEYS)
    way = "maximize" if "maximize" in node else "minimize"
    keys: Sequence[str] = [metric.key for metric in METRICS]
    if node[way] not in keys:
        raise InputError("unknown metric", where=path, path=f"search.{way}", found=node[way], allowed=keys, near=keys)
    meet = node.get("meet_slo", False)
    if not isinstance(meet, bool):
        raise InputError("", where=path, path="search.meet_slo", found=meet, allowed=("true", "false"))
    if meet and not scenario.spec.slo:
        raise InputError("the scenario has no SLO", where=path, path="search.meet_slo", allowed="slo: {ttft_p99: 2s}")
    return Search(node[way], way == "maximize", meet)


def _mapping(document: Mapping[str, Any], key: str, where: Path) -> dict[str, Any]:
    found = document.get(key) or {}
    if not isinstance(found, dict):
        raise InputError("", where=where, path=key, found=found, allowed="a mapping of dotted paths to values")
    return found
