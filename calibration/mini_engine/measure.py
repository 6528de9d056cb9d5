"""Run the variants of a setting on the device: logs, outputs, and whether pages arrived as they left."""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch

from calibration.mini_engine import engine
from calibration.mini_engine.device_executor import DeviceExecutor
from calibration.mini_engine.model import DeviceModel, ModelShape
from calibration.mini_engine.run_record import Run
from calibration.mini_engine.scheduler import Scheduler
from calibration.mini_engine.setting import VARIANTS, Setting, Variant
from calibration.mini_engine.steps import StepRunner
from calibration.mini_engine.workload import draw
from calibration.suite.lab import Lab
from hw_profiles.errors import InputError

WARM_UP_REQUESTS = 24
DEVICE_SHARE, PINNED_SHARE = 0.9, 0.5
"""Of the free memory of the device that weights and pages may take; of the host's that may be pinned."""


class Bench:
    """The model and its pools on the device, for all variants of a setting."""

    def __init__(self, lab: Lab, setting: Setting, shape: ModelShape) -> None:
        self.lab = lab
        self.setting = setting
        self.page_bytes = 2 * shape.page_numbers
        _must_fit(lab, setting, shape, self.page_bytes)
        self.model = DeviceModel(lab, shape, setting.pages, setting.host_pages)
        self._runners: dict[bool, StepRunner] = {}

    def runner(self, l2_prefetch: bool) -> StepRunner:
        """What executes steps; captured once."""
        if l2_prefetch not in self._runners:
            setting = self.setting
            runner = StepRunner(
                self.model, setting.max_seqs, setting.max_tokens, setting.longest + 1, l2_prefetch=l2_prefetch
            )
            runner.capture()
            self._runners[l2_prefetch] = runner
        return self._runners[l2_prefetch]

    def run(self, variant: Variant, requests: int | None = None) -> Run:
        """Serve the setting's load, or its first requests."""
        load = self.setting.load
        trace = draw(load if requests is None else replace(load, requests=requests))
        scheduler = self.setting.scheduler(variant, self.page_bytes)
        runner = self.runner(variant.l2_prefetch)
        with _no_collection():  # from before the executor's clock starts
            executor = DeviceExecutor(self.model, runner, method=variant.method, synchronous=variant.synchronous)
            executor.keep = True
            log = engine.run(trace, scheduler, executor)
        wrong, checked = self._compare_pages(scheduler)
        host = statistics.median(executor.host_s)
        return Run(variant, log, scheduler, executor.outputs, host, wrong, checked)

    def _compare_pages(self, scheduler: Scheduler) -> tuple[int, int]:
        """(pages that differ, pages compared) of the blocks that lie in both places."""
        if scheduler.host is None:
            return 0, 0
        wrong = checked = 0
        for key, pages in scheduler.host.pages.items():
            here = scheduler.hbm.pages.get(key, [])
            for near, far in zip(here, pages, strict=False):
                checked += 1
                wrong += not torch.equal(self.model.pool[near].cpu(), self.model.host[far])
        return wrong, checked


def _must_fit(lab: Lab, setting: Setting, shape: ModelShape, page_bytes: int) -> None:
    """Raise InputError if the device or the host has too little memory."""
    facts, gib = lab.facts, 2**30
    need = (shape.weight_bytes + setting.pages * page_bytes) / DEVICE_SHARE
    if not lab.cpu and need > facts.free_bytes:
        found, least = f"{facts.free_bytes / gib:.1f} GiB free", f"at least {need / gib:.0f} GiB"
        raise InputError(f"too little memory on {facts.name} for {setting.model}", found=found, allowed=least)
    pinned = setting.host_pages * page_bytes / PINNED_SHARE
    if pinned > facts.host_bytes:
        found, least = f"{facts.host_bytes / gib:.1f} GiB", f"at least {pinned / gib:.0f} GiB"
        raise InputError("too little memory on the host for the pages it is to hold", found=found, allowed=least)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector from stopping a step."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run_variants(
    bench: Bench, names: Sequence[str], folder: Path, progress: Callable[[str], None] = lambda name: None
) -> dict[str, Run]:
    """Run the variants, the first of them again at the end; logs are written as they come.

    What a variant needs and no other has used is warmed up before: nothing is compiled in what is logged.
    """
    runs: dict[str, Run] = {}
    warm: set[tuple[str, bool]] = set()
    for name in (*names, f"{names[0]} again"):
        progress(name)
        variant = VARIANTS[name.split()[0]]
        if (variant.method, variant.l2_prefetch) not in warm:
            # with copies, even if it makes none: the variants after it will
            bench.run(replace(VARIANTS["C"], method=variant.method, l2_prefetch=variant.l2_prefetch), WARM_UP_REQUESTS)
            warm.add((variant.method, variant.l2_prefetch))
        runs[name] = bench.run(variant)
        write_log(runs[name], folder / f"engine_{name.replace(' ', '_')}.jsonl")
    return runs


def write_log(run: Run, path: Path) -> None:
    """One JSON object per step, then one per request."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for step in run.log.steps:
            file.write(json.dumps({"type": "step", **asdict(step)}) + "\n")
        for sequence in run.log.sequences:
            request = sequence.request
            times = {name: getattr(sequence, name) for name in ("first_token_s", "finish_s")}
            row = {"request": request.index, "arrival_s": request.arrival_s, **times, "hits": sequence.hit_tokens}
            file.write(json.dumps({"type": "request", **row}) + "\n")
