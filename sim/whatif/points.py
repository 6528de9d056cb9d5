"""One run of a search for the least hardware: does it meet the SLO, what does it cost, what does it draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hw_profiles.errors import InputError
from sim.run import simulate
from sim.whatif.early import REJECTED, Stopped, Watch
from sim.whatif.prices import Cost, Prices, cost
from sim.whatif.runs import Job
from sim.whatif.shared import shared_inputs


@dataclass(frozen=True)
class Point:
    """One run: the value, each SLO target as the summary has it, and what the hardware costs.

    attainment   share of the requests within every limit, and the least that was asked for; None if none was
    cost         None where nothing ran, and where the price table lacks the GPU
    lost         target whose limit so many requests were beyond that the run ended early; `stopped` says it in words.
                 Then there are no values, but a cost per hour
    rejected     how many requests are rejected, and why, if any are; `lost` is "rejected" if that decided
    failed       why there was no run: the model does not fit, for example
    computing    of the first-token time of the slowest 1 % of requests, the share that computes their own prompts
    held         seconds that a request of a closed loop waited in the mean to be sent (max_parallel, request_rate)
    gpus         GPUs of all replicas; None where nothing ran
    assumptions, warnings    those of the run's summary; none for a run that ended early
    """

    index: int
    shown: str
    met: bool
    targets: Mapping[str, Mapping[str, Any]]
    requests_per_s: float | None
    cost: Cost | None
    attainment: Mapping[str, Any] | None = None
    lost: str | None = None
    stopped: str | None = None
    rejected: str | None = None
    failed: str | None = None
    gpus: int | None = None
    computing: float | None = None
    held: float = 0.0
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """True if the run went to its end."""
        return self.stopped is None and self.failed is None

    @property
    def worst(self) -> tuple[str, float]:
        """The target that is nearest to its limit, or furthest beyond it, and value / limit (inf without a value).

        For attainment: requests beyond a limit / those that may be.
        """
        found = {key: (not target["met"], _ratio(target)) for key, target in self.targets.items()}
        if self.attainment is not None:
            missed, allowed = 1 - self.attainment["value"], 1 - self.attainment["target"]
            ratio = missed / allowed if allowed else float("inf") if missed else 0.0
            found["attainment"] = (not self.attainment["met"], ratio)
        # A target may be met by those that were served and missed for those that were not: missed ones come first.
        key = max(found, key=lambda name: found[name])
        return key, found[key][1]


@dataclass(frozen=True)
class PointJob:
    """A run to make; `whole`: to its end, whatever comes of its SLO. `tolerant`: wrong input is a failed point."""

    job: Job
    index: int
    shown: str
    prices: Prices
    attainment: float | None
    whole: bool
    tolerant: bool


def run_point(asked: PointJob) -> Point:
    """Run, and judge. Raises InputError."""
    scenario = asked.job.scenario
    slo = scenario.spec.slo
    nodes = scenario.spec.hardware.gpus_per_node
    watch = None if asked.whole else Watch(slo, asked.attainment)
    unknown = {key: {"target_ms": limit * 1e3, "value_ms": None, "met": False} for key, limit in slo.items()}
    try:
        inputs = shared_inputs(scenario, strict=asked.job.strict)
        result = simulate(scenario, inputs=inputs, strict=asked.job.strict, watch=watch)
        summary = result.summary
    except Stopped as stopped:
        refused = _rejected(stopped.statuses, stopped.requests)
        beyond = f"{stopped.missed} of {stopped.requests} requests beyond {stopped.key}"
        text = f"{refused if stopped.key == REJECTED else beyond} after {stopped.at_s:.4g} s"
        hardware = {**stopped.hardware, "throughput": {"output_tokens_per_s": 0.0}}
        price = _priced(hardware, nodes, asked.prices)
        return Point(
            asked.index,
            asked.shown,
            False,
            unknown,
            None,
            price,
            lost=stopped.key,
            stopped=text,
            rejected=refused,
            gpus=stopped.hardware["hardware"]["gpus"],
        )
    except InputError as error:
        if not asked.tolerant:
            raise
        return Point(asked.index, asked.shown, False, unknown, None, None, failed=str(error))
    found = summary["slo"]
    attained = None
    if asked.attainment is not None:
        share = float(found["attainment"])
        attained = {"value": share, "target": asked.attainment, "met": share >= asked.attainment}
    met = bool(found["met"]) and (attained is None or bool(attained["met"]))
    rate = float(summary["throughput"]["requests_per_s"])
    price = _priced(summary, nodes, asked.prices)
    refused = None
    if summary["requests"]["rejected"]:
        table = result.tables["requests"]
        ended = zip(table["status"].to_pylist(), table["reason"].to_pylist(), strict=True)
        refused = _rejected([f"{status}: {why}" for status, why in ended], summary["requests"]["arrived"])
    return Point(
        asked.index,
        asked.shown,
        met,
        found["targets"],
        rate,
        price,
        attainment=attained,
        rejected=refused,
        gpus=int(summary["hardware"]["gpus"]),
        computing=_computing(summary),
        held=summary["trace"].get("sender_wait_s", 0.0) / max(1, summary["requests"]["arrived"]),
        assumptions=tuple(summary["assumptions"]),
        warnings=tuple(summary["warnings"]),
    )


def _computing(summary: Mapping[str, Any]) -> float | None:
    slowest = summary["attribution"].get("ttft_ms", {}).get("slowest")
    return slowest["parts"]["prefill"] / slowest["mean"] if slowest and slowest["mean"] else None


def _priced(summary: Mapping[str, Any], gpus_per_node: int, prices: Prices) -> Cost | None:
    """What the hardware costs; None if the table has no price for the GPU: how many it takes is found all the same."""
    known = summary["hardware"]["profile"] in prices.gpu
    return cost(summary, gpus_per_node, prices) if known else None


def _rejected(statuses: Sequence[str], requests: int) -> str | None:
    """How many of the requests that ended are rejected, and why; None if none is."""
    whys = [status.partition(": ")[2] for status in statuses if status.startswith("rejected")]
    if not whys:
        return None
    return f"{len(whys)} of {requests} requests are rejected: prompt + output {' or '.join(sorted(set(whys)))}"


def _ratio(target: Mapping[str, Any]) -> float:
    value, limit = target["value_ms"], target["target_ms"]
    return float("inf") if value is None else float(value / limit)
