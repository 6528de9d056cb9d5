"""All-reduce tables: a disturbed point is left out, and what is shipped follows the sizes that engines exchange."""

import os
from pathlib import Path

import numpy as np
import pytest

from calibration.aic_products import allreduce_points, disturbed_sums
from calibration.aic_source import Source
from calibration.shipped import SHIPPED, folder_of
from hw_profiles.loader import load_profile

DATA = Path(os.environ.get("KVSIM_TRACES") or Path(__file__).parents[3] / "shared" / "data" / "traces").parent
needs_data = pytest.mark.skipif(not folder_of(SHIPPED["a100-80"], DATA).is_dir(), reason=f"no kernel tables in {DATA}")


def test_a_sum_that_took_longer_than_a_larger_one_is_left_out_of_the_fit() -> None:
    nbytes = np.array([4096.0, 256, 1024, 16384, 65536])  # in no order
    seconds = np.array([15e-6, 5.7e-6, 5.8e-6, 6.5e-6, 6.4e-6])
    everything = np.ones(5, dtype=bool)
    assert disturbed_sums(nbytes, seconds, everything).tolist() == [True, False, False, False, False]
    held = everything & (nbytes != 4096)
    assert not disturbed_sums(nbytes, seconds, held).any()  # a held-out point is never left out
    assert not disturbed_sums(nbytes, np.sort(seconds)[np.argsort(np.argsort(nbytes))], everything).any()


@needs_data
def test_shipped_sums_of_eight_a100_follow_their_table() -> None:
    """Steps of decode with 16 to 1,024 sequences of a model 8,192 wide exchange 256 KiB to 16 MiB."""
    shipped = SHIPPED["a100-80"]
    points = next(p for p in allreduce_points(Source(folder_of(shipped, DATA), "vllm")) if p.name == "allreduce_8")
    model = load_profile("a100-80").allreduce(8)
    assert model is not None
    nbytes = points.shape["bytes"]
    unseen = points.splits["held out"]
    error = np.abs(points.predict(model) / points.seconds - 1)
    assert error[unseen].mean() < 0.1
    seen = points.fitted & (nbytes >= 2**18) & (nbytes <= 2**24)
    assert error[seen].max() < 0.1  # 256 KiB took 17 us where latency and rate alone say 10
