"""Running a setting on the engine, and what is read from the run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from hw_profiles.errors import InputError
from hw_profiles.yaml_io import dump_yaml, load_yaml
from sim.engine.footprint import Footprint, PlannedMemory
from sim.inputs import load_inputs
from sim.reproduce.cache_study import Absent, CacheStudy, Hits
from sim.reproduce.models import config_of
from sim.reproduce.setting import MOST, Setting
from sim.result import Result
from sim.scenario import Scenario
from sim.tables import numbers


@dataclass(frozen=True)
class Measured:
    """What a run came to.

    batch          sequences
    step_ms        mean decode step of the whole batch
    ttft_ms        until the last sequence of the batch has its first token
    total_s        until the last sequence ends
    prefill_s      steps with prompts in them, all together; decode_s: the others
    tokens_per_s   generated tokens over total_s (prompts included in the time)
    decode_per_s   generated tokens over decode steps alone
    peak_bytes     HBM: weights, activations, what is reserved, and KV at its peak
    kv_bytes       of it, KV at its peak
    parts          ms of a decode step by part: columns of the table of steps
    summary        of the run
    context        tokens of a sequence at its end
    held_tokens    tokens' worth of plain KV that the plan keeps of them in HBM
    """

    batch: int
    step_ms: float
    ttft_ms: float
    total_s: float
    prefill_s: float
    decode_s: float
    tokens_per_s: float
    decode_per_s: float
    peak_bytes: float
    kv_bytes: float
    parts: Mapping[str, float]
    summary: Mapping[str, Any]
    context: int
    held_tokens: float

    @property
    def token_bytes(self) -> float:
        """KV bytes of a token in the engine's own format, over all ranks."""
        return float(self.summary["hardware"]["kv_bytes_per_token"])

    @property
    def kv_per_sequence(self) -> float:
        """Bytes that a plan keeps of a sequence in HBM at its end: KV and what belongs to it, without what frameworks
        add."""
        return self.held_tokens * self.token_bytes

    @property
    def per_sequence_bytes(self) -> float:
        """HBM that a sequence takes: all but the weights and what is reserved, over the batch."""
        budget = self.summary["hardware"]["hbm_budget"]
        return float(self.peak_bytes - budget["weights"] - budget["reserved"]) / self.batch

    @property
    def block_bytes(self) -> float:
        """Weights and KV: what a benchmark of one transformer block allocates."""
        return float(self.summary["hardware"]["hbm_budget"]["weights"]) + self.kv_bytes

    def link_bytes(self, link: str) -> float:
        """Bytes that a link carried."""
        return float(self.summary["links"][link]["bytes"])


@dataclass(frozen=True)
class Failed:
    """Why a setting did not run."""

    why: str


def measure(setting: Setting | CacheStudy) -> Measured | Failed | Hits | Absent:
    """Run `setting`. What is wrong with it is returned, so that one row does not end the others."""
    if isinstance(setting, CacheStudy):
        return setting.measure()
    with TemporaryDirectory() as folder:
        try:
            return _measure(setting, Path(folder))
        except InputError as error:
            return Failed(" ".join(str(error).replace(folder, "").split()))


def _measure(setting: Setting, folder: Path) -> Measured:
    named = _Named(_model_file(setting, folder), _profile_file(setting, folder))
    batch = setting.batch if setting.batch != MOST else _most(setting, named)
    host_time = 0.0
    if setting.other_ms is not None:
        plain = _read(_run(setting, named, batch, 0.0), batch, setting)
        kernels = sum(plain.parts.get(name, 0.0) for name in ("linear", "launch"))
        host_time = max(0.0, setting.other_ms - kernels) / 1e3
    return _read(_run(setting, named, batch, host_time), batch, setting, _held_tokens(setting, named))


class _Named(NamedTuple):
    """What the scenario names: paths of files, or shipped names."""

    model: str
    profile: str


def _model_file(setting: Setting, folder: Path) -> str:
    file = folder / "config.json"
    file.write_text(json.dumps(config_of(setting.model, setting.prompt + setting.output)))
    return str(file)


