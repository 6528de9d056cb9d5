"""Distributions of whole numbers and of times, as a scenario writes them.

A plain value is a constant. A mapping names a `distribution`, or leaves it to its keys: `sigma` means lognormal, `min`
uniform, and `mean` alone a constant number or an exponential time.

Only uniform numbers are drawn, and turned into a distribution here by its inverse: numpy may change its own samplers
between versions, and two variants of a scenario that differ in a mean then still draw alike.
SOURCE: the names are those of vLLM, benchmarks/multi_turn/README.md ("Random distributions"), with `mean` and `sigma`
as in traces.generate: the mean of the numbers themselves, the standard deviation of their logarithm.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw_profiles.errors import InputError
from hw_profiles.units import Seconds

Kind = Literal["constant", "exponential", "lognormal", "uniform"]
NEEDS = {"constant": ("mean",), "exponential": ("mean",), "lognormal": ("mean", "sigma"), "uniform": ("min", "max")}
MAY_HAVE = {"constant": (), "exponential": ("max",), "lognormal": ("max",), "uniform": ()}
"""`max` caps what was drawn; the mean is that before the cap."""
_NORMAL = NormalDist()

Mean = Annotated[float, Field(strict=True, ge=1, le=10_000_000, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
Sigma = Annotated[float, Field(strict=True, ge=0, le=4, allow_inf_nan=False)]


class _Draw(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    distribution: Kind
    mean: float | None = None
    sigma: Sigma | None = None
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needs, may = NEEDS[self.distribution], MAY_HAVE[self.distribution]
        given = [key for key in ("mean", "sigma", "min", "max") if getattr(self, key) is not None]
        missing = [key for key in needs if key not in given]
        if missing:
            raise InputError(f"{self.distribution} needs {' and '.join(needs)}", path=missing[0])
        surplus = [key for key in given if key not in (*needs, *may)]
        if surplus:
            raise InputError(f"{self.distribution} does not use it", path=surplus[0])
        if self.min is not None and self.max is not None and self.min > self.max:
            raise InputError("must not be above max", path="min", found=self.min)
        return self

    @property
    def constant(self) -> bool:
        """True if every draw is the same."""
        return self.distribution == "constant"

    def quantile(self, u: float) -> float:
        """The `u`-quantile, 0 <= u < 1."""
        u = min(u + 2**-54, 1 - 2**-53)  # the middle of its 2**-53 cell: never 0 or 1
        if self.distribution == "uniform":
            low, high = self._range()
            return low + u * (high - low)
        mean = self.mean or 0.0
        if self.distribution == "constant":
            return mean
        if self.distribution == "exponential":
            value = -mean * math.log1p(-u)
        else:  # exp(mu + sigma z) with mu = ln(mean) - sigma^2 / 2 has this mean
            sigma = self.sigma or 0.0
            value = mean * math.exp(sigma * _NORMAL.inv_cdf(u) - sigma**2 / 2)
        return value if self.max is None else min(value, self.max)

    def _range(self) -> tuple[float, float]:
        return self.min or 0.0, self.max or 0.0


class Numbers(_Draw):
    """Whole numbers, 1 at least: `512`, `{mean: 512, sigma: 0.8}`, `{min: 12, max: 18}` (both may come)."""

    mean: Mean | None = None
    min: Whole | None = None
    max: Whole | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_plain(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"distribution": "constant", "mean": value}
        if not isinstance(value, dict):
            text = "a whole number, or a mapping such as {mean: 512, sigma: 0.8}"
            raise InputError("", found=value, allowed=text)
        return _named(value, "constant")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.constant and self.mean is not None and not self.mean.is_integer():
            raise InputError("", found=self.mean, allowed="a whole number")
        return self

    def at(self, u: float) -> int:
        """The `u`-quantile, rounded to a whole number."""
        return max(1, math.floor(self.quantile(u)) if self.distribution == "uniform" else round(self.quantile(u)))

    def _range(self) -> tuple[float, float]:
        return self.min or 0, (self.max or 0) + 1  # each whole number has a cell of its own


class Times(_Draw):
    """Times in seconds: `10 s` (always), `{mean: 10 s}` (exponential), `{mean: 10 s, sigma: 1}`, `{min: 2 s, ...}`."""

    mean: Seconds | None = None
    min: Seconds | None = None
    max: Seconds | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_plain(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return {"distribution": "constant", "mean": value}
        return _named(value, "exponential")

    def at(self, u: float) -> float:
        """The `u`-quantile, s."""
        return self.quantile(u)


def _named(value: dict[str, Any], plain: str) -> dict[str, Any]:
    """The mapping with its distribution; `plain` is what a mean alone means."""
    if "distribution" in value:
        return value
    kind = "lognormal" if "sigma" in value else "uniform" if "min" in value else plain
    return {"distribution": kind, **value}
