"""Admission policies: what each lets in."""

from pathlib import Path
from typing import Any

import pytest

from hw_profiles.errors import InputError
from policies.admission.by_size import BySize
from policies.admission.second_hit import SecondHit
from policies.base import AdmissionPolicy, Block, TierInfo
from policies.build import build_policy, policy_options
from policies.tables import ADMISSION

SIZE = 10
INFO = TierInfo("dram", 4 * SIZE, SIZE)


def block(key: int, tokens: int = SIZE, *, uses: int = 0) -> Block:
    found = Block(key, 0, tokens, tokens, tokens)
    found.uses = uses
    return found


def test_always_lets_everything_in() -> None:
    policy = ADMISSION["always"](INFO)
    assert all(policy.admit(block(key, tokens)) for key in range(3) for tokens in (1, SIZE))


@pytest.mark.parametrize(
    ("options", "admitted"),
    [
        ({}, [10, 20]),  # full blocks, told by the tier's bytes
        ({"least_tokens": 4}, [4, 9, 10, 20]),
        ({"least_tokens": 0, "most_tokens": 9}, [1, 4, 9]),
        ({"most_tokens": 10}, [10]),
        ({"least_tokens": 9, "most_tokens": 9}, [9]),
    ],
)
def test_by_size(options: dict[str, Any], admitted: list[int]) -> None:
    policy = BySize(INFO, **options)
    assert [tokens for tokens in (1, 4, 9, 10, 20) if policy.admit(block(1, tokens))] == admitted


def test_a_second_attempt_succeeds() -> None:
    policy = SecondHit(INFO)
    assert [policy.admit(block(key)) for key in (1, 2, 1, 2)] == [False, False, True, True]
    assert not policy.admit(block(1))  # it starts anew


def test_a_hit_where_it_comes_from_counts() -> None:
    policy = SecondHit(INFO)
    assert policy.admit(block(1, uses=1))
    assert not policy.admit(block(2))
    assert policy.admit(block(2, uses=3))
    assert not policy.admit(block(2))  # and is not remembered as refused


@pytest.mark.parametrize(
    ("ghost_ratio", "between", "admitted"), [(1, 3, True), (1, 4, False), (2, 7, True), (0, 0, False)]
)
def test_refused_keys_are_remembered_as_far_as_the_tier_is_large(
    ghost_ratio: float, between: int, admitted: bool
) -> None:
    policy = SecondHit(INFO, ghost_ratio=ghost_ratio)
    for key in range(between + 1):
        assert not policy.admit(block(key))
    assert policy.admit(block(0)) is admitted


def test_memory_is_bounded() -> None:
    policy = SecondHit(INFO)
    for key in range(1_000):
        policy.admit(block(key))
    assert len(policy._refused) == INFO.capacity_blocks


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("by_size", {"least_tokens": -1}, "least_tokens: found -1, expected a number >= 0"),
        ("by_size", {"least_tokens": 9, "most_tokens": 3}, "most_tokens: found 3, expected a number >= 9"),
        ("by_size", {"most": 3}, "by_size has no such option, found 'most'"),
        ("second_hit", {"ghost_ratio": "all"}, "ghost_ratio: found 'all'"),
        ("second_hti", {}, "unknown admission policy, .*did you mean 'second_hit'"),
    ],
)
def test_what_is_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=rf"^policies.admission.*{said}"):
        build_policy("admission", {"name": name, **options}, INFO, base_dir=Path(), path="policies.admission")


@pytest.mark.parametrize("name", ADMISSION)
def test_every_policy_builds_from_its_defaults_and_says_what_it_is(name: str) -> None:
    options = policy_options(ADMISSION[name], skip=1)
    policy = build_policy("admission", {"name": name, **options}, INFO, base_dir=Path(), path="")
    assert isinstance(policy, AdmissionPolicy)
    text = type(policy).__doc__ or ""
    assert all(option in text for option in options)
