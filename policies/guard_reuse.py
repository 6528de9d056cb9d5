"""Users' caches of answers and indexes at work: the part of `policies.guard` for the family reuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from hw_profiles.errors import InputError
from policies.reuse.base import PrefixIndex, ResponseCache, Visit


class Watch(Protocol):
    """Who calls a user's policy and names it in messages."""

    def broke(self, what: str) -> InputError: ...
    def call(self, hook: str, method: Callable[..., Any], *arguments: Any, about: object = "") -> Any: ...
    def failed(self, hook: str, about: object, error: BaseException) -> InputError: ...
    def changed(self, hook: str, what: object) -> InputError: ...


def reuse_hooks(watch: Watch, policy: Any) -> dict[str, Callable[..., Any]]:
    """The hooks of a cache of answers or an index, with what they return checked. Raises InputError for settings that
    make no sense."""
    if isinstance(policy, ResponseCache):
        return _cache(watch, policy)
    if isinstance(policy, PrefixIndex):
        return _index(watch, policy)
    raise watch.broke("it is neither a ResponseCache nor a PrefixIndex")


def _cache(watch: Watch, policy: ResponseCache) -> dict[str, Callable[..., Any]]:
    rule = cache_fault(policy)
    if rule:
        raise watch.broke(rule)
    asked, told = policy.lookup, policy.answered

    def lookup(request: Any) -> bool:
        found = watch.call("lookup", asked, request, about=f"request {request.index}")
        if not isinstance(found, bool):
            raise watch.broke(f"lookup(request {request.index}) returned {found!r}, expected True or False")
        return found

    def answered(request: Any) -> None:
        watch.call("answered", told, request, about=f"request {request.index}")
        rule = cache_fault(policy)
        if rule:
            raise watch.broke(f"after answered(request {request.index}), {rule}")

    return {"lookup": lookup, "answered": answered}


def _index(watch: Watch, policy: PrefixIndex) -> dict[str, Callable[..., Any]]:
    asked, written = policy.lookup, policy.update

    def lookup(request: Any) -> Any:
        visit = watch.call("lookup", asked, request, about=f"request {request.index}")
        if not is_visit(visit):
            raise watch.broke(f"lookup(request {request.index}) returned {visit!r}, expected {VISIT}")
        return visit

    def update(tokens: int) -> Any:
        visit = watch.call("update", written, tokens, about=f"{tokens} tokens")
        if not is_visit(visit):
            raise watch.broke(f"update({tokens}) returned {visit!r}, expected {VISIT}")
        return visit

    return {"lookup": lookup, "update": update}


VISIT = "a Visit: two times in s and a number of keys, none below 0"


def is_visit(answer: object) -> bool:
    """True for what an index may answer."""
    return (
        isinstance(answer, Visit)
        and _at_least_0(answer.network_s)
        and _at_least_0(answer.server_s)
        and _at_least_0(answer.keys)
    )


def cache_fault(cache: ResponseCache) -> str:
    """What is wrong with what a cache of answers says of itself; empty if nothing is."""
    for name in ("lookup_s", "capacity", "entries", "used_bytes"):
        value = getattr(cache, name, None)
        if not _at_least_0(value):
            return f"{name} is {value!r}, expected {'seconds' if name == 'lookup_s' else 'a number'}, 0 or more"
    if cache.used_bytes > cache.capacity:
        return f"it holds {cache.used_bytes} bytes, more than its capacity of {cache.capacity}"
    return ""


def _at_least_0(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
