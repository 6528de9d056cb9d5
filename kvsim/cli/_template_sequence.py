"""The files of new policies within a sequence: what is kept, how it is stored, what a step reads."""

from __future__ import annotations

from kvsim.cli._template_parts import Template, with_contract

ALONE = {
    "engine": ', "prefix_caching": False',
    "tiers": '[{"name": "hbm"}]',
    "operations": "200",
}
"""A sequence that keeps its KV in a way of its own shares no blocks, neither in HBM nor behind it.
Its plans hang on nothing that happens, so fewer of them tell."""

LAYERS = """\
        # A layer has index, layers, heads, kv_heads, head_dim, token_bytes, window,
        # max_context and importance, among others. A plan has kept and attended tokens,
        # a form, extra bytes, works (kernels) and moves (copies), each a line in the
        # context: upto(1024), constant(8.0), CONTEXT. Without a kernel or a copy named
        # here, what the policy does costs no time.
"""

_BUDGET = (
    '''\
"""<what>"""

from dataclasses import replace

from kvsim import LayerPlan, LayerView, SequencePolicy


class $cls(SequencePolicy):
    """<does>"""

    # Keyword arguments are options of the scenario:
    # `policies: {<family>: {name: "$name.py:$cls", tokens: 1024}}`;
    # raise ValueError for a value that makes no sense.
    def __init__(self, *, tokens: int = 2048) -> None:
        if tokens < 1:
            raise ValueError(f"tokens: found {tokens!r}, expected a whole number >= 1")
        self._tokens = tokens

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, from that of the policies before; asked once per layer."""
'''
    + LAYERS
)
"""A policy with a number of tokens, less its last lines."""


def _budget(family: str, what: str, does: str, returns: str) -> str:
    return _BUDGET.replace("<family>", family).replace("<what>", what).replace("<does>", does) + returns


RETENTION_POLICY = _budget(
    "retention",
    "A retention policy for kvsim; as it stands, a window of the newest tokens.",
    "Keeps the newest tokens, and drops the others when the prompt is complete.",
    """\
        return replace(
            before,
            kept=before.kept.capped(self._tokens),
            attended=before.attended.capped(self._tokens),
        )
""",
)

SELECTION_POLICY = _budget(
    "selection",
    "A selection policy for kvsim; as it stands, a step reads so many tokens of all.",
    "Keeps everything in HBM, and reads so many tokens in each step.",
    """\
        return replace(before, attended=before.attended.capped(self._tokens))
""",
)

FORMAT_POLICY = (
    '''\
"""A format of KV for kvsim; as it stands, half the bytes of keys and of values."""

from dataclasses import replace

from kvsim import CONTEXT, Form, LayerPlan, LayerView, SequencePolicy


class $cls(SequencePolicy):
    """Stores keys and values in half the bytes of the engine's own format."""

    # Keyword arguments are options of the scenario:
    #     def __init__(self, *, share: float = 0.5) -> None:
    # is set by
    # `policies: {kv_format: {name: "$name.py:$cls", share: 0.25}}`;
    # raise ValueError for a value that makes no sense.

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, from that of the policies before; asked once per layer."""
'''
    + LAYERS
    + """\
        # A form says bytes as shares of the engine's format, and at what share of its
        # bandwidth attention reads them. What is kept while a prompt is computed is in
        # that form too; None in its place would be: not before the prompt is complete.
        form = Form(key=0.5, value=0.5, rate=1.0)
        return replace(before, form=form, kept_in_prefill=CONTEXT)
"""
)

RETENTION_TEST = '''\
def test_less_memory_is_held_and_read() -> None:
    mine, all_of_it = run("$name.py:$cls"), run("none")
    assert mine["requests"]["finished"] == 200
    assert mine["tiers"]["hbm"]["peak_bytes"] < all_of_it["tiers"]["hbm"]["peak_bytes"]
    assert mine["tpot_ms"]["mean"] < all_of_it["tpot_ms"]["mean"]


def test_it_holds_what_streaming_llm_holds_so_far() -> None:
    """Say here what your policy is to do better than a window of the newest tokens."""
    mine = run("$name.py:$cls")
    window = run({"name": "streaming_llm", "sinks": 0, "window": 2048})
    assert mine["tiers"]["hbm"]["peak_bytes"] == window["tiers"]["hbm"]["peak_bytes"]
'''

SELECTION_TEST = '''\
def test_steps_read_less() -> None:
    mine = run("$name.py:$cls")
    all_of_it = run({"name": "$name.py:$cls", "tokens": 1_000_000})
    assert mine["requests"]["finished"] == 200
    assert mine["tpot_ms"]["mean"] < all_of_it["tpot_ms"]["mean"]


def test_it_costs_less_than_quest_so_far() -> None:
    """Nothing says yet how the tokens are found; Quest reads digests of all pages."""
    mine = run("$name.py:$cls")
    quest = run({"name": "quest", "budget": 2048, "full_layers": 0})
    assert mine["tpot_ms"]["mean"] < quest["tpot_ms"]["mean"]
'''

FORMAT_TEST = '''\
def test_less_memory_is_held() -> None:
    mine, plain = run("$name.py:$cls"), run("none")
    assert mine["requests"]["finished"] == 200
    assert mine["tiers"]["hbm"]["peak_bytes"] < plain["tiers"]["hbm"]["peak_bytes"]


def test_it_is_fp8_so_far() -> None:
    """Say here what your format is to do better than 8-bit values."""
    mine, fp8 = run("$name.py:$cls"), run("fp8")
    assert mine["tpot_ms"] == fp8["tpot_ms"]
    assert mine["tiers"]["hbm"]["peak_bytes"] == fp8["tiers"]["hbm"]["peak_bytes"]
'''

RETENTION = Template(RETENTION_POLICY, with_contract(RETENTION_TEST, **ALONE))
SELECTION = Template(SELECTION_POLICY, with_contract(SELECTION_TEST, **ALONE))
KV_FORMAT = Template(FORMAT_POLICY, with_contract(FORMAT_TEST, **ALONE))
