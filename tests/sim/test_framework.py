"""engine.framework: what each field of a framework changes, what it settles, and batches that papers report."""

import re
from dataclasses import replace
from math import ceil
from pathlib import Path

import pytest

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, constant
from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from policies.sequence.plan import FULL, Form, Move
from sim.cost.framework import FRAMEWORKS, framework_footprint, framework_plan, max_batch
from sim.cost.kv import kv_layout
from sim.cost.step import ONE_GPU
from sim.engine.footprint import Footprint, PlannedMemory
from sim.inputs import load_inputs
from sim.replicas import step_cost
from sim.run import simulate

LCKV = [  # arXiv 2405.10637, Table 1, Llama: GPU, model, prompt, output, largest batch
    ("rtx-3090", "llama-2-7b", 5, 8187, 1),
    ("rtx-3090", "llama-2-7b", 2048, 2048, 2),
    ("rtx-3090", "llama-2-7b", 5, 2043, 5),
    ("rtx-3090", "llama-2-7b", 512, 512, 9),
    ("rtx-3090", "llama-2-7b", 512, 1024, 7),
    ("rtx-3090", "tinyllama-1.1b", 5, 8187, 48),
    ("rtx-3090", "tinyllama-1.1b", 5, 2043, 239),
    ("a100-80", "llama-2-7b", 2048, 2048, 15),
    ("a100-80", "llama-30b", 2048, 2048, 1),
]


@pytest.mark.parametrize(("gpu", "model", "prompt", "output", "published"), LCKV)
def test_largest_batches_of_lckv(gpu, model, prompt, output, published):
    """Nothing is fitted but the factor 2 of a concatenated cache; a whole sequence more or less, or 30 %."""
    fits = max_batch(load_model(model), load_profile(gpu), prompt, output, framework="hf_concat")
    assert abs(int(fits) - published) <= max(1, 0.3 * published)


def test_the_documented_table_is_what_fits():
    text = (Path(__file__).resolve().parents[2] / "docs" / "engine.md").read_text()
    shown = re.findall(r"\| ([\d.]+)B \| (\d+) \+ (\d+) \| (\d+) \| ([\d.]+) \|", text)
    assert len(shown) == len(LCKV)
    names = {"7": "llama-2-7b", "1.1": "tinyllama-1.1b", "30": "llama-30b"}
    for size, prompt, output, published, fits in shown:
        model, lengths = names[size], (int(prompt), int(output))
        known = [row for row in LCKV if row[1:] == (model, *lengths, int(published))]
        assert len(known) == 1
        found = max_batch(load_model(model), load_profile(known[0][0]), *lengths, framework="hf_concat")
        assert float(fits) == pytest.approx(found, rel=5e-3)


