"""Quantities are exact, need their unit, and survive a round trip through text."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from hw_profiles import units
from hw_profiles.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 TiB", 2 * 2**40),
        ("512 MB", 512 * 10**6),
        ("16GB", 16 * 10**9),
        ("16GiB", 16 * 2**30),
        ("1.5 KiB", 1536),
        ("1e3 kB", 10**6),
        ("9007199254740993 B", 2**53 + 1),  # beyond float precision
        ("0", 0),
        (0, 0),
    ],
)
def test_bytes(text: object, value: int) -> None:
    assert units.parse_bytes(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (units.parse_rate, "50 GB/s", 50e9),
        (units.parse_rate, "400 Gbit/s", 50e9),
        (units.parse_rate, "1 GiB/s", 2.0**30),
        (units.parse_flops, "989 TFLOP/s", 989e12),
        (units.parse_flops, "989TFLOPS", 989e12),
        (units.parse_seconds, "3s", 3.0),
        (units.parse_seconds, "50 ms", 0.05),
        (units.parse_seconds, "3.5us", 3.5e-6),
        (units.parse_seconds, "3.5 µs", 3.5e-6),
        (units.parse_seconds, "2 min", 120.0),
        (units.parse_tokens, "10Mtok", 10**7),
        (units.parse_tokens, "512 tok", 512),
    ],
)
def test_other_quantities(parse: Callable[[object], float], text: str, value: float) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    "bad",
    [
        5,
        1.5,
        "5",
        "nan GB",
        ".inf GB",
        math.nan,
        math.inf,
        "-1 GB",
        "GB",
        "",
        "1e999999 B",
        True,
        None,
        [],
        pytest.param(10**5000, id="huge"),
    ],
)
def test_refused_with_an_example(bad: object) -> None:
    with pytest.raises(InputError, match="a size such as '2 TiB'"):
        units.parse_bytes(bad)


def test_wrong_unit_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"found '2 TB/s'.*did you mean '2 TB'"):
        units.parse_bytes("2 TB/s")
    with pytest.raises(InputError, match="did you mean '512 MB'"):
        units.parse_bytes("512 mb")


@given(st.integers(0, 2**80))
def test_bytes_text_round_trip(value: int) -> None:
    assert units.parse_bytes(units.text_bytes(value)) == value


@given(st.integers(0, 10**15))
def test_tokens_text_round_trip(value: int) -> None:
    assert units.parse_tokens(units.text_tokens(value)) == value


@given(st.floats(0, 1e30, allow_subnormal=False).filter(lambda x: x == 0 or x > 1e-30))
def test_float_text_round_trip(value: float) -> None:
    assert units.parse_seconds(units.text_seconds(value)) == value
    assert units.parse_rate(units.text_rate(value)) == value
    assert units.parse_flops(units.text_flops(value)) == value


def test_text_is_short() -> None:
    assert units.text_bytes(2**41) == "2 TiB"
    assert units.text_bytes(2 * 10**12) == "2 TB"
    assert units.text_rate(52.3e9) == "52.3 GB/s"
    assert units.text_seconds(3.5e-6) == "3.5 us"


class Model(BaseModel):
    size: units.Bytes
    rate: units.Rate
    wait: units.Seconds
    tokens: units.Tokens


def test_pydantic_fields_read_text_and_write_it_back() -> None:
    model = Model.model_validate({"size": "2 TiB", "rate": "50 GB/s", "wait": "50 ms", "tokens": "1ktok"})
    assert (model.size, model.rate, model.wait, model.tokens) == (2**41, 50e9, 0.05, 1000)
    dumped = model.model_dump()
    assert dumped == {"size": "2 TiB", "rate": "50 GB/s", "wait": "50 ms", "tokens": "1 ktok"}
    assert Model.model_validate(dumped) == model


def test_pydantic_reports_the_field() -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"size": 5, "rate": "50 GB/s", "wait": 0, "tokens": 0})
    assert [error["loc"] for error in caught.value.errors()] == [("size",)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.format_bytes(1610612736), "1.50 GiB"),
        (units.format_bytes(999), "999 B"),
        (units.format_bytes(1023.9), "1.00 KiB"),
        (units.format_rate(52.3e9), "52.3 GB/s"),
        (units.format_seconds(0.0123), "12.3 ms"),
        (units.format_seconds(150), "2.50 min"),
        (units.format_seconds(0), "0 s"),
        (units.format_count(1234567), "1.23 M"),
        (units.format_count(7), "7"),
        (units.format_count(math.nan), "n/a"),
    ],
)
def test_formats_for_people(text: str, expected: str) -> None:
    assert text == expected
