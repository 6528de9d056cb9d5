"""Does a placement of pages in two memories keep its contract?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from policies.checks.error import Watch
from policies.placement.base import Mask, Placement, PlacementInfo, mask_fault

MACHINES = tuple(
    PlacementInfo(pages, capacity, 4e12, host_rate, host_rate, host_rate)
    for pages, capacity in ((1, 0), (1, 1), (12, 5), (40, 40))
    for host_rate in (5e10, 4e11)
)
"""Some pages, of which none, some or all fit HBM, over a PCIe and an NVLink-C2C of round numbers."""


def check_placement(factory: Callable[[PlacementInfo], Placement], *, seed: int, operations: int) -> None:
    """Drive a placement through steps that attend to random pages, on machines with little and much room.

    Checked: `first` and `after` return masks of the pages in HBM, no more than fit; they change nothing that they are
    shown and raise nothing; two placements built alike agree. Raises ContractError.
    """
    for info in MACHINES:
        _check(factory, info, seed, -(-operations // len(MACHINES)))


def _check(factory: Callable[[PlacementInfo], Placement], info: PlacementInfo, seed: int, operations: int) -> None:
    draws = np.random.default_rng(seed)
    first, twin = factory(info), factory(info)
    watch = Watch("placement", first, twin)
    room = f"{info.capacity} of {info.pages} pages fit"
    placed = _same(watch, "first", [watch.guarded("first", p.first, about=room) for p in (first, twin)], info, room)
    for operation in range(operations):
        watch.operation = operation
        attended = draws.random(info.pages) < draws.random()
        shown = [(attended.copy(), placed.copy()) for _ in range(2)]
        answers = [
            watch.guarded("after", policy.after, *given, about=room)
            for policy, given in zip((first, twin), shown, strict=True)
        ]
        answer = _same(watch, "after", answers, info, room)
        if any((a != attended).any() or (p != placed).any() for a, p in shown):
            watch.fail("after() changed what it was shown", room)
        placed = answer


def _same(watch: Watch, hook: str, answers: list[Mask], info: PlacementInfo, about: str) -> Mask:
    """A copy of the mask that both placements answered."""
    for answer in answers:
        fault = mask_fault(info, answer)
        if fault:
            watch.fail(f"{hook}() did not return the pages in HBM: {fault}", about)
    if (answers[0] != answers[1]).any():
        watch.fail("two policies built alike placed pages differently", about)
    return answers[0].copy()
