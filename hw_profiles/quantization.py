"""Number formats of a checkpoint, from the `quantization_config` of its config.json.

SOURCE of the schemas: transformers, utils/quantization_config.py; vllm/model_executor/layers/quantization/ (fp8, awq,
gptq, mxfp4, modelopt, compressed_tensors). As there, embeddings, output head, norms and routers stay unquantised.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.formats import FP8_BLOCK, KV_FORMATS, WEIGHT_FORMATS, Format

NEVER_QUANTISED = frozenset({"router", "shared_gate"})

_MODULES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.qkv_proj"),
        "o": ("self_attn.o_proj", "self_attn.out_proj"),
        "q": ("self_attn.q_proj",),
        "qkv_a": ("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"),
        "kv_a": ("self_attn.kv_a_proj_with_mqa",),
        "q_b": ("self_attn.q_b_proj",),
        "kv_b": ("self_attn.kv_b_proj",),
        "gate_up": ("mlp.gate_proj", "mlp.up_proj", "mlp.gate_up_proj"),
        "up": ("fc1",),
        "down": ("mlp.down_proj", "fc2"),
        "expert_gate_up": ("mlp.experts.0.gate_proj", "block_sparse_moe.experts.0.w1"),
        "expert_down": ("mlp.experts.0.down_proj", "block_sparse_moe.experts.0.w2"),
        "shared_gate_up": ("mlp.shared_experts.gate_proj", "mlp.shared_expert.gate_proj"),
        "shared_down": ("mlp.shared_experts.down_proj", "mlp.shared_expert.down_proj"),
    }
)
"""Matrix of a layer -> names under which checkpoints hold its parts."""
_EXPERTS = frozenset({"expert_gate_up", "expert_down"})


@dataclass(frozen=True)
class Quantization:
    """Format of the quantised matrices, the cache's if the checkpoint says one, and what stays as it is."""

    weights: Format | None = None
    kv: Format | None = None
    skipped: tuple[str, ...] = ()
    experts_only: bool = False

    def format_of(self, gemm: str, layer_path: str) -> Format | None:
        """Format of matrix `gemm` of the layer at `layer_path` ("model.layers.3"); None: not quantised."""
        if self.weights is None or gemm in NEVER_QUANTISED or (self.experts_only and gemm not in _EXPERTS):
            return None
        paths = [f"{layer_path}.{module}" for module in _MODULES[gemm]]
        return None if any(_matches(path, pattern) for path in paths for pattern in self.skipped) else self.weights


def read_quantization(config: Mapping[str, Any]) -> Quantization:
    """From a config.json's content. Raises InputError for methods and sizes that are not modelled."""
    found = config.get("quantization_config")
    if not found:
        return Quantization()
    if not isinstance(found, Mapping):
        raise InputError("", path="quantization_config", found=found, allowed="a mapping")
    try:
        return _read(found)
    except InputError as error:
        raise error.at(path="quantization_config") from None


def _read(found: Mapping[str, Any]) -> Quantization:
    method = found.get("quant_method")
    if method is None and "quant_algo" in found:
        method = "modelopt"  # exports that name only the algorithm
    if not isinstance(method, str) or method not in _METHODS:
        allowed = list(_METHODS)
        raise InputError("not modelled", path="quant_method", found=method or "nothing", allowed=allowed, near=allowed)
    return Quantization(
        weights=_METHODS[method](found), kv=_kv(found), skipped=_skipped(found), experts_only=method == "mxfp4"
    )


def _fp8(found: Mapping[str, Any]) -> Format:
    block = found.get("weight_block_size")
    if block is None:
        return WEIGHT_FORMATS["fp8"]
    if not (isinstance(block, list) and len(block) == 2 and all(type(b) is int and b > 0 for b in block)):
        raise InputError("", path="weight_block_size", found=block, allowed="two positive whole numbers")
    rows, group = block
    return FP8_BLOCK if (rows, group) == (128, 128) else Format(f"fp8_{rows}x{group}", 8, group, rows, 32)


