"""The tables of aiconfigurator: `<system>/<operation>/<backend>/<version>/*.parquet`.

SOURCE of the layout: ai-dynamo/aiconfigurator (Apache-2.0), src/aiconfigurator/systems; the package aiconfigurator-core
installs the same below aiconfigurator_core/systems/data. Times are in ms per call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from calibration.fitting import Mask
from calibration.tables import Table, one_device, read_table
from hw_profiles.errors import InputError

BACKENDS: Mapping[str, str] = MappingProxyType({"vllm": "vLLM", "sglang": "SGLang", "trtllm": "TensorRT-LLM"})
OTHERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"vllm": ("sglang", "trtllm"), "sglang": ("vllm", "trtllm"), "trtllm": ("vllm", "sglang")}
)
"""Whose table stands in where a backend has none of an operation (dense products are torch's in vLLM and SGLang)."""
SHARED = ("gemm", "moe", "comm", "mla")
"""Operations whose table may be another backend's."""
KV_DTYPES: Mapping[str, tuple[str, ...]] = MappingProxyType({"bf16": ("bfloat16", "float16"), "fp8": ("fp8",)})
COMPUTED_IN: Mapping[str, str] = MappingProxyType(
    {"bf16": "bf16", "int4": "bf16", "fp8": "fp8", "fp8_block": "fp8", "int8": "int8", "nvfp4": "fp4"}
)
"""Format of the tensor cores' inputs by that of the weights: 4-bit integers are unpacked to bf16 (W4A16)."""
MOST_TOKENS = 65536
"""Tokens of a prefill launch or a step of experts: no engine schedules more."""


@dataclass(frozen=True)
class Memory:
    """What decides whether rows are cold, and possible: L2 size (bytes), HBM peak (bytes/s), peaks of computing.

    flops: FLOP/s of the datasheet by format, as below `peaks:` in a machine sheet; empty if it has none.
    """

    l2_bytes: float
    peak: float
    flops: Mapping[str, float] = field(default_factory=dict)

    def most_flops(self, dtype: str) -> float | None:
        """FLOP/s that a kernel with weights (or KV) of this format cannot exceed; None if that is not known.

        Of formats without a peak of their own: the highest of the machine.
        """
        highest = max(self.flops.values(), default=None)
        return self.flops.get(COMPUTED_IN.get(dtype, ""), highest)


@dataclass(frozen=True)
class Found:
    """A table and whose it is: a key of BACKENDS and its version."""

    table: Table
    backend: str
    version: str
    own: bool
    """Whether it is of the backend that was asked for."""

    def family(self, rows: Table) -> str:
        """Engine, version and kernels of some of its rows."""
        names = dict.fromkeys(map(str, rows.text("kernel_source"))) if "kernel_source" in rows else {}
        return " ".join((BACKENDS[self.backend], self.version, ", ".join(names))).strip()


class Source:
    """The tables of one machine; `backend` as in BACKENDS, `versions` by "operation/backend", else the latest one."""

    def __init__(self, folder: Path, backend: str, versions: Mapping[str, str] | None = None) -> None:
        if backend not in BACKENDS:
            raise InputError("unknown backend", found=backend, allowed=BACKENDS, near=BACKENDS)
        if not any((folder / name).is_dir() for name in ("gemm", "attention")):
            allowed = "a machine's folder with gemm/ and attention/, such as systems/data/h100_sxm"
            raise InputError("no kernel tables", where=folder, allowed=allowed)
        self.folder, self.backend, self.versions = folder, backend, dict(versions or {})
        self.tables: dict[str, Table] = {}

    @property
    def device(self) -> str:
        """The device that the tables read so far name. Raises InputError when they name two."""
        return one_device(self.tables.values())

    def relative(self, table: Table) -> str:
        """Path of a table within the machine's folder."""
        return str(table.path.relative_to(self.folder))

    def all(self, operation: str, name: str, *columns: str) -> Iterator[Found]:
        """The tables of an operation: this backend's, then those of others that may stand in for it."""
        others = OTHERS[self.backend] if operation in SHARED else ()
        for backend in (self.backend, *others):
            paths = sorted(
                self.folder.glob(f"{operation}/{backend}/*/{name}"), key=lambda path: _order(path.parent.name)
            )
            wanted = self.versions.get(f"{operation}/{backend}")
            if wanted is not None:
                paths = [path for path in paths if path.parent.name == wanted]
            if paths:
                path = paths[-1]
                relative = str(path.relative_to(self.folder))
                if relative not in self.tables:
                    self.tables[relative] = read_table(path, (*columns, "latency"))
                yield Found(self.tables[relative], backend, path.parent.name, backend == self.backend)

    def find(self, operation: str, name: str, *columns: str) -> Found | None:
        """The first of `all`; None without any."""
        return next(self.all(operation, name, *columns), None)

    def need(self, operation: str, name: str, *columns: str) -> Found:
        """`find`, or InputError."""
        found = self.find(operation, name, *columns)
        if found is None:
            have = sorted(path.name for path in (self.folder / operation).glob("*") if path.is_dir())
            raise InputError(
                f"no {name} of this backend", where=self.folder / operation, found=self.backend, allowed=have
            )
        return found


def one_kernel(rows: Table, *axes: str) -> Table:
    """One row per place on `axes`: of its most common kernel where it has several, the median of repeats."""
    if "attn_dtype" in rows:
        names, counts = np.unique(rows.text("attn_dtype").astype(str), return_counts=True)
        rows = rows.where(rows.text("attn_dtype").astype(str) == names[counts.argmax()])
    places = np.stack([rows.numbers(axis) for axis in axes], axis=1)
    _, place = np.unique(places, axis=0, return_inverse=True)
    place = place.reshape(-1)
    if len(np.unique(place)) == len(rows):
        return rows
    kernels = rows.text("kernel_source").astype(str) if "kernel_source" in rows else np.zeros(len(rows), dtype=str)
    _, kernel, counts = np.unique(kernels, return_inverse=True, return_counts=True)
    common = counts[kernel]
    best = np.zeros(place.max() + 1, dtype=np.int64)
    np.maximum.at(best, place, common)
    rows, place = rows.where(common == best[place]), place[common == best[place]]
    order = np.lexsort((rows.numbers("latency"), place))
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    keep: Mask = np.zeros(len(rows), dtype=bool)
    keep[order[starts + (sizes - 1) // 2]] = True
    return rows.where(keep)


def _order(version: str) -> tuple[tuple[int, int], ...]:
    """Order of version folders: numbers by value, a release candidate before the release."""
    parts = re.findall(r"\d+|rc|post|dev", version)
    ranks = {"dev": -3, "rc": -2, "post": 1}
    return tuple((int(part), 0) if part.isdigit() else (ranks[part], 1) for part in parts)
