"""What a user's policy raised, in one line."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hw_profiles.errors import InputError
from policies.build import is_user_policy


def policy_failure(error: Exception, now: float, where: str) -> InputError | None:
    """`error` as one line, if it was raised inside a user's policy file; else None (it is ours)."""
    inside = [f for f, _ in traceback.walk_tb(error.__traceback__) if is_user_policy(f.f_globals.get("__name__", ""))]
    if not inside:
        return None
    frame = inside[-1]
    place = f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}, in {frame.f_code.co_qualname}"
    return InputError(f"a policy failed at {now:.6g} s: {type(error).__name__}: {error} ({place})", where=where)


@contextmanager
def failures_named(now: Callable[[], float], where: str) -> Iterator[None]:
    """Turn what a user's policy raises inside into an InputError with the time `now()`, s; pass on everything else."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        failure = policy_failure(error, now(), where)
        if failure is None:
            raise
        raise failure from None
