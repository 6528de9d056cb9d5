"""What every part of the scenario schema is made of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw_profiles.errors import InputError

Count = Annotated[int, Field(ge=1, strict=True)]


class Spec(BaseModel):
    """Base of every part: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PolicySpec(BaseModel):
    """A policy and its options: `lru`, `{name: lru}`, or `{name: "my_policy.py:MyPolicy", option: value}`."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict) or "name" not in value:
            raise InputError("", found=value, allowed="a policy name, or {name: ..., option: value}")
        return value

    def resolved(self, base_dir: Path) -> dict[str, Any]:
        """With an absolute path, if the name is a file."""
        source, colon, attribute = self.name.rpartition(":")
        name = f"{(base_dir / source).resolve()}:{attribute}" if colon and source.endswith(".py") else self.name
        return {**self.model_dump(), "name": name}


def resolved_path(name_or_path: str, base_dir: Path) -> str:
    """`name_or_path` made absolute if it looks like a path (has a slash or a file ending); else unchanged."""
    if "/" in name_or_path or re.search(r"\.(ya?ml|json)$", name_or_path):
        return str((base_dir / Path(name_or_path).expanduser()).resolve())
    return name_or_path
