"""What policies within a sequence know of the run's longest sequence, and what is said of one that does nothing."""

from __future__ import annotations

from typing import Any

import pytest

from hw_profiles.errors import InputError
from sim.result import Result
from sim.run import simulate
from sim.scenario import Scenario

CONTEXT, ANSWER = 5000, 40


def run(policies: Any, model: str = "llama-3.1-8b", context: int = CONTEXT) -> Result:
    trace = {
        "generate": {
            "requests": 3, "rate": 1.0, "system_prompts": 0, "turns": 1.0,
            "first_tokens": {"mean": context, "sigma": 0.0}, "output_tokens": {"mean": ANSWER, "sigma": 0.0},
        }
    }  # fmt: skip
    document = {
        "schema": "kvsim-scenario/1",
        "trace": trace,
        "model": model,
        "hardware": {"profile": "h100-sxm"},
        "engine": {"prefix_caching": False},
    }
    return simulate(Scenario.from_dict({**document, "policies": policies} if policies else document), check=True)


def times(result: Result) -> list[tuple[float, float]]:
    rows = result.tables["requests"].to_pandas()
    return list(zip(rows.first_token_s, rows.finish_s, strict=True))


def said(result: Result, name: str) -> list[str]:
    return [line for line in result.summary["warnings"] if name in line]


LARGE = [
    {"retention": {"name": "h2o", "heavy": 4096, "recent": 4096}},
    {"retention": {"name": "streaming_llm", "window": 8192}},
    {"retention": {"name": "snapkv", "budget": 8192}},
    {"retention": {"name": "xkv", "budget": 8192}},
    {"retention": {"name": "lacache", "budget": 8192}},
    {"retention": {"name": "bct", "capacity": 8192}},
    {"selection": {"name": "arkvale", "budget": 8192}},
    {"selection": {"name": "quest", "budget": 8192}},
]


@pytest.mark.parametrize("policies", LARGE, ids=lambda p: next(iter(p.values()))["name"])
def test_a_budget_that_holds_the_longest_sequence_of_the_run_changes_nothing(policies: dict[str, Any]) -> None:
    """Llama-3.1-8B allows 131072 tokens, the run has no sequence of 8192."""
    name = next(iter(policies.values()))["name"]
    result = run(policies)
    longest = max(sum(row) for row in zip(*(result.tables["requests"][c].to_pylist() for c in TOKENS), strict=True))
    assert times(result) == times(run(None))
    (line,) = said(result, name)
    assert line.endswith(f"{name} changes nothing: its budget holds the longest sequence of the run, {longest} tokens")
    assert result.summary["within"]["assumptions"] == []
    assert result.summary["within"]["d2h_bytes"] == 0


TOKENS = ("input_tokens", "output_tokens")


@pytest.mark.parametrize("policies", LARGE, ids=lambda p: next(iter(p.values()))["name"])
def test_a_smaller_budget_is_no_reason_to_say_anything(policies: dict[str, Any]) -> None:
    ((family, options),) = policies.items()
    small = {k: v if k == "name" else 1024 for k, v in options.items()}
    assert said(run({family: small}), options["name"]) == []


@pytest.mark.parametrize("name", ["h2o", "pqcache", "snapkv", "streaming_llm", "less"])
def test_layers_with_windows_are_left_alone_and_the_run_says_so(name: str) -> None:
    """All layers of Mistral-7B slide over 4096 tokens."""
    result = run(name, "mistral-7b")
    (line,) = said(result, name)
    assert line.endswith("it leaves layers with a sliding window alone, and mistral-7b has no other")
    assert times(result) == times(run(None, "mistral-7b"))
    assert result.summary["within"]["assumptions"] == []


def test_a_budget_that_holds_the_window() -> None:
    (line,) = said(run({"selection": {"name": "quest", "budget": 4096}}, "mistral-7b"), "quest")
    assert line.endswith("its budget holds the sliding window of all layers, 4096 tokens")


