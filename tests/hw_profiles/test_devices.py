"""The device catalogue: whole and plausible, true to the figures that it quotes, and malformed files refused."""

import copy
import csv
import os
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.devices import DIRECTIONS, KINDS, list_devices, load_device
from hw_profiles.errors import InputError
from hw_profiles.yaml_io import dump_yaml, load_yaml

SHIPPED = Path(__file__).parents[2] / "hw_profiles" / "devices"
GEN4 = load_yaml(SHIPPED / "nvme-gen4.yaml")
TRACES = os.environ.get("KVSIM_TRACES")
DATA = Path(TRACES).parent if TRACES else Path(__file__).parents[3] / "shared" / "data"
FACTS = DATA / "measured" / "bandwidth_facts" / "facts.csv"
needs_facts = pytest.mark.skipif(not FACTS.is_file(), reason=f"no bandwidth facts at {FACTS}")
GIB, KIB, MANY = 2**30, 2**10, 10**6


def figures(what: str, hardware: str) -> list[float]:
    """The numbers, in units of their row, of the fact that begins so."""
    with FACTS.open() as file:
        rows = [row for row in csv.DictReader(file) if row["what"].startswith(what) and hardware in row["hardware"]]
    assert len(rows) == 1
    return [float(number) for number in rows[0]["value"].split("/")]


ALIKE = ("nvlink-h100",)
"""Links between equals: both ways are the same."""


