"""The trace formats: one row each, and how the format of a file is told from its first line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hw_profiles.errors import InputError
from traces import agentic, azure, burstgpt, llmservingsim, lmcache_agent, mooncake, servegen, vidur
from traces.lines import Lines, json_object, short
from traces.request import Trace
from traces.table import split


@dataclass(frozen=True)
class Reader:
    """One format: `read(path, strict=, name=)`, the `ending` of its files (.gz may follow), and the `keys` that the
    first line must have (of its JSON object, or as columns of the header)."""

    read: Callable[..., Trace]
    ending: str
    keys: tuple[str, ...]


# no row's keys contain another row's of the same ending: a file fits at most one, unless it mixes formats
READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "mooncake": Reader(mooncake.read_mooncake, ".jsonl", mooncake.KEYS),
        "agentic": Reader(agentic.read_agentic, ".jsonl", agentic.KEYS),
        "lmcache-agent": Reader(lmcache_agent.read_lmcache_agent, ".jsonl", lmcache_agent.KEYS),
        "llmservingsim": Reader(llmservingsim.read_llmservingsim, ".jsonl", llmservingsim.KEYS),
        "azure": Reader(azure.read_azure, ".csv", azure.KEYS),
        "burstgpt": Reader(burstgpt.read_burstgpt, ".csv", burstgpt.KEYS),
        "servegen": Reader(servegen.read_servegen, ".csv", servegen.KEYS),
        "vidur": Reader(vidur.read_vidur, ".csv", vidur.KEYS),
    }
)


def endings() -> tuple[str, ...]:
    """What the name of a trace file may end in."""
    plain = dict.fromkeys(reader.ending for reader in READERS.values())
    return tuple(ending + packed for ending in plain for packed in ("", ".gz"))


def format_of(path: Path) -> str:
    """The format of the file at `path`: among those of its ending, the one whose keys its first line has.

    Raises InputError for another ending, and for a first line that fits no format, with the formats it could be.
    """
    ending = next((ending for ending in endings() if path.name.endswith(ending)), None)
    if ending is None:
        raise InputError("unknown trace format", where=path, allowed=f"a name in {' or '.join(endings())}")
    with closing(iter(Lines(path))) as lines:
        number, line = next(lines)
    where = f"{path}:{number}"
    found = tuple(json_object(line, where)) if ending.startswith(".jsonl") else tuple(split(line, where))
    could_be = {name: reader for name, reader in READERS.items() if ending.startswith(reader.ending)}
    fits = [name for name, reader in could_be.items() if set(reader.keys) <= set(found)]
    if len(fits) == 1:
        return fits[0]
    shapes = "; ".join(f"{name} ({', '.join(reader.keys)})" for name, reader in could_be.items())
    if fits:
        text = f"the first line fits several formats ({', '.join(fits)}), expected one of {shapes}"
        raise InputError(text, where=where)
    near = max(could_be, key=lambda name: len(set(could_be[name].keys) & set(found)) / len(could_be[name].keys))
    missing = [key for key in could_be[near].keys if key not in found]
    guess = f"; nearest is {near}, which needs {', '.join(missing)}" if len(missing) < len(could_be[near].keys) else ""
    what = "keys" if ending.startswith(".jsonl") else "columns"
    text = f"the first line fits no trace format: found {what} {short(', '.join(found))}, expected those of {shapes}"
    raise InputError(text + guess, where=where)
