"""What a plan must know of the machine: from the machine itself, or from a profile when there is no GPU."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.suite.point import Costs
from hw_profiles.profile import Profile

GIB = 2**30
ACHIEVED = 0.9
"""Share of the datasheet's memory rate that kernels reach."""


@dataclass(frozen=True)
class Facts:
    """One machine. kind: cuda, hip or cpu; arch: compute capability ("9.0") or gfx name; sizes in bytes."""

    kind: str
    name: str
    arch: str
    sms: int
    l2_bytes: int
    memory_bytes: int
    free_bytes: int
    host_bytes: int
    uuid: str = ""
    peak: float = 0.0
    """Datasheet rate of the memory, bytes/s: memory clock x 2 x bus width; 0 if unknown."""

    @property
    def fp8(self) -> bool:
        """Whether it multiplies fp8 e4m3 (compute capability 8.9 or later)."""
        return self.kind == "cuda" and tuple(map(int, self.arch.split("."))) >= (8, 9)

    @property
    def bulk_prefetch(self) -> bool:
        """Whether it has cp.async.bulk.prefetch.L2 (compute capability 9.0 or later)."""
        return self.kind == "cuda" and tuple(map(int, self.arch.split("."))) >= (9, 0)


def facts_of(profile: Profile, arch: str = "9.0") -> Facts:
    """What a profile says of its machine; a host with 64 GiB is assumed."""
    return Facts(
        kind="cuda",
        name=profile.name,
        arch=arch,
        sms=profile.sms,
        l2_bytes=profile.l2_bytes,
        memory_bytes=profile.hbm_bytes,
        free_bytes=profile.hbm_bytes,
        host_bytes=64 * GIB,
    )


def costs_of(profile: Profile, peak: float = 0.0) -> Costs:
    """What a profile predicts, in the few numbers that a plan needs.

    peak: datasheet rate of the memory of the card that is measured (bytes/s), if it is another: everything on it is
    taken to be slower or faster by as much.
    """
    scale = ACHIEVED * peak / profile.hbm_bandwidth if peak else 1.0
    link = profile.copy_model("pcie_h2d")
    per_copy = {method: profile.copy_model("pcie_h2d", method).alpha for method in profile.copy_methods("pcie_h2d")}
    return Costs(
        hbm=scale * profile.hbm_bandwidth,
        l2=scale * (profile.si("tiers.l2.read") if "tiers.l2.read" in profile.entries else 3 * profile.hbm_bandwidth),
        gemm=scale * profile.gemm.flops,
        attention=scale * profile.prefill.flops / 2,  # Triton kernels, not FlashAttention-3
        link=link.beta,
        launch=profile.launch.stream,
        l2_bytes=profile.l2_bytes,
        per_copy={"loop": 5e-6, "batch": 1e-6, "kernel": 1e-6} | per_copy,
    )


def cpu_costs(l2_bytes: int) -> Costs:
    """Rough rates of two cores."""
    per_copy = {"loop": 5e-6, "batch": 5e-6, "kernel": 5e-6}
    return Costs(8e9, 20e9, 1e11, 2e10, 8e9, 2e-5, l2_bytes, per_copy, memcpy=8e9)
