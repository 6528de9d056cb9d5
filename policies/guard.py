"""Policies of users at work: what they raise, return or change against their contract is told in one line.

Policies that ship are tested (`policies.contract`) and not guarded, so they run at full speed.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, SupportsFloat

from hw_profiles.errors import InputError
from policies.base import STOP_RULES, Block, Event, Fetch, Moves, Trigger
from policies.guard_eviction import eviction_hooks, read
from policies.guard_offline import architecture_hooks, placement_hooks
from policies.guard_reuse import reuse_hooks

USER_MODULE = "kvsim_user_policy_"
"""Start of the module name under which a user's policy file is loaded."""


_asked = attrgetter("index", "keys", "input_tokens", "turn", "session", "think_s")
"""The same of a request."""


def guard(family: str, policy: Any) -> Any:
    """`policy` with every hook checked when it is called, from now on.

    Raises InputError for settings that make no sense. The hooks are replaced on the object itself, so that it stays of
    its class; an object that allows no attributes is left alone.
    """
    guards = GUARDS.get(family)
    if guards is None:
        return policy
    watch = _Watch(family, policy)
    hooks = guards(watch, policy)
    try:
        for name, hook in hooks.items():
            setattr(policy, name, hook)
    except AttributeError:
        return policy
    return policy


def place_of(trace: TracebackType | None) -> str | None:
    """The line of a user's policy file in which an error was raised; None if it was raised elsewhere."""
    inside = [f for f, _ in traceback.walk_tb(trace) if str(f.f_globals.get("__name__", "")).startswith(USER_MODULE)]
    if not inside:
        return None
    code = inside[-1].f_code
    return f"{Path(code.co_filename).name}, line {inside[-1].f_lineno}, in {code.co_qualname}"


class _Watch:
    """Names the policy in messages, and turns whatever it raises into one."""

    def __init__(self, family: str, policy: object) -> None:
        tier = getattr(getattr(policy, "tier", None), "name", None)
        self._who = f"{family} policy {type(policy).__name__}" + (f" of {tier}" if isinstance(tier, str) else "")

    def broke(self, what: str) -> InputError:
        return InputError(f"{self._who} broke its contract: {what}")

    def call(self, hook: str, method: Callable[..., Any], *arguments: Any, about: object = "") -> Any:
        """The answer of a hook; InputError for anything that it raises."""
        try:
            return method(*arguments)
        except InputError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a policy raises is its mistake
            raise self.failed(hook, about, error) from None

    def failed(self, hook: str, about: object, error: BaseException) -> InputError:
        place = place_of(error.__traceback__)
        text = f"{self._who} failed in {hook}({about}): {type(error).__name__}: {error}"
        return InputError(f"{text} ({place})" if place else text)

    def changed(self, hook: str, what: object) -> InputError:
        return self.broke(f"{hook}() changed {what}, which is for reading")


def _offload(watch: _Watch, policy: Any) -> dict[str, Callable[..., Any]]:
    _check_listens(watch, policy, Event)
    method = policy.plan

    def plan(event: Event, blocks: Sequence[Block], tier: Any) -> Sequence[Any]:
        before = [read(block) for block in blocks]
        moves = watch.call("plan", _moves, method, event, blocks, tier, about=event.name)
        for block, old in zip(blocks, before, strict=True):
            if read(block) != old:
                raise watch.changed("plan", block)
        if type(moves) is Moves:
            if moves.blocks is blocks:
                return moves
            moves = list(moves)
        if not isinstance(moves, list):
            raise watch.broke(f"plan() must return moves, not {moves!r}")
        given = {id(block) for block in blocks}
        for move in moves:
            if not isinstance(move, tuple) or len(move) != 2:
                raise watch.broke(f"plan() must return moves, not {move!r}")
            if id(move[0]) not in given:
                raise watch.broke(f"plan() moves {move[0]!r}, which is not one of the blocks that it was given")
        return moves

    return {"plan": plan}


def _admission(watch: _Watch, policy: Any) -> dict[str, Callable[..., Any]]:
    method = policy.admit

    def admit(block: Block) -> bool:
        before = read(block)
        answer = watch.call("admit", method, block, about=block)
        if read(block) != before:
            raise watch.changed("admit", block)
        if not isinstance(answer, bool):
            raise watch.broke(f"admit({block}) returned {answer!r}, expected True or False")
        return answer

    return {"admit": admit}


