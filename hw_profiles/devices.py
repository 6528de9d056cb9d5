"""What can sit behind host memory: drives, network cards, memory on another bus. One YAML each in `devices/`.

The form is that of machine profiles (`schema`): every value is `{v, unit, src}` with its 90 % interval. `read` is what
leaves the device (a load), `write` what goes to it (a store); each is a `cost_models.DeviceLink`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hw_profiles import quantity
from hw_profiles.cost_models import DeviceLink
from hw_profiles.errors import InputError
from hw_profiles.loader import read_group, read_sources, read_word
from hw_profiles.quantity import Quantity
from hw_profiles.schema import ProfileValue, check_keys, mapping, overridden
from hw_profiles.yaml_io import parse_yaml, read_text

SCHEMA = "kvsim-device/1"
KINDS = ("memory", "storage", "network")
DIRECTIONS = ("read", "write")
_SHIPPED = Path(__file__).parent / "devices"
_REQUIRED: Mapping[str, Quantity] = MappingProxyType({"latency": quantity.TIME, "bandwidth": quantity.RATE})
_VALUES: Mapping[str, Quantity] = MappingProxyType(
    {**_REQUIRED, "single": quantity.SHARE, "saturation": quantity.COUNT, "per_io": quantity.TIME}
)
_SHARED: Mapping[str, Quantity] = MappingProxyType({"joint": quantity.RATE})
_COPY: Mapping[str, Quantity] = MappingProxyType({"least": quantity.SIZE, "most": quantity.SIZE})
_TOP_KEYS = ("schema", "name", "kind", "what", "sources", "read", "write", "caps", "measured_copies")


@dataclass(frozen=True)
class Device:
    """One device. `entries` maps each dotted path to its value; the attributes read from it, in SI units."""

    name: str
    kind: str
    """"memory" (addressed by the GPU's copies directly), "storage" or "network" (filled from host memory)."""
    what: str
    """One line: which device it is."""
    entries: Mapping[str, ProfileValue]
    sources: Mapping[str, str]
    source: str
    content_sha256: str

    def values(self) -> list[ProfileValue]:
        """Every value with its source, in the order of the file."""
        return list(self.entries.values())

    def override(self, path: str, value: float | str, source: str = "set in the scenario") -> Device:
        """The same device with one value replaced: a number in SI units, or text ("3 GB/s")."""
        if path not in self.entries:
            raise InputError("no such value", where=self.source, found=path, near=self.entries)
        new = overridden(path, value, source, quantity_of_device(path))
        return replace(self, entries={**self.entries, path: new})

    def with_link(self, direction: str, *, bandwidth: float | None = None, latency: float | None = None) -> Device:
        """The same device with other values of "read" or "write": `bandwidth` (bytes/s) makes it a plain link without
        ramp or time per copy, `latency` (s) replaces that alone."""
        changed = self
        if bandwidth is not None:
            dropped = {f"{direction}.{key}" for key in ("single", "saturation", "per_io")}
            kept = {path: value for path, value in self.entries.items() if path not in dropped}
            changed = replace(self, entries=kept).override(f"{direction}.bandwidth", bandwidth)
        return changed if latency is None else changed.override(f"{direction}.latency", latency)

    def with_joint(self, bandwidth: float) -> Device:
        """The same device with `bandwidth` (bytes/s) for reads and writes together."""
        joint = overridden("caps.joint", bandwidth, "set in the scenario", _SHARED["joint"])
        return replace(self, entries={**self.entries, joint.path: joint})

    @cached_property
    def read(self) -> DeviceLink:
        """Cost of reads: bytes that leave the device."""
        return self._link("read")

    @cached_property
    def write(self) -> DeviceLink:
        """Cost of writes: bytes that go to the device."""
        return self._link("write")

    @property
    def joint(self) -> float | None:
        """Bytes/s of reads and writes together while both are under way; None where both reach their rates at once."""
        return self.entries["caps.joint"].value_si if "caps.joint" in self.entries else None

    @property
    def measured_copies(self) -> tuple[float, float] | None:
        """Least and most bytes of the copies that its rates were measured with; None if the file does not say."""
        paths = ("measured_copies.least", "measured_copies.most")
        if any(path not in self.entries for path in paths):
            return None
        least, most = (self.entries[path].value_si for path in paths)
        return least, most

    def _link(self, direction: str) -> DeviceLink:
        given = {key: self.entries.get(f"{direction}.{key}") for key in _VALUES}
        values: dict[str, Any] = {key: value.value_si for key, value in given.items() if value is not None}
        return DeviceLink(**{**values, "saturation": int(values.get("saturation", 1))})


def quantity_of_device(path: str) -> Quantity:
    """The quantity that a dotted value path of a device holds."""
    group, _, key = path.rpartition(".")
    kinds: Mapping[str, Mapping[str, Quantity]] = {"caps": _SHARED, "measured_copies": _COPY}
    return kinds.get(group, _VALUES)[key]


def list_devices() -> list[str]:
    """Names of the shipped devices."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def load_device(name_or_path: str | Path) -> Device:
    """Device of a shipped name ("nvme-gen4") or a YAML file. Raises InputError (file, path, value)."""
    text, names = str(name_or_path), list_devices()
    if text in names:
        return read_device(_SHIPPED / f"{text}.yaml")
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        return read_device(path)
    allowed = f"the path of a .yaml file, or one of {', '.join(names)}"
    raise InputError("unknown device", found=text, allowed=allowed, near=names)


def read_device(path: Path) -> Device:
    """Device of one YAML file; see `load_device`."""
    return _loaded(path, read_text(path))


@lru_cache(maxsize=64)  # until the file changes
def _loaded(path: Path, text: str) -> Device:
    document = parse_yaml(text, where=path)
    try:
        return _device(document, str(path), hashlib.sha256(text.encode()).hexdigest())
    except InputError as error:
        raise error.at(where=path) from None


def _device(document: Mapping[str, Any], source: str, sha256: str) -> Device:
    if document.get("schema") != SCHEMA:
        raise InputError("", path="schema", found=document.get("schema", "nothing"), allowed=SCHEMA)
    check_keys(document, _TOP_KEYS, None)
    kind = document.get("kind")
    if kind not in KINDS:
        raise InputError("", path="kind", found=kind, allowed=KINDS)
    sources = read_sources(document)
    return Device(
        name=read_word(document, "name"),
        kind=kind,
        what=" ".join(read_word(document, "what").split()),
        entries={value.path: value for value in _values(document, sources)},
        sources=sources,
        source=source,
        content_sha256=sha256,
    )


def _values(document: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[ProfileValue]:
    for direction in DIRECTIONS:
        group = mapping(document.get(direction), direction)
        values = {value.path: value for value in read_group(direction, group, _VALUES, _REQUIRED, sources)}
        single = values.get(f"{direction}.single")
        saturation = values.get(f"{direction}.saturation")
        if single is not None and single.value_si < 1 and (saturation is None or saturation.value_si < 2):
            raise InputError(
                "missing or 1, but one copy alone gets less than the full rate",
                path=f"{direction}.saturation",
                allowed="the outstanding copies that get the full rate, 2 or more",
            )
        yield from values.values()
    yield from read_group("caps", document.get("caps", {}), _SHARED, {}, sources)
    copies = {v.path: v for v in read_group("measured_copies", document.get("measured_copies", {}), _COPY, {}, sources)}
    if len(copies) == 1:
        raise InputError("least and most go together", path="measured_copies")
    yield from copies.values()
