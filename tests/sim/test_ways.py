"""What tiers load through: links, times and copies by path to closed forms; paths that lead nowhere are refused."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.errors import InputError

A, B, C = 1600, 2000, 4000  # C alone fills the HBM (4,096 tokens)
BLOCKS = 256
HBM = {"name": "hbm"}
FREE = "0 s"
LINKS = {
    "ssd_read": {"bandwidth": "5 GB/s", "latency": FREE},
    "ssd_write": {"bandwidth": "5 GB/s", "latency": FREE},
    "cxl_read": {"bandwidth": "2 GB/s", "latency": FREE},
    "cxl_write": {"bandwidth": "1 GB/s", "latency": FREE},
}
SSD, CXL = 5e9, 2e9
SMALL = "520 MiB"  # C or the others, not all


def hit(tokens):
    return (tokens - 1) // 16 * 16


def tier(name, capacity="100 GiB", **options):
    return {"name": name, "capacity": capacity, **options}


@pytest.fixture
def again(prompt):
    """A and B are computed and stored, C drives both out of HBM and out of a small tier, and A comes back."""
    return [(t, n, 1, prompt(f, n)) for t, f, n in ((0, 1, A), (10, 2, B), (20, 3, C), (30, 1, A))]


@pytest.fixture
def result(run, again):
    def go(*tiers, rows=again, **keywords):
        names = {t["name"] for t in tiers}
        links = {name: link for name, link in LINKS.items() if name.split("_")[0] in names}
        return run(rows, blocks=BLOCKS, tiers=[HBM, *tiers], links=links, **keywords)

    return go


def moved(result, reason, since=0.0):
    table = result.frames["transfers"]
    return table[(table.reason == reason) & (table.queued_s >= since)]


def crossed(table):
    """Links in the order in which the first bytes cross them, with their ends."""
    firsts = table.sort_values("start_s", kind="stable").drop_duplicates("link")
    return [(row.link, row.src, row.dst) for row in firsts.itertuples()]


def pipeline(*stages):
    """End of the last group of blocks over links in a row, given each link's seconds for every group."""
    free = [0.0] * len(stages)
    for group in range(len(stages[0])):
        there = 0.0
        for i, stage in enumerate(stages):
            there = free[i] = max(there, free[i]) + stage[group]
    return free[-1]


@pytest.fixture
def seconds(hand):
    """Seconds of A's blocks, one a group, over each link."""
    blocks = [512, 512, 512, hit(A) - 1536]
    return {
        "ssd": [n * hand.token_bytes / SSD for n in blocks],
        "cxl": [n * hand.token_bytes / CXL for n in blocks],
        "pcie": [hand.copy("pcie_h2d", n) for n in blocks],
    }


WAYS = [
    (
        [tier("dram", SMALL), tier("ssd")],
        [("ssd_read", "ssd", "dram"), ("pcie_h2d", "dram", "hbm")],
        ("ssd", "pcie"),
    ),
    (
        [tier("cxl", SMALL), tier("ssd", via="cxl")],
        [("ssd_read", "ssd", "cxl"), ("cxl_read", "cxl", "hbm")],
        ("ssd", "cxl"),
    ),
    ([tier("cxl", SMALL), tier("ssd")], [("ssd_read", "ssd", "host"), ("pcie_h2d", "host", "hbm")], ("ssd", "pcie")),
    ([tier("dram", SMALL), tier("ssd", via="hbm")], [("ssd_read", "ssd", "hbm")], ("ssd",)),
    (
        [tier("dram", SMALL), tier("cxl", via="dram")],
        [("cxl_read", "cxl", "dram"), ("pcie_h2d", "dram", "hbm")],
        ("cxl", "pcie"),
    ),
    (
        [tier("dram", "1 MiB"), tier("cxl", SMALL, via="dram"), tier("ssd", via="cxl")],
        [("ssd_read", "ssd", "cxl"), ("cxl_read", "cxl", "host"), ("pcie_h2d", "host", "hbm")],
        ("ssd", "cxl", "pcie"),
    ),
]


@pytest.mark.parametrize(
    ("tiers", "links", "stages"), WAYS, ids=[" ".join(s) + f" {i}" for i, (_, _, s) in enumerate(WAYS)]
)
def test_a_load_crosses_the_links_of_its_path(result, seconds, tiers, links, stages, tmp_path, again):
    """Groups of blocks follow each other over all of them; one group at a time over each."""
    keywords = {}
    if len(tiers) == 3:  # the first tier is too small for anything: HBM writes to the one behind it
        keywords = {"policies": {"offload": f"{to_tier(tmp_path, 'cxl')}:To"}}
    loaded = result(*tiers, **keywords)
    row, table = loaded.frames["requests"].iloc[3], moved(loaded, "load", since=30)
    assert row[f"hit_{tiers[-1]['name']}_tokens"] == hit(A)
    assert crossed(table) == links
    if len(stages) == 1:
        assert row.load_s == pytest.approx(sum(seconds[stages[0]]), rel=1e-9)
    else:
        assert row.load_s == pytest.approx(pipeline(*(seconds[stage] for stage in stages)), rel=1e-9)


