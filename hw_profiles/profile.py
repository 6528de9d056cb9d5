"""A machine profile in memory: SI numbers for the simulator, provenance for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from hw_profiles.cost_models import DecodeModel, GemmModel, LaunchModel, LinkModel, PrefillModel
from hw_profiles.errors import InputError
from hw_profiles.schema import ProfileValue, overridden


@dataclass(frozen=True)
class HeldOut:
    """How well a fitted model predicts points not used in the fit (relative errors); `what` says which."""

    mape: float
    n: int
    what: str
    p90: float | None = None
    max: float | None = None
    bias: float | None = None


@dataclass(frozen=True)
class Validity:
    """Box the fits cover, ends included: decode batch (sequences) and context length (tokens), prefill chunk (tokens)
    and the cached prefix before it (tokens)."""

    batch: tuple[int, int]
    seq: tuple[int, int]
    prefill: tuple[int, int]
    prefix: tuple[int, int]
    note: str = ""


@dataclass(frozen=True)
class Profile:
    """One machine. `entries` maps each dotted path to its value; the attributes read from it, in SI units."""

    name: str
    kind: str
    vendor: str
    entries: Mapping[str, ProfileValue]
    sources: Mapping[str, str]
    heldout: Mapping[str, HeldOut]
    validity: Validity
    source: str
    content_sha256: str

    def si(self, path: str) -> float:
        """The value at a dotted path in SI units. Raises InputError if the profile has no such value."""
        if path not in self.entries:
            raise InputError("no such value", where=self.source, found=path, near=self.entries)
        return self.entries[path].value_si

    def values(self) -> list[ProfileValue]:
        """Every value with its source, in the order of the file."""
        return list(self.entries.values())

    def override(self, path: str, value: float | str, source: str = "set in the scenario") -> Profile:
        """The same profile with one value replaced: a number in SI units, or text ("55 GB/s")."""
        if path not in self.entries:
            raise InputError("no such value", where=self.source, found=path, near=self.entries)
        return replace(self, entries={**self.entries, path: overridden(path, value, source)})

    @property
    def widest_uncertainty(self) -> float:
        """Largest relative half-width of the 90 % intervals; values without one are in `unknown_count`."""
        return max((value.rel for value in self.entries.values() if value.rel is not None), default=0.0)

    @property
    def unknown_count(self) -> int:
        """Number of values with no stated interval."""
        return sum(value.rel is None for value in self.entries.values())

    @property
    def hbm_bytes(self) -> int:
        """HBM that a process can allocate, bytes."""
        return int(self.si("capacity.hbm_bytes"))

    @property
    def l2_bytes(self) -> int:
        """L2 size, bytes."""
        return int(self.si("capacity.l2_bytes"))

    @property
    def sms(self) -> int:
        """Streaming multiprocessors."""
        return int(self.si("capacity.sms"))

    @property
    def reserved_bytes(self) -> int:
        """HBM that an engine holds beside weights, KV and activations: context, graphs, slack; bytes."""
        return int(self.si("capacity.reserved_bytes"))

    @property
    def hbm_bandwidth(self) -> float:
        """Achieved HBM read rate, bytes/s."""
        return self.si("tiers.hbm.read")

    @cached_property
    def gemm(self) -> GemmModel:
        """Cost of bf16 matrix products."""
        return GemmModel(*self._group("kernels.gemm_bf16", "t0", "bandwidth", "flops", "p"))

    @cached_property
    def decode(self) -> DecodeModel:
        """Cost of decode attention with KV cold in L2."""
        return DecodeModel(*self._group("kernels.decode_attn", "floor", "t0", "per_seq", "bandwidth"))

    @cached_property
    def prefill(self) -> PrefillModel:
        """Cost of prefill attention."""
        return PrefillModel(*self._group("kernels.prefill_attn", "t0", "per_token", "flops"))

    @cached_property
    def launch(self) -> LaunchModel:
        """Kernel launch times."""
        return LaunchModel(*self._group("kernels.launch", "graph", "stream"))

    @cached_property
    def links(self) -> dict[str, LinkModel]:
        """Links by name; "pcie_h2d" and "pcie_d2h" are always there."""
        names = [path[6:-6] for path in self.entries if path.startswith("links.") and path.endswith(".alpha")]
        return {name: LinkModel(*self._group(f"links.{name}", "alpha", "beta")) for name in names}

    def _group(self, group: str, *keys: str) -> list[float]:
        return [self.si(f"{group}.{key}") for key in keys]
