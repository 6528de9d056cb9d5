import gzip
import json
from pathlib import Path

import pytest

from hw_profiles.errors import InputError
from traces.catalog import CATALOG, READERS, cache_dir, load_trace, locate

NAME = "mooncake-conversation"
LINE = json.dumps({"timestamp": 0, "input_length": 3, "output_length": 5, "hash_ids": [1]}) + "\n"


@pytest.fixture(autouse=True)
def no_traces_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("KVSIM_TRACES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def put(folder: Path) -> Path:
    path = folder / CATALOG[NAME].relative
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(LINE.encode()))
    return path


def test_entries_are_complete():
    for name, entry in CATALOG.items():
        assert name == entry.name
        assert entry.format in READERS
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.licence
        assert entry.description
        assert entry.url is None or entry.url.startswith("https://")


def test_a_sample_ships_with_the_package():
    assert locate("quickstart").is_file()
    assert locate("quickstart").parent.parent == Path(__file__).parents[2] / "traces"


def test_the_variable_comes_before_the_cache(monkeypatch, tmp_path):
    cached = put(cache_dir())
    assert locate(NAME) == cached
    shared = put(tmp_path / "shared")
    monkeypatch.setenv("KVSIM_TRACES", str(tmp_path / "shared"))
    assert locate(NAME) == shared
    shared.unlink()
    assert locate(NAME) == cached


def test_a_missing_trace_tells_both_ways(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="KVSIM_TRACES is not set") as caught:
        locate(NAME)
    assert f"kvsim trace fetch {NAME}" in str(caught.value)
    assert "set KVSIM_TRACES to a folder with mooncake/conversation_trace.jsonl.gz" in str(caught.value)
    monkeypatch.setenv("KVSIM_TRACES", str(tmp_path / "wrong"))
    with pytest.raises(InputError, match="wrong has no mooncake/conversation_trace"):
        locate(NAME)


def test_the_cache_folder_follows_xdg(monkeypatch, tmp_path):
    assert cache_dir() == tmp_path / "cache" / "kvsim" / "traces"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification: ignore it
    assert cache_dir() == tmp_path / "home" / ".cache" / "kvsim" / "traces"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == tmp_path / "home" / ".cache" / "kvsim" / "traces"


def test_a_trace_without_a_public_address_says_so():
    with pytest.raises(
        InputError, match="no public address known: set KVSIM_TRACES to a folder with lmcache"
    ) as caught:
        locate("lmcache-miniswe")
    assert "fetch" not in str(caught.value)
    homes = {CATALOG[name].home for name in ("quickstart", "lmcache-miniswe")}
    assert homes == {"ships with kvsim", "no public address known"}
    assert CATALOG[NAME].home.startswith("https://")


@pytest.mark.parametrize("load", [locate, load_trace])
def test_a_wrong_name_suggests_the_nearest(load):
    with pytest.raises(InputError, match="did you mean 'mooncake-conversation'"):
        load("mooncake-conversatoin")


def test_changed_content_warns_and_strict_refuses():
    put(cache_dir())
    trace = load_trace(NAME)
    assert trace.name == NAME
    assert "differs from the published mooncake-conversation" in trace.warnings[0]
    with pytest.raises(InputError, match="differs from the published"):
        load_trace(NAME, strict=True)


def test_a_file_is_read_by_its_ending(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(LINE)
    assert load_trace(path).name == load_trace(str(path)).name == "own"
    other = tmp_path / "own.txt"
    other.write_text("a,b\n")
    with pytest.raises(InputError, match=r"own\.txt: unknown trace format, expected a name in \.jsonl or .* \.csv"):
        load_trace(other)
    with pytest.raises(InputError, match=r"none\.jsonl: cannot read it"):
        load_trace(tmp_path / "none.jsonl")


def test_strict_reaches_the_reader(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(LINE.replace('"timestamp": 0', '"timestamp": 9') + LINE)
    assert len(load_trace(path).warnings) == 1
    with pytest.raises(InputError, match=r"own\.jsonl:2"):
        load_trace(path, strict=True)


def test_the_real_trace_is_the_published_one(conversation_path, monkeypatch):
    monkeypatch.setenv("KVSIM_TRACES", str(conversation_path.parents[1]))
    trace = load_trace(NAME, strict=True)
    assert trace.content_sha256 == CATALOG[NAME].sha256
