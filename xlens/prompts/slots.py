"""Slots: what is kept of the position axis."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from xlens.checks import typed

How = Literal["first", "last", "mean", "sum", "each", "predict"]
_GRAMMAR = re.compile(r"(?P<span>[^:\s]+):(?P<how>[a-z]+)")


@dataclass(frozen=True)
class Slot:
    """One named selection of token positions.

    | text | positions | rows per prompt |
    |---|---|---|
    | `last` | the prompt's last token | 1 |
    | `all` | every token | its length |
    | `NAME:first`, `NAME:last` | first or last token of span NAME | 1 |
    | `NAME:mean` | mean over the span's tokens | 1 |
    | `NAME:sum` | sum over the span's tokens | 1 |
    | `NAME:each` | every token of the span | the span's length |
    | `NAME:predict` | the positions that predict the span's tokens: each one's predecessor | same |

    Attributes:
        span: Span name; None for `last` and `all`, which speak of the whole prompt.
        how: The reduction; `each` for `all`.
    """

    span: str | None
    how: How

    @property
    def ragged(self) -> bool:
        """Whether the number of rows differs between prompts."""
        return self.how in ("each", "predict")

    def __str__(self) -> str:
        if self.span is None:
            return "all" if self.how == "each" else "last"
        return f"{self.span}:{self.how}"


@typed
def parse_slot(text: str) -> Slot:
    """Read a slot: `last`, `all` or `NAME:first|last|mean|sum|each|predict`.

    Raises:
        ValueError: anything else.
    """
    if text in ("last", "all"):
        return Slot(None, "last" if text == "last" else "each")
    match = _GRAMMAR.fullmatch(text)
    if match is None or match["how"] not in get_args(How):
        raise ValueError(
            f"Unknown slot {text!r}; accepted are 'last', 'all' and "
            f"'NAME:{'|'.join(get_args(How))}' where NAME is a span of the prompts, "
            "for example 'question:last'."
        )
    how: How = match["how"]  # type: ignore[assignment]
    return Slot(match["span"], how)
