"""Many runs on the cores of this machine: a pool of processes, results in the order of the jobs."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import TypeVar

from hw_profiles.errors import InputError

Job = TypeVar("Job")
Answer = TypeVar("Answer")
Key = TypeVar("Key")

WORKERS = "KVSIM_WORKERS"
"""Environment variable with the number of processes; unset: one for each core that this process may use."""
LOST = "the process that ran it was killed (out of memory?)"


def worker_count(asked: int | None = None) -> int:
    """How many processes to use: what was asked for, else what the environment says, else the cores there are."""
    if asked is not None:
        if asked < 1:
            raise InputError("", where="--workers", found=asked, allowed="a whole number >= 1")
        return asked
    text = os.environ.get(WORKERS)
    if text:
        if not text.isdecimal() or not int(text):
            raise InputError("", where=WORKERS, found=text, allowed="a whole number >= 1")
        return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    work: Callable[[Job], Answer],
    jobs: Sequence[Job],
    *,
    workers: int,
    lost: Callable[[Job, str], Answer] | None = None,
    done: Callable[[int, Answer], None] | None = None,
) -> list[Answer]:
    """`work(job)` of every job, in the order of `jobs`, on at most `workers` processes; with one, in this process.

    work    a function of a module, and what it takes and returns can be pickled
    lost    the answer for a job whose process died; without it that is an InputError
    done    called here with (index, answer) as each one ends, in the order in which they end
    What `work` raises ends the call, and no process outlives it; Ctrl-C as well.
    """
    answers: dict[int, Answer] = {}
    for index, answer in _answers(work, jobs, min(workers, len(jobs)), lost):
        answers[index] = answer
        if done is not None:
            done(index, answer)
    return [answers[index] for index in range(len(jobs))]


def run_apart(work: Callable[[Job], Answer], job: Job) -> Answer:
    """`work(job)` in a process of its own, which begins with nothing of this one's. Raises InputError if it dies."""
    for _, answer in _pooled(work, [job], [0], 1):
        return answer
    raise InputError(LOST)


def run_as_asked(
    work: Callable[[Job], Answer],
    ask: Callable[[set[Key]], Sequence[tuple[Key, Job]]],
    *,
    workers: int,
    done: Callable[[Key, Answer], None],
) -> None:
    """`work` on jobs that depend on the answers of others, on at most `workers` processes; with one, in this process.

    ask    given the keys of jobs that are under way, (key, job) of further ones, the most wanted first; StopIteration
           when all is known, and what is still under way is given up
    done   called with (key, answer) as each one ends
    Raises InputError when a process dies; no process outlives the call.
    """
    if workers <= 1:
        with suppress(StopIteration):
            while True:
                key, job = ask(set())[0]
                done(key, work(job))
        return
    with _pool(workers) as pool, suppress(StopIteration):
        running: dict[Future[Answer], Key] = {}
        try:
            while True:
                for key, job in ask(set(running.values()))[: workers - len(running)]:
                    running[pool.submit(work, job)] = key
                for future in _first(running):
                    done(running.pop(future), future.result())
        except BrokenProcessPool:
            raise InputError(LOST) from None


def _answers(
    work: Callable[[Job], Answer], jobs: Sequence[Job], workers: int, lost: Callable[[Job, str], Answer] | None
) -> Iterator[tuple[int, Answer]]:
    if workers <= 1:
        for index, job in enumerate(jobs):
            yield index, work(job)
        return
    left = list(range(len(jobs)))
    for index, answer in _pooled(work, jobs, tuple(left), workers):
        left.remove(index)
        yield index, answer
    # A process died, and the pool with it. One by one, the job that kills its process is known.
    for index in list(left):
        found = list(_pooled(work, jobs, [index], 1))
        if found:
            yield found[0]
        elif lost is not None:
            yield index, lost(jobs[index], LOST)
        else:
            raise InputError(LOST, where=f"run {index + 1} of {len(jobs)}")


def _pooled(
    work: Callable[[Job], Answer], jobs: Sequence[Job], indices: Sequence[int], workers: int
) -> Iterator[tuple[int, Answer]]:
    """(index, answer) of the jobs as they end; stops early, without an error, when a process dies."""
    with _pool(workers) as pool, suppress(BrokenProcessPool):
        waiting = iter(indices)
        running: dict[Future[Answer], int] = {}
        while True:
            for index in waiting:
                running[pool.submit(work, jobs[index])] = index
                if len(running) >= workers + 1:  # one more is ready, so that no process waits for this one
                    break
            if not running:
                break
            for future in _first(running):
                yield running.pop(future), future.result()


def _first(running: Collection[Future[Answer]]) -> set[Future[Answer]]:
    """Those that have ended, one at least.

    It wakes now and then: Ctrl-C may have reached a thread of the pool, and this one would sleep on.
    """
    while not (ended := wait(running, timeout=0.5, return_when=FIRST_COMPLETED).done):
        pass
    return ended


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that ends with the block, work that is under way with it."""
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # not fork: libraries of this process hold threads
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(_folders(),))
    try:
        yield pool
    finally:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _folders() -> dict[str, list[str]]:
    """Where this process finds the modules of our packages: beside their sources, or compiled."""
    ours = ("hw_profiles", "policies", "sim")
    packages = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ours}
    return {name: list(module.__path__) for name, module in packages.items() if hasattr(module, "__path__")}


def _begin(folders: dict[str, list[str]]) -> None:
    """In a worker, before any of our larger modules is imported: take them from where the one that started it does.

    Ctrl-C ends it without a word, the one that started it speaks; and it ends when that one does.
    """
    for name, places in folders.items():
        importlib.import_module(name).__path__ = places
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """End this process when the one that started it has, however that came: it could be killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
