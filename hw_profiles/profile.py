"""A machine profile in memory: SI numbers for the simulator, provenance for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from hw_profiles import picks
from hw_profiles.cost_models import (
    AllReduceModel,
    CopyModel,
    DecodeModel,
    GemmModel,
    LaunchModel,
    LinkModel,
)
from hw_profiles.errors import InputError
from hw_profiles.kernel_groups import BASE_GROUP, BASE_HEAD_DIM, BASE_KV_HEADS
from hw_profiles.kernel_reader import HeldOut, KernelNotes
from hw_profiles.prefill_cost import BASE_HEADS, PrefillModel
from hw_profiles.schema import COPY, COPY_METHODS, ProfileValue, overridden


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
    kernels: KernelNotes
    validity: Validity
    source: str
    content_sha256: str

    def si(self, path: str) -> float:
        """The value at a dotted path in SI units. Raises InputError if the profile has no such value."""
        if path not in self.entries:
            raise InputError("no such value", where=self.source, found=path, near=self.entries)
        return self.entries[path].value_si

    @property
    def heldout(self) -> Mapping[str, HeldOut]:
        """Score of each kernel group on measurements that its fit has not seen."""
        return self.kernels.heldout

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
        return sum(value.lo is None for value in self.entries.values())

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
    def power_limit(self) -> float | None:
        """Power limit of the board as it comes, W; None if the profile does not say."""
        return self.si("capacity.power_limit") if "capacity.power_limit" in self.entries else None

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
        return self.gemm_for("bf16")

    @cached_property
    def decode(self) -> DecodeModel:
        """Cost of decode attention with KV cold in L2: bf16, 4 query heads per KV head, heads of 128."""
        return self.decode_for()

    @cached_property
    def prefill(self) -> PrefillModel:
        """Cost of prefill attention: bf16, heads of 128."""
        return self.prefill_for()

    def gemm_for(self, dtype: str) -> GemmModel:
        """Cost of matrix products with weights of a type; `picks.gemm` says where it comes from."""
        return picks.gemm(self, dtype).model

    def moe_for(self, dtype: str) -> GemmModel:
        """Cost of the fused experts of a layer (bytes of the experts that are read, their FLOP); see `picks.moe`."""
        return picks.moe(self, dtype).model

    def decode_for(
        self,
        kv_dtype: str = "bf16",
        group: int = BASE_GROUP,
        head_dim: int = BASE_HEAD_DIM,
        kv_heads: int = BASE_KV_HEADS,
    ) -> DecodeModel:
        """Cost of decode attention, KV cold in L2: `group` query heads for each of the rank's `kv_heads`."""
        return picks.decode(self, kv_dtype, group, head_dim, kv_heads).model

    def prefill_for(
        self,
        dtype: str = "bf16",
        head_dim: int = BASE_HEAD_DIM,
        heads: int = BASE_HEADS,
        kv_heads: int | None = None,
    ) -> PrefillModel:
        """Cost of prefill attention over KV of a type, with so many heads on the rank (KV heads: a quarter of them)."""
        return picks.prefill(self, dtype, head_dim, heads, kv_heads).model

    def mla_decode(self, kv_dtype: str = "bf16", heads: int = 128) -> DecodeModel | None:
        """Cost of decode attention of `heads` query heads over one latent; None if the profile has none."""
        found = picks.mla_decode(self, kv_dtype, heads)
        return found.model if found else None

    def mla_prefill(self, dtype: str = "bf16", heads: int = 128) -> PrefillModel | None:
        """Cost of prefill attention of MLA with `heads` query heads on the rank; None if the profile has none."""
        found = picks.mla_prefill(self, dtype, heads)
        return found.model if found else None

    def allreduce(self, ranks: int) -> AllReduceModel | None:
        """Cost of a sum over `ranks` GPUs of a node; None if the profile has none for that many."""
        found = picks.allreduce(self, ranks)
        return found.model if found else None

    @cached_property
    def launch(self) -> LaunchModel:
        """Kernel launch times."""
        return LaunchModel(*self.group_si("kernels.launch", "graph", "stream"))

    @cached_property
    def links(self) -> dict[str, LinkModel]:
        """Links by name, one line through all block sizes; "pcie_h2d" and "pcie_d2h" are always there."""
        names = [path[6:-6] for path in self.entries if path.startswith("links.") and path.endswith(".alpha")]
        return {name: LinkModel(*self.group_si(f"links.{name}", "alpha", "beta")) for name in names if "." not in name}

    def copy_methods(self, link: str) -> tuple[str, ...]:
        """Copy methods that the profile has for a link; every link has "loop"."""
        return tuple(m for m in COPY_METHODS if m == "loop" or f"links.{link}.{m}.alpha" in self.entries)

    def copy_paths(self, link: str, method: str) -> tuple[str, ...]:
        """Paths of the values that `copy_model` reads, in the order of the file; InputError as there."""
        if f"links.{link}.alpha" not in self.entries:
            raise InputError("no such link", where=self.source, path="links", found=link, allowed=tuple(self.links))
        methods = self.copy_methods(link)
        if method not in methods:
            problem = "no such copy method for this link"
            raise InputError(
                problem, where=self.source, path=f"links.{link}", found=method, allowed=methods, near=methods
            )
        group = f"links.{link}.{method}"
        if f"{group}.alpha" not in self.entries:
            group = f"links.{link}"
        return tuple(path for path in self.entries if path.rpartition(".")[0] == group and path.split(".")[-1] in COPY)

    def copy_model(self, link: str, method: str = "loop") -> CopyModel:
        """Cost of copying blocks over a link by a method (schema.COPY_METHODS).

        "loop" falls back to the link's own line where it has no group. InputError names what the profile has.
        """
        values = {path.rpartition(".")[2]: self.si(path) for path in self.copy_paths(link, method)}
        sms = int(values.pop("sms", 0))
        return CopyModel(**values, sms=sms)

    def with_link(
        self, link: str, method: str = "loop", *, bandwidth: float | None = None, latency: float | None = None
    ) -> Profile:
        """The same profile with another link: `bandwidth` (bytes/s) of one long copy, `latency` (s) per copy.

        Small blocks keep their ratio to long ones; with `latency` given, blocks of every size take it, and submission
        takes no longer.
        """
        changed, paths = self, self.copy_paths(link, method)
        scale = 1.0 if bandwidth is None else bandwidth / self.copy_model(link, method).beta
        for path in paths:
            key = path.rpartition(".")[2]
            if key == "beta" and bandwidth is not None:
                changed = changed.override(path, bandwidth)
            elif key == "small_beta" and bandwidth is not None:
                changed = changed.override(path, self.si(path) * scale)
            elif latency is not None and (
                key in ("alpha", "small_alpha") or (key == "submit" and latency < self.si(path))
            ):
                changed = changed.override(path, latency)
        return changed

    def pageable(self, link: str) -> float | None:
        """Bytes/s of copies between the GPU and host memory that is not pinned; None if the profile has none."""
        path = f"links.{link}.pageable"
        return self.si(path) if path in self.entries else None

    def with_pageable(self, link: str, rate: float) -> Profile:
        """The same profile with `rate` (bytes/s) for copies over a link from or to memory that is not pinned."""
        value = overridden(f"links.{link}.pageable", rate, "set in the scenario")
        return replace(self, entries={**self.entries, value.path: value})

    def joint_path(self, method: str = "loop") -> str | None:
        """Path of `joint_cap`; None if the profile has none."""
        names = ("caps.pcie_joint_kernel", "caps.pcie_joint") if method == "kernel" else ("caps.pcie_joint",)
        return next((path for path in names if path in self.entries), None)

    def joint_cap(self, method: str = "loop") -> float | None:
        """Bytes/s of both directions of one GPU's link together, by copy method; None if the profile has none."""
        path = self.joint_path(method)
        return None if path is None else self.si(path)

    def group_si(self, group: str, *keys: str) -> list[float]:
        """The values `keys` of a group in SI units."""
        return [self.si(f"{group}.{key}") for key in keys]
