"""check_policy on policies that no engine asks while it runs: transforms of the model, placements in two memories."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import InputError
from hw_profiles.model_spec import ModelSpec
from hw_profiles.models import load_model
from policies.architecture.base import Architecture
from policies.build import build_policy
from policies.contract import ContractError, check_policy
from policies.placement.base import Mask, Placement, PlacementInfo
from policies.placement.recency import AttentionRecency
from policies.tables import ARCHITECTURE, PLACEMENT


@pytest.mark.parametrize("policy", [*PLACEMENT.values(), *ARCHITECTURE.values()])
def test_those_that_ship_keep_it(policy: type) -> None:
    check_policy(policy, seed=0, operations=400)


def test_functions_that_build_one_will_do() -> None:
    check_policy(lambda info: AttentionRecency(info, decay=0.5), seed=0, operations=100)
    check_policy(partial(AttentionRecency, margin=0.1), seed=0, operations=100)
    with pytest.raises(ContractError, match="placement policy TooMany broke"):
        check_policy(lambda info: TooMany(info), seed=0, operations=100)  # noqa: PLW0108 - a function is the point


class Places(Placement):
    def after(self, attended: Mask, placed: Mask) -> Any:
        return placed


class TooMany(Places):
    def after(self, attended: Mask, placed: Mask) -> Any:
        return np.ones_like(placed)


class NoMask(Places):
    def after(self, attended: Mask, placed: Mask) -> Any:
        return [1, 2]


class StartsWithNumbers(Places):
    def first(self) -> Any:
        return np.arange(self.info.pages)


class Writes(Places):
    def after(self, attended: Mask, placed: Mask) -> Any:
        attended[:] = ~attended
        return placed


class PlacesByChance(Places):
    def after(self, attended: Mask, placed: Mask) -> Any:
        return placed & (np.array([random.random() for _ in placed]) < 0.5)


class PlacementRaises(Places):
    def after(self, attended: Mask, placed: Mask) -> Any:
        raise KeyError(3)


class Transforms(Architecture):
    def apply(self, model: ModelSpec) -> Any:
        return model


class Renames(Transforms):
    def apply(self, model: ModelSpec) -> Any:
        return model.name


class Counts(Transforms):
    def __init__(self) -> None:
        self.asked = 0

    def apply(self, model: ModelSpec) -> Any:
        self.asked += 1
        return replace(model, name=f"{model.name}{self.asked}")


class LosesLayers(Transforms):
    def apply(self, model: ModelSpec) -> Any:
        return replace(model, pattern=model.pattern[1:])


class TransformRaises(Transforms):
    def apply(self, model: ModelSpec) -> Any:
        raise KeyError(model.name)


BROKEN: dict[Callable[..., Any], str] = {
    TooMany: "more pages than HBM holds, found ",
    NoMask: "after() did not return the pages in HBM: expected a mask, bool[",
    StartsWithNumbers: "first() did not return the pages in HBM: expected a mask, bool[1], found an array of int64[1]",
    Writes: "after() changed what it was shown",
    PlacesByChance: "two policies built alike placed pages differently",
    PlacementRaises: "after() raised KeyError: 3",
    Renames: "apply() did not return a ModelSpec",
    Counts: "apply() does not follow from the model alone",
    LosesLayers: "a model whose pattern does not name a layer for each of its layers",
    TransformRaises: "apply() raised KeyError",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda cls: cls.__name__)
def test_broken_policies_are_caught(broken: type) -> None:
    with pytest.raises(ContractError) as caught:
        check_policy(broken, seed=0, operations=400)
    family = "placement" if issubclass(broken, Placement) else "architecture"
    assert str(caught.value).startswith(f"{family} policy {broken.__name__} broke its contract: ")
    assert BROKEN[broken] in str(caught.value)


@pytest.mark.parametrize("good", [Places, Transforms])
def test_what_they_are_made_of_is_good(good: type) -> None:
    check_policy(good, seed=0, operations=400)


MINE = """\
from kvsim import Architecture

class Mine(Architecture):
    def apply(self, model):
        {does}

class Foreign:
    def apply(self, model):
        return model
"""


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("return 3", "broke its contract: apply(llama-2-7b) returned 3, expected a ModelSpec"),
        ("raise KeyError(3)", r"failed in apply(llama-2-7b): KeyError: 3 (mine.py, line 5, in Mine.apply)"),
    ],
)
def test_a_transform_that_misbehaves_is_told_in_one_line(does: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE.format(does=does))
    policy = build_policy("architecture", {"name": "mine.py:Mine"}, base_dir=tmp_path, path="here")
    with pytest.raises(InputError) as caught:
        policy.apply(load_model("llama-2-7b"))
    assert said in str(caught.value)
    with pytest.raises(InputError, match="it does not subclass Architecture"):
        build_policy("architecture", {"name": "mine.py:Foreign"}, base_dir=tmp_path, path="here")


def test_a_placement_is_built_for_the_memories(tmp_path: Path) -> None:
    info = PlacementInfo(10, 4, 1e12, 1e11, 1e11, 1e11)
    (tmp_path / "mine.py").write_text(
        "from kvsim import Placement\n\n\nclass Mine(Placement):\n"
        "    def after(self, attended, placed):\n        return attended\n"
    )
    policy = build_policy("placement", {"name": "mine.py:Mine"}, info, base_dir=tmp_path, path="here")
    assert policy.first().sum() == 4
    assert policy.after(np.zeros(10, bool), policy.first()).sum() == 0
