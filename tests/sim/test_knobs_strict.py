"""Knobs of tiers and links to closed forms: one replica, first come first served, requests that do not overlap.

A prompt is computed and stored, another one drives it out of HBM, and it comes back: its TTFT is what the links of its
tier need for the bytes, by hand from latency and bandwidth, and the step that computes the rest. Each knob runs from
its fast end to its slow end, and TTFT follows the form and rises strictly; knobs of the other direction move nothing.
"""

from pathlib import Path

import pytest
import yaml

import hw_profiles
from hw_profiles.units import parse_rate, parse_seconds

A, C = 1600, 4090  # tokens of the prompt that comes back, and of the one that fills the HBM (4,096 tokens)
HIT = (A - 1) // 16 * 16
GROUPS = (512, 512, 512, HIT - 1536)
"""Blocks of the prompt: a load over two links is cut into at most eight groups, so each block is one."""
BLOCKS = 256
AGAIN = 30.0
MEMORY, DEVICES = ("cxl", "c2c"), ("ssd", "remote")
SLOW_LINKS = {
    "links.pcie_h2d": (50e9, 4e-6),
    "links.pcie_d2h": (50e9, 4e-6),
    "links.cxl_read": (25e9, 1e-6),
    "links.cxl_write": (25e9, 1e-6),
    "links.c2c_read": (300e9, 1e-6),
    "links.c2c_write": (300e9, 1e-6),
    "links.ssd_read": (6e9, 100e-6),
    "links.ssd_write": (4e9, 50e-6),
    "links.remote_read": (20e9, 10e-6),
    "links.remote_write": (20e9, 10e-6),
}
"""Rate and latency of each link where a test does not move them."""


def links_of(tier, **changed):
    """The `links:` section for a scenario with one tier behind HBM, some values changed."""
    names = ["pcie_h2d", "pcie_d2h", *([f"{tier}_read", f"{tier}_write"] if tier != "dram" else [])]
    section = {}
    for name in names:
        rate, latency = SLOW_LINKS[f"links.{name}"]
        section[name] = {"bandwidth": f"{rate / 1e9} GB/s", "latency": f"{latency * 1e6} us"}
    for path, text in changed.items():
        name, _, key = path.partition("__")
        section.setdefault(name, {})[key] = text
    return section


def numbers(section, link):
    return parse_rate(section[link]["bandwidth"]), parse_seconds(section[link]["latency"])


def load_s(tier, section, token_bytes, *, direct=False, groups=GROUPS):
    """Seconds that a prefix takes from a tier to HBM, nothing else under way, by hand."""
    size = sum(groups) * token_bytes
    if tier == "dram" or tier in MEMORY:  # the GPU's copy engine: a copy per engine block
        rate, latency = numbers(section, "pcie_h2d" if tier == "dram" else f"{tier}_read")
        return sum(groups) // 16 * latency + size / rate
    read, ready = numbers(section, f"{tier}_read")
    if direct:
        return ready + size / read
    copy, setup = numbers(section, "pcie_h2d")
    there = 0.0  # when the GPU's link has copied the groups so far: it starts when both it and the group are ready
    for tokens in groups:
        ready += tokens * token_bytes / read
        there = max(there, ready) + tokens // 16 * setup + tokens * token_bytes / copy
    return there


@pytest.fixture
def back(run, prompt, quiet_profile):
    """Runs the prompt that comes back from a tier; the row of its request, and the run."""

    def go(tier, section=None, **keywords):
        options = keywords.pop("options", {})
        output = keywords.pop("output", 1)
        rows = [(0, A, 1, prompt(1, A)), (10, C, 1, prompt(2, C)), (AGAIN, A, output, prompt(1, A))]
        tiers = [{"name": "hbm"}, *([{"name": tier, "capacity": "10 GiB", **options}] if tier else [])]
        keywords = {"hardware": {"profile": quiet_profile}, "blocks": BLOCKS, **keywords}
        result = run(rows, tiers=tiers, links=section or {}, **keywords)
        return result.frames["requests"].iloc[2], result

    return go


RATES = ("64 GB/s", "16 GB/s", "4 GB/s", "1 GB/s", "0.1 GB/s")
WAITS = ("0 s", "1 us", "10 us", "100 us", "1 ms", "10 ms")
WAYS = [
    ("dram", "pcie_h2d", {}),
    ("cxl", "cxl_read", {}),
    ("c2c", "c2c_read", {}),
    ("ssd", "ssd_read", {}),
    ("ssd", "pcie_h2d", {}),
    ("ssd", "ssd_read", {"direct": True}),
    ("remote", "remote_read", {}),
    ("remote", "pcie_h2d", {}),
    ("remote", "remote_read", {"direct": True}),
]
"""Tier, a link on the way from it, options of the tier."""


