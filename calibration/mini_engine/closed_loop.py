"""The simulator on its own: it runs the same trace under the same policies, and is compared with what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibration.mini_engine.engine import Log
from calibration.mini_engine.scheduler import Scheduler
from sim.scenario import Scenario

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What a run comes to. Times in seconds; hit: share of prompt tokens by tier; moved: pages by direction."""

    ttft_p50: float
    ttft_p99: float
    tpot_p50: float
    tpot_p99: float
    duration: float
    hit: dict[str, float]
    moved: dict[str, int]
    evicted: dict[str, int]


def measured(log: Log, scheduler: Scheduler) -> Outcome:
    """Of a run of the mini engine."""
    prompt = sum(sequence.request.input_tokens for sequence in log.sequences)
    stores = [store for store in (scheduler.hbm, scheduler.host) if store is not None]
    hit = {store.name: sum(s.hit_tokens.get(store.name, 0) for s in log.sequences) / prompt for store in stores}
    host = scheduler.host
    moved = {} if host is None else {"h2d": host.counters.loaded_pages, "d2h": host.counters.stored_pages}
    ttft, tpot = np.array(log.ttft()), np.array(log.tpot())
    end = max(sequence.finish_s for sequence in log.sequences)
    evicted = {store.name: store.counters.evicted_blocks for store in stores}
    return Outcome(*_quantiles(ttft), *_quantiles(tpot), end, hit, moved, evicted)


def simulated(scenario: Scenario, page_bytes: int) -> Outcome:
    """Of a run of the simulator."""
    result = scenario.run()
    requests, summary = result.frames["requests"], result.summary
    tiers, prompt = summary["tiers"], float(requests["input_tokens"].sum())
    hit = {name: float(requests[f"hit_{name}_tokens"].sum()) / prompt for name in tiers}
    moved = {}
    if len(tiers) > 1:
        moved = {name: int(summary["links"][f"pcie_{name}"]["bytes"]) // page_bytes for name in ("h2d", "d2h")}
    ttft = requests["ttft_s"].to_numpy(dtype=np.float64)
    tpot = requests["tpot_s"].to_numpy(dtype=np.float64)
    end = float(requests["finish_s"].max())
    evicted = {name: int(tier["evicted_blocks"]) for name, tier in tiers.items()}
    return Outcome(*_quantiles(ttft), *_quantiles(tpot[~np.isnan(tpot)]), end, hit, moved, evicted)


def without_contention(scenario: Scenario, folder: Path) -> Scenario:
    """The scenario on a machine whose copies cost nothing but their own time."""
    from hw_profiles.yaml_io import dump_yaml, load_yaml

    document = load_yaml(Path(scenario.spec.hardware.profile))
    document.pop("interference", None)
    document.pop("caps", None)
    path = folder / "no-contention.yaml"
    path.write_text(dump_yaml(document), encoding="utf-8")
    return scenario.set("hardware.profile", str(path))


def _quantiles(values: Floats) -> tuple[float, float]:
    return float(np.median(values)), float(np.quantile(values, 0.99))
