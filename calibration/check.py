"""`kvsim calibrate check`: a profile that loads, and rates that a machine can have."""

from __future__ import annotations

from dataclasses import dataclass

from hw_profiles.errors import InputError
from hw_profiles.loader import load_profile
from hw_profiles.profile import Profile
from hw_profiles.units import format_rate

ALLOWED = 1.02
"""How much above a datasheet's peak a rate may be: clocks differ, and peaks are rounded."""


@dataclass(frozen=True)
class Checked:
    """What there is to say of a profile that is fit for use."""

    profile: Profile
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        profile = self.profile
        kernels = {path.split(".")[1] for path in profile.entries if path.startswith("kernels.")}
        head = (
            f"{profile.source}: {profile.name}, {profile.kind}, {len(profile.entries)} values, {len(kernels)} kernels"
        )
        return [head, *self.notes]

    def as_dict(self) -> dict[str, object]:
        """For programs."""
        profile = self.profile
        return {
            "profile": profile.name,
            "kind": profile.kind,
            "values": len(profile.entries),
            "widest_uncertainty": profile.widest_uncertainty,
            "unknown_uncertainty": profile.unknown_count,
            "notes": list(self.notes),
        }


def check(name_or_path: str) -> Checked:
    """Raises InputError for a profile that does not load or whose kernels exceed the peaks of its own datasheet."""
    profile = load_profile(name_or_path)
    peaks = {
        "bandwidth": profile.si("tiers.hbm.peak") if "tiers.hbm.peak" in profile.entries else None,
        "flops": max(
            (value.value_si for path, value in profile.entries.items() if path.startswith("peaks.")), default=None
        ),
    }
    for path, value in profile.entries.items():
        peak = peaks.get(path.rpartition(".")[2]) if path.startswith("kernels.") else None
        if peak is not None and value.value_si > ALLOWED * peak:
            found, most = format_rate(value.value_si), format_rate(peak)
            if value.si_unit != "B/s":
                found, most = (text.replace("B/s", "FLOP/s") for text in (found, most))
            raise InputError(
                "faster than the datasheet", where=profile.source, path=path, found=found, allowed=f"at most {most}"
            )
    return Checked(profile, tuple(_notes(profile, peaks)))


def _notes(profile: Profile, peaks: dict[str, float | None]) -> list[str]:
    notes = []
    if profile.unknown_count:
        notes.append(f"{profile.unknown_count} values state no interval")
    notes += [f"no {name} of the datasheet to compare with" for name, peak in peaks.items() if peak is None]
    wide = max(profile.entries.values(), key=lambda value: value.rel or 0.0)
    notes.append(f"widest interval: {wide.path}, +-{wide.rel or 0:.0%}")
    scored = profile.heldout
    unscored = sorted(
        {path.split(".")[1] for path in profile.entries if path.startswith("kernels.")} - set(scored) - {"launch"}
    )
    if unscored:
        notes.append(f"no held-out score: {', '.join(unscored)}")
    if scored:
        worst = max(scored, key=lambda name: scored[name].mape)
        notes.append(f"largest held-out error: {worst}, {scored[worst].mape:.1%} ({scored[worst].what})")
    return notes
