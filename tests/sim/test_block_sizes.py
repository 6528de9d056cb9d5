"""Tiers with blocks of their own size: what is stored, what a load moves, what is still a hit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.errors import InputError

HBM = {"name": "hbm"}
HASH = 512
DISK = {
    "ssd_read": {"bandwidth": "5 GB/s", "latency": "100 us"},
    "ssd_write": {"bandwidth": "2 GB/s", "latency": "50 us"},
}
BLOCKS = 512  # 8,192 tokens of HBM


def tier(name, tokens=None, capacity="100 GiB", **options):
    size = {} if tokens is None else {"block_tokens": tokens}
    return {"name": name, "capacity": capacity, **size, **options}


def back_after(prompt, tokens, other=8000, spacing=20):
    """A prompt, one that drives it out of HBM, and the first one again."""
    return [(i * spacing, n, 1, prompt(f, n)) for i, (f, n) in enumerate(((1, tokens), (2, other), (1, tokens)))]


def moved(result, reason, src=None):
    table = result.frames["transfers"]
    table = table[table.reason == reason]
    return table if src is None else table[table.src == src]


def chat(**options):
    return {"generate": {"requests": 120, "rate": 3, "turns": 4, "think_time": "10 s", **options}}


def same(one, other):
    return all(one.frames[name].equals(other.frames[name]) for name in one.frames)


@pytest.mark.parametrize("offload", ["write_through", "write_back", "write_through_selective"])
def test_the_block_of_the_tier_before_is_what_it_is_without(run, offload):
    tiers = [HBM, tier("dram", capacity="16 GiB"), tier("ssd")]
    keywords = {"trace": chat(), "blocks": 3000, "links": DISK, "policies": {"offload": offload}}
    without = run(tiers=tiers, **keywords)
    named = run(tiers=[{**t, "block_tokens": 16} for t in tiers], **keywords)
    assert same(without, named)
    assert without.summary["tiers"] == named.summary["tiers"]


@pytest.mark.parametrize("tokens", [256, 512, 1024, 2048])
def test_only_whole_blocks_are_stored(run, hand, prompt, tokens):
    """Of 3,000 tokens; the engine's own blocks would leave 2,992."""
    result = run(back_after(prompt, 3000)[:1], blocks=BLOCKS, tiers=[HBM, tier("dram", tokens)])
    stored = 3000 // tokens * tokens * hand.token_bytes
    assert result.summary["tiers"]["dram"]["stored_bytes"] == stored == moved(result, "store").bytes.sum()


