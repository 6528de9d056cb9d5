"""One request at a time is a queue that theory knows: M/D/1 and M/G/1, request by request and on average."""

import numpy as np
import pytest

COUNT = 6000


def poisson(rate, seed, count=COUNT):
    return np.cumsum(np.random.Generator(np.random.Philox(seed)).exponential(1 / rate, count))


def lindley(arrivals, service):
    """Waits of a first-come-first-served queue of one server: W(n+1) = max(0, W(n) + S(n) - A(n))."""
    waits = [0.0]
    for gap, seconds in zip(np.diff(arrivals), service[:-1], strict=True):
        waits.append(max(0.0, waits[-1] + seconds - gap))
    return np.array(waits)


def served(hand, tokens, output):
    """Seconds of a request alone: its prompt in a step, then a step for each further token."""
    decode = sum(hand.decode_step(1, tokens + j) for j in range(1, output))
    return hand.mixed_step([(tokens, 0)], sampled=1) + decode


def waits_of(run, arrivals, tokens, outputs):
    """What each request waited until its first step, s."""
    rows = [
        (float(t), int(n), int(m), [10 * i + k for k in range(-(-int(n) // 512))])
        for i, (t, n, m) in enumerate(zip(arrivals, tokens, outputs, strict=True))
    ]
    return run(rows, engine={"max_num_seqs": 1}).frames["requests"].queue_s.to_numpy()


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_equal_requests_are_m_d_1(run, hand, load):
    """Mean wait rho S / (2 (1 - rho)); the sample's own mean is within its error of that."""
    seconds = served(hand, 640, 1)
    arrivals = poisson(load / seconds, 1)
    waits = waits_of(run, arrivals, [640] * COUNT, [1] * COUNT)
    assert np.allclose(waits, lindley(arrivals, np.full(COUNT, seconds)), rtol=0, atol=1e-7)
    expected = load * seconds / (2 * (1 - load))
    assert waits.mean() == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_requests_of_two_kinds_are_m_g_1(run, hand, load):
    """Pollaczek and Khinchine: lambda E[S^2] / (2 (1 - rho)), for short prompts and for prompts with long answers."""
    kinds = [(64, 1), (1024, 12)]
    each = np.array([served(hand, *kind) for kind in kinds])
    chosen = np.random.Generator(np.random.Philox(2)).integers(0, 2, COUNT)
    rate = load / each.mean()
    arrivals = poisson(rate, 3)
    waits = waits_of(run, arrivals, *zip(*(kinds[i] for i in chosen), strict=True))
    assert np.allclose(waits, lindley(arrivals, each[chosen]), rtol=0, atol=1e-6)
    expected = rate * (each**2).mean() / (2 * (1 - load))
    assert waits.mean() == pytest.approx(expected, rel=0.12)


def test_above_its_capacity_the_queue_grows_without_end(run, hand):
    """At 1.25 of what one server can do, the n-th request waits about n (S - 1 / lambda), and none is passed over."""
    seconds = served(hand, 640, 1)
    arrivals = poisson(1.25 / seconds, 4, 2000)
    waits = waits_of(run, arrivals, [640] * 2000, [1] * 2000)
    assert waits[-1] == pytest.approx(
        1999 * seconds - (arrivals[-1] - arrivals[0]), rel=0.02
    )  # but for a start that idles
    assert (np.diff(arrivals + waits) >= seconds * (1 - 1e-9)).all()  # in order of arrival, one after the other
