import gzip
import json
import time

import numpy as np
import pytest

from hw_profiles.errors import InputError
from traces.mooncake import read_mooncake, write_mooncake
from traces.order import unchained
from traces.stats import stats

GOOD = {"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}


def line(**changes):
    return json.dumps({**GOOD, **changes})


def write(tmp_path, *lines, end="\n"):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines) + end)
    return path


def refused(path, number):
    """The message of reading `path`, after checking that it is one line that begins with file:line."""
    with pytest.raises(InputError) as caught:
        read_mooncake(path)
    text = str(caught.value)
    assert text.startswith(f"{path}:{number}: ")
    assert "\n" not in text
    return text


def test_columns_units_and_hash(tmp_path):
    path = write(tmp_path, line(timestamp=1500), "", line(timestamp=3000.5, hash_ids=[1, 7], session_id="x"))
    trace = read_mooncake(path).validate()
    assert trace.arrival_s.tolist() == [1.5, 3.0005]  # ms in the file, the first as it is
    assert trace.request(1).hash_ids == [1, 7]
    assert (trace.name, trace.block_tokens, trace.source, trace.warnings) == ("t", 512, str(path), ())
    packed = tmp_path / "t.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    again = read_mooncake(packed)
    assert again.name == "t"
    assert again.content_sha256 == trace.content_sha256  # of the content, however it is packed
    assert again.hash_ids.tolist() == trace.hash_ids.tolist()


def test_gzip_is_known_by_its_content_not_its_name(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(gzip.compress((line() + "\n").encode()))
    assert len(read_mooncake(path)) == 1


@pytest.mark.parametrize("field", ["timestamp", "input_length", "output_length", "hash_ids"])
def test_a_missing_field_is_named(tmp_path, field):
    row = {key: value for key, value in GOOD.items() if key != field}
    assert f"{field}: missing" in refused(write(tmp_path, line(), json.dumps(row)), 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_length": -3}, "input_length: found -3"),
        ({"input_length": 0, "hash_ids": []}, "input_length: found 0"),
        ({"input_length": float("nan")}, "input_length: found NaN"),
        ({"input_length": 600.5}, "input_length: found 600.5"),
        ({"input_length": 600.0}, "input_length: found 600.0"),
        ({"input_length": "600"}, 'input_length: found "600"'),
        ({"input_length": True, "hash_ids": [1]}, "input_length: found true"),
        ({"input_length": None}, "input_length: found null"),
        ({"input_length": 2**31}, "input_length: found 2147483648"),
        ({"output_length": 0}, "output_length: found 0, expected a whole number from 1"),
        ({"output_length": -1}, "output_length: found -1"),
        ({"output_length": float("inf")}, "output_length: found Infinity"),
        ({"output_length": 10**30}, "output_length: found 1000000000"),
        ({"timestamp": -1}, "timestamp: found -1"),
        ({"timestamp": float("nan")}, "timestamp: found NaN"),
        ({"timestamp": 10**400}, "timestamp: found 1000"),
        ({"timestamp": "12:00"}, 'timestamp: found "12:00"'),
        ({"hash_ids": [1]}, "hash_ids: found 1 ids, expected 2"),
        ({"hash_ids": [1, 2, 3]}, "hash_ids: found 3 ids, expected 2"),
        ({"hash_ids": []}, "hash_ids: found 0 ids, expected 2"),
        ({"hash_ids": [1, 2.5]}, "hash_ids: found 2.5"),
        ({"hash_ids": [1, None]}, "hash_ids: found null"),
        ({"hash_ids": [1, "2"]}, 'hash_ids: found "2"'),
        ({"hash_ids": [1, -2]}, "hash_ids: found -2"),
        ({"hash_ids": [1, 2**63]}, "hash_ids: found 9223372036854775808"),
        ({"hash_ids": 7}, "hash_ids: found 7, expected a list"),
        ({"hash_ids": "ab"}, 'hash_ids: found "ab", expected a list'),
    ],
)
def test_a_bad_value_names_file_line_field_and_value(tmp_path, changes, words):
    assert words in refused(write(tmp_path, line(), "", line(**changes), line()), 3)


@pytest.mark.parametrize("text", ["{", "nonsense", line() + line(), line() + ",", "[" * 100_000, '"\\ud8"'])
def test_a_line_that_is_not_json(tmp_path, text):
    assert "not valid JSON" in refused(write(tmp_path, line(), text, line()), 2)


def test_a_cut_last_line_says_so(tmp_path):
    path = write(tmp_path, line(), line(timestamp=7)[:-9], end="")
    assert "it may be cut off" in refused(path, 2)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(line().encode() + b"\n\xff\xfe\x80{\n")
    assert "not valid JSON" in refused(path, 2)


