"""The study behind `kvsim cache`: hit ratios of policies by capacity, with the bounds beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.units import text_tokens
from policies.base import EvictionPolicy, TierInfo
from policies.build import build_policy, policy_class
from policies.eviction.lru import LRU
from policies.eviction.queue_aware import QueueAware
from policies.eviction.ttl import TTL
from policies.tables import EVICTION
from sim.cache.accesses import ENGINE_BLOCK, Accesses, Hits, accesses_of
from sim.cache.belady import belady_hits
from sim.cache.passes.facts import play
from sim.cache.passes.table import pass_of
from sim.cache.policy_names import as_mapping, label
from sim.cache.replay import Replay, cache_info, no_cycle_search
from sim.cache.stack import lru_hits
from sim.policy_failure import failures_named
from traces.request import Trace

BELADY = "belady"
UNBOUNDED = "unbounded"

RATIOS = (
    "Hit ratio: share of input tokens that a prefix lookup found, the prompt's leading blocks without a gap. "
    "Block hit ratio: share of block accesses, one by one, whose block was resident."
)
BOUNDS = (
    "belady knows the future and may refuse a block: no policy has more block hits on this sequence of accesses. It "
    "does not bound the hit ratio in tokens, which needs whole prefixes. unbounded never evicts: nothing exceeds it."
)


@dataclass(frozen=True)
class Row:
    """One policy at one capacity (tokens; None: unbounded). Ratios are shares from 0 to 1, see RATIOS."""

    policy: str
    capacity_tokens: int | None
    hit_ratio: float
    block_hit_ratio: float
    engine_hit_ratio: float = 0.0


def engine_line(rows: Sequence[Row]) -> str:
    """How far an engine's hit ratios are from those of the study."""
    less = max((row.hit_ratio - row.engine_hit_ratio for row in rows), default=0.0)
    return (
        f"An engine, which uses full blocks of {ENGINE_BLOCK} tokens and computes the last token of each prompt, has "
        f"at most {100 * less:.2g} points less (`--json`: engine_hit_ratio)."
    )


@dataclass(frozen=True)
class Study:
    """Rows of what was asked for, policy by policy, and of the bounds, asked for or not.

    `capacities` are those asked for; `unbounded` and `belady` (one row for each finite capacity; empty when it was
    neither asked for nor wanted) are the bounds. `ceilings` are the policies without a limit: what `unbounded` has, but
    for a policy that drops blocks by their age.
    """

    trace: str
    source: str
    block_tokens: int
    requests: int
    input_tokens: int
    accesses: int
    distinct_blocks: int
    policies: tuple[str, ...]
    capacities: tuple[int | None, ...]
    rows: tuple[Row, ...]
    belady: tuple[Row, ...]
    unbounded: Row
    ceilings: tuple[Row, ...]

    def curve(self, policy: str) -> tuple[Row, ...]:
        """Rows of one policy at the finite capacities, smallest first."""
        found = self.belady if policy == BELADY else [row for row in self.rows if row.policy == policy]
        finite = [row for row in found if row.capacity_tokens is not None]
        return tuple(sorted(finite, key=lambda row: row.capacity_tokens or 0))


