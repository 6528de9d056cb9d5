"""How much GPU memory is left for KV blocks, as the engine would find out at start-up."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hw_profiles.errors import InputError
from hw_profiles.geometry import LayerSpec
from hw_profiles.models import ModelSpec, Stage
from hw_profiles.profile import Profile
from hw_profiles.units import format_bytes
from sim.cost.experts import Placement
from sim.cost.kv import KVLayout, KVShare, hybrid_layout, kv_layout
from sim.cost.parallel import Parallel

LOGIT_BYTES = 2 + 4
"""Per vocabulary entry and sampled row: the output head's bf16 result and its fp32 copy for sampling."""


@dataclass(frozen=True)
class HBMBudget:
    """Where the memory of one GPU goes (the fullest, where they differ); bytes, except `blocks`."""

    total: int
    usable: int
    """total x gpu_memory_utilization."""
    weights: int
    activations: int
    reserved: int
    """CUDA context, graphs and allocator slack."""
    windows: int
    """KV of sliding layers that is kept apart from the blocks (hybrid cache)."""
    kv: int
    """blocks x block_bytes."""
    blocks: int
    """The engine's, every GPU of the replica has a part of each."""
    block_bytes: int
    """Of one block on this GPU."""


@dataclass(frozen=True)
class Limits:
    """What of the engine bears on its memory."""

    block_tokens: int
    utilization: float
    max_tokens: int
    max_seqs: int
    weights_on_host: float = 0.0
    """Share of the layers' weights that is not in HBM."""
    fixed_bytes: int = 0
    """What policies within a sequence keep on each GPU, whatever the sequences."""
    more_weights: int = 0
    """Bytes on each GPU beside the model's own weights: those of a drafter."""
    rows_per_seq: int = 1
    """Rows of a sequence that a decode step samples."""
    activations: bool = True
    """False: they are in what `utilization` leaves."""
    free_share: float = 1.0
    """Share for KV of what all of this leaves. SOURCE: TensorRT-LLM, free_gpu_memory_fraction of the memory that is
    free once the engine is loaded (cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp, calculateMaxNumBlocks)."""


