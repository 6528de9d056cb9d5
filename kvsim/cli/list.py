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
    tree: Annotated[bool, typer.Option("--tree", help="Policies and systems by what they do.")] = False,
) -> None:
    """List policies, systems, profiles, devices, models, traces or metrics, one line each."""
    if tree:
        _list_tree(kind, as_json)
        return
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


def _list_tree(kind: str | None, as_json: bool) -> None:
    from policies.systems import SYSTEMS
    from policies.tables import FLEET, NAMED
    from policies.taxonomy import TREE

    if kind not in (None, "policies", "systems"):
        raise InputError("only policies and systems make a tree", where="kvsim list", found=kind)
    if as_json:
        _print.document({branch: {leaf: [*names] for leaf, names in leaves.items()} for branch, leaves in TREE.items()})
        return
    rows = []
    for branch, leaves in TREE.items():
        for i, (leaf, names) in enumerate(leaves.items()):
            for j, name in enumerate(names or ("(none in this version)",)):
                what = SYSTEMS[name].about if name in SYSTEMS else ", ".join(NAMED.get(name, ()))
                if name in FLEET:
                    what = str(FLEET[name].__doc__).partition("\n")[0]
                rows.append(("" if i or j else branch, "" if j else leaf, name, what))
    _print.table(["branch", "leaf", "name", _print.Column("what", fold=True)], rows)
    _print.line("`kvsim show NAME`: mechanism, bytes and options of each. They are combined under `policies`.")


def _list_kinds(as_json: bool) -> None:
    if as_json:
        _print.document([{"name": name, "what": kind.what} for name, kind in KINDS.items()])
        return
    _print.table(["kind", "what"], [(name, kind.what) for name, kind in KINDS.items()])
    _print.line("`kvsim list KIND` lists one, `kvsim show NAME` shows everything about one name.")
