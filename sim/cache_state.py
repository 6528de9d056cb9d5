"""What the tiers hold at the end of a run, or at a time, saved to a file; and a run that begins with it (`warm_start`).

A row is a block of one tier, coldest first in the order of the tier's own eviction policy. Blocks come back through the
policy's `insert`, in that order. What a request keeps to itself (its output) is not saved: nobody can hit it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hw_profiles.errors import InputError
from policies.base import Block
from sim.hierarchy.tier import Tier

SCHEMA = "kvsim-cache-state/1"
FILE = "cache_state.parquet"
COLUMNS = pa.schema(
    {
        "tier": pa.string(),
        "instance": pa.string(),
        "order": pa.int64(),
        "key": pa.int64(),
        "parent": pa.int64(),
        "start": pa.int64(),
        "tokens": pa.int64(),
        "uses": pa.int64(),
        "turn": pa.int64(),
        "members": pa.list_(pa.int64()),
    }
)
"""order: 0 for the coldest of an instance. parent and members as of `policies.base.Block`, null where it has none."""


@dataclass(frozen=True)
class Identity:
    """What the keys and sizes of a state mean: a run that begins with it must be alike in this.

    trace         name of the trace; trace_sha256: its content, which is what its hashes name
    hash_tokens   tokens behind one hash
    model         name of the model; token_bytes: KV of one token on all GPUs of a replica
    blocks        tokens of one block, by tier
    instances     labels of the tiers ("dram/node0"), by tier
    """

    trace: str
    trace_sha256: str
    hash_tokens: int
    model: str
    token_bytes: int
    blocks: Mapping[str, int]
    instances: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class CacheState:
    """A saved state; `content_sha256` is that of its file."""

    identity: Identity
    table: pa.Table
    content_sha256: str


def state_table(tiers: Iterable[Tier], identity: Identity) -> pa.Table:
    """The blocks that `tiers` hold now, as a table whose metadata is their identity. Asks each policy for its order."""
    rows = [row for tier in tiers for row in _rows(tier)]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS.names)}
    plain = {"schema": SCHEMA, **vars(identity)}
    return pa.table(columns, COLUMNS.with_metadata({"kvsim": json.dumps(plain, sort_keys=True)}))


def _rows(tier: Tier) -> Iterator[tuple[Any, ...]]:
    ordered = {block.key: block for block in tier.policy.victims()}
    ordered.update((key, block) for key, block in tier.blocks.items() if key not in ordered)  # in use: not offered
    # what is being computed or copied here has not come yet
    shared = [block for block in ordered.values() if not block.private and block.ready == block.tokens]
    for order, b in enumerate(shared):
        members = None if b.members is None else list(b.members)
        yield tier.name, tier.label, order, b.key, b.parent, b.start, b.tokens, b.uses, b.turn, members


def read_state(path: Path) -> CacheState:
    """The state of a file that `kvsim run --save-cache-state` wrote. Raises InputError naming the file."""
    try:
        content = path.read_bytes()
        table = pq.read_table(pa.BufferReader(content))
        plain = json.loads((table.schema.metadata or {}).get(b"kvsim", b"{}"))
    except FileNotFoundError:
        raise InputError("file not found", where=path) from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"not a saved cache state: {error}", where=path) from None
    found = plain.pop("schema", "nothing")
    if found != SCHEMA:
        raise InputError("not a saved cache state", where=path, path="schema", found=found, allowed=SCHEMA)
    try:
        instances = {tier: tuple(labels) for tier, labels in plain.pop("instances").items()}
        identity = Identity(**plain, instances=instances)
        table = table.select(COLUMNS.names).cast(COLUMNS)
    except (KeyError, TypeError, AttributeError, ValueError, pa.ArrowException) as error:
        raise InputError(f"a saved cache state that is not whole: {error}", where=path) from None
    return CacheState(identity, table, hashlib.sha256(content).hexdigest())


def check_alike(state: Identity, run: Identity, tiers: Iterable[str]) -> None:
    """Raise InputError (path "warm_start") for the first thing in which a run of `run` is unlike `state`."""
    pairs: list[tuple[str, object, object]] = [
        ("the hashes of another trace", _trace(state), _trace(run)),
        ("the KV of another model", f"{state.model}, {state.token_bytes} B a token", _model(run)),
        ("hashes of other blocks", f"{state.hash_tokens} tokens", f"{run.hash_tokens} tokens"),
    ]
    for tier in tiers:
        if tier not in state.instances:
            raise InputError(
                "the state has no such tier", path="warm_start.tiers", found=tier, allowed=tuple(state.instances)
            )
        if tier not in run.instances:
            problem = f"the state has blocks of tier {tier}, which the scenario does not have"
            names = " and ".join(run.instances)
            raise InputError(problem, path="warm_start", found=names, allowed="the same tiers, or warm_start.tiers")
        pairs.append((f"other blocks in {tier}", state.blocks[tier], run.blocks[tier]))
        if run.instances[tier]:
            pairs.append((f"other instances of {tier}", list(state.instances[tier]), list(run.instances[tier])))
    for what, theirs, ours in pairs:
        if theirs != ours:
            raise InputError(f"the state has {what}", path="warm_start", found=theirs, allowed=f"{ours}")


def _trace(identity: Identity) -> str:
    return f"{identity.trace} ({identity.trace_sha256[:8]})"


def _model(identity: Identity) -> str:
    return f"{identity.model}, {identity.token_bytes} B a token"


def restore(state: CacheState, tiers: Mapping[str, Tier], chosen: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Fill the tiers, by label, with the blocks of the `chosen` ones; (blocks restored, blocks left out) by tier.

    What does not fit is left out, the coldest first.
    """
    counts = dict.fromkeys(chosen, (0, 0))
    by_label: dict[str, list[dict[str, Any]]] = {}
    for row in state.table.to_pylist():
        if row["tier"] in counts:
            by_label.setdefault(row["instance"], []).append(row)
    for label, rows in by_label.items():
        rows.sort(key=lambda row: row["order"])
        tier, name = tiers.get(label), rows[0]["tier"]
        kept = [] if tier is None else _fitting(rows, tier, state.identity.token_bytes)
        if tier is not None:
            for block in kept:
                tier.insert(block)
        restored, left_out = counts[name]
        counts[name] = (restored + len(kept), left_out + len(rows) - len(kept))
    return counts


def _fitting(rows: list[dict[str, Any]], tier: Tier, token_bytes: int) -> list[Block]:
    """The last of the rows that fit the tier, as blocks."""
    blocks: list[Block] = []
    room = tier.free
    for row in reversed(rows):
        size = row["tokens"] * token_bytes
        room -= size
        if room < 0:
            break
        block = Block(row["key"], row["start"], row["tokens"], size, row["tokens"], row["parent"], row["turn"])
        block.uses = row["uses"]
        block.sent = True  # this run did not store it, so it is not one that was stored and never loaded
        block.members = None if row["members"] is None else tuple(row["members"])
        blocks.append(block)
    blocks.reverse()
    return blocks