def to_tier(folder, name):
    """A policy of HBM that stores in a tier of that name, and of the others in the next."""
    file = folder / "to.py"
    file.write_text(
        "from kvsim import Event, Move, OffloadPolicy\n\n\n"
        "class To(OffloadPolicy):\n"
        "    listens = (Event.FILLED,)\n\n"
        "    def plan(self, event, blocks, tier):\n"
        f"        to = {name!r} if tier.name == 'hbm' else tier.below\n"
        "        return [Move(block, to) for block in blocks] if to else []\n"
    )
    return file


def test_named_or_not_the_usual_way_is_the_same(result):
    for first, second in (
        ([tier("dram", SMALL), tier("ssd")], [tier("dram", SMALL), tier("ssd", via="dram")]),
        ([tier("dram", SMALL), tier("ssd", direct=True)], [tier("dram", SMALL), tier("ssd", via="hbm")]),
        ([tier("dram", SMALL), tier("cxl")], [tier("dram", SMALL, via="hbm"), tier("cxl", via="hbm")]),
        ([tier("c2c", SMALL), tier("ssd")], [tier("c2c", SMALL), tier("ssd", via="c2c")]),
    ):
        one, other = result(*first), result(*second)
        for name, frame in one.frames.items():
            assert frame.equals(other.frames[name])


def test_paths_differ_in_what_they_cost(result):
    """The same tiers, three paths: by the slow memory, by the host, and past both; strictly, since nothing overlaps."""
    ttft = {}
    for via in ("cxl", "dram", "hbm"):
        tiers = [tier("dram", SMALL), tier("cxl", SMALL), tier("ssd", via=via)]
        requests = result(*tiers).frames["requests"]
        assert requests.hit_ssd_tokens[3] == hit(A)
        ttft[via] = requests.ttft_s[3]
    assert ttft["cxl"] > ttft["dram"] > ttft["hbm"]


def test_what_passes_a_waypoint_stays_there(result):
    """In the memory that it goes through, and not in another tier that lies nearer."""
    loaded = result(tier("dram", SMALL), tier("cxl", SMALL), tier("ssd", via="cxl"))
    kept = loaded.summary["tiers"]
    assert kept["cxl"]["stored_bytes"] - moved(loaded, "store").query("dst == 'cxl'").bytes.sum() == hit(A) * 131072
    assert kept["dram"]["stored_bytes"] == moved(loaded, "store").query("dst == 'dram'").bytes.sum()


def test_stores_go_the_same_way_out(result, tmp_path):
    """From HBM past the waypoint's buffers; from the waypoint itself over the drive's link alone."""
    direct = {"policies": {"offload": f"{to_tier(tmp_path, 'ssd')}:To"}}
    past = moved(result(tier("cxl", SMALL), tier("ssd", via="cxl"), **direct), "store")
    assert crossed(past) == [("cxl_write", "hbm", "host"), ("ssd_write", "host", "ssd")]
    chain = moved(result(tier("cxl", SMALL), tier("ssd", via="cxl")), "store")
    assert crossed(chain) == [("cxl_write", "hbm", "cxl"), ("ssd_write", "cxl", "ssd")]
    beside = moved(result(tier("cxl", SMALL), tier("ssd")), "store")
    assert crossed(beside)[1:] == [("cxl_read", "cxl", "host"), ("ssd_write", "host", "ssd")]


def test_a_waypoint_of_no_size_is_passed_all_the_same(result, seconds):
    loaded = result(tier("cxl", "0 B"), tier("ssd", via="cxl"))
    assert crossed(moved(loaded, "load", since=30)) == [("ssd_read", "ssd", "host"), ("cxl_read", "host", "hbm")]
    assert loaded.frames["requests"].load_s[3] == pytest.approx(pipeline(seconds["ssd"], seconds["cxl"]), rel=1e-9)


def test_memory_that_only_the_host_reaches_does_not_use_the_copy_engines_of_gpus(run, again):
    """Two GPUs load from it at once and share its one link; each has a link of its own where it is on the GPU."""
    rows = [(t, n, 1, ids) for t, n, _, ids in again for _ in (0, 1)]
    hardware = {"profile": "h100-sxm", "replicas": 2, "gpus_per_node": 2}
    count = {}
    for via in ("dram", "hbm"):
        tiers = [HBM, tier("dram", SMALL, shared="node"), tier("cxl", shared="node", via=via)]
        count[via] = run(rows, blocks=BLOCKS, tiers=tiers, hardware=hardware).summary["links"]["cxl_read"]["count"]
    assert count == {"dram": 1, "hbm": 2}


