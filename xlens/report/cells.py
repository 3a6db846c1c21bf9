"""How numbers stand in cells."""

import math
from collections.abc import Mapping
from typing import Any

from xlens.wording import rounded

__all__ = ["ends", "interval", "number", "rounded", "signed"]


def number(value: float) -> str:
    """Two decimals, or a dash for none."""
    return rounded(value, ".2f")


def ends(value: float, low: float, high: float, form: str = ".2f") -> str:
    """` [0.12, 0.36]`, to stand behind a number; nothing where it, or its interval, isn't there."""
    if any(map(math.isnan, (value, low, high))):
        return ""
    return f" [{rounded(low, form)}, {rounded(high, form)}]"


def interval(
    row: Mapping[Any, Any], value: str = "value", low: str = "low", high: str = "high"
) -> str:
    """`0.24 [0.12, 0.36]`; without an interval where it has none."""
    return f"{number(row[value])}{ends(row[value], row[low], row[high])}"


def signed(
    row: Mapping[Any, Any],
    value: str = "value",
    low: str = "low",
    high: str = "high",
    *,
    digits: int = 2,
) -> str:
    """A difference with its sign: `+0.24 [+0.12, +0.36]`; without an interval where it has none."""
    form = f"+.{digits}f"
    return f"{rounded(row[value], form)}{ends(row[value], row[low], row[high], form)}"
