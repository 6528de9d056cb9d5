"""From pydantic's report to one line: which path, what was found, what is allowed, the nearest name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from hw_profiles.errors import InputError

_PHRASES = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
}
_BOUNDS = {
    "greater_than": ("gt", ">"),
    "greater_than_equal": ("ge", ">="),
    "less_than": ("lt", "<"),
    "less_than_equal": ("le", "<="),
}


def as_input_error(error: ValidationError, document: Mapping[str, Any], spec: type[BaseModel]) -> InputError:
    """The first problem of `error` as an InputError with its dotted path (list items by their name)."""
    problems = error.errors(include_url=False)
    # A misspelt required key is both unknown and missing; the unknown one says more.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    path, owner = _path(problem["loc"], document, spec)
    kind, found, context = problem["type"], problem.get("input"), problem.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, InputError):
        return cause.at(path=path)
    if kind == "extra_forbidden":
        names = [field.alias or name for name, field in owner.model_fields.items()] if owner else []
        parent, _, key = path.rpartition(".")
        return InputError("unknown key", path=parent or None, found=key, allowed=names, near=names)
    if kind == "missing":
        return InputError("missing", path=path)
    if kind in _BOUNDS:
        name, sign = _BOUNDS[kind]
        return InputError("", path=path, found=found, allowed=f"a number {sign} {context[name]}")
    if kind == "literal_error":
        return InputError("", path=path, found=found, allowed=context["expected"])
    if kind in _PHRASES:
        return InputError("", path=path, found=found, allowed=_PHRASES[kind])
    return InputError(problem["msg"].removeprefix("Value error, "), path=path, found=found)


def _path(loc: tuple[int | str, ...], document: Any, spec: type[BaseModel]) -> tuple[str, type[BaseModel] | None]:
    """Dotted path of a location, and the spec class that owns its last key."""
    parts: list[str] = []
    node: Any = document
    owner: type[BaseModel] | None = spec
    for depth, step in enumerate(loc):
        if isinstance(step, int):
            item = node[step] if isinstance(node, list) and step < len(node) else None
            parts.append(str(item["name"]) if isinstance(item, dict) and "name" in item else str(step))
            node = item
            continue
        if node is not None and not isinstance(node, Mapping):
            continue  # which of several types of a value was tried, not a key
        parts.append(step)
        node = node.get(step) if isinstance(node, Mapping) else None
        if depth < len(loc) - 1:
            owner = _owner(owner, step)
    return ".".join(parts), owner


def _owner(owner: type[BaseModel] | None, step: str) -> type[BaseModel] | None:
    """The spec class of the field `step`, looking through Optional, tuple and dict."""
    if owner is None or step not in owner.model_fields:
        return owner
    stack = [owner.model_fields[step].annotation]
    while stack:
        kind = stack.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
        stack.extend(getattr(kind, "__args__", ()))
    return None
