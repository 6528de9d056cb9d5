"""The one exception for wrong user input, printed as a single line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

MAX_LISTED = 12  # more alternatives than this do not help on one line


def nearest(name: str, options: Iterable[str]) -> str | None:
    """Return the option most like `name` (case ignored), or None when nothing is close."""
    by_lower = {option.lower(): option for option in options}
    hits = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[hits[0]] if hits else None


class InputError(ValueError):
    """The user's input is wrong: the command line prints `str(error)` (always one line) and exits with 2.

    It is a ValueError so that pydantic validators may raise it and still report the field.

    message: what is wrong ("unknown key"); may be empty when `found` and `allowed` say it all.
    where: file (or other source) the input came from. path: dotted path inside it.
    found: the offending value. allowed: what is accepted, as a phrase or as the list of names.
    near: names among which the one nearest to `found` is suggested.
    """

    def __init__(
        self,
        message: str,
        *,
        where: str | Path | None = None,
        path: str | None = None,
        found: object = None,
        allowed: Iterable[str] | str | None = None,
        near: Iterable[str] | None = None,
    ) -> None:
        self.message = message
        self.where = None if where is None else str(where)
        self.path = path
        self.found = found
        self.allowed = allowed if allowed is None or isinstance(allowed, str) else tuple(allowed)
        self.near = None if near is None else tuple(near)
        super().__init__(self._text())

    def at(self, *, where: str | Path | None = None, path: str | None = None) -> InputError:
        """The same error with its place filled in: `where` if it had none, `path` before its own path."""
        joined = ".".join(part for part in (path, self.path) if part)
        return InputError(
            self.message,
            where=self.where if self.where is not None else where,
            path=joined or None,
            found=self.found,
            allowed=self.allowed,
            near=self.near,
        )

    def _text(self) -> str:
        parts = [self.message] if self.message else []
        if self.found is not None:
            parts.append(f"found {_show(self.found)}")
        if self.allowed is not None:
            parts.append(f"expected {_one_of(self.allowed)}")
        text = ", ".join(parts)
        guess = nearest(str(self.found), self.near) if self.near and self.found is not None else None
        if guess is not None and guess != self.found:
            text += f"; did you mean {guess!r}?"
        place = [part for part in (self.where, self.path) if part]
        return " ".join(": ".join([*place, text]).split())


def _show(found: object) -> str:
    text = repr(found)
    return text if len(text) <= 80 else text[:77] + "..."


def _one_of(allowed: str | tuple[str, ...]) -> str:
    if isinstance(allowed, str):
        return allowed
    listed = ", ".join(allowed[:MAX_LISTED])
    more = f" and {len(allowed) - MAX_LISTED} more" if len(allowed) > MAX_LISTED else ""
    return f"{'one of ' if len(allowed) > 1 else ''}{listed}{more}"
