"""Models that papers measured and kvsim does not ship, and contexts beyond what a model was trained for.

Values of models that were never released are of the paper's table of sizes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from hw_profiles.errors import InputError


def _block_of(name: str) -> dict[str, Any]:
    """One transformer block of a shipped model: no second one, and hardly a vocabulary."""
    return {**_shipped(name), "num_hidden_layers": 1, "vocab_size": 256}


def _cla() -> dict[str, Any]:
    """The 1B model of the CLA paper (arXiv 2405.12981, table of architectures): 20 layers, MQA, heads of 128."""
    return {
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 2048,
        "intermediate_size": 5472,
        "num_hidden_layers": 20,
        "num_attention_heads": 16,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
    }


def _qwen3_235b() -> dict[str, Any]:
    """Qwen3-235B-A22B-Instruct-2507, by its config.json (Qwen3 technical report, arXiv 2505.09388, table 2)."""
    return {
        **_shipped("qwen3-30b-a3b"),
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "moe_intermediate_size": 1536,
        "num_hidden_layers": 94,
        "num_attention_heads": 64,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "num_experts": 128,
        "num_experts_per_tok": 8,
    }


def _shipped(name: str) -> dict[str, Any]:
    file = resources.files("hw_profiles") / "models" / name / "config.json"
    if not file.is_file():
        raise InputError("unknown model", found=name, allowed=("a shipped model", *PAPER_MODELS))
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return config


PAPER_MODELS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "llama-2-7b-block": lambda: _block_of("llama-2-7b"),
    "llama-2-70b-block": lambda: _block_of("llama-2-70b"),
    "cla-1b": _cla,
    "qwen3-235b-a22b": _qwen3_235b,
}


def config_of(name: str, context: int) -> dict[str, Any]:
    """The config.json of a model by name, shipped or of a paper; its positions are raised to `context` where the paper
    ran it beyond them (time and memory do not depend on what it was trained for)."""
    config = PAPER_MODELS[name]() if name in PAPER_MODELS else _shipped(name)
    config["max_position_embeddings"] = max(int(config["max_position_embeddings"]), context)
    return config
