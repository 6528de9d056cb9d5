"""Which links bytes cross where the host's memory is that behind NVLink-C2C (a Grace CPU)."""

import pytest

A, B, C = 1600, 2000, 4000
BLOCKS = 256
TIERS = [
    {"name": "hbm"},
    {"name": "c2c", "capacity": "220 MiB"},  # one prompt
    {"name": "ssd", "capacity": "10 GiB"},
]


@pytest.fixture
def moved(run, prompt):
    """Bytes by (link, reason): A goes to the drive alone and comes back."""
    rows = [(0, A, 1, prompt(1, A)), (10, B, 1, prompt(2, B)), (20, C, 1, prompt(3, C)), (30, A, 1, prompt(1, A))]
    table = run(rows, blocks=BLOCKS, tiers=TIERS).frames["transfers"]
    return table.groupby(["link", "reason"]).bytes.sum().to_dict()


def test_a_store_from_there_to_a_drive_does_not_cross_the_link(moved):
    assert moved["ssd_write", "store"] > 0
    assert moved.get(("c2c_read", "store"), 0) == 0


def test_a_load_from_a_drive_goes_on_over_the_link(moved):
    assert moved["ssd_read", "load"] > 0
    assert moved.get(("c2c_read", "load"), 0) == moved["ssd_read", "load"]
    assert ("pcie_h2d", "load") not in moved
