"""WarmServe: weights of the models that a forecast wants, on GPUs that are idle or have KV memory to lend."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp

from policies.fleet.forecast import Forecast
from policies.fleet.prewarm import Group, Placed, PoolView, Prewarm
from policies.options import seconds, switch, whole


class WarmServe(Prewarm):
    """Loads the instances that the next window's load will need beyond those that serve, the most urgent first.

    window, period  of the forecast of a model's mean and most requests in the system
    requests        requests of an instance
    lend            weights may lie in memory for KV that running instances do not use now

    ceil(mean / requests) instances are the foundation and those up to ceil(peak / requests) the burst. The i-th of n
    scores exp(-i / n) x its load time, times peak / mean if it is one of the burst. Groups of GPUs are nested, and of
    those with room it takes the one with the fewest running GPUs and, of these, the least worth of weights that a start
    would throw out.
    Source: arXiv 2512.09472 and LLMServe/WarmServe, vllm/entrypoints/controller/scheduler.py (windows of 300 s, ten
    recent errors, 32 requests). Ours: the past is learnt; what scores nothing gives way to what finds no room.
    """

    warm = True

    def __init__(
        self,
        *,
        window: float | str = "300 s",
        period: float | str = "24 h",
        requests: int = 32,
        lend: bool = True,
    ) -> None:
        self.window_s = seconds("window", window, above=True)
        self._windows = max(1, round(seconds("period", period, above=True) / self.window_s))
        self._requests = whole("requests", requests, 1, 1_000_000)
        self.lends = switch("lend", lend)
        self._means: dict[int, Forecast] = {}
        self._peaks: dict[int, Forecast] = {}

    def observe(self, model: int, mean: float, peak: float) -> None:
        self._means.setdefault(model, Forecast(self._windows)).add(mean)
        self._peaks.setdefault(model, Forecast(self._windows)).add(peak)

    def plan(self, view: PoolView) -> Sequence[Placed]:
        scores = self._scores(view)
        held = _worth(view, scores)
        wanted = sorted(
            (-score, model, place)
            for model, each in enumerate(scores)
            for place, score in enumerate(each)
            if place >= sum(p.model == model for p in view.prewarmed)
        )
        free = [gpu.free for gpu in view.gpus]
        found: list[Placed] = []
        for score, model, _ in wanted:
            group = self._group(view, model, free, held)
            if group is None:
                continue
            found.append(Placed(model, group))
            held[found[-1]] = -score
            for gpu in group:
                free[gpu] -= view.models[model].shard_bytes
        return found

    def drop(self, view: PoolView) -> Sequence[Placed]:
        """What scores nothing, if something that scores found no room."""
        scores = self._scores(view)
        here = [sum(p.model == model for p in view.prewarmed) for model in range(len(scores))]
        wanted = sum(max(0, len(each) - n) for each, n in zip(scores, here, strict=True))
        if len(self.plan(view)) >= wanted:
            return ()
        return [placed for placed, worth in _worth(view, scores).items() if not worth]

    def _scores(self, view: PoolView) -> list[list[float]]:
        """Of every instance that a model is to have prewarmed, the foundation first."""
        found: list[list[float]] = []
        for model, serving in zip(view.models, view.instances, strict=True):
            if model.index not in self._means:
                found.append([])
                continue
            mean, peak = self._means[model.index].ahead(), self._peaks[model.index].ahead()
            foundation = max(0, ceil(mean / self._requests) - serving)
            burst = max(0, ceil(peak / self._requests) - serving - foundation)
            count = foundation + burst
            bursty = peak / mean if mean > 0 else 1.0
            found.append([exp(-i / count) * model.load_s * (bursty if i >= foundation else 1.0) for i in range(count)])
        return found

    def _group(self, view: PoolView, model: int, free: list[int], held: dict[Placed, float]) -> Group | None:
        info = view.models[model]
        best: tuple[tuple[float, ...], Group] | None = None
        for group in view.groups(info.gpus):
            over = [(p, worth) for p, worth in held.items() if set(p.group) & set(group)]
            if any(p.model == model for p, _ in over) or any(free[gpu] < info.shard_bytes for gpu in group):
                continue
            if any(view.gpus[gpu].serving == model for gpu in group):
                continue
            running = sum(view.gpus[gpu].serving is not None for gpu in group)
            worth = [value for _, value in over]
            key = (float(running), max(worth, default=0.0), sum(worth), float(group[0]))
            if best is None or key < best[0]:
                best = key, group
        return None if best is None else best[1]


def _worth(view: PoolView, scores: list[list[float]]) -> dict[Placed, float]:
    """What is prewarmed, with its score: 0 for what is more than is wanted."""
    seen = [0] * len(view.models)
    found = {}
    for placed in view.prewarmed:
        each = scores[placed.model]
        found[placed] = each[seen[placed.model]] if seen[placed.model] < len(each) else 0.0
        seen[placed.model] += 1
    return found
