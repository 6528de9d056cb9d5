"""The machine that measurements are of: its sheet in `hw_profiles/machines`, found by the name of the device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.aic_source import Memory
from hw_profiles.documents import MACHINES, find, list_shipped
from hw_profiles.errors import InputError
from hw_profiles.quantity import COMPUTE, COUNT, RATE, SIZE
from hw_profiles.schema import read_value
from hw_profiles.yaml_io import load_yaml

QUANTITIES = {"l2_bytes": SIZE, "peak": RATE, "sms": COUNT}


@dataclass(frozen=True)
class Machine:
    """A machine sheet: its name (or path), the devices it stands for, L2 size and HBM peak, SMs."""

    name: str
    devices: tuple[str, ...]
    memory: Memory
    sms: int


def load_machine(name_or_path: str | Path) -> Machine:
    """The sheet of a shipped name or of a YAML file. Raises InputError."""
    path = find(name_or_path, MACHINES, "machine")
    sheet = load_yaml(path)
    try:
        l2, peak, sms = (_number(sheet, place) for place in ("capacity.l2_bytes", "tiers.hbm.peak", "capacity.sms"))
        flops = {dtype: _number(sheet, f"peaks.{dtype}") for dtype in sheet.get("peaks") or {}}
    except InputError as error:
        raise error.at(where=path) from None
    devices = sheet.get("devices", [])
    name = str(name_or_path) if str(name_or_path) in list_shipped(MACHINES) else str(path.resolve())
    return Machine(name, tuple(map(str, devices)), Memory(l2, peak, flops), int(sms))


def check_machine(machine: Machine, device: str, where: Path) -> None:
    """Raise InputError when `device`, which measurements name, is known to be another machine than the one named."""
    if not machine.devices or device in machine.devices:
        return
    for name in list_shipped(MACHINES):
        if device in load_machine(name).devices:
            problem = f"measured on {device}, which is another machine"
            raise InputError(problem, where=where, path="--machine", found=machine.name, allowed=name)


def machine_of(device: str, where: Path) -> Machine:
    """The shipped machine that a measured device is. Raises InputError when none is."""
    for name in list_shipped(MACHINES):
        machine = load_machine(name)
        if device in machine.devices:
            return machine
    raise InputError(
        "a device that no shipped machine stands for: name one with --machine",
        where=where,
        found=device or "no device",
        allowed=list_shipped(MACHINES),
        near=list_shipped(MACHINES),
    )


def _number(sheet: dict[str, Any], place: str) -> float:
    node: Any = sheet
    for key in place.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    quantity = COMPUTE if place.startswith("peaks.") else QUANTITIES[place.rpartition(".")[2]]
    sources = {key: str(key) for key in sheet.get("sources", {})}
    return read_value(place, node, quantity, sources).value_si
