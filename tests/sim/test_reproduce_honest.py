"""What a row of published figures is called: by what was taken from its paper, and of which runs it is."""

from types import SimpleNamespace

import pytest

from policies.build import policy_options
from policies.selection.arkvale import ArkVale
from policies.systems import SYSTEMS as IMPLEMENTED
from sim.reproduce import arkvale, elastic, infinigen, l2_prefetch
from sim.reproduce.harness import reproduce
from sim.reproduce.rows import JUDGED, Table
from sim.reproduce.systems import SYSTEMS, without_figures
from traces.importance import facts


def table(system: str, where: str) -> Table:
    (found,) = [t for t in SYSTEMS[system] if t.where == where]
    return found


def judged_labels(made: Table) -> list[str]:
    return [f.label for f in made.figures if (f.kind or made.kind) != "not comparable"]


STATISTICS = [fact for fact in vars(facts).values() if isinstance(fact, facts.Fact)]
OWN = sorted({fact.system for fact in STATISTICS if fact.system in SYSTEMS and fact.kind != "assumed"} - {None})


def test_systems_whose_papers_gave_statistics_of_attention_are_the_ones_that_are_known() -> None:
    assert OWN == ["arkvale", "infinigen", "pqcache"]


@pytest.mark.parametrize("system", OWN)
def test_no_figure_of_a_paper_is_reproduced_with_statistics_of_the_same_paper(system: str) -> None:
    assert [(t.where, f.label) for t in SYSTEMS[system] for f in t.figures if (f.kind or t.kind) == "reproduced"] == []


def test_arkvale_says_of_every_calibrated_table_which_constants_of_its_policy_are_the_papers() -> None:
    defaults = policy_options(ArkVale)
    calibrated = [t for t in arkvale.TABLES if t.kind == "calibrated"]
    assert len(calibrated) == 4
    for made in calibrated:
        assert f"{defaults['estimate'] * 1e6:.0f} us and {defaults['efficiency']} of the HBM rate" in made.fitted
        assert f"{defaults['select'] * 1e6:.0f} us for top-k" in made.fitted
        assert "figure 4b" in made.fitted


def test_infinigen_is_compared_with_the_better_of_both_at_each_point_and_then_the_most_is_taken() -> None:
    def runs(*seconds: float) -> list[SimpleNamespace]:
        return [SimpleNamespace(total_s=s) for s in seconds]

    swept = runs(6.0, 4.0, 2.0, 9.0, 3.0, 1.0)  # INT4, H2O, InfiniGen at two points
    assert infinigen.most_over(min)(*swept) == pytest.approx(3.0)
    assert infinigen.most_over(max)(*swept) == pytest.approx(9.0)
    named = [s.policies for s in infinigen.SWEPT]
    assert named[::3] == [infinigen.SYSTEMS["FlexGen + INT4"]] * len(infinigen.SWEEP)
    assert named[1::3] == [infinigen.SYSTEMS["FlexGen + H2O"]] * len(infinigen.SWEEP)
    assert judged_labels(table("infinigen", "abstract")) == ["up to, over prior KV management"]


def test_elastic_cache_is_judged_at_the_batch_of_its_paper_alone() -> None:
    made = table("elastic", "abstract")
    (figure,) = [f for f in made.figures if f.label in judged_labels(made)]
    assert {s.batch for s in figure.settings} == {elastic.BATCH} == {8}
    assert {s.batch for f in made.figures if f is not figure for s in f.settings} == set(elastic.MORE)


def test_least_and_most_of_the_prefetched_kernel_are_of_different_runs() -> None:
    (found,) = reproduce([table("l2_prefetch", "attention kernel")], workers=1)
    least, most = (row.simulated for row in found.rows)
    assert 1.02 * least < most
    assert {s.batch for s in l2_prefetch.SWEEP} == {16, 32, 64}


def test_one_published_number_is_judged_once_however_its_attention_is_modelled() -> None:
    assert judged_labels(table("corm", "abstract")) == ["KV dropped, up to (recommended)"]


def test_systems_without_figures_are_those_of_the_scenario_that_have_none() -> None:
    assert without_figures() == ["full", "host_kv", "uvm", "int8", "yoco", "gqa", "mqa"]
    assert set(without_figures()) | (set(SYSTEMS) & set(IMPLEMENTED)) == set(IMPLEMENTED)


def test_every_kind_but_the_incomparable_is_counted() -> None:
    kinds = {f.kind or t.kind for tables in SYSTEMS.values() for t in tables for f in t.figures}
    assert kinds == {*JUDGED, "not comparable"}


def test_a_trace_that_is_not_here_is_no_missed_target(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("KVSIM_TRACES", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (found,) = reproduce([table("mooncake", "hits by capacity")], workers=1)
    assert found.met is None
    assert all(row.target_met is None and "not on this machine" in row.note for row in found.rows)
