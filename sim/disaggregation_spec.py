"""The `disaggregation:` section of a scenario, and what it cannot go with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from hw_profiles.devices import Device, load_device
from hw_profiles.errors import InputError
from hw_profiles.units import Rate, Seconds
from sim.spec_base import Count, PolicySpec, Spec, resolved_path

if TYPE_CHECKING:
    from sim.spec import ScenarioSpec

DEVICE = "rdma-400g"
KV_LINK = "kv_link"
"""Name of the links between instances, and of their device among `Inputs.devices`."""
KV_OUT, KV_IN = "kv_out", "kv_in"
"""Names of the bandwidths that all transfers from an instance, and to one, share."""


class KVLinkSpec(Spec):
    """What KV crosses between instances: `rdma-400g`, or {device: ..., bandwidth: ..., latency: ..., per: ...}.

    device     a shipped device of the kind network, or a YAML file
    bandwidth  in the place of the device's, both ways, without its ramp and its time per copy
    latency    in the place of the device's
    per        gpu: every GPU has one, and those of an instance send their parts side by side. node: all GPUs of a node
               share one, which is also the one that the tier `remote` is behind
    """

    device: str = DEVICE
    bandwidth: Annotated[Rate, Field(gt=0)] | None = None
    latency: Seconds | None = None
    per: Literal["gpu", "node"] = "gpu"

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, dict) and "name" in value and "device" not in value:
            value = {"device": value["name"], **{key: one for key, one in value.items() if key != "name"}}
        return {"device": value} if isinstance(value, str) else value

    def load(self, base_dir: Path) -> Device:
        """The device, with the values given here. Raises InputError."""
        path = "disaggregation.link.device"
        try:
            device = load_device(resolved_path(self.device, base_dir))
        except InputError as error:
            raise error if error.where is not None else error.at(path=path) from None
        if device.kind != "network":
            problem = f"a device of kind {device.kind} does not join two GPUs"
            raise InputError(problem, path=path, found=self.device, allowed="a device of kind network")
        for way in ("read", "write"):
            device = device.with_link(way, bandwidth=self.bandwidth, latency=self.latency)
        return device

    def caps(self, device: Device, lanes: float, nodes: int) -> dict[str, float]:
        """What all transfers from an instance, and to one, share: bytes/s of its `lanes` GPUs, or of its `nodes`."""
        times = lanes if self.per == "gpu" else nodes
        return {KV_OUT: device.write.bandwidth * times, KV_IN: device.read.bandwidth * times}


class PoolEngineSpec(Spec):
    """Limits of the instances of one pool, in the place of those of `engine:`, which they may not exceed: memory and
    CUDA graphs are made for those."""

    max_num_seqs: Count | None = None
    max_num_batched_tokens: Count | None = None


class DisaggregationSpec(Spec):
    """Prompts are computed by some replicas and decoded by others.

    prefill, decode  how many of each; the first `prefill` of hardware.replicas compute prompts
    transfer         when KV leaves: whole, when the prompt is complete; chunk, after each step of its prefill; layer,
                     while it is computed, as layers of each step are complete
    groups           of `transfer: layer`: layers leave in so many groups, at most as many as there are
    link             what KV crosses
    routing          the router of the decode pool; that of the scenario chooses among the others
    reuse            what the decode instance has cached of a prompt is not sent
    prefill_engine, decode_engine  limits of each pool
    """

    prefill: Count
    decode: Count
    transfer: Literal["whole", "layer", "chunk"] = "whole"
    groups: Count = 8
    link: KVLinkSpec = KVLinkSpec()
    routing: PolicySpec = PolicySpec(name="kv_load_aware")
    reuse: Annotated[bool, Field(strict=True)] = True
    prefill_engine: PoolEngineSpec = PoolEngineSpec()
    decode_engine: PoolEngineSpec = PoolEngineSpec()

    def resolved(self, base_dir: Path) -> dict[str, Any]:
        """Every value spelled out for YAML."""
        shown = self.model_dump(mode="json", exclude_none=True)
        shown["link"]["device"] = resolved_path(self.link.device, base_dir)
        shown["routing"] = self.routing.resolved(base_dir)
        return shown


def with_pools(document: Mapping[str, Any]) -> dict[str, Any]:
    """A scenario as it was written, with as many replicas as its pools have if it does not say how many."""
    pools, hardware = document.get("disaggregation"), document.get("hardware")
    if not isinstance(pools, dict) or not isinstance(hardware, dict) or "replicas" in hardware:
        return dict(document)
    sizes = [pools.get(name) for name in ("prefill", "decode")]
    whole = [size for size in sizes if isinstance(size, int) and size > 0]
    if len(whole) < len(sizes):
        return dict(document)
    return {**document, "hardware": {**hardware, "replicas": sum(whole)}}


def check_disaggregation(spec: ScenarioSpec) -> None:
    """Raise InputError for a scenario that cannot be served by two pools."""
    chosen = spec.disaggregation
    if chosen is None:
        return
    both, engine = chosen.prefill + chosen.decode, spec.engine
    if spec.hardware.replicas != both:
        problem = f"disaggregation has {chosen.prefill} prefill and {chosen.decode} decode instances"
        raise InputError(problem, path="hardware.replicas", found=spec.hardware.replicas, allowed=str(both))
    if engine.kind != "vllm":
        raise InputError(
            "not with disaggregation in this version", path="engine.kind", found=engine.kind, allowed="vllm"
        )
    if engine.scheduling == "static" or engine.framework != "vllm_paged":
        key = "scheduling" if engine.scheduling == "static" else "framework"
        problem = "two pools need continuous batches over paged KV"
        allowed = "fcfs or priority" if key == "scheduling" else "vllm_paged"
        raise InputError(problem, path=f"engine.{key}", found=getattr(engine, key), allowed=allowed)
    if spec.fleet is not None and spec.fleet.on:
        raise InputError("not with disaggregation in this version", path="fleet", allowed="replicas that all serve")
    if engine.speculation is not None:
        raise InputError("not with disaggregation in this version", path="engine.speculation", allowed="none")
    if spec.policies.scheduling is not None:
        raise InputError("not with disaggregation in this version", path="policies.scheduling", allowed="none")
    if spec.policies.within:
        problem = "what a policy within a sequence keeps cannot be sent to another replica in this version"
        raise InputError(problem, path=f"policies.{spec.policies.within[0]}", allowed="no disaggregation beside it")
    for pool in ("prefill", "decode"):
        limits: PoolEngineSpec = getattr(chosen, f"{pool}_engine")
        for key in ("max_num_seqs", "max_num_batched_tokens"):
            found, most = getattr(limits, key), getattr(engine, key)
            if found is not None and found > most:
                path = f"disaggregation.{pool}_engine.{key}"
                raise InputError(f"more than engine.{key}", path=path, found=found, allowed=f"{most} at most")
    seqs = chosen.decode_engine.max_num_seqs or engine.max_num_seqs
    tokens = chosen.decode_engine.max_num_batched_tokens or engine.max_num_batched_tokens
    if tokens < seqs:
        path = "disaggregation.decode_engine.max_num_batched_tokens"
        problem = "each decoding sequence takes a token of every step"
        raise InputError(problem, path=path, found=tokens, allowed=f"{seqs}, the pool's max_num_seqs, or more")
