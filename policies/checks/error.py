"""How a broken rule is reported, and what every family's checks need for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from policies.base import Block
from policies.block import FIELDS

TOKENS = 16
"""Tokens of a full block in the checks; a token takes one byte."""
CAPACITY = 24
"""Full blocks that fit the tier of the checks."""


class ContractError(AssertionError):
    """A policy broke a rule; the text names the policy, the rule, what it was about and the operation."""


class Watch:
    """Calls two policies that were built alike, and compares what they do.

    first, twin   the policy and its double, which must answer the same
    operation     number of the operation in progress, for messages
    """

    def __init__(self, family: str, first: object, twin: object) -> None:
        self.family = family
        self.first = first
        self.twin = twin
        self.operation = 0

    def fail(self, rule: str, about: object) -> NoReturn:
        """Raise ContractError for a rule broken in the operation in progress."""
        name = type(self.first).__name__
        text = f"{self.family} policy {name} broke its contract: {rule} ({about}, operation {self.operation})"
        raise ContractError(text)

    def guarded(self, hook: str, call: Callable[..., Any], *arguments: Any, about: object) -> Any:
        """The result of a call; whatever it raises is the policy's mistake."""
        try:
            return call(*arguments)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a policy raises is its mistake
            self.fail(f"{hook}() raised {type(error).__name__}: {error}", about)

    def plans(self, what: type, arguments: Iterable[Any], *, blocks: Iterable[Block], about: object) -> list[Any]:
        """The plan that both policies make: a list of `what`, made without a change to `blocks`."""
        found = []
        for policy in (self.first, self.twin):
            before = [(block, fields(block)) for block in blocks]
            plan = self.guarded("plan", listed, policy, arguments, about=about)
            if not isinstance(plan, list):
                self.fail("plan() did not return something to iterate over", repr(plan))
            for block, old in before:
                if fields(block) != old:
                    self.fail("plan() changed a block", block)
            for item in plan:
                if not isinstance(item, what):
                    self.fail(f"plan() returned something that is not a {what.__name__}", repr(item))
            found.append(plan)
        if not same(*found):
            self.fail("two policies built alike made different plans", about)
        return found[0]


def listed(policy: Any, arguments: Iterable[Any]) -> Any:
    """The plan as a list, or what is returned in place of one."""
    plan = policy.plan(*arguments)
    return list(plan) if isinstance(plan, Iterable) else plan


def same(plan: list[Any], other: list[Any]) -> bool:
    """True for equal plans. Sequences of keys are compared by their items."""

    def plain(item: Any) -> tuple[object, ...]:
        return tuple(tuple(part) if isinstance(part, list | tuple | range) else part for part in item)

    return [plain(item) for item in plan] == [plain(item) for item in other]


def fields(block: Block) -> tuple[object, ...]:
    """Everything about a block that a policy could change."""
    return tuple(getattr(block, name) for name in FIELDS)
