"""What the files of every new policy have in common."""

from __future__ import annotations

from typing import NamedTuple


class Template(NamedTuple):
    """The two files of a new policy, as string.Template texts over `name`, `cls` and `family`."""

    policy: str
    test: str


TIERS = '[{"name": "hbm"}, {"name": "dram", "capacity": "64 GiB"}]'


def with_contract(
    body: str,
    *,
    chosen: str = '"policies": {"$family": policy}',
    hardware: str = "",
    engine: str = "",
    tiers: str = TIERS,
    imports: str = "",
    operations: str = "2_000",
) -> str:
    """The test file of a new policy: imports, the contract, a function that runs a scenario, and then `body`.

    chosen     where a scenario names a policy of the family
    hardware, engine  more of those sections
    imports  lines of further imports, which come first
    operations  of each run of the contract
    """
    scenario = _SCENARIO.replace("<chosen>", chosen).replace("<hardware>", hardware)
    scenario = scenario.replace("<engine>", engine).replace("<tiers>", tiers)
    head = _HEAD.replace("import sys\n", f"{imports}import sys\n", 1)
    return head + scenario + CONTRACT.replace("2_000", operations) + body


_HEAD = '''\
"""Tests of $name: the contract of its family, and a scenario."""

import sys
from pathlib import Path
from typing import Any

import kvsim
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # found however pytest is started

from $name import $cls

'''

_SCENARIO = '''\
HERE = Path(__file__).resolve().parent

# The start of the sample that ships with kvsim, in an HBM too small to keep it all.
SCENARIO = {
    "schema": "kvsim-scenario/1",
    "trace": {"name": "quickstart", "limit": 200},
    "model": "llama-3.1-8b",
    "hardware": {"profile": "h100-sxm"<hardware>},
    "engine": {"num_gpu_blocks": 12_000<engine>},
    "tiers": <tiers>,
}


def run(policy: str | dict[str, Any]) -> dict[str, Any]:
    """The summary of the scenario under a policy."""
    document = {**SCENARIO, <chosen>}
    scenario = kvsim.Scenario.from_dict(document, base_dir=HERE)
    return scenario.run(check=True).summary


'''

CONTRACT = '''\
@pytest.mark.parametrize("seed", range(4))
def test_the_contract_is_kept(seed: int) -> None:
    """Random operations; a broken rule is a kvsim.ContractError that names it."""
    kvsim.check_policy($cls, seed=seed, operations=2_000)


'''
