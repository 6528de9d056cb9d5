"""Results of `vllm bench serve --save-result --save-detailed` as a measured run (`calibration.measured_run`).

The result is one JSON object whose lists have an entry for each request: `input_lens`, `output_lens` (tokens), `ttfts`
(s), `itls` (lists of s), `errors` (empty where there was none) and, in newer versions, `start_times` (s of one clock).
SOURCE: vllm-project/vllm, vllm/benchmarks/serve.py. Without `start_times` nobody knows when requests were sent, unless
all were at once (`request_rate` inf, no `max_concurrency`).

Times are those of the client: they hold what the network and the server's front end added. Prompts are not in the
result, so no request shares a prefix with another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from calibration.measured_run import SCHEMA
from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from hw_profiles.models import list_models, load_model
from hw_profiles.yaml_io import read_text

LISTS = ("input_lens", "output_lens", "ttfts", "itls")
BLOCK_TOKENS = 16


class Converted(NamedTuple):
    """What was written: requests, and those that were left out since they failed or produced nothing."""

    requests: int
    left_out: int
    model: str


def convert(
    result: Path,
    out: Path,
    *,
    profile: str,
    model: str | None = None,
    engine: Mapping[str, Any] | None = None,
    name: str | None = None,
    prefix_caching: bool = True,
) -> Converted:
    """Write the run in `result` to `out`. model: kvsim's name or a path, by default that of the result's `model_id`.

    Raises InputError for a result without details, or that does not say when requests were sent.
    """
    found = _read(result)
    model = _model(found, result) if model is None else model
    lists = {key: _list(found, key, result) for key in LISTS}
    count = len(lists["input_lens"])
    starts = _starts(found, count, result)
    errors = found.get("errors") or [""] * count
    for key, values in (*lists.items(), ("errors", errors)):
        if len(values) != count:
            raise InputError(f"{len(values)} entries for {count} requests", where=result, path=key)
    rows = []
    for i in range(count):
        if errors[i] or not _whole(lists["output_lens"][i]):
            continue
        rows.append(_row(lists, starts, i, result))
    if not rows:
        raise InputError("no request that finished", where=result)
    head = {
        "schema": SCHEMA,
        "name": name or result.stem,
        "model": model,
        "profile": profile,
        "engine": dict(engine or {}),
        "block_tokens": int((engine or {}).get("block_tokens", BLOCK_TOKENS)),
        "prefix_caching": prefix_caching,
    }
    write_atomic(out, "".join(json.dumps(row) + "\n" for row in (head, *rows)))
    return Converted(len(rows), count - len(rows), model)


def _read(path: Path) -> dict[str, Any]:
    text = read_text(path)
    try:
        found = json.loads(text)
    except ValueError:
        allowed = "one JSON object, as --save-result writes it (without --append-result)"
        raise InputError("not a result of vllm bench serve", where=path, found=text[:40], allowed=allowed) from None
    if not isinstance(found, dict):
        raise InputError(
            "not a result of vllm bench serve", where=path, found=type(found).__name__, allowed="an object"
        )
    return found


def _list(found: Mapping[str, Any], key: str, where: Path) -> list[Any]:
    if not isinstance(found.get(key), list):
        text = "has no times of each request: run vllm bench serve with --save-detailed"
        raise InputError(text, where=where, path=key)
    values: list[Any] = found[key]
    return values


def _starts(found: Mapping[str, Any], count: int, where: Path) -> list[Any]:
    """When each request was sent, s."""
    starts = found.get("start_times")
    if isinstance(starts, list) and len(starts) == count:
        return starts
    if str(found.get("request_rate")) == "inf" and not found.get("max_concurrency"):
        return [0.0] * count
    text = "does not say when requests were sent: newer versions of vllm bench serve do, or send all at once"
    raise InputError(text, where=where, path="start_times")


def _row(lists: Mapping[str, list[Any]], starts: list[Any], i: int, where: Path) -> dict[str, Any]:
    gaps = lists["itls"][i]
    times = (starts[i], lists["ttfts"][i], *(gaps if isinstance(gaps, list) else (math.nan,)))
    if not all(_number(time) for time in times) or not _whole(lists["input_lens"][i]):
        raise InputError(f"request {i}: a time or a length that is not a number", where=where)
    first = float(starts[i]) + float(lists["ttfts"][i])
    return {
        "queued_s": float(starts[i]),
        "first_token_s": first,
        "last_token_s": first + math.fsum(gaps),
        "input_tokens": int(lists["input_lens"][i]),
        "output_tokens": int(lists["output_lens"][i]),
    }


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _model(found: Mapping[str, Any], where: Path) -> str:
    """kvsim's name of the model that the result names as Hugging Face does."""
    wanted = str(found.get("model_id") or "")
    known = {load_model(name).origin: name for name in list_models()}
    for origin, name in known.items():
        if _bare(origin) == _bare(wanted):
            return name
    text = "a model that kvsim does not have under this name; give --model"
    raise InputError(text, where=where, path="model_id", found=wanted or None, near=known)


def _bare(origin: str) -> str:
    return origin.rpartition("/")[2].removesuffix("-Instruct").lower()
