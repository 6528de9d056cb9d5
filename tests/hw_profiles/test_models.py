"""Shipped models against published parameter counts and hand arithmetic; reading of configs by name and path."""

import json
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.errors import InputError
from hw_profiles.model_config import model_from_config
from hw_profiles.models import ModelSpec, list_models, load_model

SHIPPED = Path(__file__).parents[2] / "hw_profiles" / "models"
LLAMA_8B = json.loads((SHIPPED / "llama-3.1-8b" / "config.json").read_text())

# Number of weights. SOURCE, unless said: `safetensors.total` of the model's page on Hugging Face.
PUBLISHED = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "mistral-7b": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "mixtral-8x7b": 46_702_792_704,
    "qwen3-8b": 8_190_735_360,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "deepseek-v3": 671_026_419_200,  # main model without its multi-token-prediction layer, by checkpoint headers
    "deepseek-r1": 671_026_419_200,
    "gpt-oss-120b": 116_829_156_672,  # by the GGUF header, as `ollama show gpt-oss:120b` prints it
    "tinyllama-1.1b": 1_100_048_384,
    "llama-3-8b": 8_030_261_248,
    "llama-30b": 32_528_943_616,
    "longchat-7b-32k": 6_738_415_616,
    "vicuna-7b-16k": 6_738_415_616,
    "llava-1.5-7b": 6_738_415_616,  # the language part: Vicuna v1.5, of the shape of Llama 2
    "llava-1.5-13b": 13_015_864_320,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    # SOURCE: the non-embedding counts of Pythia's model cards, and two tables of 50,304 rows
    "pythia-31m": 6 * (12 * 256**2 + 13 * 256) + 2 * 256 + 2 * 50_304 * 256,  # not in the cards
    "pythia-70m": 18_915_328 + 2 * 50_304 * 512,
    "pythia-160m": 85_056_000 + 2 * 50_304 * 768,
    "pythia-410m": 302_311_424 + 2 * 50_304 * 1024,
    "pythia-1b": 805_736_448 + 2 * 50_304 * 2048,
    "pythia-1.4b": 1_208_602_624 + 2 * 50_304 * 2048,
    # OPT is published in fp16 only, without a count: 12 h^2 + 13 h per layer (4 h^2 attention, 8 h^2 MLP, biases
    # 4 h + 5 h, two LayerNorms 4 h), 50,272 tied token and 2,050 position rows, a last LayerNorm
    "opt-6.7b": 32 * (12 * 4096**2 + 13 * 4096) + (50_272 + 2_050) * 4096 + 2 * 4096,
    "opt-13b": 40 * (12 * 5120**2 + 13 * 5120) + (50_272 + 2_050) * 5120 + 2 * 5120,
    "opt-30b": 48 * (12 * 7168**2 + 13 * 7168) + (50_272 + 2_050) * 7168 + 2 * 7168,
    "opt-66b": 64 * (12 * 9216**2 + 13 * 9216) + (50_272 + 2_050) * 9216 + 2 * 9216,
    "opt-175b": 96 * (12 * 12288**2 + 13 * 12288) + (50_272 + 2_050) * 12288 + 2 * 12288,
}

