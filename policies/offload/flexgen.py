"""Weights, KV and activations spread over GPU, host memory and disk: FlexGen."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.lines import Line, constant
from policies.kv_format.int4 import UNPACKING
from policies.offload.host_kv import offloaded
from policies.options import number, rate, switch, whole
from policies.sequence.plan import LayerPlan, LayerView, Move, SequencePolicy, When, Work
from policies.sequence.shapes import GATHER_RATE, context_of

SOURCE = "FlexGen (ICML 2023, arXiv 2303.06865)"
COMPRESSED = 4 / 16 + 2 * 2 / (64 * 2)
"""Bytes of 4-bit weights as a share of 16-bit ones: groups of 64 with a scale and a minimum of 16 bits (section 5)."""


class FlexGen(SequencePolicy):
    """Weights, KV and activations on GPU, host and disk by shares; what is not on the GPU comes layer by layer.

    The block schedule goes through the layers once per step for a whole block of sequences, so the weights of a layer
    are loaded once per step whatever the batch. With `overlap` the next layer's weights and KV come while a layer
    computes, and stores go beside; without, each layer waits for both (InfiniGen runs it so). The shares are those of
    `--percent`: 20 80 0 100 100 0 is weights 0.8, kv 1.0.

    weights, weights_disk   share of the weights that is not on the GPU; and that is on disk, a part of that
    kv, kv_disk             the same of the KV
    activations             share of the activations between layers that is in host memory
    overlap                 loads of the next layer beside this one's kernels
    batches                 GPU batches of a block: buffers of KV shrink, weights are read from HBM once for each
    compress_weights        4 bits in groups of 64 on every device (0.28 of the bytes), unpacked by a kernel of its own
    cpu_attention           attention over the KV that is not on the GPU by the CPU: queries and outputs travel instead
    disk_rate               bytes/s of reads from disk: 2 GB/s (section 6, an NVMe SSD of a T4 instance; recalled)
    host_rate               bytes/s at which the CPU's attention reads KV

    KV in 4 bits is the kv_format `int4`; its sparse attention is `h2o` of retention.

    Source: FlexGen (ICML 2023, arXiv 2303.06865), sections 3 to 5; repository FMInference/FlexGen, flex_opt.py.
    """

    assumptions = ("flexgen: a prompt is computed in one piece, so nothing of it is loaded back meanwhile",)

    def __init__(
        self,
        *,
        weights: float = 0.0,
        weights_disk: float = 0.0,
        kv: float = 1.0,
        kv_disk: float = 0.0,
        activations: float = 0.0,
        overlap: bool = True,
        batches: int = 1,
        compress_weights: bool = False,
        cpu_attention: bool = False,
        disk_rate: float | str = 2e9,
        host_rate: float | str = GATHER_RATE,
    ) -> None:
        self.weights = _shares("weights", weights, weights_disk)
        self.kv = _shares("kv", kv, kv_disk)
        self.activations = number("activations", activations, 0.0, 1.0)
        self.overlap = switch("overlap", overlap)
        self.batches = self.gpu_batches = whole("batches", batches, 1, 10_000)
        self.packed = COMPRESSED if switch("compress_weights", compress_weights) else 1.0
        self.cpu_attention = switch("cpu_attention", cpu_attention)
        self.disk_rate = rate("disk_rate", disk_rate)
        self.host_rate = rate("host_rate", host_rate)
        # of the bytes that the engine's own weights take: packed ones count as they are stored
        self.weights_on_host = 1.0 - self.weights[0] * self.packed

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan."""
        plan = self._with_kv(layer, before)
        if self.kv[2]:  # what is on disk takes no host memory
            held = self.kv[1] / (self.kv[1] + self.kv[2])
            plan = replace(plan, host=before.host + (plan.host - before.host) * held)
        when: When = "ahead" if self.overlap else "critical"
        moves = [*plan.moves]
        for device, share in (("host", self.weights[1]), ("disk", self.weights[2])):
            if share:
                fixed = share * self.packed * layer.weight_bytes
                moves.append(self._load(device, when, Line(), fixed, f"{SOURCE}: weights"))
        hidden = layer.hidden * layer.element_bytes
        if self.activations:
            nbytes = constant(hidden * self.activations)
            stores: When = "async" if self.overlap else "critical"
            moves.append(Move("h2d", nbytes, when=when, source=f"{SOURCE}: activations"))
            moves.append(Move("d2h", nbytes, when=stores, source=f"{SOURCE}: activations"))
        works = self._weight_works(layer)
        return replace(plan, moves=tuple(moves), works=(*plan.works, *works), prompt_works=(*plan.prompt_works, *works))

    def _with_kv(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """KV on host and disk."""
        plan = before
        off = self.kv[1] + self.kv[2]
        if not off:
            return plan
        buffers = (2.0 if self.overlap else 1.0) / self.batches
        plan = offloaded("flexgen", layer, before, off, overlap=self.overlap, buffers=buffers, source=SOURCE)
        load = plan.moves[len(before.moves)]
        others = (*plan.moves[: len(before.moves)], *plan.moves[len(before.moves) + 1 :])
        if self.cpu_attention:
            return self._on_cpu(layer, before, plan, others, buffers)
        loads = [
            self._load(device, load.when, load.nbytes * (share / off), 0.0, SOURCE)
            for device, share in (("host", self.kv[1]), ("disk", self.kv[2]))
            if share
        ]
        return replace(plan, moves=(*others, *loads))

    def _on_cpu(
        self, layer: LayerView, before: LayerPlan, plan: LayerPlan, stores: tuple[Move, ...], buffers: float
    ) -> LayerPlan:
        """Attention over the KV that is not on the GPU by host threads (section 4: `cpu_cache_compute`)."""
        width = layer.head_dim * layer.element_bytes
        stored = self.kv[2] / (self.kv[1] + self.kv[2])
        work = Work("cpu_attention", launches=0, host_seconds=plan.host * (1 / self.host_rate), source=SOURCE)
        if stored:
            read = Work("disk_read", launches=0, host_seconds=plan.host * (stored / self.disk_rate), source=SOURCE)
            plan = plan.plus(works=(read,))
        moves = (
            Move("d2h", constant(layer.heads * width), source=f"{SOURCE}: queries"),
            Move("h2d", constant(layer.heads * width), source=f"{SOURCE}: output"),
        )
        return replace(
            plan.plus(works=(work,)),
            moves=(*stores, *moves),
            extra=before.extra,
            attended=before.attended * self.kv[0],
            # nothing is loaded in decode steps, but a prompt is computed on the GPU
            kept_in_prefill=context_of(layer) * (self.kv[0] + (1.0 - self.kv[0]) * min(1.0, buffers / layer.layers)),
        )

    def _load(self, device: str, when: When, nbytes: Line, fixed: float, source: str) -> Move:
        """Bytes that come from host memory, or first from disk into host memory."""
        copies = Line() if nbytes.zero else constant(2)
        if device == "disk":
            return Move("h2d", nbytes, copies, when, "gather", self.disk_rate, fixed, source=f"{source}, from disk")
        return Move("h2d", nbytes, copies, when, fixed=fixed, source=source)

    def _weight_works(self, layer: LayerView) -> tuple[Work, ...]:
        """HBM traffic of weights beyond one read: reads of further GPU batches, and unpacking."""
        works = []
        if self.batches > 1:
            again = (self.batches - 1) * layer.weight_bytes
            works.append(Work("weights_again", launches=0, fixed=again, source=f"{SOURCE}, Algorithm 1"))
        if self.packed < 1.0:
            unpacked = UNPACKING * self.batches * layer.weight_bytes
            works.append(Work("unpack_weights", fixed=unpacked, launches=6, source=f"{SOURCE}, section 5"))
        return tuple(works)


def _shares(name: str, off: float, disk: float) -> tuple[float, float, float]:
    """Shares on GPU, host and disk from what is not on the GPU and what of that is on disk."""
    number(name, off, 0.0, 1.0)
    number(f"{name}_disk", disk, 0.0, off)
    return 1.0 - off, off - disk, disk
