"""Whatever the tiers, policies, links and requests: the run recounts its invariants, and strides equal single steps."""

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.tables import EVICTION

NAMES = ("c2c", "dram", "ssd", "remote")
RATES = st.sampled_from(["0.3 GB/s", "2 GB/s", "20 GB/s"])
OFFLOADS = [
    "write_through",
    "write_back",
    "write_through_selective",
    "by_cost",
    {"name": "by_cost", "history_ratio": 0.5},
]
EVICTIONS = st.sampled_from([*EVICTION, "belady", {"name": "ttl", "ttl": "2 s"}])


@st.composite
def hierarchies(draw):
    """Sections of a scenario: two to five tiers in any order, with all that can be said of them."""
    names = draw(st.permutations(NAMES))[: draw(st.integers(1, 4))]
    offload = draw(st.sampled_from(OFFLOADS))
    tiers, links = [{"name": "hbm", "leaf_only": draw(st.booleans())}], {}
    for name in names:
        tier = {"name": name, "capacity": f"{draw(st.integers(0, 2500))} MiB", "leaf_only": draw(st.booleans())}
        tier["shared"] = draw(st.sampled_from(["private", "node", "cluster"]))
        tier["inclusive"] = offload != "write_back" or draw(st.booleans())
        if name in ("ssd", "remote"):
            tier["direct"] = draw(st.booleans())
        links |= {f"{name}_{way}": {"bandwidth": draw(RATES)} for way in ("read", "write") if name != "dram"}
        tiers.append(tier)
    if draw(st.booleans()):
        links["pcie_h2d"] = {"chunk": "16 MiB", "bandwidth": draw(RATES)}
    policies = {"offload": offload, "eviction": draw(EVICTIONS)}
    into = {"into": draw(st.sampled_from(["hbm", *names]))}
    stop = {"stop": draw(st.sampled_from(["best_effort", "wait_complete", "timeout"])), "timeout": "50 ms"}
    prefetches = [None, {"name": "on_arrival", **into, **stop}, {"name": "popularity", **into}]
    policies["prefetch"] = draw(st.sampled_from(prefetches)) or "none"
    policies["admission"] = draw(st.sampled_from(["always", "second_hit", "by_size"]))
    loading = {
        "mode": draw(st.sampled_from(["blocking", "layerwise", "synchronous"])),
        "choose": draw(st.sampled_from(["always", "by_cost"])),
    }
    hardware = {"profile": "h100-sxm", "replicas": draw(st.integers(1, 3)), "gpus_per_node": 2}
    return {
        "tiers": tiers,
        "links": links,
        "policies": policies,
        "engine": {"loading": loading, "kv_layout": draw(st.sampled_from(["block", "layer"]))},
        "hardware": hardware,
        "blocks": draw(st.sampled_from([256, 300, 512])),
    }


@st.composite
def loads(draw, prompt):
    """Requests of ten families, of which each has prompts of two lengths that begin alike."""
    gap = draw(st.sampled_from([0.005, 0.05, 0.3, 2.0]))
    rows = []
    for i in range(draw(st.integers(8, 40))):
        family, longer = draw(st.integers(0, 9)), draw(st.sampled_from([0, 0, 512]))
        tokens = 500 + 137 * family + longer
        rows.append((i * gap, tokens, draw(st.integers(1, 30)), prompt(family, tokens)))
    return rows


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_invariants_hold_and_strides_equal_single_steps(run, same_requests, prompt, data):
    sections, rows = data.draw(hierarchies()), data.draw(loads(prompt))
    strides, steps = run(rows, **sections), run(rows, single_step=True, **sections)
    same_requests(strides, steps)


def test_two_requests_of_a_step_that_fill_one_block(run, hand):
    """The second prompt is longer: the block that both fill is stored once, with the tokens of both."""
    result = run([(0, 600, 1, [1, 2]), (0, 700, 1, [1, 2])], dram="1 GiB")
    assert result.summary["tiers"]["dram"]["stored_bytes"] == 700 // 16 * 16 * hand.token_bytes


def test_a_fetch_does_not_push_out_the_beginning_of_its_prefix(run, prompt):
    """Host memory has the first block of a prompt and is full; room for the others is made elsewhere."""
    rows = [(0, 1600, 1, prompt(1, 1600)), (5, 4000, 1, prompt(2, 4000)), (10, 4000, 1, prompt(3, 4000))]
    rows += [(30.0, 3000, 1, prompt(4, 3000)), (30.001, 1600, 1, prompt(1, 1600))]
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "1100 MiB"}, {"name": "ssd", "capacity": "10 GiB"}]
    policies = {"prefetch": {"name": "on_arrival", "into": "dram", "stop": "wait_complete"}}
    row = run(rows, blocks=320, tiers=tiers, policies=policies).frames["requests"].iloc[4]
    assert row.hit_dram_tokens == 1584


def test_a_fetch_whose_room_pushes_out_its_own_source(run, prompt):
    """Exclusive drives: what leaves host memory for the first block of a fetch would take the place of its last."""
    rows = [(10.0 * i, 1536, 1, prompt(1 + i % 4, 1536)) for i in range(16)]
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "200 MiB"}, {"name": "ssd", "capacity": "400 MiB"}]
    policies = {"offload": "write_back", "prefetch": {"name": "on_arrival", "into": "dram"}}
    result = run(rows, blocks=128, tiers=tiers, policies=policies)
    assert (result.frames["transfers"].reason == "prefetch").any()


def test_by_cost_remembers_less_than_it_is_shown_at_once(run, prompt):
    """A prompt of more blocks than the policy remembers."""
    policies = {"offload": {"name": "by_cost", "weight": 1e6, "history_ratio": 0.1}}
    result = run([(0, 8000, 1, prompt(1, 8000))], blocks=512, dram="10 GiB", policies=policies)
    assert result.summary["tiers"]["dram"]["stored_bytes"] == 0