def _profile_file(setting: Setting, folder: Path) -> str:
    """The profile; with `attention` a copy whose attention kernel has these values and no table of ratios."""
    if not setting.attention:
        return setting.profile
    document = load_yaml(Path(str(resources.files("hw_profiles") / "profiles" / f"{setting.profile}.yaml")))
    for name, kernel in document["kernels"].items():
        if name.startswith("decode_attn"):
            kept = {key: kernel[key] for key in ("floor", "t0", "per_seq", "bandwidth")}
            for key, text in setting.attention:
                value, unit = text.split()
                kept[key] = {"v": float(value), "unit": unit, "src": kernel[key]["src"], "rel": 0}
            document["kernels"][name] = kept
    file = folder / "profile.yaml"
    file.write_text(dump_yaml(document))
    return str(file)


def _run(setting: Setting, named: _Named, batch: int, host_time: float) -> Result:
    scenario = Scenario.from_dict(setting.document(*named, batch, host_time), where=_name(setting))
    result = scenario.run()
    rejected = result.summary["requests"]["rejected"]
    if rejected:
        raise InputError(f"{rejected} of {batch} sequences do not fit", where=_name(setting))
    return result


def _name(setting: Setting) -> str:
    return f"{setting.model} on {setting.profile}"


def _most(setting: Setting, named: _Named) -> int:
    """As many sequences as memory takes at their full length, by the rule by which the engine admits them.

    What is set aside for activations may grow with the batch, so the quotient for one sequence is the most that can be.
    """
    most = min(_room(setting, named, 1), setting.at_most)
    low = min(_room(setting, named, most), most) if most else 0
    if not most:
        raise InputError("not one sequence fits", where=_name(setting))
    while low < most:
        middle = (low + most + 1) // 2
        low, most = (middle, most) if _room(setting, named, middle) >= middle else (low, middle - 1)
    return low


def _room(setting: Setting, named: _Named, batch: int) -> int:
    """Sequences for which there is memory, where `batch` may run at once; 0 if the model does not fit."""
    scenario = Scenario.from_dict(setting.document(*named, batch), where=_name(setting))
    try:
        inputs = load_inputs(scenario)
    except InputError:
        if batch == 1:
            raise
        return 0
    footprint, final = inputs.footprint or Footprint(), setting.prompt + setting.output - 1
    memory = PlannedMemory(footprint, scenario.spec.engine.block_tokens)
    most = memory.whole_blocks(setting.prompt, final)
    if footprint.at_once:
        return inputs.budget.blocks // most
    # prompts are computed one after the other, so one sequence at a time holds what its prompt needs
    last = memory.decode_blocks(setting.prompt, final)
    return (inputs.budget.blocks - (most - last)) // last


def _held_tokens(setting: Setting, named: _Named) -> float:
    planned = load_inputs(Scenario.from_dict(setting.document(*named, 1), where=_name(setting))).planned
    final = setting.prompt + setting.output
    return float(final) if planned is None else planned.decoding.at(final, setting.prompt)


def _read(result: Result, batch: int, setting: Setting, held_tokens: float = math.nan) -> Measured:
    steps = result.tables["steps"]
    count = numbers(steps, "count")
    prompts = numbers(steps, "prefill_seqs") > 0
    whole = ~prompts & (numbers(steps, "decode_seqs") == batch)
    seconds = numbers(steps, "end_s") - numbers(steps, "start_s")
    many = float(count[whole].sum())
    names = [name for name in steps.column_names if name.endswith("_s") and name not in ("start_s", "end_s")]
    summary = result.summary
    budget = summary["hardware"]["hbm_budget"]
    kv = float(summary["tiers"]["hbm"]["peak_bytes"])
    fixed = sum(budget[key] for key in ("weights", "activations", "reserved"))
    total = float(summary["duration_s"])
    step_s = float(seconds[whole].sum()) / many if many else math.nan
    return Measured(
        batch=batch,
        step_ms=1e3 * step_s,
        ttft_ms=float(summary["ttft_ms"]["max"]),
        total_s=total,
        prefill_s=float(seconds[prompts].sum()),
        decode_s=float(seconds[~prompts].sum()),
        tokens_per_s=batch * setting.output / total,
        decode_per_s=batch / step_s,
        peak_bytes=fixed + kv,
        kv_bytes=kv,
        parts={name[:-2]: 1e3 * _sum(steps, name, whole) / many for name in names} if many else {},
        summary=summary,
        context=setting.prompt + setting.output,
        held_tokens=held_tokens,
    )


def _sum(steps: Any, name: str, which: np.ndarray) -> float:
    return float(numbers(steps, name)[which].sum())
