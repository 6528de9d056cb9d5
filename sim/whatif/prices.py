"""What the hardware of a run costs by the hour and draws, and its output by the million tokens."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.yaml_io import load_yaml, parse_yaml

SCHEMA = "kvsim-prices/1"
GIB = 2**30


@dataclass(frozen=True)
class Prices:
    """Prices per hour: of a GPU by hardware profile, of a node, of a GiB by tier; `sources` by path (gpu.h100-sxm)."""

    currency: str
    gpu: Mapping[str, float]
    host: float
    tiers: Mapping[str, float]
    energy: float
    """Per kWh."""
    sources: Mapping[str, str] = field(default_factory=dict)

    def told(self, gpus: Collection[str], tiers: Collection[str]) -> tuple[str, ...]:
        """What these GPUs, their nodes and tiers cost and by whom, a text for each source: "h100-sxm 2.5 USD per ...".

        Where a GPU has no price all that have one are told.
        """
        named = gpus if set(gpus) <= set(self.gpu) else self.gpu
        found: dict[str, list[str]] = {}
        rows = [(f"gpu.{name}", name, self.gpu[name], "GPU-hour") for name in self.gpu if name in named]
        rows += [(f"tiers.{name}", name, self.tiers[name], "GiB-hour") for name in self.tiers if name in tiers]
        rows += [("host", "host", self.host, "node-hour"), ("energy", "energy", self.energy, "kWh")]
        for path, name, price, unit in rows:
            source = self.sources.get(path, "" if price == 0 and path in ("host", "energy") else "no source given")
            if source:
                found.setdefault(source, []).append(f"{name} {price:g} {self.currency} per {unit}")
        return tuple(f"{', '.join(texts)}: {source}" for source, texts in found.items())


@dataclass(frozen=True)
class Cost:
    """Per hour: `gpu` + `host` + `memory` + `energy` = `total`; `per_mtok` per 10^6 output tokens, None without output.

    energy       of GPUs that draw their power limit all the time, the most that they can
    watts        that power; None where the profile does not say. j_per_token: the same per output token
    gib          GiB of each tier behind HBM, all instances
    unpriced     tiers with a capacity and no price, which are not in the total
    """

    currency: str
    gpu: float
    host: float
    memory: float
    energy: float
    total: float
    per_mtok: float | None
    watts: float | None
    j_per_token: float | None
    unpriced: tuple[str, ...]
    gib: Mapping[str, float]


def load_prices(path: Path | None = None) -> Prices:
    """The user's price table, or the one that ships. Raises InputError, one line."""
    if path is None:
        file = resources.files("sim.whatif") / "prices.yaml"
        return _read(parse_yaml(file.read_text(encoding="utf-8"), where="prices.yaml"), "prices.yaml")
    return _read(load_yaml(path), str(path))


def cost(summary: Mapping[str, Any], gpus_per_node: int, prices: Prices) -> Cost:
    """What the hardware of a run costs. Raises InputError if the table lacks a price that it needs.

    GPUs and nodes by their number (nodes filled up), memory by the capacity of the tiers behind HBM, all instances.
    Of replicas that come and go (summary["fleet"]) GPUs, nodes and energy for the share of the time that they are on.
    """
    hardware = summary["hardware"]
    profile, gpus = str(hardware["profile"]), int(hardware["gpus"])
    if profile not in prices.gpu:
        raise InputError("no price for this GPU", where="--prices", path="gpu", found=profile, allowed=[*prices.gpu])
    sizes = {name: tier["capacity_bytes"] / GIB for name, tier in summary["tiers"].items() if name != "hbm"}
    on = float(summary.get("fleet", {}).get("on_share", 1.0))
    gpu = on * gpus * prices.gpu[profile]
    host = on * math.ceil(gpus / gpus_per_node) * prices.host
    memory = sum(size * prices.tiers.get(name, 0.0) for name, size in sizes.items())
    limit = hardware["gpu_power_limit_w"]
    if prices.energy and limit is None:
        raise InputError("energy has a price, but the profile has no power_limit", where="--prices", found=profile)
    watts = None if limit is None else on * gpus * limit
    energy = (watts or 0.0) / 1e3 * prices.energy
    total = gpu + host + memory + energy
    tokens_per_s = summary["throughput"]["output_tokens_per_s"]
    unpriced = tuple(name for name, size in sizes.items() if size and name not in prices.tiers)
    per_mtok = total / (tokens_per_s * 3600) * 1e6 if tokens_per_s else None
    j_per_token = watts / tokens_per_s if watts is not None and tokens_per_s else None
    return Cost(prices.currency, gpu, host, memory, energy, total, per_mtok, watts, j_per_token, unpriced, sizes)


def _read(document: Mapping[str, Any], where: str) -> Prices:
    keys = ("schema", "currency", "sources", "gpu", "host", "tiers", "energy")
    for key in document:
        if key not in keys:
            raise InputError("unknown key", where=where, found=key, allowed=keys, near=keys)
    if document.get("schema") != SCHEMA:
        raise InputError("", where=where, path="schema", found=document.get("schema"), allowed=SCHEMA)
    sources = document.get("sources") or {}
    if not isinstance(sources, dict):
        raise InputError("", where=where, path="sources", found=sources, allowed="a mapping of names to texts")
    said: dict[str, str] = {}

    def price(node: Any, path: str) -> float:
        value = node
        if isinstance(node, dict):
            if not set(node) <= {"v", "src"} or "v" not in node:
                raise InputError(
                    "", where=where, path=path, found=node, allowed="a number, or {v: number, src: source}"
                )
            value, source = node["v"], node.get("src")
            if source is not None and source not in sources:
                raise InputError("unknown source", where=where, path=f"{path}.src", found=source, allowed=[*sources])
            if source is not None:
                said[path] = str(sources[source])
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise InputError(
                "", where=where, path=path, found=value, allowed="a number >= 0, per hour (energy: per kWh)"
            )
        return float(value)

    def by_name(key: str) -> dict[str, float]:
        found = document.get(key) or {}
        if not isinstance(found, dict):
            raise InputError("", where=where, path=key, found=found, allowed="a mapping of names to prices")
        return {str(name): price(node, f"{key}.{name}") for name, node in found.items()}

    gpu, tiers = by_name("gpu"), by_name("tiers")
    host, energy = (price(document.get(key, 0), key) for key in ("host", "energy"))
    return Prices(str(document.get("currency", "USD")), gpu, host, tiers, energy, said)
