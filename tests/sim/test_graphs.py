"""CUDA graphs of decode steps: sizes that vLLM captures, what a padded step takes, and steps above the largest."""

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


def test_above_the_largest_graph_kernels_are_launched_one_by_one():
    profile = PROFILE.override("kernels.launch.stream", 50e-6)
    graphs = StepCost(MODEL, profile, graph_sizes=[1, 2, 4])
    floor = graphs.stages[0].launch_floor_s
    replayed, launched = (graphs.decode_steps(n, 100 * n, (), 1) for n in (4, 5))
    assert replayed.launch == 0.0 < launched.launch
    assert replayed.seconds < launched.seconds == pytest.approx(floor)
    many = graphs.decode_steps(5, 500, (), 3)
    assert many.seconds[0] == launched.seconds
    assert many.launch[0] == launched.launch


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
