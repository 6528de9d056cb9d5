"""What bounds a step: the part of its time that waits for HBM, and the part that waits for arithmetic."""

from __future__ import annotations

from hw_profiles.cost_models import GemmModel


class Bound:
    """Seconds of a kernel or a step by what they wait for; fixed times (launches, ramps, floors) are in neither."""

    __slots__ = ("compute_s", "hbm_s")

    def __init__(self, hbm_s: float, compute_s: float) -> None:
        self.hbm_s = hbm_s
        self.compute_s = compute_s

    def times(self, count: float) -> Bound:
        """That of `count` such kernels."""
        return Bound(count * self.hbm_s, count * self.compute_s)


NOTHING = Bound(0.0, 0.0)


def gemm_bound(model: GemmModel, nbytes: float, flops: float) -> Bound:
    """How a product's time t0 + (m^p + c^p)^(1/p) splits, m = bytes / bandwidth, c = flops / rate.

    Each part is what the time would change by in proportion: m dT/dm and c dT/dc. They add up to T - t0 (Euler's
    theorem for homogeneous functions), so a product that is bound by memory alone is HBM time as a whole.
    """
    p = model.p
    memory, compute = nbytes / model.bandwidth, flops / model.flops
    larger = max(memory, compute)
    if larger == 0:
        return NOTHING
    shares = (memory / larger) ** p, (compute / larger) ** p  # the powers of the times themselves underflow
    both = shares[0] + shares[1]
    scale = larger * both ** (1 / p) / both
    return Bound(scale * shares[0], scale * shares[1])
