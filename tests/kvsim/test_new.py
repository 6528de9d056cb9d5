"""`kvsim new policy`: what it writes works as it stands, wherever it lies; what it refuses leaves nothing behind."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import kvsim as package
from kvsim.cli._templates import TEMPLATES, WITHIN
from kvsim.cli.main import run
from kvsim.cli.new import SECTIONS
from policies.contract import ContractError, check_policy
from policies.tables import FAMILIES as TIER_TABLES
from policies.tables import NAMED
from policies.tables import WITHIN as TABLES_WITHIN

Kvsim = Callable[..., Any]
ROOT = Path(package.__file__).resolve().parents[1]
TWO = ("--set", "hardware.replicas=2")
"""So that a router has a choice."""
RULES = "A,B,C4,D1,E,ERA,F,I,N,PT,PTH,RUF,SIM,UP,W"
FAMILIES = {
    "eviction": "lru",
    "admission": "always",
    "offload": "write_through",
    "prefetch": "{name: on_arrival, into: hbm}",
    "routing": "{name: least_loaded, waiting_weight: 1}",
    "fleet": "{name: target_utilization, requests: 8, lower: 1, upper: 1, protect: 0}",
    "admission_control": "queue_limit",
    "scheduling": "shortest_first",
    "kv_format": "fp8",
    "retention": "{name: streaming_llm, sinks: 0, window: 2048}",
    "selection": "{name: quest, budget: 1000000}",
    "sequence_offload": "host_kv",
    "sequence_prefetch": "{name: l2, baseline: 0.5}",
    "architecture": "{name: gqa, kv_heads: 4}",
    "reuse": "response_cache",
    "prefix_index": "{name: metadata_index, by: batch}",
    "placement": "least_recently_attended",
}
"""What the skeleton of each family behaves like."""
RUN = [family for family in FAMILIES if family != "placement"]
"""Those that a run of a scenario has; `kvsim place` has no engine."""


def class_of(name: str) -> str:
    return "".join(part.title() for part in name.split("_"))


def call(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", *map(str, command))
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


NAMES = {family: f"my_{'_'.join(word[:4] for word in family.split('_'))}_2" for family in FAMILIES}
BROKEN = {
    "eviction": ("return iter(self._order.values())", "return iter(list(self._order.values())[1:])"),
    "admission": ("return True", "return 1"),
    "offload": ("for block in blocks]", "for block in blocks[:0]]"),
    "prefetch": ("cache.tiers[0])]", '"tape")]'),
    "routing": ("return chosen", "return chosen + 1"),
    "fleet": ("return ceil(window.load / self._each)", "return -1"),
    "admission_control": ("return replica.waiting < self._waiting", "return replica.waiting"),
    "scheduling": ("return 0", "return -1"),
    "kv_format": ("return replace(before, form=form, kept_in_prefill=CONTEXT)", "return form"),
    "retention": ("kept=before.kept.capped(self._tokens)", "kept=before.kept * -1.0"),
    "selection": ("attended=before.attended.capped(self._tokens)", "attended=self._tokens"),
    "sequence_offload": ("host=before.host + held", "host=before.host - held"),
    "sequence_prefetch": ("l2_lookahead=self._lookahead", "l2_lookahead=-1"),
    "architecture": ("return replace(model, name=name,", "return dict(name=name,"),
    "reuse": ("self.entries = len(self._held)", "self.entries = -1"),
    "prefix_index": ("keys = tokens // 16", "keys = -tokens"),
    "placement": ("self.info.pages - self.info.capacity", "0"),
}
"""A scan that leaves a block out, an answer that is no bool, a plan that stores nothing, a tier and a replica that are
none, fewer replicas than none, less host memory than none, pages in an HBM that they do not fit."""
CONTRACTS = {**dict.fromkeys(WITHIN, "sequence"), "prefix_index": "reuse"}
"""What contracts call a family, where that is another name."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder (with a space in its name) that holds a new policy of every family, and its tests."""
    out = tmp_path_factory.mktemp("new") / "my policies"
    for family, name in NAMES.items():
        assert run(["new", "policy", name, "--family", family, "--out", str(out)]) == 0
        assert f"class {class_of(name)}(" in (out / f"{name}.py").read_text()
    return out


