"""How numbers stand in cells."""

import math
from collections.abc import Mapping
from typing import Any


def number(value: float) -> str:
    """Two decimals, or a dash for none."""
    return "–" if math.isnan(value) else f"{value:.2f}"


def interval(
    row: Mapping[Any, Any], value: str = "value", low: str = "low", high: str = "high"
) -> str:
    """`0.24 [0.12, 0.36]`."""
    if math.isnan(row[value]):
        return "–"
    return f"{row[value]:.2f} [{number(row[low])}, {number(row[high])}]"