@pytest.mark.parametrize("tokens", [16, 256, 512, 1024, 2048])
def test_a_load_brings_whole_blocks(run, hand, prompt, tokens):
    """2,048 tokens are held and 2,032 can be used, since one must be computed: a whole block is moved for the last."""
    result = run(back_after(prompt, 2048), blocks=BLOCKS, tiers=[HBM, tier("dram", tokens)])
    row = result.frames["requests"].iloc[2]
    assert row.hit_dram_tokens == 2032
    assert moved(result, "load").bytes.sum() == -(-2032 // tokens) * tokens * hand.token_bytes
    assert result.summary["tiers"]["dram"]["loaded_bytes"] == moved(result, "load").bytes.sum()


@pytest.mark.parametrize("tokens", [16, 1024, 2048, 4096])
def test_what_hbm_has_of_a_block_is_moved_again(run, hand, prompt, tokens):
    """HBM keeps the first 1,536 or so of 4,096 tokens: the block in which that ends is moved as a whole."""
    result = run(back_after(prompt, 4096, other=6600), blocks=BLOCKS, tiers=[HBM, tier("dram", tokens)])
    row = result.frames["requests"].iloc[2]
    kept = row.hit_hbm_tokens
    assert 0 < kept < 2048
    assert kept % HASH == 0
    first = kept // tokens * tokens
    last = -(-4080 // tokens) * tokens
    assert row.hit_dram_tokens == 4080 - kept
    assert moved(result, "load").bytes.sum() == (last - first) * hand.token_bytes


def test_prompts_that_part_within_a_block_share_none_of_it(run, prompt):
    """1,536 tokens in common: three blocks of 512, one of 1,024, none of 2,048."""
    a, b = prompt(1, 4096), [*prompt(1, 1536), *prompt(3, 4096)[3:]]
    rows = [(0, 4096, 1, a), (20, 8000, 1, prompt(2, 8000)), (40, 4096, 1, b)]
    hits = {}
    for tokens in (16, 512, 1024, 2048, 4096):
        result = run(rows, blocks=BLOCKS, tiers=[HBM, tier("dram", tokens)])
        hits[tokens] = result.frames["requests"].hit_dram_tokens[2]
    assert hits == {16: 1536, 512: 1536, 1024: 1024, 2048: 0, 4096: 0}


def test_both_branches_are_held_whole(run, hand, prompt):
    """What two large blocks have in common is in the tier twice."""
    a, b = prompt(1, 2048), [*prompt(1, 1024), *prompt(3, 2048)[2:]]
    rows = [(0, 2048, 1, a), (20, 2048, 1, b)]
    stored = {
        tokens: run(rows, blocks=BLOCKS, tiers=[HBM, tier("dram", tokens)]).summary["tiers"]["dram"]["stored_bytes"]
        for tokens in (512, 2048)
    }
    assert stored == {512: 3072 * hand.token_bytes, 2048: 4096 * hand.token_bytes}


def test_a_disk_reads_fewer_larger_copies(run, hand, prompt):
    """A copy of a disk is a block of its tier; what each costs besides its bytes is paid less often."""
    times = {}
    for tokens in (16, 256, 1024):
        result = run(back_after(prompt, 4096), blocks=BLOCKS, tiers=[HBM, tier("ssd", tokens)])
        reads = moved(result, "load", "ssd")
        assert reads.copies.sum() == -(-4080 // min(tokens, 32))  # 4 MiB are the most that the drive was measured with
        times[tokens] = (reads.end_s.max() - reads.start_s.min()) / reads.bytes.sum()
    assert times[16] > times[1024]


def test_larger_blocks_behind_smaller_ones_leave_copies_of_theirs(run, hand, prompt):
    """What the disk reads passes host memory, which keeps it in blocks of its own."""
    tiers = [HBM, tier("dram", 1024, capacity="700 MiB"), tier("ssd", 4096)]
    result = run(back_after(prompt, 4096), blocks=BLOCKS, tiers=tiers, links=DISK)
    dram = result.summary["tiers"]["dram"]
    assert result.summary["tiers"]["ssd"]["stored_bytes"] == 2 * 4096 * hand.token_bytes  # not 8,000 but one block
    read = moved(result, "load", "ssd")
    assert list(read.bytes) == [4096 * hand.token_bytes]
    assert set(read.dst) == {"dram"}
    stored = moved(result, "store").query("dst == 'dram'").bytes.sum()
    kept = dram["stored_bytes"] - stored
    assert kept % (1024 * hand.token_bytes) == 0
    assert 0 < kept <= 4096 * hand.token_bytes
    assert dram["passed_bytes"] == 4096 * hand.token_bytes - kept


def test_write_back_stores_a_block_when_its_end_is_evicted(run, hand, prompt):
    """Its beginning, which is evicted later, is copied with it while it is still there, and not again."""
    rows = [(0, 4096, 1, prompt(1, 4096)), (20, 5000, 1, prompt(2, 5000)), (40, 5000, 1, prompt(3, 5000))]
    result = run(rows, blocks=BLOCKS, tiers=[HBM, tier("dram", 2048)], policies={"offload": "write_back"})
    stores, whole = moved(result, "store"), 2048 * hand.token_bytes
    # 1,000 tokens must leave for the second prompt: its block of 2,048. 5,000 for the third: the rest of the first
    # prompt (one more block) and 2,000 tokens of the second, which is longer than two blocks and loses its end first.
    assert list(stores.bytes) == [whole, 2 * whole]
    assert stores.copies.sum() == 3 * 128


def test_larger_blocks_hit_less_and_move_more(run):
    """Conversations of uneven lengths: the share of hits never rises with the size, bytes per token hit never fall."""
    ratios, per_token = [], []
    for tokens in (16, 256, 512, 1024, 2048, 4096):
        summary = run(trace=chat(rate=0.3), blocks=3600, tiers=[HBM, tier("dram", tokens)]).summary
        assert not summary["preemptions"]  # what they load again is no hit
        hit = summary["prefix"]["hit_tokens"]["dram"]
        ratios.append(summary["prefix"]["hit_ratio"])
        per_token.append(summary["tiers"]["dram"]["loaded_bytes"] / hit)
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[-1] < 0.98 * ratios[0]
    assert per_token == sorted(per_token)
    assert per_token[-1] > 1.1 * per_token[0]


def test_a_trace_of_small_hashes_has_chunks_of_many(run):
    """16-token hashes and an LMCache chunk of 256 tokens: each block spans 16 of them."""
    clients = {"clients": 8, "rounds": 4, "input_tokens": 700, "output_tokens": 40, "think_time": "5 s"}
    trace = {"clients": {**clients, "first_input_tokens": 3000, "block_tokens": 16}}
    fine, chunks = (run(trace=trace, blocks=1200, tiers=[HBM, tier("dram", n)]) for n in (16, 256))
    assert 0 < chunks.summary["prefix"]["hit_ratio"] < fine.summary["prefix"]["hit_ratio"]
    token_bytes = fine.summary["model"]["kv_bytes_per_token"]
    assert chunks.summary["tiers"]["dram"]["stored_bytes"] % (256 * token_bytes) == 0
    assert chunks.summary["tiers"]["dram"]["evicted_blocks"] == 0


@pytest.mark.parametrize("into", ["dram", "hbm"])
def test_prefetches_bring_whole_blocks(run, into):
    tiers = [HBM, tier("dram", 512, capacity="3 GiB"), tier("ssd", 2048)]
    policies = {"prefetch": {"name": "next_turn", "into": into}}
    result = run(
        trace=chat(first_tokens={"mean": 5000, "sigma": 0.5}), blocks=3000, tiers=tiers, links=DISK, policies=policies
    )
    fetched = moved(result, "prefetch", "ssd")
    token_bytes = result.summary["model"]["kv_bytes_per_token"]
    assert len(fetched)
    assert (fetched.bytes % (2048 * token_bytes) == 0).all()


BAD = [
    ([HBM, tier("dram", 24)], "tiers.dram.block_tokens: a block must be a whole number .* found 24, .*multiple of 16"),
    ([HBM, tier("dram", 256), tier("ssd", 384)], "tiers.ssd.block_tokens: .*found 384, expected a multiple of 256"),
    ([HBM, tier("dram", 512), tier("ssd", 256)], "tiers.ssd.block_tokens: .*found 256, expected a multiple of 512"),
    ([HBM, tier("dram", 768)], "tiers.dram.block_tokens: .*found 768, expected a divisor or a multiple of 512"),
    ([{**HBM, "block_tokens": 32}], "tiers.hbm.block_tokens: the GPU's blocks are those of the engine, found 32"),
    ([HBM, tier("dram", 0)], "tiers.dram.block_tokens: found 0, expected a number >= 1"),
    ([HBM, tier("dram", "512")], "tiers.dram.block_tokens: found '512', expected a whole number"),
]


@pytest.mark.parametrize(("tiers", "said"), BAD, ids=[s[:40] for _, s in BAD])
def test_sizes_that_do_not_fit_each_other(scenario, prompt, tiers, said):
    with pytest.raises(InputError, match=f"^scenario: {said}"):
        scenario(back_after(prompt, 2048), tiers=tiers).run()


def test_a_tier_of_no_size_sets_no_block(run, prompt):
    rows = back_after(prompt, 4096)
    kept = [HBM, tier("ssd")]
    empty = [HBM, tier("dram", 1024, capacity="0 B"), tier("ssd")]
    one, other = (run(rows, blocks=BLOCKS, tiers=tiers, links=DISK) for tiers in (kept, empty))
    assert one.frames["transfers"].equals(other.frames["transfers"])


SIZES = st.sampled_from([1, 2, 4])


@settings(max_examples=15, deadline=None)
@given(
    first=st.sampled_from([16, 128, 512, 1024]),
    factors=st.tuples(SIZES, SIZES),
    names=st.lists(st.sampled_from(["dram", "c2c", "ssd", "remote"]), min_size=1, max_size=3, unique=True),
    sizes=st.lists(st.integers(100, 2000), min_size=3, max_size=3),
    offload=st.sampled_from(["write_through", "write_back", "write_through_selective", "by_cost"]),
    prefetch=st.sampled_from([None, "on_arrival", "popularity"]),
    exclusive=st.booleans(),
    leaf_only=st.booleans(),
    by_cost=st.booleans(),
    eviction=st.sampled_from(["lru", "s3fifo", "arc", "belady"]),
    families=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=8, max_size=20),
    spacing=st.sampled_from([0.01, 0.3, 5.0]),
)
def test_any_sizes_conserve_bytes_and_strides_equal_steps(
    run,
    same_requests,
    prompt,
    first,
    factors,
    names,
    sizes,
    offload,
    prefetch,
    exclusive,
    leaf_only,
    by_cost,
    eviction,
    families,
    spacing,
):
    """`run` recounts every invariant, whole blocks among them; single steps give the same tables."""
    inclusive = not (exclusive and offload == "write_back")
    tiers, tokens = [{**HBM, "leaf_only": leaf_only}], first
    for name, size, factor in zip(names, sizes, (1, *factors), strict=False):
        tokens *= factor
        tiers.append(tier(name, tokens, f"{size} MiB", inclusive=inclusive, leaf_only=leaf_only, shared="node"))
    rows = []
    for i, (family, branch) in enumerate(families):  # branches part from their family within large blocks
        length = 700 + 390 * family + 130 * branch
        ids = prompt(family, length)
        rows.append((i * spacing, length, 1 + 7 * branch, [*ids[:2], *(key + 100 * branch for key in ids[2:])]))
    policies = {"offload": offload, "eviction": eviction}
    if prefetch is not None:
        policies["prefetch"] = prefetch
    keywords = {
        "blocks": 256,
        "tiers": tiers,
        "policies": policies,
        "engine": {"loading": {"choose": "by_cost" if by_cost else "always"}},
        "hardware": {"profile": "h100-sxm", "replicas": 2, "gpus_per_node": 2},
    }
    strides, steps = run(rows, **keywords), run(rows, single_step=True, **keywords)
    same_requests(strides, steps)