@pytest.mark.parametrize("name", list_devices())
def test_every_shipped_value_has_source_and_interval(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    assert device.kind in KINDS
    assert {value.src_key for value in device.values()} == set(device.sources)  # and no source is left over
    for value in device.values():
        assert value.lo is not None
        assert value.hi is not None
        assert value.lo <= value.value_si <= value.hi
        assert value.source_text


@pytest.mark.parametrize("name", list_devices())
def test_reads_and_writes_differ_and_more_outstanding_is_no_slower(name: str) -> None:
    device = load_device(name)
    assert (device.read == device.write) == (name in ALIKE)
    for link in (device.read, device.write):
        rates = [link.rate(q) for q in range(1, 40)]
        assert rates == sorted(rates)
        assert rates[0] == link.single * link.bandwidth
        assert rates[-1] == link.bandwidth
    if device.joint is not None:
        assert max(device.read.bandwidth, device.write.bandwidth) <= device.joint * 1.2
        assert device.joint < device.read.bandwidth + device.write.bandwidth


def test_the_catalogue() -> None:
    kinds = {name: load_device(name).kind for name in list_devices()}
    rdma = [f"rdma-{gbit}g" for gbit in (100, 200, 400)]
    expected = dict.fromkeys(("cxl", "nvlink-c2c"), "memory") | dict.fromkeys((*rdma, *ALIKE), "network")
    assert kinds == expected | dict.fromkeys(("nvme-gen4", "nvme-gen5-raid4"), "storage")
    for gbit, name in zip((100, 200, 400), rdma, strict=True):  # below the line rate
        for link in (load_device(name).read, load_device(name).write):
            assert 0.8 < link.bandwidth / (gbit / 8 * 1e9) < 1


@needs_facts
def test_gen4_drive_meets_its_reads_by_size() -> None:
    """Solidigm Table 1: both data paths within 6 %."""
    link = load_device("nvme-gen4").read
    sizes = [KIB * kib for kib in (64, 128, 512, 1024, 4096)]
    for path in ("GDS read 64KiB", "CPU-bounce read 64KiB"):
        for size, measured in zip(sizes, figures(path, "D7-P5520"), strict=True):
            rate = size / link.seconds(size, 1, outstanding=MANY, idle=False) / GIB
            assert rate == pytest.approx(measured, rel=0.06), size


@needs_facts
def test_gen5_array_meets_its_peaks_and_object_reads() -> None:
    device = load_device("nvme-gen5-raid4")
    (read,), (write,) = (figures(f"gdsio {way} peak 4 GPUs", "same") for way in ("read", "write"))
    assert (device.read.bandwidth / GIB, device.write.bandwidth / GIB) == pytest.approx((read, write))
    (one_gpu,) = figures("gdsio read peak 1 GPU", "PS1010")
    assert device.read.rate(4) / GIB >= one_gpu  # four workers; the GPU's own link is what limits them
    assert device.read.rate(16) == device.read.bandwidth
    objects = {549e3: figures("kvbench DeepSeek-R1", "same")[1], 2.5e6: figures("kvbench Llama-70B", "same")[0]}
    for size, measured in objects.items():
        rate = size / (device.read.per_io + size / (one_gpu * GIB)) / GIB
        assert rate == pytest.approx(measured, rel=0.01)


@needs_facts
def test_network_card_meets_a_storage_client() -> None:
    assert load_device("rdma-400g").read.bandwidth / GIB == figures("3FS KVCache client", "1x400Gbps")[0]


def test_one_copy_at_a_time_as_measured() -> None:
    """GDSIO with depth 1 on a D7-PS1010 (StorageReview, HPE DL145 Gen11); figures have one or two digits."""
    read, write = load_device("nvme-gen4").read, load_device("nvme-gen4").write
    for link, measured in ((read, {128: 1.1, 1024: 2.4}), (write, {128: 2.2})):
        for kib, gib in measured.items():
            assert KIB * kib / link.seconds(KIB * kib, 1) / GIB == pytest.approx(gib, rel=0.12), kib


def test_override_replaces_one_value() -> None:
    base = load_device("nvme-gen4")
    assert base.override("write.bandwidth", "2 GB/s").write.bandwidth == 2e9
    assert base.override("read.latency", 1e-3).read.latency == 1e-3
    assert base.read.latency == pytest.approx(6.5e-5)
    with pytest.raises(InputError, match=r"no such value, found 'read\.bandwith'.*did you mean 'read\.bandwidth'"):
        base.override("read.bandwith", 1.0)
    with pytest.raises(InputError, match=r"read\.single: found 1\.5, expected a number of at most 1"):
        base.override("read.single", 1.5)


def write(folder: Path, path: str, value: object) -> Path:
    """The nvme-gen4 device with one node (dotted path) replaced, or removed (None)."""
    document: Any = copy.deepcopy(GEN4)
    *parents, last = path.split(".")
    node = document
    for key in parents:
        node = node[key]
    if value is None:
        del node[last]
    else:
        node[last] = value
    file = folder / "device.yaml"
    file.write_text(dump_yaml(document))
    return file


def test_unchanged_copy_loads_the_same(tmp_path: Path) -> None:
    assert load_device(write(tmp_path, "name", "nvme-gen4")).values() == load_device("nvme-gen4").values()


def test_what_may_be_left_out(tmp_path: Path) -> None:
    document: Any = copy.deepcopy(GEN4)
    for direction in DIRECTIONS:
        document[direction] = {key: document[direction][key] for key in ("latency", "bandwidth")}
    file = tmp_path / "plain.yaml"
    file.write_text(dump_yaml(document))
    link = load_device(file).read
    assert (link.single, link.saturation, link.per_io) == (1.0, 1, 0.0)
    assert load_device(file).joint is None


SHARE = {"v": 1.2, "unit": "1", "src": "gdsio"}


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("schema", "kvsim-hw/1", r"schema: found 'kvsim-hw/1', expected kvsim-device/1"),
        ("kind", "disk", "kind: found 'disk', expected one of memory, storage, network"),
        ("what", None, "what: expected text"),
        ("reads", {}, "unknown key, found 'reads'.*did you mean 'read'"),
        ("write", None, "write: expected a mapping"),
        ("write.bandwidth", None, r"write: missing value 'bandwidth'"),
        ("read.latancy", {}, r"read: unknown key, found 'latancy'.*did you mean 'latency'"),
        ("read.single", SHARE, r"read\.single\.v: found 1\.2, expected a number of at most 1"),
        ("read.saturation", None, r"read\.saturation: missing or 1, but one copy alone.*expected .* 2 or more"),
        ("read.bandwidth.unit", "GB", r"read\.bandwidth\.unit: unknown unit, found 'GB'"),
        ("read.bandwidth.src", "gdsi", r"read\.bandwidth\.src: unknown source.*did you mean 'gdsio'"),
        ("read.bandwidth.lo", 8, r"read\.bandwidth: v is outside lo\.\.hi"),
        ("caps", {"jont": {}}, r"caps: unknown key, found 'jont', expected joint"),
    ],
)
def test_malformed_devices(tmp_path: Path, path: str, value: object, problem: str) -> None:
    file = write(tmp_path, path, value)
    with pytest.raises(InputError, match=problem) as caught:
        load_device(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_unknown_name_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown device, found 'nvme-gen3'.*one of cxl, .*did you mean 'nvme-gen4'"):
        load_device("nvme-gen3")
    with pytest.raises(InputError, match=r"none\.yaml: file not found"):
        load_device(tmp_path / "none.yaml")
