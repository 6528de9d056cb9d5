"""A run as it stood at a time, and runs that go on from there (`warm_start: {path: snapshot.json}`).

A snapshot is a recipe: the whole scenario, the time, and fingerprints of what the scenario names and of the state at
that time. A run that begins with it makes the run again up to that time, compares the fingerprints, takes over what the
new scenario changes (sim.snapshot_changes), and goes on. Runs are deterministic to the byte, so this is the state
itself, with all that is under way (requests, queues, copies, what policies remember), and a run that changes nothing is
the uninterrupted one. Several runs share the way there (sim.whatif.from_snapshot).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw_profiles.errors import InputError
from sim.scenario import Scenario

if TYPE_CHECKING:
    from sim.cluster import Cluster

SCHEMA = "kvsim-snapshot/1"
FILE = "snapshot.json"
SUFFIX = ".json"
"""Ending of a `warm_start.path` that names a snapshot, where a cache state is a Parquet file."""
KINDS: Mapping[str, tuple[Any, str]] = {
    "at_s": (int | float, "a time in s, 0 or later"),
    "scenario": (dict, "a mapping"),
    "config_sha256": (str, "a SHA-256"),
    "state_sha256": (str, "a SHA-256"),
    "ended": (int, "a number of requests"),
    "under_way": (int, "a number of requests"),
}
"""What each field of a snapshot is in its file."""


@dataclass(frozen=True)
class Snapshot:
    """A run at a time.

    at_s               everything up to this time has happened
    scenario           of the run, with absolute paths; config_sha256: of the run
    state_sha256       fingerprint of the cluster at that time
    ended, under_way   requests then
    where              the file
    """

    at_s: float
    scenario: Mapping[str, Any]
    config_sha256: str
    state_sha256: str
    ended: int
    under_way: int
    where: str = "snapshot"

    @property
    def base(self) -> Scenario:
        """The scenario of the run that the snapshot is of. Raises InputError."""
        return Scenario.from_dict(self.scenario, where=self.where)

    @property
    def content_sha256(self) -> str:
        """Of what it says; not of where anything lies."""
        parts = (self.config_sha256, self.state_sha256, repr(self.at_s))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def document(self) -> dict[str, Any]:
        """What its file holds."""
        fields = {name: value for name, value in vars(self).items() if name != "where"}
        return {"schema": SCHEMA, **fields}


def taken(cluster: Cluster, config_sha256: str) -> Snapshot:
    """The snapshot of a cluster as it stands now. Raises InputError when nothing is left to happen."""
    now = cluster.clock.now
    if cluster.done == len(cluster.trace):
        end = float(cluster.served.column("finish_s").max(initial=0.0))
        raise InputError("the run is over before the snapshot", found=f"{now:g} s", allowed=f"less than {end:.6g} s")
    return Snapshot(
        now, cluster.scenario.resolved(), config_sha256, fingerprint(cluster), cluster.done, cluster.arrivals.under_way
    )


def read_snapshot(path: Path) -> Snapshot:
    """The snapshot in a file that `kvsim run --save-snapshot-at` wrote. Raises InputError naming the file."""
    try:
        plain = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError("file not found", where=path) from None
    except (OSError, ValueError) as error:
        raise InputError(f"not a snapshot: {error}", where=path) from None
    found = plain.pop("schema", "nothing") if isinstance(plain, dict) else "nothing"
    if found != SCHEMA:
        raise InputError("not a snapshot", where=path, path="schema", found=found, allowed=SCHEMA)
    try:
        snapshot = Snapshot(**plain, where=str(path))
    except TypeError as error:
        raise InputError(f"a snapshot that is not whole: {error}", where=path) from None
    for name, (kind, allowed) in KINDS.items():
        value = plain[name]
        if isinstance(value, bool) or not isinstance(value, kind) or (isinstance(value, int | float) and value < 0):
            raise InputError("a snapshot that is not whole", where=path, path=name, found=value, allowed=allowed)
    return snapshot


def fingerprint(cluster: Cluster) -> str:
    """SHA-256 of what shows of a cluster: its requests, tiers, links and rows so far. Changes nothing."""
    digest = hashlib.sha256()
    for part in _state(cluster):
        digest.update(repr(part).encode() + b"\0")
    return digest.hexdigest()


def _state(cluster: Cluster) -> Iterator[tuple[Any, ...]]:
    recorder, arrivals = cluster.recorder, cluster.arrivals
    yield cluster.clock.now, cluster.done, arrivals.sent, arrivals.under_way, arrivals.sender_wait_s
    yield len(recorder.steps), len(recorder.transfers)
    for replica in cluster.replicas:
        batch = replica.batch
        yield replica.index, replica.prompt_tokens, batch.queue_length, *vars_of(replica.accounts.times)
        for seq in (*batch.running.values(), *batch.loading.values(), *batch.waiting):
            yield seq.index, seq.computed, seq.generated, seq.pending, seq.arrival_s, seq.chunk_s
    for tier in (tier for tiers in cluster.tiers for tier in tiers):
        yield tier.label, tier.used, tier.reserved, tier.pinned
        for block in tier.blocks.values():
            yield block.key, block.tokens, block.ready, block.pins, block.uses
    for link in cluster.links:
        yield link.name, link.replica, link.bytes, link.busy_s, link.busy


def vars_of(times: Any) -> tuple[float, ...]:
    """The numbers of a record, in order of their names, whether it is compiled or not."""
    names = sorted(name for name in dir(times) if name.endswith("_s"))
    return tuple(getattr(times, name) for name in names)