BAD = [
    (
        [tier("ssd", via="dram")],
        "tiers.ssd.via: no path from ssd to HBM: there is no such tier, found 'dram', expected one of hbm, ssd",
    ),
    (
        [tier("cxl", via="c2c"), tier("c2c", via="cxl")],
        "tiers.c2c.via: no path from cxl to HBM: a cycle, cxl -> c2c -> cxl",
    ),
    ([tier("cxl", via="cxl")], "tiers.cxl.via: no path from cxl to HBM: a cycle, cxl -> cxl"),
    (
        [tier("dram"), tier("cxl", via="c2c"), tier("c2c", via="cxl"), tier("ssd", via="cxl")],
        "tiers.c2c.via: no path from cxl to HBM: a cycle, cxl -> c2c -> cxl",
    ),
    (
        [tier("ssd", via="remote"), tier("remote", via="ssd")],
        "tiers.remote.via: no path from ssd to HBM: a cycle, ssd -> remote -> ssd",
    ),
    (
        [tier("ssd"), tier("remote", via="ssd")],
        "tiers.remote.via: bytes pass memory on their way, found 'ssd', expected hbm",
    ),
    (
        [tier("ssd", via="cxl"), tier("cxl")],
        "tiers.ssd.via: what a tier loads through comes before it, nearer to the GPU",
    ),
    ([tier("dram", via="c2c"), tier("c2c")], "tiers.dram.via: it is behind the GPU's own link, found 'c2c'"),
    ([tier("dram"), tier("ssd", via="dram", direct=True)], "tiers.ssd.via: a direct tier passes nothing, found 'dram'"),
    ([tier("dram"), tier("ssd", via="dran")], "tiers.ssd.via: no path from ssd to HBM: .*did you mean 'dram'"),
]


@pytest.mark.parametrize(("tiers", "said"), BAD, ids=[s[:60] for _, s in BAD])
def test_paths_that_lead_nowhere(scenario, again, tiers, said):
    with pytest.raises(InputError) as error:
        scenario(again, tiers=[HBM, *tiers])
    line = str(error.value)
    assert "\n" not in line
    assert re.match(f"scenario: {said}", line), line


def test_hbm_goes_nowhere(scenario, again):
    with pytest.raises(InputError, match=r"^scenario: tiers.hbm.via: the GPU's memory is where ways end, found 'dram'"):
        scenario(again, tiers=[{**HBM, "via": "dram"}, tier("dram")])


@settings(max_examples=20, deadline=None)
@given(
    dram=st.sampled_from([None, "hbm"]),
    cxl=st.sampled_from([None, "hbm", "dram"]),
    ssd=st.sampled_from([None, "hbm", "dram", "cxl"]),
    remote=st.sampled_from([None, "hbm", "dram", "cxl"]),
    sizes=st.lists(st.integers(0, 900), min_size=4, max_size=4),
    blocks=st.sampled_from([16, 512]),
    offload=st.sampled_from(["write_through", "write_back", "by_cost"]),
    prefetch=st.sampled_from(["none", "on_arrival", "popularity"]),
    families=st.lists(st.integers(0, 6), min_size=6, max_size=16),
    spacing=st.sampled_from([0.02, 0.4, 5.0]),
)
def test_any_paths_conserve_bytes_and_strides_equal_steps(
    run, same_requests, prompt, dram, cxl, ssd, remote, sizes, blocks, offload, prefetch, families, spacing
):
    """`run` recounts every byte over every link; single steps give the same tables."""
    ways = {"dram": dram, "cxl": cxl, "ssd": ssd, "remote": remote}
    tiers = [HBM]
    for (name, via), size in zip(ways.items(), sizes, strict=True):
        path = {} if via is None else {"via": via}
        tiers.append(tier(name, f"{size} MiB", shared="node", block_tokens=blocks, **path))
    rows = [(i * spacing, 700 + 130 * f, 1 + 5 * f, prompt(f, 700 + 130 * f)) for i, f in enumerate(families)]
    keywords = {
        "blocks": BLOCKS,
        "tiers": tiers,
        "policies": {"offload": offload, "prefetch": prefetch},
        "hardware": {"profile": "h100-sxm", "replicas": 2, "gpus_per_node": 2},
    }
    strides, steps = run(rows, **keywords), run(rows, single_step=True, **keywords)
    same_requests(strides, steps)
