"""Serving frameworks as parameters: how they hold KV, batch, launch and wait.

Headlines of many papers are measured on frameworks that are not vLLM, and depend on that: a cache that is concatenated
in every step takes twice its memory and three times its traffic, whatever the paper's own idea is. Each row of
FRAMEWORKS says what differs, and where that was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from hw_profiles.errors import InputError
from hw_profiles.lines import Line, constant
from hw_profiles.models import ModelSpec
from hw_profiles.profile import Profile
from policies.sequence.plan import PLAIN, LayerPlan, Work
from policies.sequence.scores import ACTIVATION_BYTES, SQUARE
from sim.cost.kv import KVLayout, kv_layout
from sim.cost.memory import LOGIT_BYTES, Limits, hbm_budget, mlp_width
from sim.cost.parallel import Parallel
from sim.engine.footprint import Footprint, PlannedMemory, WholePrompts

FrameworkName = Literal["vllm_paged", "hf_concat", "flexgen_sync", "flexgen_overlap", "static_graph"]

ANY_LENGTH = 1 << 30
"""`engine.max_num_batched_tokens` of frameworks that run prompts whole, whatever their length."""


@dataclass(frozen=True)
class Framework:
    """What of a framework bears on memory and time.

    kv_copies           memory of the KV while decoding, as a multiple of the KV
    concat              each decode step reads and writes the KV that is kept once more, to append a token to it
    paged               KV in blocks that are allocated as they fill; False: a contiguous row per sequence, reserved for
                        all of its prompt and output
    whole_prompts       no chunked prefill: the prompts of a batch run in one step, and their activations are what
                        they are instead of a fixed part of HBM
    static              static batches (sim.engine.static)
    graphs              decode steps can replay CUDA graphs
    reserved            with rows: the cache of a sequence is there before its prompt runs; False: it grows
    prompt_logit_bytes  per vocabulary entry and token of a prompt: logits of tokens that are not sampled
    score_passes        times that a score of a prompt's attention crosses HBM, where that is not fused: all S x S of
                        them, two bytes each; 0: it is
    score_copies        of them that are in memory at a time
    attention_rate      bandwidth of its own decode attention, over tokens in the engine's format, as a share of that of
                        the profile's kernel
    launches_per_layer  kernels that the host launches per layer, where elementwise operations are not fused; None:
                        those of the model (sim.cost.layer)
    sync_s              per layer and step: the host waits for the GPU, s
    overlap             a layer's loads may start when the layer before does; False: when the layer itself does
    slots               rows are as long as `engine.slot_tokens`, and every decode step runs all `max_num_seqs` of them
    """

    about: str
    source: str
    kv_copies: float = 1.0
    concat: bool = False
    paged: bool = True
    whole_prompts: bool = False
    static: bool = False
    graphs: bool = True
    reserved: bool = False
    prompt_logit_bytes: int = 0
    score_passes: int = 0
    score_copies: int = 0
    attention_rate: float = 1.0
    launches_per_layer: int | None = None
    sync_s: float = 0.0
    overlap: bool = True
    slots: bool = False

    @property
    def plans(self) -> bool:
        """True if it changes what layers run, whatever the policies."""
        return self.concat or self.score_passes > 0 or self.attention_rate != 1.0

    def defaults(self) -> Mapping[str, Any]:
        """What of `engine:` follows from the framework, and can be nothing else where `needs` says so."""
        found: dict[str, Any] = {}
        if self.static:
            found["scheduling"] = "static"
        if not self.graphs:
            found["graphs"] = False
        if not self.paged:
            found |= {"prefix_caching": False, "hybrid_kv_cache": False, "block_tokens": 1}
        if self.whole_prompts:
            found |= {"max_num_batched_tokens": ANY_LENGTH, "gpu_memory_utilization": 1.0}
        return found

    def needs(self) -> Mapping[str, Any]:
        """Those of the defaults that nothing else can be set for."""
        free = ("block_tokens", "gpu_memory_utilization")
        return {key: value for key, value in self.defaults().items() if key not in free}


_FLEXGEN_SOURCE = (
    "FMInference/FlexGen: pytorch_backend.py (init_cache_one_gpu_batch: prompt + output - 1 tokens; opt_output_embed: "
    "logits of every token, fp16; mha: bmm, where, softmax, bmm over S x S scores, fp16: written, read and written by "
    "the mask, read and written by the softmax, read; two of them alive), flex_opt.py (generation_loop_normal: "
    "overlap=False; generation_loop_overlap_single_batch: loads of layer j + 1 beside layer j, sync() per layer)"
)
_FLEXGEN_LAUNCHES = 20
"""Of an OPT layer as FlexGen runs it, counted in mha_gen and mlp: norm, q, k, v, two cache writes, two transposes,
product, mask (compare, where), softmax, product, transpose, output, residual; norm, two products, activation,
residual."""

EAGER_ATTENTION = 0.5
"""Calibrated on LCKV's Table 1 (arXiv 2405.10637), Llama-7B on an A100, 2048 + 2048 tokens: steps of 304 ms with 128
sequences and 3 layers with a cache, and of 133 ms with 42 and 11, less weights and copies, leave 0.52 and 0.48 of the
rate for two products, mask and softmax as kernels of their own."""
FLEXGEN_ATTENTION = 0.7
"""Calibrated on H2O's logs with the full cache (FMInference/H2O, a100_80): decode steps of 46.4 ms (OPT-6.7B, 24
sequences) and 41.8 ms (13B, 4), less weights, leave 0.69 and 0.68 of the rate."""

_FLEXGEN = Framework(
    "FlexGen with overlap: loads of the next layer run beside this one",
    _FLEXGEN_SOURCE,
    paged=False,
    whole_prompts=True,
    static=True,
    graphs=False,
    reserved=True,
    prompt_logit_bytes=2,
    score_passes=6,
    score_copies=2,
    attention_rate=FLEXGEN_ATTENTION,
    launches_per_layer=_FLEXGEN_LAUNCHES,
    sync_s=50e-6,
)

FRAMEWORKS: Mapping[FrameworkName, Framework] = {
    "vllm_paged": Framework("paged blocks, continuous batching, chunked prefill, CUDA graphs", "vllm v1"),
    "hf_concat": Framework(
        "transformers in eager mode: a cache that torch.cat extends in every step, static batches",
        "transformers: DynamicCache.update (torch.cat of all keys and values per layer and step), "
        "LlamaForCausalLM.forward before 4.45 (logits of all tokens in bf16 and fp32). The factor 2 of memory predicts "
        "the largest batches of LCKV's Table 1 (arXiv 2405.10637); 48 kernels per layer are counted in "
        "modeling_llama.py 4.36 with eager attention: two norms of 8, 7 matrix products, 12 of the rotary embedding, "
        "2 concatenations, 7 of attention, 2 of the activation, 2 residuals",
        kv_copies=2.0,
        concat=True,
        paged=False,
        whole_prompts=True,
        static=True,
        graphs=False,
        prompt_logit_bytes=LOGIT_BYTES,
        attention_rate=EAGER_ATTENTION,
        launches_per_layer=48,
    ),
    "flexgen_sync": replace(
        _FLEXGEN,
        about="FlexGen without overlap: a layer's loads, its kernels and its stores follow each other",
        overlap=False,
    ),
    "flexgen_overlap": _FLEXGEN,
    "static_graph": Framework(
        "a compiled graph over a fixed number of slots of fixed length, taken and left by requests as they come",
        "SnapStream (arXiv 2511.03092: static graphs, continuous batching); transformers StaticCache (max_cache_len)",
        paged=False,
        slots=True,
    ),
}
"""By name. sync_s of FlexGen is an estimate: torch.cuda.synchronize after attention and after the MLP of each layer,
some 25 us each until the GPU has work again (a launch from Python, EAGER_LAUNCH_S)."""


def framework_plan(framework: Framework, layer: LayerPlan, token_bytes: float, heads: int = 0) -> LayerPlan:
    """The plan of a layer as the framework runs it.

    token_bytes: KV of a plain token in this layer, all ranks. heads: of the queries of a layer whose prompts attend
    themselves; 0: they do not. A policy that needs scores has them written where they are written anyway.
    """
    if framework.score_passes and heads:
        square = SQUARE * framework.score_passes * ACTIVATION_BYTES * heads
        layer = replace(layer, pair_bytes=max(layer.pair_bytes, square), prefill_flops=max(layer.prefill_flops, SQUARE))
    if framework.attention_rate != 1.0 and layer.form == PLAIN:  # formats bring kernels of their own
        layer = replace(layer, form=replace(PLAIN, rate=framework.attention_rate))
    if not framework.overlap:
        moves = [replace(m, when="critical") if m.when == "ahead" else m for m in layer.moves]
        prompt = [replace(m, when="critical") if m.when == "ahead" else m for m in layer.prompt_moves]
        layer = replace(layer, moves=tuple(moves), prompt_moves=tuple(prompt))
    if framework.concat and token_bytes:  # not where a layer reads the cache of another
        copied = layer.form.of(layer.kept) * (2 * token_bytes)
        source = "torch.cat: what is kept is read and written once more, keys and values"
        layer = layer.plus(works=[Work("concat", nbytes=copied, launches=2, source=source)])
    return layer


def framework_limits(framework: Framework, limits: Limits) -> Limits:
    """What is set aside before there are sequences: nothing where prompts run whole, and bring their activations."""
    return replace(limits, max_tokens=0, max_seqs=0) if framework.whole_prompts else limits


def framework_footprint(
    framework: Framework,
    model: ModelSpec,
    parallel: Parallel,
    layout: KVLayout,
    planned: Footprint | None = None,
    *,
    static: bool = False,
    slot_tokens: int | None = None,
    parts: int = 1,
) -> Footprint | None:
    """What a sequence holds in this framework; None if that is one block per so many tokens, as they come.

    planned: what its plan keeps. static: the scheduler forms static batches, whatever the framework. parts: the rows of
    a step run in as many groups, one after the other, and activations are those of one.
    """
    at_once = static or not framework.paged
    if not at_once:
        return planned
    found = planned or Footprint()
    decoding, whole = found.decoding * framework.kv_copies, None
    if framework.whole_prompts:
        row, whole = _activations(framework, model, parallel, layout, found.decoding, parts)
        decoding = decoding + constant(row)
    return replace(found, decoding=decoding, at_once=True, slot_tokens=slot_tokens, whole=whole)


def _activations(
    framework: Framework, model: ModelSpec, parallel: Parallel, layout: KVLayout, kept: Line, parts: int
) -> tuple[float, WholePrompts]:
    """What activations take of a decoding sequence, in tokens' worth of KV, and of a prompt; on the fullest rank.

    As in `sim.cost.memory`: the residual stream and a hidden copy, and the widest moment of an MLP; or logits; or,
    while a layer attends, queries, keys, values and scores. Prompts take as many rows of them as layers have that see
    them, and logits only if the last layer does; what a sequence keeps whatever its length counts as its activations.
    """
    seeing, head = model.prompt_rows, not model.specs[model.pattern[-1]].cadence.skips_prompt
    stream, bare = 2 * model.hidden * model.dtype_bytes, model.hidden + 2 * model.kv_heads * model.head_dim
    prompts, attention, pairs, rows = [], [], [], []
    for stage, share in zip(model.stages(parallel.pp), layout.shares, strict=True):
        kinds = model.layer_kinds(parallel.tp, expert_parallel=parallel.expert_parallel, stage=stage)
        mlp = max(mlp_width(layer) for _, layer in kinds) * model.dtype_bytes
        logits = model.vocab if stage.samples else 0
        sampled = head * (stream + logits * framework.prompt_logit_bytes)
        prompts.append(max(seeing * (stream + mlp), sampled) / share.token_bytes)
        attention.append(seeing * (stream + bare * model.dtype_bytes / parallel.tp) / share.token_bytes)
        scores = framework.score_copies * ACTIVATION_BYTES * -(-model.heads // parallel.tp)
        pairs.append(seeing * scores / share.token_bytes)
        rows.append((stream + mlp + logits * LOGIT_BYTES + framework.kv_copies * share.scratch) / share.token_bytes)
    widest = max(prompts) / parts, max(attention) / parts, max(pairs) / parts
    return max(rows), WholePrompts(kept, model.layers, *widest, framework.reserved)


def max_batch(
    model: ModelSpec,
    profile: Profile,
    prompt: int,
    output: int,
    *,
    framework: FrameworkName = "vllm_paged",
    parallel: Parallel | None = None,
    planned: Footprint | None = None,
    limits: Limits | None = None,
    slot_tokens: int | None = None,
) -> float:
    """Sequences of `prompt` + `output` tokens whose memory fits a replica at once, all at their final length.

    The quotient: an engine runs the whole number below it. The same formulas as the engine's: HBM less weights and what
    is reserved, over what a sequence holds. planned: what a plan keeps. limits: by default the framework's (`engine:`).
    Raises InputError when not one fits.
    """
    parallel, chosen = parallel or Parallel(), FRAMEWORKS[framework]
    settings = chosen.defaults()
    own = Limits(settings.get("block_tokens", 16), settings.get("gpu_memory_utilization", 0.9), 8192, 256)
    limits = framework_limits(chosen, limits or own)
    layout = kv_layout(model, parallel)
    footprint = framework_footprint(chosen, model, parallel, layout, planned, slot_tokens=slot_tokens) or Footprint()
    blocks = hbm_budget(model, profile, parallel, limits, layout).blocks
    need = PlannedMemory(footprint, limits.block_tokens).whole_blocks(prompt, prompt + output - 1)
    if need > blocks:
        problem = f"{prompt} + {output} tokens need {need} blocks of KV, and {profile.name} has room for {blocks}"
        raise InputError(problem, path="model")
    return blocks / need
