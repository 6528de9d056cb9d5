"""One simulation from start to result, and the run directory."""

from __future__ import annotations

import gc
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
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
from sim.cluster import Cluster
from sim.engine.replica import Replica
from sim.exports import remove_exports
from sim.fleet.summary import with_gateway
from sim.inputs import Inputs, load_inputs
from sim.policy_failure import failures_named
from sim.provenance import value_rows
from sim.sampler import Sampler
from sim.scenario import Progress, Scenario
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
    """What the tiers held at the end, if it was asked for (`sim.cache_state`)."""

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
                pq.write_table(table, temporary / name, compression="zstd", row_group_size=ROW_GROUP)
            write_atomic(temporary / "summary.json", json.dumps(self.summary, indent=1, allow_nan=False) + "\n")
            for stale in ("summary.json", "report.html", "timeline.json", "explain.json", FILE):
                (target / stale).unlink(missing_ok=True)
            remove_exports(target)
            for name in ("scenario.yaml", "profile.json", *tables, "summary.json"):
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
    draw: Draw | None = None,
    inputs: Inputs | None = None,
    watch: Callable[[Cluster], None] | None = None,
) -> Result:
    """Run a scenario. `check` recounts every invariant often; `single_step` does not stride (same result, slower).

    With `bound` the summary also has `bound`: the run's load + compute seconds against the least that its lookups allow
    (sim.cache.run_bound). With `save_cache_state` the result has what the tiers held at the end. With `draw` the
    machine is one drawn from the intervals of its values (sim.uncertainty). `inputs` are those of the scenario, if they
    are loaded already. `watch` is called with the cluster at every sample, and may raise to end the run.
    Raises InputError for input that turns out wrong, InvariantError if the simulator broke one of its own rules.
    """
    with _no_collections():
        return _simulate(
            scenario,
            progress,
            check=check,
            strict=strict,
            single_step=single_step,
            bound=bound,
            save_cache_state=save_cache_state,
            draw=draw,
            inputs=inputs,
            watch=watch,
        )


@contextmanager
def _no_collections() -> Iterator[None]:
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
    draw: Draw | None,
    inputs: Inputs | None,
    watch: Callable[[Cluster], None] | None,
) -> Result:
    if bound and scenario.spec.warm_start is not None:
        raise InputError("the bound is of caches that are empty at first", where=scenario.where, path="warm_start")
    wall, cpu = time.perf_counter(), time.process_time()
    inputs = load_inputs(scenario, strict=strict, draw=draw) if inputs is None else inputs
    cluster = Cluster(scenario, inputs, single_step=single_step)
    Sampler(cluster, progress, watch)
    with failures_named(lambda: cluster.clock.now, scenario.where):
        cluster.clock.drain(CHECK_EVERY_EVENTS if check else None, lambda: checks.check_state(cluster))
    checks.check_state(cluster)
    recorder = cluster.recorder
    steps = columns_table(recorder.steps)
    lost = cluster.preemptions
    requests = requests_table(cluster.served, cluster.tier_names)
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
    cpu_s = time.process_time() - cpu
    summary["simulator"] = {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": cpu_s,
        "events": cluster.clock.events,
        "steps": sum(r.accounts.steps for r in cluster.replicas),
        "requests_per_cpu_s": cluster.done / cpu_s,
        "compiled": not isfunction(Replica.enqueue),  # `make compile`
    }
    state = None
    if save_cache_state:
        with failures_named(lambda: cluster.clock.now, scenario.where):
            state = state_table((tier for tiers in cluster.tiers for tier in tiers), cluster.identity())
    return Result(summary, tables, scenario.to_yaml(), value_rows(cluster), state)


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
        plain["warm_start"]["path"] = inputs.warm_start.content_sha256 if inputs.warm_start else None
    sources = b""
    beside = {"routing": plain["routing"], "admission_control": plain.get("admission_control")}
    beside["fleet"] = plain["fleet"]["scaling"] if "fleet" in plain else None
    for section in (beside, plain["policies"], *plain["tiers"]):
        for family in NAMED:
            named = section.get(family)
            for policy in (named if isinstance(named, list) else [named]) if named else ():
                sources += hashlib.sha256(policy_source(policy["name"], base_dir=scenario.base_dir)).digest()
                policy["name"] = policy["name"].rpartition(":")[2]
    digest = hashlib.sha256()
    devices = [device.content_sha256 for device in inputs.devices.values()]
    for tier in plain["tiers"]:
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
