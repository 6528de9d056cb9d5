"""`kvsim list`, `kvsim show` and `kvsim trace`: what there is, and everything about one name."""

import gzip
import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import traces.catalog
from kvsim.cli._catalog import KINDS
from kvsim.cli._contracts import CONTRACTS
from kvsim.cli._templates import TEMPLATES
from traces.catalog import CATALOG

Kvsim = Callable[..., Any]
EXPECTED = {
    "policies": {"lru", "none", "write_through", "write_back"},
    "systems": {"full", "arkvale", "kivi"},
    "profiles": {"h100-sxm", "a100-80"},
    "devices": {"nvme-gen4", "nvme-gen5-raid4", "rdma-200g", "cxl", "nvlink-c2c"},
    "models": {"llama-3.1-8b"},
    "traces": {"mooncake-conversation", "quickstart"},
    "metrics": {"ttft_p99_ms", "tpot_p95_ms", "hit_ratio", "goodput_per_s"},
}


def test_list_alone_names_every_kind(kvsim: Kvsim) -> None:
    assert {row["name"] for row in json.loads(kvsim("list", "--json").out)} == set(EXPECTED) == set(KINDS)
    assert all(kind in kvsim("list").out for kind in KINDS)


@pytest.mark.parametrize("kind", EXPECTED)
def test_every_name_is_listed_with_a_line_and_shown(kind: str, kvsim: Kvsim) -> None:
    answer = kvsim("list", kind)
    assert (answer.code, answer.err) == (0, "")
    rows = json.loads(kvsim("list", kind, "--json").out)
    assert {row["name"] for row in rows} >= EXPECTED[kind]
    names = [row["name"] for row in rows]
    for row in rows:
        assert row["name"] in answer.out
        assert row["what"]
        assert row["source"]
        name = row["name"] if names.count(row["name"]) == 1 else f"{row['family']}.{row['name']}"
        if row in rows[::6]:  # the same code writes the text of all of a kind; what it is of is in the JSON
            shown = kvsim("show", name)
            assert (shown.code, shown.err) == (0, "")
            assert row["name"] in shown.out
        document = json.loads(kvsim("show", name, "--json", "--kind", kind).out)
        assert (document["kind"], document["name"]) == (kind, row["name"])


def test_what_a_policy_does_is_said_to_the_end(kvsim: Kvsim) -> None:
    rows = json.loads(kvsim("list", "policies", "--json").out)
    assert [row["name"] for row in rows if not row["what"].endswith(".")] == []


def test_the_contract_of_every_family_is_shown(kvsim: Kvsim) -> None:
    assert set(CONTRACTS) == set(TEMPLATES)
    for family in CONTRACTS:
        answer = kvsim("show", family, "--kind", "contracts", "--json")
        assert answer.code == 0, answer.err
        found = json.loads(answer.out)
        assert (found["name"], found["kind"]) == (family, "contracts")
        assert f"({found['base']})" in TEMPLATES[family].policy
        assert all(about["description"] for about in found["classes"].values())
    shown = kvsim("show", "OffloadPolicy").out
    assert shown == kvsim("show", "offload").out
    for said in (
        "offload: the contract of a policy of your own, a subclass of kvsim.OffloadPolicy\n",
        "blocks: Sequence[Block], tier: TierView) -> Iterable[Move]\n        Copies to make now.",
        "load_s(self, block: Block, tier: str) -> float\n        Seconds that it takes to load",
        "    used: int\n        Bytes in use",
        "FILLED = 'filled'\n        The engine computed the blocks in this step",
    ):
        assert said in shown
    wrong = kvsim("show", "eviktion", "--kind", "contracts")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "did you mean 'eviction'" in wrong.err


def test_the_tree_has_every_system(kvsim: Kvsim) -> None:
    tree = json.loads(kvsim("list", "policies", "--tree", "--json").out)
    leaves = {name for branch in tree.values() for names in branch.values() for name in names}
    assert leaves >= {row["name"] for row in json.loads(kvsim("list", "systems", "--json").out)}
    shown = kvsim("list", "policies", "--tree")
    assert (shown.code, shown.err) == (0, "")
    assert all(branch in shown.out for branch in tree)
    assert kvsim("list", "models", "--tree").code == 2


def test_a_profile_shows_every_value_with_unit_and_source(kvsim: Kvsim) -> None:
    document = json.loads(kvsim("show", "h100-sxm", "--json").out)
    assert len(document["values"]) > 20
    for value in document["values"]:
        assert value["source_text"]
        assert value["si_unit"]
    by_path = {value["path"]: value for value in document["values"]}
    assert by_path["capacity.sms"]["value_si"] == 132
    text = kvsim("show", "h100-sxm").out
    assert all(path in text for path in by_path)
    assert len(text.splitlines()) < 4 * len(by_path)  # a source that several values have in turn is said once