@pytest.mark.parametrize(("knob", "values"), [("bandwidth", RATES), ("latency", WAITS)])
@pytest.mark.parametrize(("tier", "link", "options"), WAYS)
def test_ttft_of_a_prefix_in_a_tier_is_its_closed_form(back, hand, tier, link, options, knob, values):
    step = hand.mixed_step([(A - HIT, HIT)], sampled=1)
    ttft = []
    for text in values:
        section = links_of(tier, **{f"{link}__{knob}": text})
        row, _ = back(tier, section, options=options)
        expected = load_s(tier, section, hand.token_bytes, direct=options.get("direct", False))
        assert row[f"hit_{tier}_tokens"] == HIT
        assert row.load_s == pytest.approx(expected, rel=1e-9)
        assert row.ttft_s == pytest.approx(expected + step, rel=1e-9)
        ttft.append(row.ttft_s)
    assert (sorted(set(ttft)) == ttft) or link == "pcie_h2d"  # the disk may hide what is faster than it
    assert ttft[-1] > ttft[0]


@pytest.mark.parametrize(
    ("tier", "link", "options"),
    [
        ("dram", "pcie_d2h", {}),
        ("cxl", "cxl_write", {}),
        ("c2c", "c2c_write", {}),
        ("ssd", "ssd_write", {}),
        ("ssd", "pcie_d2h", {}),
        ("remote", "remote_write", {}),
        ("cxl", "pcie_h2d", {}),
        ("ssd", "pcie_h2d", {"direct": True}),
    ],
)
def test_a_link_that_a_load_does_not_cross_does_not_move_its_ttft(back, tier, link, options):
    """The write side moves its own transfers by latency and bandwidth, and the request that reads not at all."""
    fast = back(tier, links_of(tier), options=options)
    for knob, text in (("bandwidth", "1 GB/s"), ("latency", "1 ms")):
        slow = back(tier, links_of(tier, **{f"{link}__{knob}": text}), options=options)
        assert slow[0].ttft_s == fast[0].ttft_s
        if not link.endswith("h2d"):
            times = [
                (t.end_s - t.start_s)[(t.link == link) & (t.reason == "store")]
                for t in (run.frames["transfers"] for _, run in (fast, slow))
            ]
            assert len(times[0]) == 2
            assert (times[1].to_numpy() > times[0].to_numpy()).all()


@pytest.mark.parametrize(("tier", "link"), [("dram", "pcie_d2h"), ("cxl", "cxl_write"), ("ssd", "ssd_write")])
@pytest.mark.parametrize(("knob", "values"), [("bandwidth", RATES), ("latency", WAITS)])
def test_a_store_takes_its_closed_form(back, hand, tier, link, knob, values):
    stored = A // 16 * 16  # the last partial block holds all its whole engine blocks
    for text in values:
        section = links_of(tier, **{f"{link}__{knob}": text})
        _, result = back(tier, section)
        rate, latency = numbers(section, link)
        copies = 1 if tier in DEVICES else stored // 16
        first = result.frames["transfers"].query(f"link == '{link}'").iloc[0]
        assert first.end_s - first.start_s == pytest.approx(
            copies * latency + stored * hand.token_bytes / rate, rel=1e-9
        )


@pytest.mark.parametrize(
    ("cap", "tier"), [("pcie_joint", "dram"), ("host_root", "dram"), ("dram", "dram"), ("dram", "ssd")]
)
def test_a_shared_bandwidth_is_an_upper_bound(back, hand, cap, tier):
    """Alone, a load takes its own time or that of the bytes through the narrowest place, whichever is longer."""
    ttft = []
    for text in ("1000 GB/s", "16 GB/s", "4 GB/s", "1 GB/s"):
        section = links_of(tier, **{f"{cap}__bandwidth": text})
        row, _ = back(tier, section)
        size = HIT * hand.token_bytes
        if tier == "dram":
            assert row.load_s == pytest.approx(max(load_s(tier, section, hand.token_bytes), size / parse_rate(text)))
        else:  # the drive fills host memory, which the GPU's link empties
            assert row.load_s >= 2 * size / parse_rate(text)
        ttft.append(row.ttft_s)
    assert ttft == sorted(ttft)
    assert ttft[-1] > 1.5 * ttft[0]