# Bytes that one token leaves in the cache, bf16 or fp16: (K and V) x layers x KV heads x head width x 2 bytes.
KV_PER_TOKEN = {
    "llama-2-7b": 2 * 32 * 32 * 128 * 2,  # 512 KiB
    "llama-2-13b": 2 * 40 * 40 * 128 * 2,  # 800 KiB
    "llama-2-70b": 2 * 80 * 8 * 128 * 2,  # 320 KiB
    "llama-3.1-8b": 2 * 32 * 8 * 128 * 2,  # 128 KiB
    "llama-3.1-70b": 2 * 80 * 8 * 128 * 2,  # 320 KiB
    "llama-3.1-405b": 2 * 126 * 8 * 128 * 2,  # 504 KiB
    "mistral-7b": 2 * 32 * 8 * 128 * 2,
    "mistral-7b-v0.3": 2 * 32 * 8 * 128 * 2,
    "mixtral-8x7b": 2 * 32 * 8 * 128 * 2,
    "qwen3-8b": 2 * 36 * 8 * 128 * 2,  # 144 KiB
    "qwen3-32b": 2 * 64 * 8 * 128 * 2,  # 256 KiB
    "qwen3-30b-a3b": 2 * 48 * 4 * 128 * 2,  # 96 KiB
    "opt-6.7b": 2 * 32 * 32 * 128 * 2,
    "opt-13b": 2 * 40 * 40 * 128 * 2,
    "opt-30b": 2 * 48 * 56 * 128 * 2,  # 1,344 KiB
    "opt-66b": 2 * 64 * 72 * 128 * 2,  # 2,304 KiB
    "opt-175b": 2 * 96 * 96 * 128 * 2,  # 4,608 KiB
    "tinyllama-1.1b": 2 * 22 * 4 * 64 * 2,  # 22 KiB
    "llama-3-8b": 2 * 32 * 8 * 128 * 2,
    "llama-30b": 2 * 60 * 52 * 128 * 2,  # 1,560 KiB
    "longchat-7b-32k": 2 * 32 * 32 * 128 * 2,
    "vicuna-7b-16k": 2 * 32 * 32 * 128 * 2,
    "llava-1.5-7b": 2 * 32 * 32 * 128 * 2,
    "llava-1.5-13b": 2 * 40 * 40 * 128 * 2,
    "qwen2.5-7b": 2 * 28 * 4 * 128 * 2,  # 56 KiB
    "qwen2.5-14b": 2 * 48 * 8 * 128 * 2,  # 192 KiB
    "pythia-31m": 2 * 6 * 256 * 2,
    "pythia-70m": 2 * 6 * 512 * 2,
    "pythia-160m": 2 * 12 * 768 * 2,
    "pythia-410m": 2 * 24 * 1024 * 2,
    "pythia-1b": 2 * 16 * 2048 * 2,
    "pythia-1.4b": 2 * 24 * 2048 * 2,
    "deepseek-v3": 61 * (512 + 64) * 2,  # one latent and one rotary key for all 128 heads: 68.6 KiB
    "deepseek-r1": 61 * (512 + 64) * 2,
    "gpt-oss-120b": 2 * 36 * 8 * 64 * 2,  # 72 KiB, inside the window of 128
}


def write(folder: Path, **changes: Any) -> Path:
    config = {key: value for key, value in (LLAMA_8B | changes).items() if value != "absent"}
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def test_every_shipped_model_is_in_the_tables() -> None:
    assert set(list_models()) == set(PUBLISHED) == set(KV_PER_TOKEN)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_kv(name: str) -> None:
    model = load_model(name)
    assert model.parameters == PUBLISHED[name]
    assert model.kv_bytes_per_token == KV_PER_TOKEN[name]
    assert model.name == name
    assert "arXiv" in model.source or "_config.json" in model.source or ".py" in model.source


def test_llama_3_1_8b() -> None:
    model = load_model("llama-3.1-8b")
    per_layer = 4096 * (4096 + 1024 + 1024) + 4096 * 4096 + 3 * 4096 * 14336 + 2 * 4096
    assert model.parameters == model.active_parameters == 32 * per_layer + 4096 + 2 * 128256 * 4096
    assert model.weight_bytes == 16_060_522_496  # total_size of model.safetensors.index.json
    ((count, layer),) = model.layer_kinds()
    assert count == 32
    assert [gemm[:3] for gemm in layer.gemms] == [
        ("qkv", 6144, 4096),
        ("o", 4096, 4096),
        ("gate_up", 28672, 4096),
        ("down", 4096, 14336),
    ]
    assert model.head_gemm_at(1)[1:3] == (128256, 4096)
    assert (model.max_context, model.dtype_bytes, model.tied_embeddings) == (131072, 2, False)
    assert (model.q_size, model.kv_size, model.attention) == (4096, 1024, "GQA")
    assert model.linear_flops_per_token == 2 * (32 * (per_layer - 2 * 4096) + 128256 * 4096)


