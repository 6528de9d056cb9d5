"""The `importance:` section of a scenario: a name, or a mapping with a name and its options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hw_profiles.errors import InputError
from traces.importance.pages import SETTINGS
from traces.importance.provider import Provider
from traces.importance.recorded import Recorded
from traces.importance.synthetic import Synthetic
from traces.importance.table import Table

OPTIONS = {"synthetic": ("setting",), "table": (), "recorded": ("path",)}
"""Providers and the options of each."""
DEFAULT = "synthetic"


def build(spec: Mapping[str, object] | str, base_dir: Path, *, path: str = "importance") -> Provider:
    """The provider that `spec` names; a relative file is looked for beside the scenario (`base_dir`).

    Raises InputError naming `path` in the scenario for an unknown name, option, setting or file.
    """
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = options.pop("name", DEFAULT)
    if not isinstance(name, str) or name not in OPTIONS:
        raise InputError("unknown provider", path=f"{path}.name", found=name, allowed=OPTIONS, near=OPTIONS)
    for key in options:
        if key not in OPTIONS[name]:
            allowed = OPTIONS[name] or "nothing but its name"
            raise InputError(f"not an option of {name}", path=path, found=key, allowed=allowed, near=OPTIONS[name])
    if name == "table":
        return Table()
    if name == "recorded":
        file = options.get("path")
        if not isinstance(file, str):
            raise InputError("", path=f"{path}.path", found=file, allowed="a file of recorded scores (.npz)")
        return Recorded.load(Path(base_dir) / Path(file).expanduser())
    setting = options.get("setting", next(iter(SETTINGS)))
    if not isinstance(setting, str) or setting not in SETTINGS:
        text = "unknown setting"
        raise InputError(text, path=f"{path}.setting", found=setting, allowed=SETTINGS, near=SETTINGS)
    return Synthetic(setting)
