"""`kvsim sweep`: every combination of lists of values, one row each, in one table."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hw_profiles.errors import InputError
from kvsim.cli import _print
from kvsim.cli._options import AsJson, Strict, Workers
from kvsim.cli._progress import count_bar
from kvsim.cli._run_dir import may_make

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.whatif.sweep import Executor, Row
    from sim.whatif.sweep_file import Search, Sweep
    from sim.whatif.variants import Variant

NO = 1
EXECUTORS = ("local", "ray")
SHOWN = (("ttft_p99_ms", "TTFT p99, ms"), ("tpot_p95_ms", "TPOT p95, ms"), ("goodput_per_s", "goodput/s"))
HITS = ("hit_ratio", "hits, %")


def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep file (YAML): a scenario, and `vary:` lists.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Results; out/<name of the sweep> if not given.")
    ] = None,
    workers: Workers = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the runs that are done; run the others.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop.")] = False,
    executor: Annotated[
        str, typer.Option("--executor", metavar="local|ray", help="Where to run: processes here, or a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            "--address", metavar="ADDR", help="Of the cluster: auto, host:port, ray://host:port. [default: here]"
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", metavar="N", help="Runs drawn from SWEEP's ranges, or chosen by its search."),
    ] = None,
    prices: Annotated[
        Path | None, typer.Option("--prices", metavar="FILE", help="Your prices. [default: the table that ships]")
    ] = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Run every combination of SWEEP's lists, samples of its ranges, or a search in them.

    DIR gets sweep.parquet, a row for each run, failed ones with their error; and sweep.html.

    Kill it at any moment: --resume goes on, and a run whose scenario, policy or trace has changed since is run again.
    """
    from reports.kinds import write_report
    from sim.whatif.pool import worker_count
    from sim.whatif.prices import load_prices
    from sim.whatif.sweep import chosen_and_run, count_kept
    from sim.whatif.sweep_document import save_sweep
    from sim.whatif.sweep_file import load_sweep

    if executor not in EXECUTORS:
        raise InputError("", where="--executor", found=executor, allowed=EXECUTORS, near=EXECUTORS)
    if address is not None and executor != "ray":
        raise InputError("needs --executor ray", where="--address", found=address)
    table = load_prices(prices)
    found = load_sweep(file, samples)
    many = worker_count(workers)
    folder = out or Path("out") / file.stem
    if dry_run:
        _plan(found, as_json=as_json)
        return
    may_make(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "rows").is_dir():
        raise InputError("is not empty and holds no sweep; name another folder with --out", where=folder)
    if count_kept(folder) and not resume:
        raise InputError("has runs of a sweep: go on with --resume, or name another folder with --out", where=folder)
    with count_bar(not as_json, "runs") as progress, _executor(executor, address, many) as run_all:
        variants, rows = chosen_and_run(
            found, folder, workers=many, executor=run_all, resume=resume, strict=strict, progress=progress
        )
    save_sweep(file.stem, found, variants, rows, table, folder)
    written = write_report(folder)
    failed = sum(row["error"] is not None for row in rows)
    if as_json:
        _print.document(
            [
                {"label": variant.label, "settings": dict(variant.settings), **row}
                for variant, row in zip(variants, rows, strict=True)
            ]
        )
    else:
        _show(variants, rows)
        if found.search is not None:
            _say_best(found.search, variants, rows)
    said = f"{len(rows)} runs, {failed} failed; table: {folder / 'sweep.parquet'}"
    (_print.note if as_json else _print.line)(said)
    (_print.note if as_json else _print.line)(f"report: {written}")
    if failed == len(rows):
        raise typer.Exit(NO)


@contextmanager
def _executor(name: str, address: str | None, workers: int) -> Iterator[Executor | None]:
    """What runs the jobs: None for the processes of this machine."""
    if name == "local":
        yield None
        return
    from functools import partial

    from sim.whatif.ray_pool import cluster, run_on_ray

    with cluster(address, workers):  # once, however many batches follow
        yield partial(run_on_ray, address=address, workers=workers)


def _plan(found: Sweep, *, as_json: bool) -> None:
    if as_json:
        _print.document([{"label": variant.label, "settings": dict(variant.settings)} for variant in found.variants])
    else:
        for variant in found.variants:
            _print.line(variant.label)
    if found.search is not None:
        _print.note(f"{found.runs} runs, which the search will choose one batch after another")
    elif not as_json:
        _print.line(f"{len(found.variants)} runs")


def _say_best(search: Search, variants: list[Variant], rows: list[Row]) -> None:
    """What the search was for."""
    from reports.text import number
    from sim.whatif.search import best

    index = best(search, rows)
    way = "largest" if search.largest else "least"
    if index is None:
        _print.line(f"no run {'meets the SLO' if search.meet_slo else f'has {search.metric}'}")
        return
    met = " of runs that meet the SLO" if search.meet_slo else ""
    value = number(rows[index]["metrics"][search.metric])
    _print.line(f"{way} {search.metric}{met}: {value}, at {variants[index].label}")


def _show(variants: list[Variant], rows: list[Row]) -> None:
    from reports.text import number

    columns = [(key, label) for key, label in (*SHOWN, HITS) if any(key in row["metrics"] for row in rows)]
    failed, with_slo = any(row["error"] for row in rows), any(row["slo"] for row in rows)

    def judged(row: Row) -> list[str]:
        return [_verdict(row)] if with_slo else []

    cells = [
        (variant.label, *(number(row["metrics"].get(key)) for key, _ in columns), *judged(row), row["error"] or "")
        for variant, row in zip(variants, rows, strict=True)
    ]
    heads: list[str | _print.Column] = [
        "run",
        *(_print.Column(label, right=True) for _, label in columns),
        *(["SLO"] if with_slo else []),
        *(["error"] if failed else []),
    ]
    _print.table(heads, cells if failed else [line[:-1] for line in cells])


def _verdict(row: Row) -> str:
    """`met`, or the target that is furthest beyond its limit and how far: `TTFT p95 1.41 x its limit`."""
    from reports.text import number, slo_label

    missed = {key: target for key, target in row["slo"].items() if not target["met"]}
    if not missed:
        return "met" if row["slo"] else ""
    beyond = {key: (one["value_ms"] or float("inf")) / one["target_ms"] for key, one in missed.items()}
    key = max(beyond, key=lambda name: beyond[name])
    far = f" {number(beyond[key], 3)} x its limit" if 1 < beyond[key] < float("inf") else ": requests rejected"
    return f"{slo_label(key)}{far}"
