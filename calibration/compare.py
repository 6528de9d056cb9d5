"""Profiles side by side: what their kernels are charged with, how they were scored, and the points behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from calibration.data import data_folder
from calibration.importer import read_points
from calibration.points import KernelModel, Points
from calibration.shipped import SHIPPED, folder_of
from calibration.validate_kernels import model_of
from hw_profiles.errors import InputError
from hw_profiles.loader import load_profile
from hw_profiles.profile import Profile
from hw_profiles.units import format_bytes, format_count, format_rate, format_seconds

HEAD = ("tiers.hbm.peak", "tiers.hbm.read", "capacity.hbm_bytes", "capacity.l2_bytes", "capacity.sms")
LINKS = ("links.pcie_h2d.beta", "links.pcie_d2h.beta", "caps.pcie_joint")


@dataclass(frozen=True)
class Measured:
    """A kernel of a profile with the points that it was fitted to, where their tables are at hand."""

    profile: str
    points: Points
    model: KernelModel


@dataclass(frozen=True)
class Comparison:
    """names: of the profiles; sections: title -> rows of a heading and a cell per profile."""

    profiles: tuple[Profile, ...]
    sections: Mapping[str, list[tuple[str, ...]]]
    measured: tuple[Measured, ...] = ()
    missing: tuple[str, ...] = field(default=())
    """Profiles whose tables are not at hand, with the reason."""

    @property
    def names(self) -> list[str]:
        """Names of the profiles."""
        return [profile.name for profile in self.profiles]

    def as_dict(self) -> dict[str, object]:
        """For programs: every value of every profile in SI units, and the scores."""
        return {
            profile.name: {
                "kind": profile.kind,
                "values": {value.path: value.value_si for value in profile.values()},
                "heldout": {name: vars(score) for name, score in profile.heldout.items()},
                "family": dict(profile.kernels.family),
            }
            for profile in self.profiles
        }


def compare(names: Iterable[str]) -> Comparison:
    """Profiles by name or path. Raises InputError for one that does not load."""
    profiles = tuple(load_profile(name) for name in names)
    measured: list[Measured] = []
    missing: list[str] = []
    for profile in profiles:
        try:
            measured += _measured(profile)
        except InputError as error:
            missing.append(f"{profile.name}: {error}")
    groups = dict.fromkeys(
        path.rpartition(".")[0] for p in profiles for path in p.entries if path.startswith("kernels.")
    )
    sections: dict[str, list[tuple[str, ...]]] = {"machine": _machine(profiles)}
    for group in groups:
        sections[group] = _kernel(profiles, group)
    return Comparison(profiles, sections, tuple(measured), tuple(missing))


def _measured(profile: Profile) -> list[Measured]:
    shipped = SHIPPED.get(profile.name)
    if shipped is None:
        return []
    points = read_points(folder_of(shipped, data_folder()), shipped.layout, shipped.backend).points
    with_models = ((each, model_of(profile, each.name)) for each in points)
    return [Measured(profile.name, each, model) for each, model in with_models if model is not None]


def _machine(profiles: tuple[Profile, ...]) -> list[tuple[str, ...]]:
    rows = [("kind", *(profile.kind for profile in profiles))]
    paths = [*HEAD, *sorted({path for p in profiles for path in p.entries if path.startswith("peaks.")}), *LINKS]
    return rows + [(path, *(_cell(profile, path) for profile in profiles)) for path in paths]


def _kernel(profiles: tuple[Profile, ...], group: str) -> list[tuple[str, ...]]:
    keys = dict.fromkeys(
        path.rpartition(".")[2] for p in profiles for path in p.entries if path.startswith(f"{group}.")
    )
    rows = [(key, *(_cell(profile, f"{group}.{key}") for profile in profiles)) for key in keys]
    name = group.partition(".")[2]
    scored = [profile.heldout.get(name) for profile in profiles]
    if any(scored):
        rows.append(("held-out error", *(f"{score.mape:.1%} of {score.n:,}" if score else "" for score in scored)))
    if any(name in profile.kernels.family for profile in profiles):
        rows.append(("kernels", *(profile.kernels.family.get(name, "") for profile in profiles)))
    return rows


def _cell(profile: Profile, path: str) -> str:
    value = profile.entries.get(path)
    if value is None:
        return ""
    si, unit = value.value_si, value.si_unit
    if unit == "B/s":
        text = format_rate(si)
    elif unit == "FLOP/s":
        text = f"{format_count(si)}FLOP/s"
    elif unit == "s":
        text = format_seconds(si)
    elif unit == "B":
        text = format_bytes(si)
    else:
        text = f"{si:g}"
    return text if value.rel is None or not value.rel else f"{text} +-{value.rel:.0%}"
