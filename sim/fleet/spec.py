"""The `fleet:` section of a scenario."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from hw_profiles.errors import InputError
from hw_profiles.units import Rate, Seconds
from sim.spec_base import Count, PolicySpec, Spec

WARM_INIT_S = 0.1
"""From a prewarmed engine and weights in HBM to the first request: an estimate, memory is mapped anew."""
INSTANCE_REQUESTS = 32
"""SOURCE: LLMServe/WarmServe, common.py, BATCH_SIZE."""
ENGINE_INIT_S = 34.0
"""From weights in HBM to the first request: memory profile, cached compilation, graph capture. SOURCE:
vllm-project/vllm issue 20264 (34.11 s, Llama 3.2 3B, compiled code cached; the start of the process is not in it)."""


class ServedSpec(Spec):
    """One of several models: a name or the path of a config.json, the GPUs of an instance, its part of the requests.

    share: where the trace does not say what is for whom; relative to the others.
    """

    name: str
    tp: Count = 1
    share: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class FleetSpec(Spec):
    """How many of `hardware.replicas` are on.

    scaling               the policy that says so, once per window
    min, max              replicas that are on at least and at most; max: hardware.replicas if it is not set
    initial               of them, those that serve at the start (warm); min if it is not set
    window                how often the policy is asked
    start_time            from the decision until a replica serves; not set: its weights over its host link, and
                          `engine_init`
    load_rate             rate at which weights reach the host memory of a replica (a disk, a registry); not set: they
                          are there
    engine_init           what a start takes once the weights are in HBM
    requests_per_replica  a replica takes no more at a time; what comes then waits at the gateway. Not set: any number,
                          and 32 where there are several models
    models                several models on the same GPUs (sim.fleet.pool); the scaling policy is then asked for each,
                          `min`, `max` and `initial` count the instances of each, and hardware.replicas the GPUs
    prewarm               which of their weights are loaded ahead of need, or how they share GPUs for good
    warm_init             what a start takes where the policy has engine processes ready too, once the weights are there
    """

    scaling: PolicySpec = PolicySpec(name="none")
    min: Annotated[int, Field(ge=0, strict=True)] = 1
    max: Count | None = None
    initial: Annotated[int, Field(ge=0, strict=True)] | None = None
    window: Annotated[Seconds, Field(gt=0)] = 5.0
    start_time: Annotated[Seconds, Field(ge=0)] | None = None
    load_rate: Annotated[Rate, Field(gt=0)] | None = None
    engine_init: Annotated[Seconds, Field(ge=0)] = ENGINE_INIT_S
    requests_per_replica: Count | None = None
    models: tuple[ServedSpec, ...] = ()
    prewarm: PolicySpec | None = None
    warm_init: Annotated[Seconds, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> FleetSpec:
        if self.start_time is not None and self.load_rate is not None:
            raise InputError("start_time says how long a start takes, whatever weights come from", path="load_rate")
        if not self.models:
            for key in ("prewarm", "warm_init"):
                if getattr(self, key) is not None:
                    raise InputError("it is for several models (fleet.models)", path=key)
        elif self.start_time is not None:
            raise InputError("with several models a start takes its loads and engine_init", path="start_time")
        elif self.load_rate is not None:
            raise InputError("with several models all weights are in host memory", path="load_rate")
        return self

    @property
    def on(self) -> bool:
        """False if every replica serves from the start to the end, and takes any number of requests."""
        several = bool(self.models)
        return several or self.scaling.name != "none" or (self.requests_per_replica or self.max) is not None

    def bounds(self, replicas: int) -> tuple[int, int, int]:
        """(least, most, initial) of so many replicas. Raises InputError."""
        least, most, initial = self._named(replicas, "hardware.replicas")
        return (most, most, most) if self.scaling.name == "none" else (least, most, initial)

    def instance_bounds(self, groups: int) -> tuple[int, int, int]:
        """(least, most, initial) of the instances of each of `models`, `groups` at most. Raises InputError."""
        return self._named(groups, "groups of GPUs that a model may have")

    def _named(self, count: int, what: str) -> tuple[int, int, int]:
        most = count if self.max is None else self.max
        if most > count:
            raise InputError(f"more than {what}", path="fleet.max", found=most, allowed=f"{count} at most")
        if self.min > most:
            raise InputError("more than are there at most", path="fleet.min", found=self.min, allowed=f"{most} at most")
        initial = self.min if self.initial is None else self.initial
        if not self.min <= initial <= most:
            allowed = f"{self.min} (fleet.min) to {most}"
            raise InputError("", path="fleet.initial", found=initial, allowed=allowed)
        return self.min, most, initial
