"""kvsim: simulate the KV-cache memory hierarchy of an LLM serving system.

    import kvsim

    result = kvsim.Scenario.load("scenario.yaml").set("tiers.dram.capacity", "1 TiB").run()
    print(result.summary["ttft_ms"]["p99"])
    result.save("out/one-tib")
    result = kvsim.load("out/one-tib")        # the same again, from its folder
    result.frames["requests"]                 # a pandas frame; result.tables has pyarrow tables
    result.figures["ttft-split"].show()       # a figure of its report, as a Plotly object
    kvsim.load("out/sweep").frames["runs"]    # of `kvsim sweep` (or compare, plan, cache) with --out

A policy of your own subclasses `kvsim.EvictionPolicy`, `AdmissionPolicy`, `OffloadPolicy`, `PrefetchPolicy`,
`Router`, `AdmissionControl`, `Scheduler`, `Scaling`, `ResponseCache`, `PrefixIndex`, `Placement` or `Architecture`
(`kvsim new policy` writes one to start from);
`kvsim.check_policy` tests whether it keeps the contract of its family, and raises `kvsim.ContractError`. One of what
happens within a sequence subclasses `kvsim.SequencePolicy` and returns `LayerPlan`s (docs/systems.md).

The names below are the public ones; they load on first use, so `import kvsim` itself costs nothing.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from kvsim._version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from hw_profiles.attention import GQA
    from hw_profiles.errors import InputError
    from hw_profiles.lines import CONTEXT, Line, constant, upto
    from hw_profiles.model_spec import ModelSpec
    from kvsim._saved import SavedRun, SavedStudy
    from policies.admission_control.base import AdmissionControl, GateView
    from policies.architecture.base import Architecture
    from policies.base import (
        AdmissionPolicy,
        Block,
        CacheView,
        Event,
        EvictionPolicy,
        Fetch,
        Move,
        OffloadPolicy,
        PrefetchPolicy,
        RequestView,
        TierInfo,
        TierView,
        Trigger,
        moves,
    )
    from policies.contract import ContractError, check_policy
    from policies.fleet.base import FleetWindow, ReplicaState, ReplicaStatus, Scaling, Start, Stop
    from policies.placement.base import Placement, PlacementInfo
    from policies.reuse.base import AnsweredView, PrefixIndex, ResponseCache, Visit
    from policies.routing.base import ReplicaView, Router
    from policies.scheduling.base import QueueView, RunningRequest, Scheduler, WaitingRequest
    from policies.sequence.plan import Form, LayerPlan, LayerView, SequencePolicy, StepMove, Work
    from sim.result import Result
    from sim.scenario import Scenario

__all__ = [
    "CONTEXT",
    "GQA",
    "AdmissionControl",
    "AdmissionPolicy",
    "AnsweredView",
    "Architecture",
    "Block",
    "CacheView",
    "ContractError",
    "Event",
    "EvictionPolicy",
    "Fetch",
    "FleetWindow",
    "Form",
    "GateView",
    "InputError",
    "LayerPlan",
    "LayerView",
    "Line",
    "ModelSpec",
    "Move",
    "OffloadPolicy",
    "Placement",
    "PlacementInfo",
    "PrefetchPolicy",
    "PrefixIndex",
    "QueueView",
    "ReplicaState",
    "ReplicaStatus",
    "ReplicaView",
    "RequestView",
    "ResponseCache",
    "Result",
    "Router",
    "RunningRequest",
    "SavedRun",
    "SavedStudy",
    "Scaling",
    "Scenario",
    "Scheduler",
    "SequencePolicy",
    "Start",
    "StepMove",
    "Stop",
    "TierInfo",
    "TierView",
    "Trigger",
    "Visit",
    "WaitingRequest",
    "Work",
    "__version__",
    "check_policy",
    "constant",
    "load",
    "moves",
    "upto",
]

_HOMES: Mapping[str, str] = MappingProxyType(
    {"Scenario": "sim.scenario", "Result": "sim.result", "InputError": "hw_profiles.errors"}
    | dict.fromkeys(
        (
            *("AdmissionPolicy", "EvictionPolicy", "OffloadPolicy", "PrefetchPolicy"),
            *("Block", "CacheView", "Event", "Fetch", "Move", "RequestView", "TierInfo", "TierView", "Trigger"),
            "moves",
        ),
        "policies.base",
    )
    | dict.fromkeys(("ContractError", "check_policy"), "policies.contract")
    | dict.fromkeys(("AnsweredView", "PrefixIndex", "ResponseCache", "Visit"), "policies.reuse.base")
    | dict.fromkeys(("ReplicaView", "Router"), "policies.routing.base")
    | dict.fromkeys(("FleetWindow", "ReplicaState", "ReplicaStatus", "Scaling", "Start", "Stop"), "policies.fleet.base")
    | dict.fromkeys(("AdmissionControl", "GateView"), "policies.admission_control.base")
    | dict.fromkeys(("QueueView", "RunningRequest", "Scheduler", "WaitingRequest"), "policies.scheduling.base")
    | dict.fromkeys(("Placement", "PlacementInfo"), "policies.placement.base")
    | dict.fromkeys(("CONTEXT", "Line", "constant", "upto"), "hw_profiles.lines")
    | dict.fromkeys(("Form", "LayerPlan", "LayerView", "SequencePolicy", "StepMove", "Work"), "policies.sequence.plan")
    | {"GQA": "hw_profiles.attention", "ModelSpec": "hw_profiles.model_spec"}
    | {"Architecture": "policies.architecture.base", "SavedRun": "kvsim._saved", "SavedStudy": "kvsim._saved"}
)


def load(folder: "str | Path") -> "SavedRun | SavedStudy":
    """Read back what a verb wrote with --out: a run directory, or a comparison, sweep, plan or cache study.

    Of a run: summary, tables, scenario, and the figures of its report on first use; of the others: their document,
    frames and figures. Raises InputError (one line) for what is missing, corrupt or of another schema.
    """
    from kvsim import _own

    found: SavedRun | SavedStudy = _own.module("kvsim._saved").load(folder)
    return found


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'kvsim' has no attribute {name!r}")
    from kvsim import _own

    return getattr(_own.module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
