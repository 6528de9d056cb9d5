"""How fast a working set is read through L2: a knee between the L2 rate and the HBM rate.

time per byte = h / B_L2 + (1 - h) / B_HBM,  h = clip((C2 - w) / (C2 - C1), 0, 1)

for a working set of w bytes read again and again: up to C1 bytes everything hits, from C2 bytes on nothing does.
SOURCE of the form: read rates by footprint of RRZE-HPC/gpu-benches gpu-l2-cache, which `calibration.fit_l2` fits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw_profiles.errors import InputError
from hw_profiles.profile import Profile
from hw_profiles.residual import Number


@dataclass(frozen=True)
class L2Model:
    """The knee; rates in bytes/s, footprints in bytes, full_hit_bytes < full_miss_bytes."""

    read: float
    hbm: float
    full_hit_bytes: float
    full_miss_bytes: float

    def hit(self, footprint: Number) -> Number:
        """Share of the reads that hit when `footprint` bytes pass through L2 between two uses of a line."""
        share = (self.full_miss_bytes - footprint) / (self.full_miss_bytes - self.full_hit_bytes)
        return np.clip(share, 0.0, 1.0) if isinstance(share, np.ndarray) else min(1.0, max(0.0, share))

    def seconds(self, nbytes: Number, footprint: Number) -> Number:
        """Time to read `nbytes` of a working set of `footprint` bytes."""
        hit = self.hit(footprint)
        return nbytes * (hit / self.read + (1 - hit) / self.hbm)


def l2_model(profile: Profile) -> L2Model:
    """The knee of a profile; its footprints grow and shrink with `capacity.l2_bytes`.

    They were measured on a GPU whose L2 has `tiers.l2.measured_bytes` (by default as many as this one).
    Raises InputError if the profile lacks one of them or they contradict each other.
    """
    size = profile.si("capacity.l2_bytes")
    path = "tiers.l2.measured_bytes"
    scale = size / profile.si(path) if path in profile.entries else 1.0
    names = ("tiers.l2.read", "tiers.hbm.read", "tiers.l2.full_hit_bytes", "tiers.l2.full_miss_bytes")
    read, hbm, hit, miss = (profile.si(name) for name in names)
    if not hit < miss:
        raise InputError(
            "must be more than full_hit_bytes",
            where=profile.source,
            path="tiers.l2.full_miss_bytes",
            found=f"{miss:g} B",
        )
    if read < hbm:
        raise InputError(
            "must not be less than tiers.hbm.read", where=profile.source, path="tiers.l2.read", found=f"{read:g} B/s"
        )
    return L2Model(read, hbm, hit * scale, miss * scale)