def _prefetch(watch: _Watch, policy: Any) -> dict[str, Callable[..., Any]]:
    _check_listens(watch, policy, Trigger)
    if policy.stop not in STOP_RULES:
        raise watch.broke(f"stop is {policy.stop!r}, expected one of {', '.join(STOP_RULES)}")
    if not _is_time(policy.timeout_s) or (policy.stop == "timeout" and not policy.timeout_s):
        raise watch.broke(f"timeout_s is {policy.timeout_s!r}, expected seconds, more than 0 if stop is 'timeout'")
    method, reaches = policy.plan, policy.reach

    def plan(trigger: Trigger, request: Any, cache: Any) -> list[Any]:
        about = f"{trigger.name} of request {request.index}"
        before = _asked(request)
        fetches = watch.call("plan", _listed, method, trigger, request, cache, about=about)
        if _asked(request) != before:
            raise watch.changed("plan", f"request {before[0]}")
        if not isinstance(fetches, list):
            raise watch.broke(f"plan() must return fetches, not {fetches!r}")
        seen: set[tuple[int, str]] = set()
        for fetch in fetches:
            if not isinstance(fetch, Fetch):
                raise watch.broke(f"plan() must return fetches, not {fetch!r}")
            keys, into, after_s, patience_s = fetch
            if not isinstance(keys, Sequence) or not all(type(key) is int for key in keys):
                raise watch.broke(f"plan() fetches {keys!r}, which is not a sequence of keys")
            if not _is_time(after_s):
                raise watch.broke(f"plan() fetches after {after_s!r}, expected seconds from now")
            if patience_s is not None and not _is_time(patience_s):
                raise watch.broke(f"plan() has a fetch waited for {patience_s!r}, expected seconds or None")
            for key in keys:
                if key < 0:
                    raise watch.broke(f"plan() fetches {key}, which is private to a request")
                if (key, into) in seen:
                    raise watch.broke(f"plan() fetches {key} twice into {into!r}")
                seen.add((key, into))
        return fetches

    def reach(cache: Any) -> Any:
        try:
            tier = watch.call("reach", reaches, cache)
        except InputError as error:
            raise error.at(path="policies.prefetch") from None
        if tier is not None and tier not in cache.tiers:
            broke = watch.broke(f"reach() returned {tier!r}, expected None or one of {', '.join(cache.tiers)}")
            raise broke.at(path="policies.prefetch")
        return tier

    return {"plan": plan, "reach": reach}


def _routing(watch: _Watch, policy: Any) -> dict[str, Callable[..., Any]]:
    method = policy.choose

    def choose(request: Any, replicas: Sequence[Any]) -> Any:
        before, shown = _asked(request), list(replicas)
        chosen = watch.call("choose", method, request, shown, about=f"request {before[0]}")
        if _asked(request) != before:
            raise watch.changed("choose", f"request {before[0]}")
        return chosen

    return {"choose": choose}


def _fleet(watch: _Watch, policy: Any) -> dict[str, Callable[..., Any]]:
    method = getattr(policy, "plan", None)
    if method is None:
        return {}

    def plan(window: Any) -> Any:
        answer = watch.call("plan", method, window, about=f"the window until {window.now_s:g} s")
        return answer if isinstance(answer, int) else watch.call("plan", _whole, answer)

    return {"plan": plan}


def _admission_control(watch: _Watch, policy: Any) -> dict[str, Callable[..., Any]]:
    method = policy.admit

    def admit(request: Any, replica: Any) -> bool:
        before = _asked(request)
        answer = watch.call("admit", method, request, replica, about=f"request {before[0]}")
        if _asked(request) != before:
            raise watch.changed("admit", f"request {before[0]}")
        if not isinstance(answer, bool):
            raise watch.broke(f"admit(request {before[0]}) returned {answer!r}, expected True or False")
        return answer

    return {"admit": admit}


def _scheduling(watch: _Watch, policy: Any) -> dict[str, Callable[..., Any]]:
    if not _is_time(policy.error):
        raise watch.broke(f"error is {policy.error!r}, expected a number >= 0")
    asked_rank, asked_choose = policy.rank, policy.choose

    def rank(request: Any) -> Any:
        found = watch.call("rank", asked_rank, request, about=f"request {request.index}")
        if not _is_number(found):
            raise watch.broke(f"rank() returned {found!r} for request {request.index}, expected a number")
        return found

    def choose(queue: Any) -> Any:
        return watch.call("choose", asked_choose, queue)

    return {"rank": rank, "choose": choose}


GUARDS: Mapping[str, Callable[[_Watch, Any], dict[str, Callable[..., Any]]]] = MappingProxyType(
    {
        "eviction": eviction_hooks,
        "offload": _offload,
        "admission": _admission,
        "prefetch": _prefetch,
        "routing": _routing,
        "fleet": _fleet,
        "admission_control": _admission_control,
        "scheduling": _scheduling,
        "placement": placement_hooks,
        "reuse": reuse_hooks,
        "architecture": architecture_hooks,
    }
)
"""What checks the hooks of each family."""


def _whole(answer: object) -> object:
    """What is yielded one by one as a list."""
    return list(answer) if isinstance(answer, Iterable) else answer


def _check_listens(watch: _Watch, policy: Any, kind: type[Event | Trigger]) -> None:
    listens = policy.listens
    if not isinstance(listens, Iterable) or not all(isinstance(event, kind) for event in listens):
        raise watch.broke(f"listens is {listens!r}, expected a tuple of {kind.__name__}")


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_number(value: object) -> bool:
    return isinstance(value, SupportsFloat) and not math.isnan(float(value))


def _moves(method: Callable[..., Any], *arguments: Any) -> Any:
    """The plan as a list, or the moves of all blocks, which the engine takes whole."""
    plan = method(*arguments)
    return plan if type(plan) is Moves or not isinstance(plan, Iterable) else list(plan)


def _listed(method: Callable[..., Any], *arguments: Any) -> Any:
    """The plan as a list, or what is returned in place of one."""
    plan = method(*arguments)
    return list(plan) if isinstance(plan, Iterable) else plan
