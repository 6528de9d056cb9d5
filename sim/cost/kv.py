"""What a token leaves on the GPUs of a replica, and which of it the engine's blocks count."""

from __future__ import annotations

from dataclasses import dataclass

from hw_profiles.attention import MLA
from hw_profiles.models import ModelSpec, Stage
from sim.cost.parallel import Parallel


@dataclass(frozen=True)
class KVShare:
    """The KV of one pipeline stage on each of its ranks.

    token_bytes: that blocks count, per token, of `layers` layers. windows: (window, bytes per token) of sliding layers
    that are kept apart. scratch: bytes of a decoding sequence that are kept apart whatever its length.
    """

    token_bytes: int
    layers: int
    windows: tuple[tuple[int, int], ...] = ()
    scratch: int = 0

    def window_bytes(self, block_tokens: int, max_seqs: int, max_tokens: int) -> int:
        """Room for what is kept apart: blocks that a window of `max_seqs` sequences can touch, and a step's new tokens.

        SOURCE: vllm/v1/core/single_type_kv_cache_manager.py (blocks outside of the window are freed, one more than
        fit in it can be touched) and kv_cache_interface.py (SlidingWindowSpec.max_memory_usage_bytes).
        """
        return max_seqs * self.scratch + sum(
            (max_seqs * (-(-window // block_tokens) + 1) * block_tokens + max_tokens) * nbytes
            for window, nbytes in self.windows
        )


@dataclass(frozen=True)
class KVLayout:
    """The KV of a replica: `tp` ranks of each of the stages in `shares`. tensors: of a layer, keys and values, or 1."""

    tp: int
    shares: tuple[KVShare, ...]
    tensors: int

    @property
    def layers(self) -> int:
        """Layers on a GPU that blocks count, the most of any."""
        return max(share.layers for share in self.shares)

    @property
    def token_bytes(self) -> int:
        """Bytes of one token that blocks count, on all GPUs together: repeated KV heads and latents count each time."""
        return self.tp * sum(share.token_bytes for share in self.shares)

    @property
    def lanes(self) -> float:
        """How many links a replica's copies go over at once: each GPU copies its own part over its own link.

        The copy is over when the GPU with the largest part has it, so uneven stages count as fewer.
        """
        return self.token_bytes / max(share.token_bytes for share in self.shares)


def kv_layout(model: ModelSpec, parallel: Parallel) -> KVLayout:
    """Every layer keeps all tokens."""
    tp, stages = parallel.tp, model.stages(parallel.pp)
    shares = (
        KVShare(
            model.kv_bytes_per_token_at(tp, stage=s),
            model.stored_layers(s),
            scratch=model.scratch_bytes_at(tp, stage=s),
        )
        for s in stages
    )
    return KVLayout(tp, tuple(shares), _tensors(model))


def hybrid_layout(model: ModelSpec, parallel: Parallel) -> KVLayout | None:
    """Layers that slide keep their windows apart, blocks count the others; None unless every stage has both kinds."""
    shares = [_hybrid(model, parallel.tp, stage) for stage in model.stages(parallel.pp)]
    if any(not (share.token_bytes and share.windows) for share in shares):
        return None
    return KVLayout(parallel.tp, tuple(shares), _tensors(model))


def _hybrid(model: ModelSpec, tp: int, stage: Stage) -> KVShare:
    groups = dict(model.kv_groups(tp, stage=stage))
    kinds = model.layer_kinds(stage=stage)
    layers = sum(count for count, layer in kinds if layer.window is None and layer.stores)
    windows = tuple((window, n) for window, n in groups.items() if window)
    return KVShare(groups.get(None, 0), layers, windows, model.scratch_bytes_at(tp, stage=stage))


def _tensors(model: ModelSpec) -> int:
    return 1 if isinstance(model.specs[0].attention, MLA) else 2
