"""Knobs that can do nothing in a run are said to."""

import pytest

HBM = {"name": "hbm"}
DRAM, SSD = {"name": "dram", "capacity": "4 GiB"}, {"name": "ssd", "capacity": "10 GiB"}
TWO = {"profile": "h100-sxm", "replicas": 2}
CHAT = {"clients": 2, "rounds": 2, "input_tokens": 100, "output_tokens": 4, "think_time": "1 s"}


@pytest.fixture
def warned(run, prompt):
    """Lines of the warnings with `word` of a run of two prompts, or of `trace`, over `tiers`."""

    def lines(word, tiers=(DRAM, SSD), prefetch=None, trace=None):
        rows = None if trace else [(i, 600, 1, prompt(i, 600)) for i in range(2)]
        policies = {"prefetch": prefetch} if prefetch else {}
        more = {"trace": trace} if trace else {}
        summary = run(rows, tiers=[HBM, *tiers], policies=policies, **more).summary
        return [line for line in summary["warnings"] if word in line]

    return lines


@pytest.mark.parametrize(
    ("prefetch", "tiers", "into"),
    [
        ("on_arrival", [DRAM], "dram"),
        ({"name": "on_arrival", "into": "ssd"}, [DRAM, SSD], "ssd"),
        ("on_arrival", [], "hbm"),
        ("popularity", [], "hbm"),
        ({"name": "popularity", "into": "dram"}, [DRAM, {**SSD, "capacity": "0 B"}], "dram"),
    ],
)
def test_a_fetch_from_nowhere(warned, prefetch, tiers, into):
    assert warned(f"into {into}, and no tier lies behind", tiers, prefetch)


def test_a_fetch_into_a_tier_of_no_size(warned):
    prefetch = {"name": "on_arrival", "into": "dram"}
    assert warned("into dram, which has no size", [{**DRAM, "capacity": "0 B"}, SSD], prefetch)


@pytest.mark.parametrize("prefetch", ["on_arrival", {"name": "on_arrival", "into": "hbm"}, "popularity"])
def test_a_fetch_from_somewhere_goes_without(warned, prefetch):
    assert not warned("prefetch", prefetch=prefetch)


def test_next_turns_of_no_conversations(warned):
    for estimate in ("recorded", "mean"):
        prefetch = {"name": "next_turn", "estimate": estimate}
        assert warned("tells no conversations apart", prefetch=prefetch)
        assert not warned("prefetch", prefetch=prefetch, trace={"clients": CHAT})


def test_next_turns_that_never_come(warned):
    single = {"clients": {**CHAT, "rounds": 1}}
    assert warned("does not say when next turns come", prefetch="next_turn", trace=single)
    assert not warned("prefetch", prefetch={"name": "next_turn", "estimate": "mean"}, trace=single)


def test_a_timeout_that_nothing_ends(warned):
    for stop in ({}, {"stop": "best_effort"}, {"stop": "wait_complete"}):
        assert warned("`timeout` is for", prefetch={"name": "on_arrival", "timeout": "2 s", **stop})
    assert not warned("timeout", prefetch={"name": "on_arrival", "timeout": "2 s", "stop": "timeout"})


def test_a_tier_smaller_than_a_block(warned, hand):
    """Blocks of the trace have 512 tokens, those of the engine 16, which is what a prompt's end takes at least."""
    engine, full = 16 * hand.token_bytes, 512 * hand.token_bytes
    for capacity, holds in ((engine - 1, "nothing"), (engine, "no full block"), (full - 1, "no full block")):
        (line,) = warned("tiers.dram", [{**DRAM, "capacity": f"{capacity} B"}])
        assert line.endswith(f"so it holds {holds}")
    assert not warned("tiers.dram", [{**DRAM, "capacity": f"{full} B"}])
    assert not warned("tiers.dram", [{**DRAM, "capacity": "0 B"}])  # no tier, as documented


EARLY, INDEX = {"name": "early_rejection"}, {"name": "metadata_index"}


@pytest.mark.parametrize(
    ("sections", "word"),
    [
        ({"routing": "session_sticky"}, "session_sticky: the trace tells no conversations apart"),
        ({"routing": {"name": "least_loaded", "add_sent": False}}, "`add_sent` is for `stale`"),
        ({"admission_control": {**EARLY, "load": "then"}}, "`load` is for `tpot`"),
        ({"admission_control": {**EARLY, "decode_time": "5 s"}}, "`decode_time` is for `tpot`"),
        ({"admission_control": {**EARLY, "tpot": "1 s", "decode_time": "5 s"}}, "`decode_time` is for `load: then`"),
        ({"policies": {"reuse": {**INDEX, "by": "batch", "known": 0.1}}}, "`known` is for `by: point`"),
        ({"policies": {"reuse": {**INDEX, "sequential": 0.1}}}, "`sequential` is for `by: range`"),
    ],
)
def test_before_a_replica(run, prompt, sections, word):
    rows = [(i, 600, 1, prompt(i, 600)) for i in range(2)]
    warnings = run(rows, **{"hardware": TWO, **sections}).summary["warnings"]
    assert len([line for line in warnings if word in line]) == 1


@pytest.mark.parametrize(
    "sections",
    [
        {"routing": "session_sticky", "trace": {"clients": CHAT}},
        {"routing": {"name": "least_loaded", "add_sent": False, "stale": "1 s"}},
        {"admission_control": {**EARLY, "tpot": "1 s", "load": "then", "decode_time": "5 s"}},
        {"policies": {"reuse": [{**INDEX, "known": 0.1}, "response_cache"]}},
        {"policies": {"reuse": {**INDEX, "backend": "chime", "by": "range", "sequential": 0.1}}},
    ],
)
def test_before_a_replica_what_does_something_goes_without(run, prompt, sections):
    rows = None if "trace" in sections else [(i, 600, 1, prompt(i, 600)) for i in range(2)]
    warnings = run(rows, **{"hardware": TWO, **sections}).summary["warnings"]
    assert not [line for line in warnings if line.startswith(("routing", "admission_control", "policies.reuse"))]


def test_equal_prompts_that_nobody_knows(run, tmp_path):
    lengths = tmp_path / "lengths.csv"
    lengths.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,600,1\n2023-11-16 18:00:01,600,1\n"
    )
    built = {"trace": {"path": str(lengths)}, "policies": {"reuse": "response_cache"}}
    warnings = run(None, **built).summary["warnings"]
    assert any("does not say which prompts are the same" in line for line in warnings)


@pytest.mark.parametrize(("profile", "said"), [("mi300x", 1), ("h100-sxm", 0)])
def test_times_that_nobody_measured_are_said_to_be_estimates(run, prompt, profile, said):
    summary = run([(0, 600, 1, prompt(0, 600))], hardware={"profile": profile, "replicas": 1}).summary
    found = [line for line in summary["warnings"] if f"profile {profile} are estimated from datasheets" in line]
    assert len(found) == said
