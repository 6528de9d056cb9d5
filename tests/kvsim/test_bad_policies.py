"""A user's policy that misbehaves: exit code 2 and one line with its name, what it did, with which block, and when."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Kvsim = Callable[..., Any]

SCENARIO = """\
schema: kvsim-scenario/1
trace: {generate: {requests: 40, rate: 6, turns: 2, first_tokens: {mean: 2000, sigma: 1}}}
model: llama-3.1-8b
hardware: {profile: h100-sxm}
engine: {num_gpu_blocks: 1500}
tiers: [{name: hbm}, {name: dram, capacity: 2 GiB}, {name: ssd, capacity: 8 GiB}]
"""
EVICTION = """\
from kvsim import Block, EvictionPolicy

class Mine(EvictionPolicy):
    def __init__(self, tier):
        super().__init__(tier)
        self.order = {}
        INIT
    def insert(self, block):
        self.order[block.key] = block
        INSERT
    def touch(self, block):
        TOUCH
    def release(self, block):
        RELEASE
    def expired(self):
        EXPIRED
    def victims(self):
        VICTIMS
    def remove(self, block):
        REMOVE
"""
RIGHT = {
    "INIT": "pass",
    "INSERT": "pass",
    "TOUCH": "pass",
    "RELEASE": "pass",
    "EXPIRED": "return iter(())",
    "VICTIMS": "return iter(list(self.order.values()))",
    "REMOVE": "del self.order[block.key]",
}
A_BLOCK = r"Block\(key=\d+, start=\d+, tokens=\d+, pins=\d+\)"
BROKE = "eviction policy Mine of (hbm|dram|ssd) broke its contract: "
STRANGER = "Block(9**9, 0, 512, 512, 512)"
TWICE = "iter([b for b in list(self.order.values())[:1] for _ in (1, 2)])"

# What is wrong with an eviction policy, and what the line says.
EVICTIONS = [
    ("VICTIMS", "return iter(())", r"victims\(\) ended \d+ bytes short although unpinned blocks remain"),
    ("VICTIMS", "return None", BROKE + r"victims\(\) must yield blocks, not None"),
    ("VICTIMS", "yield 'a'", BROKE + r"victims\(\) must yield blocks, not 'a'"),
    ("VICTIMS", f"yield {STRANGER}", BROKE + rf"victims\(\) yielded {A_BLOCK}, which is not in the tier"),
    ("VICTIMS", f"return {TWICE}", BROKE + rf"victims\(\) yielded {A_BLOCK} twice"),
    ("VICTIMS", "return iter(list(self.order.values())[::2])", r"victims\(\) ended \d+ bytes short"),
    ("VICTIMS", "raise RuntimeError('no idea')", r"failed in victims\(\): RuntimeError: no idea \(mine.py, line 18"),
    ("REMOVE", "pass", BROKE + rf"victims\(\) yielded {A_BLOCK}, which is not in the tier"),
    ("REMOVE", "self.nope", rf"failed in remove\({A_BLOCK}\): AttributeError: .*'nope' \(mine.py, line 20"),
    ("INSERT", "assert False, 'no'", rf"failed in insert\({A_BLOCK}\): AssertionError: no"),
    ("TOUCH", "raise SystemExit(3)", rf"failed in touch\({A_BLOCK}\): SystemExit: 3"),
    ("TOUCH", "self.touch(block)", rf"failed in touch\({A_BLOCK}\): RecursionError"),
    ("RELEASE", "raise ValueError('two\\nlines')", rf"failed in release\({A_BLOCK}\): ValueError: two lines"),
    ("TOUCH", "block.size = 1", BROKE + rf"touch\(\) changed {A_BLOCK}, which is for reading"),
    ("TOUCH", "block.pins = 0", BROKE + rf"touch\(\) changed {A_BLOCK}"),
    ("EXPIRED", "return None", BROKE + r"expired\(\) must yield blocks, not None"),
    ("EXPIRED", "return iter([3])", BROKE + r"expired\(\) must yield blocks, not 3"),
    ("EXPIRED", f"return iter([{STRANGER}])", BROKE + rf"expired\(\) yielded {A_BLOCK}, which is not in the tier"),
    ("EXPIRED", f"return {TWICE}", BROKE + rf"expired\(\) yielded {A_BLOCK} twice"),
    ("INIT", "1 / 0", r"policies.eviction: mine.py:Mine failed: ZeroDivisionError: division by zero \(mine.py, line 7"),
]

PLANS = """\
from kvsim import {names}

class Mine({base}):
    {settings}

    def {hook}:
        {body}
