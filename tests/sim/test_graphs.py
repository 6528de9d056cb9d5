"""CUDA graphs of decode steps: sizes that vLLM captures, what a padded step takes, and steps above the largest."""

import numpy as np
import pytest

from hw_profiles.errors import InputError
from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from sim.cost.graphs import Graphs, captured_sizes
from sim.cost.parallel import Parallel
from sim.cost.step import StepCost

MODEL, PROFILE = load_model("llama-3.1-8b"), load_profile("h100-sxm")
OUT = 20


def test_the_sizes_are_those_of_vllm():
    assert captured_sizes(4, 8192) == (1, 2, 4, 8)
    assert captured_sizes(1, 8192) == (1, 2)
    assert captured_sizes(256, 3) == (1, 2)
    sizes = captured_sizes(256, 8192)
    assert sizes[:6] == (1, 2, 4, 8, 16, 24)
    assert sizes[sizes.index(248) :] == (248, *range(256, 513, 16))
    assert captured_sizes(1024, 8192) == sizes


def test_a_batch_runs_as_the_smallest_graph_that_holds_it():
    graphs = Graphs(captured_sizes(128, 2048))
    for seqs in range(1, 300):
        rows = graphs.rows(seqs)
        assert rows == min((size for size in captured_sizes(128, 2048) if size >= seqs), default=None)
    assert Graphs().rows(77) == 77


@pytest.mark.parametrize("sizes", [None, [1, 2, 4, 8], [6, 12], [12]])
@pytest.mark.parametrize("seqs", [1, 3, 6, 8])
def test_linear_kernels_run_over_padded_rows(run, hand, prompt, seqs, sizes):
    """Equal requests at once: the head and attention see the sequences that are there, the matrices the padded rows."""
    rows = [(0, 640, OUT, prompt(i, 640)) for i in range(seqs)]
    engine = {} if sizes is None else {"graph_batch_sizes": sizes}
    requests = run(rows, engine={"max_num_seqs": 8, **engine}).frames["requests"]
    padded = next(size for size in sizes or (1, 2, 4, 8) if size >= seqs)
    fixed = hand.linear(padded, 0) + hand.head(seqs)
    decode = [fixed + hand.decode_attention(seqs, seqs * (640 + j)) for j in range(1, OUT)]
    assert requests.tpot_s.tolist() == pytest.approx([sum(decode) / len(decode)] * seqs, rel=1e-9)


@pytest.mark.parametrize("pp", [1, 2])
@pytest.mark.parametrize("launch", [5e-6, 50e-6])
def test_above_the_largest_graph_steps_take_what_they_take_without(pp, launch):
    """Four sequences to a graph, in each micro-batch; more are launched one by one, in the time that this takes."""
    shape = {"parallel": Parallel(pp=pp), "eager_launch_s": launch}
    some, none = (
        StepCost(MODEL, PROFILE, graph_sizes=[1, 2, 4], **shape),
        StepCost(MODEL, PROFILE, graphs=False, **shape),
    )
    floor = sum(stage.eager_floor_s for stage in none.stages)
    for steps in (1, 3):
        for seqs in (4 * pp + 1, 8 * pp):
            above, eager = (cost.decode_steps(seqs, 100 * seqs, (), steps) for cost in (some, none))
            assert np.all(above.seconds == eager.seconds)
            assert np.all(above.launch == eager.launch)
            assert np.all(above.launch > 0) == (launch > 5e-6)
            assert np.all(above.seconds >= floor)
        replayed, eager = (cost.decode_steps(4 * pp, 400 * pp, (), steps) for cost in (some, none))
        assert np.all(replayed.launch == 0.0)
        assert np.all(replayed.seconds <= eager.seconds)


def test_one_small_graph_is_no_faster_than_none(run, prompt):
    """Four sequences above a graph of one: every decode step is launched as without graphs, by `eager_launch`."""
    rows = [(0, 640, OUT, prompt(i, 640)) for i in range(4)]
    found = [
        run(rows, engine={"eager_launch": wait, **own}).frames["requests"].tpot_s.mean()
        for wait in ("50 us", "100 us")
        for own in ({"graph_batch_sizes": [1]}, {"graphs": False})
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert found[2] == pytest.approx(found[3], rel=1e-9)
    assert found[2] > 1.5 * found[0]


def test_stages_of_a_pipeline_replay_graphs_of_their_micro_batches():
    """Six sequences in two micro-batches of three, each padded to four."""
    padded, exact = (StepCost(MODEL, PROFILE, parallel=Parallel(pp=2), graph_sizes=s) for s in ([4], None))
    times = [cost.decode_steps(6, 6000, (), 1) for cost in (padded, exact)]
    assert times[0].attention[0] == times[1].attention[0]
    both = [sum(stage.linear(rows, 3) for stage in exact.stages) for rows in (4, 3)]
    assert times[0].linear - times[1].linear == pytest.approx(both[0] - both[1])


def test_batches_between_sizes_take_what_the_larger_one_takes():
    cost = StepCost(MODEL, PROFILE, graph_sizes=captured_sizes(256, 8192))
    times = [cost.linear(cost._graphs.rows(n), 0) for n in range(1, 257)]
    assert times == sorted(times)
    assert len(set(times[8:16])) == 1
    assert times[15] < times[16]


@pytest.mark.parametrize("sizes", [[], [4, 2], [2, 2], [0, 1], [1, 70_000], ["a"], 8])
def test_bad_sizes(scenario, sizes):
    with pytest.raises(InputError, match="graph_batch_sizes"):
        scenario(trace={"name": "quickstart"}, engine={"graph_batch_sizes": sizes})
