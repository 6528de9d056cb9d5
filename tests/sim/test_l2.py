"""The L2 knee and prefetch into L2, against the formula written out by hand; without a prefetch L2 must not matter."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import InputError
from hw_profiles.l2 import L2Model, l2_model
from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from sim.cost.l2_prefetch import L2Prefetch, Window
from sim.cost.step import StepCost

MB = 10**6
MODEL = load_model("llama-3.1-8b")
H100 = load_profile(Path(__file__).parent / "closed_form.yaml")
KNEE = L2Model(read=8e12, hbm=2e12, full_hit_bytes=40e6, full_miss_bytes=60e6)


def with_values(profile, **values):
    """`profile` with values replaced; `__` stands for a dot in a path."""
    for path, value in values.items():
        profile = profile.override(path.replace("__", "."), value)
    return profile


def cost(profile=H100, ahead=0):
    return StepCost(MODEL, profile, l2_prefetch_bytes=round(ahead))


# ---- the knee


@pytest.mark.parametrize(
    ("footprint", "hit", "ns"),
    [
        (1e6, 1.0, 125.0),
        (40e6, 1.0, 125.0),
        (45e6, 0.75, 218.75),
        (50e6, 0.5, 312.5),
        (60e6, 0.0, 500.0),
        (9e9, 0, 500),
    ],
)
def test_knee_by_hand(footprint, hit, ns):
    """1 MB at 8 TB/s takes 125 ns, at 2 TB/s 500 ns."""
    assert KNEE.hit(footprint) == pytest.approx(hit, rel=1e-12)
    assert KNEE.seconds(1e6, footprint) == pytest.approx(ns * 1e-9, rel=1e-12)
    assert KNEE.seconds(np.array([1e6]), np.array([footprint]))[0] == KNEE.seconds(1e6, footprint)


def test_knee_of_a_profile_grows_with_its_l2():
    shipped = l2_model(H100)
    assert shipped == L2Model(9.5e12, 3e12, 39.17e6, 63.44e6)
    larger = l2_model(with_values(H100, capacity__l2_bytes=2 * H100.l2_bytes))
    assert (larger.full_hit_bytes, larger.full_miss_bytes) == (2 * 39.17e6, 2 * 63.44e6)
    assert larger.read == shipped.read


def test_a_knee_that_contradicts_itself_is_refused():
    with pytest.raises(InputError, match=r"tiers\.l2\.full_miss_bytes: must be more than full_hit_bytes"):
        l2_model(with_values(H100, tiers__l2__full_miss_bytes="39 MB"))
    with pytest.raises(InputError, match=r"tiers\.l2\.read: must not be less than tiers\.hbm\.read"):
        l2_model(with_values(H100, tiers__l2__read="2 TB/s"))
    without = replace(H100, entries={path: v for path, v in H100.entries.items() if not path.startswith("tiers.l2.")})
    assert cost(without).decode(4, 4000) == cost().decode(4, 4000)
    with pytest.raises(InputError, match=r"no such value, found 'tiers\.l2\.read'"):
        cost(without, 4 * MB)


# ---- the prefetch


@dataclass(frozen=True)
class Layer:
    """One layer's decode attention with a prefetch, written out from the docstring of sim.cost.l2_prefetch."""

    hit: float = 39.17e6
    miss: float = 63.44e6
    l2: float = 9.5e12
    hbm: float = 3e12
    own: float = 3182e9
    latency: float = 330e-9
    floor: float = 12.12e-6
    t0: float = 22.33e-6
    per_seq: float = 0.08117e-6

    def share(self, footprint):
        return min(1.0, max(0.0, (self.miss - footprint) / (self.miss - self.hit)))

    def seconds(self, ahead, seqs, kv, window, moved):
        fetched = min(ahead, kv)
        spare = max(0.0, window - moved / self.hbm)
        other = moved * min(1.0, fetched / self.hbm / spare) if spare else moved
        hot = fetched * self.share(fetched + other)
        rest = kv - hot
        rate = max(self.own, min(self.hbm, self.own + ahead / self.latency))
        again = rest * (1 - self.share(min(ahead, rest)))
        kernel = self.t0 + self.per_seq * seqs + hot / self.l2 + (rest + again) / rate
        return max(self.floor, kernel) + max(0.0, fetched / self.hbm - spare)


