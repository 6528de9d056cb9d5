"""Copies of this process that each do one thing with all that it has in memory, and hand back the answer."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from hw_profiles.errors import InputError
from sim.invariants import InvariantError

Answer = TypeVar("Answer")


def in_children(work: Sequence[Callable[[], Answer]], at_once: int = 1) -> list[Answer]:
    """What each of `work` returns when a copy of this process calls it, at most `at_once` of them at a time.

    Memory is shared until one writes to it. Answers must be picklable; this process is not changed by the calls.
    Raises InputError where there is no fork (Windows), or what the call raised: InputError as it was, else
    InvariantError with its text; InputError also if the copy was killed.
    """
    if not hasattr(os, "fork"):
        raise InputError("this system cannot copy a process: not available here", found=sys.platform)
    answers: dict[int, Answer] = {}
    running: dict[int, int] = {}
    with tempfile.TemporaryDirectory(prefix="kvsim-") as folder:
        files = [Path(folder) / str(number) for number in range(len(work))]
        gc.freeze()
        try:
            for number, call in enumerate(work):
                while len(running) >= at_once:
                    _collect(running, files, answers)
                running[_start(call, files[number])] = number
            while running:
                _collect(running, files, answers)
        finally:
            gc.unfreeze()
            for pid in running:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
    return [answers[number] for number in range(len(work))]


def _start(call: Callable[[], Answer], file: Path) -> int:
    """The id of a copy that writes what `call` returns to `file`."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of threads: those of libraries, which hold nothing of ours
        pid = os.fork()
    if pid:
        return pid
    try:
        try:
            said = ("answer", call())
        except InputError as error:
            said = ("wrong", error)  # type: ignore[assignment]
        except BaseException:  # noqa: BLE001  (whatever it was is told by the process that waits)
            said = ("broken", traceback.format_exc())  # type: ignore[assignment]
        file.write_bytes(pickle.dumps(said))
    finally:
        os._exit(0)  # nothing of the process that it is a copy of may be ended twice


def _collect(running: dict[int, int], files: Sequence[Path], answers: dict[int, Answer]) -> None:
    """Wait for one of the copies, and take its answer."""
    pid = next(iter(running))
    os.waitpid(pid, 0)
    number = running.pop(pid)
    if not files[number].exists():
        raise InputError("the process that ran it was killed (out of memory?)")
    how, said = pickle.loads(files[number].read_bytes())
    if how == "wrong":
        raise said
    if how == "broken":
        raise InvariantError(said)
    answers[number] = said