def _groups(found: Mapping[str, Any]) -> Format:
    """AWQ and GPTQ: whole numbers with an fp16 scale and a packed zero point per group of inputs."""
    return _int(found.get("bits"), found.get("group_size", 128), path="bits", zero=True)


def _int(bits: Any, group: Any, path: str, zero: bool) -> Format:
    if type(bits) is not int or bits not in (4, 8):
        raise InputError("not modelled", path=path, found=bits, allowed="4 or 8")
    if group is None:
        group = -1
    if type(group) is not int or not (group > 0 or group == -1):
        raise InputError("", path="group_size", found=group, allowed="a positive whole number, or -1 for a whole row")
    group = max(group, 0)
    return Format(f"int{bits}_g{group}" if group else f"int{bits}", bits, group, 1, 16 + (bits if zero else 0))


def _modelopt(found: Mapping[str, Any]) -> Format:
    algorithms = {"FP8": WEIGHT_FORMATS["fp8"], "NVFP4": WEIGHT_FORMATS["nvfp4"]}
    name = found.get("quant_algo")
    if not isinstance(name, str) or name not in algorithms:
        raise InputError("not modelled", path="quant_algo", found=name or "nothing", allowed=algorithms)
    return algorithms[name]


def _compressed(found: Mapping[str, Any]) -> Format:
    groups = found.get("config_groups")
    schemes = list(groups.values()) if isinstance(groups, Mapping) else []
    if len(schemes) != 1 or not isinstance(schemes[0], Mapping):
        raise InputError("not modelled", path="config_groups", found=groups, allowed="one group of layers")
    weights = schemes[0].get("weights")
    if not isinstance(weights, Mapping):
        raise InputError("missing key", path="config_groups.weights")
    kind, bits = weights.get("type"), weights.get("num_bits")
    if kind == "float" and bits == 8:
        block = weights.get("block_structure")
        return _fp8({"weight_block_size": block}) if weights.get("strategy") == "block" else WEIGHT_FORMATS["fp8"]
    if kind == "float" and bits == 4:
        return WEIGHT_FORMATS["nvfp4" if weights.get("group_size") == 16 else "mxfp4"]
    if kind != "int":
        raise InputError("not modelled", path="config_groups.weights.type", found=kind, allowed=["int", "float"])
    zero = weights.get("symmetric") is False
    return _int(bits, weights.get("group_size"), path="config_groups.weights.num_bits", zero=zero)


_METHODS = MappingProxyType(
    {
        "fp8": _fp8,
        "fbgemm_fp8": lambda found: WEIGHT_FORMATS["fp8"],
        "mxfp4": lambda found: WEIGHT_FORMATS["mxfp4"],
        "awq": _groups,
        "gptq": _groups,
        "compressed-tensors": _compressed,
        "modelopt": _modelopt,
    }
)


def _kv(found: Mapping[str, Any]) -> Format | None:
    scheme = found.get("kv_cache_scheme") or found.get("kv_cache_quant_algo")
    if not scheme:
        return None
    if isinstance(scheme, str):
        name = scheme.lower()
    else:
        name = "fp8" if isinstance(scheme, Mapping) and scheme.get("num_bits") == 8 else ""
    if name not in KV_FORMATS:
        raise InputError("not modelled", path="kv_cache_scheme", found=scheme, allowed=["FP8", "NVFP4"])
    return KV_FORMATS[name]


def _skipped(found: Mapping[str, Any]) -> tuple[str, ...]:
    names: list[str] = []
    for key in ("modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers"):
        part = found.get(key) or []
        if not isinstance(part, list) or not all(isinstance(name, str) for name in part):
            raise InputError("", path=key, found=part, allowed="a list of module names")
        names += part
    return tuple(names)


def _matches(path: str, pattern: str) -> bool:
    """A pattern names a module or one that contains it: whole path, last part of one, wildcard, or "re:" expression."""
    if pattern.startswith("re:"):
        return re.match(pattern[3:], path) is not None
    if "*" in pattern:
        return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"{pattern}.*")
    return f".{path}.".find(f".{pattern}.") >= 0
