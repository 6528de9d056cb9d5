"""Does a cache of answers, or an index of prefixes, keep its contract?"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass

from policies.checks.error import Watch
from policies.checks.prefetch import Asked
from policies.checks.routing import a_request
from policies.guard_reuse import VISIT, cache_fault, is_visit
from policies.reuse.base import PrefixIndex, ResponseCache


@dataclass(frozen=True)
class Answered(Asked):
    """A request that has its answer (policies.reuse.base.AnsweredView)."""

    output_tokens: int = 0


def check_response_cache(factory: Callable[[], ResponseCache], *, seed: int, operations: int) -> None:
    """Drive a cache of answers through requests that come again, and answers to those that it does not find.

    Checked: `lookup` returns True or False; the cache never holds more than its capacity; nothing is changed or raised;
    two caches built alike agree. Raises ContractError.
    """
    source = random.Random(seed)
    first, twin = factory(), factory()
    watch = Watch("reuse", first, twin)
    _holds(watch, first, "at the start")
    asked: list[Answered] = []
    for operation in range(operations):
        watch.operation = operation
        again = source.choice(asked) if asked and source.random() < 0.5 else None
        plain = again or a_request(source, operation)
        request = Answered(**{**asdict(plain), "output_tokens": source.randint(1, 500), "index": operation})
        asked = [*asked[-50:], request]
        about = f"request {operation}"
        found = [watch.guarded("lookup", cache.lookup, request, about=about) for cache in (first, twin)]
        for answer in found:
            if not isinstance(answer, bool):
                watch.fail("lookup() did not return True or False", repr(answer))
        if found[0] != found[1]:
            watch.fail("two policies built alike gave different answers", about)
        if not found[0]:
            for cache in (first, twin):
                watch.guarded("answered", cache.answered, request, about=about)
        _holds(watch, first, about)


def check_index(factory: Callable[[], PrefixIndex], *, seed: int, operations: int) -> None:
    """Ask an index for prompts and let it write them down.

    Checked: `lookup` and `update` return a Visit without negative times; nothing is raised, and requests are not
    changed; two indexes built alike agree. Raises ContractError.
    """
    source = random.Random(seed)
    first, twin = factory(), factory()
    watch = Watch("reuse", first, twin)
    for operation in range(operations):
        watch.operation = operation
        request, about = a_request(source, operation), f"request {operation}"
        tokens = source.choice((0, request.input_tokens))
        visits = [
            (
                watch.guarded("lookup", index.lookup, request, about=about),
                watch.guarded("update", index.update, tokens, about=f"{tokens} tokens"),
            )
            for index in (first, twin)
        ]
        for hook, visit in zip(("lookup", "update"), visits[0], strict=True):
            if not is_visit(visit):
                watch.fail(f"{hook}() did not return {VISIT}", repr(visit))
        if visits[0] != visits[1]:
            watch.fail("two policies built alike gave different answers", about)


def _holds(watch: Watch, cache: ResponseCache, about: str) -> None:
    rule = cache_fault(cache)
    if rule:
        watch.fail(rule, about)
