"""Blocks, resamples and intervals: against hand counts, numpy and scipy, and on queues whose difference is known."""

import numpy as np
import pytest
from scipy import stats

from sim.whatif.blocks import automatic_length, busy_period_s, draws, window_means, windows
from sim.whatif.compare import UNSURE, compare
from sim.whatif.interval import percentile_interval, seeds_interval, t_quantile
from sim.whatif.runs import Run
from sim.whatif.statistics import resampled

NAN = float("nan")


def queue_run(arrival, service, label="run"):
    """A single server in order of arrival (Lindley's recursion) as a run: what waits is TTFT less its service."""
    n = len(arrival)
    start = np.empty(n)
    free = 0.0
    for i, (at, takes) in enumerate(zip(arrival.tolist(), service.tolist(), strict=True)):
        start[i] = max(at, free)
        free = start[i] + takes
    finish = start + service
    columns = {
        "request_id": np.arange(n),
        "session": np.full(n, -1),
        "replica": np.zeros(n, dtype=np.int16),
        "arrival_s": arrival,
        "first_chunk_s": start,
        "finish_s": finish,
        "input_tokens": np.full(n, 100),
        "output_tokens": np.full(n, 2),
        "ttft_s": finish - arrival,
        "tpot_s": service,
        "e2e_s": finish - arrival,
        "queue_s": start - arrival,
        "hit_hbm_tokens": np.zeros(n, dtype=np.int64),
    }
    row = {"key": "ttft_mean_ms", "label": "TTFT, mean", "unit": "ms", "better": "lower", "definition": "."}
    summary = {
        "metrics": [{**row, "value": 1e3 * float(columns["ttft_s"].mean())}],
        "slo": {"targets": {}},
        "duration_s": float(finish.max() - arrival.min()),
        "config_sha256": label,
        "warnings": [],
    }
    return Run(label, summary, columns)


def poisson_queue(rng, n=2500, load=0.6, faster=1.0):
    """A queue with a Poisson stream, and the same stream with every service `faster` times as long."""
    arrival, service = np.cumsum(rng.exponential(1.0, n)), rng.exponential(load, n)
    return queue_run(arrival, service), queue_run(arrival, service * faster)


@pytest.fixture
def quick(monkeypatch):
    """Fewer resamples: the tests below average over many intervals."""
    monkeypatch.setattr("sim.whatif.compare.RESAMPLES", 150)


@pytest.mark.usefixtures("quick")
def test_intervals_hold_the_known_difference():
    """90 % nominal. At a load of 0.4 nearly that; at 0.6 backlogs are so skewed that it is about 80 %."""
    rng = np.random.default_rng(5)
    # M/M/1: mean time in the system is s / (1 - s) for a service time of s at one arrival per second.
    truth = 1e3 * (0.36 / 0.64 - 0.4 / 0.6)
    held = 0
    for _ in range(40):
        a, b = poisson_queue(rng, load=0.4, faster=0.9)
        (difference,) = compare([[a], [b]]).rows[0].differences
        held += difference.low <= truth <= difference.high
    assert held >= 0.8 * 40


@pytest.mark.usefixtures("quick")
def test_a_run_against_itself_is_the_same():
    a, _ = poisson_queue(np.random.default_rng(5))
    (difference,) = compare([[a], [a]]).rows[0].differences
    assert (difference.value, difference.low, difference.high, difference.verdict) == (0, 0, 0, "same")


def test_what_rounding_leaves_is_no_difference():
    a, _ = poisson_queue(np.random.default_rng(5), n=20)
    row = {"key": "gpu_busy", "label": "GPU busy", "unit": "%", "better": "none", "definition": ".", "value": 95.9}
    b, c = (
        Run(label, {**a.summary, "metrics": [*a.summary["metrics"], {**row, "value": value}]}, a.columns)
        for label, value in (("b", 95.9 + 1.4e-14), ("c", 95.9 + 1e-9))
    )
    a.summary["metrics"].append(row)
    first, second = compare([[a], [b], [c]]).rows[1].differences
    assert (first.value, first.verdict) == (0, "same")
    assert second.value == pytest.approx(1e-9, rel=1e-3)
    assert second.verdict == "no interval"


@pytest.mark.usefixtures("quick")
def test_unlike_services_with_the_same_mean_are_mostly_not_told_apart():
    rng = np.random.default_rng(6)
    unsure = 0
    for _ in range(30):
        arrival = np.cumsum(rng.exponential(1.0, 2500))
        a, b = (queue_run(arrival, rng.exponential(0.4, 2500)) for _ in range(2))
        (difference,) = compare([[a], [b]]).rows[0].differences
        unsure += difference.verdict == UNSURE
    assert unsure >= 0.75 * 30


