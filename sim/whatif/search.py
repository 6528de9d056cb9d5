"""A search over ranges: Optuna's TPE chooses points, a batch at a time, by the rows before. Optuna is used here.

The batch does not depend on the number of workers, and what a point gave is kept by the hash of its configuration: the
same file and seed choose the same points anywhere, and after a crash the search goes on where it was.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from hw_profiles.errors import InputError
from sim.whatif.ranges import Range
from sim.whatif.sweep_file import Search, Sweep
from sim.whatif.variants import Variant

Row = dict[str, Any]
BATCH = 8
"""Points that are chosen together; TPE takes those without a row for bad ones (constant liar)."""


def run_search(sweep: Sweep, run: Callable[[Sequence[Variant]], list[Row]]) -> tuple[list[Variant], list[Row]]:
    """Choose `sweep.runs` points and `run` them. Returns them in the order in which they were chosen.

    Bergstra et al., "Algorithms for hyper-parameter optimization" (NeurIPS 2011); with `meet_slo`, runs that miss the
    SLO rank behind those that meet it. Raises InputError without Optuna.
    """
    assert sweep.search is not None
    optuna = _optuna()
    space = {one.path: _distribution(optuna, one) for one in sweep.ranges}
    with warnings.catch_warnings():  # the constant liar is called experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=sweep.seed, constant_liar=True)
    study = optuna.create_study(sampler=sampler, direction="maximize" if sweep.search.largest else "minimize")
    variants: list[Variant] = []
    rows: list[Row] = []
    while len(variants) < sweep.runs:
        trials = [study.ask(space) for _ in range(min(BATCH, sweep.runs - len(variants)))]
        chosen = [sweep.variant({one.path: _value(one, t.params[one.path]) for one in sweep.ranges}) for t in trials]
        found = run(chosen)
        for trial, row in zip(trials, found, strict=True):
            value = row["metrics"].get(sweep.search.metric)
            if sweep.search.meet_slo:
                for key, excess in over(row).items():
                    trial.set_constraint(key, excess)
            if value is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, value)
        variants += chosen
        rows += found
    return variants, rows


def best(search: Search, rows: Sequence[Row]) -> int | None:
    """Index of the row that the search was for; None if no run has the metric, or none meets the SLO."""
    known = [index for index, row in enumerate(rows) if row["metrics"].get(search.metric) is not None]
    if search.meet_slo:
        known = [index for index in known if all(value <= 0 for value in over(rows[index]).values())]
    sign = -1 if search.largest else 1
    return min(known, key=lambda index: sign * rows[index]["metrics"][search.metric], default=None)


def over(row: Row) -> dict[str, float]:
    """By how much of its limit each target of the SLO is missed; <= 0 where it is met, and 1 without a value."""
    found = {}
    for key, target in row["slo"].items():
        ratio = 2.0 if target["value_ms"] is None else target["value_ms"] / target["target_ms"]
        found[key] = min(0.0, ratio - 1) if target["met"] else max(ratio - 1, 1e-9)
    return found


def _distribution(optuna: Any, one: Range) -> Any:
    if one.choices:
        return optuna.distributions.CategoricalDistribution(range(len(one.choices)))
    if one.whole:
        return optuna.distributions.IntDistribution(int(one.low), int(one.high), log=one.log)
    return optuna.distributions.FloatDistribution(one.low, one.high, log=one.log)


def _value(one: Range, chosen: float) -> Any:
    return one.choices[int(chosen)] if one.choices else one.value(chosen)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        text = "Optuna is not installed here; `pip install 'kvsim[optuna]'`, or take random samples without `search:`"
        raise InputError(text, where="search") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