def run_study(
    trace: Trace,
    policies: Sequence[str | Mapping[str, Any]],
    capacities: Sequence[int | None],
    *,
    block_tokens: int | None = None,
    bounds: bool = True,
    base_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Study:
    """Hit ratios of every policy at every capacity (tokens; None: unbounded), without timing.

    A policy is a name of the table of eviction policies, "belady", "my_policy.py:MyPolicy", or a mapping of such a
    `name` and options; a file is looked for in `base_dir` (the working directory). A capacity holds
    floor(tokens / block tokens) blocks. `bounds=False` leaves out belady unless it is asked for. `progress` is called
    with passes done and passes in all.
    Raises InputError for an unknown policy, a capacity below one block, and what `accesses_of` refuses.
    """
    specs = {label(spec): spec for spec in map(as_mapping, policies)}
    sizes = tuple(dict.fromkeys(capacities))
    if not specs or not sizes:
        raise InputError("none given", path="policy" if not specs else "capacity")
    here = base_dir or Path.cwd()
    classes = {name: _check(spec, here) for name, spec in specs.items()}
    accesses = accesses_of(trace, block_tokens)
    blocks = {size: _blocks(size, accesses) for size in sizes if size is not None}
    bounded = sorted({count for count in blocks.values() if count < accesses.distinct})
    everything = lru_hits(accesses, [accesses.distinct])[0]
    if bounds:
        classes.setdefault(BELADY, None)
    hits: dict[str, dict[int, Hits]] = {}
    replay: Replay | None = None
    for done, (name, cls) in enumerate(classes.items()):
        counts = [*bounded, accesses.distinct] if cls is not None and _expires(cls) else bounded
        if cls is None:
            found = belady_hits(accesses, counts)
        elif cls in (LRU, QueueAware):  # nothing queues here
            found = lru_hits(accesses, counts)
        elif cls is TTL:
            found = lru_hits(accesses, counts, _build(specs[name], cache_info(1), here).ttl_s)
        else:
            replay = replay or Replay(accesses)
            found = []
            for count in counts:
                with failures_named(replay.now, trace.source):
                    found.append(_hits(replay, _build(specs[name], replay.info(count), here), count))
                if progress is not None:
                    progress(done * len(bounded) + len(found), len(classes) * len(bounded))
        hits[name] = dict(zip(counts, found, strict=True))

    def row(policy: str, size: int | None) -> Row:
        most = hits.get(policy, {}).get(accesses.distinct, everything)
        reached = most if size is None else hits[policy].get(blocks[size], most)
        ratio, engine_ratio = (tokens / accesses.input_tokens for tokens in (reached.tokens, reached.engine))
        return Row(policy, size, ratio, reached.blocks / len(accesses.keys), engine_ratio)

    return Study(
        trace=trace.name,
        source=trace.source,
        block_tokens=accesses.block_tokens,
        requests=len(trace),
        input_tokens=accesses.input_tokens,
        accesses=len(accesses.keys),
        distinct_blocks=accesses.distinct,
        policies=tuple(specs),
        capacities=sizes,
        rows=tuple(row(policy, size) for policy in specs for size in sizes),
        belady=tuple(row(BELADY, size) for size in sizes if size is not None) if BELADY in hits else (),
        unbounded=row(UNBOUNDED, None),
        ceilings=tuple(row(policy, None) for policy in specs),
    )


def _check(spec: Mapping[str, Any], base_dir: Path) -> type | None:
    """The class of a policy, None for belady."""
    name = str(spec["name"])
    if name == BELADY and len(spec) == 1:
        return None
    known = [*EVICTION, BELADY]
    if name == UNBOUNDED:
        text = "unbounded is a capacity, not a policy: `--capacity 10Mtok,unbounded`"
        raise InputError(text, path="policy", found=name, allowed=known)
    if ":" not in name and name not in EVICTION:
        text = f"{name} has no options" if name == BELADY else "unknown eviction policy"
        allowed = [*known, '"my_policy.py:MyPolicy"']
        raise InputError(text, path="policy", found=name, allowed=allowed, near=known)
    _build(spec, cache_info(1), base_dir)  # unknown options fail before the work, not after
    return policy_class("eviction", name, base_dir=base_dir, path="policy")


def _build(spec: Mapping[str, Any], tier: TierInfo, base_dir: Path) -> Any:
    return build_policy("eviction", spec, tier, base_dir=base_dir, path="policy")


def _expires(cls: type) -> bool:
    """True for a policy that drops blocks however much room there is."""
    return issubclass(cls, EvictionPolicy) and cls.expired is not EvictionPolicy.expired


def _hits(replay: Replay, policy: EvictionPolicy, capacity: int) -> Hits:
    """One pass: the policy's own if it has one, else the general path, which gives the same."""
    own = pass_of(policy, capacity, replay.facts)
    if own is None:
        return replay.hits(policy, capacity)
    with no_cycle_search():
        return play(own, replay.facts)


def _blocks(size: int, accesses: Accesses) -> int:
    count = size // accesses.block_tokens
    if count < 1:
        least = text_tokens(accesses.block_tokens)
        raise InputError("less than one block", path="capacity", found=text_tokens(size), allowed=f"at least {least}")
    return count
