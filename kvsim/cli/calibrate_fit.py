"""`kvsim calibrate fit`: a profile from the raw samples of `kvsim calibrate run`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from kvsim.cli import _print
from kvsim.cli._options import AsJson

if TYPE_CHECKING:
    from calibration.suite.fit import Fitted


def fit(
    samples: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run, or its samples.jsonl[.gz].")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The profile; profile.yaml beside the samples if not given."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What the profile is called; the device's name by default.")
    ] = None,
    resamples: Annotated[
        int, typer.Option("--resamples", metavar="N", min=0, help="Refits behind each 90 % interval; 0: none.")
    ] = 40,
    as_json: AsJson = False,
) -> None:
    """Fit a profile to measured samples. Exit code 1 (and a profile all the same) if a held-out target is missed."""
    from calibration.suite.preflight import require

    require("scipy")
    from calibration.suite.fit import fit_samples
    from calibration.suite.profile_out import profile_text, raw_sha256
    from calibration.suite.samples import read_samples
    from hw_profiles.files import write_atomic
    from hw_profiles.loader import load_profile

    found = read_samples(samples)
    fitted = fit_samples(found, resamples)
    path = out or found.path.parent / "profile.yaml"
    called = name or _slug(str(found.env["device"]["name"]))
    text = profile_text(fitted, called, raw_sha256(found.path.read_bytes()))
    with TemporaryDirectory() as folder:  # what is written can be read
        draft = Path(folder) / path.name
        draft.write_text(text, encoding="utf-8")
        load_profile(draft)
    write_atomic(path, text)
    if as_json:
        _print.document(_document(fitted, path, called))
    else:
        _show(fitted, path)
    if fitted.missed:
        raise typer.Exit(1)


def _slug(device: str) -> str:
    words = "".join(c if c.isalnum() else "-" for c in device.lower())
    return "-".join(word for word in words.split("-") if word) or "measured"


def _document(fitted: Fitted, path: Path, name: str) -> dict[str, object]:
    missed = {held.what for held in fitted.missed}
    return {
        "profile": str(path),
        "name": name,
        "device": fitted.samples.env["device"]["name"],
        "drift": fitted.drift,
        "spread": fitted.readings.spread,
        "heldout": [
            {
                "what": held.what,
                "mape": held.score.mape,
                "p90": held.score.p90,
                "max": held.score.max,
                "bias": held.score.bias,
                "n": held.score.n,
                "target": held.target,
                "limit": fitted.limit(held),
                "missed": held.what in missed,
            }
            for held in fitted.part.heldout
        ],
        "results": fitted.part.extras,
    }


def _limit(target: float | None, limit: float | None) -> str:
    """What the mean error may be: the target, or more where passes differ by more."""
    if target is None or limit is None:
        return ""
    return f"{target:.0%}" if limit == target else f"{limit:.0%} ({target:.0%})"


def _show(fitted: Fitted, path: Path) -> None:
    missed = {held.what for held in fitted.missed}
    titles = ("n", "mean error", "p90", "largest", "bias", "target")
    columns: list[str | _print.Column] = ["held out", *(_print.Column(title, right=True) for title in titles), ""]
    rows = [
        (
            held.what,
            str(held.score.n),
            *(f"{getattr(held.score, name):.1%}" for name in ("mape", "p90", "max")),
            f"{held.score.bias:+.1%}",
            _limit(held.target, fitted.limit(held)),
            "missed" if held.what in missed else "",
        )
        for held in fitted.part.heldout
    ]
    _print.table(columns, rows)
    device, spread = fitted.samples.env["device"]["name"], fitted.readings.spread
    _print.line(f"{device}: {len(fitted.readings.all)} points, {spread:.1%} between passes, drift {fitted.drift:.1%}")
    if any(held.target != fitted.limit(held) for held in fitted.part.heldout):
        _print.line("targets: twice what the passes differ by, where that is more than the target itself (in brackets)")
    if fitted.readings.refused:
        _print.note(
            f"warning: {fitted.readings.refused} points were faster than the hardware can be, and were left out"
        )
    if fitted.drift > 0.02:
        _print.note(f"warning: the anchors drifted by {fitted.drift:.1%} while it was measured")
    if not fitted.samples.complete:
        _print.note("warning: the run did not finish; what it measured was fitted")
    if missed:
        _print.note(f"warning: {len(missed)} held-out targets are missed: the profile says so, too")
    _print.line(f"profile: {path}; next: kvsim run SCENARIO --set hardware.profile={path}")
