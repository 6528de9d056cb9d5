"""`kvsim place`: placements of a sequence's KV in HBM and host memory that are read at once, with their bounds."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated

import typer

from hw_profiles.errors import InputError
from kvsim.cli import _print
from kvsim.cli._options import AsJson
from kvsim.cli._progress import count_bar
from kvsim.cli.cache import read_policies

POLICIES = "host_only,static,proportional,least_recently_attended,attention_recency"


def place(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="Hardware (`kvsim list profiles`).")] = "gh200",
    policy: Annotated[
        str, typer.Option("--policy", metavar="P,...", help="Placements, or my_policy.py:MyPolicy.")
    ] = POLICIES,
    model: Annotated[str, typer.Option("--model", help="Whose pages: their bytes.")] = "llama-3.1-8b",
    importance: Annotated[
        str,
        typer.Option("--importance", metavar="SETTING|FILE", help="Which pages matter: a setting, or an .npz file."),
    ] = "recommended",
    context: Annotated[str, typer.Option("--context", metavar="TOKENS", help="Of the sequence.")] = "32000 tok",
    attended: Annotated[str, typer.Option("--attended", metavar="TOKENS", help="That a step attends to.")] = "1280 tok",
    hbm: Annotated[str, typer.Option("--hbm", metavar="TOKENS", help="That fit HBM.")] = "2560 tok",
    steps: Annotated[int, typer.Option("--steps", min=2, max=2000, help="Of decoding.")] = 200,
    layers: Annotated[int, typer.Option("--layers", min=1, max=64, help="Independent layers to look at.")] = 2,
    moves: Annotated[
        int, typer.Option("--moves", min=0, help="Tries of the annealing per layer; 0: no bound.")
    ] = 20_000,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Placements of KV in HBM and host memory, both read at once: time per step and layer, annealed bound, floor."""
    from hw_profiles.loader import load_profile
    from hw_profiles.models import load_model
    from sim.placement.study import MEANING, attended_pages, machine_of, recorded_pages, run_place
    from traces.importance.pages import PAGE_TOKENS, SETTINGS
    from traces.importance.recorded import Recorded

    loaded = load_profile(profile)
    spec = load_model(model)
    lengths = {
        name: _tokens(name, text, least)
        for name, text, least in (("--context", context, 1), ("--attended", attended, 1), ("--hbm", hbm, 0))
    }
    if importance in SETTINGS:
        page_tokens = PAGE_TOKENS
        pages, chosen = (-(-lengths[name] // page_tokens) for name in ("--context", "--attended"))
        found = attended_pages(pages, chosen, setting=importance, steps=steps, layers=layers, seed=seed)
        about = f"synthetic/{importance}"
    elif importance.endswith(".npz"):
        data = Recorded.load(Path(importance))
        page_tokens = data.page_tokens
        found = recorded_pages(data, -(-lengths["--attended"] // page_tokens))[:layers]
        pages, about = found[0].shape[1], data.name
    else:
        raise InputError("", where="--importance", found=importance, allowed=[*SETTINGS, "a file .npz"], near=SETTINGS)
    page_bytes = page_tokens * spec.kv_bytes_per_token / spec.layers
    machine = machine_of(loaded, page_bytes, pages, lengths["--hbm"] // page_tokens)
    with count_bar(not as_json, "placements") as progress:
        study = run_place(machine, found, read_policies(policy), about=about, moves=moves, progress=progress)
    if as_json:
        document = dataclasses.asdict(study)
        for row in document["rows"]:
            row.update({k: None for k, v in row.items() if isinstance(v, float) and math.isnan(v)})
        _print.document(document)
        return
    heads: list[str | _print.Column] = [
        "placement",
        *(_print.Column(name, right=True) for name in ("us", "gain", "in HBM", "moved")),
    ]
    _print.table(
        heads,
        [
            (r.policy, f"{1e6 * r.step_s:.2f}", f"{r.gain:.2f}", _share(r.hbm_share), _count(r.moved))
            for r in study.rows
        ],
        title=f"{profile}, {model}: {study.pages} pages of {page_tokens} tokens, {study.attended} attended, "
        f"{study.capacity} fit HBM; {about}",
    )
    _print.line(MEANING)
    _print.line(f"gain: over all of it in host memory, {study.limit:.1f} at most (the rates of both over that of one).")


def _tokens(option: str, text: str, least: int) -> int:
    from hw_profiles.units import parse_tokens

    try:
        found = parse_tokens(text)
    except InputError as error:
        raise error.at(where=option) from None
    if found < least:
        raise InputError("", where=option, found=text, allowed=f"{least} tok or more")
    return found


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def _count(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
