"""Links and loads of tests of prefill and decode on different replicas."""

import numpy as np

PROFILE = "h100-sxm"
INSTANT = {"bandwidth": "1e30 B/s", "latency": "0 s"}


def rate(bytes_per_s, latency="0 s"):
    return {"bandwidth": f"{bytes_per_s!r} B/s", "latency": latency}


def load(count=60, seed=3, gap=0.02):
    """Requests of their own prompts, so that nothing is shared."""
    draw = np.random.default_rng(seed)
    times = np.cumsum(draw.exponential(gap, count))
    return [
        (float(t), int(n), int(o), [1000 * i + j for j in range(-(-int(n) // 512))])
        for i, (t, n, o) in enumerate(
            zip(times, draw.integers(100, 6000, count), draw.integers(2, 80, count), strict=True)
        )
    ]