"""
OFFLOAD = {
    "names": "Block, Event, Move, OffloadPolicy",
    "base": "OffloadPolicy",
    "hook": "plan(self, event, blocks, tier)",
}
PREFETCH = {
    "names": "Fetch, PrefetchPolicy, Trigger",
    "base": "PrefetchPolicy",
    "hook": "plan(self, trigger, request, cache)",
}
ADMISSION = {"names": "AdmissionPolicy", "base": "AdmissionPolicy", "hook": "admit(self, block)"}
NOT_GIVEN = rf"plan\(\) moves {A_BLOCK}, which is not one of the blocks that it was given"

# Family, what the plan is (and what is set besides), and what the line says.
OTHERS = [
    ("offload", "return None", "", r"plan\(\) must return moves, not None"),
    ("offload", "return [None]", "", r"plan\(\) must return moves, not None"),
    ("offload", "return [(b,) for b in blocks]", "", rf"plan\(\) must return moves, not \({A_BLOCK},\)"),
    ("offload", "return [Move(b, 'drm') for b in blocks]", "", "in hbm/0: a move to 'drm', expected one of dram, ssd"),
    ("offload", "return [Move(b, tier.name) for b in blocks]", "", "a move to 'hbm', expected one of dram, ssd"),
    ("offload", "return [Move(b, tier.below) for b in blocks for _ in 'ab']", "", "in hbm/0: the same move twice"),
    ("offload", "return [Move(Block(9**9, 0, 512, 512, 512), tier.below)]", "", NOT_GIVEN),
    ("offload", "return [Move(Block(b.key, 0, 512, 512, 512), tier.below) for b in blocks]", "", NOT_GIVEN),
    ("offload", "blocks[0].tokens = 1; return []", "", rf"plan\(\) changed {A_BLOCK}, which is for reading"),
    ("offload", "yield 1 / 0", "", r"failed in plan\(FILLED\): ZeroDivisionError: .* \(mine.py, line 7"),
    ("offload", "return [tier.load_s(b, 'drm') for b in blocks]", "", r"failed in plan\(FILLED\): KeyError: 'drm'"),
    ("offload", "return []", "listens = 3", "policies.offload: .* listens is 3, expected a tuple of Event"),
    ("offload", "return []", "listens = ('filled',)", "policies.offload: .*expected a tuple of Event"),
    ("admission", "return None", "", rf"admit\({A_BLOCK}\) returned None, expected True or False"),
    ("admission", "return 1", "", rf"admit\({A_BLOCK}\) returned 1, expected True or False"),
    ("admission", "return block.hash > 3", "", rf"failed in admit\({A_BLOCK}\): AttributeError"),
    ("admission", "block.tokens = 1; return True", "", rf"admit\(\) changed {A_BLOCK}, which is for reading"),
    ("prefetch", "return 3", "", r"plan\(\) must return fetches, not 3"),
    ("prefetch", "return [(request.keys, 'dram')]", "", r"plan\(\) must return fetches, not \("),
    ("prefetch", "return [Fetch(request.keys, 'drm')]", "", "a fetch into 'drm', expected one of hbm, dram, ssd"),
    (
        "prefetch",
        "return [Fetch(request.keys, 'dram', float('inf'))]",
        "",
        "fetches after inf, expected seconds from now",
    ),
    ("prefetch", "return [Fetch(request.keys, 'dram', '1 s')]", "", "fetches after '1 s', expected seconds from now"),
    ("prefetch", "return [Fetch([-1], 'dram')]", "", "fetches -1, which is private to a request"),
    ("prefetch", "return [Fetch(None, 'dram')]", "", "fetches None, which is not a sequence of keys"),
    ("prefetch", "return [Fetch([*request.keys, *request.keys], 'dram')]", "", "fetches 0 twice into 'dram'"),
    ("prefetch", "return [1 / 0]", "", r"failed in plan\(ARRIVED of request 0\): ZeroDivisionError"),
    ("prefetch", "return []", "stop = 'never'", "policies.prefetch: .* stop is 'never', expected one of best_effort"),
    ("prefetch", "return []", "stop = 'timeout'; timeout_s = '1 s'", "timeout_s is '1 s', expected seconds"),
    ("prefetch", "return []", "stop = 'timeout'; timeout_s = 0", "timeout_s is 0, expected seconds, more than 0"),
    ("prefetch", "return [Fetch(request.keys, 'dram', 0.0, '1 s')]", "", "waited for '1 s', expected seconds or None"),
    ("prefetch", "return []", "listens = 3", "listens is 3, expected a tuple of Trigger"),
]


@pytest.fixture
def line_of(kvsim: Kvsim, folder: Path) -> Callable[[str, str], str]:
    """Runs the scenario with a policy in `mine.py`; the one line that it ends with."""

    def run(family: str, source: str) -> str:
        (folder / "tight.yaml").write_text(SCENARIO)
        (folder / "mine.py").write_text(source)
        before = {path for path in folder.iterdir() if path.name != "__pycache__"}
        answer = kvsim("run", "tight.yaml", "--set", f"policies.{family}=mine.py:Mine", "--out", "run")
        assert (answer.code, answer.out) == (2, ""), answer
        assert answer.err.startswith("error: tight.yaml: ")
        assert answer.err.count("\n") == 1
        assert {path for path in folder.iterdir() if path.name != "__pycache__"} == before
        return str(answer.err)

    return run


@pytest.mark.parametrize(("part", "wrong", "said"), EVICTIONS)
def test_an_eviction_policy(line_of: Callable[[str, str], str], part: str, wrong: str, said: str) -> None:
    source = EVICTION
    for key, text in (RIGHT | {part: wrong}).items():
        source = source.replace(key, text)
    line = line_of("eviction", source)
    assert re.search(said, line), line
    assert part == "INIT" or re.search(r", at [\d.]+ s$", line.strip()), line


@pytest.mark.parametrize(("family", "body", "settings", "said"), OTHERS)
def test_a_policy_that_plans(
    line_of: Callable[[str, str], str], family: str, body: str, settings: str, said: str
) -> None:
    parts = {"offload": OFFLOAD, "admission": ADMISSION, "prefetch": PREFETCH}[family]
    line = line_of(family, PLANS.format(**parts, settings=settings or "pass", body=body))
    assert re.search(said, line), line
    assert f"{family} policy Mine" in line
    assert settings or re.search(r", at [\d.]+ s$", line.strip()), line


def test_the_reach_of_a_prefetch_policy(kvsim: Kvsim, folder: Path) -> None:
    """Asked when a replica is built, before there is a time."""
    for body, said in (
        ("return 'tape'", r"reach\(\) returned 'tape', expected None or one of hbm, dram, ssd"),
        ("1 / 0", ""),
    ):
        source = PLANS.format(**PREFETCH, settings="pass", body="return []")
        (folder / "tight.yaml").write_text(SCENARIO)
        (folder / "mine.py").write_text(f"{source}\n    def reach(self, cache):\n        {body}\n")
        answer = kvsim("run", "tight.yaml", "--set", "policies.prefetch=mine.py:Mine", "--out", "run")
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer
        assert answer.err.startswith("error: policies.prefetch: prefetch policy Mine ")
        assert re.search(said or r"failed in reach\(\): ZeroDivisionError: .* \(mine.py, line", answer.err)
        assert not (folder / "run").exists()


def test_a_hook_of_its_own_for_several_blocks_is_called(line_of: Callable[[str, str], str]) -> None:
    source = EVICTION
    for key, text in RIGHT.items():
        source = source.replace(key, text)
    line = line_of("eviction", f"{source}\n    def touch_all(self, blocks):\n        [1 / 0 for _ in blocks]\n")
    assert re.search(rf"failed in touch_all\(\d+ blocks from {A_BLOCK}\): ZeroDivisionError", line), line
    line = line_of("eviction", f"{source}\n    def insert_all(self, blocks):\n        blocks[0].size = 1\n")
    assert re.search(rf"insert_all\(\) changed {A_BLOCK}, which is for reading", line), line


def test_what_a_policy_prints_is_no_part_of_the_document(kvsim: Kvsim, folder: Path) -> None:
    source = EVICTION
    for key, text in (RIGHT | {"INSERT": "print('hello')"}).items():
        source = source.replace(key, text)
    (folder / "tight.yaml").write_text(SCENARIO)
    (folder / "mine.py").write_text(source)
    answer = kvsim("run", "tight.yaml", "--set", "policies.eviction=mine.py:Mine", "--no-report", "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["requests"]["finished"] > 30
    assert "hello" in answer.err


def test_what_is_right_runs(kvsim: Kvsim, folder: Path) -> None:
    source = EVICTION
    for key, text in RIGHT.items():
        source = source.replace(key, text)
    (folder / "tight.yaml").write_text(SCENARIO)
    (folder / "mine.py").write_text(source)
    answer = kvsim("run", "tight.yaml", "--set", "policies.eviction=mine.py:Mine", "--no-report", "--json")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize("name", [":Mine", "mine.py:", "", "mine.py:Mine:Mine"])
def test_half_a_name(kvsim: Kvsim, folder: Path, name: str) -> None:
    (folder / "mine.py").write_text("from kvsim import EvictionPolicy\n")
    answer = kvsim("run", "small.yaml", "--set", f"policies.eviction='{name}'")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "small.yaml: policies.eviction: " in answer.err
