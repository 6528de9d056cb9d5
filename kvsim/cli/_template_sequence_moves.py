"""The files of new policies within a sequence that move its KV: to host memory, and into L2."""

from __future__ import annotations

from kvsim.cli._template_parts import Template, with_contract
from kvsim.cli._template_sequence import ALONE, LAYERS

OFFLOAD_POLICY = (
    '''\
"""Offload within a sequence for kvsim; as it stands, all KV in host memory."""

from dataclasses import replace

from kvsim import (
    CONTEXT,
    InputError,
    LayerPlan,
    LayerView,
    SequencePolicy,
    StepMove,
    constant,
)


class $cls(SequencePolicy):
    """KV of running sequences in host memory; each layer's is loaded for every step."""

    # Keyword arguments are options of the scenario, below `policies`:
    # `sequence_offload: {name: "$name.py:$cls", buffers: 1}`;
    # raise ValueError for a value that makes no sense.
    def __init__(self, *, buffers: float = 2.0) -> None:
        self._buffers = buffers

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, from that of the policies before; asked once per layer."""
'''
    + LAYERS
    + """\
        if before.kept != CONTEXT or before.attended != CONTEXT or layer.window:
            raise InputError("it loads all KV of a layer, whatever others keep or read")
        held = before.form.of(CONTEXT) * layer.token_bytes
        new = constant(held.slope)
        # A move says when: ahead (beside the layer before), critical (the layer waits
        # for it) or async; keys and values are a copy each.
        loads = StepMove("h2d", held, constant(2), "ahead")
        stores = StepMove("d2h", new, constant(2), "async")
        spill = StepMove("d2h", held, constant(0), "async")
        return replace(
            before,
            kept=CONTEXT * 0.0,
            kept_in_prefill=CONTEXT * 0.0,
            extra=before.extra + held * (self._buffers / layer.layers),
            host=before.host + held,
            moves=(*before.moves, loads, stores),
            prompt_moves=(*before.prompt_moves, spill),
        )
"""
)

PREFETCH_POLICY = '''\
"""Prefetch into L2 for kvsim; as it stands, 8 MiB of a layer's KV ahead."""

from dataclasses import replace

from kvsim import LayerPlan, LayerView, SequencePolicy


class $cls(SequencePolicy):
    """Asks for KV before the attention kernel of a decode step reads it."""

    # Keyword arguments are options of the scenario, below `policies`:
    # `sequence_prefetch: {name: "$name.py:$cls", lookahead: 4194304}`;
    # raise ValueError for a value that makes no sense.
    def __init__(self, *, lookahead: int = 8 << 20) -> None:
        if lookahead < 0:
            raise ValueError(f"lookahead: found {lookahead!r}, expected bytes >= 0")
        self._lookahead = lookahead

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, from that of the policies before; asked once per layer."""
        # A layer has index, layers, heads, kv_heads, head_dim, token_bytes and window,
        # among others. Beside the look-ahead, bytes of the layer's KV in flight, a plan
        # has attention_share: the share of HBM's rate that the kernel reads at without.
        return replace(before, l2_lookahead=self._lookahead, attention_share=0.5)
'''

OFFLOAD_TEST = '''\
def test_host_memory_holds_what_hbm_does_not() -> None:
    mine = run("$name.py:$cls")
    plain = run({"name": "host_kv", "share": 0.01})
    assert mine["requests"]["finished"] == 200
    assert mine["tiers"]["hbm"]["peak_bytes"] < plain["tiers"]["hbm"]["peak_bytes"]
    assert mine["tpot_ms"]["mean"] > plain["tpot_ms"]["mean"]


def test_it_is_host_kv_so_far() -> None:
    """Say here what your policy is to do better than loading a layer's KV whole."""
    mine, shipped = run("$name.py:$cls"), run("host_kv")
    assert mine["tpot_ms"] == shipped["tpot_ms"]
    assert mine["tiers"]["hbm"]["peak_bytes"] == shipped["tiers"]["hbm"]["peak_bytes"]
'''

PREFETCH_TEST = '''\
def test_attention_that_asks_ahead_is_faster() -> None:
    mine = run("$name.py:$cls")
    none = run({"name": "$name.py:$cls", "lookahead": 0})
    assert mine["requests"]["finished"] == 200
    assert mine["tpot_ms"]["mean"] < none["tpot_ms"]["mean"]


def test_what_does_not_fit_l2_is_read_twice() -> None:
    mine = run("$name.py:$cls")
    too_far = run({"name": "$name.py:$cls", "lookahead": 1 << 30})
    assert too_far["tpot_ms"]["mean"] > mine["tpot_ms"]["mean"]


def test_it_is_l2_so_far() -> None:
    """Say here what your policy is to do better than one look-ahead for all layers."""
    mine = run("$name.py:$cls")
    shipped = run({"name": "l2", "baseline": 0.5})
    assert mine["tpot_ms"] == shipped["tpot_ms"]
'''

SEQUENCE_OFFLOAD = Template(OFFLOAD_POLICY, with_contract(OFFLOAD_TEST, **ALONE))
SEQUENCE_PREFETCH = Template(PREFETCH_POLICY, with_contract(PREFETCH_TEST, **ALONE))
