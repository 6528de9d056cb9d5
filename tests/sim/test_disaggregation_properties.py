"""Two pools under any load and setting: nothing is lost, every byte arrives, strides are single steps."""

import pandas as pd
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

CHECKED = settings(  # a failing example is shown as found: making it smaller would take minutes
    max_examples=30,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)


@st.composite
def cases(draw):
    """A few requests over shared prefixes, HBM for about one or a few of them, links from instant to very slow."""
    now, rows, known = 0.0, [], {}
    for _ in range(draw(st.integers(6, 14))):
        now += draw(st.sampled_from([0, 0, 0, 0.01, 0.1, 1]))
        path = draw(st.lists(st.integers(0, 3), max_size=3))
        rest = draw(st.sampled_from([0, 1, 15, 16, 17, 100, 511])) or (0 if path else 300)
        parts = [*path, ("part", rest, draw(st.integers(0, 1)))] if rest else path
        ids = [known.setdefault(tuple(parts[: i + 1]), len(known)) for i in range(len(parts))]
        rows.append((now, 512 * len(path) + rest, draw(st.sampled_from([1, 2, 17, 80, 300, 700])), ids))
    block = draw(st.sampled_from([16, 16, 64, 512]))
    longest = max(i + o - 1 for _, i, o, _ in rows)
    room = draw(st.sampled_from([0.7, 1.0, 1.2, 1.5, 2.0]))
    prefill, decode = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    keywords = {
        "blocks": -(-int(longest * room) // block) + draw(st.integers(0, 1)),
        "dram": draw(st.sampled_from([None, "100 MiB", "10 GiB"])),
        "shared": draw(st.sampled_from(["private", "node"])),
        "offload": draw(st.sampled_from(["none", "write_through", "write_back"])),
        "engine": {
            "block_tokens": block,
            "max_num_seqs": draw(st.sampled_from([1, 4, 16])),
            "max_num_batched_tokens": draw(st.sampled_from([16, 100, 512, 3000])),
            "scheduling": draw(st.sampled_from(["fcfs", "priority"])),
            "loading": {"mode": draw(st.sampled_from(["blocking", "layerwise"]))},
        },
        "hardware": {"profile": "h100-sxm", "replicas": prefill + decode},
        "disaggregation": {
            "prefill": prefill,
            "decode": decode,
            "transfer": draw(st.sampled_from(["whole", "chunk", "layer"])),
            "groups": draw(st.sampled_from([1, 3, 8])),
            "reuse": draw(st.booleans()),
            "link": {
                "bandwidth": draw(st.sampled_from(["1e30 B/s", "50 GB/s", "200 MB/s"])),
                "latency": draw(st.sampled_from(["0 s", "5 us", "20 ms"])),
                "per": draw(st.sampled_from(["gpu", "node"])),
            },
        },
    }
    return rows, keywords


@CHECKED
@given(case=cases())
def test_nobody_is_lost_and_every_byte_arrives(run, case):
    """The run recounts bytes, memory and tokens at its end (sim.checks), and between events."""
    rows, keywords = case
    result = run(rows, **keywords)
    requests = result.frames["requests"]
    capacity = keywords["blocks"] * keywords["engine"]["block_tokens"]
    fits = requests.input_tokens + requests.output_tokens - 1 <= capacity
    assert list(requests.status) == ["finished" if ok else "rejected" for ok in fits]
    done = requests[fits]
    handed = done[done.output_tokens > 1]
    assert (handed.decode_replica >= keywords["disaggregation"]["prefill"]).all()
    assert (done.replica < keywords["disaggregation"]["prefill"]).all()
    token_bytes = result.summary["hardware"]["kv_bytes_per_token"]
    sent = handed.input_tokens - handed.decode_hit_tokens
    assert (handed.transfer_bytes == sent * token_bytes).all()
    assert handed.transfer_bytes.sum() == result.frames["transfers"].query("link == 'kv_link'").bytes.sum()
    order = handed[["first_chunk_s", "first_token_s", "decode_start_s", "second_token_s", "finish_s"]]
    assert (order.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    steps = result.frames["steps"]
    assert (steps.query(f"replica < {keywords['disaggregation']['prefill']}").decode_seqs == 0).all()


@CHECKED
@given(case=cases())
def test_strides_are_exactly_single_steps(run, same_requests, case):
    rows, keywords = case
    strides, singles = run(rows, **keywords), run(rows, **keywords, single_step=True)
    same_requests(strides, singles)
    for name in ("transfers", "samples"):
        pd.testing.assert_frame_equal(strides.frames[name], singles.frames[name], check_exact=True)
