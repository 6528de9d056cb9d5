"""Raw samples: appended line by line, read whole or refused in one line."""

from __future__ import annotations

import gzip
import json

import pytest

from calibration.suite.samples import SCHEMA, Writer, cut_half_line, read_samples
from hw_profiles.errors import InputError

DEVICE = {"kind": "cuda", "name": "H100", "arch": "9.0", "memory_bytes": 80 << 30, "uuid": "GPU-1"}
ENV = {"schema": SCHEMA, "device": DEVICE}
SAMPLE = {"pass": 0, "name": "copy bytes=4", "bench": "copy", "key": {"bytes": 4}, "us": [1.5, 2.0], "flags": []}


def _file(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_records_come_back_by_kind(tmp_path):
    path = tmp_path / "deep" / "samples.jsonl"
    with Writer(path) as writer:
        writer.write("env", **ENV)
        writer.write("sample", **SAMPLE)
        writer.write("problem", **{"pass": 1, "name": "copy bytes=4", "problem": "out of memory"})
        assert read_samples(path).complete is False  # written out as it comes
        writer.write("end", seconds=3)
    found = read_samples(path.parent)
    assert found.complete
    assert [record["us"] for record in found.of("copy", bytes=4)] == [[1.5, 2.0]]
    assert found.of("copy", bytes=5) == []
    assert found.done() == {(0, "copy bytes=4"), (1, "copy bytes=4")}
    assert found.env["device"]["name"] == "H100"


def test_compressed_files_are_read(tmp_path):
    path = tmp_path / "samples.jsonl.gz"
    text = "".join(json.dumps(record) + "\n" for record in ({"type": "env", **ENV}, {"type": "sample", **SAMPLE}))
    path.write_bytes(gzip.compress(text.encode()))
    assert len(read_samples(path).samples) == 1
    path.write_bytes(gzip.compress(text.encode())[:-20])
    with pytest.raises(InputError, match="not a whole gzip file"):
        read_samples(path)


def test_half_a_line_is_refused_or_left_out(tmp_path):
    path = _file(tmp_path / "samples.jsonl", {"type": "env", **ENV}, {"type": "sample", **SAMPLE})
    path.write_text(path.read_text() + '{"type": "sample", "pass": 1, "us": [3.')
    with pytest.raises(InputError, match=r"line 3: cut off in its last line.*--resume"):
        read_samples(path)
    assert len(read_samples(path, half_line=True).samples) == 1
    cut_half_line(path)
    assert len(read_samples(path).samples) == 1
    with Writer(path) as writer:
        writer.write("sample", **SAMPLE)
    assert len(read_samples(path).samples) == 2


def test_a_writer_starts_on_a_line_of_its_own(tmp_path):
    path = _file(tmp_path / "samples.jsonl", {"type": "env", **ENV})
    path.write_text(path.read_text() + '{"type": "sam')
    with Writer(path) as writer:
        writer.write("sample", **SAMPLE)
    assert len(read_samples(path).samples) == 1


def test_samples_of_two_devices_are_refused(tmp_path):
    other = {"type": "env", **ENV, "device": DEVICE | {"name": "H200"}}
    path = _file(tmp_path / "samples.jsonl", {"type": "env", **ENV}, {"type": "sample", **SAMPLE}, other)
    with pytest.raises(InputError, match=r"device\.name: samples of two devices.*found 'H200', expected H100"):
        read_samples(path)
    twin = {"type": "env", **ENV, "device": DEVICE | {"uuid": "GPU-2"}}
    with pytest.raises(InputError, match=r"device\.uuid: samples of two devices"):
        read_samples(_file(path, {"type": "env", **ENV}, twin))
    again = _file(path, {"type": "env", **ENV}, {"type": "env", **ENV})
    assert read_samples(again).runs == 2


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no `env` record"),
        ([{"type": "sample", **SAMPLE}], "no `env` record"),
        ([{"type": "env", **ENV, "schema": "kvsim-calib-raw/9"}], r"line 1: schema: found 'kvsim-calib-raw/9'"),
        ([{"type": "env", **ENV}, {"type": "smaple"}], r"line 2: type: found 'smaple', expected one of env"),
        ([{"type": "env", **ENV}, {"type": "sample", **SAMPLE, "us": [1.0, 0]}], r"line 2: us: found \[1.0, 0\]"),
        ([{"type": "env", **ENV}, {"type": "sample", **SAMPLE, "us": []}], r"line 2: us: found \[\]"),
        ([{"type": "env", **ENV}, {"type": "sample", **SAMPLE, "us": [float("nan")]}], "line 2: us"),
        ([{"type": "env", **ENV}, {"type": "sample", **SAMPLE, "key": None}], "line 2: a sample without"),
        ([{"type": "env", **ENV}, [1, 2]], "line 2: not a JSON object"),
    ],
)
def test_wrong_files_are_one_line(tmp_path, records, message):
    with pytest.raises(InputError, match=message) as caught:
        read_samples(_file(tmp_path / "samples.jsonl", *records))
    assert "samples.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({"type": "env", **ENV}) + "\n{oops\n" + json.dumps({"type": "end"}) + "\n")
    with pytest.raises(InputError, match="line 2: not a JSON object"):
        read_samples(path)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match="file not found"):
        read_samples(tmp_path)
