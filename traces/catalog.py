"""Traces known by name: what they are, where they come from, where they lie on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from hw_profiles.errors import InputError
from traces.readers import READERS, endings, format_of
from traces.request import Trace


@dataclass(frozen=True)
class CatalogEntry:
    """One named trace.

    `format`: a row of READERS. `relative`: path below $KVSIM_TRACES and below the cache folder. `url`: the public
    file, None if there is none. `sha256`: of the uncompressed content. `ships`: a sample of the package itself
    (then `relative` is below traces/samples).
    """

    name: str
    format: str
    relative: str
    url: str | None
    sha256: str
    licence: str
    description: str
    ships: bool = False

    @property
    def home(self) -> str:
        """Where the trace comes from, in a few words."""
        return "ships with kvsim" if self.ships else self.url or "no public address known"


_ENTRIES = (
    CatalogEntry(
        name="mooncake-conversation",
        format="mooncake",
        relative="mooncake/conversation_trace.jsonl.gz",
        url="https://raw.githubusercontent.com/kvcache-ai/Mooncake/main/FAST25-release/traces/conversation_trace.jsonl",
        sha256="b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df",
        licence="Apache-2.0",
        description="12,031 chat requests in 59 min, 512-token prefix blocks; arrivals quantised to 3 s",
    ),
    CatalogEntry(
        name="quickstart",
        format="mooncake",
        relative="quickstart.jsonl.gz",
        url=None,
        sha256="b72ae8e53cbdaba06ffdd94495a4dcde49649f6eaead8edff36f36e3649dff36",
        licence="Apache-2.0",
        description="1,500 generated chat requests in 10 min: sessions that grow, shared system prompts",
        ships=True,
    ),
    CatalogEntry(
        name="azure-code-2023",
        format="azure",
        relative="azure_llm_2023/AzureLLMInferenceTrace_code.csv.gz",
        url="https://raw.githubusercontent.com/Azure/AzurePublicDataset/master/data/AzureLLMInferenceTrace_code.csv",
        sha256="54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6",
        licence="CC-BY-4.0",
        description="8,819 coding requests of an Azure service in 57 min (Splitwise, ISCA'24); lengths only",
    ),
    CatalogEntry(
        name="agentic-coding",
        format="agentic",
        relative="kv_cache_tester/agentic_coding_rle.jsonl.gz",
        url=None,
        sha256="4139901b02a7937294fd30f02c353d2f22c3c243dd31c123c01dffd2d9154d12",
        licence="Apache-2.0",
        description="344 conversations of coding agents (callanjfox/kv-cache-tester, ids as ranges), 64-token blocks; "
        "all start at 0 s: see stagger_sessions",
    ),
    CatalogEntry(
        name="lmcache-miniswe",
        format="lmcache-agent",
        relative="lmcache_agent/miniswe_bs64.jsonl.gz",
        url=None,
        sha256="872436546b8b7d12631906d3b2a8b16ae6364197f1416c701ca7c9635c6e1fb4",
        licence="Apache-2.0",
        description="402 requests of 20 mini-swe-agent sessions (LMCache/lmcache-agent-trace, re-tokenised), "
        "64-token blocks",
    ),
    CatalogEntry(
        name="llmservingsim-sharegpt",
        format="llmservingsim",
        relative="llmservingsim_sharegpt/sharegpt-llama-3.1-8b-300-sps10.lengths.jsonl",
        url=None,
        sha256="6216c01b3adfd361c9127c71e14fd697932148ef6c7469d4d0f93ca41b59b14d",
        licence="MIT",
        description="300 ShareGPT requests in 29 s (casys-kaist/LLMServingSim, lengths and ids), 16-token blocks",
    ),
    CatalogEntry(
        name="vidur-arxiv",
        format="vidur",
        relative="vidur_lengths/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv.gz",
        url="https://raw.githubusercontent.com/microsoft/vidur/main/data/processed_traces/"
        "arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv",
        sha256="9d3580538d915ca75e4aaaa54590b42dbb17abc6d74c8913310cf07c232adcdc",
        licence="MIT",
        description="28,257 arXiv summarisation lengths (Vidur); no times: set arrival_rate",
    ),
)
CATALOG: Mapping[str, CatalogEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def cache_dir() -> Path:
    """Where fetched traces lie: $XDG_CACHE_HOME/kvsim/traces, by default ~/.cache/kvsim/traces.

    SOURCE: XDG Base Directory Specification 0.8 (a relative XDG_CACHE_HOME is to be ignored).
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "kvsim" / "traces"


def entry_of(name: str) -> CatalogEntry:
    """The catalog entry `name`. Raises InputError with the nearest name."""
    if name not in CATALOG:
        raise InputError("unknown trace", found=name, allowed=CATALOG, near=CATALOG)
    return CATALOG[name]


def locate(name: str) -> Path:
    """The file of trace `name`: in the package, below $KVSIM_TRACES or in the cache. Raises InputError."""
    entry = entry_of(name)
    if entry.ships:
        return Path(__file__).parent / "samples" / entry.relative
    shared = os.environ.get("KVSIM_TRACES")
    for folder in ([Path(shared)] if shared else []) + [cache_dir()]:
        if (folder / entry.relative).is_file():
            return folder / entry.relative
    tried = f"KVSIM_TRACES={shared} has no {entry.relative}" if shared else "KVSIM_TRACES is not set"
    fetch = f"run `kvsim trace fetch {name}`, or" if entry.url else "no public address known:"
    ways = f"{fetch} set KVSIM_TRACES to a folder with {entry.relative}"
    raise InputError(f"not on this machine ({tried}); {ways}", where=f"trace {name}")


def load_trace(name_or_path: str | Path, *, strict: bool = False) -> Trace:
    """The trace of a catalog name or of a file. Raises InputError.

    `strict` refuses what is otherwise mended with a line in `Trace.warnings` (see the readers).
    """
    if isinstance(name_or_path, str) and name_or_path in CATALOG:
        entry = CATALOG[name_or_path]
        path = locate(entry.name)
        trace = READERS[entry.format].read(path, strict=strict, name=entry.name)
        if trace.content_sha256 != entry.sha256:
            text = f"{path}: content differs from the published {entry.name} (sha256 {entry.sha256[:12]}...)"
            if strict:
                raise InputError(text)
            trace = replace(trace, warnings=(text, *trace.warnings))
        return trace
    path = Path(name_or_path)
    if not path.exists() and not path.name.endswith(endings()):
        text = "neither a known trace nor a file"
        raise InputError(text, found=str(name_or_path), allowed=CATALOG, near=CATALOG)
    return READERS[format_of(path)].read(path, strict=strict)
