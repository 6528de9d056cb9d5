"""Users' eviction policies at work: the part of `policies.guard` for the family eviction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any

from hw_profiles.errors import InputError
from policies.base import Block, EvictionPolicy
from policies.guard_reuse import Watch

_END = object()
read = attrgetter("key", "start", "tokens", "ready", "size", "pins", "uses", "parent", "turn")
"""What a policy may read of a block, and must not change."""


def eviction_hooks(watch: Watch, policy: Any) -> dict[str, Callable[..., Any]]:
    """The hooks of an eviction policy, with what they return and change checked."""
    resident: dict[int, Block] = {}

    def hears(hook: str) -> Callable[[Block], None]:
        method = getattr(policy, hook)
        comes, goes = hook == "insert", hook == "remove"

        def heard(block: Block) -> None:
            before = read(block)
            if comes:
                resident[block.key] = block
            elif goes:
                resident.pop(block.key, None)
            try:
                method(block)
            except InputError:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a policy raises is its mistake
                raise watch.failed(hook, block, error) from None
            if read(block) != before:
                raise watch.changed(hook, block)

        return heard

    def scans(hook: str) -> Callable[[], Iterator[Block]]:
        method = getattr(policy, hook)

        def scan() -> Iterator[Block]:
            made = watch.call(hook, method)
            if not isinstance(made, Iterable):
                raise watch.broke(f"{hook}() must yield blocks, not {made!r}")
            blocks = watch.call(hook, iter, made)
            seen: set[int] = set()
            while True:
                try:
                    block = next(blocks, _END)
                except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a policy raises is its mistake
                    raise watch.failed(hook, "", error) from None
                if block is _END:
                    return
                if not isinstance(block, Block):
                    raise watch.broke(f"{hook}() must yield blocks, not {block!r}")
                key = block.key
                if resident.get(key) is not block:
                    raise watch.broke(f"{hook}() yielded {block}, which is not in the tier")
                if key in seen:
                    raise watch.broke(f"{hook}() yielded {block} twice")
                seen.add(key)
                yield block

        return scan

    missed = policy.miss

    def miss(key: int) -> None:
        watch.call("miss", missed, key, about=key)

    def hears_all(hook: str) -> Callable[[Iterable[Block]], None]:
        """Several blocks at once, where the policy has a hook of its own for that; else one by one."""
        heard, name = hooks[hook], f"{hook}_all"
        if getattr(type(policy), name) is getattr(EvictionPolicy, name):

            def each(blocks: Iterable[Block]) -> None:
                for block in blocks:
                    heard(block)

            return each
        method = getattr(policy, name)

        def heard_all(blocks: Iterable[Block]) -> None:
            listed = list(blocks)
            before = [read(block) for block in listed]
            if hook == "insert":
                resident.update((block.key, block) for block in listed)
            elif hook == "remove":
                for block in listed:
                    resident.pop(block.key, None)
            watch.call(name, method, listed, about=f"{len(listed)} blocks from {listed[0]}" if listed else "none")
            for block, old in zip(listed, before, strict=True):
                if read(block) != old:
                    raise watch.changed(name, block)

        return heard_all

    hooks: dict[str, Callable[..., Any]] = {hook: hears(hook) for hook in ("insert", "touch", "release", "remove")}
    hooks |= {f"{hook}_all": hears_all(hook) for hook in tuple(hooks)}
    return {**hooks, "victims": scans("victims"), "expired": scans("expired"), "miss": miss}
