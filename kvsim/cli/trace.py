"""`kvsim trace`: statistics of a trace, fetching a public one, generating one, runs from benchmark results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hw_profiles.errors import InputError
from kvsim.cli import _print
from kvsim.cli._options import AsJson, Quiet, Settings, Strict, parse_setting, set_path, validated
from kvsim.cli._progress import byte_bar

if TYPE_CHECKING:
    from traces.request import Trace

TraceName = Annotated[
    str,
    typer.Argument(
        metavar="TRACE",
        help="A catalog name (`kvsim list traces`), a trace file, or YAML: a scenario, or the `trace:` section of one.",
    ),
]


def stats(trace: TraceName, strict: Strict = False, as_json: AsJson = False) -> None:
    """Sizes, rates, conversations and ideal prefix reuse of TRACE; of a scenario, as it will be sent."""
    from reports.text import number
    from traces.stats import stat_labels
    from traces.stats import stats as figures_of

    loaded = _load(trace, strict)
    for warning in loaded.warnings:
        _print.note(f"warning: {warning}")
    figures = figures_of(loaded)
    if as_json:
        _print.document({"name": loaded.name, "source": loaded.source, **figures, "warnings": loaded.warnings})
        return
    labels = stat_labels()
    rows = [
        (labels[key].label, number(value), labels[key].unit, labels[key].definition) for key, value in figures.items()
    ]
    _print.table(
        ["figure", _print.Column("value", right=True), "unit", _print.Column("definition", fold=True)],
        rows,
        title=f"{loaded.name} ({loaded.source})",
    )


def _load(trace: str, strict: bool) -> Trace:
    """The trace of a catalog name, a trace file, a scenario, or YAML with the keys of its `trace:` section."""
    from traces.catalog import load_trace

    if not trace.endswith((".yaml", ".yml")):
        return load_trace(trace, strict=strict)
    from hw_profiles.yaml_io import load_yaml
    from sim.scenario import Scenario
    from traces.spec import TraceSpec, build

    document, folder = load_yaml(Path(trace)), Path(trace).resolve().parent
    if "schema" in document or "trace" in document:
        scenario = Scenario.from_dict(document, where=trace, base_dir=folder)
        spec, seed, path = scenario.spec.trace, scenario.spec.seed, "trace"
    else:
        spec, seed, path = validated(TraceSpec, document, where=trace), 0, None
    try:
        return build(spec, seed, folder, strict=strict)
    except InputError as error:
        raise error.at(where=trace, path=path if error.where is None else None) from None


def fetch(
    trace: Annotated[str, typer.Argument(metavar="TRACE", help="A catalog name (`kvsim list traces`).")],
    url: Annotated[
        str | None, typer.Option("--url", help="Download from here instead; the content must be the same.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder that KVSIM_TRACES will name. [default: the user's cache]"),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Download TRACE from its public home, verify its SHA-256, keep it."""
    from traces.catalog import entry_of
    from traces.fetch import fetch as download

    entry = entry_of(trace)
    dest = out / entry.relative if out is not None and not entry.ships else None
    with byte_bar(not (quiet or as_json), trace) as progress:
        path = download(trace, url=url, dest=dest, progress=progress)
    if as_json:
        _print.document({"name": trace, "path": str(path), "sha256": entry.sha256, "licence": entry.licence})
    else:
        _print.line(str(path))


def generate(
    spec: Annotated[
        Path | None,
        typer.Argument(metavar="[SPEC]", help="YAML with what to change; the defaults are a chat service."),
    ] = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed, where SPEC has none.")] = 0,
    name: Annotated[str, typer.Option("--name", help="Name of the file, less .jsonl.gz.")] = "generated",
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Generate chat traffic with shared prefixes: `kvsim trace generate --set requests=5000 --set rate=4`."""
    from hw_profiles.yaml_io import load_yaml
    from traces.generate import GenerateSpec
    from traces.generate import generate as make
    from traces.mooncake import write_mooncake

    given = {} if spec is None else load_yaml(spec)
    parameters = validated(GenerateSpec, given, where=spec).model_dump(mode="json")
    for setting in settings or ():
        set_path(parameters, *parse_setting(setting))
    target = out / f"{name}.jsonl.gz"
    if target.exists():
        raise InputError("is already there; choose another --name or --out", where=target)
    made = make(validated(GenerateSpec, parameters, where="--set"), seed)
    path = write_mooncake(made, target)
    if as_json:
        _print.document({"path": str(path), "requests": len(made), "parameters": parameters, "source": made.source})
    else:
        _print.line(f"{path} ({len(made):,} requests; `kvsim trace stats {path}`)")


def convert(
    result: Annotated[
        Path, typer.Argument(metavar="RESULT", help="JSON of `vllm bench serve --save-result --save-detailed`.")
    ],
    profile: Annotated[str, typer.Option("--profile", help="Hardware that it ran on (`kvsim list profiles`).")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="[default: RESULT, ending in .jsonl]")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model (`kvsim list models`). [default: that of the result]")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Engine argument, such as max_num_seqs=128. May be repeated."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run.")] = None,
    prefix_caching: Annotated[
        bool, typer.Option("--prefix-caching/--no-prefix-caching", help="What the server ran with.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Turn a benchmark result into a run that `kvsim validate RUN` reads (docs/validation.md)."""
    from calibration.bench_serve import convert as make
    from sim.engine_spec import EngineSpec

    tree = EngineSpec().model_dump(mode="json")
    given = [parse_setting(setting) for setting in settings or ()]
    for path, text in given:
        set_path(tree, path, text)
    engine = {key: tree[key] for key in dict.fromkeys(path.partition(".")[0] for path, _ in given)}
    validated(EngineSpec, engine, where="--set")
    target = out if out is not None else result.with_suffix(".jsonl")
    if target.suffix != ".jsonl":
        raise InputError("a run is a .jsonl file", path="--out", found=str(target))
    if target.exists():
        raise InputError("is already there; choose another --out", where=target)
    done = make(result, target, profile=profile, model=model, engine=engine, name=name, prefix_caching=prefix_caching)
    if as_json:
        _print.document({"path": str(target), **done._asdict()})
        return
    left = f", {done.left_out} that failed left out" if done.left_out else ""
    _print.line(f"{target} ({done.requests:,} requests{left}; `kvsim validate {target}`)")
