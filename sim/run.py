"""One simulation from start to result, and the run directory."""

from __future__ import annotations

import gc
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from inspect import isfunction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from hw_profiles.sampling import Draw
from policies.build import policy_source
from policies.tables import NAMED
from sim import checks
from sim.attribution import attribute
from sim.cache_state import FILE, state_table
from sim.clock import SNAPSHOT_LAST
from sim.cluster import Cluster
from sim.disaggregation_summary import handed_columns
from sim.engine.replica import Replica
from sim.exports import remove_exports
from sim.fleet.summary import with_gateway
from sim.forked import in_children
from sim.inputs import Inputs, load_inputs
from sim.invariants import ensure
from sim.policy_failure import failures_named
from sim.provenance import value_rows
from sim.sampler import Sampler
from sim.scenario import Progress, Scenario
from sim.snapshot import FILE as SNAPSHOT
from sim.snapshot import Snapshot, fingerprint, taken
from sim.snapshot_changes import changes, take_over
from sim.summary import SCHEMA, summarize
from sim.tables import columns_table, numbers, preemptions_table, requests_table, with_columns

CHECK_EVERY_EVENTS = 10_000
ROW_GROUP = 1 << 17
"""Rows of a table that are written at a time; writing takes memory in proportion."""
TABLES = ("requests", "steps", "transfers", "samples", "preemptions")


@dataclass(frozen=True)
class Result:
    """What a run produced: the summary (kvsim-summary/1), the tables (pyarrow), and what they came from."""

    summary: dict[str, Any]
    tables: dict[str, pa.Table]
    scenario_yaml: str
    profile_values: list[dict[str, Any]]
    cache_state: pa.Table | None = None
    """What the tiers held at the end, or when asked for (`sim.cache_state`)."""
    snapshot: Snapshot | None = None
    """How to go on from a time, if it was asked for (`sim.snapshot`)."""

    @cached_property
    def frames(self) -> dict[str, Any]:
        """The tables as pandas frames."""
        return {name: table.to_pandas() for name, table in self.tables.items()}

    def save(self, out: str | Path) -> Path:
        """Write the run directory (scenario.yaml, summary.json, profile.json, tables) into folder `out`; returns it.

        Everything is written beside it first and then moved in; `summary.json` leaves first and comes last, so a folder
        that has one is whole, and an earlier run stays if the disk is full. Raises InputError if `out` cannot be
        written or holds something else.
        """
        target = Path(out)
        try:
            self._save(target)
        except OSError as error:
            raise InputError(f"cannot write the run directory: {error.strerror or error}", where=target) from None
        return target

    def _save(self, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()) and not any((target / name).exists() for name in ("summary.json", "scenario.yaml")):
            raise InputError("the folder is not empty and is not a run directory", where=target)
        with tempfile.TemporaryDirectory(prefix=".kvsim-", dir=target) as folder:
            temporary = Path(folder)
            write_atomic(temporary / "scenario.yaml", self.scenario_yaml)
            write_atomic(temporary / "profile.json", json.dumps(self.profile_values, indent=1) + "\n")
            tables = {f"{name}.parquet": table for name, table in self.tables.items()}
            if self.cache_state is not None:
                tables[FILE] = self.cache_state
            for name, table in tables.items():
                _write(table, temporary / name)
            write_atomic(temporary / "summary.json", json.dumps(self.summary, indent=1, allow_nan=False) + "\n")
            if self.snapshot is not None:
                document = json.dumps(self.snapshot.document(), indent=1, allow_nan=False)
                write_atomic(temporary / SNAPSHOT, document + "\n")
            for stale in ("summary.json", "report.html", "timeline.json", "explain.json", FILE, SNAPSHOT):
                (target / stale).unlink(missing_ok=True)
            remove_exports(target)
            more = () if self.snapshot is None else (SNAPSHOT,)
            for name in ("scenario.yaml", "profile.json", *tables, *more, "summary.json"):
                (temporary / name).replace(target / name)

    @classmethod
    def load(cls, run_dir: str | Path) -> Result:
        """Read a run directory back. Raises InputError for what is missing, corrupt or of another schema."""
        folder = Path(run_dir)
        try:
            summary = json.loads((folder / "summary.json").read_text())
            values = json.loads((folder / "profile.json").read_text())
            scenario = (folder / "scenario.yaml").read_text()
            tables = {name: pq.read_table(folder / f"{name}.parquet") for name in TABLES}
            state = pq.read_table(folder / FILE) if (folder / FILE).exists() else None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(f"cannot read the run directory: {error}", where=folder) from None
        if not isinstance(summary, dict) or summary.get("schema") != SCHEMA:
            found = summary.get("schema") if isinstance(summary, dict) else None
            raise InputError("", where=folder / "summary.json", path="schema", found=found, allowed=SCHEMA)
        return cls(summary, tables, scenario, values, state)