def test_two_files_are_written(written: Path) -> None:
    names = {f"{name}.py" for name in NAMES.values()}
    assert {path.name for path in written.iterdir()} == names | {f"test_{name}" for name in names}


@pytest.mark.parametrize(("mode", "which"), [("prepend", ""), ("importlib", "contract and 0")])
def test_their_tests_pass_outside_the_repository(mode: str, which: str, written: Path, tmp_path: Path) -> None:
    assert ROOT not in tmp_path.parents
    options = ("-q", "-p", "no:cacheprovider", f"--import-mode={mode}", "-k", which)
    done = call("pytest", *options, *sorted(written.glob("test_*.py")), cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "warning" not in done.stdout


def test_their_tests_fail_when_the_policies_are_broken(written: Path, tmp_path: Path) -> None:
    for path in written.glob("*.py"):
        text = path.read_text()
        if not path.name.startswith("test_"):
            [family] = [family for family, name in NAMES.items() if name == path.stem]
            good, bad = BROKEN[family]
            assert text.count(good) == 1
            text = text.replace(good, bad)
        (tmp_path / path.name).write_text(text)
    done = call("pytest", "-q", "-p", "no:cacheprovider", ".", cwd=tmp_path)
    assert done.returncode == 1
    for family, name in NAMES.items():
        broke = f"ContractError: {CONTRACTS.get(family, family)} policy {class_of(name)} broke"
        assert ("test_it_plans_a_copy" if family == "offload" else broke) in done.stdout


def test_they_are_clean(written: Path, tmp_path: Path) -> None:
    rules = ("--select", RULES, "--ignore", "D102,D103,D107")
    plain = call("ruff", "check", "--isolated", "--no-cache", *rules, ".", cwd=written)
    assert plain.returncode == 0, plain.stdout
    shape = call("ruff", "format", "--isolated", "--no-cache", "--check", ".", cwd=written)
    assert shape.returncode == 0, shape.stdout
    policies = [f"{name}.py" for name in NAMES.values()]
    types = call("mypy", "--strict", "--cache-dir", tmp_path, *policies, cwd=written)
    assert types.returncode == 0, types.stdout


@pytest.mark.parametrize("family", RUN)
def test_a_scenario_runs_with_it_as_the_printed_command_says(family: str, kvsim: Kvsim, folder: Path) -> None:
    """The scenario lies elsewhere, and the numbers are those of the policy that the skeleton behaves like."""
    answer = kvsim("new", "policy", f"my_{family}", "--family", family, "--out", "new ones")
    *_, command = lines = [shlex.split(line) for line in answer.out.splitlines()]
    assert ["pytest", f"new ones/test_my_{family}.py"] in lines
    studies = [line for line in lines if line[:2] == ["kvsim", "cache"]]
    assert len(studies) == (family == "eviction")
    assert all(kvsim(*study[1:]).code == 0 for study in studies)
    assert command[:4] == ["kvsim", "run", "scenario.yaml", "--set"]
    shipped_as = f"{SECTIONS.get(family, f'policies.{family}')}={FAMILIES[family]}"
    if family.startswith("sequence_"):
        shipped_as = f"policies={{{family}: {FAMILIES[family]}}}"
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "scenario.yaml").write_text((folder / "small.yaml").read_text())
    mine, shipped = (
        json.loads(kvsim("run", "elsewhere/scenario.yaml", *TWO, *chosen, "--json", "--no-report").out)
        for chosen in (command[3:], ["--set", shipped_as, *command[5:]])
    )
    assert mine["requests"]["finished"] == 60
    assert mine["prefix"] == shipped["prefix"]
    if family == "selection":  # those that ship say how tokens are found, which takes time and memory
        assert mine["tpot_ms"]["mean"] < shipped["tpot_ms"]["mean"]
    else:
        assert mine["tiers"] == shipped["tiers"]


def test_a_placement_is_studied_as_the_printed_command_says(kvsim: Kvsim, folder: Path) -> None:
    answer = kvsim("new", "policy", "my_placement", "--family", "placement")
    command = shlex.split(answer.out.splitlines()[-1])
    assert command == ["kvsim", "place", "--policy", "static,my_placement.py:MyPlacement"]
    command[-1] += f",{FAMILIES['placement']}"
    rows = json.loads(kvsim(*command[1:], "--moves", "0", "--steps", "50", "--layers", "1", "--json").out)["rows"]
    step_s = {row["policy"]: row["step_s"] for row in rows}
    assert step_s["my_placement.py:MyPlacement"] == step_s[FAMILIES["placement"]] != step_s["static"]


