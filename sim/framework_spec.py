"""What a serving framework settles of `engine:`, and what cannot be asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from hw_profiles.errors import InputError
from sim.cost.framework import ANY_LENGTH, FRAMEWORKS, FrameworkName
from sim.engine.queue import Scheduling

NO_SHARING = "shares no KV between requests, in HBM or behind it"


class Settings(Protocol):
    """The parts of `engine:` that a framework has a say in."""

    framework: FrameworkName
    scheduling: Scheduling
    max_num_batched_tokens: int
    prefix_caching: bool
    reserve_full_isl: bool
    watermark: float
    slot_tokens: int | None


def with_framework(engine: Mapping[str, Any]) -> dict[str, Any]:
    """`engine:` as it was written, with the framework's settings in the place of defaults."""
    found: dict[str, Any] = {}
    framework = FRAMEWORKS.get(engine.get("framework", "vllm_paged"))
    if framework is not None:
        found |= framework.defaults()
    if {**found, **engine}.get("scheduling") == "static":
        found |= {"prefix_caching": False, "reserve_full_isl": False}
    return {**found, **engine}


def check_framework(engine: Settings) -> None:
    """Raise InputError for settings that the framework, or static batches, cannot have."""
    framework = FRAMEWORKS[engine.framework]
    for key, value in framework.needs().items():
        if (found := getattr(engine, key)) != value:
            allowed = "leave it out: prompts run whole" if value == ANY_LENGTH else str(value).lower()
            raise InputError(f"not with framework: {engine.framework}", path=key, found=found, allowed=allowed)
    if engine.scheduling == "static" and engine.prefix_caching:
        raise InputError(f"static batching {NO_SHARING}", path="prefix_caching", found=True, allowed="false")
    if engine.scheduling == "static" and (engine.reserve_full_isl or engine.watermark):
        path, found, allowed = "reserve_full_isl", True, "false"
        if engine.watermark:
            path, found, allowed = "watermark", engine.watermark, "0"
        raise InputError("a static batch has room for all of its rows", path=path, found=found, allowed=allowed)
    if engine.slot_tokens is not None and not framework.slots:
        with_slots = [name for name, row in FRAMEWORKS.items() if row.slots]
        raise InputError(
            f"{engine.framework} has no slots", path="slot_tokens", found=engine.slot_tokens, allowed=with_slots
        )


def full_step(engine: Settings) -> int:
    """Tokens of a full step: of one that runs prompts whole, which has no limit, as many as vLLM's by default."""
    tokens = engine.max_num_batched_tokens
    return 8192 if tokens == ANY_LENGTH else tokens


def shares_nothing(engine: Settings) -> str | None:
    """Why no tier behind HBM can hold anything; None if one can."""
    if not FRAMEWORKS[engine.framework].paged:
        return f"framework: {engine.framework} {NO_SHARING}"
    return f"static batching {NO_SHARING}" if engine.scheduling == "static" else None
