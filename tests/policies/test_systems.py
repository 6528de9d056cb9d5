"""Systems by name: what they expand to, how they combine, where they stand in the tree."""

from __future__ import annotations

import pytest

from hw_profiles.errors import InputError
from policies.build import policy_options
from policies.systems import SYSTEMS, expand
from policies.systems_within import WITHIN as WITHIN_SYSTEMS
from policies.tables import EVERY_FAMILY, FLEET, NAMED, SEQUENCE_FAMILIES, WITHIN
from policies.taxonomy import TREE


@pytest.mark.parametrize("name", WITHIN_SYSTEMS)
def test_every_system_is_made_of_policies_that_there_are(name):
    policies = expand(name).policies
    tables = {**SEQUENCE_FAMILIES, "architecture": WITHIN["architecture"]}
    for family, given in policies.items():
        for policy in given if isinstance(given, list) else [given]:
            assert policy["name"] in tables[family]


def test_every_policy_within_a_sequence_is_in_a_system():
    used = {
        policy["name"]
        for name in WITHIN_SYSTEMS
        for given in expand(name).policies.values()
        for policy in (given if isinstance(given, list) else [given])
    }
    assert {name for table in WITHIN.values() for name in table} - {"none"} <= used


def test_every_system_is_a_leaf_and_every_leaf_means_something():
    leaves = [name for branch in TREE.values() for names in branch.values() for name in names]
    assert set(SYSTEMS) <= set(leaves)
    assert set(leaves) - set(SYSTEMS) <= {*EVERY_FAMILY, *FLEET, "reuse", "fcfs", "priority", "static"}
    assert len(leaves) == len(set(leaves))


def test_every_policy_is_in_the_tree_once():
    """By its own name, that of a system made of it, or its family's."""
    leaves = [name for branch in TREE.values() for names in branch.values() for name in names]
    made_of = {
        (family, policy["name"]): name
        for name in SYSTEMS
        for family, given in expand(name)[0].items()
        for policy in (given if isinstance(given, list) else [given])
        if isinstance(policy, dict)
    }
    for family, table in NAMED.items():
        for name in set(table) - {"none"}:
            system = made_of.get((family.removeprefix("sequence_"), name))
            assert leaves.count(family) or leaves.count(name) or leaves.count(system), (family, name)
            assert leaves.count(name) <= 1


def test_options_go_to_the_policy_that_has_them():
    policies, _, _ = expand({"name": "kivi", "bits": 4})
    assert policies == {"kv_format": [{"name": "kivi", "bits": 4}]}
    assert "bits" in policy_options(WITHIN["kv_format"]["kivi"])


def test_systems_combine_and_contradict():
    policies, engine, _ = expand(["think", "quarot"])
    assert [p["name"] for p in policies["kv_format"]] == ["think", "quarot"]
    assert engine["weights_dtype"] == SYSTEMS["quarot"].engine["weights_dtype"]
    assert expand({"system": "arkvale", "eviction": "lru"})[0] == {"selection": {"name": "arkvale"}, "eviction": "lru"}
    for given, said in (
        (["arkvale", "quest"], "both decide selection"),
        ({"system": "arkvale", "selection": "quest"}, "has a policy of this family already"),
        ({"name": "kivi", "bit": 4}, "no such option"),
        (["kivy"], "unknown system"),
        (7, "expected a system"),
    ):
        with pytest.raises(InputError, match=said):
            expand(given)