def test_less_says_what_its_shares_come_to() -> None:
    """2.5 % of Llama-3.1-8B's 131072 positions, twice; and what H2O takes for granted."""
    shares, scores = run("less", context=10_000).summary["within"]["assumptions"]
    assert shares.startswith("less: 3276 heavy and 3276 recent tokens are kept, shares of the 131072 tokens")
    assert scores == run("h2o").summary["within"]["assumptions"][0]
    given = run({"retention": {"name": "less", "heavy": 100, "recent": 100}}).summary["within"]["assumptions"]
    assert given == [scores]


@pytest.mark.parametrize("form", ["kivi", "think", "zipcache"])
@pytest.mark.parametrize("selected", ["arkvale", "pqcache"])
def test_formats_that_keep_the_newest_tokens_go_with_recalls(form: str, selected: str) -> None:
    """What is recalled crosses the link as it is stored: fewer bytes than without the format."""
    options = {"name": selected, **({"budget": 2048} if selected == "arkvale" else {})}
    plain, packed = (run({"kv_format": f, "selection": options}).summary["within"] for f in ([], [form]))
    assert packed["h2d_bytes"] < plain["h2d_bytes"]
    assert packed["d2h_bytes"] < plain["d2h_bytes"]


@pytest.mark.parametrize(("name", "share"), [("host_kv", 1.0), ("infinigen", 1.0), ("kcache", 0.5)])
def test_tokens_that_have_left_the_window_are_not_stored(name: str, share: float) -> None:
    """Of a prompt as much goes to the host as is held there, and then one token a step."""
    result = run(name, "mistral-7b")
    rows = zip(*(result.tables["requests"][column].to_pylist() for column in TOKENS), strict=True)
    tokens = sum(min(prompt, 4096) + answer - 1 for prompt, answer in rows)
    size = result.summary["model"]["kv_bytes_per_token"]
    assert result.summary["within"]["d2h_bytes"] == pytest.approx(share * tokens * size, rel=1e-9)


def test_dropped_tokens_are_not_loaded() -> None:
    """With half of the pool, the two layers that load everything load half; the others fetch as many as before."""
    half, whole = (
        run({"selection": {"name": "infinigen", "pool": p}}).summary["within"]["h2d_bytes"] for p in (0.5, 1)
    )
    result = run(None)
    rows = zip(*(result.tables["requests"][column].to_pylist() for column in TOKENS), strict=True)
    attended = sum(sum(range(prompt + 1, prompt + answer)) for prompt, answer in rows)
    size = result.summary["model"]["kv_bytes_per_token"]
    assert whole - half == pytest.approx(0.5 * attended * size * 2 / 32, rel=1e-6)


def test_a_selection_covers_no_more_than_what_is_left() -> None:
    def covered(retention: Any, selection: Any) -> dict[str, float]:
        policies = {key: value for key, value in (("retention", retention), ("selection", selection)) if value}
        found: dict[str, float] = run(policies).summary["within"]["coverage"]
        return found

    few = {"name": "h2o", "heavy": 10, "recent": 10}
    both = covered(few, "quest")
    assert both["Quest"] == both["H2O"] == covered(few, None)["H2O"] < covered(None, "quest")["Quest"]
    small = covered({"name": "streaming_llm", "sinks": 4, "window": 60}, "quest")["Quest"]
    assert small < covered({"name": "streaming_llm", "sinks": 4, "window": 1020}, "quest")["Quest"] < 1


@pytest.mark.parametrize("mass", [0.5, 0.9])
def test_infinigen_covers_what_it_is_told_to(mass: float) -> None:
    selection = {"name": "infinigen", "mass": mass, "max_share": 1.0}
    assert run({"selection": selection}).summary["within"]["coverage"]["InfiniGen"] == pytest.approx(mass)


def test_an_option_of_an_architecture_is_named_once() -> None:
    with pytest.raises(InputError) as error:
        run({"architecture": {"name": "mla", "kv_lora_rank": 0}})
    assert error.value.path == "policies.architecture.kv_lora_rank"
