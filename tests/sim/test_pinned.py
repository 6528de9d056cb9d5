"""Host memory that is not page-locked: which blocks are in it, and what that costs their copies."""

from itertools import pairwise

import pytest
import yaml

from hw_profiles.errors import InputError

A, B, C = 1600, 2000, 4000  # C alone fills the HBM (4,096 tokens)
BLOCKS = 256
PAGEABLE = 10e9


def hit(tokens):
    return (tokens - 1) // 16 * 16


def stored(tokens):
    return tokens // 16 * 16


def dram(pinned=None, capacity="100 GiB", **options):
    size = {} if pinned is None else {"pinned": pinned}
    return [{"name": "hbm"}, {"name": "dram", "capacity": capacity, **size, **options}]


@pytest.fixture
def again(prompt):
    """A and B go, C drives them out of HBM, A and then B come back."""
    return [(t, n, 1, prompt(f, n)) for t, f, n in ((0, 1, A), (10, 2, B), (20, 3, C), (30, 1, A), (40, 2, B))]


def copies(result, reason):
    table = result.frames["transfers"]
    return table[table.reason == reason].reset_index(drop=True)


@pytest.mark.parametrize("pinned", ["100 GiB", "1 TiB"])
def test_as_much_as_the_tier_has_is_as_it_was(run, again, pinned):
    plain, locked = run(again, blocks=BLOCKS, tiers=dram()), run(again, blocks=BLOCKS, tiers=dram(pinned))
    for name, frame in plain.frames.items():
        assert frame.equals(locked.frames[name])
    assert plain.profile_values == locked.profile_values


def test_without_any_every_copy_goes_at_the_pageable_rate(run, hand, again):
    result = run(again, blocks=BLOCKS, tiers=dram("0 B"))
    for reason in ("store", "load"):
        table = copies(result, reason)
        assert (table.end_s - table.start_s).tolist() == pytest.approx((table.bytes / PAGEABLE).tolist(), rel=1e-9)
    assert result.frames["requests"].load_s[3] == pytest.approx(hit(A) * hand.token_bytes / PAGEABLE, rel=1e-9)
    used = {v["path"] for v in result.profile_values if v["used"]}
    assert {"links.pcie_h2d.pageable", "links.pcie_d2h.pageable"} <= used


def test_blocks_that_come_first_are_page_locked(run, hand, again):
    """Room for A in page-locked memory: A goes at the full rate both ways, B and C at the pageable one."""
    pinned = f"{stored(A) * hand.token_bytes} B"
    result = run(again, blocks=BLOCKS, tiers=dram(pinned))
    stores, loads = copies(result, "store"), copies(result, "load")
    assert (stores.end_s - stores.start_s)[0] == pytest.approx(hand.copy("pcie_d2h", stored(A)), rel=1e-9)
    assert (loads.end_s - loads.start_s)[0] == pytest.approx(hand.copy("pcie_h2d", hit(A)), rel=1e-9)
    for table, row in ((stores, 1), (stores, 2), (loads, 1)):
        seconds = table.end_s[row] - table.start_s[row]
        assert seconds == pytest.approx(table.bytes[row] / PAGEABLE, rel=1e-9)


def test_a_copy_of_both_kinds_takes_its_share_of_each(run, hand, again):
    """Half of A fits: its blocks of 512 tokens lie here or there, the one at the border in both."""
    locked = stored(A) // 2
    result = run(again[:1], blocks=BLOCKS, tiers=dram(f"{locked * hand.token_bytes} B"))
    (store,) = copies(result, "store").itertuples()
    full, slow = hand.copy("pcie_d2h", stored(A)), stored(A) * hand.token_bytes / PAGEABLE
    assert store.end_s - store.start_s == pytest.approx((full + slow) / 2, rel=1e-9)


