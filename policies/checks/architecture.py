"""Does a transform of the model keep its contract?"""

from __future__ import annotations

import random
from collections.abc import Callable

from hw_profiles.errors import InputError
from hw_profiles.model_spec import ModelSpec
from hw_profiles.models import load_model
from policies.architecture.base import Architecture
from policies.checks.error import Watch

MODELS = ("llama-3.1-8b", "llama-2-7b", "gpt-oss-120b", "deepseek-v3")
"""Groups of query heads, a KV head for each, layers with windows and experts, a latent."""


def check_architecture(factory: Callable[[], Architecture], *, seed: int, operations: int) -> None:
    """Apply a transform to models of several kinds and depths.

    Checked: `apply` returns a ModelSpec with a layer for each place of its pattern, or raises InputError, which says
    what it is not defined for; asked twice, and of two policies built alike, the answer is the same. Raises
    ContractError.
    """
    source = random.Random(seed)
    first, twin = factory(), factory()
    watch = Watch("architecture", first, twin)
    models = [load_model(name) for name in MODELS]
    for operation in range(min(operations, len(models))):  # there is nothing more to ask than each of them
        watch.operation = operation
        model = models.pop(source.randrange(len(models)))
        made = [_applied(watch, policy, model) for policy in (first, twin, first)]
        if not made[0] == made[1] == made[2]:
            watch.fail("apply() does not follow from the model alone", model.name)


def _applied(watch: Watch, policy: Architecture, model: ModelSpec) -> object:
    try:
        made: object = policy.apply(model)
    except InputError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever a policy raises is reported as its mistake
        watch.fail(f"apply() raised {type(error).__name__}: {error}", model.name)
    if not isinstance(made, ModelSpec):
        watch.fail("apply() did not return a ModelSpec", repr(made))
    if len(made.pattern) != made.layers or not all(0 <= kind < len(made.specs) for kind in made.pattern):
        watch.fail("apply() returned a model whose pattern does not name a layer for each of its layers", model.name)
    return made
