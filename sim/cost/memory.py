"""How much GPU memory is left for KV blocks, as the engine would find out at start-up."""

from __future__ import annotations

from dataclasses import dataclass

from hw_profiles.errors import InputError
from hw_profiles.models import ModelSpec
from hw_profiles.profile import Profile
from hw_profiles.units import format_bytes

LOGIT_BYTES = 2 + 4
"""Per vocabulary entry and sampled row: the output head's bf16 result and its fp32 copy for sampling."""


@dataclass(frozen=True)
class HBMBudget:
    """Where the memory of one GPU goes; bytes, except `blocks`."""

    total: int
    usable: int
    """total x gpu_memory_utilization."""
    weights: int
    activations: int
    reserved: int
    """CUDA context, graphs and allocator slack."""
    kv: int
    """blocks x block_bytes."""
    blocks: int
    block_bytes: int


def hbm_budget(
    model: ModelSpec,
    profile: Profile,
    *,
    block_tokens: int,
    utilization: float,
    max_tokens: int,
    max_seqs: int,
    blocks: int | None = None,
) -> HBMBudget:
    """The KV blocks of `block_tokens` tokens that fit beside weights and activations on one GPU.

    KV = total x utilization - weights - peak activations - reserved, rounded down to blocks: vLLM v1's rule
    (vllm/v1/worker/gpu_worker.py, determine_available_memory), with the activation peak by arithmetic instead of a
    profiling run: the widest moment of the largest step holds the gated MLP's input (2 x intermediate) and output
    (intermediate), the residual stream and one hidden copy per token, plus the logits of `max_seqs` rows.
    `blocks` sets the count exactly; then only weights and KV need to fit. Raises InputError when they do not.
    """
    total = profile.hbm_bytes
    usable = int(total * utilization)
    width = model.dtype_bytes
    activations = max_tokens * (3 * model.intermediate + 2 * model.hidden) * width
    activations += max_seqs * model.vocab * LOGIT_BYTES
    block_bytes = block_tokens * model.kv_bytes_per_token
    left = usable - model.weight_bytes - activations - profile.reserved_bytes
    fitting = left // block_bytes
    most = fitting if blocks is None else (total - model.weight_bytes) // block_bytes
    if blocks is None:
        blocks = fitting
    if not 1 <= blocks <= most:
        raise InputError(
            f"{model.name} does not fit the HBM of {profile.name}: weights {format_bytes(model.weight_bytes)}, "
            f"activations {format_bytes(activations)} and {format_bytes(profile.reserved_bytes)} reserved leave "
            f"{format_bytes(max(left, 0))} of {format_bytes(usable)} usable for KV, "
            f"and {max(blocks, 1)} blocks of {block_tokens} tokens need {format_bytes(max(blocks, 1) * block_bytes)}",
            path="model",
        )
    return HBMBudget(
        total=total,
        usable=usable,
        weights=model.weight_bytes,
        activations=activations,
        reserved=profile.reserved_bytes,
        kv=blocks * block_bytes,
        blocks=blocks,
        block_bytes=block_bytes,
    )
