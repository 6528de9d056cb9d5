"""The provider of scores that were recorded from a model (`calibration.record_importance`), and their file format.

A `.npz` file with two arrays (docs/importance.md):

    scores    float16 [layer, step, page]: natural logarithm of the attention mass that a page gets at a decode step, or
              any relevance by which pages are ranked; -inf where the page does not exist yet
    metadata  a JSON text: format ("kvsim-importance/1"), score ("log_mass" or "relevance"), model, page_tokens,
              context (tokens at the last step), source
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from hw_profiles.lines import CONTEXT, NOTHING, Line
from traces.importance.block_cache import hits
from traces.importance.curves import through
from traces.importance.facts import Fact
from traces.importance.provider import check_sizes
from traces.importance.replay import recalls

FORMAT = "kvsim-importance/1"
KINDS = ("log_mass", "relevance")
FIELDS: dict[str, type] = {"format": str, "score": str, "model": str, "page_tokens": int, "context": int, "source": str}

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Recorded:
    """Replays the scores of a file. What it says is of one model and one context, and level beyond it."""

    scores: Scores
    metadata: Mapping[str, Any]
    file: str = ""
    asked: dict[str, None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, path: Path) -> Recorded:
        """Read a file. Raises InputError where it is not in the format."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
        except FileNotFoundError:
            raise InputError("no such file", where=path) from None
        except (OSError, ValueError, zipfile.BadZipFile, EOFError, TypeError, AttributeError):
            raise InputError("not an .npz file of recorded scores (docs/importance.md)", where=path) from None
        for key in ("scores", "metadata"):
            if key not in arrays:
                raise InputError("", where=path, allowed=f"an array {key!r}")
        scores = _checked(arrays["scores"], path)
        return cls(scores, _metadata(str(arrays["metadata"]), scores, path), path.name)

    @property
    def name(self) -> str:
        """With its file."""
        return f"recorded/{self.file}"

    @property
    def about(self) -> str:
        """One line for the report."""
        layers, steps, pages = self.scores.shape
        return (
            f"recorded from {self.metadata['model']} ({self.metadata['source']}): {layers} layers, "
            f"{steps} steps, {pages} pages of {self.page_tokens} tokens; other contexts are taken to be like it"
        )

    @property
    def kinds(self) -> tuple[Fact, ...]:
        """The file."""
        text = str(self.metadata["source"])
        return tuple(Fact(q, self.file, text, "recorded") for q in ("recalls", "keys_for", "hit_ratio", "coverage"))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was asked beyond the recording."""
        return tuple(self.asked)

    @property
    def page_tokens(self) -> int:
        """Tokens of a recorded page."""
        return int(self.metadata["page_tokens"])

    @property
    def context(self) -> int:
        """Tokens at the last step."""
        return int(self.metadata["context"])

    def recalls(self, selected: int, cached: int, page_tokens: int) -> Line:
        """Rises from none at the cache's size to what was counted at the recorded context."""
        check_sizes(selected, cached, page_tokens)
        scores = self._pages(page_tokens)
        start, end = cached * page_tokens, scores.shape[2] * page_tokens
        if start >= end:
            self._beyond(f"no recalls beyond {end} tokens, for a cache of {start} holds the recorded context")
            return NOTHING
        by_step = np.ascontiguousarray(_ranks(scores).transpose(1, 0, 2))
        return through([(start, 0.0), (end, recalls(by_step, selected, [cached])[0])])

    def keys_for(self, mass: float) -> Line:
        """In whole pages of the recording: an upper bound for tokens. In proportion for shorter contexts."""
        if mass <= 0 or mass >= 1:
            return NOTHING if mass <= 0 else CONTEXT
        held = np.cumsum(self._masses(), axis=2)
        pages = float((held < mass - 1e-6).sum(axis=2).mean()) + 1
        if self.page_tokens > 1:
            self._beyond(f"keys are counted in pages of {self.page_tokens} tokens")
        return through([(0, 0.0), (self.context, min(pages * self.page_tokens, self.context))])

    def layer_keys(self, mass: float) -> list[float]:
        """Tokens that hold `mass` of the attention in each recorded layer, at the recorded context, in whole pages."""
        held = np.cumsum(self._masses(), axis=2)
        return [float(pages + 1) * self.page_tokens for pages in (held < mass - 1e-6).sum(axis=2).mean(axis=1)]

    def hit_ratio(self, cached_tokens: int, selected_tokens: int, block_tokens: int) -> float:
        """Of the most often selected blocks, replayed. Blocks must be whole pages of the recording."""
        if selected_tokens <= 0:
            return 1.0
        scores = self._pages(self.page_tokens)
        if block_tokens % self.page_tokens:
            allowed = f"a multiple of {self.page_tokens} tokens"
            raise InputError(
                "blocks are not whole recorded pages", where=self.file, found=block_tokens, allowed=allowed
            )
        selected = min(math.ceil(selected_tokens / self.page_tokens), scores.shape[2])
        return hits(_ranks(scores), selected, cached_tokens // block_tokens, block_tokens // self.page_tokens)

    def coverage(self, kept: float, context: float) -> float:
        """Mass of the best pages; the recording stands for contexts of other lengths."""
        if kept >= context:
            return 1.0
        held = np.cumsum(self._masses(), axis=2).mean(axis=(0, 1))
        places = np.arange(len(held) + 1) * self.page_tokens
        return min(float(np.interp(kept, places, [0.0, *held])), 1.0)

    def _masses(self) -> npt.NDArray[np.float64]:
        """Attention mass of pages, best first."""
        if self.metadata["score"] != "log_mass":
            text = "attention mass needs scores that are logarithms of it"
            raise InputError(text, where=self.file, path="metadata.score", found=self.metadata["score"])
        weights = np.exp(self.scores.astype(np.float64))
        return np.asarray(-np.sort(-weights / weights.sum(axis=2, keepdims=True), axis=2))

    def _pages(self, page_tokens: int) -> Scores:
        """Scores of pages of `page_tokens`: recorded ones, or several as one (mass adds up; relevance is the best)."""
        group, rest = divmod(page_tokens, self.page_tokens)
        if rest or not group:
            allowed = f"a multiple of {self.page_tokens} tokens"
            raise InputError("pages are not whole recorded pages", where=self.file, found=page_tokens, allowed=allowed)
        if group == 1:
            return self.scores
        layers, steps, pages = self.scores.shape
        padded = np.full((layers, steps, -(-pages // group) * group), -np.inf, dtype=np.float32)
        padded[:, :, :pages] = self.scores
        parts = padded.reshape(layers, steps, -1, group)
        if self.metadata["score"] == "relevance":
            return np.asarray(parts.max(axis=3))
        return np.asarray(np.logaddexp.reduce(parts, axis=3))

    def _beyond(self, text: str) -> None:
        self.asked[f"{self.file}: {text}"] = None


def save(path: Path, scores: npt.NDArray[np.float16], metadata: Mapping[str, object]) -> None:
    """Write a file in the format. Raises InputError for scores or metadata that are not."""
    text = json.dumps({"format": FORMAT, **metadata}, sort_keys=True)
    _metadata(text, _checked(scores, path), path)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, scores=scores.astype(np.float16), metadata=np.array(text))
    write_atomic(path, buffer.getvalue())


def _checked(scores: npt.NDArray[Any], path: Path) -> Scores:
    if scores.ndim != 3 or scores.dtype.kind != "f" or scores.shape[1] < 2 or 0 in scores.shape:
        found = f"{scores.dtype} {list(scores.shape)}"
        raise InputError("", where=path, path="scores", found=found, allowed="float16 [layer, step >= 2, page]")
    wide = scores.astype(np.float32)
    if np.isnan(wide).any() or np.isposinf(wide).any() or not np.isfinite(wide).any(axis=2).all():
        raise InputError("a step has no finite score, or one is not a number", where=path, path="scores")
    return np.asarray(wide)


def _metadata(text: str, scores: npt.NDArray[Any], path: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError("", where=path, path="metadata", found=text, allowed="a JSON object")
    for key, kind in FIELDS.items():
        if not isinstance(found.get(key), kind) or isinstance(found.get(key), bool):
            allowed = "a text" if kind is str else "a whole number"
            raise InputError("", where=path, path=f"metadata.{key}", found=found.get(key), allowed=allowed)
    choices = {"format": (FORMAT,), "score": KINDS}
    for key, allowed_values in choices.items():
        if found[key] not in allowed_values:
            raise InputError("", where=path, path=f"metadata.{key}", found=found[key], allowed=allowed_values)
    pages = scores.shape[2]
    if found["page_tokens"] < 1 or not (pages - 1) * found["page_tokens"] < found["context"]:
        allowed = f"more than {(pages - 1) * found['page_tokens']} tokens in {pages} pages"
        raise InputError("", where=path, path="metadata.context", found=found["context"], allowed=allowed)
    if found["context"] > pages * found["page_tokens"]:
        allowed = f"at most {pages * found['page_tokens']} tokens in {pages} pages"
        raise InputError("", where=path, path="metadata.context", found=found["context"], allowed=allowed)
    return found


def _ranks(scores: Scores) -> Scores:
    """Scores without ties, in the same order: float16 has many, and the earlier of two pages goes first."""
    order = np.argsort(-scores, axis=2, kind="stable")
    ranks = np.empty(scores.shape, dtype=np.float32)
    falling = np.broadcast_to(-np.arange(scores.shape[2], dtype=np.float32), scores.shape)
    np.put_along_axis(ranks, order, falling, axis=2)
    return np.where(np.isneginf(scores), scores, ranks)
