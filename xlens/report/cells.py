"""How numbers stand in cells."""

import math
from collections.abc import Mapping
from typing import Any

from xlens.wording import rounded

__all__ = ["interval", "number", "rounded", "signed"]


def number(value: float) -> str:
    """Two decimals, or a dash for none."""
    return rounded(value, ".2f")


def interval(
    row: Mapping[Any, Any], value: str = "value", low: str = "low", high: str = "high"
) -> str:
    """`0.24 [0.12, 0.36]`; without an interval where it has none."""
    said, *ends = (number(row[name]) for name in (value, low, high))
    if any(math.isnan(row[name]) for name in (value, low, high)):
        return said
    return f"{said} [{', '.join(ends)}]"


def signed(
    row: Mapping[Any, Any],
    value: str = "value",
    low: str = "low",
    high: str = "high",
    *,
    digits: int = 2,
) -> str:
    """A difference with its sign: `+0.24 [+0.12, +0.36]`; without an interval where it has none."""
    said, *ends = (rounded(row[name], f"+.{digits}f") for name in (value, low, high))
    if any(math.isnan(row[name]) for name in (value, low, high)):
        return said
    return f"{said} [{', '.join(ends)}]"
