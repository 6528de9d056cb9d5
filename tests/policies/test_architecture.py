"""Transforms of the model against the papers' own numbers: layers that store, bytes per token, weights, passes."""

import pytest

from hw_profiles.attention import MLA
from hw_profiles.errors import InputError
from hw_profiles.model_config import model_from_config
from hw_profiles.model_spec import ModelSpec
from hw_profiles.models import load_model
from policies.architecture.base import layers_of
from policies.architecture.cross_layer import PARTITIONS, POSITIONS
from policies.architecture.sharing import in_groups
from policies.tables import ARCHITECTURE


def apply(name: str, model: str | ModelSpec, **options: object) -> ModelSpec:
    spec = load_model(model) if isinstance(model, str) else model
    return ARCHITECTURE[name](**options).apply(spec)


def llama(layers: int, **config: object) -> ModelSpec:
    shape = {
        "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": layers, "num_attention_heads": 16,
        "intermediate_size": 5504, "vocab_size": 32000, "max_position_embeddings": 4096,
    }  # fmt: skip
    return model_from_config(shape | config, name="own", source="", sha256="")


def passes(model: ModelSpec) -> list[int]:
    return [layer.cadence.passes for layer in layers_of(model)]


@pytest.mark.parametrize(("share", "nbytes"), [(1, 10240), (2, 5120), (3, 3584), (4, 2560)])
def test_cla_bytes_of_the_paper(share: int, nbytes: int) -> None:
    """arXiv 2405.12981: 20 layers, one KV head of 128."""
    model = llama(20, num_key_value_heads=1)
    assert apply("cla", model, share=share).kv_bytes_per_token == nbytes


def test_cla_shares_with_the_lowest_of_neighbours() -> None:
    """whyNLP/LCKV README, the CLA layer_types of a model of 22 layers."""
    assert apply("cla", "tinyllama-1.1b").kv_sources == tuple(i // 2 * 2 for i in range(22))


def test_lckv_of_the_readme() -> None:
    """whyNLP/LCKV README: 0_20_20_..._20_21, and the layers of the cycle run nine times over a prompt."""
    model = apply("lckv", "tinyllama-1.1b", warmup=2)
    assert model.kv_sources == (0, *[20] * 20, 21)
    assert passes(model) == [1, *[9] * 20, 1]
    assert passes(apply("lckv", "tinyllama-1.1b", warmup=2, passes=1)) == [1] * 22


@pytest.mark.parametrize("warmup", [0, 1, 2, 5, 10])
def test_lckv_keeps_one_more_than_its_warmup(warmup: int) -> None:
    whole = load_model("llama-2-7b")
    model = apply("lckv", whole, warmup=warmup)
    assert model.stored_layers() == warmup + 1
    assert model.kv_bytes_per_token == (warmup + 1) * whole.kv_bytes_per_token // 32


@pytest.mark.parametrize("kv_layers", [1, 3, 11, 16])
def test_nine_ways_with_the_same_bytes(kv_layers: int) -> None:
    whole = load_model("llama-2-7b")
    for partition in PARTITIONS:
        for position in POSITIONS:
            model = apply("cross_layer", whole, partition=partition, position=position, kv_layers=kv_layers)
            assert model.kv_bytes_per_token == kv_layers * whole.kv_bytes_per_token // 32
            assert len(set(model.kv_sources)) == kv_layers == model.stored_layers()
            assert all(model.kv_sources[source] == source for source in model.kv_sources)
            assert (set(passes(model)) == {1}) == (position == "bottom")
            down = sum(not layer.stores for layer in layers_of(model))
            projections = 2 * 4096 * 4096
            assert model.parameters == whole.parameters - down * projections


def test_known_systems_among_the_nine() -> None:
    whole = load_model("llama-2-7b")
    cla = apply("cla", whole, share=2)
    assert apply("cross_layer", whole, partition="lasagna", position="bottom", kv_layers=16).specs == cla.specs
    lckv = apply("cross_layer", whole, partition="sandwich", position="top", kv_layers=3)
    assert lckv.kv_sources == apply("lckv", whole, warmup=2).kv_sources
    assert apply("cross_layer", whole, partition="pizza", position="bottom", kv_layers=16).kv_sources == (
        *range(15),
        *[15] * 17,
    )


def test_groups_are_even() -> None:
    assert [len(group) for group in in_groups(22, 4)] == [6, 6, 5, 5]
    assert [i for group in in_groups(22, 4) for i in group] == list(range(22))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("none", {}),
        ("cla", {"share": 1}),
        ("lckv", {"warmup": 31}),
        ("lckv", {"warmup": 32}),
        ("lckv", {"warmup": 100}),
        ("cross_layer", {"kv_layers": 32}),
        ("cross_layer", {"partition": "sandwich", "position": "top", "kv_layers": 33}),
        ("gqa", {"kv_heads": 32}),
    ],
)
def test_nothing_to_share_is_the_model_itself(name: str, options: dict[str, object]) -> None:
    whole = load_model("llama-2-7b")
    assert apply(name, whole, **options) is whole


def test_fewer_kv_heads() -> None:
    whole = load_model("llama-2-7b")
    grouped = apply("gqa", whole, kv_heads=8)
    assert grouped.kv_bytes_per_token == whole.kv_bytes_per_token // 4
    assert grouped.attention == "GQA"
    assert apply("mqa", whole).kv_bytes_per_token == whole.kv_bytes_per_token // 32
    assert grouped.parameters == whole.parameters - 32 * 2 * 24 * 128 * 4096
    with pytest.raises(InputError, match="kv_heads: found 5, expected a divisor of the 32 query heads"):
        apply("gqa", whole, kv_heads=5)


