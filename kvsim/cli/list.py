"""`kvsim list`: what there is, one line each."""

from __future__ import annotations

from typing import Annotated

import typer

from hw_profiles.errors import InputError
from kvsim.cli import _print
from kvsim.cli._catalog import KINDS
from kvsim.cli._options import AsJson


def list_names(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help=f"One of {', '.join(KINDS)}.")] = None,
    as_json: AsJson = False,
) -> None:
    """List policies, profiles, devices, models, traces or metrics, one line each."""
    if kind is None:
        _list_kinds(as_json)
        return
    if kind not in KINDS:
        raise InputError("nothing to list", where="kvsim list", found=kind, allowed=KINDS, near=KINDS)
    group = KINDS[kind].group
    entries = KINDS[kind].entries()
    if as_json:
        _print.document([{"name": e.name, group: e.group, "what": e.what, "source": e.source} for e in entries])
        return
    source = "definition" if kind == "metrics" else "source"
    _print.table(["name", group, _print.Column("what", fold=True), _print.Column(source, fold=True)], entries)


def _list_kinds(as_json: bool) -> None:
    if as_json:
        _print.document([{"name": name, "what": kind.what} for name, kind in KINDS.items()])
        return
    _print.table(["kind", "what"], [(name, kind.what) for name, kind in KINDS.items()])
    _print.line("`kvsim list KIND` lists one, `kvsim show NAME` shows everything about one name.")
