"""Does an admission policy keep its contract?"""

from __future__ import annotations

import random
from collections.abc import Callable

from policies.base import AdmissionPolicy, Block, TierInfo
from policies.checks.error import CAPACITY, TOKENS, Watch, fields
from policies.checks.eviction import Timeline


def check_admission(factory: Callable[[TierInfo], AdmissionPolicy], *, seed: int, operations: int) -> None:
    """Ask an admission policy about random blocks, some of them again and again, full and partial, hit and not.

    Checked: the answer is a bool, the block is not changed, nothing is raised, and two policies built alike agree.
    Raises ContractError.
    """
    source, time = random.Random(seed), Timeline(seed)
    info = TierInfo("dram", CAPACITY * TOKENS, TOKENS, time.now)
    pair = (factory(info), factory(info))
    watch = Watch("admission", *pair)
    for operation in range(operations):
        watch.operation = operation
        time.step()
        key = int(source.paretovariate(0.5)) % (8 * CAPACITY) + 1
        tokens = TOKENS if source.random() < 0.8 else source.randint(1, TOKENS)
        block = Block(key, key % 7 * TOKENS, tokens, tokens, tokens, turn=source.randint(-1, 5))
        block.uses = source.choice((0, 0, 0, 1, 2))
        answers = []
        for policy in pair:
            before = fields(block)
            answers.append(watch.guarded("admit", policy.admit, block, about=block))
            if fields(block) != before:
                watch.fail("admit() changed a block", block)
            if not isinstance(answers[-1], bool):
                watch.fail("admit() returned something that is not a bool", repr(answers[-1]))
        if answers[0] is not answers[1]:
            watch.fail("two policies built alike disagreed", block)
