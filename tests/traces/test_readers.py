"""Which format a file is read in, and every reader on a copy of the published data where there is one."""

import gzip
import json

import pytest

from hw_profiles.errors import InputError
from traces.catalog import CATALOG, load_trace
from traces.order import unchained
from traces.readers import READERS, endings, format_of
from traces.stats import stats

FIRST_LINES = {
    "mooncake": '{"timestamp": 0, "input_length": 3, "output_length": 5, "hash_ids": [1], "session_id": "x"}',
    "agentic": '{"id": "a", "block_size": 64, "hash_id_scope": "local", "requests": []}',
    "lmcache-agent": '{"session": "a", "turn": 0, "t_us": 0, "start_us": 9, "input_length": 3, "output_length": 5,'
    ' "hash_ids": [1]}',
    "llmservingsim": '{"arrival_time_ns": 1, "input_toks": 3, "output_toks": 5, "hash_ids_16": []}',
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens",
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
    "servegen": "request_id,timestamp,input_tokens,output_tokens",
    "vidur": "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio",
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", READERS)
def test_the_first_line_tells_the_format(tmp_path, name, packed):
    content = ("\n" + FIRST_LINES[name] + "\n").encode()
    path = tmp_path / ("t" + READERS[name].ending + (".gz" if packed else ""))
    path.write_bytes(gzip.compress(content) if packed else content)
    assert format_of(path) == name


def test_no_shape_contains_another():
    for name, reader in READERS.items():
        rivals = [r for n, r in READERS.items() if n != name and r.ending == reader.ending]
        assert not any(set(rival.keys) <= set(reader.keys) for rival in rivals)
    assert endings() == (".jsonl", ".jsonl.gz", ".csv", ".csv.gz")


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        (
            "t.jsonl",
            '{"timestamp": 0, "input_length": 3, "hash_ids": [1]}',
            ['found keys "timestamp, input_length, hash_ids"', "nearest is mooncake, which needs output_length"],
        ),
        ("t.jsonl", "{}", ["fits no trace format", *(n for n, r in READERS.items() if r.ending == ".jsonl")]),
        ("t.csv", "a,b", ['found columns "a, b"', *(n for n, r in READERS.items() if r.ending == ".csv")]),
        ("t.csv", "TIMESTAMP,ContextTokens", ["nearest is azure, which needs GeneratedTokens"]),
        ("t.csv", "Timestamp,Request tokens,Response tokens,num_prefill_tokens,num_decode_tokens", ["several formats"]),
        ("t.jsonl", '{"timestamp": 0, "inp', ["not valid JSON"]),
        ("t.jsonl", "[1]", ["expected a JSON object"]),
        ("t.csv", 'a,"b', ["not a line of CSV"]),
    ],
)
def test_an_unknown_shape_lists_what_it_could_be(refused, name, line, words):
    text = refused(load_trace, ["", line], 2, name)
    assert [word for word in words if word not in text] == []
    assert ("vidur" in text) <= name.endswith(".csv")


def test_files_that_are_none(tmp_path):
    for name in ("t.jsonl", "t.csv"):
        (tmp_path / name).write_text(" \n")
        with pytest.raises(InputError, match=rf"{name}: holds no request"):
            load_trace(tmp_path / name)
    with pytest.raises(InputError, match=r"no\.csv\.gz: cannot read it"):
        load_trace(tmp_path / "no.csv.gz")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"a,b\n" * 9)[:-9])
    with pytest.raises(InputError, match=r"cut\.csv\.gz:\d+: the compressed file is damaged or cut off"):
        load_trace(tmp_path / "cut.csv.gz")


# requests, input and output tokens, duration (s), ideal hit ratio: by a plain loop over the files with sets, apart
# from the code under test. agentic-coding: 24,420 requests less 19 without output
REAL = {
    "azure-code-2023": (8_819, 18_059_974, 245_896, 3435.948056, None),
    "agentic-coding": (24_401, 2_837_184_297, 10_874_914, 148_807.0, 0.96151),
    "lmcache-miniswe": (402, 2_480_122, 44_094, 552.131510, 0.93069),
    "llmservingsim-sharegpt": (300, 257_239, 195_753, 29.136836, 0.07588),
    "vidur-arxiv": (28_257, 73_131_321, 8_234_948, 0.0, None),
}


@pytest.mark.parametrize("name", REAL)
def test_published_data(name, real_path, monkeypatch):
    path = real_path(CATALOG[name].relative)
    monkeypatch.setenv("KVSIM_TRACES", str(path.parents[1]))
    trace = load_trace(name)
    trace.validate()
    assert format_of(path) == CATALOG[name].format
    assert trace.content_sha256 == CATALOG[name].sha256
    requests, tokens_in, tokens_out, duration, ratio = REAL[name]
    figures = stats(trace)
    found = tuple(figures[key] for key in ("requests", "input_tokens", "output_tokens"))
    assert found == (requests, tokens_in, tokens_out)
    assert figures["duration_s"] == pytest.approx(duration, abs=1e-6)
    assert figures.get("ideal_hit_ratio") == (None if ratio is None else pytest.approx(ratio, abs=5e-5))
    if name != "agentic-coding":  # too many blocks for a second look; its reader looks line by line
        assert len(unchained(trace)) == 0
    assert len(trace.warnings) == (name in {"agentic-coding", "vidur-arxiv"})


def test_agentic_agrees_with_a_plain_reading(real_path):
    """Every request of the first and of a line with sub-agents, by the rules in words."""
    path = real_path(CATALOG["agentic-coding"].relative)
    lines = gzip.decompress(path.read_bytes()).splitlines()
    rows = [json.loads(line) for line in lines]
    chosen = [0, next(i for i, row in enumerate(rows) if any(r["type"] == "subagent" for r in row["requests"]))]
    trace = load_trace(path)
    for session in chosen:
        todo, wanted = [(0.0, r) for r in rows[session]["requests"]], []
        for start, request in todo:
            if request["type"] == "subagent":
                todo += [(start + request["t"], r) for r in request["requests"]]
            elif request["out"]:
                ids = [i for first, last in request["hash_ranges"] for i in range(first, last + 1)]
                wanted.append((start + request["t"], request["in"], request["out"], ids))
        got = [trace.request(int(i)) for i in (trace.session_ids == session).nonzero()[0]]
        assert sorted((r.arrival_s, r.input_tokens, r.output_tokens) for r in got) == sorted(w[:3] for w in wanted)
        moved = {got[0].hash_ids[0] - min(wanted)[3][0]}  # all ids of a line move by the same number
        by_key = {(r.arrival_s, r.input_tokens, r.output_tokens): r.hash_ids for r in got}
        for start, tokens, output, ids in wanted:
            full = by_key[start, tokens, output][: tokens // 64]
            moved |= {a - b for a, b in zip(full, ids, strict=True)}
        assert len(moved) == 1
