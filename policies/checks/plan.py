"""What a plan within a sequence must be: the contract of `policies.sequence.plan`, checked before the run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import SupportsFloat, get_args

from hw_profiles.errors import InputError
from hw_profiles.lines import Line
from policies.guard import place_of
from policies.sequence.plan import Direction, Form, LayerPlan, LayerView, Move, SequencePolicy, Via, When, Work

CONTEXTS = ((1, 1), (2, 1), (100, 100), (5000, 4000))
"""(context, prompt) at which amounts are looked at, beside the model's longest."""


def plan_of(policy: SequencePolicy, name: str, layer: LayerView, before: LayerPlan) -> LayerPlan:
    """The policy's plan of a layer. Raises InputError, naming policy and layer, for what breaks the contract."""
    try:
        plan = policy.plan(layer, before)
    except InputError:
        raise
    except Exception as error:  # whatever a user's policy raises is reported in one line
        place = place_of(error.__traceback__)
        if place is None:
            raise
        problem = f"{name} failed for layer {layer.index}: {type(error).__name__}: {error} ({place})"
        raise InputError(problem) from None
    check_plan(plan, name, layer)
    return plan


def check_plan(plan: object, name: str, layer: LayerView) -> None:
    """Raises InputError, naming policy and layer, for a plan that breaks the contract."""
    if not isinstance(plan, LayerPlan):
        raise InputError(f"{name} returned {plan!r} for layer {layer.index}, expected a LayerPlan")
    _check_kinds(plan, f"{name}, layer {layer.index}")
    for what, line, of_computed in _lines(plan):
        if of_computed and line.of_prompt:
            raise InputError(f"{name}, layer {layer.index}: {what}: lines in the tokens computed have no prompt terms")
        for context, prompt in (*CONTEXTS, (layer.max_context, layer.max_context)):
            value = line.at(context, prompt)
            if not math.isfinite(value) or value < -1e-6 * max(1.0, abs(line.slope) * context):
                where = f"at a context of {context} and a prompt of {prompt}"
                raise InputError(f"{name}, layer {layer.index}: {what}: {value:g} {where}, expected 0 or more")
    for context, prompt in (*CONTEXTS, (layer.max_context, layer.max_context)):
        _check_attended(plan, context, prompt, f"{name}, layer {layer.index}")
    for move in (*plan.moves, *plan.prompt_moves):
        _check_move(name, move)
    for work in (*plan.works, *plan.prompt_works, *plan.after_prompt):
        _check_work(name, work)


def _check_attended(plan: LayerPlan, context: int, prompt: int, where: str) -> None:
    """A step reads no more tokens than there are, and what HBM does not keep only where copies bring it."""
    attended, kept = plan.attended.at(context, prompt), plan.kept.at(context, prompt)
    most, what = (context, "of the context") if plan.moves else (min(context, kept), "that it keeps, without a move")
    if attended > most * (1 + 1e-6):
        found = f"{attended:g} tokens attended at a context of {context} and a prompt of {prompt}"
        raise InputError(f"{where}: {found}, expected at most the {most:g} {what}")


def _check_kinds(plan: LayerPlan, where: str) -> None:
    """Everything is of the kind that the engine computes with."""
    for what, kind in (("works", Work), ("prompt_works", Work), ("after_prompt", Work), ("moves", Move)):
        _expect(where, what, getattr(plan, what), f"a tuple of {_NAMES[kind]}", _all_are(getattr(plan, what), kind))
    _expect(where, "prompt_moves", plan.prompt_moves, f"a tuple of {_NAMES[Move]}", _all_are(plan.prompt_moves, Move))
    _expect(where, "form", plan.form, "a Form", isinstance(plan.form, Form))
    for what, line, _ in _lines(plan):
        _expect(where, what, line, "a Line such as upto(1024) or constant(8.0)", isinstance(line, Line))
    for what in ("key", "value", "key_full", "value_full", "beside"):
        _expect(where, f"form.{what}", getattr(plan.form, what), "a number >= 0", _at_least_0(getattr(plan.form, what)))
    _expect(where, "form.rate", plan.form.rate, "a number above 0", _at_least_0(plan.form.rate) and plan.form.rate > 0)
    for what in ("pair_bytes", "prefill_flops", "fixed_extra", "l2_lookahead"):
        _expect(where, what, getattr(plan, what), "a number >= 0", _at_least_0(getattr(plan, what)))
    share = plan.attention_share
    _expect(where, "attention_share", share, "a number above 0", share is None or (_at_least_0(share) and share > 0))


_NAMES = {Work: "Work", Move: "StepMove"}


def _expect(where: str, what: str, found: object, allowed: str, good: bool) -> None:
    if not good:
        raise InputError(f"{where}: {what}", found=repr(found), allowed=allowed)


def _all_are(items: object, kind: type) -> bool:
    return isinstance(items, tuple) and all(isinstance(item, kind) for item in items)


def _at_least_0(value: object) -> bool:
    return isinstance(value, SupportsFloat) and not isinstance(value, bool) and 0 <= float(value) < math.inf


def _lines(plan: LayerPlan) -> Iterator[tuple[str, Line, bool]]:
    """(what, line, it is of the tokens computed so far)."""
    yield from (("kept", plan.kept, False), ("attended", plan.attended, False))
    yield from (("extra", plan.extra, False), ("host", plan.host, False))
    if plan.kept_in_prefill is not None:
        yield "kept_in_prefill", plan.kept_in_prefill, False
    for kind, works, computed in (
        ("works", plan.works, False),
        ("prompt_works", plan.prompt_works, True),
        ("after_prompt", plan.after_prompt, False),
    ):
        for work in works:
            yield from ((kind, line, computed) for line in (work.nbytes, work.flops, work.host_seconds))
    for kind, moves, computed in (("moves", plan.moves, False), ("prompt_moves", plan.prompt_moves, True)):
        for move in moves:
            yield from ((kind, line, computed) for line in (move.nbytes, move.copies))


def _check_move(name: str, move: Move) -> None:
    given = (("direction", move.direction, Direction), ("when", move.when, When), ("via", move.via, Via))
    for what, found, allowed in given:
        if found not in get_args(allowed):
            raise InputError(f"{name}: a move's {what}", found=found, allowed=get_args(allowed))
    if move.rate is not None and not move.rate > 0:
        raise InputError(f"{name}: a move's rate", found=move.rate, allowed="bytes/s above 0")


def _check_work(name: str, work: Work) -> None:
    if not work.efficiency > 0:
        raise InputError(f"{name}: efficiency of {work.kernel}", found=work.efficiency, allowed="a number above 0")
    if min(work.launches, work.seconds, work.fixed) < 0:
        raise InputError(f"{name}: launches, seconds and fixed bytes of {work.kernel} are 0 or more")