def linear_of_a_layer(hand, tokens):
    """Seconds and bytes of a layer's linear kernels."""
    shapes = [
        (hand.q + 2 * hand.kv, hand.hidden),
        (hand.hidden, hand.q),
        (2 * hand.inter, hand.hidden),
        (hand.hidden, hand.inter),
    ]
    elementwise = 2 * tokens * (8 * hand.hidden + 2 * (hand.q + hand.kv) + 4 * hand.kv + 3 * hand.inter)
    moved = sum(2 * (n * k + tokens * k + tokens * n) for n, k in shapes) + elementwise
    return hand.linear(tokens, 0) / hand.layers, moved


@pytest.mark.parametrize("ahead", [1, 2 * MB, 6 * MB, 9 * MB, 30 * MB, 45 * MB, 70 * MB, 400 * MB])
@pytest.mark.parametrize(
    ("seqs", "context", "tokens"), [(1, 500, 1), (8, 20_000, 8), (64, 262_144, 64), (8, 20_000, 2000)]
)
def test_decode_with_a_prefetch_by_hand(hand, ahead, seqs, context, tokens):
    kv = context * hand.token_bytes / hand.layers
    expected = hand.layers * Layer().seconds(ahead, seqs, kv, *linear_of_a_layer(hand, tokens))
    assert cost(ahead=ahead).decode(seqs, context, tokens) == pytest.approx(expected, rel=1e-9)


def test_a_prefetch_by_numbers():
    """W = 100 us moves 150 MB at 2 TB/s: 25 us to spare. 10 MB take 5 us of them, while 30 MB pass: 40 MB fit."""
    decode = replace(H100.decode, floor=0.0, t0=1e-6, per_seq=0.0, bandwidth=2e12)
    window = Window(100e-6, 150e6)
    kv = np.array([200e6])

    def times(ahead):
        prefetch = L2Prefetch(ahead, KNEE, decode, 400e-9)
        return prefetch.hot(kv, window)[0] / 1e6, prefetch.seconds(1, kv, window)[0] * 1e6

    # 10 MB at 8 TB/s, 190 MB at 2 TB/s
    assert times(10 * MB) == (10.0, pytest.approx(1 + 1.25 + 95, rel=1e-12))
    # 12.5 MB: 50 MB pass in all, half of it survives
    assert times(12_500_000) == (pytest.approx(6.25), pytest.approx(1 + 6.25 / 8 + 193.75 / 2, rel=1e-12))
    # 20 MB: 80 MB pass, nothing survives, nothing is gained; all of it came in time to spare
    assert times(20 * MB) == (0.0, pytest.approx(1 + 100, rel=1e-12))
    # 50 MB take 25 us, just what there is to spare, but half of what the kernel prefetches is evicted before its use
    assert times(50 * MB) == (0.0, pytest.approx(1 + 100 + 50, rel=1e-12))
    # 80 MB: all of it is read twice, and the linear kernels wait for 40 - 25 us
    assert times(80 * MB) == (0.0, pytest.approx(1 + 200 + 15, rel=1e-12))


def test_the_kernel_hides_latency_up_to_the_rate_of_the_hbm():
    """A kernel at 1 TB/s with 400 ns latency: 0.2 MB more in flight are 0.5 TB/s more, 2 TB/s is what the HBM has."""
    decode = replace(H100.decode, bandwidth=1e12)
    rates = {ahead: L2Prefetch(ahead, KNEE, decode, 400e-9).rate for ahead in (1, 200_000, 400_000, 10 * MB)}
    assert rates == {1: pytest.approx(1e12, rel=1e-5), 200_000: 1.5e12, 400_000: 2e12, 10 * MB: 2e12}
    saturated = replace(H100.decode, bandwidth=2.1e12)  # faster than the plain read that B_HBM comes from
    assert L2Prefetch(10 * MB, KNEE, saturated, 400e-9).rate == 2.1e12


