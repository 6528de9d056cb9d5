"""Options that several verbs share, and the two readers that options need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from hw_profiles.errors import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from reports.timeline import Timeline as Drawn

Spec = TypeVar("Spec", bound="BaseModel")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, messages on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no tables.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change the scenario: tiers.dram.capacity=1TiB. Repeatable."),
]
Vary = Annotated[
    list[str] | None,
    typer.Option(
        "--vary", metavar="PATH=V,V", help="Values to try: policies.eviction=lru,s3fifo. Repeatable: all pairs."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", help="Processes. [default: $KVSIM_WORKERS, else one for each core]"),
]
Timeline = Annotated[
    bool, typer.Option("--timeline", help="Also write timeline.json, which opens in Perfetto (ui.perfetto.dev).")
]
TimelineRequests = Annotated[
    int | None,
    typer.Option("--timeline-requests", metavar="N", min=1, help="First requests in the timeline. [default: 1000]"),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse a trace that needs a warning.")]


def parse_setting(text: str) -> tuple[str, str]:
    """Split "a.b=value". Raises InputError."""
    path, equals, value = (part.strip() for part in text.partition("="))
    if not (path and equals and value):
        raise InputError("", where="--set", found=text, allowed="PATH=VALUE, such as tiers.dram.capacity=1TiB")
    return path, value


def set_path(tree: dict[str, Any], path: str, text: str) -> None:
    """Set the entry at the dotted `path` of nested mappings to `text`, read as YAML.

    The entry must be there already: raises InputError with the nearest name.
    """
    import yaml

    *parents, last = path.split(".")
    node: Any = tree
    for key in [*parents, last]:
        if not isinstance(node, dict) or key not in node:
            names = list(node) if isinstance(node, dict) else []
            raise InputError("no such setting", where="--set", path=path, found=key, allowed=names, near=names)
        parent, node = node, node[key]
    try:
        parent[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError("not a YAML value", where="--set", path=path, found=text) from None


def validated(model: type[Spec], data: Mapping[str, Any], where: str | Path | None) -> Spec:
    """Make a `model` of `data`; the first thing wrong with it becomes an InputError."""
    from pydantic import ValidationError

    from sim.spec_errors import as_input_error

    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise as_input_error(error, data, model).at(where=where) from None


def draw_timeline(run_dir: Path, out: Path | None, requests: int | None, since: float = 0.0) -> Drawn:
    """Write the timeline of a run into `out`, or beside its tables; from `since` (s) on."""
    from reports.timeline import REQUESTS, write_timeline

    return write_timeline(run_dir, out, requests=requests or REQUESTS, since=since)
