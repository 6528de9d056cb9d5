"""InputError is one line that says where, what was found and what is allowed."""

import pickle

import pytest

from hw_profiles.errors import InputError, nearest


def test_full_sentence() -> None:
    names = ["fifo", "lru"]
    place = {"where": "s.yaml", "path": "policies.eviction"}
    error = InputError("unknown policy", **place, found="lur", allowed=names, near=names)
    assert str(error) == (
        "s.yaml: policies.eviction: unknown policy, found 'lur', expected one of fifo, lru; did you mean 'lru'?"
    )


def test_parts_left_out() -> None:
    assert str(InputError("file not found")) == "file not found"
    assert str(InputError("", path="a.b", found=3, allowed="text")) == "a.b: found 3, expected text"


@pytest.mark.parametrize("text", ["two\nlines", "tab\tand\r\nmore"])
def test_always_one_line(text: str) -> None:
    assert len(str(InputError(text, where=text, found=text, allowed=text)).splitlines()) == 1


def test_long_finds_and_long_lists_are_cut() -> None:
    text = str(InputError("", found="x" * 500, allowed=[f"name{i}" for i in range(50)]))
    assert len(text) < 300
    assert "and 38 more" in text


def test_no_hint_when_nothing_is_close() -> None:
    assert "did you mean" not in str(InputError("unknown", found="zzz", near=["lru", "fifo"]))
    assert nearest("LRU", ["lru", "fifo"]) == "lru"
    assert nearest("zzz", ["lru"]) is None


def test_at_fills_the_place_and_prefixes_the_path() -> None:
    error = InputError("bad", path="v", found=1).at(where="f.yaml", path="links.x")
    assert str(error) == "f.yaml: links.x.v: bad, found 1"
    assert str(error.at(where="other.yaml")) == str(error)


def test_survives_pickling() -> None:
    error = InputError("bad", where="f.yaml", path="a", found=1, allowed=["x"], near=["x"])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
