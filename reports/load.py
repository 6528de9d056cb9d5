"""Read a run directory into numpy columns, and refuse a broken one in one line.

Everything else in this package works on `RunData`; only this file knows file names and schemas.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hw_profiles.errors import InputError
from hw_profiles.yaml_io import parse_yaml, read_text
from reports.explained import checked
from sim.attribution import BETWEEN, PARTS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SUMMARY_SCHEMA = "kvsim-summary/1"
HIT_PREFIX, HIT_SUFFIX = "hit_", "_tokens"

REQUESTS = (
    "request_id",
    "replica",
    "status",
    "arrival_s",
    "admit_s",
    "first_token_s",
    "finish_s",
    "input_tokens",
    "output_tokens",
    "computed_tokens",
    "ttft_s",
    "tpot_s",
    "e2e_s",
    "queue_s",
    "load_s",
    "prefill_s",
    "prefetch_wait_s",
    *(f"prefill_{part}_s" for part in PARTS if part != "beside"),
    *(f"decode_{part}_s" for part in PARTS),
)
OPTIONAL = ("gateway_wait_s", *(f"decode_{part}_s" for part in BETWEEN))
"""Columns of requests that only some runs have."""
STEPS = (
    "replica",
    "start_s",
    "end_s",
    "linear_s",
    "attention_s",
    "exchange_s",
    "pipeline_s",
    "launch_s",
    "stall_s",
    "interference_s",
    "layer_wait_s",
    "works_s",
    "moves_s",
)
TRANSFERS = ("link", "replica", "src", "dst", "bytes", "queued_s", "start_s", "end_s", "reason")
TEXTS = frozenset({"status", "link", "src", "dst", "reason", "kind", "object", "metric"})
SAMPLES = ("time_s", "kind", "object", "metric", "value")


@dataclass(frozen=True)
class Codes:
    """A text column as integers: row i holds `names[index[i]]`."""

    index: Ints
    names: tuple[str, ...]

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """Bool[n], true where the row equals `name`."""
        if name not in self.names:
            return np.zeros(len(self.index), dtype=bool)
        return np.asarray(self.index == self.names.index(name), dtype=bool)


@dataclass(frozen=True)
class Table:
    """Columns of one Parquet file: numbers as float64[n], text as Codes."""

    rows: int
    numbers: Mapping[str, Floats]
    texts: Mapping[str, Codes]

    def __getitem__(self, name: str) -> Floats:
        return self.numbers[name]

    def where(self, mask: npt.NDArray[np.bool_]) -> "Table":
        """The rows where `mask` is true."""
        if mask.all():
            return self
        return Table(
            int(np.count_nonzero(mask)),
            {k: v[mask] for k, v in self.numbers.items()},
            {k: Codes(v.index[mask], v.names) for k, v in self.texts.items()},
        )


@dataclass(frozen=True)
class RunData:
    """A run directory in memory. Times in seconds of simulated time, sizes in bytes."""

    path: Path
    summary: Mapping[str, Any]
    scenario: Mapping[str, Any]
    scenario_text: str
    profile: tuple[Mapping[str, Any], ...]
    finished: Table  # the finished requests
    rejected: int
    arrivals: Floats  # every request, rejected ones too
    steps: Table
    transfers: Table
    samples: Table
    tiers: tuple[str, ...]  # fastest first
    replicas: int
    start_s: float  # first arrival
    end_s: float  # last event
    explain: Mapping[str, Any] | None = None  # explain.json, where `kvsim run --explain` wrote one

    @property
    def slo_targets(self) -> Mapping[str, Mapping[str, Any]]:
        """`summary["slo"]["targets"]`, or nothing when the scenario set no SLO."""
        return section(section(self.summary, "slo"), "targets")


def section(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under `key`, or an empty one."""
    value = mapping.get(key)
    return value if isinstance(value, Mapping) else {}


def load_run(run_dir: Path) -> RunData:
    """Read `run_dir`; InputError when a file is missing, unreadable, lacks a column or has another schema."""
    if not run_dir.is_dir():
        raise InputError("not a run directory (no such folder)", where=run_dir)
    summary = _read_summary(run_dir / "summary.json")
    scenario_path = run_dir / "scenario.yaml"
    scenario_text = read_text(scenario_path)
    scenario = parse_yaml(scenario_text, where=scenario_path)
    requests = _read_table(run_dir / "requests.parquet", REQUESTS, hit_columns=True)
    steps = _read_table(run_dir / "steps.parquet", STEPS)
    transfers = _read_table(run_dir / "transfers.parquet", TRANSFERS)
    samples = _read_table(run_dir / "samples.parquet", SAMPLES)
    arrivals = requests["arrival_s"]
    ends = [requests["finish_s"], steps["end_s"], transfers["end_s"], samples["time_s"], arrivals]
    start = float(arrivals.min()) if len(arrivals) else 0.0
    done = requests.texts["status"].mask("finished")
    return RunData(
        path=run_dir,
        summary=summary,
        scenario=scenario,
        scenario_text=scenario_text,
        profile=_read_profile(run_dir / "profile.json"),
        finished=requests.where(done),
        rejected=int(requests.texts["status"].mask("rejected").sum()),
        arrivals=arrivals,
        steps=steps,
        transfers=transfers,
        samples=samples,
        tiers=_tier_order(summary, requests.numbers),
        replicas=_replicas(summary, scenario, requests, steps),
        start_s=start,
        end_s=max([start, *(float(np.nanmax(e)) for e in ends if np.isfinite(e).any())]),
        explain=_read_explain(run_dir / "explain.json", summary),
    )