def test_latent() -> None:
    """(512 + 64) values of 2 bytes per token and layer; DeepSeek-V3's 61 have 68.6 KiB (arXiv 2405.04434)."""
    model = apply("mla", "llama-2-7b")
    assert model.kv_bytes_per_token == 32 * 576 * 2
    assert model.attention == "MLA"
    assert 61 * model.kv_bytes_per_token / 32 == 70_272 == load_model("deepseek-v3").kv_bytes_per_token
    assert apply("mla", "llama-2-7b", kv_lora_rank=448, rope_dim=64).kv_bytes_per_token == 32 * 512 * 2
    attention = layers_of(model)[0].attention
    assert isinstance(attention, MLA)
    assert attention.v_dim == attention.nope_dim == 128
    assert any("latent" in note for note in model.notes)


# (model of the same shape, parameters that table 1 of arXiv 2406.02657 gives the Block Transformer)
BLOCKS = [
    ("pythia-31m", 33e6), ("pythia-70m", 77e6), ("pythia-160m", 170e6), ("pythia-410m", 420e6), ("pythia-1b", 1.0e9),
    ("pythia-1.4b", 1.4e9),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameters"), BLOCKS)
def test_block_transformer(name: str, parameters: float) -> None:
    """KV of a sequence: 2 (L/2) D b n / 4 in the block decoder, 2 (L/2) D b 6 in the token decoder."""
    whole = load_model(name)
    model = apply("block_transformer", whole)
    assert model.parameters == pytest.approx(parameters, rel=0.05)
    layer = 2 * whole.hidden * 2
    half = whole.layers // 2
    for tokens in (8, 2176):
        assert model.kv_bytes(tokens) == half * layer * tokens // 4 + half * layer * 6
    assert model.kv_bytes_per_token == whole.kv_bytes_per_token // 8
    assert model.scratch_bytes_at(1) == half * layer * 6
    assert model.stored_layers() == half


def test_yoco() -> None:
    whole = load_model("llama-2-7b")
    model = apply("yoco", whole, window=1024)
    assert model.kv_sources == (*range(16), *[16] * 16)
    assert dict(model.kv_groups()) == {None: 16384, 1024: 16 * 16384}
    assert [layer.cadence.skips_prompt for layer in layers_of(model)] == [False] * 17 + [True] * 15


def test_formats_stay_with_their_matrices() -> None:
    whole = load_model("llama-2-7b").with_dtypes(weights="int4", kv="fp8")
    for name in ("cla", "lckv", "mla", "block_transformer", "yoco", "mqa"):
        model = apply(name, whole)
        assert model.weight_formats == ("int4",), name
        assert {layer.kv.name for layer in layers_of(model)} == {"fp8"}


def test_tensor_parallel_parts_of_what_is_shared() -> None:
    whole = load_model("llama-2-7b")
    model = apply("cla", whole, share=2)
    for tp in (2, 4):
        assert tp * model.kv_bytes_per_token_at(tp) == model.kv_bytes_per_token
        assert (
            tp * model.weight_bytes_at(tp) - model.weight_bytes == tp * whole.weight_bytes_at(tp) - whole.weight_bytes
        )


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("cla", {"share": 0}, "share: found 0, expected a whole number from 1"),
        ("lckv", {"warmup": -1}, "warmup: found -1"),
        ("lckv", {"passes": 0}, "passes: found 0"),
        (
            "cross_layer",
            {"partition": "calzone"},
            "partition: found 'calzone', expected one of pizza, sandwich, lasagna",
        ),
        ("cross_layer", {"position": "side"}, "position: found 'side'"),
        ("mla", {"rope_dim": True}, "rope_dim: found True"),
        ("block_transformer", {"block": 1}, "block: found 1"),
    ],
)
def test_bad_options(name: str, options: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ARCHITECTURE[name](**options)


@pytest.mark.parametrize(
    ("name", "model", "problem"),
    [
        ("cla", "deepseek-v3", "cla2 is not defined for deepseek-v3, whose cache holds a latent"),
        ("mla", "deepseek-v3", "mla is not defined for deepseek-v3"),
        ("gqa", "deepseek-v3", "gqa is not defined"),
        ("cla", "gpt-oss-120b", "slide, and do not keep all that other layers attend"),
        ("block_transformer", "mistral-7b", "whose layers slide"),
    ],
)
def test_models_that_it_is_not_defined_for(name: str, model: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        apply(name, model)


@pytest.mark.parametrize("first", ["cla", "lckv", "block_transformer", "yoco"])
@pytest.mark.parametrize("second", ["cla", "gqa", "block_transformer", "mla"])
def test_one_transform_of_layers(first: str, second: str) -> None:
    """What one on top of the other would mean is not defined."""
    with pytest.raises(InputError, match="transformed already"):
        apply(second, apply(first, "llama-2-7b"))


def test_heads_first_then_layers() -> None:
    """CLA with one KV head, as its authors recommend."""
    whole = load_model("llama-2-7b")
    assert apply("cla", apply("mqa", whole)).kv_bytes_per_token == whole.kv_bytes_per_token // 64
