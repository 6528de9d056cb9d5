"""What a user's policy raised, in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hw_profiles.errors import InputError
from policies.guard import place_of


def policy_failure(error: Exception, now: float, where: str) -> InputError | None:
    """`error` as one line, if it was raised inside a user's policy file; else None (it is ours)."""
    place = place_of(error.__traceback__)
    if place is None:
        return None
    return InputError(f"a policy failed at {now:.6g} s: {type(error).__name__}: {error} ({place})", where=where)


def at_time(error: InputError, now: float, where: str) -> InputError:
    """What a policy did wrong, with when; an option that makes no sense, which names its path, with where alone."""
    if error.path is not None:
        return error.at(where=where)
    return InputError(f"{error.message}, at {now:.6g} s", where=where)


@contextmanager
def failures_named(now: Callable[[], float], where: str) -> Iterator[None]:
    """Turn what a user's policy raises or breaks into an InputError with the time `now()`, s; pass on all else."""
    try:
        yield
    except InputError as error:
        raise at_time(error, now(), where) from None
    except Exception as error:
        failure = policy_failure(error, now(), where)
        if failure is None:
            raise
        raise failure from None
