"""docs/tiers.md, engine.md and clients.md say what is true: every key, device and policy, and what a run gave."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from hw_profiles.devices import list_devices, load_device
from hw_profiles.errors import InputError
from policies.systems_across import ACROSS
from policies.systems_within import WITHIN
from policies.tables import FAMILIES
from sim.engine_spec import EngineSpec, LoadingSpec
from sim.fleet.spec import FleetSpec
from sim.scenario import Scenario
from sim.speculation_spec import SpeculationSpec
from sim.tier_spec import DEFAULT_DEVICES, TIER_KINDS, LinkSpec, TierSpec
from traces.catalog import locate
from traces.clients import ClientsSpec
from traces.closed_loop import ClosedLoopSpec
from traces.priority import PrioritySpec

ROOT = Path(__file__).resolve().parents[1]
TIERS = (ROOT / "docs" / "tiers.md").read_text()
CLIENTS = (ROOT / "docs" / "clients.md").read_text()
ENGINE = (ROOT / "docs" / "engine.md").read_text()
SPECULATION = (ROOT / "docs" / "speculation.md").read_text()


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the first table from `heading` on, less its first two lines."""
    table = re.search(r"\n((?:\|.*\n)+)", text[text.index(heading) - 1 :])
    assert table is not None
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table[1].splitlines()[2:]]


@pytest.mark.parametrize(
    ("text", "heading", "keys"),
    [
        (TIERS, "## `tiers`", TierSpec.model_fields),
        (TIERS, "| key | for |", LinkSpec.model_fields),
        (TIERS, "## `engine.loading`", LoadingSpec.model_fields),
        (TIERS, "| name | made of |", TIER_KINDS),
        (ENGINE, "## `engine`", EngineSpec.model_fields),
        (SPECULATION, "| key of `engine.speculation` |", SpeculationSpec.model_fields),
        (ENGINE, "| key of `trace.priority` |", PrioritySpec.model_fields),
        (CLIENTS, "| key | default |", ClientsSpec.model_fields),
        ((ROOT / "docs" / "fleet.md").read_text(), "| key of `fleet` |", FleetSpec.model_fields),
        (CLIENTS, "| key | meaning |", ClosedLoopSpec.model_fields),
    ],
)
def test_every_key_is_explained(text, heading, keys):
    section = text[text.index(heading) :]
    table = section[: section.index("\n\n", section.index("|---"))]
    assert [key for key in keys if f"`{key}`" not in table] == []


@pytest.mark.parametrize("family", ["offload", "admission", "prefetch"])
def test_every_policy_is_explained(family):
    table = TIERS[TIERS.index(f"| `policies.{family}` |") :]
    assert [name for name in FAMILIES[family] if f"| `{name}`" not in table] == []


def test_the_table_of_devices_is_that_of_the_files():
    shown = {row[0].strip("`"): row for row in rows(TIERS, "| device | kind |")}
    assert list(shown) == list_devices()
    for name, (_, kind, default, read, write, *_rest) in shown.items():
        device = load_device(name)
        assert kind == device.kind
        assert [tier for tier in DEFAULT_DEVICES if f"`{tier}`" in default] == [
            tier for tier, used in DEFAULT_DEVICES.items() if used == name
        ]
        for way, cell in (("read", read), ("write", write)):
            assert cell == f"{device.entries[f'{way}.latency'].text}, {device.entries[f'{way}.bandwidth'].text}"
        for key in device.sources:
            assert re.search(rf"\b{key}\b", _rest[-1])


@pytest.mark.parametrize("text", [TIERS, CLIENTS], ids=["tiers", "clients"])
def test_snippets_are_scenarios(text):
    plain = yaml.safe_load((ROOT / "examples" / "quickstart.yaml").read_text())
    snippets = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert snippets
    for snippet in snippets:
        Scenario.from_dict({**plain, **yaml.safe_load(snippet)})


def test_links_lead_somewhere():
    for text in (TIERS, CLIENTS):
        for target in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (ROOT / "docs" / target).exists()


def close(shown: str, found: float, rel: float) -> bool:
    """True if the number in a cell is `found` to `rel`."""
    return abs(float(shown.split(maxsplit=1)[0].replace(",", "")) - found) <= rel * max(1.0, abs(found))