@pytest.mark.parametrize("ahead", [0, 3 * MB, 45 * MB])
@pytest.mark.parametrize("tokens", [None, 700])
def test_single_steps_and_strides_give_the_same_bits(ahead, tokens):
    model = cost(ahead=ahead)
    stride = model.decode_stride(7, 9_000, 200, tokens)
    assert list(stride) == [model.decode(7, 9_000 + 7 * step, tokens) for step in range(200)]


@pytest.mark.parametrize("ahead", [3 * MB, 20 * MB, 45 * MB, 200 * MB])
def test_more_context_never_takes_less_time(ahead):
    stride = cost(ahead=ahead).decode_stride(1, 1, 60_000)
    assert (np.diff(stride) >= -1e-18).all()


# ---- what moves what


SIZES = ("12.5 MiB", "25 MiB", "50 MiB", "100 MiB", "200 MiB")


@pytest.mark.parametrize("seqs", [1, 16, 128])
def test_the_size_of_l2_matters_with_a_prefetch_only(seqs):
    context = 4096 * seqs
    profiles = [with_values(H100, capacity__l2_bytes=size) for size in SIZES]
    assert len({cost(p).decode(seqs, context) for p in profiles}) == 1
    times = [cost(p, 12 * MB).decode(seqs, context) for p in profiles]
    assert times == sorted(times, reverse=True)
    assert times[0] > 1.01 * times[-1]
    for model in (cost(p, 12 * MB) for p in profiles):  # nor does it touch anything else
        assert model.linear(seqs, seqs) == cost().linear(seqs, seqs)
        assert model.prefill([(512, 100)]) == cost().prefill([(512, 100)])


@pytest.mark.parametrize("name", ["h100-sxm", "a100-80"])
@pytest.mark.parametrize("seqs", [16, 64, 256])
def test_there_is_a_best_look_ahead(name, seqs):
    profile, context = load_profile(name), 4096 * seqs
    cold = cost(profile).decode(seqs, context)
    aheads = [2**i * 250_000 for i in range(11)]  # 0.25 to 256 MB
    times = [cost(profile, ahead).decode(seqs, context) for ahead in aheads]
    best = int(np.argmin(times))
    assert 0 < best < len(aheads) - 1
    assert times[best] < 0.999 * cold
    assert (np.diff(times[: best + 1]) < 0).all()  # more gains more, as long as it fits
    assert aheads[best] < profile.l2_bytes
    assert times[-1] > 1.5 * cold  # far beyond, all is read twice


def h20(kernel_utilisation):
    """Like an H20: 148 TFLOP/s, 4 TB/s, 60 MB of L2; what kernels reach of it as on an H100, but for attention."""
    peak = 4e12
    achieved = H100.hbm_bandwidth / H100.si("tiers.hbm.peak")
    return with_values(
        H100,
        capacity__l2_bytes=60e6,
        tiers__hbm__read=achieved * peak,
        kernels__gemm_bf16__bandwidth=H100.gemm.bandwidth / H100.si("tiers.hbm.peak") * peak,
        kernels__gemm_bf16__flops=H100.gemm.flops / 989e12 * 148e12,
        kernels__decode_attn__bandwidth=kernel_utilisation * peak,
    )


@pytest.mark.parametrize(
    ("profile", "attention", "step"),
    [
        (H100, (1.001, 1.02), (1.0005, 1.01)),
        (h20(0.95), (1.005, 1.03), (1.002, 1.02)),
        # arXiv 2504.06319, H20: a kernel at 47 % of the HBM gains 1.84 to 2.15, the step 1.41 to 1.57 (up to 1.97)
        (h20(0.471), (1.8, 2.15), (1.41, 1.97)),
    ],
    ids=["h100", "h20, saturating kernel", "h20, kernel of the paper"],
)
def test_gains_are_of_the_published_size(profile, attention, step):
    """64 sequences of 4,096 tokens, best look-ahead. The utilisation before is the paper's, the rest is predicted."""
    seqs, context = 64, 64 * 4096
    cold, linear = cost(profile).decode(seqs, context), cost(profile).linear(seqs, seqs)
    best = min(cost(profile, ahead * MB).decode(seqs, context) for ahead in (1, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32))
    assert attention[0] < cold / best < attention[1]
    assert step[0] < (linear + cold) / (linear + best) < step[1]