def test_resampling_single_requests_would_claim_too_much():
    """The reason for blocks: over single requests of a queue, intervals miss the truth far too often."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(60):
        a, _ = poisson_queue(rng, load=0.7)
        waits = a.columns["ttft_s"]
        means = waits[rng.integers(0, len(waits), (300, len(waits)))].mean(axis=1)
        low, high = np.quantile(means, [0.05, 0.95])
        held += low <= 0.7 / 0.3 <= high
    assert held / 60 < 0.7


def test_percentiles_of_copies_are_those_of_numpy():
    rng = np.random.default_rng(1)
    run, _ = poisson_queue(rng, n=300)
    window, count, _ = windows(run.columns["arrival_s"], run.columns["session"])
    counts = draws(count, 4, 5, rng)
    found = resampled(run, window, counts)
    for row in range(5):
        copies = np.repeat(run.columns["ttft_s"] * 1e3, counts[row][window])
        assert found["ttft_mean_ms"][row] == pytest.approx(copies.mean(), rel=1e-12)
        for p in (50, 95, 99):
            assert found[f"ttft_p{p}_ms"][row] == pytest.approx(np.percentile(copies, p), rel=1e-12)


def test_every_window_is_drawn_alike_and_in_blocks():
    counts = draws(40, 8, 4000, np.random.default_rng(2))
    assert (counts.sum(axis=1) == 40).all()
    assert counts.mean(axis=0) == pytest.approx(1, abs=0.1)
    together = (counts[:, :-1] > 0) == (counts[:, 1:] > 0)
    assert together.mean() > 0.7  # neighbours come and go together; one by one it would be about a half


def test_a_session_is_in_one_window():
    arrival = np.arange(800.0)
    window, count, width = windows(arrival, np.where(arrival < 400, 3, -1))
    assert (count, width) == (100, 7.99)
    assert (window[:400] == 0).all()
    assert window[400:].tolist() == [min(int(t / width), 99) for t in arrival[400:]]


def test_a_busy_period_ends_when_a_replica_has_no_one_waiting():
    columns = {
        "replica": np.array([0, 0, 1, 0, 0]),
        "arrival_s": np.array([0.0, 1.0, 2.0, 5.0, 6.0]),
        "first_chunk_s": np.array([1.5, 4.0, 9.0, 5.0, NAN]),
    }
    assert busy_period_s(columns) == 7.0  # replica 1; replica 0 waits from 0 to 4
    alone = {key: values[columns["replica"] == 0] for key, values in columns.items()}
    assert busy_period_s(alone) == 4.0


def test_the_length_of_blocks_grows_with_correlation():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=400)
    lengths = []
    for rho in (0.0, 0.5, 0.9):
        series = np.empty(400)
        series[0] = noise[0]
        for i in range(1, 400):
            series[i] = rho * series[i - 1] + noise[i]
        lengths.append(automatic_length(series))
    assert lengths[0] <= 3 < lengths[1] < lengths[2] <= 50
    assert automatic_length(np.zeros(400)) == 1


def test_a_window_without_requests_adds_nothing():
    means = window_means(np.array([1.0, 3.0, NAN, 8.0]), np.array([0, 0, 1, 2]), 4)
    assert means.tolist() == [2.0, 4.0, 8.0, 4.0]


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 12, 40])
def test_quantiles_of_student(df):
    assert t_quantile(0.95, df) == pytest.approx(stats.t.ppf(0.95, df), rel=0.01)


def test_seeds_are_student():
    sample = np.array([1.0, 2.0, 4.0, 3.5])
    low, high = seeds_interval(sample)
    assert (low, high) == pytest.approx(stats.t.interval(0.9, 3, sample.mean(), stats.sem(sample)), rel=0.01)
    assert seeds_interval(sample[:1]) is None
    assert seeds_interval(np.full(3, -111.3)) is None  # the same run three times
    assert seeds_interval(np.zeros(3)) == (0, 0)


def test_few_blocks_widen_the_interval():
    resamples = np.random.default_rng(4).normal(size=1000)
    few, many = (percentile_interval(0.0, resamples, blocks) for blocks in (8, 400))
    assert few[0] < many[0] < -1.5
    assert few[1] > many[1] > 1.5
    assert percentile_interval(3.0, np.full(10, 3.0), 9) is None  # moved by no resample
