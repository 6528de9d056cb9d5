"""What requests looked up before they were sent to a replica: sections of a run's report."""

from collections.abc import Mapping
from typing import Any

from reports.document import Section
from reports.figures.base import TimeAxis
from reports.load import RunData, section
from reports.tables import TextTable
from reports.text import binary_bytes, number, percent, seconds


def responses_panel(run: RunData, axis: TimeAxis) -> Section | None:
    """Who was answered without a GPU, and how the others fared; None without a cache of answers."""
    table = responses_table(run.summary)
    return Section("response_cache", "Caches of answers", [], [table]) if table else None


def index_panel(run: RunData, axis: TimeAxis) -> Section | None:
    """How long requests waited for the index of prefixes; None without one."""
    table = index_table(run.summary)
    return Section("metadata_index", "The index of prefixes", [], [table]) if table else None


def responses_table(summary: Mapping[str, Any]) -> TextTable | None:
    """The summary's `response_cache`, and each of its caches; None without one."""
    did = section(summary, "response_cache")
    if not did:
        return None
    said = section(section(summary, "definitions"), "response_cache")
    values = (
        ("hits", f"{number(did['hits'])} ({percent(did['hit_ratio'])} of the finished)"),
        ("bypassed_input_tokens", number(did["bypassed_input_tokens"])),
        ("bypassed_output_tokens", number(did["bypassed_output_tokens"])),
        ("gpu_ttft_mean_ms", _ms(did["gpu_ttft_mean_ms"])),
        ("gpu_tpot_mean_ms", _ms(did["gpu_tpot_mean_ms"])),
    )
    rows = [(str(said[key]["label"]), value, str(said[key]["definition"])) for key, value in values]
    for cache in did["caches"]:
        full = f"{binary_bytes(cache['used_bytes'])} of {binary_bytes(cache['capacity_bytes'])}"
        asked = f"{number(cache['hits'])} of {number(cache['lookups'])} lookups found"
        rows.append((str(cache["name"]), asked, f"{number(cache['entries'])} answers in {full} of host memory."))
    read = "Latencies of the run count all requests, those that were answered at once included."
    return TextTable("answers", "Requests answered without a GPU", read, ("What", "Value", "Meaning"), rows, ())


def index_table(summary: Mapping[str, Any]) -> TextTable | None:
    """The summary's `metadata_index`; None without one."""
    did = section(summary, "metadata_index")
    if not did:
        return None
    said = section(section(summary, "definitions"), "metadata_index")
    shown = {
        **{key: number(did[key]) for key in ("lookups", "keys", "written_keys")},
        **{key: _ms(did[key]) for key in ("lookup_mean_ms", "lookup_p99_ms", "queue_mean_ms")},
        "utilization": percent(did["utilization"]),
    }
    rows = [(str(said[key]["label"]), value, str(said[key]["definition"])) for key, value in shown.items()]
    read = "One server for all replicas; a request waits for its answer before it is sent to one."
    return TextTable("lookups", "Lookups of prefixes", read, ("What", "Value", "Meaning"), rows, ())


def _ms(value: float | None) -> str:
    return "none" if value is None else seconds(value / 1e3)
