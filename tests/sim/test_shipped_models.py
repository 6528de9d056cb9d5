"""Every shipped model runs, on as many GPUs as it needs; so does a config.json of one's own, or it says why not."""

import json
import re
from pathlib import Path

import pytest

import hw_profiles
from hw_profiles.errors import InputError
from hw_profiles.models import list_models, load_model

CONFIGS = Path(hw_profiles.__file__).parent / "models"
GPUS = {
    "llama-2-70b": {"tp": 4},
    "llama-3.1-70b": {"tp": 4},
    "llama-3.1-405b": {"tp": 8, "pp": 2},
    "deepseek-v3": {"tp": 8, "pp": 2},
    "deepseek-r1": {"tp": 8, "pp": 2, "expert_parallel": True},
    "mixtral-8x7b": {"tp": 2},
    "opt-30b": {"tp": 2},
    "opt-66b": {"tp": 4},
    "opt-175b": {"tp": 8},
    "llama-30b": {"tp": 2},
}


@pytest.mark.parametrize("name", list_models())
def test_every_shipped_model_runs(run, prompt, name):
    model = load_model(name)
    hardware = {"profile": "h100-sxm", "interconnect": "450 GB/s", **GPUS.get(name, {})}
    rows = [(0.5 * i, 900 + 100 * i, 20, prompt(i % 2, 900 + 100 * i)) for i in range(6)]
    summary = run(rows, model=name, hardware=hardware, dram="16 GiB", engine={"hybrid_kv_cache": False}).summary
    assert summary["requests"]["finished"] == 6
    tp = hardware.get("tp", 1)
    stages = model.stages(hardware.get("pp", 1))
    token_bytes = tp * sum(model.kv_bytes_per_token_at(tp, stage=stage) for stage in stages)
    assert summary["hardware"]["kv_bytes_per_token"] == token_bytes
    assert summary["tiers"]["dram"]["stored_bytes"] % (16 * token_bytes) == 0 < summary["tiers"]["dram"]["stored_bytes"]
    # a decode step reads the weights that it needs at least: with one sequence, the active ones
    gpus = tp * len(stages)
    bits = 4 if "gpt-oss" in name else 8 if "deepseek" in name else 16
    embedding = model.vocab * model.hidden
    active = (model.active_parameters - (0 if model.tied_embeddings else embedding)) * bits / 8 / gpus
    assert 0.9e3 * len(stages) * active / 3.35e12 < summary["tpot_ms"]["p50"] < 50


def test_a_config_of_ones_own(run, prompt, tmp_path):
    raw = json.loads((CONFIGS / "qwen3-30b-a3b" / "config.json").read_text())
    raw |= {"num_hidden_layers": 12, "num_experts": 32}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    rows = [(0, 500, 20, prompt(0, 500))]
    own = run(rows, model=str(tmp_path / "config.json")).summary
    shipped = run(rows, model="qwen3-30b-a3b").summary
    assert own["tpot_ms"]["mean"] < 0.4 * shipped["tpot_ms"]["mean"]
    assert own["model"]["kv_bytes_per_token"] == 12 * 2 * 4 * 128 * 2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": "mamba2"}, "config.json: model_type: unknown architecture, found 'mamba2'"),
        ({"index_topk": 2048}, "config.json: index_topk: not modelled (sparse attention by an indexer)"),
        ({"quantization_config": {"quant_method": "aqlm"}}, "quantization_config.quant_method: not modelled"),
        ({"num_hidden_layers": None}, "config.json: num_hidden_layers: missing key"),
    ],
)
def test_what_is_not_modelled_is_named(scenario, tmp_path, changes, problem):
    raw = json.loads((CONFIGS / "llama-3.1-8b" / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match=re.escape(problem)):
        scenario([(0, 16, 2, [1])], model=str(tmp_path / "config.json")).run()
