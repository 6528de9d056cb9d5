"""Builders shared by the tests of the simulator: tiny traces, scenarios over them, and step times by hand."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import hw_profiles
from sim.attribution import PARTS, PHASES
from sim.result import Result
from sim.run import simulate
from sim.scenario import Scenario
from tests.sim.disaggregation_cases import INSTANT

ROOT = Path(hw_profiles.__file__).parent
UNITS = {
    "1": 1,
    "GiB": 2**30,
    "MiB": 2**20,
    "GB/s": 1e9,
    "TFLOP/s": 1e12,
    "us": 1e-6,
    "ns": 1e-9,
}

CLOSED_FORM = Path(__file__).parent / "closed_form.yaml"
"""A profile whose kernels have no tables of ratios, so that their times can be worked out by hand."""

Row = tuple[float, int, int, list[int]] | tuple[float, int, int, list[int], int]
"""Arrival (s), input tokens, output tokens, hash ids, and perhaps a priority."""


class Hand:
    """Step times written out from the numbers of the YAML file and of config.json, apart from the code under test."""

    def __init__(self, profile: Path, config: Path) -> None:
        self.profile, self.config = profile, config
        self.raw = yaml.safe_load(profile.read_text())
        c = json.loads(config.read_text())
        self.layers, self.hidden = c["num_hidden_layers"], c["hidden_size"]
        self.heads, self.kv_heads, self.dim = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        self.inter, self.vocab = c["intermediate_size"], c["vocab_size"]
        self.q, self.kv = self.heads * self.dim, self.kv_heads * self.dim
        self.token_bytes = 2 * self.layers * self.kv * 2  # K and V in bf16

    def value(self, path: str) -> float:
        node = self.raw
        for key in path.split("."):
            node = node[key]
        return node["v"] * UNITS[node["unit"]]

    def group(self, path: str, *keys: str) -> list[float]:
        return [self.value(f"{path}.{key}") for key in keys]

    @property
    def weight_bytes(self) -> int:
        attention = self.hidden * (self.q + 2 * self.kv) + self.q * self.hidden
        layer = attention + 3 * self.hidden * self.inter + 2 * self.hidden
        return 2 * (self.layers * layer + self.hidden + 2 * self.vocab * self.hidden)

    def gemm(self, m: int, n: int, k: int) -> float:
        t0, bandwidth, flops, p = self.group("kernels.gemm_bf16", "t0", "bandwidth", "flops", "p")
        memory = 2 * (m * k + k * n + m * n) / bandwidth
        return t0 + (memory**p + (2 * m * n * k / flops) ** p) ** (1 / p)

    def linear(self, tokens: int, sampled: int) -> float:
        """Matrix products, the five small kernels between them, and the output head for the sampled rows."""
        shapes = [
            (self.q + 2 * self.kv, self.hidden),
            (self.hidden, self.q),
            (2 * self.inter, self.hidden),
            (self.hidden, self.inter),
        ]
        # two norms read and write input and residual; rotary and cache write read and write; SiLU reads 2, writes 1
        moved = 2 * tokens * (8 * self.hidden + 2 * (self.q + self.kv) + 4 * self.kv + 3 * self.inter)
        layer = sum(self.gemm(tokens, n, k) for n, k in shapes)
        layer += 5 * self.value("kernels.launch.graph") + moved / self.value("tiers.hbm.read")
        return self.layers * layer + (self.head(sampled) if sampled else 0.0)

    def head(self, rows: int) -> float:
        """Output head; logits read in bf16 and written in fp32, four launches to sample from them."""
        sampling = rows * self.vocab * (2 + 4) / self.value("tiers.hbm.read") + 4 * self.value("kernels.launch.stream")
        return self.gemm(rows, self.vocab, self.hidden) + sampling

    def decode_attention(self, seqs: int, context: int) -> float:
        floor, t0, per_seq, rate = self.group("kernels.decode_attn", "floor", "t0", "per_seq", "bandwidth")
        layer_bytes = context * self.token_bytes // self.layers
        return self.layers * max(floor, t0 + per_seq * seqs + layer_bytes / rate)

    def prefill_attention(self, *chunks: tuple[int, int]) -> float:
        """Chunks (tokens, prefix) of one launch."""
        t0, per_token, flops = self.group("kernels.prefill_attn", "t0", "per_token", "flops")
        work = sum(4 * self.heads * self.dim * (n * prefix + n**2 / 2) for n, prefix in chunks)
        return self.layers * (t0 + per_token * sum(n for n, _ in chunks) + work / flops)

    def decode_step(self, seqs: int, context: int) -> float:
        """Replays a graph of 1, 2, 4, 8, 16, 24, ... sequences; the head has a row for each that is there."""
        padded = next(size for size in (1, 2, 4, *range(8, 257, 8)) if size >= seqs)
        head = self.head(seqs)
        return self.linear(padded, 0) + head + self.decode_attention(seqs, context)

    def mixed_step(self, chunks: Iterable[tuple[int, int]], sampled: int, seqs: int = 0, context: int = 0) -> float:
        """A step with prefill `chunks` (tokens, prefix); `sampled` of the chunks end their prompt."""
        chunks = list(chunks)
        busy = self.linear(seqs + sum(n for n, _ in chunks), seqs + sampled)
        busy += self.prefill_attention(*chunks)
        busy += self.decode_attention(seqs, context) if seqs else 0.0
        kernels = self.layers * (4 + 1 + 5) + 1
        return max(busy, kernels * self.value("kernels.launch.stream"))

    def copy(self, link: str, tokens: int, block: int = 16) -> float:
        """Blocks of all layers, one by one: larger than the cut between small and large copies."""
        alpha, beta = self.group(f"links.{link}.loop", "alpha", "beta")
        return tokens // block * alpha + tokens * self.token_bytes / beta


@pytest.fixture(scope="session")
def hand() -> Hand:
    """Hand arithmetic for llama-3.1-8b on the machine of `closed_form.yaml`."""
    return Hand(CLOSED_FORM, ROOT / "models" / "llama-3.1-8b" / "config.json")


@pytest.fixture(scope="session")
def quiet_profile(hand: Hand, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of h100-sxm as it would be if copies did not slow kernels."""
    path = tmp_path_factory.mktemp("profiles") / "h100-sxm.yaml"
    raw = {**hand.raw, "interference": {}}
    used = set(re.findall(r"src['\"]?: ['\"]?(\w+)", repr(raw)))
    raw["sources"] = {name: source for name, source in raw["sources"].items() if name in used}
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return str(path)


