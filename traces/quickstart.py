"""The shipped sample traces/samples/quickstart.jsonl.gz: its parameters, and how it is written again.

From the repository: `python -m traces.quickstart traces/samples/quickstart.jsonl.gz`

10 minutes of chat for two replicas of an 8-billion-parameter model: 2.5 requests/s of 5,800 prompt tokens, of
which earlier requests share 48 %, and turns a minute apart, so that HBM alone does not keep every session.
The numbers are ours, chosen to resemble chat traffic; they were measured nowhere.
"""

from __future__ import annotations

import sys

from traces.generate import GenerateSpec
from traces.generate import generate as generate_trace
from traces.mooncake import write_mooncake
from traces.request import Trace

# every field in full: a new default of GenerateSpec must not change the sample
QUICKSTART = GenerateSpec.model_validate(
    {
        "kind": "chat",
        "requests": 1_500,
        "rate": 2.5,
        "turns": 2.0,
        "think_time": "60 s",
        "system_prompts": 20,
        "system_tokens": {"mean": 800, "sigma": 0.5},
        "zipf": 1.0,
        "first_tokens": {"mean": 4_500, "sigma": 1.0},
        "user_tokens": {"mean": 500, "sigma": 1.0},
        "output_tokens": {"mean": 420, "sigma": 0.8},
        "max_input": 32_768,
        "seed": 0,
    }
)


def quickstart() -> Trace:
    """The trace of the sample."""
    return generate_trace(QUICKSTART, seed=0)


if __name__ == "__main__":
    write_mooncake(quickstart(), sys.argv[1])
