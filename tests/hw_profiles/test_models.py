"""ModelSpec arithmetic against published parameter counts, and refusal of what is not modelled."""

import json
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.errors import InputError
from hw_profiles.models import list_models, load_model

LLAMA_8B = json.loads((Path(__file__).parents[2] / "hw_profiles/models/llama-3.1-8b/config.json").read_text())


def write(folder: Path, **changes: Any) -> Path:
    config = {key: value for key, value in (LLAMA_8B | changes).items() if value != "absent"}
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def test_llama_3_1_8b() -> None:
    model = load_model("llama-3.1-8b")
    per_layer = 4096 * (4096 + 1024 + 1024) + 4096 * 4096 + 3 * 4096 * 14336 + 2 * 4096
    assert model.parameters == 32 * per_layer + 4096 + 2 * 128256 * 4096 == 8_030_261_248
    assert model.weight_bytes == 16_060_522_496
    assert model.kv_bytes_per_token == 131_072
    assert model.layer_gemms() == (
        ("qkv", 6144, 4096),
        ("o", 4096, 4096),
        ("gate_up", 28672, 4096),
        ("down", 4096, 14336),
    )
    assert model.head_gemm == (128256, 4096)
    assert (model.max_context, model.dtype_bytes, model.tied_embeddings) == (131072, 2, False)
    assert model.linear_flops_per_token == 2 * (32 * (per_layer - 2 * 4096) + 128256 * 4096)
    assert "llama-3.1-8b" in list_models()


def test_other_families_by_published_counts(tmp_path: Path) -> None:
    """Qwen2.5-7B (7,615,616,512) has q, k, v biases; Qwen3-8B (8,190,735,360) normalises queries and keys;
    Llama-3.2-1B (1,235,814,400) ties its embeddings."""
    qwen2 = write(
        tmp_path, model_type="qwen2", hidden_size=3584, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, intermediate_size=18944, vocab_size=152064, head_dim="absent",
        sliding_window=131072, use_sliding_window=False,
    )  # fmt: skip
    assert load_model(qwen2).parameters == 7_615_616_512
    qwen3 = write(
        tmp_path, model_type="qwen3", hidden_size=4096, num_hidden_layers=36, num_attention_heads=32,
        num_key_value_heads=8, intermediate_size=12288, vocab_size=151936,
    )  # fmt: skip
    assert load_model(qwen3).parameters == 8_190_735_360
    small = write(
        tmp_path, hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        head_dim=64, intermediate_size=8192, tie_word_embeddings=True,
    )  # fmt: skip
    assert load_model(small).parameters == 1_235_814_400


def test_biases_count(tmp_path: Path) -> None:
    plain = load_model(write(tmp_path)).parameters
    assert load_model(write(tmp_path, attention_bias=True)).parameters == plain + 32 * (6144 + 4096)
    assert load_model(write(tmp_path, mlp_bias=True)).parameters == plain + 32 * (2 * 14336 + 4096)


def test_mha_and_float32(tmp_path: Path) -> None:
    model = load_model(write(tmp_path, num_key_value_heads="absent", torch_dtype="float32"))
    assert model.kv_heads == 32
    assert model.kv_bytes_per_token == 131_072 * 4 * 2


def test_folder_and_name(tmp_path: Path) -> None:
    write(tmp_path)
    assert load_model(tmp_path).name == tmp_path.name
    assert load_model(tmp_path) == load_model(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"kv_lora_rank": 512},
            r"kv_lora_rank: not modelled in this version \(multi-head latent attention\)",
        ),
        ({"num_local_experts": 8}, r"num_local_experts: not modelled in this version \(mixture of experts\)"),
        ({"sliding_window": 4096}, "sliding_window: not modelled"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types: not modelled"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: not modelled"),
        (
            {"model_type": "gemma2"},
            "model_type: not modelled in this version, found 'gemma2', expected one of llama",
        ),
        ({"torch_dtype": "float8_e4m3fn"}, "torch_dtype: not modelled"),
        ({"num_hidden_layers": "absent"}, "num_hidden_layers: missing key"),
        ({"hidden_size": "4096"}, "hidden_size: found '4096', expected a positive whole number"),
        ({"vocab_size": 0}, "vocab_size: found 0"),
        ({"num_key_value_heads": 5}, "num_key_value_heads: found 5, expected a divisor of the 32"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: found 'yes', expected true or false"),
    ],
)
def test_refused_by_key(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(InputError, match=problem) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{", id="cut"),
        pytest.param("[1]", id="list"),
        pytest.param('{"hidden_size": NaN}', id="nan"),
        pytest.param('{"hidden_size": 1' + "0" * 5000 + "}", id="huge number"),
        pytest.param("[" * 200_000, id="deep"),
    ],
)
def test_not_a_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json: "):
        load_model(tmp_path)


def test_unknown_name_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"did you mean 'llama-3\.1-8b'"):
        load_model("llama-3-8b")
    with pytest.raises(InputError, match="file not found"):
        load_model(tmp_path / "none.json")
