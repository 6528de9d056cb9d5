"""All models resident, several on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from policies.fleet.prewarm import Group, Placed, PoolView, Sharing
from policies.options import number


class GpuSharing(Sharing):
    """One instance of every model, then more of those that most requests are for, while weights leave room for KV.

    weights   share of a GPU's memory that weights may take

    Each instance goes to the group of GPUs with the most memory left; the one after that to the model with the most
    load per GPU that it has, load being its share of the requests times its weights. Each has a fixed part of its GPUs'
    arithmetic, bandwidth and memory for KV (see docs/fleet.md).
    Source: in the manner of MuxServe (arXiv 2404.02015: colocation by popularity, a part of the SMs each through MPS),
    whose placement is an optimiser of its own; WarmServe's baseline scales the parts to 100 %, as here
    (LLMServe/WarmServe, prewarm_manager.py).
    """

    def __init__(self, *, weights: float = 0.7) -> None:
        self._weights = number("weights", weights, 0, 1, above=True)

    def place(self, view: PoolView) -> Sequence[Placed]:
        limit = [self._weights * gpu.free for gpu in view.gpus]
        free = [float(gpu.free) for gpu in view.gpus]
        found: list[Placed] = []

        def put(model: int, *, whole: bool) -> bool:
            group = _roomiest(view, model, free, found, limit if not whole else None)
            if group is None:
                return False
            found.append(Placed(model, group))
            for gpu in group:
                free[gpu] -= view.models[model].shard_bytes
            return True

        for model in sorted(view.models, key=lambda m: -m.shard_bytes):
            put(model.index, whole=True)
        open_to = {p.model for p in found}
        while open_to:
            model_of = max(open_to, key=lambda m: (_load(view, m) / sum(p.model == m for p in found), -m))
            if not put(model_of, whole=False):
                open_to.remove(model_of)
        return found


def _load(view: PoolView, model: int) -> float:
    return view.models[model].share * view.models[model].shard_bytes


def _roomiest(
    view: PoolView, model: int, free: list[float], found: list[Placed], limit: list[float] | None
) -> Group | None:
    info = view.models[model]
    best: tuple[float, Group] | None = None
    for group in view.groups(info.gpus):
        if any(p.model == model and set(p.group) & set(group) for p in found):
            continue
        left = min(free[gpu] for gpu in group) - info.shard_bytes
        floor = 0.0 if limit is None else max(view.gpus[gpu].free - limit[gpu] for gpu in group)
        if left > floor and (best is None or left > best[0]):
            best = left, group
    return None if best is None else best[1]
