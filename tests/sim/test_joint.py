"""What both directions of a device move together: to closed forms, and what a run says about its devices."""

from pathlib import Path

import pytest
import yaml

from hw_profiles.devices import load_device
from hw_profiles.errors import InputError
from sim.clock import Clock
from sim.hierarchy.network import Network, Resource

BLOCKS = 512
HBM = {"name": "hbm"}


def ends(joint, *flows):
    """End of each flow (start s, bytes, pace bytes/s) that shares `joint`."""
    clock, found = Clock(), {}
    network = Network(clock)
    for number, (at, size, pace) in enumerate(flows):

        def begin(number=number, at=at, size=size, pace=pace):
            network.start(at, (joint,), size, size / pace, lambda: found.__setitem__(number, clock.now))

        clock.at(at, begin)
    clock.drain(None, lambda: None)
    return [found[number] for number in range(len(flows))]


def test_one_direction_alone_is_not_held_up():
    assert ends(Resource("joint", 100.0, least=2), (0, 300, 150.0)) == [2.0]
    assert ends(Resource("shared", 100.0), (0, 300, 150.0)) == [pytest.approx(3.0)]


def test_both_directions_share_what_they_move_together():
    """Alone 150 B/s, together 100: a moves 150 B in its first second, then 50 B/s; b moves 100 B in two seconds."""
    a, b = ends(Resource("joint", 100.0, least=2), (0, 400, 150.0), (1, 100, 150.0))
    assert b == pytest.approx(3.0)
    assert a == pytest.approx(3.0 + (400 - 150 - 100) / 150)


@pytest.fixture
def overlapping(prompt):
    """A and B go, D is computed and stored while A comes back."""
    return [(t, n, 1, prompt(f, n)) for t, f, n in ((0, 1, 1600), (10, 2, 4000), (20, 3, 4000), (20.3, 1, 1600))]


def memory(read, write, joint=None):
    links = {"c2c_read": {"bandwidth": read, "latency": "0 s"}, "c2c_write": {"bandwidth": write, "latency": "0 s"}}
    return links if joint is None else {**links, "c2c_joint": {"bandwidth": joint}}


@pytest.mark.parametrize(("name", "direct"), [("c2c", False), ("ssd", True), ("remote", True)])
def test_a_load_beside_a_store_to_closed_form(run, overlapping, name, direct):
    """Reads and writes at 1 GB/s each, 1.2 GB/s together: 0.6 GB/s while both are under way."""
    links = {key.replace("c2c", name): value for key, value in memory("1 GB/s", "1 GB/s", "1.2 GB/s").items()}
    tier = {"name": name, "capacity": "100 GiB", **({"direct": True} if direct else {})}
    table = run(overlapping, blocks=BLOCKS, tiers=[HBM, tier], links=links).frames["transfers"]
    (load,) = table[table.reason == "load"].itertuples()
    store = table[(table.reason == "store") & (table.start_s > 20)].iloc[0]
    assert store.start_s < load.start_s < store.end_s
    first = (load.start_s - store.start_s) * 1e9
    together = load.bytes / 0.6e9
    left = store.bytes - first - load.bytes
    assert left > 0
    assert load.end_s == pytest.approx(load.start_s + together, rel=1e-9)
    assert store.end_s == pytest.approx(load.start_s + together + left / 1e9, rel=1e-9)


def test_without_the_cap_both_go_at_their_own_rates(run, overlapping):
    """The cap of a device is used unless the scenario gives another one, and moves the times of requests."""
    tiers = [HBM, {"name": "cxl", "capacity": "100 GiB"}]
    rates = {"cxl_read": {"latency": "0 s"}, "cxl_write": {"bandwidth": "1 GB/s", "latency": "0 s"}}
    ttft = {}
    for joint in (None, "100 GB/s", "9 GB/s", "2 GB/s"):
        links = rates if joint is None else {**rates, "cxl_joint": {"bandwidth": joint}}
        result = run(overlapping, blocks=BLOCKS, tiers=tiers, links=links)
        ttft[joint] = result.frames["requests"].ttft_s[3]
        assert result.summary["links"]["cxl_joint"]["capacity_bytes_per_s"] == pytest.approx(
            load_device("cxl").joint if joint is None else float(joint.split()[0]) * 1e9
        )
    assert ttft["2 GB/s"] > ttft["9 GB/s"] > ttft["100 GB/s"] == ttft[None]  # 36 GB/s are enough for 27 and 1


