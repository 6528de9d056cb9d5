"""Figures of a report as PNG files. Kaleido draws them with a Chrome or Chromium; both are optional (`kvsim[png]`)."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from reports.kinds import kind_of
from reports.notebook import drawn

ALL = "all"
WIDTH, HEIGHT, SCALE = 900, 480, 2
"""Pixels of a picture before scaling, for figures that do not say their height."""


def write_pictures(folder: Path, names: Sequence[str], out: Path | None = None) -> list[Path]:
    """Write figures of the report of `folder` as <name>.png to `out` (default: a folder <name of folder>-figures).

    names: anchors of figures in the page, or "all". Raises InputError, one line: for a folder that cannot be read, a
    name that there is not, and without Kaleido or a browser.
    """
    kind = kind_of(folder)
    figures = drawn(kind.sections(kind.read(folder)))
    for name in names:
        if name != ALL and name not in figures:
            raise InputError("no such figure", where="--png", found=name, allowed=[*figures, ALL], near=figures)
    if find_spec("kaleido") is None:
        text = "pictures need Kaleido and a Chrome or Chromium: pip install 'kvsim[png]'"
        raise InputError(text, where="--png", found=", ".join(names))
    chosen = [name for name in figures if name in names or (ALL in names and figures[name].data)]
    target = out if out is not None else folder.parent / f"{folder.resolve().name}-figures"
    written = []
    for name in chosen:
        figure = figures[name]
        try:
            picture = figure.to_image(format="png", width=WIDTH, height=figure.layout.height or HEIGHT, scale=SCALE)
        except Exception as error:  # noqa: BLE001 -- whatever ends a browser
            said = " ".join(str(error).split())[:160]
            raise InputError(f"Kaleido could not draw it ({said})", where="--png", found=name) from None
        write_atomic(target / f"{name}.png", picture)
        written.append(target / f"{name}.png")
    return written
