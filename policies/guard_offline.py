"""Users' policies that no engine asks while it runs: the part of `policies.guard` for architecture and placement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hw_profiles.model_spec import ModelSpec
from policies.guard_reuse import Watch


def architecture_hooks(watch: Watch, policy: Any) -> dict[str, Callable[..., Any]]:
    """The hook of a transform of the model, with what it returns checked."""
    asked = policy.apply

    def apply(model: ModelSpec) -> ModelSpec:
        made = watch.call("apply", asked, model, about=model.name)
        if not isinstance(made, ModelSpec):
            raise watch.broke(f"apply({model.name}) returned {made!r}, expected a ModelSpec")
        return made

    return {"apply": apply}


def placement_hooks(watch: Watch, policy: Any) -> dict[str, Callable[..., Any]]:
    """The hooks of a placement; who plays it looks at the masks."""
    asked_first, asked_after = policy.first, policy.after

    def first() -> Any:
        return watch.call("first", asked_first)

    def after(attended: Any, placed: Any) -> Any:
        return watch.call("after", asked_after, attended, placed)

    return {"first": first, "after": after}