def test_the_list_of_profiles_says_whose_kernels_they_are(kvsim: Kvsim) -> None:
    rows = {row["name"]: row for row in json.loads(kvsim("list", "profiles", "--json").out)}
    assert "vllm_flash_attn" in rows["h100-sxm"]["source"]
    assert "of h100-sxm" in rows["mi300x"]["source"]
    assert "192 GiB" in rows["mi300x"]["what"]


def test_a_model_shows_its_memory(kvsim: Kvsim) -> None:
    document = json.loads(kvsim("show", "llama-3.1-8b", "--json").out)
    assert document["kv_bytes_per_token"] == 131_072  # 2 x 32 layers x 8 heads x 128 x 2 bytes
    assert document["parameters"] == 8_030_261_248
    assert "131,072 (128 KiB)" in kvsim("show", "llama-3.1-8b").out


def test_a_policy_may_be_named_with_its_family(kvsim: Kvsim) -> None:
    assert json.loads(kvsim("show", "offload.none", "--json").out)["family"] == "offload"
    assert kvsim("show", "eviction.none").code == 2
    assert "expected one of offload.none, prefetch.none" in kvsim("show", "none").err


def test_statistics_of_a_trace(kvsim: Kvsim) -> None:
    figures = json.loads(kvsim("trace", "stats", "quickstart", "--json").out)
    assert figures["requests"] == 1_500
    text = kvsim("trace", "stats", "quickstart").out
    assert f"{figures['input_tokens']:,}" in text
    assert "ideal hit ratio" in text


def test_a_warning_of_a_trace_goes_to_stderr_and_strict_refuses_it(kvsim: Kvsim, folder: Path) -> None:
    row = {"input_length": 3, "output_length": 1, "hash_ids": [0]}
    lines = [json.dumps({"timestamp": stamp, **row}) for stamp in (5, 0)]
    (folder / "back.jsonl").write_text("\n".join(lines) + "\n")
    answer = kvsim("trace", "stats", "back.jsonl", "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["requests"] == 2
    assert answer.err.startswith("warning: ")
    assert kvsim("trace", "stats", "back.jsonl", "--strict").code == 2


def test_a_generated_trace_is_the_same_every_time_and_runs(kvsim: Kvsim, folder: Path) -> None:
    (folder / "chat.yaml").write_text("requests: 50\nrate: 4\nfirst_tokens: {mean: 900, sigma: 0.5}\n")
    change = ("chat.yaml", "--set", "first_tokens.mean=1200", "--seed", "3")
    answer = kvsim("trace", "generate", *change, "--out", "a", "--json")
    document = json.loads(answer.out)
    assert document["path"] == "a/generated.jsonl.gz"
    assert document["parameters"]["first_tokens"] == {"mean": 1200.0, "sigma": 0.5}
    assert kvsim("trace", "generate", *change, "--out", "b", "--name", "again").code == 0
    first, second = (folder / "a" / "generated.jsonl.gz"), (folder / "b" / "again.jsonl.gz")
    assert first.read_bytes() == second.read_bytes()
    assert kvsim("trace", "generate", *change[:3], "--out", "c", "--seed", "4").code == 0
    assert gzip.decompress((folder / "c" / "generated.jsonl.gz").read_bytes()) != gzip.decompress(first.read_bytes())
    run = kvsim("run", "small.yaml", "--set", "trace=a/generated.jsonl.gz", "--json", "--no-report")
    assert json.loads(run.out)["requests"]["finished"] == 50


@pytest.fixture
def public_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server whose every path is a small trace, which the catalog now means by mooncake-conversation."""
    content = b'{"timestamp": 0, "input_length": 3, "output_length": 1, "hash_ids": [0]}\n'

    class Home(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class names it so
            pass

    entry = replace(CATALOG["mooncake-conversation"], sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(traces.catalog, "CATALOG", MappingProxyType({entry.name: entry}))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Home)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/trace.jsonl"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_fetched_trace_lies_where_the_others_look(
    public_home: str, kvsim: Kvsim, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "mooncake-conversation"
    assert kvsim("trace", "stats", name).code == 2
    answer = kvsim("trace", "fetch", name, "--url", public_home, "--out", "shelf", "--json")
    assert answer.err == ""
    assert (folder / json.loads(answer.out)["path"]).is_relative_to(folder / "shelf")
    monkeypatch.setenv("KVSIM_TRACES", str(folder / "shelf"))
    assert json.loads(kvsim("trace", "stats", name, "--json").out)["requests"] == 1
    monkeypatch.delenv("KVSIM_TRACES")
    assert kvsim("trace", "fetch", name, "--url", public_home).code == 0  # into the cache
    assert kvsim("trace", "stats", name).code == 0
