"""write_through_selective: nothing is stored at first sight; a block is stored once it was hit often enough."""

import pytest

from hw_profiles.errors import InputError
from sim.scenario import Scenario

TOKENS = 1000  # 992 of them in whole engine blocks
STORED = 992


def selective(**options):
    return {"offload": {"name": "write_through_selective", **options}}


def repeated(run, prompt, times, **options):
    """One prompt asked for `times` times, ten seconds apart, in room for all of it."""
    rows = [(10 * i, TOKENS, 1, prompt(0, TOKENS)) for i in range(times)]
    return run(rows, dram="100 GiB", policies=selective(**options))


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_block_is_stored_at_its_nth_hit(run, hand, prompt, after):
    """Asked for once more than `after` times; asked for less often, nothing moves."""
    before = repeated(run, prompt, after, after=after)
    assert before.summary["tiers"]["dram"]["stored_bytes"] == 0
    assert len(before.frames["transfers"]) == 0

    result = repeated(run, prompt, after + 3, after=after)  # further hits find it there
    (transfer,) = result.frames["transfers"].itertuples()
    assert (transfer.src, transfer.dst, transfer.reason) == ("hbm", "dram", "store")
    assert (transfer.bytes, transfer.copies) == (STORED * hand.token_bytes, STORED // 16)
    assert transfer.queued_s == transfer.start_s == 10 * after == result.frames["requests"].admit_s[after]
    assert transfer.end_s - transfer.start_s == pytest.approx(hand.copy("pcie_d2h", STORED), rel=1e-9)
    assert result.summary["tiers"]["dram"]["stored_bytes"] == STORED * hand.token_bytes


def test_once_is_the_default(run, prompt):
    default, once = repeated(run, prompt, 3), repeated(run, prompt, 3, after=1)
    assert default.frames["transfers"].equals(once.frames["transfers"])
    assert len(default.frames["transfers"]) == 1


def test_only_the_blocks_that_were_hit_are_stored(run, hand):
    """The second prompt shares one hash block of the first one's three."""
    rows = [(0, 1536, 1, [1, 2, 3]), (10, 1536, 1, [1, 5, 6])]
    result = run(rows, dram="100 GiB", policies=selective())
    assert result.summary["tiers"]["dram"]["stored_bytes"] == 512 * hand.token_bytes


def test_hits_before_an_eviction_do_not_count(run, hand, prompt):
    """A is hit once, then B evicts most of it: what stayed is hit a second time, and what was lost starts again."""
    size = 4000
    asked = [(1, size), (1, size), (2, 2500), (1, size), (1, size)]
    rows = [(10 * i, tokens, 1, prompt(family, tokens)) for i, (family, tokens) in enumerate(asked)]
    result = run(rows, blocks=280, dram="100 GiB", policies=selective(after=2))
    stayed = int(result.frames["requests"].hit_hbm_tokens[3])
    assert 0 < stayed < size / 2
    (store,) = result.frames["transfers"].itertuples()
    assert (store.queued_s, store.bytes) == (30, stayed * hand.token_bytes)
    assert result.summary["tiers"]["dram"]["stored_bytes"] == stayed * hand.token_bytes


def test_a_stored_block_comes_back_after_its_eviction(run, prompt):
    size = 4000
    rows = [(10 * i, size, 1, prompt(family, size)) for i, family in enumerate([1, 1, 2, 1])]
    hits = run(rows, blocks=280, dram="100 GiB", policies=selective()).frames["requests"].hit_dram_tokens
    assert hits[3] > 0
    assert list(hits[:3]) == [0, 0, 0]


@pytest.fixture(scope="module")
def stored(run):
    """Bytes stored under a policy, on the shipped sample with HBM too small to keep every session."""

    def bytes_of(policies):
        result = run(trace={"name": "quickstart", "limit": 400}, blocks=12_000, dram="256 GiB", policies=policies)
        assert result.summary["requests"]["finished"] == 400
        return result.summary["tiers"]["dram"]["stored_bytes"]

    return bytes_of


def test_pickier_policies_store_less(stored):
    everything = stored({"offload": "write_through"})
    once, thrice, never = (stored(selective(after=n)) for n in (1, 3, 1_000))
    assert everything > once > thrice > never == 0


@pytest.mark.parametrize("after", [0, -1, 1.5, "two", True, None])
def test_a_wrong_option_is_one_line(scenario, prompt, after):
    built = scenario([(0, TOKENS, 1, prompt(0, TOKENS))], dram="1 GiB", policies=selective(after=after))
    with pytest.raises(InputError, match=r"policies\.offload\.after: found .*expected a whole number") as error:
        built.run()
    assert "\n" not in str(error.value)


def test_an_unknown_option_names_the_right_one(scenario, prompt):
    built = scenario([(0, TOKENS, 1, prompt(0, TOKENS))], dram="1 GiB", policies=selective(aftr=2))
    assert isinstance(built, Scenario)
    with pytest.raises(InputError, match=r"policies\.offload\.aftr: .*did you mean 'after'\?"):
        built.run()