def hbm_budget(
    model: ModelSpec,
    profile: Profile,
    parallel: Parallel,
    limits: Limits,
    layout: KVLayout | None = None,
    blocks: int | None = None,
) -> HBMBudget:
    """The KV blocks that fit beside weights and activations on every GPU of a replica, all layers whole without layout.

    KV = total x utilization - weights - peak activations - reserved, rounded down to blocks, and the least of all
    ranks: vLLM v1's rule (vllm/v1/worker/gpu_worker.py, determine_available_memory; kv_cache_utils.py), with the
    activation peak by arithmetic instead of a profiling run: the widest moment of the largest step holds an MLP's input
    and output, the residual stream and one hidden copy per token, plus the logits of `max_seqs` rows.
    `blocks` sets the count exactly; then only weights and KV need to fit. Raises InputError when they do not.
    """
    shares = (layout or kv_layout(model, parallel)).shares
    stages = model.stages(parallel.pp)
    ranks = [_rank(model, profile, parallel, stage, s, limits) for stage, s in zip(stages, shares, strict=True)]
    tightest = min(ranks, key=lambda rank: rank.blocks)
    most = tightest.blocks if blocks is None else min((r.total - r.weights) // r.block_bytes for r in ranks)
    chosen = tightest.blocks if blocks is None else blocks
    if not 1 <= chosen <= most:
        left = tightest.usable - tightest.weights - tightest.activations - tightest.reserved
        gpus = f" on {parallel.gpus} GPUs" if parallel.gpus > 1 else ""
        raise InputError(
            f"{model.name} does not fit the HBM of {profile.name}{gpus}: weights {format_bytes(tightest.weights)}, "
            f"activations {format_bytes(tightest.activations)} and {format_bytes(tightest.reserved)} reserved leave "
            f"{format_bytes(max(left, 0))} of {format_bytes(tightest.usable)} usable for KV, and {max(chosen, 1)} "
            f"blocks of {limits.block_tokens} tokens need {format_bytes(max(chosen, 1) * tightest.block_bytes)}",
            path="model",
        )
    return replace(tightest, blocks=chosen, kv=chosen * tightest.block_bytes)


def static_share(hbm_bytes: int, max_tokens: int, largest_graph: int, gpus: int) -> float:
    """Share of a GPU's memory that SGLang takes for weights and KV by default, if the rest is to have room for a step.

    SOURCE: sgl-project/sglang, python/sglang/srt/server_args.py, _handle_gpu_memory_settings, in MiB: 512, 1.5 per
    token of a chunk, 2 per row of the largest graph and 128 per GPU; 10 GiB at least on GPUs of more than 60 GiB.
    """
    total = hbm_bytes / 2**20
    reserved = 512 + 1.5 * max(max_tokens, 2048) + 2 * largest_graph + 128 * gpus
    if total > 60 * 1024:
        reserved = max(reserved, 10 * 1024)
    return round((total - reserved) / total, 3)


def better_layout(model: ModelSpec, profile: Profile, parallel: Parallel, limits: Limits) -> KVLayout:
    """The hybrid layout where the windows of `max_seqs` sequences leave room for more blocks, else all layers whole.

    (An engine's hybrid cache is never worse, since it takes room for windows only as they fill.)
    """
    whole, hybrid = kv_layout(model, parallel), hybrid_layout(model, parallel)
    if hybrid is None:
        return whole

    def blocks(layout: KVLayout) -> int:
        stages = zip(model.stages(parallel.pp), layout.shares, strict=True)
        return min(_rank(model, profile, parallel, stage, share, limits).blocks for stage, share in stages)

    return hybrid if blocks(hybrid) > blocks(whole) else whole


def _rank(
    model: ModelSpec, profile: Profile, parallel: Parallel, stage: Stage, share: KVShare, limits: Limits
) -> HBMBudget:
    """The budget of a GPU of one stage, with as many blocks as fit (0 or fewer: none)."""
    tp, split = parallel.tp, parallel.expert_parallel
    total = profile.hbm_bytes
    usable = int(total * limits.utilization)
    weights = model.weight_bytes_at(tp, expert_parallel=split, stage=stage)
    kinds = model.layer_kinds(tp, expert_parallel=split, stage=stage)
    if split and parallel.placement.redundant:
        weights += sum(count * _copies(layer, tp, parallel.placement) for count, layer in kinds)
    if limits.weights_on_host:
        weights -= round(limits.weights_on_host * sum(count * layer.weight_bytes for count, layer in kinds))
    layers = [layer for _, layer in kinds]
    width = max(mlp_width(layer) for layer in layers) + 2 * model.hidden
    activations = round(limits.max_tokens * width) * model.dtype_bytes
    if not limits.activations:
        activations = 0
    elif stage.samples:
        activations += limits.max_seqs * limits.rows_per_seq * model.vocab * LOGIT_BYTES
    weights += limits.more_weights
    windows = share.window_bytes(limits.block_tokens, limits.max_seqs, limits.max_tokens)
    block_bytes = limits.block_tokens * share.token_bytes
    reserved = profile.reserved_bytes + limits.fixed_bytes
    left = usable - weights - activations - reserved - windows
    fitting = int(limits.free_share * left) // block_bytes
    return HBMBudget(total, usable, weights, activations, reserved, windows, 0, fitting, block_bytes)


def _copies(layer: LayerSpec, tp: int, placement: Placement) -> int:
    """Bytes of copies of experts of a layer on a rank."""
    moe = layer.moe
    return 0 if moe is None else (placement.slots(moe.experts, tp) - moe.local) * layer.weight_bytes_expert


def mlp_width(layer: LayerSpec) -> float:
    """Values per token at the widest moment of a layer's MLP on one rank.

    Dense: what the activation reads and writes. Experts: of the rows of a token here, the larger of first product and
    output (their buffer is shared) and the activation's result. SOURCE: vllm/.../fused_moe/fused_moe.py, caches 1 to 3.
    """
    moe = layer.moe
    if moe is None:
        return layer.mlp.activated
    rows = moe.top_k * moe.local / moe.experts
    return rows * (max(2 * moe.intermediate, layer.hidden) + moe.intermediate) + 3 * moe.shared
