"""`kvsim calibrate record-importance`: page scores of a model while it decodes, for `importance: {name: recorded}`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hw_profiles.errors import InputError
from kvsim.cli import _print
from kvsim.cli._options import AsJson


def record_importance(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A Hugging Face model (needs transformers), or tiny: random weights.")
    ],
    prompt: Annotated[Path, typer.Option("--prompt", metavar="FILE", help="The text to go on from.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the scores go.")] = Path("importance.npz"),
    steps: Annotated[int, typer.Option("--steps", help="Tokens to decode, greedily.")] = 200,
    page_tokens: Annotated[int, typer.Option("--page-tokens", help="Tokens of a page; 1 records every token.")] = 16,
    as_json: AsJson = False,
) -> None:
    """Record which pages of a text a model attends to while it decodes (docs/importance.md)."""
    from calibration.record_importance import load_model, record
    from traces.importance.recorded import Recorded

    try:
        text = prompt.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as text: {error}", where=prompt) from None
    loaded, tokens = load_model(model, text)
    record(loaded, tokens, out, name=model, source=f"{prompt.name}, greedy", steps=steps, page_tokens=page_tokens)
    recorded = Recorded.load(out)
    if as_json:
        _print.document({"path": str(out), "about": recorded.about, "metadata": dict(recorded.metadata)})
        return
    _print.line(recorded.about)
    _print.line(f"importance: {{name: recorded, path: {out}}}")
