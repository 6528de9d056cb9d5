"""YAML: strict on the way in, faithful on the way out."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from hw_profiles.yaml_io import dump_yaml, load_yaml, parse_yaml


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", r"line 3: key 'a' given twice \(first on line 1\)"),
        ("a: {b: 1, b: 2}\n", "line 1: key 'b' given twice"),
        ("a: 1\nb: [1\n", "line 3: not valid YAML"),
        ("", "found an empty file, expected a mapping"),
        ("- 1\n", "found a list, expected a mapping"),
        ("1: 2\n", "line 1: keys must be text"),
        ("a: 2026-99-99\n", "bad value"),
        ("a: &x [*x]\n", "recursive"),
        ("a: !!python/object:os.system x\n", "not valid YAML"),
        ("a: \t1\n\t- b\n", "not valid YAML"),
    ],
)
def test_bad_text_is_one_line_with_the_file(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
        load_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: file not found"):
        load_yaml(tmp_path / "nowhere.yaml")
    with pytest.raises(InputError, match="cannot read"):
        load_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(InputError, match="not UTF-8"):
        load_yaml(tmp_path / "latin.yaml")


def test_exponents_without_a_dot_are_numbers() -> None:
    assert parse_yaml("a: 1e3\nb: 38.0e6\nc: '1e3'\n", where="t") == {"a": 1000.0, "b": 38e6, "c": "1e3"}


def test_merge_keys_may_be_overridden() -> None:
    text = "base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}\n"
    assert parse_yaml(text, where="t")["other"] == {"x": 1, "y": 3}


def test_order_is_kept() -> None:
    assert dump_yaml({"b": 1, "a": [{"z": 1, "y": 2}]}) == "b: 1\na:\n- z: 1\n  y: 2\n"


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=12),
    st.sampled_from(["1e9", "-2E+5", "on", "0x1", "null", "2 TiB", "a: b", "- x", "1:30", ".5e3", "# no"]),
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcxyz1e.", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abcxyz1e.", min_size=1), DOCUMENTS, min_size=1, max_size=4))
def test_dump_then_load_gives_the_same(data: dict[str, Any]) -> None:
    assert parse_yaml(dump_yaml(data), where="t") == data
