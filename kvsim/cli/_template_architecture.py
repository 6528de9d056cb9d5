"""The files of a new transform of the model."""

from __future__ import annotations

from kvsim.cli._template_parts import Template, with_contract

POLICY = '''\
"""An architecture for kvsim; as it stands, half of the model's KV heads."""

from dataclasses import replace

from kvsim import GQA, Architecture, InputError, ModelSpec


class $cls(Architecture):
    """Every KV head serves twice as many query heads as the model's own."""

    # Keyword arguments are options of the scenario:
    # `policies: {architecture: {name: "$name.py:$cls", fewer: 4}}`;
    # raise ValueError for a value that makes no sense.
    def __init__(self, *, fewer: int = 2) -> None:
        if fewer < 1:
            raise ValueError(f"fewer: found {fewer!r}, expected a whole number >= 1")
        self._fewer = fewer

    def apply(self, model: ModelSpec) -> ModelSpec:
        """The transformed model; InputError for one that this is not defined for."""
        # A model has specs, its distinct layers, and pattern: for each of its layers,
        # which of them it is. A layer has attention, mlp, kv (a format) and cadence.
        specs = []
        for layer in model.specs:
            attention = layer.attention
            if not isinstance(attention, GQA):
                raise InputError(f"not defined for the latent cache of {model.name}")
            if attention.kv_heads % self._fewer:
                raise InputError("fewer: no divisor of the KV heads", found=self._fewer)
            smaller = replace(attention, kv_heads=attention.kv_heads // self._fewer)
            specs.append(replace(layer, attention=smaller))
        name = f"{model.name}+$name"
        kv_heads = model.kv_heads // self._fewer
        return replace(model, name=name, specs=tuple(specs), kv_heads=kv_heads)
'''

TEST = with_contract(
    '''\
def test_less_memory_is_held_and_read() -> None:
    mine, plain = run("$name.py:$cls"), run("none")
    assert mine["requests"]["finished"] == 200
    hbm = [summary["tiers"]["hbm"]["capacity_bytes"] for summary in (mine, plain)]
    assert hbm[0] < hbm[1]
    assert mine["tpot_ms"]["mean"] < plain["tpot_ms"]["mean"]


def test_it_is_gqa_so_far() -> None:
    """Say here what your architecture is to do better than fewer heads."""
    mine = run("$name.py:$cls")
    shipped = run({"name": "gqa", "kv_heads": 4})
    assert mine["tpot_ms"] == shipped["tpot_ms"]
    assert mine["tiers"] == shipped["tiers"]
''',
)

ARCHITECTURE = Template(POLICY, TEST)
