"""A paper's setting as a scenario: so many equal sequences at once on one GPU, from prompt to last token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

MOST = 0
"""In place of a batch size: as many sequences as the engine's memory takes."""


@dataclass(frozen=True)
class Setting:
    """One run.

    model, profile   names; models that only a paper uses are in sim.reproduce.models
    batch            sequences, all sent at once; MOST: as many as fit
    prompt, output   tokens of each
    policies         what the scenario says under `policies`
    framework        engine.framework
    engine, hardware, tiers, importance, more   further parts of the scenario, as they are
    other_ms         calibrated: matrix products, elementwise kernels and host time of a decode step take this together,
                     as the paper measured; None: whatever the profile and the framework say
    attention        calibrated: values of the decode attention kernel in place of the profile's, as (name, text) pairs:
                     bandwidth (HBM rate), t0 (fixed time of a launch); its table of ratios then goes. (): the profile's
    kv_pool          memory for KV on the GPU; None: all that is left
    at_most          with MOST: the largest batch that is tried
    """

    model: str
    profile: str
    batch: int
    prompt: int
    output: int
    policies: Any = "full"
    framework: str = "vllm_paged"
    engine: Mapping[str, Any] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    tiers: tuple[Mapping[str, Any], ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    other_ms: float | None = None
    attention: tuple[tuple[str, str], ...] = ()
    kv_pool: str | None = None
    at_most: int = 4096

    @property
    def key(self) -> str:
        """Text that is equal for equal settings."""
        return json.dumps(asdict(self), sort_keys=True)

    def but(self, **changes: Any) -> Setting:
        """The same with some of it changed."""
        return replace(self, **changes)

    def document(self, model: str, profile: str, batch: int, host_time: float = 0.0) -> dict[str, Any]:
        """The scenario of `batch` sequences; `model` and `profile` are what the scenario names."""
        engine: dict[str, Any] = {"prefix_caching": False, "max_num_seqs": batch}
        if self.framework == "vllm_paged":
            engine |= {"max_num_batched_tokens": max(8192, batch), "gpu_memory_utilization": 1.0}
        else:
            engine["framework"] = self.framework
        if host_time:
            engine["host_time"] = f"{host_time * 1e6:.3f} us"
        clients = {
            "clients": batch,
            "conversations": 1,
            "rounds": 1,
            "first_input_tokens": self.prompt,
            "output_tokens": self.output,
            "block_tokens": 512,
        }
        document: dict[str, Any] = {
            "schema": "kvsim-scenario/1",
            "trace": {"clients": clients},
            "model": model,
            "hardware": {"profile": profile, **self.hardware},
            "engine": {**engine, **self.engine},
            "tiers": [{"name": "hbm", **({"capacity": self.kv_pool} if self.kv_pool else {})}, *map(dict, self.tiers)],
            **self.more,
        }
        if self.policies != "full":
            document["policies"] = self.policies
        return document