def test_nearer_tiers_are_faster(back, hand):
    """The same prefix from HBM, memory on a link of its own, host memory, a network, a disk, and not at all."""
    c2c, cxl, dram, remote, ssd, nothing = (
        back(tier, links_of(tier))[0].ttft_s if tier else back(None)[0].ttft_s
        for tier in ("c2c", "cxl", "dram", "remote", "ssd", None)
    )
    step = hand.mixed_step([(A - HIT, HIT)], sampled=1)
    assert step < c2c < dram < cxl < remote < ssd
    assert nothing == pytest.approx(hand.mixed_step([(A, 0)], sampled=1), rel=1e-9)


DEVICE_FOLDER = Path(hw_profiles.__file__).parent / "devices"


def device(name):
    """Read side of a device by its file: latency, bandwidth, and time per copy (s, bytes/s, s)."""
    read = yaml.safe_load((DEVICE_FOLDER / f"{name}.yaml").read_text())["read"]
    text = {key: f"{value['v']} {value['unit']}" for key, value in read.items() if value["unit"] != "1"}
    number = {key: value["v"] for key, value in read.items() if value["unit"] == "1"}
    per_io = parse_seconds(text["per_io"]) if "per_io" in text else 0.0
    ramp = number.get("single", 1), number.get("saturation", 1)
    return parse_seconds(text["latency"]), parse_rate(text["bandwidth"]), per_io, ramp


@pytest.mark.parametrize(
    ("tier", "names"),
    [
        ("ssd", ("nvme-gen5-raid4", "nvme-gen4")),
        ("remote", ("rdma-400g", "rdma-200g", "rdma-100g")),
        ("c2c", ("nvlink-c2c", "cxl")),
    ],
)
def test_each_device_takes_what_its_file_says(back, hand, tier, names):
    """A copy per engine block, all outstanding at once: as many as any of these devices needs for its full rate."""
    ttft = []
    for name in names:
        options = {"device": name, **({"direct": True} if tier in DEVICES else {})}
        row, _ = back(tier, options=options)
        latency, rate, per_io, (_, saturation) = device(name)
        copies = HIT // 16
        assert copies >= saturation
        setup = copies * latency if tier not in DEVICES else latency + copies * per_io
        assert row.load_s == pytest.approx(setup + HIT * hand.token_bytes / rate, rel=1e-9)
        ttft.append(row.ttft_s)
    assert sorted(set(ttft)) == ttft


@pytest.mark.parametrize("name", ["nvme-gen4", "nvme-gen5-raid4", "rdma-200g"])
def test_a_device_with_few_copies_outstanding_is_slower(run, prompt, hand, name):
    """A prefix of one engine block: one copy outstanding gets the share of the rate that `single` says."""
    rows = [(0, 20, 1, [1]), (10, C, 1, prompt(2, C)), (AGAIN, 20, 1, [1])]
    tier = "remote" if name.startswith("rdma") else "ssd"
    tiers = [{"name": "hbm"}, {"name": tier, "capacity": "10 GiB", "device": name, "direct": True}]
    row = run(rows, blocks=BLOCKS, tiers=tiers).frames["requests"].iloc[2]
    latency, rate, per_io, (single, _) = device(name)
    assert single < 1
    assert row[f"hit_{tier}_tokens"] == 16
    assert row.load_s == pytest.approx(latency + per_io + 16 * hand.token_bytes / (rate * single), rel=1e-9)


@pytest.mark.parametrize(
    ("method", "layouts"), [(m, ("block", "layer", "layer_kv")) for m in ("loop", "batch", "kernel")]
)
def test_smaller_copies_are_never_faster(back, method, layouts):
    links = {name: {"method": method} for name in ("pcie_h2d", "pcie_d2h")}
    ttft = [back("dram", links, engine={"kv_layout": layout})[0].ttft_s for layout in layouts]
    assert sorted(set(ttft)) == ttft


def test_a_method_moves_loads_and_its_direction_alone(back):
    """Toward the GPU it moves the load, away from it the store."""
    plain, load, store = (
        back("dram", {link: {"method": "kernel"}} if link else {}, engine={"kv_layout": "layer_kv"})
        for link in (None, "pcie_h2d", "pcie_d2h")
    )

    def store_s(result):
        return (result.frames["transfers"].query("link == 'pcie_d2h'").eval("end_s - start_s")).sum()

    assert load[0].load_s < plain[0].load_s == store[0].load_s
    assert store_s(store[1]) < store_s(plain[1]) == store_s(load[1])


