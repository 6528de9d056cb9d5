import subprocess
import sys
from pathlib import Path

import pytest

from traces.random import stream


def test_equal_arguments_give_equal_draws():
    assert stream(3, "a", 1, 2).random(5).tolist() == stream(3, "a", 1, 2).random(5).tolist()


@pytest.mark.parametrize("other", [(4, "a", 1, 2), (3, "b", 1, 2), (3, "a", 2, 1), (3, "a", 12), (3, "a", 1)])
def test_each_argument_matters(other):
    assert stream(3, "a", 1, 2).random(5).tolist() != stream(*other).random(5).tolist()


def test_drawing_from_one_stream_leaves_the_others_alone():
    alone = stream(0, "arrivals").random(10).tolist()
    lengths, arrivals = stream(0, "lengths"), stream(0, "arrivals")
    mixed = []
    for k in range(10):
        lengths.random(k)
        mixed.append(arrivals.random())
    assert mixed == alone


def test_streams_look_independent():
    """|correlation| of 20,000 pairs stays within 5 sigma (1 / sqrt(n) each)."""
    import numpy as np

    x = [stream(0, "a", i).random(20_000) for i in range(4)]
    off = np.corrcoef(x)[np.triu_indices(4, 1)]
    assert abs(off).max() < 5 / 20_000**0.5


def test_the_same_in_another_process_with_another_hash_seed():
    code = "from traces.random import stream; print(stream(7, 'x', 1).integers(1 << 62))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": "123", "PATH": ""},
    )
    assert int(run.stdout) == stream(7, "x", 1).integers(1 << 62)
