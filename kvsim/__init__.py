"""kvsim: simulate the KV-cache memory hierarchy of an LLM serving system.

    import kvsim

    result = kvsim.load("scenario.yaml").set("tiers.dram.capacity", "1 TiB").run()
    print(result.summary["ttft_ms"]["p99"])
    result.save("out/one-tib")

The names below are the public ones; they load on first use, so `import kvsim` itself costs nothing.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from kvsim._version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from sim.run import Result
    from sim.scenario import Scenario

__all__ = ["Result", "Scenario", "__version__", "load"]

_HOMES: Mapping[str, str] = MappingProxyType({"Scenario": "sim.scenario", "Result": "sim.run"})


def load(path: "str | Path") -> "Scenario":
    """Read the scenario file at `path`.

    Raises hw_profiles.errors.InputError (one line: file, path in it, found, allowed) when it is wrong.
    """
    from kvsim import _own

    found: Scenario = _own.module("sim.scenario").Scenario.load(path)
    return found


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'kvsim' has no attribute {name!r}")
    from kvsim import _own

    return getattr(_own.module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
