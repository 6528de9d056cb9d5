"""Number formats of weights and cache: bytes with scales, and what quantization_config says."""

import json
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.errors import InputError
from hw_profiles.formats import KV_FORMATS, WEIGHT_FORMATS, Format
from hw_profiles.model_spec import ModelSpec
from hw_profiles.models import load_model

SHIPPED = Path(__file__).parents[2] / "hw_profiles" / "models"
LAYER_MATRICES = 6144 * 4096 + 4096 * 4096 + 3 * 4096 * 14336  # llama-3.1-8b
OUTSIDE = 2 * 128256 * 4096 + 65 * 4096  # embedding, head and norms, bf16 whatever the matrices are


@pytest.mark.parametrize(
    ("name", "nbytes"),
    [
        ("bf16", 2 * 4096 * 14336),
        ("fp32", 4 * 4096 * 14336),
        ("fp8", 4096 * 14336),
        ("fp8_block", 4096 * 14336 + 4 * 32 * 112),
        ("int8", 4096 * 14336 + 2 * 4096),
        ("int4", 4096 * 14336 // 2 + 4096 * 112 * 5 // 2),
        ("mxfp4", 4096 * 14336 // 2 + 4096 * 448),
        ("nvfp4", 4096 * 14336 // 2 + 4096 * 896),
        ("w4a4", 4096 * 14336 // 2 + 4096 * 2),
    ],
)
def test_bytes_of_a_matrix(name: str, nbytes: int) -> None:
    assert WEIGHT_FORMATS[name].matrix_bytes(4096, 14336) == nbytes


def test_groups_that_are_not_full_have_a_scale_too() -> None:
    """DeepSeek's latent projection has 576 outputs: 5 rows of 128 x 128 blocks, the last one half."""
    assert WEIGHT_FORMATS["fp8_block"].matrix_bytes(576, 7168) == 576 * 7168 + 4 * 5 * 56
    assert Format("odd", 4, group=32, scale_bits=8).matrix_bytes(1, 33) == 17 + 2


@pytest.mark.parametrize(
    ("kv", "nbytes"),
    [
        ("bf16", 131_072),
        ("fp8", 65_536),
        ("int8", 2 * 32 * 8 * (128 + 4)),  # an fp16 scale and zero point for every head's key and value
        ("int4", 2 * 32 * 8 * (64 + 4)),
        ("nvfp4", 2 * 32 * 8 * (64 + 8)),
        (Format("kivi2", 2, group=32, scale_bits=32), 2 * 32 * 8 * (32 + 16)),
    ],
)
def test_cache_of_a_token(kv: str | Format, nbytes: int) -> None:
    model = load_model("llama-3.1-8b").with_dtypes(kv=kv)
    assert model.kv_bytes_per_token == nbytes
    assert model.kv_bytes_per_token_at(8) * 8 == nbytes
    assert model.weight_bytes == 16_060_522_496  # the weights do not change


def test_cache_of_a_latent() -> None:
    assert load_model("deepseek-v3").with_dtypes(kv="fp8").kv_bytes_per_token == 61 * 576


@pytest.mark.parametrize(
    ("weights", "matrices"),
    [
        ("bf16", 2 * LAYER_MATRICES),
        ("fp8", LAYER_MATRICES),
        ("int4", LAYER_MATRICES // 2 + LAYER_MATRICES // 128 * 5 // 2),
    ],
)
def test_weights_in_another_format(weights: str, matrices: int) -> None:
    model = load_model("llama-3.1-8b").with_dtypes(weights=weights)
    assert model.weight_bytes == 32 * matrices + 2 * OUTSIDE
    assert model.kv_bytes_per_token == 131_072
    assert (model.parameters, model.dtype_bytes) == (8_030_261_248, 2)
    assert model.weight_formats == (weights,)


def test_both_at_once_and_neither() -> None:
    model = load_model("llama-3.1-8b")
    both = model.with_dtypes(weights="fp8", kv="fp8")
    assert (both.weight_bytes, both.kv_bytes_per_token) == (32 * LAYER_MATRICES + 2 * OUTSIDE, 65_536)
    assert model.with_dtypes() == model
    assert both.facts()["weight_formats"] == both.facts()["kv_format"] == "fp8"


def test_routers_stay_as_they_are() -> None:
    layer = load_model("mixtral-8x7b").with_dtypes(weights="fp8").specs[0]
    assert {g.name: g.format.name for g in layer.gemms} == {
        "qkv": "fp8", "o": "fp8", "router": "bf16", "expert_gate_up": "fp8", "expert_down": "fp8",
    }  # fmt: skip
    assert layer.gemms[2].weight_bytes == 2 * 8 * 4096
    unpacked = load_model("gpt-oss-120b").with_dtypes(weights="bf16")
    assert unpacked.weight_bytes == 2 * unpacked.parameters


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"weights": "fp7"}, "weights: unknown number format, found 'fp7', expected one of bf16, .*did you mean 'fp"),
        ({"kv": "mxfp4"}, "kv: unknown number format, found 'mxfp4', expected one of bf16"),
    ],
)
def test_unknown_formats(options: dict[str, str], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load_model("llama-3.1-8b").with_dtypes(**options)


def test_every_format_is_named_as_in_its_table() -> None:
    for table in (WEIGHT_FORMATS, KV_FORMATS):
        assert all(form.name == name for name, form in table.items())


def quantised(folder: Path, found: Any, base: str = "llama-3.1-8b") -> ModelSpec:
    config = json.loads((SHIPPED / base / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": found}))
    return load_model(folder)


GROUP = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}


@pytest.mark.parametrize(
    ("found", "layer_bytes"),
    [
        ({"quant_method": "fp8"}, LAYER_MATRICES),
        ({"quant_method": "fbgemm_fp8"}, LAYER_MATRICES),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, LAYER_MATRICES + LAYER_MATRICES // 4096),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, LAYER_MATRICES // 2 + LAYER_MATRICES // 128 * 5 // 2),
        ({"quant_method": "gptq", "bits": 8, "group_size": 64}, LAYER_MATRICES + LAYER_MATRICES // 64 * 3),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, LAYER_MATRICES + 43008 * 3),  # 43,008 rows
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, LAYER_MATRICES),
        ({"quant_algo": "NVFP4"}, LAYER_MATRICES // 2 + LAYER_MATRICES // 16),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": GROUP}}},
            LAYER_MATRICES // 2 + LAYER_MATRICES // 128 * 2,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}},
            },
            LAYER_MATRICES,
        ),
        ({"quant_method": "fp8", "modules_to_not_convert": ["lm_head"]}, LAYER_MATRICES),
        ({}, 2 * LAYER_MATRICES),
        (None, 2 * LAYER_MATRICES),
    ],
)
def test_formats_of_a_checkpoint(found: Any, layer_bytes: int, tmp_path: Path) -> None:
    assert quantised(tmp_path, found).weight_bytes == 32 * layer_bytes + 2 * OUTSIDE


@pytest.mark.parametrize(
    ("skipped", "left"),
    [
        (["model.layers.*.self_attn"], 32),
        (["model.layers.0.self_attn.q_proj"], 1),
        (["model.layers.1.self_attn"], 1),  # not layer 10 to 19
        (["re:.*self_attn.*"], 32),
        (["self_attn"], 32),
        (["model.layers.3", "lm_head"], 1),
        (["attn", "model.layers"], 32),
    ],
)
def test_matrices_that_stay_as_they_are(skipped: list[str], left: int, tmp_path: Path) -> None:
    model = quantised(tmp_path, {"quant_method": "fp8", "modules_to_not_convert": skipped})
    formats = [next(g.format.name for g in model.specs[i].gemms if g.name == "qkv") for i in model.pattern]
    assert (formats.count("bf16"), formats.count("fp8")) == (left, 32 - left)


@pytest.mark.parametrize(
    ("found", "kv"),
    [
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, "fp8"),
        ({"quant_algo": "FP8", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}, "fp8"),
        ({"quant_algo": "FP8", "kv_cache_quant_algo": None}, "bf16"),
    ],
)
def test_cache_format_of_a_checkpoint(found: dict[str, Any], kv: str, tmp_path: Path) -> None:
    assert quantised(tmp_path, found).specs[0].kv.name == kv


def test_a_file_beside_the_config_says_the_format(tmp_path: Path) -> None:
    shipped = (SHIPPED / "llama-3.1-70b" / "config.json").read_text()
    (tmp_path / "config.json").write_text(shipped)
    plain = load_model(tmp_path)
    beside = tmp_path / "hf_quant_config.json"
    beside.write_text('{"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}')
    model = load_model(tmp_path)
    assert model.weight_formats == ("fp8",)
    assert model.kv_bytes_per_token * 2 == plain.kv_bytes_per_token
    assert model.content_sha256 != plain.content_sha256
    beside.write_text('{"quantization": {"quant_algo": "FP8"}}')
    assert load_model(tmp_path).content_sha256 not in (model.content_sha256, plain.content_sha256)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ("fp8", "quantization_config: found 'fp8', expected a mapping"),
        ({"bits": 4}, "quantization_config.quant_method: not modelled, found 'nothing', expected one of fp8"),
        ({"quant_method": "bitsandbytes"}, "quantization_config.quant_method: not modelled, found 'bitsandbytes'"),
        ({"quant_method": "gtpq"}, "did you mean 'gptq'"),
        ({"quant_method": "gptq", "bits": 3}, "quantization_config.bits: not modelled, found 3, expected 4 or 8"),
        ({"quant_method": "awq", "bits": 4, "group_size": 0}, "quantization_config.group_size: found 0"),
        ({"quant_method": "fp8", "weight_block_size": 128}, "weight_block_size: found 128, expected two positive"),
        ({"quant_method": "fp8", "ignore": "lm_head"}, "ignore: found 'lm_head', expected a list"),
        ({"quant_algo": "MIXED_PRECISION"}, "quant_algo: not modelled, found 'MIXED_PRECISION'"),
        ({"quant_method": "compressed-tensors"}, "config_groups: not modelled"),
        ({"quant_algo": "FP8", "kv_cache_quant_algo": "INT2"}, "kv_cache_scheme: not modelled, found 'INT2'"),
    ],
)
def test_refused(found: Any, problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        quantised(tmp_path, found)
    assert "config.json" in str(caught.value)
