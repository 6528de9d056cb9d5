"""The contract of a family, for who writes a policy: its hooks, what they see and what they answer."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import kvsim

SEQUENCE = ("SequencePolicy", "LayerView", "LayerPlan", "Form", "Work", "StepMove")
CONTRACTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "eviction": ("EvictionPolicy", "Block", "TierInfo"),
        "admission": ("AdmissionPolicy", "Block", "TierInfo"),
        "offload": ("OffloadPolicy", "Event", "Block", "TierView", "Move"),
        "prefetch": ("PrefetchPolicy", "Trigger", "RequestView", "CacheView", "Fetch"),
        "routing": ("Router", "RequestView", "ReplicaView"),
        "admission_control": ("AdmissionControl", "RequestView", "GateView"),
        "scheduling": ("Scheduler", "QueueView", "WaitingRequest", "RunningRequest"),
        "fleet": ("Scaling", "FleetWindow", "ReplicaStatus", "ReplicaState", "Start", "Stop"),
        "kv_format": SEQUENCE,
        "retention": SEQUENCE,
        "selection": SEQUENCE,
        "sequence_offload": SEQUENCE,
        "sequence_prefetch": SEQUENCE,
        "placement": ("Placement", "PlacementInfo"),
        "architecture": ("Architecture", "ModelSpec"),
        "reuse": ("ResponseCache", "RequestView", "AnsweredView"),
        "prefix_index": ("PrefixIndex", "RequestView", "Visit"),
    }
)
"""Families of `kvsim new policy`, each with the public names of its base class and of what its hooks see and return."""


def contract(family: str) -> tuple[str, dict[str, Any]] | None:
    """The contract of a family (or of the base class of that name) as text, and as a mapping; None if there is none."""
    named = {names[0]: key for key, names in CONTRACTS.items()}
    names = CONTRACTS.get(named.get(family, family))
    if names is None:
        return None
    key = named.get(family, family)
    classes = {name: _about(getattr(kvsim, name)) for name in names}
    heading = f"{key}: the contract of a policy of your own, a subclass of kvsim.{names[0]}"
    text = "\n\n".join([heading, *(_text(name, found) for name, found in classes.items())])
    return text, {"name": key, "base": names[0], "classes": classes}


def _text(name: str, about: Mapping[str, Any]) -> str:
    members: Mapping[str, str] = about["members"]
    lines = (f"{said}\n{textwrap.indent(textwrap.fill(what, 108), '    ')}".rstrip() for said, what in members.items())
    return f"{name}: {about['description']}\n\n" + textwrap.indent("\n".join(lines), "    ")


def _about(cls: type) -> dict[str, Any]:
    """Its docstring, and what it has: signature or type, and description."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    return {"description": inspect.cleandoc(ast.get_docstring(body) or ""), "members": dict(_members(body))}


def _members(body: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Public hooks, properties and fields as they are written, each with its description."""
    for here, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(here, ast.FunctionDef):
            if here.name.startswith("_"):
                continue
            returns = f" -> {ast.unparse(here.returns)}" if here.returns else ""
            is_property = any(ast.unparse(one) == "property" for one in here.decorator_list)
            said = returns.replace(" -> ", ": ") if is_property else f"({ast.unparse(here.args)}){returns}"
            yield f"{here.name}{said}", " ".join((ast.get_docstring(here) or "").split())
        elif isinstance(here, ast.AnnAssign | ast.Assign):
            written = ast.unparse(here)
            if written.startswith("_"):
                continue
            told = after.value if isinstance(after, ast.Expr) else None
            yield written, " ".join(str(told.value).split()) if isinstance(told, ast.Constant) else ""