@pytest.mark.parametrize(
    ("name", "link", "said"),
    [
        ("dram_joint", {"bandwidth": "1 GB/s"}, "links: unknown link, found 'dram_joint', .*ssd_joint"),
        ("ssd_joint", {"latency": "1 us"}, "links.ssd_joint.latency: a shared bandwidth has no latency"),
        ("ssd_joint", {"chunk": "1 MiB"}, "links.ssd_joint.chunk: a shared bandwidth copies nothing itself"),
        ("ssd_joint", {"method": "batch"}, "links.ssd_joint.method: only the GPU's own link has a copy method"),
        ("ssd_joint", {"bandwidth": "0 GB/s"}, "links.ssd_joint.bandwidth: found '0', expected a rate > 0"),
    ],
)
def test_what_a_joint_cap_cannot_have(scenario, overlapping, name, link, said):
    tiers = [HBM, {"name": "dram", "capacity": "1 GiB"}, {"name": "ssd", "capacity": "1 GiB"}]
    with pytest.raises(InputError, match=f"^scenario: {said}"):
        scenario(overlapping, tiers=tiers, links={name: link}).run()


# ---- provenance


def device_rows(result):
    rows = [v for v in result.profile_values if v["path"].startswith("devices.")]
    return {v["path"].removeprefix("devices."): v for v in rows}


def test_devices_are_in_the_table_of_values(run, overlapping):
    tiers = [HBM, {"name": "cxl", "capacity": "100 GiB"}, {"name": "ssd", "capacity": "100 GiB"}]
    links = {"cxl_joint": {"bandwidth": "30 GB/s"}, "ssd_read": {"bandwidth": "5 GB/s"}}
    rows = device_rows(run(overlapping, blocks=BLOCKS, tiers=tiers, links=links))
    cxl, ssd = load_device("cxl"), load_device("nvme-gen4")
    same = rows["cxl.read.bandwidth"]
    assert (same["value_si"], same["src"], same["used"]) == (cxl.read.bandwidth, "cxl/flits", True)
    assert (same["lo"], same["hi"]) == (cxl.entries["read.bandwidth"].lo, cxl.entries["read.bandwidth"].hi)
    assert same["source"] == cxl.sources["flits"]
    assert (rows["cxl.caps.joint"]["value_si"], rows["cxl.caps.joint"]["src"]) == (30e9, "override")
    assert rows["ssd.read.bandwidth"]["value_si"] == 5e9
    assert "ssd.read.per_io" not in rows  # a bandwidth from the scenario is a plain one
    assert rows["ssd.write.per_io"]["value_si"] == ssd.write.per_io
    assert not rows["ssd.write.saturation"]["used"]  # its ramp is flat
    assert rows["ssd.write.single"]["used"]
    assert all(rows[path]["used"] for path in rows if "measured" not in path and "saturation" not in path)


def test_a_device_counts_in_the_widest_uncertainty(run, overlapping, tmp_path):
    raw = yaml.safe_load(Path(load_device("cxl").source).read_text())
    raw["write"]["bandwidth"] |= {"lo": 1, "hi": 440}
    file = tmp_path / "cxl.yaml"
    file.write_text(yaml.safe_dump(raw))
    tiers = [HBM, {"name": "cxl", "capacity": "100 GiB", "device": str(file)}]
    profile = run(overlapping, blocks=BLOCKS, tiers=tiers).summary["profile"]
    assert profile["widest_value"] == "devices.cxl.write.bandwidth"
    assert profile["widest_uncertainty"] == pytest.approx((440 - 22) / 22)
    assert profile["extrapolated_copies_fraction"] is None  # its file names no sizes
    unused = run(overlapping, blocks=BLOCKS, tiers=[HBM, {**tiers[1], "capacity": "0 B"}]).summary["profile"]
    assert unused["widest_value"] != "devices.cxl.write.bandwidth"


def test_copies_of_sizes_that_no_one_measured_are_counted(run, overlapping, tmp_path):
    """An engine block of 16 tokens is a copy of 2 MiB; one of 128 is read in copies of the most that was measured."""
    raw = yaml.safe_load(Path(load_device("nvme-gen4").source).read_text())
    raw["measured_copies"]["least"] |= {"v": 3, "unit": "MiB"}
    file = tmp_path / "disk.yaml"
    file.write_text(yaml.safe_dump(raw))
    summaries = {}
    for tokens in (16, 128):
        tiers = [HBM, {"name": "ssd", "capacity": "100 GiB", "device": str(file)}]
        result = run(overlapping, blocks=8192 // tokens, tiers=tiers, engine={"block_tokens": tokens})
        copies = result.frames["transfers"].query("link == 'ssd_write'")
        assert (copies.bytes / copies.copies == (2 if tokens == 16 else 4) << 20).all()
        summaries[tokens] = result.summary
    said = "100% of the bytes of devices moved in copies of sizes that were not measured"
    assert [summaries[n]["profile"]["extrapolated_copies_fraction"] for n in (16, 128)] == [1, 0]
    assert (said in summaries[16]["warnings"], said in summaries[128]["warnings"]) == (True, False)
