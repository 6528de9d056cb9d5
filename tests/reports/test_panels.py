"""Optional sections of a run's report: each in its place, and none where the run has no such part."""

from reports import panels
from reports.bins import time_bins
from reports.document import Section
from reports.figures.base import time_axis
from reports.load import load_run
from reports.page import run_sections


def test_a_panel_follows_its_section_and_is_absent_without_a_part(shared_run, monkeypatch):
    run = load_run(shared_run)
    axis = time_axis(time_bins(run.start_s, run.end_s, len(run.arrivals)))
    made = (("a", lambda run, axis: Section("x", "X", [])), ("a", lambda run, axis: None))
    monkeypatch.setattr(panels, "PANELS", (*made, ("b", lambda run, axis: Section("y", str(run.replicas), []))))
    found = panels.with_panels([Section(key, key, []) for key in "abc"], run, axis)
    assert [(section.key, section.title) for section in found] == [
        ("a", "a"), ("x", "X"), ("b", "b"), ("y", "4"), ("c", "c"),
    ]  # fmt: skip


def test_every_panel_comes_after_a_section_that_each_report_has(shared_run):
    keys = [section.key for section in run_sections(load_run(shared_run))]
    assert {after for after, _ in panels.PANELS} <= {*keys}
