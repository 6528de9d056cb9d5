"""Knobs of the engine, the cluster and the load to closed forms: equal requests, by hand from the step times."""

import numpy as np
import pytest
import yaml

TOKENS, OUT = 640, 20


def ends(result):
    return result.frames["requests"].ttft_s


@pytest.mark.parametrize("seqs", [1, 2, 4, 8])
def test_batches_of_max_num_seqs(run, hand, prompt, seqs):
    """Eight equal requests in waves: each wave is one step of prompts and OUT - 1 steps of decoding."""
    rows = [(0, TOKENS, OUT, prompt(i, TOKENS)) for i in range(8)]
    requests = run(rows, engine={"max_num_seqs": seqs}).frames["requests"]
    first = hand.mixed_step([(TOKENS, 0)] * seqs, sampled=seqs)
    wave = first + sum(hand.decode_step(seqs, seqs * (TOKENS + j)) for j in range(1, OUT))
    expected = [wave * (i // seqs) + first for i in range(8)]
    assert list(requests.ttft_s) == pytest.approx(expected, rel=1e-9)
    assert list(requests.tpot_s) == pytest.approx([(wave - first) / (OUT - 1)] * 8, rel=1e-9)


@pytest.mark.parametrize("budget", [256, 1024, 4096])
def test_chunks_of_the_token_budget(run, hand, prompt, budget):
    """A lone prompt takes one step for each budget of tokens; only the last samples a token."""
    tokens = 4000
    cuts = [(min(budget, tokens - start), start) for start in range(0, tokens, budget)]
    expected = sum(hand.mixed_step([cut], sampled=int(cut is cuts[-1])) for cut in cuts)
    engine = {"max_num_batched_tokens": budget, "max_num_seqs": 8}
    assert ends(run([(0, tokens, 1, prompt(1, tokens))], engine=engine))[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("wait", [0.0, 1e-3, 4e-3, 16e-3])
def test_host_time_is_part_of_every_step(run, hand, prompt, wait):
    row = run([(0, TOKENS, OUT, prompt(1, TOKENS))], engine={"host_time": f"{wait} s"}).frames["requests"].iloc[0]
    assert row.ttft_s == pytest.approx(hand.mixed_step([(TOKENS, 0)], sampled=1) + wait, rel=1e-9)
    steps = [hand.decode_step(1, TOKENS + j) for j in range(1, OUT)]
    assert row.tpot_s == pytest.approx(np.mean(steps) + wait, rel=1e-9)


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0, 2.0, 4.0])
def test_rate_scale_divides_arrivals(scenario, run, prompt, scale):
    rows = [(float(i * i), TOKENS, 1, prompt(i, TOKENS)) for i in range(6)]
    path = scenario(rows).spec.trace.path
    requests = run(trace={"path": path, "rate_scale": scale}).frames["requests"]
    assert list(requests.arrival_s) == pytest.approx([i * i / scale for i in range(6)], rel=1e-12)
    assert len(set(requests.ttft_s.round(12))) == 1  # far apart, each is served as if alone


@pytest.mark.parametrize("replicas", [1, 2, 4, 8])
def test_replicas_share_what_comes_at_once(run, hand, prompt, replicas):
    """Eight equal requests: each replica serves its eighth, quarter, half or all in one step."""
    rows = [(0, TOKENS, 1, prompt(i, TOKENS)) for i in range(8)]
    found = ends(run(rows, hardware={"profile": str(hand.profile), "replicas": replicas}))
    each = 8 // replicas
    assert list(found) == pytest.approx([hand.mixed_step([(TOKENS, 0)] * each, sampled=each)] * 8, rel=1e-9)


@pytest.mark.parametrize("cap", ["host_root", "dram"])
@pytest.mark.parametrize("node", [1, 2, 4])
def test_what_gpus_of_a_node_share(run, hand, prompt, quiet_profile, cap, node):
    """Four replicas load at once: as many as are on a node share its root complex, or its memory's bandwidth."""
    far, rows = 4000, []
    for t, family in ((0, 1), (10, 2), (30, 1)):
        rows += [(t, far, 1, prompt(10 * family + i, far)) for i in range(4)]
    rate = 20e9
    requests = run(
        rows,
        blocks=256,
        dram="10 GiB",
        links={cap: {"bandwidth": "20 GB/s"}},
        hardware={"profile": quiet_profile, "replicas": 4, "gpus_per_node": node},
    ).frames["requests"]
    hit = (far - 1) // 16 * 16
    alone = hand.copy("pcie_h2d", hit)
    shared = node * hit * hand.token_bytes / rate
    assert list(requests.load_s[-4:]) == pytest.approx([max(alone, shared)] * 4, rel=1e-9)


@pytest.mark.parametrize("direction", ["h2d", "d2h"])
def test_interference_is_in_proportion_to_its_factor(run, hand, prompt, tmp_path, direction):
    """The steps that a copy runs beside are longer by its factor; the first token comes before any copy."""
    slowed = []
    for factor in (0.5, 2.0, 8.0):
        raw = yaml.safe_load(hand.profile.read_text())
        raw["interference"] = {direction: raw["interference"][direction] | {"v": factor, "lo": 0, "hi": 10}}
        used = set(yaml.safe_dump(raw["interference"]).split())
        raw["sources"] = {k: v for k, v in raw["sources"].items() if k != "interference_kernel" or k in used}
        path = tmp_path / f"{factor}.yaml"
        path.write_text(yaml.safe_dump(raw, sort_keys=False))
        rows = [(0, 2000, 1, prompt(1, 2000)), (5, 4000, 1, prompt(2, 4000))]
        rows += [(30, 1500, 400, prompt(3, 1500)), (31, 2000, 1, prompt(1, 2000))]
        result = run(rows, blocks=256, dram="10 GiB", hardware={"profile": str(path)})
        slowed.append(result.summary["time"]["interference_s"])
        assert result.frames["requests"].hit_dram_tokens[3] > 0
    assert slowed[0] > 0
    assert [s / slowed[0] for s in slowed] == pytest.approx([1, 4, 16], rel=0.05)  # longer steps move less per step


def test_another_seed_is_another_load_of_the_same_kind(run):
    load = {"requests": 60, "rate": 4, "first_tokens": {"mean": 2000, "sigma": 1}}
    frames = [run(trace={"generate": load}, seed=seed).frames["requests"] for seed in (0, 0, 1)]
    assert frames[0].equals(frames[1])
    for column in ("arrival_s", "input_tokens", "output_tokens"):
        assert not frames[0][column].equals(frames[2][column])
        assert frames[2][column].mean() == pytest.approx(frames[0][column].mean(), rel=0.6)


def test_without_prefix_caching_nothing_is_reused(run, hand, prompt):
    """The prompt that comes back is computed again, and whatever tiers there are, nothing is kept or stored."""
    rows = [(10.0 * i, TOKENS, 1, prompt(1, TOKENS)) for i in range(3)]
    whole, rest = hand.mixed_step([(TOKENS, 0)], sampled=1), hand.mixed_step([(16, TOKENS - 16)], sampled=1)
    assert list(ends(run(rows))) == pytest.approx([whole, rest, rest], rel=1e-9)
    off = run(rows, dram="10 GiB", engine={"prefix_caching": False})
    assert list(ends(off)) == pytest.approx([whole] * 3, rel=1e-9)
    assert off.summary["prefix"]["hit_ratio"] == 0
    assert off.summary["tiers"]["dram"]["stored_bytes"] == 0
    assert off.summary["links"]["pcie_d2h"]["bytes"] == 0
    hbm = off.summary["tiers"]["hbm"]
    assert hbm["stored_bytes"] == 0
    assert hbm["peak_bytes"] == 640 * hand.token_bytes  # one prompt at a time
    assert any("engine.prefix_caching is false" in warning for warning in off.summary["warnings"])


def test_without_prefix_caching_what_gives_way_is_computed_again(run, prompt):
    """Two sequences outgrow HBM: with caching the one that gives way finds what is left of it, without it nothing."""
    rows = [(0, TOKENS, 200, prompt(i, TOKENS)) for i in range(2)]
    on, off = (run(rows, blocks=90, engine={"prefix_caching": caching}).summary for caching in (True, False))
    assert on["requests"]["finished"] == off["requests"]["finished"] == 2
    assert off["prefix"]["recomputed_tokens"] > on["prefix"]["recomputed_tokens"] > 0
    assert off["prefix"]["recomputed_tokens"] >= TOKENS
