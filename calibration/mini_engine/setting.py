"""What a validation runs: a model, pools, limits, a load; and the same as a scenario of the simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from calibration.mini_engine.scheduler import Limits, Scheduler
from calibration.mini_engine.store import Store
from calibration.mini_engine.workload import Load
from hw_profiles.models import ModelSpec
from policies.base import TierInfo
from policies.tables import EVICTION, OFFLOAD
from sim.scenario import Scenario
from traces.mooncake import BLOCK_TOKENS, write_mooncake
from traces.request import Trace

PAGE = 16


@dataclass(frozen=True)
class Variant:
    """One way to run the engine. offload: kvsim's policy; method: of copies (`sim` is compared in a closed loop only
    where it can do the same)."""

    name: str
    about: str
    offload: str = "write_through"
    method: str = "loop"
    synchronous: bool = False
    l2_prefetch: bool = False
    closed_loop: bool = True


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        variant.name: variant
        for variant in (
            Variant("A", "no offload", offload="none"),
            Variant("B", "offload, everything waits for copies", synchronous=True, closed_loop=False),
            Variant("C", "offload by copy engine beside the steps"),
            Variant("D", "offload by copy kernel beside the steps", method="kernel"),
            Variant("E", "as C, keys and values prefetched into L2", l2_prefetch=True),
        )
    }
)


@dataclass(frozen=True)
class Setting:
    """model: as a scenario names it. Pages of `PAGE` tokens on the device and in host memory."""

    model: str
    pages: int
    host_pages: int
    max_seqs: int
    max_tokens: int
    load: Load
    eviction: str = "lru"

    @property
    def limits(self) -> Limits:
        """Of the scheduler."""
        return Limits(self.max_seqs, self.max_tokens, BLOCK_TOKENS)

    @property
    def longest(self) -> int:
        """Pages of the longest request."""
        tokens = self.load.document_blocks * BLOCK_TOKENS + self.load.tail[1] + self.load.output[1]
        return -(-tokens // PAGE)

    def l2_prefetch_bytes(self, variant: Variant, model: ModelSpec) -> int:
        """Keys and values of a layer that a full batch of the longest requests has prefetched; 0 in other variants."""
        tokens = self.max_seqs * self.longest * PAGE
        return tokens * model.kv_bytes_per_token // model.layers if variant.l2_prefetch else 0

    def scheduler(self, variant: Variant, page_bytes: int) -> Scheduler:
        """A fresh scheduler with kvsim's policies."""

        def store(name: str, count: int) -> Store:
            info = TierInfo(name, count * page_bytes, BLOCK_TOKENS // PAGE * page_bytes)
            return Store(name, count, PAGE, page_bytes, EVICTION[self.eviction](info))

        host = None if variant.offload == "none" else store("dram", self.host_pages)
        return Scheduler(store("hbm", self.pages), host, OFFLOAD[variant.offload](), self.limits)


def scenario(
    setting: Setting, variant: Variant, trace: Trace, folder: Path, profile: Path, model: ModelSpec, host_time_s: float
) -> Scenario:
    """The variant as the simulator runs it; its trace is written to `folder`."""
    path = folder / "trace.jsonl"
    write_mooncake(trace, path)
    page_bytes = PAGE * model.kv_bytes_per_token
    tiers: list[dict[str, Any]] = [{"name": "hbm"}]
    if variant.offload != "none":
        tiers.append({"name": "dram", "capacity": f"{setting.host_pages * page_bytes} B"})
    engine: dict[str, Any] = {
        "max_num_seqs": setting.max_seqs,
        "max_num_batched_tokens": setting.max_tokens,
        "block_tokens": PAGE,
        "num_gpu_blocks": setting.pages,
        "host_time": f"{host_time_s:.9f} s",
        "l2_prefetch": f"{setting.l2_prefetch_bytes(variant, model)} B",
    }
    document = {
        "schema": "kvsim-scenario/1",
        "trace": str(path),
        "model": setting.model,
        "hardware": {"profile": str(profile)},
        "engine": engine,
        "tiers": tiers,
        "policies": {"eviction": setting.eviction, "offload": variant.offload},
        "links": {f"pcie_{direction}": {"method": variant.method} for direction in ("h2d", "d2h")},
    }
    return Scenario.from_dict(document, base_dir=folder)
