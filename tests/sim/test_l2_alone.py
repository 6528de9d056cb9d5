"""The policy `l2` by itself keeps KV where it is: windows, prefixes and all."""

from __future__ import annotations

from typing import Any

import pytest

from hw_profiles.errors import InputError
from sim.run import simulate
from sim.scenario import Scenario

TRACE = {"generate": {"requests": 12, "rate": 2.0, "first_tokens": {"mean": 3000}}}


def times(model: str, **changes: Any) -> list[tuple[float, float]]:
    document = {"schema": "kvsim-scenario/1", "trace": TRACE, "model": model, "hardware": {"profile": "h100-sxm"}}
    rows = simulate(Scenario.from_dict({**document, **changes}), check=True).tables["requests"].to_pandas()
    return list(zip(rows.first_token_s, rows.finish_s, strict=True))


@pytest.mark.parametrize("model", ["llama-3.1-8b", "mistral-7b", "gpt-oss-120b"])
@pytest.mark.parametrize("caching", [True, False])
def test_the_policy_is_the_knob_of_the_engine(model: str, caching: bool) -> None:
    by_policy = times(model, policies="l2_prefetch", engine={"prefix_caching": caching})
    assert by_policy == times(model, engine={"prefix_caching": caching, "l2_prefetch": "8 MiB"})
    assert by_policy != times(model, engine={"prefix_caching": caching})


def test_with_another_policy_it_is_refused() -> None:
    with pytest.raises(InputError, match="no other policy"):
        times("llama-3.1-8b", policies=["l2_prefetch", "quest"], engine={"prefix_caching": False})