@pytest.fixture
def made(scenario):
    """A scenario of requests of 500 + 50 tokens that come at once, on a framework."""

    def go(framework, count=4, tokens=500, output=50, **engine):
        rows = [(0, tokens, output, [10 * i + k for k in range(-(-tokens // 512))]) for i in range(count)]
        return scenario(rows, engine={"framework": framework, **engine})

    return go


def test_the_largest_batch_is_what_the_engine_runs(made, scenario):
    for framework in ("hf_concat", "flexgen_sync"):
        spec = {"hardware": {"profile": "rtx-3090"}, "model": "llama-2-7b"}
        rows = [(0, 512, 512, [i]) for i in range(12)]
        result = simulate(scenario(rows, engine={"framework": framework}, **spec), check=True)
        fits = max_batch(load_model("llama-2-7b"), load_profile("rtx-3090"), 512, 512, framework=framework)
        batches = result.frames["requests"].groupby("admit_s").size()
        assert batches.max() == min(12, int(fits))
        assert batches.iloc[0] == batches.max()


def test_memory_of_a_row_by_hand():
    model = load_model("llama-2-7b")
    layout, size = kv_layout(model, ONE_GPU), 512 * 1024
    memory = {
        name: PlannedMemory(framework_footprint(row, model, ONE_GPU, layout), 1)
        for name, row in FRAMEWORKS.items()
        if not row.paged and not row.slots
    }
    stream, mlp = 2 * 4096 * 2, 3 * 11008 * 2
    row = stream + mlp + 32000 * 6
    assert memory["hf_concat"].whole_blocks(1000, 1999) == -(-(2 * 1999 * size + row) // size)
    # the cache is there before the prompt runs, whose layers pass their part on; an MLP is wider than scores here
    prompt = 200 * (size // 32 + stream + mlp)
    assert memory["flexgen_sync"].whole_blocks(200, 1999) == -(-(1999 * size + row + prompt) // size)
    scores = 4000 * (size // 32 + stream + 3 * 4096 * 2) + 2 * 2 * 32 * 4000**2  # two copies of 16 bits for each head
    assert memory["flexgen_sync"].whole_blocks(4000, 4999) == -(-(4999 * size + row + scores) // size)
    # one token of output: the prompt's own KV and logits are what takes the most
    one = PlannedMemory(framework_footprint(replace(FRAMEWORKS["hf_concat"], kv_copies=1.0), model, ONE_GPU, layout), 1)
    assert one.whole_blocks(20_000, 20_000) == -(-20_000 * (size + stream + 32000 * 6) // size)


def test_layers_drop_what_they_do_not_keep_one_after_the_other():
    """A prompt of 6,400 tokens of which 800 are kept: a 32nd of it is there while its layer runs."""
    model = load_model("llama-2-7b")
    layout, size = kv_layout(model, ONE_GPU), 512 * 1024
    one = replace(FRAMEWORKS["hf_concat"], kv_copies=1.0)
    memory = PlannedMemory(framework_footprint(one, model, ONE_GPU, layout, Footprint(CONTEXT * 0.125)), 1)
    activations = 6400 * (2 * 4096 * 2 + 32000 * 6) / size
    assert memory.whole_blocks(6400, 6400) == ceil(800 + 200 + activations)
    early = Footprint(CONTEXT * 0.125, CONTEXT * 0.140625)  # a plan that says itself what is there meanwhile
    memory = PlannedMemory(framework_footprint(one, model, ONE_GPU, layout, early), 1)
    assert memory.whole_blocks(6400, 6400) == ceil(900 + activations)


def test_groups_of_rows_share_their_activations():
    model = load_model("opt-30b")
    layout = kv_layout(model, ONE_GPU)
    one, four = (
        PlannedMemory(framework_footprint(FRAMEWORKS["flexgen_overlap"], model, ONE_GPU, layout, parts=p), 1)
        for p in (1, 4)
    )
    kept = 543
    assert four.whole_blocks(512, kept) - kept == pytest.approx((one.whole_blocks(512, kept) - kept) / 4, abs=14)


def test_plans_are_held_twice_by_a_concatenated_cache():
    model = load_model("llama-2-7b")
    layout = kv_layout(model, ONE_GPU)
    planned = Footprint(CONTEXT * 0.25 + constant(40.0))
    found = framework_footprint(FRAMEWORKS["hf_concat"], model, ONE_GPU, layout, planned)
    plain = framework_footprint(FRAMEWORKS["hf_concat"], model, ONE_GPU, layout)
    assert found.decoding.at(4000, 10) - plain.decoding.base == pytest.approx(2 * (1000 + 40))
    assert framework_footprint(FRAMEWORKS["vllm_paged"], model, ONE_GPU, layout, planned) is planned


def test_concatenation_reads_and_writes_what_is_kept():
    kept = replace(FULL, form=Form(key=0.5, value=0.25))
    (work,) = framework_plan(FRAMEWORKS["hf_concat"], kept, 1000.0).works
    assert work.nbytes.at(300, 10) == pytest.approx(2 * 300 * 1000 * (0.5 + 0.25) / 2)
    assert work.launches == 2
    assert framework_plan(FRAMEWORKS["vllm_paged"], FULL, 1000.0) is FULL


def test_loads_ahead_need_overlap():
    layer = FULL.plus(moves=[Move("h2d", CONTEXT, when="ahead"), Move("d2h", CONTEXT, when="async")])
    sync, beside = (framework_plan(FRAMEWORKS[f], layer, 1.0) for f in ("flexgen_sync", "flexgen_overlap"))
    assert [move.when for move in sync.moves] == ["critical", "async"]
    assert beside.moves == layer.moves


def test_attention_of_its_own_is_slower_unless_a_format_brings_a_kernel():
    """Half of the rate is twice the time of what is attended, in the same bytes of memory and copies."""
    for name, row in FRAMEWORKS.items():
        found = framework_plan(row, FULL, 1.0).form
        assert found.rate == row.attention_rate
        assert found.of(CONTEXT).at(300, 10) == FULL.form.of(CONTEXT).at(300, 10)
        assert found.read(CONTEXT).at(300, 10) == pytest.approx(300 / row.attention_rate), name
        packed = replace(FULL, form=Form(key=0.25, value=0.25))
        assert framework_plan(row, packed, 1.0).form == packed.form
    assert FRAMEWORKS["vllm_paged"].attention_rate == 1.0 > FRAMEWORKS["flexgen_sync"].attention_rate


def test_launches_and_waits_per_layer(made):
    """Eager steps of a small model are as long as their launches; a framework that waits per layer adds that."""
    plain, hf, flexgen = (
        step_cost((s := made(f, graphs=False)).spec, load_inputs(s))
        for f in ("vllm_paged", "hf_concat", "flexgen_sync")
    )
    kernels = hf.stages[0].eager_floor_s / 25e-6
    assert kernels == 32 * 48 + 1
    assert hf.decode_steps(1, 500, (), 1).seconds >= 32 * 48 * 25e-6 > plain.decode_steps(1, 500, (), 1).seconds
    assert flexgen.host_time_s - hf.host_time_s == pytest.approx(32 * 50e-6)


def test_prompts_run_whole(run, made):
    """8 prompts of 2,000 tokens: one step of all of them, or chunks of 8,192 tokens."""
    rows = [(0, 2000, 5, [10 * i + k for k in range(4)]) for i in range(8)]
    steps = run(rows, engine={"framework": "hf_concat"}).frames["steps"]
    assert steps.prefill_tokens.max() == 16_000
    assert run(rows).frames["steps"].prefill_tokens.max() == 8192


def test_a_prompt_costs_the_same_to_compute_whatever_the_framework(made):
    """Of the bound of a run: a prompt that runs whole is priced like one that runs in full steps."""
    whole, chunked = (simulate(made(f), bound=True).summary["bound"] for f in ("hf_concat", "vllm_paged"))
    assert whole["compute_s"] == chunked["compute_s"] > 0


def test_slots(run, scenario):
    """Rows as long as the longest request, left and taken as requests come; each step runs all of them."""
    rows = [(0, 400, 100 if i else 300, [i]) for i in range(6)]
    engine = {"framework": "static_graph", "max_num_seqs": 4}
    result = run(rows, engine=engine, blocks=1500)  # blocks of one token: two slots of 700, whatever they hold
    steps, requests = result.frames["steps"], result.frames["requests"]
    assert steps.running.max() == 2
    assert result.summary["tiers"]["hbm"]["peak_bytes"] == 1400 * result.summary["hardware"]["kv_bytes_per_token"]
    assert requests.admit_s[2] == requests.finish_s[1]  # a slot that is left is taken
    assert result.summary["preemptions"] == 0
    made = scenario(rows, engine=engine)
    cost = step_cost(made.spec, load_inputs(made))
    assert {cost.decode_rows(n) for n in range(1, 5)} == {4}
    short = run(rows, engine={**engine, "slot_tokens": 600}, blocks=1500)
    assert list(short.frames["requests"].status) == ["rejected", *["finished"] * 5]
    assert "longer than a slot" in short.frames["requests"].reason[0]


def test_frameworks_settle_what_is_not_given(made):
    spec = made("hf_concat").spec.engine
    assert (spec.scheduling, spec.graphs, spec.prefix_caching, spec.block_tokens) == ("static", False, False, 1)
    assert spec.gpu_memory_utilization == 1.0
    assert made("hf_concat", gpu_memory_utilization=0.7, block_tokens=16).spec.engine.gpu_memory_utilization == 0.7
    assert made("hf_concat", graphs=False).spec.engine.graphs is False
    again = type(made("hf_concat")).from_dict(made("hf_concat").resolved())
    assert again.spec.engine == spec


@pytest.mark.parametrize(
    ("framework", "key", "value"),
    [
        ("hf_concat", "prefix_caching", True),
        ("hf_concat", "graphs", True),
        ("hf_concat", "scheduling", "fcfs"),
        ("flexgen_sync", "max_num_batched_tokens", 4096),
        ("static_graph", "prefix_caching", True),
        ("static_graph", "hybrid_kv_cache", True),
        ("vllm_paged", "slot_tokens", 100),
    ],
)
def test_contradictions_are_refused_with_one_line(made, framework, key, value):
    with pytest.raises(InputError, match=f"engine.{key}") as error:
        made(framework, **{key: value})
    assert "\n" not in str(error.value)


def test_nothing_behind_hbm_with_rows_of_its_own(scenario):
    with pytest.raises(InputError, match="hf_concat shares no KV"):
        scenario([(0, 100, 5, [1])], engine={"framework": "hf_concat"}, dram="10 GiB")


def test_assumptions_say_which_framework(run):
    rows = [(0, 100, 5, [1])]
    plain, hf = (run(rows, engine={"framework": f}).summary["assumptions"] for f in ("vllm_paged", "hf_concat"))
    assert "vLLM v1 scheduling" in plain[0]
    assert "static batches" in hf[0]
    assert "torch.cat" in hf[0]
    assert not [line for line in hf if "stay cached" in line or "Policies within a sequence" in line]
