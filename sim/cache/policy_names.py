"""How a study calls a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hw_profiles.errors import InputError


def as_mapping(policy: Any) -> dict[str, Any]:
    """A policy as a mapping of its `name` and options. Raises InputError for anything else."""
    if isinstance(policy, Mapping) and isinstance(policy.get("name"), str):
        return dict(policy)
    if not isinstance(policy, str):
        raise InputError("", path="policy", found=policy, allowed="a name, or {name: s3fifo, small_ratio: 0.1}")
    return {"name": policy}


def label(spec: Mapping[str, Any]) -> str:
    """How a policy is called in rows: its name, and options if it has any: `s3fifo(small_ratio=0.2)`."""
    options = ", ".join(f"{key}={value}" for key, value in spec.items() if key != "name")
    return f"{spec['name']}({options})" if options else str(spec["name"])