@pytest.mark.parametrize(
    ("name", "active"),
    [
        ("mixtral-8x7b", 46_702_792_704 - 32 * 6 * 3 * 4096 * 14336),  # "12.9B active": 2 of 8 experts
        ("qwen3-30b-a3b", 30_532_122_624 - 48 * 120 * 3 * 2048 * 768),  # "3.3B activated": 8 of 128
        ("deepseek-v3", 671_026_419_200 - 58 * 248 * 3 * 7168 * 2048),  # "37B activated": 8 of 256 and the shared one
        ("gpt-oss-120b", 116_829_156_672 - 36 * 124 * (3 * 2880 * 2880 + 3 * 2880)),  # experts have biases
    ],
)
def test_active_parameters(name: str, active: int) -> None:
    model = load_model(name)
    assert model.active_parameters == active
    # every active weight but norms, biases and looked-up rows does 2 FLOP
    assert model.linear_flops_per_token == pytest.approx(2 * (active - model.vocab * model.hidden), rel=2e-3)


def test_deepseek_checkpoint_by_number_format() -> None:
    """Hugging Face lists 3,918,786,560 BF16, 680,571,043,840 F8_E4M3 and 41,555,600 F32 values, 684,531,386,000 in all.

    That includes the multi-token-prediction layer (an expert layer, a projection of two hidden states, three norms and
    copies of embedding and head), which decoding does not load.
    """
    model = load_model("deepseek-v3")
    (_, moe) = model.layer_kinds()[1]
    copies = 2 * 129280 * 7168
    projection = 2 * 7168 * 7168 + 3 * 7168
    assert model.parameters + moe.parameters + copies + projection == 3_918_786_560 + 680_571_043_840 + 59 * 256
    nbytes = model.weight_bytes + moe.weight_bytes + 2 * (copies + projection)
    assert nbytes == 3_918_786_560 * 2 + 680_571_043_840 + 41_555_600 * 4


def test_gpt_oss_checkpoint_size() -> None:
    """total_size of openai/gpt-oss-120b's model.safetensors.index.json: experts in MXFP4, all else in bf16."""
    model = load_model("gpt-oss-120b")
    assert model.weight_bytes == 65_248_815_744
    assert model.weight_formats == ("mxfp4", "bf16")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("llama-3.1-8b", [(32, "gqa", None, False)]),
        ("mistral-7b", [(32, "gqa", 4096, False)]),
        ("mistral-7b-v0.3", [(32, "gqa", None, False)]),
        ("mixtral-8x7b", [(32, "gqa", None, True)]),
        ("deepseek-v3", [(3, "mla", None, False), (58, "mla", None, True)]),
        ("gpt-oss-120b", [(18, "gqa", 128, True), (18, "gqa", None, True)]),
    ],
)
def test_kinds_of_layers(name: str, kinds: list[tuple[int, str, int | None, bool]]) -> None:
    found = [
        (n, layer.attention.kind, layer.window, layer.moe is not None) for n, layer in load_model(name).layer_kinds()
    ]
    assert found == kinds


def test_one_sequence_keeps_only_its_windows() -> None:
    mistral, oss, llama = (load_model(name) for name in ("mistral-7b", "gpt-oss-120b", "llama-3.1-8b"))
    assert mistral.kv_bytes(4096) == 4096 * 131_072
    assert mistral.kv_bytes(10_000) == mistral.kv_bytes(4096)
    layer = 2 * 8 * 64 * 2
    assert oss.kv_bytes(100) == 100 * 36 * layer
    assert oss.kv_bytes(1000) == 18 * layer * 1000 + 18 * layer * 128
    assert oss.kv_groups() == ((None, 18 * layer), (128, 18 * layer))
    assert llama.kv_bytes(10_000) == 10_000 * 131_072
    assert llama.kv_groups() == ((None, 131_072),)


def test_folder_and_name(tmp_path: Path) -> None:
    write(tmp_path)
    assert load_model(tmp_path).name == tmp_path.name
    assert load_model(tmp_path) == load_model(tmp_path / "config.json")