def simulate(
    scenario: Scenario,
    *,
    progress: Progress | None = None,
    check: bool = False,
    strict: bool = False,
    single_step: bool = False,
    bound: bool = False,
    save_cache_state: bool = False,
    save_cache_state_at: float | None = None,
    save_snapshot_at: float | None = None,
    draw: Draw | None = None,
    inputs: Inputs | None = None,
    watch: Callable[[Cluster], None] | None = None,
) -> Result:
    """Run a scenario. `check` recounts every invariant often; `single_step` does not stride (same result, slower).

    With `bound` the summary also has `bound`: the run's load + compute seconds against the least that its lookups allow
    (sim.cache.run_bound). With `save_cache_state` the result has what the tiers held at the end, with
    `save_cache_state_at` (s) at that time, with `save_snapshot_at` (s) how to go on from then. With `draw` the machine
    is one drawn from the intervals of its values (sim.uncertainty). `inputs` are those of the scenario, if they are
    loaded already. `watch` is called with the cluster at every sample, and may raise to end the run.
    Raises InputError for input that turns out wrong, InvariantError if the simulator broke one of its own rules.
    """
    with no_collections():
        return _simulate(
            scenario,
            progress,
            check=check,
            strict=strict,
            single_step=single_step,
            bound=bound,
            save_cache_state=save_cache_state,
            save_cache_state_at=save_cache_state_at,
            save_snapshot_at=save_snapshot_at,
            draw=draw,
            inputs=inputs,
            watch=watch,
        )


@contextmanager
def no_collections() -> Iterator[None]:
    """No search for garbage cycles: a run allocates many small objects and makes no cycles worth finding."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _simulate(
    scenario: Scenario,
    progress: Progress | None,
    *,
    check: bool,
    strict: bool,
    single_step: bool,
    bound: bool,
    save_cache_state: bool,
    save_cache_state_at: float | None,
    save_snapshot_at: float | None,
    draw: Draw | None,
    inputs: Inputs | None,
    watch: Callable[[Cluster], None] | None,
) -> Result:
    if bound and scenario.spec.warm_start is not None:
        raise InputError("the bound is of caches that are empty at first", where=scenario.where, path="warm_start")
    started = Stopwatch()
    inputs = load_inputs(scenario, strict=strict, draw=draw) if inputs is None else inputs
    if inputs.snapshot is None:
        cluster = Cluster(scenario, inputs, single_step=single_step)
    else:
        cluster = on_the_way(inputs.snapshot, strict=strict, single_step=single_step)
        cluster.clock.at(inputs.snapshot.at_s, partial(go_on, cluster, scenario, inputs), SNAPSHOT_LAST)
    Sampler(cluster, progress, watch)
    states: list[pa.Table] = []
    snapshots: list[Snapshot] = []
    if save_cache_state_at is not None:
        cluster.clock.at(save_cache_state_at, lambda: states.append(state_now(cluster)), SNAPSHOT_LAST)
    if save_snapshot_at is not None:
        if inputs.snapshot is not None:
            raise InputError("no snapshot of a run that began with one", where=scenario.where, path="warm_start")
        sha = config_sha256(scenario, inputs)
        cluster.clock.at(save_snapshot_at, lambda: snapshots.append(taken(cluster, sha)), SNAPSHOT_LAST)
    drain(cluster, check=check)
    if save_cache_state:
        with failures_named(lambda: cluster.clock.now, scenario.where):
            states.append(state_table((tier for tiers in cluster.tiers for tier in tiers), cluster.identity()))
    result = result_of(cluster, inputs, started, bound=bound)
    return replace(result, cache_state=states[-1] if states else None, snapshot=snapshots[-1] if snapshots else None)


def drain(cluster: Cluster, *, check: bool = False) -> None:
    """Run a cluster until nothing is left to happen, and recount its state. Raises InputError, InvariantError."""
    with failures_named(lambda: cluster.clock.now, cluster.scenario.where):
        cluster.clock.drain(CHECK_EVERY_EVENTS if check else None, lambda: checks.check_state(cluster))
    checks.check_state(cluster)


class Stopwatch:
    """Seconds of this process since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """(wall, CPU), s."""
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def result_of(cluster: Cluster, inputs: Inputs, started: Stopwatch, *, bound: bool = False) -> Result:
    """Tables and summary of a cluster whose run is over. inputs: of its scenario, as they were loaded."""
    scenario, recorder, lost = cluster.scenario, cluster.recorder, cluster.preemptions
    steps = columns_table(recorder.steps)
    requests = requests_table(cluster.served, cluster.tier_names, lookups=cluster.front.asks)
    if cluster.disaggregation is not None:
        requests = with_columns(requests, handed_columns(cluster.disaggregation, requests))
    requests = with_gateway(cluster, with_columns(requests, attribute(requests, steps, lost)))
    if cluster.trace.priorities is not None:
        requests = with_columns(requests, {"priority": cluster.trace.priorities[numbers(requests, "request_id")]})
    checks.check_end(cluster, requests)
    summary = summarize(cluster, requests, steps, config_sha256(scenario, inputs), installed_version())
    if bound:
        from sim.cache.run_bound import bound_of_run

        summary["bound"] = bound_of_run(cluster, requests)
    tables = {
        "requests": requests,
        "steps": steps,
        "transfers": columns_table(recorder.transfers),
        "samples": columns_table(recorder.samples),
        "preemptions": preemptions_table(lost, cluster.tier_names),
    }
    wall_s, cpu_s = started.read()
    summary["simulator"] = {
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "events": cluster.clock.events,
        "steps": sum(r.accounts.steps for r in cluster.replicas),
        "requests_per_cpu_s": cluster.done / cpu_s,
        "compiled": not isfunction(Replica.enqueue),  # `make compile`
    }
    return Result(summary, tables, scenario.to_yaml(), value_rows(cluster))


