"""A machine without kernel tables, from the calibration of another one and both datasheets.

Bandwidths go with the HBM peaks, FLOP rates with the dense bf16 peaks, what a tile of attention takes with the FLOP
rate of one multiprocessor, what prefill moves per KV head with the bandwidths; other times stay, tables of ratios do
not carry over. How far off
that is on machines that do have tables: `calibration.validate_kernels`, all ordered pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hw_profiles.cost_models import DecodeModel, GemmModel
from hw_profiles.prefill_cost import PrefillModel
from hw_profiles.profile import Profile


@dataclass(frozen=True)
class Datasheet:
    """HBM peak (bytes/s), dense bf16 peak (FLOP/s), multiprocessors, L2 (bytes)."""

    bandwidth: float
    flops: float
    sms: float
    l2_bytes: float

    @classmethod
    def of(cls, profile: Profile) -> Datasheet:
        """What a profile's datasheet says. Raises InputError if it lacks a peak."""
        return cls(
            *(profile.si(path) for path in ("tiers.hbm.peak", "peaks.bf16", "capacity.sms", "capacity.l2_bytes"))
        )


@dataclass(frozen=True)
class Transferred:
    """Formulas of the three kernels that every profile has, without tables."""

    gemm: GemmModel
    decode: DecodeModel
    prefill: PrefillModel


def transfer(source: Profile, target: Datasheet) -> Transferred:
    """The kernels of `source` on a machine of which only the datasheet is known."""
    own = Datasheet.of(source)
    memory, compute = target.bandwidth / own.bandwidth, target.flops / own.flops
    one_sm = compute * own.sms / target.sms
    gemm, decode, prefill = source.gemm, source.decode, source.prefill
    return Transferred(
        replace(gemm, bandwidth=gemm.bandwidth * memory, flops=gemm.flops * compute, residual=None),
        replace(decode, bandwidth=decode.bandwidth * memory, residual=None),
        replace(
            prefill,
            flops=prefill.flops * compute,
            per_context=prefill.per_context / one_sm,
            residual=None,
            memory=replace(
                prefill.memory,
                per_kv=prefill.memory.per_kv / memory,
                warm_bytes=prefill.memory.warm_bytes * (target.l2_bytes / own.l2_bytes),
                split_tiles=prefill.memory.split_tiles * (target.sms / own.sms),
            ),
        ),
    )
