"""Offload and prefetch within a sequence: bytes per link, memory, overlap, and what they combine with."""

from dataclasses import replace
from typing import Any

import pytest

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line, upto
from policies.offload.flexgen import COMPRESSED, FlexGen
from policies.offload.host_kv import HostKV
from policies.offload.uvm import UVM
from policies.prefetch.l2 import L2
from policies.selection.quest import Quest
from policies.sequence.plan import FULL, Form, Importance, LayerPlan, LayerView, SequencePlan
from policies.tables import SEQUENCE_OFFLOAD

H2O = replace(FULL, kept=Line(prompt=0.2), attended=Line(prompt=0.2))
"""What H2O with 20 % of the prompt leaves."""


def opt_13b(importance: Any = None, **changes: Any) -> LayerView:
    """A layer of OPT-13B; none of these policies asks for importance."""
    known: Importance = importance
    view = LayerView(
        index=5,
        layers=40,
        hidden=5120,
        heads=40,
        kv_heads=40,
        head_dim=128,
        token_bytes=2 * 40 * 128 * 2,
        element_bytes=2,
        latent=False,
        window=None,
        max_context=2048,
        max_seqs=20,
        importance=known,
        weight_bytes=12 * 5120**2 * 2,
    )
    return replace(view, **changes)


def moved(plan: LayerPlan, direction: str, context: float, prompt: float = 0.0, when: str | None = None) -> float:
    """Bytes that a decode step moves for one sequence and this layer, weights included."""
    moves = [m for m in plan.moves if m.direction == direction and when in (None, m.when)]
    return sum(m.nbytes.at(context, prompt) + m.fixed for m in moves)


VIEW = opt_13b()
WHOLE = 2048 * VIEW.token_bytes


def test_fig_18_loads_335_mb_per_layer() -> None:
    """OPT-13B, 2048 tokens, batch 8: 335.5 MB, 28 ms at 12 GB/s."""
    plan = HostKV(overlap=False).plan(VIEW, FULL)
    nbytes = 8 * moved(plan, "h2d", 2048, when="critical")
    assert nbytes == pytest.approx(335.5e6, rel=1e-3)
    assert nbytes / 12e9 == pytest.approx(27.96e-3, rel=1e-3)
    assert moved(plan, "d2h", 2048) == VIEW.token_bytes


@pytest.mark.parametrize(("overlap", "when", "buffers"), [(True, "ahead", 2), (False, "critical", 1)])
def test_host_kv_overlap(overlap: bool, when: str, buffers: int) -> None:
    plan = HostKV(overlap=overlap).plan(VIEW, FULL)
    assert moved(plan, "h2d", 2048) == moved(plan, "h2d", 2048, when=when) == WHOLE
    # 40 layers share the buffers of one or two
    assert 40 * plan.extra.at(2048, 0) == pytest.approx(buffers * WHOLE)
    assert plan.kept.zero
    assert plan.host.at(2048, 0) == WHOLE
    assert plan.attended == CONTEXT
    assert plan.prompt_moves[0].nbytes.at(1920, 0) == 1920 * VIEW.token_bytes
    assert plan.kept_in_prefill == Line()  # the buffers again


def test_a_share_stays_in_hbm() -> None:
    plan = HostKV(share=0.25).plan(VIEW, FULL)
    assert plan.kept.at(2048, 0) == 0.75 * 2048
    assert moved(plan, "h2d", 2048) == 0.25 * WHOLE


@pytest.mark.parametrize("name", SEQUENCE_OFFLOAD)
def test_retention_and_formats_shrink_what_moves(name: str) -> None:
    """FlexGen + H2O (20 %) moves a fifth, + INT4 0.28 of the bytes; UVM + H2O likewise."""
    policy = SEQUENCE_OFFLOAD[name](weights=False) if name == "uvm" else SEQUENCE_OFFLOAD[name]()
    assert moved(policy.plan(VIEW, FULL), "h2d", 2048, 2048) == pytest.approx(WHOLE)
    dropped = policy.plan(VIEW, H2O)
    assert moved(dropped, "h2d", 2048, 2048) == pytest.approx(0.2 * WHOLE)
    assert dropped.prompt_moves[0].nbytes.at(2048, 0) == pytest.approx(0.2 * WHOLE)
    packed = policy.plan(VIEW, replace(FULL, form=Form(key=COMPRESSED, value=COMPRESSED)))
    assert moved(packed, "h2d", 2048, 2048) == pytest.approx(0.28125 * WHOLE)
    assert packed.host.at(2048, 0) == pytest.approx(0.28125 * WHOLE)


@pytest.mark.parametrize("name", SEQUENCE_OFFLOAD)
def test_selection_with_a_load_of_everything_is_refused(name: str) -> None:
    selected = Quest(budget=256).plan(VIEW, FULL)
    assert selected.attended != selected.kept
    with pytest.raises(InputError, match="whatever the step selects"):
        SEQUENCE_OFFLOAD[name]().plan(VIEW, selected)


def test_windows_bound_what_is_offloaded() -> None:
    plan = HostKV().plan(opt_13b(window=512), replace(FULL, attended=upto(512)))
    assert moved(plan, "h2d", 2048) == 512 * VIEW.token_bytes


