"""KV (and weights) under unified virtual memory: pages migrate when they are touched."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.lines import Line
from policies.offload.host_kv import offloaded
from policies.options import number, rate, switch
from policies.sequence.plan import LayerPlan, LayerView, Move, SequencePolicy

SOURCE = "InfiniGen (OSDI 2024), Fig. 14, baseline UVM"


class UVM(SequencePolicy):
    """CUDA unified memory that is over-subscribed: every step faults in what the one before pushed out.

    Layers are touched in turn, so a least-recently-used order has always just evicted what comes next: a step migrates
    all KV of the sequences (x share) and, with `weights`, all weights in by faults, at `rate`. Kernels wait for these.
    As much KV goes out beside them, at the same rate (weights have not changed and are dropped). Retention before it
    (H2O) shrinks what migrates.

    share    of the KV that migrates each step: 1 where the memory is over-subscribed at all; 0 where everything fits
    weights  whether the weights migrate too
    rate     bytes/s of migration by faults: 1 GB/s, assumed (faults of 4 to 64 KiB; no published measurement of this
             setting). Where it is chosen to meet a figure, that figure is calibrated

    Source: baselines "UVM" and "UVM + H2O" of InfiniGen (OSDI 2024), section 6, repository speedup/uvm.
    """

    assumptions = ("uvm: every step all pages migrate, by faults at 1 GB/s unless `rate` says otherwise (assumed)",)

    def __init__(self, *, share: float = 1.0, weights: bool = True, rate: float | str = 1e9) -> None:
        self.share = number("share", share, 0.0, 1.0)
        self.weights = switch("weights", weights)
        self.rate = _rate(rate)
        self.weights_on_host = 1.0 if weights and share else 0.0

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan."""
        if not self.share:
            return before
        plan = offloaded(
            "uvm",
            layer,
            before,
            self.share,
            overlap=False,
            via="fault",
            limit=self.rate,
            buffers=1.0,
            source=SOURCE,
        )
        faults = plan.moves[len(before.moves)]
        moves = [faults, replace(faults, direction="d2h", when="async", source=f"{SOURCE}: pushed out")]
        if self.weights:
            weights = layer.weight_bytes
            moves.append(Move("h2d", Line(), Line(), "critical", "fault", self.rate, weights, source=SOURCE))
        return replace(plan, moves=(*before.moves, *moves))


def _rate(value: float | str) -> float:
    return rate("rate", value)