def test_the_source_is_the_one_given_or_the_file(tmp_path: Path) -> None:
    assert load_model(write(tmp_path, _source="a paper")).source == "a paper"
    path = write(tmp_path, _source="absent")
    assert load_model(path).source == str(path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": "absent"}, "model_type: missing key"),
        ({"model_type": "qwen4"}, r"model_type: unknown architecture, found 'qwen4', .*did you mean 'qwen[23]'\?"),
        ({"model_type": 3}, "model_type: unknown architecture, found 3"),
        ({"model_type": "mamba2"}, "model_type: unknown architecture, found 'mamba2', expected one of llama, mistral"),
        ({"model_type": "gemma3", "text_config": {"a": 1}}, r"text_config: not modelled \(multimodal"),
        ({"kv_lora_rank": 512}, "kv_lora_rank: not part of this model_type, but of deepseek_v2"),
        ({"num_local_experts": 8}, "num_local_experts: not part of this model_type, but of mixtral, gpt_oss"),
        ({"index_topk": 2048}, r"index_topk: not modelled \(sparse attention"),
        ({"sliding_window": 4096}, "sliding_window: not modelled for this model_type"),
        ({"layer_types": ["full_attention"]}, "layer_types: found '1 entries', expected a list of 32"),
        ({"layer_types": ["linear_attention"] * 32}, r"layer_types\.0: not modelled, found 'linear_attention'"),
        ({"layer_types": ["sliding_attention"] * 32}, "sliding_window: missing key"),
        ({"torch_dtype": "float8_e4m3fn"}, "torch_dtype: not modelled, found 'float8_e4m3fn'"),
        ({"torch_dtype": 16}, "torch_dtype: not modelled, found 16"),
        ({"torch_dtype": ""}, "torch_dtype: not modelled, found ''"),
        ({"num_hidden_layers": "absent"}, "num_hidden_layers: missing key"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: found 1000000000, expected at most 10000"),
        ({"hidden_size": "4096"}, "hidden_size: found '4096', expected a positive whole number"),
        ({"hidden_size": 4096.0}, r"hidden_size: found 4096\.0, expected a positive whole number"),
        ({"intermediate_size": True}, "intermediate_size: found True"),
        ({"vocab_size": 0}, "vocab_size: found 0"),
        ({"vocab_size": 10**40}, "vocab_size: too large, expected at most"),
        ({"num_key_value_heads": 5}, "num_key_value_heads: found 5, expected a divisor of the 32"),
        ({"head_dim": "absent", "hidden_size": 4100}, "hidden_size: found 4100, expected a multiple of the 32"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: found 'yes', expected true or false"),
    ],
)
def test_refused_by_key(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(InputError, match=problem) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{", id="cut"),
        pytest.param("[1]", id="list"),
        pytest.param('{"hidden_size": NaN}', id="nan"),
        pytest.param('{"hidden_size": -Infinity}', id="infinity"),
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
        load_model("llama-3.1-8")
    with pytest.raises(InputError, match="file not found"):
        load_model(tmp_path / "none.json")


JUNK = (None, -1, 0, 3, 1.5, float("nan"), "x", "", [], [1], {}, {"a": 1}, True, False, 10**30)


def outcome(config: dict[str, Any]) -> ModelSpec | InputError:
    try:
        return model_from_config(config, name="junk", source="", sha256="")
    except InputError as error:
        return error


@pytest.mark.parametrize(
    "name", ["llama-3.1-8b", "mistral-7b", "opt-6.7b", "qwen3-30b-a3b", "deepseek-v3", "gpt-oss-120b"]
)
def test_junk_under_any_key_is_a_model_or_one_line(name: str) -> None:
    config = json.loads((SHIPPED / name / "config.json").read_text())
    outcomes = [outcome(config | {key: junk}) for key in config for junk in JUNK]
    refused = [str(found) for found in outcomes if isinstance(found, InputError)]
    assert not [line for line in refused if "\n" in line or len(line) > 400]
    models = [found for found in outcomes if isinstance(found, ModelSpec)]
    assert all(model.weight_bytes > 0 and model.kv_bytes_per_token > 0 for model in models)
    assert len(refused) > len(config)
    assert len(models) > len(config)
