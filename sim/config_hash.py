"""What makes a run this run: the hash of all that it came from."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from policies.build import policy_source
from policies.tables import NAMED
from sim.inputs import Inputs
from sim.scenario import Scenario


def config_sha256(scenario: Scenario, inputs: Inputs) -> str:
    """Hash of the version, the scenario and the content of everything that it names (not of where that lies)."""
    spec = scenario.spec
    plain = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    named = {"trace": ("name", "path"), "hardware": ("profile",)}
    for section, keys in named.items():
        plain[section] = {k: v for k, v in plain[section].items() if k not in keys}
    del plain["model"]
    if "path" in plain.get("importance", {}):
        plain["importance"]["path"] = hashlib.sha256(
            (scenario.base_dir / Path(plain["importance"]["path"]).expanduser()).read_bytes()
        ).hexdigest()
    if inputs.speculation is not None and plain["engine"]["speculation"].get("model"):
        plain["engine"]["speculation"]["model"] = inputs.speculation.content_sha256
    if "warm_start" in plain:
        begun = inputs.warm_start or inputs.snapshot
        plain["warm_start"]["path"] = begun.content_sha256 if begun else None
    sources = b""
    beside = {"routing": plain["routing"], "admission_control": plain.get("admission_control")}
    fleet = plain.get("fleet", {})
    comes = [{"fleet": fleet.get(key)} for key in ("scaling", "prewarm")]
    apart = plain.get("disaggregation", {})
    for section in (beside, *comes, {"routing": apart.get("routing")}, plain["policies"], *plain["tiers"]):
        for family in NAMED:
            named = section.get(family)
            for policy in (named if isinstance(named, list) else [named]) if named else ():
                sources += hashlib.sha256(policy_source(policy["name"], base_dir=scenario.base_dir)).digest()
                policy["name"] = policy["name"].rpartition(":")[2]
    digest = hashlib.sha256()
    devices = [device.content_sha256 for device in inputs.devices.values()]
    for tier in (*plain["tiers"], apart.get("link", {})):
        tier.pop("device", None)
    content = (*devices, inputs.trace.content_sha256, inputs.model.content_sha256, inputs.profile.content_sha256)
    for part in (installed_version(), json.dumps(plain, sort_keys=True), *content):
        digest.update(part.encode() + b"\0")
    digest.update(sources)
    return digest.hexdigest()


def installed_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("kvsim")
    except PackageNotFoundError:
        return "0+unknown"
