"""The settings that `kvsim calibrate validate` runs: on a GPU Llama-3.1-8B, on the CPU a model that fits a test."""

from __future__ import annotations

import json
from pathlib import Path

from calibration.mini_engine.setting import Setting
from calibration.mini_engine.workload import Load
from calibration.suite import plan_cpu
from hw_profiles.files import write_atomic

GPU = Setting(
    model="llama-3.1-8b",
    # a KV cache of 22k tokens for documents of 49k, of which host memory holds all: 7.5 GiB pinned; short prompts and
    # answers, so that copies move beside many of the steps
    pages=1400,
    host_pages=3800,
    max_seqs=8,
    max_tokens=512,
    load=Load(requests=150, rate=25.0, documents=24, document_blocks=4, tail=(20, 80), output=(2, 16)),
)
CPU_LOAD = Load(requests=24, rate=8.0, documents=6, document_blocks=1, tail=(40, 200), output=(4, 24))
CPU_LAYERS, CPU_VOCABULARY = 2, 2048


def cpu_setting(folder: Path) -> Setting:
    """The small model, whose config.json is written to `folder`."""
    config = {
        "_source": "the model that kvsim's mini engine runs on a CPU",
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": plan_cpu.HIDDEN,
        "intermediate_size": plan_cpu.FFN,
        "num_hidden_layers": CPU_LAYERS,
        "num_attention_heads": plan_cpu.HEADS,
        "num_key_value_heads": plan_cpu.KV_HEADS,
        "head_dim": plan_cpu.HEAD_DIM,
        "vocab_size": CPU_VOCABULARY,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    path = folder / "config.json"
    write_atomic(path, json.dumps(config, indent=1))
    return Setting(str(path), pages=260, host_pages=800, max_seqs=4, max_tokens=256, load=CPU_LOAD)
