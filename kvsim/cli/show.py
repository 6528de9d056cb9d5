"""`kvsim show`: everything about one name, whatever kind of thing it is."""

from __future__ import annotations

from typing import Annotated

import typer

from hw_profiles.errors import InputError
from kvsim.cli import _print
from kvsim.cli._catalog import KINDS
from kvsim.cli._contracts import CONTRACTS
from kvsim.cli._options import AsJson
from kvsim.cli._sheets import READERS


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A name from `kvsim list`, a family of policies, a profile, a config.json."
        ),
    ],
    kind: Annotated[str | None, typer.Option("--kind", help=f"One of {', '.join(READERS)}.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show one policy, profile, device, model, trace or metric: every value with its source; or a family's contract."""
    if kind is not None and kind not in READERS:
        raise InputError("unknown kind", where="--kind", found=kind, allowed=READERS, near=READERS)
    for key in READERS if kind is None else (kind,):
        sheet = READERS[key](name)
        if sheet is None:
            continue
        if as_json:
            _print.document({"kind": key, **sheet.data})
            return
        _print.line(sheet.text)
        if sheet.rows:
            _print.table(sheet.columns, sheet.rows)
        return
    names = [entry.name for key in KINDS if kind in (None, key) for entry in KINDS[key].entries()]
    names += [family for family in CONTRACTS if kind in (None, "contracts")]
    raise InputError("nothing of that name", found=name, allowed="a name from `kvsim list KIND`", near=names)
