"""What must hold at the end of every run; a broken one is our bug (exit code 3)."""

from __future__ import annotations


class InvariantError(Exception):
    """The simulator broke one of its own rules. The run's numbers must not be used."""


def ensure(condition: bool, message: str) -> None:
    """Raise InvariantError with `message` unless `condition` holds."""
    if not condition:
        raise InvariantError(message)