# ---- from a snapshot on


def on_the_way(snapshot: Snapshot, *, strict: bool = False, single_step: bool = False) -> Cluster:
    """A cluster that makes the run of a snapshot again. Raises InputError if it would be another run."""
    base = snapshot.base
    inputs = load_inputs(base, strict=strict)
    if inputs.snapshot is not None:
        raise InputError("a snapshot of a run that began with one", where=snapshot.where)
    if config_sha256(base, inputs) != snapshot.config_sha256:
        problem = "another version of kvsim, or of a file that the scenario names, made this snapshot: take it again"
        raise InputError(problem, where=snapshot.where)
    return Cluster(base, inputs, single_step=single_step)


def go_on(cluster: Cluster, scenario: Scenario, inputs: Inputs) -> None:
    """The time of the snapshot has come: what `scenario` changes is taken over. Raises InputError."""
    snapshot = inputs.snapshot
    assert snapshot is not None
    if not cluster.single_step:  # which has other rows so far
        ensure(fingerprint(cluster) == snapshot.state_sha256, f"{snapshot.where}: the same run came to another state")
    try:
        take_over(cluster, scenario, inputs, changes(snapshot.base, scenario))
    except InputError as error:
        raise error.at(where=scenario.where) from None


def state_now(cluster: Cluster) -> pa.Table:
    """What the tiers hold, requests being under way. A policy may move things when it is asked for its order, so a copy
    of this process is."""
    return in_children([lambda: state_table((t for tiers in cluster.tiers for t in tiers), cluster.identity())])[0]


def _write(table: pa.Table, path: Path) -> None:
    """Times by their bytes, texts by a dictionary: half the CPU time, and less space, than by pyarrow's defaults."""
    texts = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_dictionary(f.type)]
    times = [f.name for f in table.schema if pa.types.is_floating(f.type)]
    pq.write_table(
        table,
        path,
        compression="zstd",
        row_group_size=ROW_GROUP,
        use_dictionary=texts,
        use_byte_stream_split=times,
    )


def config_sha256(scenario: Scenario, inputs: Inputs) -> str:
    """Hash of the version, the scenario and the content of everything that it names (not of where that lies)."""
    spec = scenario.spec
    plain = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    named = {"trace": ("name", "path"), "hardware": ("profile",)}
    for section, keys in named.items():
        plain[section] = {k: v for k, v in plain[section].items() if k not in keys}
    del plain["model"]
    if "path" in plain.get("importance", {}):
        plain["importance"]["path"] = hashlib.sha256(
            (scenario.base_dir / Path(plain["importance"]["path"]).expanduser()).read_bytes()
        ).hexdigest()
    if inputs.speculation is not None and plain["engine"]["speculation"].get("model"):
        plain["engine"]["speculation"]["model"] = inputs.speculation.content_sha256
    if "warm_start" in plain:
        begun = inputs.warm_start or inputs.snapshot
        plain["warm_start"]["path"] = begun.content_sha256 if begun else None
    sources = b""
    beside = {"routing": plain["routing"], "admission_control": plain.get("admission_control")}
    fleet = plain.get("fleet", {})
    comes = [{"fleet": fleet.get(key)} for key in ("scaling", "prewarm")]
    apart = plain.get("disaggregation", {})
    for section in (beside, *comes, {"routing": apart.get("routing")}, plain["policies"], *plain["tiers"]):
        for family in NAMED:
            named = section.get(family)
            for policy in (named if isinstance(named, list) else [named]) if named else ():
                sources += hashlib.sha256(policy_source(policy["name"], base_dir=scenario.base_dir)).digest()
                policy["name"] = policy["name"].rpartition(":")[2]
    digest = hashlib.sha256()
    devices = [device.content_sha256 for device in inputs.devices.values()]
    for tier in (*plain["tiers"], apart.get("link", {})):
        tier.pop("device", None)
    content = (*devices, inputs.trace.content_sha256, inputs.model.content_sha256, inputs.profile.content_sha256)
    for part in (installed_version(), json.dumps(plain, sort_keys=True), *content):
        digest.update(part.encode() + b"\0")
    digest.update(sources)
    return digest.hexdigest()


def installed_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("kvsim")
    except PackageNotFoundError:
        return "0+unknown"