def test_every_family_has_a_skeleton() -> None:
    assert set(TEMPLATES) == set(FAMILIES) == set(NAMED) | {"prefix_index"}
    assert set(WITHIN) == set(TABLES_WITHIN) - {"architecture"}
    beside = {"routing", "admission_control", "fleet"}  # they stand beside `policies` in a scenario
    assert set(SECTIONS) == beside | {"prefix_index"}
    assert beside == set(NAMED) - set(TIER_TABLES) - set(TABLES_WITHIN) - {"scheduling", "placement", "reuse"}


def test_one_document_says_what_was_written(kvsim: Kvsim, folder: Path) -> None:
    answer = kvsim("new", "policy", "mine", "--json")
    document = json.loads(answer.out)
    tries = document.pop("next")
    assert document == {"family": "eviction", "class": "Mine", "policy": "mine.py", "test": "test_mine.py"}
    assert tries == [
        "pytest test_mine.py",
        "kvsim cache quickstart --policy lru,mine.py:Mine,belady",
        f"kvsim run scenario.yaml --set policies.eviction={folder}/mine.py:Mine",
    ]
    assert (folder / "mine.py").is_file()


def test_without_pytest_it_says_how_to_have_it(kvsim: Kvsim, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment that kvsim runs in: another one's pytest could not import it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pytest" else find_spec(name))
    install, test, *_ = json.loads(kvsim("new", "policy", "mine", "--json").out)["next"]
    assert shlex.split(install) == [sys.executable, "-m", "pip", "install", "pytest"]
    assert shlex.split(test) == [sys.executable, "-m", "pytest", "test_mine.py"]


@pytest.mark.parametrize("there", ["mine.py", "test_mine.py"])
def test_nothing_is_overwritten(there: str, kvsim: Kvsim, folder: Path) -> None:
    (folder / there).write_text("mine")
    before = set(folder.iterdir())
    answer = kvsim("new", "policy", "mine")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"error: {there}: is already there; choose another NAME or --out\n"
    assert (folder / there).read_text() == "mine"
    assert set(folder.iterdir()) == before


REFUSED = {
    "not snake_case": (["MyPolicy"], "expected snake_case"),
    "not an identifier": (["my-policy"], "found 'my-policy'"),
    "a path": (["a/b"], "found 'a/b'"),
    "a digit first": (["2q"], "found '2q'"),
    "a line end": (["mine\n"], "expected snake_case"),
    "a keyword": (["class"], "expected snake_case"),
    "a module of Python's": (["queue"], "such as my_queue"),
    "a module of ours": (["traces"], "such as my_traces"),
    "a class of ours": (["eviction_policy"], "such as my_eviction_policy"),
    "a class of the tests": (["request"], "such as my_request"),
    "a class of the templates": (["ordered_dict"], "such as my_ordered_dict"),
    "an exception": (["value_error"], "such as my_value_error"),
    "a file of tests": (["test_mine"], "such as my_test_mine"),
    "a name too long for its tests only": (["m" * 236], "cannot write"),
    "a family without policies": (["mine", "--family", "offlod"], "did you mean 'offload'?"),
    "a file for a folder": (["mine", "--out", "small.yaml"], "small.yaml: is a file"),
    "no name": ([], "NAME"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_in_one_line(case: str, kvsim: Kvsim, folder: Path) -> None:
    arguments, said = REFUSED[case]
    answer = kvsim("new", "policy", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert said in answer.err
    assert [path.name for path in folder.iterdir()] == ["small.yaml"]


def test_an_unknown_thing_to_make_is_answered_with_the_nearest(kvsim: Kvsim) -> None:
    answer = kvsim("new", "polcy", "mine")
    assert answer.code == 2
    assert "did you mean 'policy'?" in answer.err


def test_the_contract_checker_is_public() -> None:
    assert {"check_policy", "ContractError"} <= set(package.__all__)
    assert package.check_policy is check_policy
    assert package.ContractError is ContractError
