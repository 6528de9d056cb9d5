"""docs/models.md says what the code says."""

import re
from pathlib import Path

from hw_profiles.families import FAMILIES
from hw_profiles.formats import KV_FORMATS, WEIGHT_FORMATS
from hw_profiles.models import list_models, load_model

DOC = (Path(__file__).parents[2] / "docs" / "models.md").read_text()


def test_the_table_of_models() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in DOC.splitlines() if line.startswith("| `")]
    expected = []
    rows = [row for row in rows if len(row) == 8]  # other tables of the page are narrower
    for name in list_models():
        m = load_model(name)
        numbers = [f"{value:,}" for value in (m.parameters, m.active_parameters)]
        sizes = [f"{value:,}" for value in (m.weight_bytes, m.kv_bytes_per_token)]
        expected.append([f"`{name}`", m.origin, m.attention, *numbers, ", ".join(m.weight_formats), *sizes])
    assert rows == expected


def test_the_names_of_families_and_formats() -> None:
    def names(after: str, before: str) -> list[str]:
        return re.findall(r"`([\w.]+)`", DOC.partition(after)[2].partition(before)[0])

    assert names("`model_type` is one of", ". What a config") == list(FAMILIES)
    assert names("- weights:", ";") == list(WEIGHT_FORMATS)
    assert names("- cache:", ".\n") == list(KV_FORMATS)


def test_bits_with_scales() -> None:
    weight, cache = WEIGHT_FORMATS["int4"], KV_FORMATS["int4"]
    assert f"costs {weight.matrix_bytes(1024, 1024) * 8 / 1024**2:.2f} bits as a weight" in DOC
    assert f"and {cache.matrix_bytes(1, 128) * 8 / 128:.2f} in a cache with heads of 128" in DOC