def test_page_locked_memory_that_is_left_is_taken_again(run, hand, again):
    """A tier of two prompts: when A has been evicted for C, what it leaves is page-locked still."""
    capacity = f"{(stored(A) + stored(B)) * hand.token_bytes} B"
    pinned = f"{stored(A) * hand.token_bytes} B"
    result = run(again[:3], blocks=BLOCKS, tiers=dram(pinned, capacity))
    third = copies(result, "store").iloc[2]
    assert third.bytes > stored(A) * hand.token_bytes
    share = 1 - stored(A) * hand.token_bytes / third.bytes
    full, slow = hand.copy("pcie_d2h", third.bytes // hand.token_bytes), third.bytes / PAGEABLE
    assert third.end_s - third.start_s == pytest.approx((1 - share) * full + share * slow, rel=1e-9)


def test_more_page_locked_memory_makes_no_request_later(run, hand, again):
    ttft = []
    for tokens in (0, 800, 2400, 100_000):
        requests = run(again, blocks=BLOCKS, tiers=dram(f"{tokens * hand.token_bytes} B")).frames["requests"]
        ttft.append(requests.ttft_s[3:].tolist())
    for less, more in pairwise(ttft):
        assert all(m <= x for m, x in zip(more, less, strict=True))
        assert sum(more) < sum(less)


def test_the_rate_is_that_of_the_profile_or_of_the_scenario(run, hand, again):
    links = {"pcie_h2d": {"pageable": "4 GB/s"}}
    result = run(again, blocks=BLOCKS, tiers=dram("0 B"), links=links)
    loads, stores = copies(result, "load"), copies(result, "store")
    assert (loads.end_s - loads.start_s)[0] == pytest.approx(loads.bytes[0] / 4e9, rel=1e-9)
    assert (stores.end_s - stores.start_s)[0] == pytest.approx(stores.bytes[0] / PAGEABLE, rel=1e-9)


def test_a_slower_link_is_not_made_faster(run, again):
    links = {"pcie_h2d": {"bandwidth": "5 GB/s"}}
    plain, pageable = (run(again, blocks=BLOCKS, tiers=dram(p), links=links) for p in (None, "0 B"))
    assert copies(plain, "load").end_s.tolist() == pytest.approx(copies(pageable, "load").end_s.tolist(), rel=1e-12)


def test_what_passes_on_its_way_from_a_disk(run, hand, again):
    """Kept in host memory it comes from pageable memory; without such a tier it passes a bounce buffer, which is
    page-locked."""
    disk = {"name": "ssd", "capacity": "100 GiB"}
    kept = run(again[:4], blocks=BLOCKS, tiers=[*dram("0 B", "500 MiB"), disk])
    bounced = run(again[:4], blocks=BLOCKS, tiers=[{"name": "hbm"}, disk])
    for result, slow in ((kept, True), (bounced, False)):
        table = copies(result, "load").query("link == 'pcie_h2d'")
        assert len(table) > 1
        seconds, own = table.end_s - table.start_s, [hand.copy("pcie_h2d", b // hand.token_bytes) for b in table.bytes]
        expected = (table.bytes / PAGEABLE).tolist() if slow else own
        assert seconds.tolist() == pytest.approx(expected, rel=1e-9)


def test_loading_by_cost_minds_it(run, again):
    """At 0.2 GB/s of pageable memory computing is faster than loading; what is page-locked is loaded."""
    engine, links = {"loading": {"choose": "by_cost"}}, {"pcie_h2d": {"pageable": "0.2 GB/s"}}
    hits = [
        run(again, blocks=BLOCKS, tiers=dram(p), engine=engine, links=links).frames["requests"].hit_dram_tokens[3]
        for p in (None, "0 B")
    ]
    assert hits == [hit(A), 0]


def test_growing_blocks_and_evictions_keep_the_books(run, same_requests, hand, prompt):
    """Prompts that go on within their blocks, in a tier that is always full; `run` recounts page-locked bytes."""
    rows = [(0.3 * i, 700 + 90 * i % 800, 5, prompt(i % 5, 700 + 90 * i % 800)) for i in range(50)]
    tiers = dram("150 MiB", "400 MiB", leaf_only=True)
    strides, steps = (run(rows, blocks=BLOCKS, tiers=tiers, single_step=s) for s in (False, True))
    same_requests(strides, steps)


@pytest.mark.parametrize(
    ("tiers", "links", "said"),
    [
        (
            [{"name": "hbm", "pinned": "1 GiB"}],
            {},
            "tiers.hbm.pinned: only host memory is page-locked, found '1.00 GiB'",
        ),
        ([*dram(), {"name": "ssd", "capacity": "1 TiB", "pinned": "0 B"}], {}, "tiers.ssd.pinned: only host memory"),
        (dram("5"), {}, "tiers.dram.pinned: no unit, found '5'"),
        (
            dram("1 GiB"),
            {"pcie_d2h": {"method": "kernel"}},
            r"tiers.dram.pinned: a copy kernel \(links.pcie_d2h.method\) reaches page-locked memory only, found '1.00 ",
        ),
        (
            dram(),
            {"dram": {"pageable": "1 GB/s"}},
            "links.dram.pageable: only the GPU's own link copies pageable memory",
        ),
        (dram(), {"pcie_h2d": {"pageable": "0 GB/s"}}, "links.pcie_h2d.pageable: found .*, expected a number > 0"),
    ],
)
def test_what_makes_no_sense(scenario, again, tiers, links, said):
    with pytest.raises(InputError, match=f"^scenario: {said}"):
        scenario(again, tiers=tiers, links=links).run()


def test_a_profile_without_the_rate_is_refused_unless_the_scenario_has_it(scenario, hand, again, tmp_path):
    raw = yaml.safe_load(hand.profile.read_text())
    for link in ("pcie_h2d", "pcie_d2h"):
        del raw["links"][link]["pageable"]
    del raw["sources"]["pageable"]
    file = tmp_path / "h100.yaml"
    file.write_text(yaml.safe_dump(raw, sort_keys=False))
    built = scenario(again, blocks=BLOCKS, tiers=dram("0 B"), hardware={"profile": str(file)})
    said = "tiers.dram.pinned: profile h100-sxm has no rate for pageable memory; give links.pcie_h2d.pageable"
    with pytest.raises(InputError, match=said):
        built.run()
    for link in ("pcie_h2d", "pcie_d2h"):
        built = built.set(f"links.{link}.pageable", "10 GB/s")
    assert built.run().summary["requests"]["finished"] == 5
