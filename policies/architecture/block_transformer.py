"""Block Transformer: lower layers see blocks of tokens as one, upper ones the tokens of a block alone."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.cadence import Cadence
from hw_profiles.errors import InputError
from hw_profiles.model_spec import ModelSpec
from policies.architecture.base import Architecture, heads_of, layers_of, with_layers
from policies.options import whole


class BlockTransformer(Architecture):
    """The lower half (block decoder) runs once for `block` tokens and keeps one entry for them; the upper half (token
    decoder) attends its own block and a prefix of `prefix` values only, and never sees the prompt.

    KV of a sequence of n tokens: L/2 layers of n / block entries, and L/2 of block + prefix, which are freed with the
    block. A block's embedding is the tokens' (of width hidden / block), side by side; the token decoder has embeddings
    of its own, and expands the block's output to its prefix (one product per block, which is counted as weights but not
    timed: 2 % of the work of the smallest model). At the start of a block it also computes the prefix, so on average
    (block + prefix - 1) / block rows per token. All sequences are taken to start blocks in the same step, as in the
    authors' static batches; times are means over a block.
    SOURCE: Ho et al., Block Transformer (arXiv 2406.02657) sections 2 and 3, table 1; itsnamgyu/block-transformer
    model/block_transformer.py (generate), model/embedder/lookup.py, model/token_decoder/base.py,
    conf/trainer/block_main_b4_*.yaml (block 4, expansion_ratio 2, as many layers in both decoders).
    """

    def __init__(self, block: int = 4, prefix: int = 2, block_layers: int | None = None) -> None:
        self.block = whole("block", block, 2, 1024)
        self.prefix = whole("prefix", prefix, 1, 1024)
        self.block_layers = None if block_layers is None else whole("block_layers", block_layers, 1, 1 << 16)

    def apply(self, model: ModelSpec) -> ModelSpec:
        """As Architecture.apply."""
        lower = model.layers // 2 if self.block_layers is None else self.block_layers
        if not 1 <= lower < model.layers:
            raise InputError("", path="block_layers", found=lower, allowed=f"1 to {model.layers - 1}")
        if model.hidden % self.block:
            allowed = f"a divisor of {model.hidden} (hidden width of {model.name})"
            raise InputError("", path="block", found=self.block, allowed=allowed)
        once = Cadence(period=self.block)
        local = Cadence(skips_prompt=True, rows=(self.block + self.prefix - 1) / self.block)
        found = [heads_of(layer, model, "block_transformer") for layer in layers_of(model)]
        if any(attention.window is not None for attention in found):
            raise InputError(f"block_transformer is not defined for {model.name}, whose layers slide", path="model")
        made = []
        for i, (layer, attention) in enumerate(zip(layers_of(model), found, strict=True)):
            if i < lower:
                made.append(replace(layer, cadence=once))
            else:
                window = self.block + self.prefix
                made.append(replace(layer, attention=replace(attention, window=window), cadence=local))
        embedder = model.vocab * (model.hidden // self.block)
        expansion = self.prefix * model.hidden * (model.hidden + 1)
        last_norm = model.hidden * (2 if model.specs[0].norm_bias else 1)
        note = (
            f"{model.name} is split into a block decoder of {lower} layers, which runs once for {self.block} tokens, "
            f"in the same step for all sequences, and a token decoder of {model.layers - lower}, which starts anew "
            "with every block and never sees the prompt; times are means over a block"
        )
        changed = with_layers(model, made, f"block{self.block}")
        further = model.further_values + embedder + expansion + last_norm
        return replace(changed, further_values=further, notes=(*model.notes, note))
