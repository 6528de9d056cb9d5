"""Values drawn from their stated intervals: machines as they may well be.

The 90 % interval lo..hi of a value v is taken as that of a two-piece distribution with median v: below v log-normal
down to lo, above it log-normal up to hi (normal where v or lo is 0), cut at `MOST_SIGMAS`. Values are drawn
independently, although the parameters of one fit are correlated: bands come out somewhat too wide. A kernel that was
scored on held-out measurements takes, besides, a factor on all of its times, log-normal with the mean absolute error
that it was scored with: what the formula itself misses on the few shapes that a model has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import NormalDist

from hw_profiles.devices import Device, quantity_of_device
from hw_profiles.profile import Profile
from hw_profiles.quantity import Quantity
from hw_profiles.schema import ProfileValue, quantity_of

Draw = Callable[[str], float]
"""A uniform number in (0, 1) for a name; the same name gives the same number."""

EDGE = NormalDist().inv_cdf(0.95)
"""Standard deviations at the ends of a 90 % interval."""
MOST_SIGMAS = 3.0
MEAN_TO_SIGMA = math.sqrt(math.pi / 2)
"""Standard deviation of a normal error by its mean absolute value."""
PER = ("per_seq", "per_token", "per_context", "per_kv", "per_write", "per_split")
TIMES = ("t0", "floor", "split", *PER, "alpha", "stream", "graph")
RATES = ("bandwidth", "flops", "beta")
"""Values of a kernel that its time is in proportion to, and those that it is in proportion to the inverse of."""


def sampled_profile(profile: Profile, draw: Draw) -> Profile:
    """The profile with every value that states an interval drawn from it. `draw` is asked for paths."""
    errors = {name: _deviate(draw(f"kernels.{name}")) * MEAN_TO_SIGMA * s.mape for name, s in profile.heldout.items()}
    entries = {}
    for path, value in profile.entries.items():
        si = _drawn(value, draw(path))
        group, _, key = path.rpartition(".")
        error = errors.get(group.removeprefix("kernels."), 0.0)
        if error and key in (*TIMES, *RATES):
            si *= math.exp(error if key in TIMES else -error)
        entries[path] = replace(value, value_si=within_bounds(si, quantity_of(path)))
    return replace(profile, entries=l2_holds(entries))


def sampled_device(device: Device, draw: Draw) -> Device:
    """The same of a device behind a tier."""
    entries = {
        path: replace(value, value_si=within_bounds(_drawn(value, draw(path)), quantity_of_device(path)))
        for path, value in device.entries.items()
    }
    return replace(device, entries=entries)


def _drawn(value: ProfileValue, u: float) -> float:
    lo, hi, v = value.lo, value.hi, value.value_si
    if lo is None or hi is None or lo == hi:
        return v
    z = _deviate(u) / EDGE
    end = hi if z > 0 else lo
    if v > 0 and end > 0:
        return v * math.pow(end / v, abs(z))
    return v + abs(z) * (end - v)


def _deviate(u: float) -> float:
    return max(-MOST_SIGMAS, min(MOST_SIGMAS, NormalDist().inv_cdf(u)))


def within_bounds(si: float, quantity: Quantity | None) -> float:
    """Inside the bounds of the quantity, and whole where it is."""
    if quantity is None:
        return si
    si = min(max(si, quantity.least), quantity.most)
    return max(float(round(si)), 1.0) if quantity.whole else si


def l2_holds(entries: Mapping[str, ProfileValue]) -> dict[str, ProfileValue]:
    """L2 is no slower than HBM, and full hits end before full misses begin, whatever was drawn for each."""
    out = dict(entries)
    for low, high in (("tiers.hbm.read", "tiers.l2.read"), ("tiers.l2.full_hit_bytes", "tiers.l2.full_miss_bytes")):
        if low in out and high in out and out[high].value_si <= out[low].value_si:
            out[high] = replace(out[high], value_si=float(math.ceil(1.001 * out[low].value_si)))
    return out
