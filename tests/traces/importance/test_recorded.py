"""Recorded scores: the file format, and statistics counted by hand on scores small enough for it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hw_profiles.errors import InputError
from traces.importance.recorded import Recorded, save
from traces.random import stream

METADATA = {"score": "log_mass", "model": "tiny", "page_tokens": 16, "context": 64, "source": "a test"}


def masses(*steps: tuple[float, ...]) -> np.ndarray:
    """One layer's scores from the masses of pages, a row a step; 0 is a page that is not there yet."""
    with np.errstate(divide="ignore"):
        return np.log(np.array([steps], dtype=np.float64)).astype(np.float16)


def loaded(tmp_path, scores, **changes) -> Recorded:
    save(tmp_path / "scores.npz", scores, METADATA | changes)
    return Recorded.load(tmp_path / "scores.npz")


def test_recalls_counted_by_hand(tmp_path):
    """Two of four pages are selected, two cached. Step 1 needs page 2 (1 goes), step 2 page 1 (0 goes), step 3 both."""
    scores = masses((0.5, 0.3, 0.15, 0.05), (0.5, 0.05, 0.3, 0.15), (0.1, 0.5, 0.3, 0.1), (0.5, 0.05, 0.1, 0.35))
    recorded = loaded(tmp_path, scores)
    line = recorded.recalls(2, 2, 16)
    assert line.at(64, 0) == pytest.approx((1 + 1 + 2) / 3)
    assert line.at(32, 0) == 0.0
    assert line.at(48, 0) == pytest.approx(line.at(64, 0) / 2)
    assert recorded.recalls(2, 3, 16).at(64, 0) == pytest.approx((0 + 0 + 1) / 3)


def test_a_page_that_is_being_filled_is_not_recalled(tmp_path):
    scores = masses((0.6, 0.4, 0.0, 0.0), (0.6, 0.1, 0.3, 0.0), (0.6, 0.1, 0.2, 0.1))
    assert loaded(tmp_path, scores).recalls(2, 2, 16).at(64, 0) == 0.0


def test_pages_joined_hold_the_mass_of_both(tmp_path):
    """Pairs (0, 1) and (2, 3): 0.55 against 0.45, then 0.4 against 0.6."""
    recorded = loaded(tmp_path, masses((0.3, 0.25, 0.35, 0.1), (0.2, 0.2, 0.5, 0.1)))
    assert recorded.recalls(1, 1, 32).at(64, 0) == 1.0
    with pytest.raises(InputError, match="found 24, expected a multiple of 16 tokens"):
        recorded.recalls(1, 1, 24)


def test_keys_coverage_and_hits_counted_by_hand(tmp_path):
    recorded = loaded(tmp_path, masses((0.6, 0.25, 0.1, 0.05), (0.25, 0.6, 0.1, 0.05), (0.6, 0.3, 0.05, 0.05)))
    assert recorded.keys_for(0.5).at(64, 0) == 16
    assert recorded.keys_for(0.8).at(64, 0) == 32
    assert recorded.keys_for(0.8).at(32, 0) == 16
    assert recorded.keys_for(0.88).at(64, 0) == pytest.approx((3 + 3 + 2) / 3 * 16)
    assert recorded.layer_keys(0.88) == [pytest.approx((3 + 3 + 2) / 3 * 16)]
    assert recorded.coverage(16, 64) == pytest.approx(0.6, abs=1e-3)
    assert recorded.coverage(8, 64) == pytest.approx(0.3, abs=1e-3)
    assert recorded.coverage(64, 64) == 1.0
    assert recorded.hit_ratio(16, 16, 16) == pytest.approx(0.5)  # cached 0 both times; wanted 1, then 0
    assert recorded.hit_ratio(64, 16, 16) == 1.0
    assert recorded.hit_ratio(16, 0, 16) == 1.0
    assert recorded.notes == ("scores.npz: keys are counted in pages of 16 tokens",)


def test_more_cache_never_recalls_more_and_all_of_it_nothing(tmp_path):
    scores = stream(0, "test").standard_normal((3, 40, 20)).astype(np.float16)
    recorded = loaded(tmp_path, scores, score="relevance", context=320)
    found = [recorded.recalls(5, cached, 16).at(320, 0) for cached in range(5, 22)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 1
    assert found[-2:] == [0.0, 0.0]
    hits = [recorded.hit_ratio(size, 80, 16) for size in range(0, 321, 16)]
    assert (hits[0], hits[-1]) == (0.0, 1.0)
    assert hits == sorted(hits)
    with pytest.raises(InputError, match=r"metadata.score: attention mass needs .* found 'relevance'"):
        recorded.coverage(10, 320)


def write(path, scores, metadata):
    np.savez(path, allow_pickle=False, scores=scores, metadata=np.array(json.dumps(metadata)))


GOOD = np.zeros((1, 3, 4), dtype=np.float16)


@pytest.mark.parametrize(
    ("scores", "changes", "says"),
    [
        (GOOD[0], {}, "scores: found 'float16 [3, 4]', expected float16 [layer, step >= 2, page]"),
        (GOOD[:, :1], {}, "found 'float16 [1, 1, 4]'"),
        (GOOD * np.nan, {}, "not a number"),
        (GOOD - np.inf, {}, "no finite score"),
        (GOOD, {"format": "kvsim-importance/2"}, "metadata.format: found 'kvsim-importance/2', expected kvsim-imp"),
        (GOOD, {"score": "mass"}, "metadata.score: found 'mass', expected one of log_mass, relevance"),
        (GOOD, {"page_tokens": "16"}, "metadata.page_tokens: found '16', expected a whole number"),
        (GOOD, {"context": 65}, "metadata.context: found 65, expected at most 64 tokens in 4 pages"),
        (GOOD, {"context": 48}, "metadata.context: found 48, expected more than 48 tokens in 4 pages"),
        (GOOD, {"model": None}, "metadata.model: expected a text"),
    ],
)
def test_a_file_that_is_not_in_the_format_is_refused_in_one_line(tmp_path, scores, changes, says):
    path = tmp_path / "bad.npz"
    write(path, scores, {"format": "kvsim-importance/1", **METADATA, **changes})
    with pytest.raises(InputError) as error:
        Recorded.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    path = tmp_path / "scores.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"scores\.npz: not an .npz file of recorded scores"):
        Recorded.load(path)
    with pytest.raises(InputError, match=r"missing\.npz: no such file"):
        Recorded.load(tmp_path / "missing.npz")


def test_arrays_that_are_not_there(tmp_path):
    np.savez(tmp_path / "scores.npz", scores=GOOD)
    with pytest.raises(InputError, match="expected an array 'metadata'"):
        Recorded.load(tmp_path / "scores.npz")


def test_what_is_saved_is_what_is_loaded(tmp_path):
    scores = masses((0.5, 0.3, 0.15, 0.05), (0.5, 0.05, 0.45, 0.0))
    recorded = loaded(tmp_path, scores)
    assert np.array_equal(recorded.scores, scores.astype(np.float32))
    assert {key: recorded.metadata[key] for key in METADATA} == METADATA
    with pytest.raises(InputError):
        save(tmp_path / "other.npz", scores, METADATA | {"context": 1000})
    assert not (tmp_path / "other.npz").exists()