def test_uvm_migrates_everything_both_ways() -> None:
    plan = UVM(rate="500 MB/s").plan(VIEW, FULL)
    faults = [m for m in plan.moves if m.via == "fault"]
    assert faults == list(plan.moves)
    assert {m.rate for m in faults} == {500e6}
    assert moved(plan, "h2d", 2048, when="critical") == WHOLE + VIEW.weight_bytes
    assert moved(plan, "d2h", 2048) == WHOLE
    assert UVM().weights_on_host == 1.0
    assert UVM(weights=False).weights_on_host == 0.0
    assert UVM(share=0.0).plan(VIEW, FULL) is FULL


def test_flexgen_all_on_the_gpu_is_the_plain_plan() -> None:
    policy = FlexGen(kv=0)
    assert policy.plan(VIEW, FULL) == FULL
    assert policy.weights_on_host == 0.0


def test_flexgen_with_kv_alone_on_the_host_is_host_kv() -> None:
    for overlap in (True, False):
        flexgen, host = FlexGen(overlap=overlap).plan(VIEW, FULL), HostKV(overlap=overlap).plan(VIEW, FULL)
        assert {(m.direction, m.when, m.nbytes) for m in flexgen.moves} == {
            (m.direction, m.when, m.nbytes) for m in host.moves
        }
        assert (flexgen.kept, flexgen.extra, flexgen.host) == (host.kept, host.extra, host.host)


def test_flexgen_weights_by_device() -> None:
    """30 B on 16 GB, `--percent 20 50 100 0 100 0`: half of a layer's weights from the host, 30 % from disk."""
    policy = FlexGen(weights=0.8, weights_disk=0.3, kv=0)
    assert policy.weights_on_host == pytest.approx(0.8)
    host, disk = policy.plan(VIEW, FULL).moves
    assert host.via == "dma"
    assert host.fixed == pytest.approx(0.5 * VIEW.weight_bytes)
    assert (disk.via, disk.rate) == ("gather", 2e9)
    assert disk.fixed == pytest.approx(0.3 * VIEW.weight_bytes)
    assert host.when == disk.when == "ahead"
    late = FlexGen(weights=0.8, kv=0, overlap=False).plan(VIEW, FULL)
    assert late.moves[0].when == "critical"


def test_flexgen_packs_weights() -> None:
    """4 bits in groups of 64: 0.28 of the bytes on every device, and a kernel that unpacks them."""
    policy = FlexGen(weights=0.5, kv=0, compress_weights=True)
    plan = policy.plan(VIEW, FULL)
    assert pytest.approx(0.28125) == COMPRESSED
    assert plan.moves[0].fixed == pytest.approx(0.5 * 0.28125 * VIEW.weight_bytes)
    assert policy.weights_on_host == pytest.approx(1 - 0.5 * 0.28125)
    assert plan.works[0].fixed == pytest.approx(6.5 * VIEW.weight_bytes)


def test_flexgen_batches_of_a_block() -> None:
    """The KV of one GPU batch at a time is in HBM; weights come once per step and are read once per batch."""
    one, four = FlexGen().plan(VIEW, FULL), FlexGen(batches=4).plan(VIEW, FULL)
    assert four.extra.at(2048, 0) == pytest.approx(one.extra.at(2048, 0) / 4)
    assert moved(four, "h2d", 2048) == moved(one, "h2d", 2048)
    assert four.works[0].fixed == 3 * VIEW.weight_bytes


def test_flexgen_disk_and_activations() -> None:
    plan = FlexGen(kv_disk=0.4, activations=1).plan(VIEW, FULL)
    disk = next(m for m in plan.moves if m.via == "gather")
    assert disk.nbytes.at(2048, 0) == pytest.approx(0.4 * WHOLE)
    hidden = 5120 * 2
    assert moved(plan, "h2d", 2048) == pytest.approx(WHOLE + hidden)
    assert moved(plan, "d2h", 2048) == pytest.approx(VIEW.token_bytes + hidden)


def test_flexgen_attention_on_the_cpu() -> None:
    """KV stays where it is: a query and an output per token cross the link; the CPU reads KV at its own rate."""
    plan = FlexGen(cpu_attention=True, host_rate="60 GB/s").plan(VIEW, FULL)
    assert moved(plan, "h2d", 2048) == 40 * 128 * 2
    assert moved(plan, "d2h", 2048) == 40 * 128 * 2 + VIEW.token_bytes
    assert plan.attended.zero
    assert plan.extra.zero
    # a prompt is computed on the GPU, two layers' KV at a time
    assert plan.kept_in_prefill is not None
    assert plan.kept_in_prefill.at(1920, 0) == pytest.approx(1920 * 2 / 40)
    (work,) = plan.works
    assert work.host_seconds.at(2048, 0) == pytest.approx(WHOLE / 60e9)
    assert not work.beside


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        (FlexGen, {"weights_disk": 0.1}),
        (FlexGen, {"kv": -1}),
        (FlexGen, {"batches": 0}),
        (HostKV, {"share": 0}),
        (UVM, {"rate": "fast"}),
        (L2, {"lookahead": 0}),
        (L2, {"baseline": 1.5}),
    ],
)
def test_wrong_options_are_named(policy: type, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: found"):
        policy(**options)


def test_l2_says_how_far_ahead_and_nothing_else() -> None:
    before = replace(FULL, kept=upto(100), attended=upto(100))
    assert L2(lookahead="4 MiB").plan(VIEW, before) == replace(before, l2_lookahead=4 << 20)
    other = L2(prefetch=False, baseline=0.471).plan(VIEW, before)
    assert other == replace(before, attention_share=0.471)
    assert SequencePlan((L2(baseline=0.471).plan(VIEW, FULL),)).plain
    assert SequencePlan((FULL, other)).attention_share == 0.471
