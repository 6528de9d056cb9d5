"""Policies of the user's own, from a file beside the scenario."""

import pytest

from hw_profiles.errors import InputError
from sim.run import simulate
from sim.scenario import Scenario

ORDERED = """\
from kvsim import {base}


class {name}({base}):
    def __init__(self, tier, skip: int = 0):
        super().__init__(tier)
        self.order = {{}}
        self.skip = skip
        if skip < 0:
            raise ValueError("skip must not be negative")

    def insert(self, block):
        self.order[block.key] = block

    def touch(self, block):
        self.order[block.key] = self.order.pop(block.key)

    release = touch

    def victims(self):
        {victims}

    def remove(self, block):
        del self.order[block.key]
"""
MRU = "return iter(list(self.order.values())[::-1])"


def hit_ratio(scenario):
    return simulate(scenario, check=True).summary["prefix"]["hit_ratio"]


def test_mru_beats_lru_on_a_cycle(beside):
    source = ORDERED.format(base="EvictionPolicy", name="MyPolicy", victims=MRU)
    mine = hit_ratio(beside(source, {"eviction": "my_policy.py:MyPolicy"}))
    lru = hit_ratio(beside(source, {"eviction": "lru"}))
    assert mine > lru + 0.2


def test_a_user_policy_may_be_given_to_one_tier(beside):
    source = ORDERED.format(base="EvictionPolicy", name="MyPolicy", victims=MRU)
    tiers = [{"name": "hbm", "eviction": "my_policy.py:MyPolicy"}]
    assert hit_ratio(beside(source, {}, tiers=tiers)) == hit_ratio(
        beside(source, {"eviction": {"name": "my_policy.py:MyPolicy"}})
    )


def test_a_user_policy_may_use_dataclasses(beside):
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\n\n\n"
    source += "@dataclass\nclass Note:\n    key: int\n\n\n"
    source += ORDERED.format(base="EvictionPolicy", name="MyPolicy", victims=MRU)
    assert hit_ratio(beside(source, {"eviction": "my_policy.py:MyPolicy"})) > 0


def test_the_run_directory_names_the_policy_by_an_absolute_path(beside, tmp_path):
    source = ORDERED.format(base="EvictionPolicy", name="MyPolicy", victims=MRU)
    result = simulate(beside(source, {"eviction": {"name": "my_policy.py:MyPolicy", "skip": 1}}))
    out = result.save(tmp_path / "out" / "run")
    again = Scenario.load(out / "scenario.yaml")
    assert again.spec.policies.eviction.model_dump() == {"name": f"{tmp_path}/my_policy.py:MyPolicy", "skip": 1}
    assert again.run().frames["requests"].equals(result.frames["requests"])


def test_a_user_offload_policy_decides_what_is_stored(beside, hand):
    source = (
        "from kvsim import Event, Move, OffloadPolicy\n\n\n"
        "class FirstBlocks(OffloadPolicy):\n"
        "    listens = (Event.FILLED,)\n\n"
        "    def plan(self, event, blocks, tier):\n"
        "        return [Move(b, tier.below) for b in blocks if b.start == 0]\n"
    )
    result = simulate(beside(source, {"offload": "my_policy.py:FirstBlocks"}, dram="10 GiB"), check=True)
    assert result.summary["tiers"]["dram"]["stored_bytes"] == 3 * 512 * hand.token_bytes
    assert result.frames["requests"].hit_dram_tokens.max() == 512


def test_storing_on_a_hit(beside, hand):
    """Only what is used again is worth storing: nothing is stored at first sight."""
    source = (
        "from kvsim import Event, Move, OffloadPolicy\n\n\n"
        "class OnHit(OffloadPolicy):\n"
        "    listens = (Event.HIT,)\n\n"
        "    def plan(self, event, blocks, tier):\n"
        "        return [Move(b, tier.below) for b in blocks]\n"
    )
    roomy = simulate(beside(source, {"offload": "my_policy.py:OnHit"}, dram="10 GiB", blocks=300), check=True)
    assert roomy.summary["tiers"]["dram"]["stored_bytes"] == 3 * 1008 * hand.token_bytes  # 63 of 64 blocks hit
    tight = simulate(beside(source, {"offload": "my_policy.py:OnHit"}, dram="10 GiB", blocks=64), check=True)
    assert tight.summary["prefix"]["hit_ratio"] == 0
    assert tight.summary["tiers"]["dram"]["stored_bytes"] == 0


