"""How shares and counts are said, in figures, reports and on the terminal alike."""

import math
from collections.abc import Iterable
from typing import SupportsInt


def percent(share: float, *, whole: bool = True) -> str:
    """A share in words: `95 %`, and a dash for none.

    Rounded it is never called nothing or everything where it is neither: `<1 %`, `>99 %`.

    Args:
        share: Of 1.
        whole: Round to whole percents; else as it is, as one says of a confidence: `97.5 %`.
    """
    if share != share:
        return "–"
    if not whole:
        return f"{100 * share:g} %"
    rounded = f"{100 * share:.0f}"
    if rounded == "0" and share > 0:
        return "<1 %"
    if rounded == "100" and share < 1:
        return ">99 %"
    return f"{rounded} %"


def number_of(n: int, noun: str, plural: str | None = None) -> str:
    """`1 prompt`, `2 prompts`.

    Args:
        n: How many.
        noun: Of one.
        plural: Of several, where it isn't the noun with an s.
    """
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def range_of(counts: Iterable[SupportsInt], noun: str) -> str:
    """`12 prompts`, or `10 to 12 prompts` where there are different numbers of them."""
    whole = [int(n) for n in counts]
    least, most = min(whole), max(whole)
    return number_of(most, noun) if least == most else f"{least:,} to {number_of(most, noun)}"


def one_of(counts: Iterable[int], noun: str, plural: str | None = None) -> str:
    """`no prompts`, `1 prompt`, `0 or 1 prompts`: counts that occur, each once."""
    every = sorted(set(counts))
    if len(every) == 1 and every[0]:
        return number_of(every[0], noun, plural)
    said = " or ".join(f"{n:,}" for n in every) if any(every) else "no"
    return f"{said} {plural or f'{noun}s'}"


def rounded(value: float, form: str) -> str:
    """A number in a form such as `.2f`: nothing that is rounded to zero has a minus, or a plus."""
    if math.isnan(value):
        return "–"
    said = format(value, form)
    return said if float(said.replace(",", "")) else format(0.0, form.removeprefix("+"))
