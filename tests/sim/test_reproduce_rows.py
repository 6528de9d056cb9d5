"""How published figures are judged: rows, targets, verdicts, and the tables as they are written down."""

import dataclasses
import math
from collections import Counter

import pytest

from hw_profiles.errors import InputError
from sim.reproduce.measure import Failed, Measured
from sim.reproduce.rows import Figure, Row, Table, row_of, verdict
from sim.reproduce.setting import MOST, Setting
from sim.reproduce.systems import SYSTEMS, tables_of

ALL = tables_of([])
SETTING = Setting("llama-2-7b", "a100-80", 2, 100, 10)
KEYS = ["system", "figure", "published", "simulated", "ratio", "source", "kind", "target_met"]
ISSUE = {
    "arkvale", "infinigen", "pqcache", "kcache", "quest", "l2_prefetch", "flexgen", "h2o", "streaming_llm", "snapkv",
    "less", "elastic", "kivi", "quarot", "zipcache", "think", "fp8", "int4", "cla", "lckv", "cross_layer",
    "block_transformer", "mla", "static_batching",
    "scissorhands", "corm", "snapstream", "bct", "zipvl", "kvcomp", "lacache", "kvcrush",
    "xkv", "zigzagkv", "baklava", "audiokv", "cachemir",
    "lmcache", "vllm_cpu_offload", "hicache", "mooncake", "cached_attention",
}  # fmt: skip
ENGINE = {"vllm_watermark"}
ACROSS = {"instcache", "metadata_index"}
"""Systems across sequences."""
WITHOUT_ENGINE = {"mc_sf", "placement", "warmserve"}
"""Some of whose figures are of a model or of runs of their own."""


def table(source: str, *published: float, kind: str = "reproduced") -> Table:
    figures = tuple(Figure(str(k), value, "ms", (SETTING,), lambda m: m.step_ms) for k, value in enumerate(published))
    return Table("lckv", "table 1", source, "somewhere", figures, kind)  # type: ignore[arg-type]


def judge(made: Table, *simulated: float) -> list[Row]:
    return [row_of(made, figure, value) for figure, value in zip(made.figures, simulated, strict=True)]


def test_a_row_prints_exactly_what_was_promised() -> None:
    (row,) = judge(table("R", 2.0), 3.0)
    assert list(row.as_dict()) == KEYS
    assert row.as_dict() | {"ratio": 0} == {
        "system": "lckv",
        "figure": "table 1: 0",
        "published": 2.0,
        "simulated": 3.0,
        "ratio": 0,
        "source": "R",
        "kind": "reproduced",
        "target_met": False,
    }
    assert row.ratio == pytest.approx(1.5)


def test_what_cannot_run_is_missed_and_has_no_number() -> None:
    made = table("R", 2.0)
    row = row_of(made, made.figures[0], math.nan, "cannot run: because")
    assert (row.target_met, row.as_dict()["simulated"], row.as_dict()["ratio"]) == (False, None, None)
    assert "because" in row.note
    assert verdict(made, [row]).met is False


@pytest.mark.parametrize(
    ("ratios", "met"),
    [
        ([1.0] * 10, True),
        ([1.14] * 9 + [3.0], True),  # one of ten may be off
        ([1.14] * 8 + [3.0] * 2, False),  # two may not
        ([1.2] * 10, False),  # all within 30 %, but the median is not within 15 %
        ([0.86] * 10, True),
    ],
)
def test_a_table_that_was_read_is_judged_by_its_median_and_its_tail(ratios: list[float], met: bool) -> None:
    made = table("R", *[10.0] * len(ratios))
    assert verdict(made, judge(made, *(10 * r for r in ratios))).met is met


@pytest.mark.parametrize(("ratio", "met"), [(1.25, True), (1.26, False), (0.75, True), (0.74, False)])
def test_a_figure_of_an_abstract_has_a_quarter(ratio: float, met: bool) -> None:
    made = table("S", 4.0)
    rows = judge(made, 4 * ratio)
    assert (rows[0].target_met, verdict(made, rows).met) == (met, met)


@pytest.mark.parametrize(("source", "kind"), [("M", "reproduced"), ("R", "not comparable"), ("M", "ordering")])
def test_what_is_recalled_or_incomparable_is_never_judged(source: str, kind: str) -> None:
    made = table(source, 1.0, kind=kind)
    rows = judge(made, 100.0)
    assert (rows[0].target_met, rows[0].counted, verdict(made, rows).met) == (None, False, None)


def test_all_orders_must_hold() -> None:
    made = table("D", 3.0, 1.0, kind="ordering")
    assert verdict(made, judge(made, 3.0, 1.0)).met is True
    assert verdict(made, judge(made, 2.0, 1.0)).met is False


def test_every_system_of_the_field_has_figures() -> None:
    assert set(SYSTEMS) == ISSUE | ENGINE | ACROSS | WITHOUT_ENGINE | {"characterization"}
    assert all(tables and all(t.system == name for t in tables) for name, tables in SYSTEMS.items())
    with pytest.raises(InputError, match="did you mean 'lckv'"):
        tables_of(["lckw"])


def test_every_figure_has_a_name_of_its_own() -> None:
    names = Counter((t.system, f"{t.where}: {f.label}") for t in ALL for f in t.figures)
    assert [name for name, many in names.items() if many > 1] == []


def test_the_whole_tables_are_there() -> None:
    sizes = {(t.system, t.where): len(t.figures) for t in ALL}
    assert sizes["arkvale", "fig. 9 decode latency"] == sizes["arkvale", "fig. 9 throughput"] == 15
    assert sizes["lckv", "table 1 most sequences"] == sizes["lckv", "table 1 throughput"] == 30
    assert sizes["block_transformer", "table 1, throughput"] == 20
    assert sizes["flexgen", "README throughput"] == 6


@pytest.mark.parametrize("made", ALL, ids=lambda t: f"{t.system}-{t.where}")
def test_what_was_fitted_and_what_is_incomparable_is_said(made: Table) -> None:
    assert (made.kind == "calibrated") == bool(made.fitted)
    assert made.setting
    for figure in made.figures:
        assert figure.published > 0
        assert figure.settings or made.system in WITHOUT_ENGINE
        if (figure.kind or made.kind) == "not comparable":
            assert figure.note or made.note


def test_the_quick_subset_has_every_system() -> None:
    quick = tables_of([], quick=True)
    assert len(quick) < len(ALL)
    assert {t.system for t in quick} == set(SYSTEMS)


def test_settings_are_told_apart_by_what_they_say() -> None:
    same = Setting("llama-2-7b", "a100-80", 2, 100, 10)
    assert same.key == SETTING.key
    for change in ({"batch": MOST}, {"policies": {"name": "h2o"}}, {"framework": "hf_concat"}, {"other_ms": 1.0}):
        assert SETTING.but(**change).key != SETTING.key


def test_measured_and_failed_can_go_between_processes() -> None:
    import pickle

    assert pickle.loads(pickle.dumps(Failed("no"))) == Failed("no")
    assert all(field.type for field in dataclasses.fields(Measured))
