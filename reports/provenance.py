"""Where the hardware numbers come from: every profile value, its uncertainty, and the sources they share."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.load import section
from reports.text import KIND_LABELS, NBSP, is_number, number, percent

_LINK = re.compile(r"<(https?://[^\s<>\"']+)>")


@dataclass(frozen=True)
class Value:
    """A row of the table: `si` is the exact number in SI units, `source` an index into the sources, `used` whether
    this run's times depend on it (None where the run does not say)."""

    path: str
    text: str
    si: str
    uncertainty: str
    source: int
    used: bool | None = None


@dataclass(frozen=True)
class Source:
    """A source: its key in the profile, and its text in pieces (text, URL or empty)."""

    key: str
    parts: tuple[tuple[str, str], ...]


def provenance(profile: Sequence[Mapping[str, Any]]) -> tuple[list[Value], list[Source]]:
    """The rows of `profile.json` and the distinct sources they name, both in the profile's order."""
    values: list[Value] = []
    sources: dict[tuple[str, str], int] = {}
    for entry in profile:
        named = str(entry.get("src") or ""), str(entry.get("source") or "")
        raw, unit = entry.get("value_si"), str(entry.get("si_unit") or "").removeprefix("1")
        values.append(
            Value(
                path=str(entry.get("path") or ""),
                text=str(entry.get("text") or f"{number(raw)} {unit}".strip()),
                si=f"{raw!r} {unit}".strip() if is_number(raw) else "",
                uncertainty=uncertainty(entry),
                source=sources.setdefault(named, len(sources)),
                used=used if isinstance(used := entry.get("used"), bool) else None,
            )
        )
    return values, [Source(key or f"source {i + 1}", link_parts(text)) for (key, text), i in sources.items()]


def uncertainty(value: Mapping[str, Any]) -> str:
    """Relative half-width of a profile value (one wider than the value: its ends as factors), its interval where no
    half-width is given, else `unknown`."""
    rel, low, high, mid = (value.get(k) for k in ("rel", "lo", "hi", "value_si"))
    if rel is not None and is_number(rel) and rel > 1 and mid and is_number(low) and is_number(high):
        return f"×{NBSP}{number(low / mid, 2)} to ×{NBSP}{number(high / mid, 2)}"
    if is_number(rel):
        return f"±{NBSP}{percent(rel)}"
    if low is not None and high is not None and mid and all(is_number(v) for v in (low, high, mid)):
        return f"{percent(low / mid - 1)} to +{percent(high / mid - 1)}".replace("-", "−")
    return "unknown"


def link_parts(text: str) -> tuple[tuple[str, str], ...]:
    """Split at web addresses in angle brackets: `see <https://a.b>` -> (("see ", ""), ("a.b", "https://a.b"))."""
    parts: list[tuple[str, str]] = []
    for i, piece in enumerate(_LINK.split(text)):
        if piece:
            parts.append((piece.split("://", 1)[1], piece) if i % 2 else (piece, ""))
    return tuple(parts)


def times_of(summaries: Iterable[Mapping[str, Any]]) -> str:
    """How the hardware times of runs are known, by the kinds of their profiles: `fitted to public measurements`."""
    kinds = dict.fromkeys(str(section(summary, "profile").get("kind") or "unknown kind") for summary in summaries)
    return ", ".join(KIND_LABELS.get(kind, kind) for kind in kinds)


def trust_line(summary: Mapping[str, Any]) -> str:
    """How far the hardware numbers can be trusted, in one sentence."""
    profile = section(summary, "profile")
    kind = str(profile.get("kind") or "unknown kind")
    widest, outside = profile.get("widest_uncertainty"), profile.get("extrapolated_fraction")
    line = f"Profile {profile.get('name', '')}: {KIND_LABELS.get(kind, kind)}"
    if widest is not None and is_number(widest):
        wide = f"±{NBSP}{percent(widest)}" if widest <= 1 else f"by a factor of {number(1 + widest, 2)}"
        what = f", {profile['widest_value']}" if profile.get("widest_value") else ""
        line += f"; the least certain value that was used{what}: {wide}"
    if is_number(outside):
        line += f"; {percent(outside)} of the step time lies outside the range it was fitted on"
    copies = profile.get("extrapolated_copies_fraction")
    if is_number(copies):
        line += f"; {percent(copies)} of the bytes of devices moved in copies of sizes that were not measured"
    return line + "."
