"""What a system of the field is: policies by family, and what of the engine, the tiers and the links comes with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TierPart:
    """A tier that a system works with.

    name       of the tier; also the option of the system that gives its size
    capacity   what that option says; None: the scenario's `tiers` say it
    needed     the system does not run without it; else it is there only if a size is given
    settings   what it has of `tiers:`, and nothing else can be said of it
    defaults   what it has of `tiers:` unless the scenario says otherwise
    alone      what else it has by default where no other tier lies between it and HBM
    policies   by family: those of the whole scenario that come with the tier
    """

    name: str
    capacity: Any = None
    needed: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    alone: Mapping[str, Any] = field(default_factory=dict)
    policies: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setup:
    """What a system across sequences sets up.

    engine     settings that it cannot do without; engine_defaults: those that a scenario may have otherwise
    tiers      those behind HBM, from the GPU outward
    hbm        what it sets of the first tier; links: of `links:`; nothing else can be said of either
    policies   by family
    """

    tiers: tuple[TierPart, ...]
    engine: Mapping[str, Any] = field(default_factory=dict)
    engine_defaults: Mapping[str, Any] = field(default_factory=dict)
    hbm: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, Any] = field(default_factory=dict)
    policies: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """One row: what it does in a line, where that is published, policies by family, settings of the engine.

    setup: for a system across sequences, what it makes of its options (keyword arguments with defaults).
    """

    about: str
    source: str
    policies: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    setup: Callable[..., Setup] | None = None
