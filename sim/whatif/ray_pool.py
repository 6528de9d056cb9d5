"""Many runs on a Ray cluster: the same contract as `sim.whatif.pool`, on other machines. Ray is imported here alone.

Scenarios travel with the files that they name (`sim.whatif.bundle`), once to each worker. Rows come back here and are
written here, so that a lost worker, or a lost cluster, loses the runs in flight alone.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from hw_profiles.errors import InputError
from sim.config_hash import installed_version
from sim.whatif.bundle import MODULES, TRACES, Bundle, arrived, pack, travelling
from sim.whatif.runs import Job

Answer = TypeVar("Answer")

LOST = "the Ray worker that ran it was lost, and so was the one that ran it again (out of memory?)"
AHEAD = 2
"""Tasks in flight for each worker: the next one waits on its machine when one ends."""
CONNECT_S = 10.0
STORE_BYTES = 256 * 2**20
"""Object store of a cluster that is started here; it holds the bundle."""


def run_on_ray(
    work: Callable[[Job], Answer],
    jobs: Sequence[Job],
    *,
    address: str | None,
    workers: int | None,
    lost: Callable[[Job, str], Answer],
    done: Callable[[int, Answer], None],
) -> list[Answer]:
    """`work(job)` of every job, in their order, on the cluster at `address`, or on `workers` processes of this machine.

    A job whose worker is lost runs again once; then its answer is `lost(job, why)`. Raises InputError without Ray, or
    where the cluster cannot be reached, goes away, or has another version of kvsim.
    """
    if not jobs:
        return []
    bundle, sent = pack(jobs), [travelling(job) for job in jobs]
    answers: dict[int, Answer] = {}
    with cluster(address, workers, room=sum(map(len, bundle.files.values()))) as ray:
        try:
            for index, answer in _answers(ray, work, sent, bundle, lost):
                answers[index] = answer
                done(index, answer)
        except (ray.exceptions.RaySystemError, ConnectionError) as error:
            text = f"the Ray cluster went away after {len(answers)} of {len(jobs)} runs, which are kept: {_line(error)}"
            raise InputError(f"{text}; go on with --resume", where="--executor ray") from None
    return [answers[index] for index in range(len(jobs))]


def _answers(
    ray: Any, work: Callable[[Job], Answer], jobs: Sequence[Job], bundle: Bundle, lost: Callable[[Job, str], Answer]
) -> Iterator[tuple[int, Answer]]:
    """(index, answer) as they come."""
    task = ray.remote(num_cpus=1, max_retries=0)(_at_worker)
    packed = [ray.put(bundle)]  # in a list it stays a reference, which a worker follows once
    sha, version = bundle.sha256, installed_version()
    most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = [(index, 1) for index in reversed(range(len(jobs)))]
    running: dict[Any, tuple[int, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < most:
                index, attempt = waiting.pop()
                running[task.remote(work, jobs[index], packed, sha, version)] = (index, attempt)
            for reference in ray.wait(list(running), num_returns=1)[0]:
                index, attempt = running.pop(reference)
                try:
                    yield index, ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise _cause(error) from None
                except ray.exceptions.RaySystemError:
                    raise
                except ray.exceptions.RayError:  # its process, its machine, or what it needed was lost
                    if attempt == 1:
                        waiting.append((index, 2))
                    else:
                        yield index, lost(jobs[index], LOST)
    finally:
        for reference in running:
            with suppress(Exception):
                ray.cancel(reference, force=True)


def _at_worker(work: Callable[[Job], Answer], job: Job, packed: list[Any], sha256: str, version: str) -> Answer:
    """In a worker: unpack what came along, if that has not been done, and work."""
    here = installed_version()
    if here != version:
        text = f"a Ray worker has kvsim {here}, this machine {version}: install the same version there"
        raise InputError(text, where="--executor ray")
    return work(arrived(job, _unpacked(_Reference(sha256, packed[0]))))


class _Reference:
    """A reference to a bundle that is known by the hash of its content."""

    def __init__(self, sha256: str, reference: Any) -> None:
        self.sha256 = sha256
        self.reference = reference

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reference) and other.sha256 == self.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)


@lru_cache(maxsize=1)
def _unpacked(reference: _Reference) -> Path:
    """The folder of this process with the files of a bundle; they go with the process."""
    import atexit

    import ray

    folder = tempfile.TemporaryDirectory(prefix="kvsim-")
    atexit.register(folder.cleanup)
    root = Path(folder.name)
    ray.get(reference.reference).unpack(root)
    if (root / TRACES).is_dir():
        os.environ["KVSIM_TRACES"] = str(root / TRACES)
    sys.path.insert(0, str(root / MODULES))
    return root


@contextmanager
def cluster(address: str | None, workers: int | None, *, room: int = 0) -> Iterator[Any]:
    """Ray, connected, unless this process is already; what was started here is stopped. `room`: bytes of bundles."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        text = "Ray is not installed here; `pip install 'kvsim[ray]'`, or run without --executor"
        raise InputError(text, where="--executor", found="ray") from None
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        store = STORE_BYTES + 2 * room
        settings |= {"address": "local", "num_cpus": workers, "include_dashboard": False, "object_store_memory": store}
    else:
        settings["address"] = address
    ours = not ray.is_initialized()
    try:
        if ours and address is not None:
            _knock(address)
        if ours:
            ray.init(**settings)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 -- Ray raises what its transport raises
        raise InputError(f"no Ray cluster: {_line(error)}", where="--address", found=address or "local") from None
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise InputError if nobody listens at host:port: Ray itself tries for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # "auto", or what Ray makes of it
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster: {_line(error)}", where="--address", found=address) from None


def _cause(error: Any) -> Exception:
    """What a worker raised; without kvsim there, that."""
    cause: Exception = error.cause if isinstance(getattr(error, "cause", None), Exception) else error
    if isinstance(cause, ModuleNotFoundError):
        return InputError(
            f"the Ray workers cannot import kvsim ({cause}): install this version there", where="--executor ray"
        )
    return cause


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
