"""Prompt tokens that are computed again: those that an earlier prompt had and that nothing kept."""

import pytest

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
