"""`LanguagePairs`: a number for two languages at a layer, with its interval and its controls."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from xlens.errors import InputError
from xlens.results import Result
from xlens.stats import Resampling, middle

KINDS = {
    "value": "the languages as they are",
    "length_controlled": "prompt length taken out",
    "mismatched": "control: mismatched pairs",
    "same_length": "control: mismatched pairs of the same length",
    "shuffled": "control: shuffled languages",
    "random": "control: random subspaces of equal rank",
}
"""What was measured; the controls are read against the value."""


@dataclass(frozen=True, kw_only=True)
class LanguagePairs(Result):
    """Numbers for pairs of languages by layer.

    Attributes:
        table: `layer a b measure kind mean low high n`. `kind` is `value` or one of `KINDS`;
            `mean` the number itself (for a control the mean over its draws), `low` and `high` its
            interval (for a control the range of that share of its draws), `n` the items behind it.
            A number that isn't defined is NaN.
        languages: In the order of the activations.
        n_items: Parallel items.
        confidence: Of the intervals.
        pooling: How a prompt became one state.
    """

    table: pd.DataFrame
    languages: tuple[str, ...]
    n_items: int
    confidence: float
    pooling: str

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual points, ascending."""
        return tuple(sorted(map(int, self.table["layer"].unique())))

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of what was measured, in order."""
        return tuple(self.table["measure"].unique())

    def pick(self, measure: str, kind: str = "value") -> pd.DataFrame:
        """The rows of one measure and kind.

        Raises:
            ValueError: there are none.
        """
        table = self.table
        found = table[(table["measure"] == measure) & (table["kind"] == kind)]
        if found.empty:
            held = sorted(set(zip(table["measure"], table["kind"], strict=True)))
            raise InputError(f"No {measure!r} of kind {kind!r} here; there are {held}.")
        return found

    def matrix(self, measure: str, layer: int, *, kind: str = "value") -> pd.DataFrame:
        """Languages × languages at one layer; symmetric, the diagonal NaN.

        Raises:
            ValueError: no such measure, kind or layer.
        """
        found = self.pick(measure, kind)
        found = found[found["layer"] == layer]
        if found.empty:
            raise InputError(f"No layer {layer} here; there are {list(self.layers)}.")
        tags = list(self.languages)
        out = pd.DataFrame(np.nan, index=tags, columns=tags)
        for row in found.to_dict("records"):
            out.loc[row["a"], row["b"]] = out.loc[row["b"], row["a"]] = row["mean"]
        return out


def language_pairs(n: int) -> Iterator[tuple[int, int]]:
    """Unordered pairs of n languages, by number."""
    return combinations(range(n), 2)


def spread(draws: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Mean of draws and the range that holds `confidence` of them; NaN where none is finite."""
    kept = draws[np.isfinite(draws)]
    if not len(kept):
        return np.nan, np.nan, np.nan
    low, high = middle(kept, confidence)
    return float(kept.mean()), float(low), float(high)


def check_options(confidence: float, n_controls: int) -> None:
    """Refuse options that make no interval or no control.

    Raises:
        ValueError: a confidence outside (0, 1), or no control.
    """
    Resampling(confidence=confidence)
    if n_controls < 1:
        raise InputError(
            f"n_controls is {n_controls}; no number comes without a control: 1 or more."
        )