@pytest.mark.parametrize("victims", ["return iter(())", "yield from list(self.order.values())[:0]"])
def test_too_few_victims_are_reported_in_one_line(beside, victims):
    source = ORDERED.format(base="EvictionPolicy", name="MyPolicy", victims=victims)
    with pytest.raises(InputError, match=r"MyPolicy.*hbm/0.*victims\(\)") as error:
        simulate(beside(source, {"eviction": "my_policy.py:MyPolicy"}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        (
            {"eviction": "absent.py:MyPolicy"},
            r"mine.yaml: policies.eviction: policy file not found.*absent.py",
        ),
        ({"eviction": "my_policy.py:MyPolcy"}, r"mine.yaml: policies.eviction: .*MyPolcy.*did you mean 'MyPolicy'\?"),
        ({"eviction": "my_policy.py:Block"}, r"mine.yaml: policies.eviction: .*found 'Block', expected MyPolicy"),
        ({"offload": "my_policy.py:MyPolicy"}, r"mine.yaml: policies.offload: .*expected a subclass of OffloadPolicy"),
        ({"eviction": "no_such_pkg.mod:X"}, r"mine.yaml: policies.eviction: cannot import.*no_such_pkg"),
        (
            {"eviction": {"name": "my_policy.py:MyPolicy", "skpi": 3}},
            r"mine.yaml: policies.eviction.skpi: .*no such option, found 'skpi', expected skip; did you mean 'skip'\?",
        ),
        (
            {"eviction": {"name": "my_policy.py:MyPolicy", "skip": -1}},
            r"mine.yaml: policies.eviction: .*skip must not be negative",
        ),
        ({"eviction": {"name": "lru", "size": 3}}, r"mine.yaml: policies.eviction.size: lru has no such option"),
        ({"eviction": "my_policy.py"}, r'which class of the file\?, found .my_policy.py., expected "my_policy.py:MyPo'),
        (
            {"eviction": "my_policy.py:Block"},
            "that class in my_policy.py is no eviction policy: it does not subclass EvictionPolicy, found 'Block'",
        ),
        (
            {"eviction": "my_policy.py:EvictionPolcy"},
            "no eviction policy of that name .*found 'EvictionPolcy', expected MyPolicy$",
        ),
        ({"eviction": "lur"}, r"mine.yaml: policies.eviction: unknown .*'lur'.*did you mean 'lru'\?"),
        ({"offload": "write_throu"}, r"mine.yaml: policies.offload: .*did you mean 'write_through'\?"),
    ],
)
def test_mistakes_in_naming_a_policy(beside, policies, message):
    source = "from kvsim import Block\n" + ORDERED.format(base="EvictionPolicy", name="MyPolicy", victims=MRU)
    with pytest.raises(InputError, match=message) as error:
        simulate(beside(source, policies, dram="1 GiB"))
    assert "\n" not in str(error.value)


def test_a_policy_in_the_working_directory_is_pointed_to(beside, tmp_path, monkeypatch):
    """Policies are looked for beside the scenario, not where one happens to be."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.py").write_text("")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(
        InputError, match=r"found 'other.py', expected its path from there; there is one at .*elsewhere"
    ):
        simulate(beside("", {"eviction": "other.py:Mine"}))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise RuntimeError('on\\nimport')", r"RuntimeError: on import \(my_policy.py, line 1, in <module>\)"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_file_that_does_not_load(beside, source, message):
    with pytest.raises(InputError, match=rf"mine.yaml: policies.eviction: my_policy.py failed to load: {message}"):
        simulate(beside(source, {"eviction": "my_policy.py:MyPolicy"}))


def test_a_policy_without_its_methods_is_refused(beside):
    source = "from kvsim import EvictionPolicy\n\n\nclass MyPolicy(EvictionPolicy):\n    pass\n"
    with pytest.raises(InputError, match=r"policies.eviction: .*abstract"):
        simulate(beside(source, {"eviction": "my_policy.py:MyPolicy"}))