@pytest.mark.parametrize("text", ["[1, 2]", "3", "null", '"x"'])
def test_a_line_that_is_no_object(tmp_path, text):
    assert "expected a JSON object" in refused(write(tmp_path, line(), text), 2)


def test_a_cut_gzip_names_the_line_it_reached(tmp_path):
    path = tmp_path / "t.jsonl.gz"
    rows = "".join(line(timestamp=i, hash_ids=[i * i, i * 77 % 1013]) + "\n" for i in range(5000))
    path.write_bytes(gzip.compress(rows.encode())[:-2000])
    with pytest.raises(InputError, match="the compressed file is damaged or cut off") as caught:
        read_mooncake(path)
    assert 1000 < int(str(caught.value).removeprefix(f"{path}:").split(":")[0]) <= 5000


def test_a_damaged_gzip(tmp_path):
    path = tmp_path / "t.jsonl.gz"
    content = bytearray(gzip.compress((line() + "\n").encode() * 1000))
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"t\.jsonl\.gz:\d+: "):
        read_mooncake(path)


@pytest.mark.parametrize("content", ["", "\n\n  \n"])
def test_an_empty_file(tmp_path, content):
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=r"t\.jsonl: holds no request"):
        read_mooncake(path)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl: cannot read it"):
        read_mooncake(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="cannot read it"):
        read_mooncake(tmp_path)


def test_lines_out_of_order_are_sorted_stably_with_one_warning(tmp_path):
    rows = [(5, 1), (9, 2), (5, 3), (7, 4), (0, 5)]
    path = write(tmp_path, *(line(timestamp=t, output_length=k, hash_ids=[1, 10 + k]) for t, k in rows))
    trace = read_mooncake(path).validate()
    assert trace.output_tokens.tolist() == [5, 1, 3, 4, 2]
    assert [r.hash_ids[1] for r in trace] == [15, 11, 13, 14, 12]
    assert len(trace.warnings) == 1
    assert trace.warnings[0].startswith(f"{path}:3: 2 line(s) earlier")
    with pytest.raises(InputError, match=r"t\.jsonl:3: timestamp: earlier"):
        read_mooncake(path, strict=True)


@pytest.mark.parametrize(
    "ids",
    [
        [9, 2],  # block 2 after another prefix
        [2, 5],  # at another place
        [1, 1],  # twice in one request
    ],
)
def test_ids_that_are_not_chained_warn_and_strict_refuses(tmp_path, ids):
    path = write(tmp_path, line(), line(), line(hash_ids=ids))
    assert read_mooncake(path).warnings[0].startswith(f"{path}:3: hash_ids: an id follows another prefix")
    with pytest.raises(InputError, match=r"t\.jsonl:3: hash_ids"):
        read_mooncake(path, strict=True)


def test_a_partial_block_with_another_token_count_is_not_chained(tmp_path):
    path = write(tmp_path, line(), line(input_length=601))
    assert unchained(read_mooncake(path)).tolist() == [1]


def test_writing_and_reading_gives_the_same_trace(tmp_path, make_trace):
    trace = make_trace([(0.0, 600, 5, [1, 2]), (1.25, 512, 1, [1]), (1.2500005, 1, 7, [9])])
    for name in ("a.jsonl", "a.jsonl.gz"):
        again = read_mooncake(write_mooncake(trace, tmp_path / name), strict=True)
        np.testing.assert_array_equal(again.arrival_s, trace.arrival_s)
        assert list(again) == list(trace)


def test_the_compressed_file_depends_on_content_alone(tmp_path, make_trace, monkeypatch):
    trace = make_trace([(0.0, 600, 5, [1, 2])])
    first = write_mooncake(trace, tmp_path / "one.jsonl.gz").read_bytes()
    later = time.time() + 100  # a time stamp in the header counts seconds
    monkeypatch.setattr(time, "time", lambda: later)
    assert write_mooncake(trace, tmp_path / "other.jsonl.gz").read_bytes() == first
    assert first[3] == 0  # no file name in the header (RFC 1952: FLG)
    assert first[4:8] == bytes(4)  # no time (MTIME)


def test_other_block_sizes_cannot_be_written(tmp_path, make_trace):
    with pytest.raises(InputError, match="blocks of 16 tokens"):
        write_mooncake(make_trace([(0.0, 16, 5, [1])], block_tokens=16), tmp_path / "a.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_the_conversation_trace(conversation):
    """SOURCE of the figures: Mooncake FAST'25 release; the hit ratio is arithmetic on it."""
    assert len(conversation.validate()) == 12_031
    assert conversation.warnings == ()
    assert len(unchained(conversation)) == 0
    figures = stats(conversation)
    assert figures["input_tokens"] == 144_793_823
    assert figures["output_tokens"] == 4_122_048
    assert 100 * figures["ideal_hit_ratio"] == pytest.approx(37.4, abs=0.1)
    assert conversation.arrival_s[-1] == 3536.999
