"""What kind of number a profile value is: its units, the SI unit it is kept in, and its bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from hw_profiles import units

NUMBER_UNITS: Mapping[str, Fraction] = MappingProxyType({"1": Fraction(1)})


@dataclass(frozen=True)
class Quantity:
    """What kind of number a value is: its units, the SI unit it is kept in, and its bounds."""

    units: Mapping[str, Fraction]
    si_unit: str
    whole: bool = False
    least: float = 0.0
    above_zero: bool = False
    most: float = math.inf


SIZE = Quantity(units.BYTE_UNITS, "B", whole=True, above_zero=True)
RATE = Quantity(units.RATE_UNITS, "B/s", above_zero=True)
COMPUTE = Quantity(units.FLOPS_UNITS, "FLOP/s", above_zero=True)
TIME = Quantity(units.SECOND_UNITS, "s")
POWER = Quantity(units.POWER_UNITS, "W", above_zero=True)
COUNT = Quantity(NUMBER_UNITS, "1", whole=True, above_zero=True)
SHARE = Quantity(NUMBER_UNITS, "1", above_zero=True, most=1.0)
EXPONENT = Quantity(NUMBER_UNITS, "1", least=1.0)
FACTOR = Quantity(NUMBER_UNITS, "1")
