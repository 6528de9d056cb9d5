import math

import pytest

from reports import text


def plain(shown: str) -> str:
    return shown.replace(text.NBSP, " ")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (12345.6, "12,350"), (0.0123456, "0.01235"), (3.5, "3.5"), (7, "7"), (12031, "12,031"),
     (999.96, "1,000"), (-2.5, "-2.5"), (None, "–"), (math.nan, "–"), (True, "–"), (1e-7, "1e-07")],
)  # fmt: skip
def test_number(value, shown):
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(2, "2 s"), (0.0123, "12.3 ms"), (3.5e-6, "3.5 µs"), (3540, "59 min"), (0, "0 s"), (None, "–")]
)
def test_seconds(value, shown):
    assert plain(text.seconds(value)) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.42, "42 %"),
        (0.9987, "99.87 %"),
        (0.985, "98.5 %"),
        (1.0, "100 %"),
        (0.99, "99 %"),
        (0, "0 %"),
        (0.0031, "0.31 %"),
        (1.5, "150 %"),
    ],
)
def test_percent(value, shown):
    assert plain(text.percent(value)) == shown


def test_percent_rounds_neither_a_few_to_none_nor_most_to_all():
    assert plain(text.percent(0.99999)) == "> 99.99 %"
    assert plain(text.percent(0.00001)) == "< 0.01 %"


def test_bytes_are_binary():
    assert plain(text.binary_bytes(80 * 2**30)) == "80 GiB"


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (2 * 2**40, "B", ("2", "TiB")),
        (0.5, "ratio", ("50", "%")),
        (34.37, "%", ("34.37", "%")),
        (None, "ms", ("–", "ms")),
        (560.84, "ms", ("560.8", "ms")),
    ],
)
def test_metric_value(value, unit, shown):
    assert text.metric_value(value, unit) == shown


def test_names_people_know_and_names_of_their_own():
    assert text.slo_label("ttft_p99") == "TTFT p99"
    assert text.tier_label("hbm") == "HBM"
    assert text.tier_label("my tier") == "my tier"
    assert text.link_label("pcie_h2d") == "PCIe, host to GPU"