@pytest.fixture(scope="session")
def write_trace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[Row]], Path]:
    """Writes rows (arrival s, input, output, ids) as a Mooncake trace of its own; returns the file."""
    folder, numbers = tmp_path_factory.mktemp("traces"), count()

    def write(rows: Sequence[Row]) -> Path:
        keys = ("timestamp", "input_length", "output_length", "hash_ids", "priority")
        lines = [json.dumps(dict(zip(keys, (1000 * t, *others), strict=False))) for t, *others in rows]
        path = folder / f"{next(numbers)}.jsonl"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture(scope="session")
def scenario(write_trace: Callable[[Sequence[Row]], Path]) -> Callable[..., Scenario]:
    """A scenario over `rows` (or a `trace:` section) with one replica; `dram` adds that tier behind HBM.

    `blocks` sets the HBM exactly (16 tokens each, unless the engine says otherwise); other keywords are sections.
    """

    def build(
        rows: Sequence[Row] | None = None,
        *,
        blocks: int | None = None,
        dram: str | None = None,
        shared: str = "private",
        offload: str = "write_through",
        engine: dict[str, Any] | None = None,
        **sections: Any,
    ) -> Scenario:
        document = {
            "schema": "kvsim-scenario/1",
            "model": "llama-3.1-8b",
            "hardware": {"profile": str(CLOSED_FORM)},
            "engine": {**(engine or {}), **({"num_gpu_blocks": blocks} if blocks else {})},
            "tiers": [{"name": "hbm"}, *([{"name": "dram", "capacity": dram, "shared": shared}] if dram else [])],
            "policies": {"offload": offload},
            **sections,
        }
        if rows is not None:
            document["trace"] = {"path": str(write_trace(rows))}
        return Scenario.from_dict(document)

    return build


@pytest.fixture(scope="session")
def run(scenario: Callable[..., Scenario]) -> Callable[..., Result]:
    """Simulate `scenario(...)` with every invariant checked."""

    def go(*args: Any, single_step: bool = False, **keywords: Any) -> Result:
        return simulate(scenario(*args, **keywords), check=True, single_step=single_step)

    return go


@pytest.fixture(scope="session")
def same_requests() -> Callable[[Result, Result], None]:
    """Assert that two runs served every request alike, to the last bit.

    Parts of prefill and decoding are sums over steps, which strides add up in another order: equal but for rounding.
    """

    def compare(one: Result, other: Result) -> None:
        frames = one.frames["requests"], other.frames["requests"]
        parts = [f"{phase}_{part}_s" for phase in PHASES for part in PARTS if f"{phase}_{part}_s" in frames[0]]
        pd.testing.assert_frame_equal(*(frame.drop(columns=parts) for frame in frames), check_exact=True)
        pd.testing.assert_frame_equal(*(frame[parts] for frame in frames), check_exact=False, rtol=0, atol=1e-12)

    return compare


@pytest.fixture(scope="session")
def prompt() -> Callable[[int, int], list[int]]:
    """Hash ids of a prompt of `tokens` tokens whose blocks no other `family` shares."""
    return lambda family, tokens: [1000 * family + i for i in range(-(-tokens // 512))]


@pytest.fixture
def beside(tmp_path: Path, scenario: Callable[..., Scenario]) -> Callable[..., Scenario]:
    """Write `my_policy.py`, and a scenario beside it that cycles through three prompts in room for two."""

    def build(source: str, policies: dict[str, Any], **keywords: Any) -> Scenario:
        (tmp_path / "my_policy.py").write_text(source)
        rows = [(10 * i, 1024, 1, [10 * (i % 3), 10 * (i % 3) + 1]) for i in range(12)]
        base = scenario(rows, policies=policies, **{"blocks": 136, **keywords})
        return Scenario.from_dict(base.document, where="mine.yaml", base_dir=tmp_path)

    return build


@pytest.fixture
def apart(run: Callable[..., Result], hand: Any) -> Callable[..., Result]:
    """A run with `prefill` and `decode` instances over a link."""

    def go(
        rows: Sequence[Row] | None = None,
        prefill: int = 1,
        decode: int = 1,
        *,
        link: dict[str, Any] = INSTANT,
        single_step: bool = False,
        pools: dict[str, Any] | None = None,
        hardware: dict[str, Any] | None = None,
        **sections: Any,
    ) -> Result:
        return run(
            rows,
            hardware={"profile": str(hand.profile), "replicas": prefill + decode, **(hardware or {})},
            disaggregation={"prefill": prefill, "decode": decode, "link": link, **(pools or {})},
            single_step=single_step,
            **sections,
        )

    return go
