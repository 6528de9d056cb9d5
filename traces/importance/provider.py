"""What every provider offers beside the questions of `policies.sequence.plan.Importance`."""

from __future__ import annotations

from typing import Protocol

from hw_profiles.errors import InputError
from hw_profiles.lines import Line
from traces.importance.facts import Fact


class Provider(Protocol):
    """An answer to what policies within a sequence ask, and where it comes from.

    name   as in the scenario, with its setting
    about  one line for the report: which data, fitted to what, how sure
    kinds  the statistics that it answers from; `Fact.system` says whose figures are calibrated by them
    notes  what was asked beyond what the data supports, one line each, in the order asked
    """

    @property
    def name(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def kinds(self) -> tuple[Fact, ...]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...

    def recalls(self, selected: int, cached: int, page_tokens: int) -> Line:
        """Pages per layer and step that are selected and not cached: a line in the context."""

    def keys_for(self, mass: float) -> Line:
        """Tokens that hold `mass` of the attention: a line in the context."""

    def hit_ratio(self, cached_tokens: int, selected_tokens: int, block_tokens: int) -> float:
        """Share of selected tokens found in a cache of blocks."""

    def coverage(self, kept: float, context: float) -> float:
        """Attention mass that the best `kept` of `context` tokens hold."""


def check_sizes(selected: int, cached: int, page_tokens: int) -> None:
    """Raises InputError for sizes of a page cache that mean nothing."""
    for name, value in (("selected pages", selected), ("tokens of a page", page_tokens)):
        if value < 1:
            raise InputError(f"{name}: nothing can be recalled", found=value, allowed="1 or more")
    if cached < selected:
        raise InputError(f"a cache must hold the {selected} pages that are selected", found=cached)
