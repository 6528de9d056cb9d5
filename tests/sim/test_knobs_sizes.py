"""Sizes, sharing and exclusiveness of tiers to hand counts: one replica, requests that do not overlap, equal prompts.

Eight prompts come one after the other and then again in reverse. So between the two uses of a prompt there are 0, 1,
2, ... others, and under LRU a tier that holds k prompts has exactly those with fewer than k others in between (the
stack property): which tier answers which request follows from the sizes alone.
"""

import pandas as pd
import pytest

COUNT, TOKENS = 8, 1024
PROMPT = TOKENS * 131072
"""Bytes of a prompt."""
HIT = TOKENS - 16
SECOND = 20.0 * COUNT


def rows():
    order = [*range(COUNT), *reversed(range(COUNT))]
    return [(20.0 * i, TOKENS, 1, [10 * family, 10 * family + 1]) for i, family in enumerate(order)]


def tier(name, prompts, **options):
    return {"name": name, "capacity": f"{prompts * PROMPT} B", **options}


@pytest.fixture
def second(run):
    """The requests of the second round by prompts in between, and the whole result."""

    def go(hbm, tiers, **keywords):
        result = run(rows(), blocks=hbm * TOKENS // 16, tiers=[{"name": "hbm"}, *tiers], **keywords)
        frame = result.frames["requests"]
        return frame[frame.arrival_s >= SECOND].reset_index(drop=True), result

    return go


def answered_by(requests, name):
    """How many others came between the uses of the prompts that this tier had."""
    return list(requests.index[requests[f"hit_{name}_tokens"] == HIT])


NAMES = ("hbm", "dram", "ssd", "remote")
SIZES = [(1, 2, 4, 8), (2, 4, 6, 8), (1, 4, 2, 6), (2, 3, 3, 7), (4, 4, 5, 6), (3, 1, 8, 0), (8, 8, 8, 8), (2, 0, 5, 7)]


@pytest.mark.parametrize("sizes", SIZES)
def test_each_tier_answers_what_its_size_says(second, sizes):
    requests, result = second(sizes[0], [tier(n, k) for n, k in zip(NAMES[1:], sizes[1:], strict=True)])
    reach = 0
    for name, size in zip(NAMES, sizes, strict=True):
        assert answered_by(requests, name) == list(range(reach, max(reach, size)))
        reach = max(reach, size)
    assert list(requests.computed_tokens) == [16] * reach + [TOKENS] * (COUNT - reach)
    tiers = result.summary["tiers"]
    for name, size in zip(NAMES, sizes, strict=True):  # it never holds more than fits, nor less when it has been full
        assert tiers[name]["peak_bytes"] == size * PROMPT


@pytest.mark.parametrize("name", NAMES)
def test_a_larger_tier_moves_only_what_it_gains(second, name):
    """Doubling a tier: what it answers now is faster, every other request is what it was, bit by bit. (The drives are
    faster than the network here, as the order of the tiers says.)"""
    made_of = {"ssd": {"device": "nvme-gen5-raid4"}, "remote": {"device": "rdma-100g"}}
    base = {"hbm": 1, "dram": 2, "ssd": 3, "remote": 4}
    before = None
    for size in (base[name], 2 * base[name]):
        sizes = base | {name: size}
        requests, _ = second(sizes["hbm"], [tier(n, sizes[n], **made_of.get(n, {})) for n in NAMES[1:]])
        if before is not None:
            gained = requests[f"hit_{name}_tokens"] > before[f"hit_{name}_tokens"]
            assert gained.sum() == size - max(k for n, k in base.items() if NAMES.index(n) <= NAMES.index(name))
            assert (requests.ttft_s < before.ttft_s)[gained].all()
            pd.testing.assert_frame_equal(requests[~gained], before[~gained], check_exact=True)
        before = requests


@pytest.mark.parametrize("name", ["dram", "c2c", "cxl", "ssd", "remote"])
@pytest.mark.parametrize("size", [4, 6])
def test_an_exclusive_tier_adds_to_the_one_above(second, name, size):
    """Inclusive, both tiers together have what the larger one has; exclusive, what both have, but for the prompt that
    a prompt on its way in needs room for while the one that makes way for it is on its way out."""
    found = {}
    for inclusive in (True, False):
        requests, result = second(2, [tier(name, size, inclusive=inclusive)], offload="write_back")
        found[inclusive] = answered_by(requests, "hbm") + answered_by(requests, name)
        assert (result.summary["tiers"][name]["moved_bytes"] > 0) is not inclusive
    assert found[True] == list(range(size))
    assert found[False] == list(range(2 + size - 1))


@pytest.mark.parametrize("block", [16, 64, 256])
def test_hbm_by_bytes_and_by_blocks_is_the_same(run, block):
    """tiers.hbm.capacity and engine.num_gpu_blocks; a byte more than whole blocks is of no use."""
    by_blocks = run(rows(), engine={"num_gpu_blocks": 3 * TOKENS // block, "block_tokens": block})
    by_bytes = run(rows(), tiers=[{"name": "hbm", "capacity": f"{3 * PROMPT + 1} B"}], engine={"block_tokens": block})
    for name, frame in by_blocks.frames.items():
        pd.testing.assert_frame_equal(by_bytes.frames[name], frame, check_exact=True)
    assert by_bytes.summary["tiers"]["hbm"]["capacity_bytes"] == 3 * PROMPT


def test_utilization_sets_the_blocks_by_arithmetic(run, hand):
    """vLLM's rule: a share of the memory, less weights, activations of the largest step and the reserve."""
    capacities = []
    for share in (0.3, 0.6, 0.9):
        summary = run(rows()[:2], engine={"gpu_memory_utilization": share}).summary
        activations = 8192 * (3 * hand.inter + 2 * hand.hidden) * 2 + 256 * hand.vocab * 6
        left = int(int(hand.value("capacity.hbm_bytes")) * share) - hand.weight_bytes - activations
        left -= int(hand.value("capacity.reserved_bytes"))
        capacities.append(summary["tiers"]["hbm"]["capacity_bytes"])
        assert capacities[-1] == pytest.approx(left, abs=16 * hand.token_bytes)
        assert capacities[-1] % (16 * hand.token_bytes) == 0
    assert capacities == sorted(capacities)


@pytest.mark.parametrize(
    ("shared", "node", "finds"),
    [
        ("private", 2, [0]),
        ("node", 1, [0]),
        ("node", 2, [0, 1, 3]),  # the third computes it for its own node, where the fourth finds it
        ("node", 4, [0, 1, 2, 3]),
        ("cluster", 1, [0, 1, 2, 3]),
    ],
)
@pytest.mark.parametrize("name", ["dram", "ssd", "remote", "c2c"])
def test_who_finds_what_another_has_stored(run, name, shared, node, finds):
    """Replica 0 computes a prompt and stores it; then each of the four asks for it, its own HBM being too small."""
    others = [(1.0 + i, TOKENS, 1, [100 + 2 * i, 101 + 2 * i]) for i in range(7)]
    asked = [(20.0 + 5 * i, TOKENS, 1, [1, 2]) for i in range(4)]
    result = run(
        [(0, TOKENS, 1, [1, 2]), *others, *asked],
        blocks=TOKENS // 16,
        tiers=[{"name": "hbm"}, tier(name, 100, shared=shared)],
        hardware={"profile": "h100-sxm", "replicas": 4, "gpus_per_node": node},
    )
    requests = result.frames["requests"].iloc[-4:]
    assert list(requests.replica) == [0, 1, 2, 3]
    assert list(requests.replica[requests[f"hit_{name}_tokens"] == HIT]) == finds
    assert (requests[f"hit_{name}_tokens"].isin((0, HIT))).all()
    groups = {"private": 4, "node": 4 // node, "cluster": 1}[shared]
    assert result.summary["tiers"][name]["count"] == groups
