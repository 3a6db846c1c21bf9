"""How prompts come by their demonstrations: headers that many share, or some of each item's own."""

from typing import Literal

from xlens.errors import InputError

Headers = int | Literal["item"]
"""About how many headers items share; `item`: each has demonstrations of its own."""
HEADERS = 12
"""Enough to be resampled, and so few that most of a prompt is run once for several items."""
MOST = 10_000


def check_headers(headers: Headers, shots: int = 0) -> None:
    """Refuse what can't be shown.

    Raises:
        ValueError: a negative number of shots, fewer than two headers or too many.
    """
    if shots < 0:
        raise InputError(f"shots={shots}: give the number of demonstrations, 0 or more.")
    if headers != "item" and not 2 <= headers <= MOST:
        raise InputError(
            f"headers={headers}: accepted are 2 to {MOST:,} that items share, or 'item' for "
            "demonstrations of each item's own."
        )