def _tier_order(summary: Mapping[str, Any], columns: Iterable[str]) -> tuple[str, ...]:
    """Tiers as the summary lists them (fastest first), then any that only a hit column names."""
    named = list(section(summary, "tiers"))
    hits = [c[len(HIT_PREFIX) : -len(HIT_SUFFIX)] for c in columns if c.startswith(HIT_PREFIX)]
    return tuple(dict.fromkeys([*named, *hits]))


def _replicas(summary: Mapping[str, Any], scenario: Mapping[str, Any], requests: Table, steps: Table) -> int:
    for block in (section(summary, "hardware"), section(scenario, "hardware")):
        value = block.get("replicas")
        if isinstance(value, int) and value > 0:
            return value
    seen = np.concatenate([requests["replica"], steps["replica"]])
    return int(np.nanmax(seen, initial=0.0)) + 1


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON (line {error.lineno}: {error.msg})", where=path) from None


def _read_summary(path: Path) -> Mapping[str, Any]:
    summary = _read_json(path)
    if not isinstance(summary, dict):
        raise InputError("expected a JSON object", where=path, found=type(summary).__name__)
    if summary.get("schema") != SUMMARY_SCHEMA:
        raise InputError(
            "a run directory of another kvsim version",
            where=path,
            path="schema",
            found=summary.get("schema"),
            allowed=SUMMARY_SCHEMA,
        )
    return summary


def _read_explain(path: Path, summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return checked(_read_json(path), path, summary.get("config_sha256")) if path.exists() else None


def _read_profile(path: Path) -> tuple[Mapping[str, Any], ...]:
    values = _read_json(path)
    if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
        raise InputError("expected a JSON list of profile values", where=path, found=type(values).__name__)
    return tuple(values)


def _read_table(path: Path, columns: tuple[str, ...], *, hit_columns: bool = False) -> Table:
    if not path.is_file():
        raise InputError("missing from the run directory", where=path)
    try:
        # memory_map=False: the file may be replaced by a new run while the page is open elsewhere.
        file = pq.ParquetFile(path, memory_map=False)
        names = list(file.schema_arrow.names)
        missing = [c for c in columns if c not in names]
        if missing:
            raise InputError("the table lacks a column", where=path, path=missing[0])
        hits = [n for n in names if n.startswith(HIT_PREFIX) and n.endswith(HIT_SUFFIX)] if hit_columns else []
        hits += [n for n in OPTIONAL if hit_columns and n in names]
        hits += [n for hit in hits if (n := f"load_{hit[len(HIT_PREFIX) : -len(HIT_SUFFIX)]}_s") in names]
        coded = pq.ParquetFile(
            path, memory_map=False, read_dictionary=[n for n in names if n in TEXTS and n in columns]
        )
        numbers: dict[str, Floats] = {}
        texts: dict[str, Codes] = {}
        for name in dict.fromkeys((*columns, *hits)):  # one at a time: less memory
            column = coded.read(columns=[name], use_threads=False).column(0)
            _take(name, column, numbers, texts, path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a readable Parquet table ({_one_line(error)})", where=path) from None
    for name in columns:
        if name not in (texts if name in TEXTS else numbers):
            found = file.schema_arrow.field(name).type
            raise InputError("unexpected column type", where=path, path=name, found=found)
    return Table(file.metadata.num_rows, numbers, texts)


def _take(name: str, column: Any, numbers: dict[str, Floats], texts: dict[str, Codes], path: Path) -> None:
    """Put a column where columns of its kind go."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts[name] = _codes(column.dictionary_encode())
    elif pa.types.is_dictionary(column.type):
        texts[name] = _codes(column)
    elif pa.types.is_null(column.type):  # an empty column that was never given a type
        texts[name] = Codes(np.full(len(column), -1, dtype=np.int64), ())
        numbers[name] = np.full(len(column), np.nan)
    elif _is_number(column.type):
        numbers[name] = _floats(column)
    else:
        raise InputError("unexpected column type", where=path, path=name, found=column.type)


# Arrays are read from their buffers, and texts come from the file as places in a list: to_numpy and pyarrow's functions
# import what takes longer than the report of a short run.


def _floats(column: Any) -> Floats:
    """Numbers as float64[n], NaN where there is none."""
    parts = []
    for chunk in filter(len, column.chunks):
        if chunk.null_count or pa.types.is_boolean(chunk.type):
            chunk = chunk.cast(pa.float64()).fill_null(np.nan)
        values = np.frombuffer(chunk.buffers()[1], chunk.type.to_pandas_dtype(), len(chunk), _first_byte(chunk))
        parts.append(values.astype(np.float64, copy=False))
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0), *parts])


def _first_byte(chunk: Any) -> int:
    """Where its own values begin in their buffer."""
    return int(chunk.offset * chunk.type.bit_width // 8)


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _codes(column: Any) -> Codes:
    combined = column.unify_dictionaries().combine_chunks()
    chunks = list(filter(len, combined.chunks if isinstance(combined, pa.ChunkedArray) else [combined]))
    if not chunks:
        return Codes(np.zeros(0, dtype=np.int64), ())
    index = [i.fill_null(-1) if i.null_count else i for i in (chunk.indices for chunk in chunks)]
    places = [np.frombuffer(i.buffers()[1], i.type.to_pandas_dtype(), len(i), _first_byte(i)) for i in index]
    names = tuple(str(v) for v in chunks[0].dictionary.to_pylist())
    return Codes(np.concatenate(places).astype(np.int64), names)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