@pytest.mark.parametrize(
    ("label", "settings"), [("`policies.prefetch=none`", {"policies.prefetch": "none"}), ("as it stands", {})]
)
def test_the_example_of_clients_is_what_comes_out(label, settings):
    scenario = Scenario.load(ROOT / "examples" / "prefetch.yaml")
    for path, value in settings.items():
        scenario = scenario.set(path, value)
    summary = scenario.run().summary
    (row,) = [row for row in rows(CLIENTS, "| variant |") if row[0].startswith(label)]
    assert close(row[1], summary["ttft_ms"]["p50"], 0.1)
    assert close(row[2], summary["ttft_ms"]["mean"], 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "settings"),
    [
        ("as it stands", {}),
        ("and remote", {"policies.prefetch": "none"}),
        ("`policies.prefetch.stop=best_effort`", {"policies.prefetch.stop": "best_effort"}),
    ],
)
def test_the_example_of_tiers_is_what_comes_out(label, settings):
    try:
        locate("mooncake-conversation")
    except InputError:
        pytest.skip("the conversation trace is not on this machine (KVSIM_TRACES)")
    scenario = Scenario.load(ROOT / "examples" / "four_tiers.yaml")
    for path, value in settings.items():
        scenario = scenario.set(path, value)
    summary = json.loads(json.dumps(scenario.run().summary))
    (row,) = [row for row in rows(TIERS, "| variant |") if row[0].startswith(label)]
    assert close(row[1], 100 * summary["prefix"]["hit_ratio"], 0.02)
    assert close(row[3], summary["ttft_ms"]["mean"], 0.1)
    assert close(row[5], summary["ttft_ms"]["p99"], 0.1)


def test_every_system_is_in_the_table_and_the_example_is_a_policy(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "systems.md").read_text()
    assert [row[0].strip("`") for row in rows(text, "| system | families |")] == list(WITHIN)
    assert [row[0].strip("`") for row in rows(text, "| system | tiers |")] == list(ACROSS)
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "my_policy.py").write_text(code)
    plain = yaml.safe_load((ROOT / "examples" / "long_context.yaml").read_text())
    plain["policies"] = {"retention": {"name": "my_policy.py:Recent", "tokens": 512}}
    plain["trace"]["clients"] |= {"clients": 1, "conversations": 1}
    summary = Scenario.from_dict(plain, base_dir=tmp_path).run().summary
    assert summary["within"]["policies"][0]["tokens"] == 512


WHEN = ROOT / "docs" / "when.md"


def test_every_system_says_when_it_wins():
    found = rows(WHEN.read_text(), "| system | quiet")
    assert [row[0].strip("`") for row in found] == list(WITHIN)
    assert all(len(row) == 9 and row[7] and row[8] for row in found)


ACROSS_PAGE = ROOT / "docs" / "when-across.md"


def test_every_system_across_sequences_says_when_it_wins():
    text = ACROSS_PAGE.read_text()
    found = rows(text, "| system | with |")
    stores = {name for name, system in ACROSS.items() if system.setup is not None}
    assert stores <= {row[0].strip("`") for row in found}
    assert all(len(row) == 8 and row[6] and row[7] for row in found)
    assert stores <= set(re.findall(r"^## (\w+)$", text, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["none", "lmcache", "vllm_cpu_offload", "hicache", "mooncake", "cached_attention"])
@pytest.mark.parametrize(("scale", "column", "unit"), [(0.05, 3, 1.0), (0.4, 4, 1e3)])
def test_when_it_wins_across_sequences_is_what_comes_out(name, scale, column, unit):
    try:
        locate("mooncake-conversation")
    except InputError:
        pytest.skip("the conversation trace is not on this machine (KVSIM_TRACES)")
    scenario = Scenario.load(ROOT / "examples" / "stores.yaml").set("trace.rate_scale", scale)
    sizes = {"none": {}, "mooncake": {"remote": "2 TiB"}, "cached_attention": {"dram": "128 GiB", "ssd": "2 TiB"}}
    if name in sizes:
        policies = {"name": name, **sizes[name]} if name != "none" else {}
        scenario = scenario.set_all([("tiers", [{"name": "hbm"}]), ("policies", policies)])
    else:
        scenario = scenario.set("policies", name)
    summary = scenario.run().summary
    row = next(row for row in rows(ACROSS_PAGE.read_text(), "| system | with |") if row[0].strip("`") == name)
    median, mean = (float(number) * unit for number in row[column].split(", "))
    assert summary["ttft_ms"]["p50"] == pytest.approx(median, rel=0.02)
    assert summary["ttft_ms"]["mean"] == pytest.approx(mean, rel=0.02)
    assert 100 * summary["prefix"]["hit_ratio"] == pytest.approx(float(row[2].split()[0]), abs=0.6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "arkvale", "snapkv", "corm", "bct", "zipvl", "kivi", "yoco"])
def test_when_it_wins_is_what_comes_out(name):
    try:
        locate("mooncake-conversation")
    except InputError:
        pytest.skip("the conversation trace is not on this machine (KVSIM_TRACES)")
    (row,) = [row for row in rows(WHEN.read_text(), "| system | quiet") if row[0] == f"`{name}`"]
    crowded = Scenario.load(ROOT / "examples" / "systems.yaml")
    if name != "full":
        crowded = crowded.set("policies", name)
    quiet, full = (s.run().summary for s in (crowded.set("trace.rate_scale", 0.05), crowded))
    assert close(row[1], quiet["tpot_ms"]["p50"], 0.02)
    assert close(row[2], quiet["ttft_ms"]["p50"] / 1e3, 0.02)
    assert close(row[3], full["tpot_ms"]["p50"], 0.02)
    assert close(row[4], full["ttft_ms"]["p50"] / 1e3, 0.02)
    assert close(row[5], full["throughput"]["output_tokens_per_s"], 0.02)
