"""Prompt tokens that are computed again: those that an earlier prompt had and that nothing kept."""

import numpy as np
import pytest

from sim import lost_reuse
from traces.request import Trace

BLOCKS = 256
A, B = 1600, 4000


@pytest.fixture
def rows(prompt):
    """A prompt, one that pushes it out of HBM, and the first one again."""
    return [(0, A, 1, prompt(1, A)), (10, B, 1, prompt(2, B)), (20, A, 1, prompt(1, A))]


def test_what_was_evicted_and_comes_again_is_computed_again(run, rows):
    result = run(rows, blocks=BLOCKS)
    prefix = result.summary["prefix"]
    whole = (A - 1) // 16 * 16
    assert prefix["hit_tokens"]["hbm"] == 0
    assert prefix["computed_again_tokens"] == whole
    assert prefix["computed_tokens"] == 2 * A + B


def test_a_tier_that_keeps_it_leaves_nothing_to_compute_again(run, rows):
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "4 GiB"}]
    result = run(rows, blocks=BLOCKS, tiers=tiers, policies={"offload": "write_through"})
    prefix = result.summary["prefix"]
    assert prefix["hit_tokens"]["dram"] == (A - 1) // 16 * 16
    assert prefix["computed_again_tokens"] == 0


def test_a_prompt_that_is_new_after_a_shared_beginning_counts_its_beginning_alone(run, prompt):
    shared = prompt(1, 1024)
    rows = [(0, 1536, 1, [*shared, 77]), (10, B, 1, prompt(2, B)), (20, 1536, 1, [*shared, 88])]
    assert run(rows, blocks=BLOCKS).summary["prefix"]["computed_again_tokens"] == 1024


def test_without_prefixes_nothing_is_said(run, rows):
    result = run(rows, blocks=BLOCKS, engine={"prefix_caching": False})
    assert "computed_again_tokens" not in result.summary["prefix"]


@pytest.mark.parametrize("spread", [1, 10**12])
@pytest.mark.parametrize("together", [1, 3, 1000])
def test_leading_blocks_that_an_earlier_prompt_had_by_a_set_of_all_that_were_seen(monkeypatch, spread, together):
    """Any order of admission, ids without gaps or far apart, prompts looked at one by one or all at once."""
    monkeypatch.setattr(lost_reuse, "ROWS", together)
    rng = np.random.default_rng(together)
    stems = [[spread * (100 * stem + place) + 7 for place in range(6)] for stem in range(4)]
    prompts = [
        stems[rng.integers(4)][: rng.integers(7)] + [spread * (1000 + i)] * int(rng.integers(2)) for i in range(40)
    ]
    lengths = [len(prompt) for prompt in prompts]
    trace = Trace(
        "by hand", 16, np.arange(40.0), 16 * np.maximum(lengths, 1), np.ones(40), np.concatenate(prompts),
        np.concatenate([[0], np.cumsum(lengths)]), "", "",
    )  # fmt: skip
    order = rng.permutation(40)
    columns = {
        "request_id": np.arange(40),
        "admit_s": np.argsort(order).astype(float),
        "input_tokens": trace.input_tokens + 1,
        "hit_hbm_tokens": np.zeros(40, np.int64),
    }
    columns["admit_s"][order[5]] = np.nan
    expected, seen = np.zeros(40, np.int64), set()
    for row in np.delete(order, 5):
        new = [key not in seen for key in prompts[row]]
        expected[row] = 16 * (new.index(True) if True in new else len(new))
        seen.update(prompts[row])
    assert lost_reuse.computed_again(trace, columns, 16).tolist() == expected.tolist()
    assert expected.any()