def test_chunks_cost_set_up_time_alone_and_let_others_pass(run, hand, prompt):
    """1 MiB chunks double the copies of 2 MiB blocks; of two loads at once, the short one no longer waits for all."""
    alpha, beta = hand.group("links.pcie_h2d.loop", "alpha", "beta")
    rows = [(0, A, 1, prompt(1, A)), (5, 64, 1, prompt(3, 64)), (10, C, 1, prompt(2, C))]
    rows += [(AGAIN, A, 1, prompt(1, A)), (AGAIN, 64, 1, prompt(3, 64))]
    whole, half, alone = {}, {}, {}
    for found, chunk, kept in ((whole, None, rows), (half, "1 MiB", rows), (alone, "1 MiB", rows[:-1])):
        links = {"pcie_h2d": {"chunk": chunk}} if chunk else {}
        frame = run(kept, blocks=BLOCKS, dram="10 GiB", links=links).frames["requests"]
        found.update(enumerate(frame.load_s[3:]))
    size = HIT * hand.token_bytes
    assert whole[0] == pytest.approx(HIT // 16 * alpha + size / beta, rel=1e-9)
    assert alone[0] == pytest.approx(2 * HIT // 16 * alpha + size / beta, rel=1e-9)
    assert whole[1] == pytest.approx(whole[0] + 3 * (alpha + 2**21 / beta), rel=1e-9)
    assert half[1] < whole[1] / 5
    assert half[0] > alone[0]


@pytest.mark.parametrize("unit", [16, 32, 128, 512])
def test_larger_engine_blocks_are_fewer_copies(back, hand, unit):
    """A larger block is one copy; less of a prompt is in whole blocks."""
    hit = (A - 1) // unit * unit
    row, _ = back("dram", engine={"block_tokens": unit}, blocks=BLOCKS * 16 // unit)
    assert row.hit_dram_tokens == hit
    assert row.load_s == pytest.approx(hand.copy("pcie_h2d", hit, unit), rel=1e-9)


def test_decoding_does_not_see_how_fast_a_prefix_came(back, hand):
    """TPOT by hand, whatever the load took (without interference: the profile has none here)."""
    steps = [hand.decode_step(1, A + j) for j in range(1, 20)]
    for text in RATES:
        row, _ = back("dram", links_of("dram", pcie_h2d__bandwidth=text), output=20)
        assert row.tpot_s == pytest.approx(sum(steps) / len(steps), rel=1e-9)


def test_a_byte_decides(back, hand):
    """Both prompts fit a tier of just their bytes; in one that is a byte smaller the first gives way to the second."""
    size = (A // 16 + C // 16) * 16 * hand.token_bytes
    assert back("dram", options={"capacity": f"{size} B"})[0].hit_dram_tokens == HIT
    assert back("dram", options={"capacity": f"{size - 1} B"})[0].hit_dram_tokens < HIT


@pytest.mark.parametrize(("cap", "crosses"), [("pcie_joint", "load"), ("host_root", "load"), ("dram", "store")])
def test_a_direct_drive_shares_what_its_bytes_cross(run, prompt, hand, quiet_profile, cap, crosses):
    """Host memory fills it, a GPU empties it: loads of the second GPU cross its own link, and no host memory."""
    others = [(1 + i, C, 1, prompt(2 + i, C)) for i in range(3)]
    rows = [(0, A, 1, prompt(1, A)), *others, (AGAIN, 64, 1, prompt(9, 64)), (AGAIN + 5, A, 1, prompt(1, A))]
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "600 MiB", "shared": "node"}]
    tiers.append({"name": "ssd", "capacity": "10 GiB", "shared": "node", "direct": True})
    links = links_of("ssd") | {cap: {"bandwidth": "0.5 GB/s"}}
    hardware = {"profile": quiet_profile, "replicas": 2}
    result = run(rows, blocks=BLOCKS, tiers=tiers, links=links, hardware=hardware)
    row = result.frames["requests"].iloc[-1]
    assert row.replica == 1
    assert row.hit_ssd_tokens == HIT
    slow = HIT * hand.token_bytes / 0.5e9
    own = load_s("ssd", links, hand.token_bytes, direct=True)
    assert row.load_s == pytest.approx(slow if crosses == "load" else own, rel=1e-9)
    first = result.frames["transfers"].query("link == 'ssd_write'").iloc[0]
    size = A // 16 * 16 * hand.token_bytes
    rate, latency = numbers(links, "ssd_write")
    taken = size / 0.5e9 if crosses == "store" else latency + size / rate
    assert first.end_s - first.start_s == pytest.approx(taken, rel=1e-9)
