"""What a model said under a push: is it in the language it was pushed to, line by line and word?"""

import re
from typing import TypedDict

import numpy as np

from xlens.checks import typed
from xlens.languages import UNKNOWN, identified, same_language, script
from xlens.segments import word_spans

FEWEST_WORDS = 5
"""Of a line that is judged: fewer say too little (as in the code of arXiv 2406.20052)."""
# A name in capitals is no slip. The original looks words up in an English list, also of four
# letters or more in lower case.
_FOREIGN = re.compile(r"[a-z]{4,}")
_BORDER = re.compile(r"[\W\d_]+")


class Judged(TypedDict):
    """What `judge_text` says; shares are 0 or 1, and NaN where they can't be told."""

    identified: str
    forcing: float
    lines: float
    words: float
    unknown: float


@typed
def judge_text(text: str, target: str) -> Judged:
    """Judge one output by the language that it should be in.

    | key | what it is |
    |---|---|
    | `identified` | the language of the whole text, or `unknown` |
    | `forcing` | that is the target (LFS of CLaS-Bench, arXiv 2601.08331) |
    | `lines` | so is every line of five words or more (line pass rate, arXiv 2406.20052) |
    | `words` | of texts that pass by lines: no word slips into Latin letters (word pass rate) |
    | `unknown` | the language can't be told; that is no pass |

    `lines` is undefined without a line so long; `words` is that too for targets in Latin script,
    where a slip is not to be seen, and counts lower-case words of four letters or more.

    Args:
        text: What was said.
        target: The tag of the language that was asked for; scripts are not told apart.
    """
    found = identified(text)
    forcing = float(found != UNKNOWN and same_language(found, target))
    long = [line for line in text.splitlines() if len(word_spans(line, target)) >= FEWEST_WORDS]
    lines = words = np.nan
    if long:
        said = [identified(line) for line in long]
        lines = float(all(each != UNKNOWN and same_language(each, target) for each in said))
        # Only of texts that pass by lines, as the original has it; NaN of the others.
        if lines and script(target) != "Latn":
            pieces = (piece for line in long for piece in _BORDER.split(line))
            words = float(not any(map(_FOREIGN.fullmatch, pieces)))
    return {
        "identified": found,
        "forcing": forcing,
        "lines": lines,
        "words": words,
        "unknown": float(found == UNKNOWN),
    }


def harmonic(rates: np.ndarray) -> np.ndarray:
    """The harmonic mean of two rates on the last axis; 0 where one of them is."""
    one, other = rates[..., 0], rates[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        # 0 times both is 0, and stays NaN where a rate is.
        return np.where((one > 0) & (other > 0), 2 * one * other / (one + other), 0.0 * one * other)
