"""Intervals at single points: Plotly's error bars, one look in every figure."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from xlens.checks import typed

THIN, WIDE = 1.2, 3
"""Width of the line and of its ends, in pixels."""


@typed
def whiskers(
    value: Iterable[float], low: Iterable[float], high: Iterable[float], color: str | None = None
) -> dict[str, Any]:
    """From `low` to `high` of each point, as a trace's `error_x` or `error_y`.

    Where there is no interval there is no line. A line never points to the wrong side: bounds of a
    bias-corrected interval may leave its value outside, and then end at it.

    Args:
        value: Where the points are.
        low: Lower ends; NaN where there are none.
        high: Upper ends.
        color: Default that of the points.
    """
    at, below, above = (np.asarray([*each], dtype=float) for each in (value, low, high))
    arms = {"array": above - at, "arrayminus": at - below}
    # Plotly takes no NaN, and would draw a negative length as a positive one.
    drawn = {name: np.nan_to_num(arm).clip(min=0).tolist() for name, arm in arms.items()}
    own = {} if color is None else {"color": color}
    return {"type": "data", "symmetric": False, **drawn, "thickness": THIN, "width": WIDE, **own}
