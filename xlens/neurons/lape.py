"""Language activation probability entropy (LAPE, arXiv 2402.16438), from counts alone.

With `p^k` the share of language k's tokens at which a unit's activation function gives more than 0:

    p'^k = p^k / Σ_m p^m          LAPE = - Σ_k p'^k ln p'^k          (0 ln 0 = 0)
    τ = the round(0.95 N)-th smallest of all N numbers p, of all layers, units and languages

Units that no language brings above τ are left out; of the rest the 1 % of all units with the lowest
entropy are kept, and a kept unit belongs to every language that brings it above τ. As in the
authors' code (RUCAIBox/Language-Specific-Neurons, fdeca23), less its faults: a language without
units stays in every table, and what the tokenizer added and padding are not counted.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from xlens.checks import typed
from xlens.engine import Tally
from xlens.errors import InputError
from xlens.results import Result, analysed

LEAST_TOKENS = 1000


@dataclass(frozen=True, kw_only=True)
class LanguageNeurons(Result):
    """Units that belong to a language.

    Attributes:
        table: One row per kept unit and language it belongs to: `language layer unit probability
            mean entropy`: how often and how strongly it is active there, and its entropy in nats.
        counts: `language layer n`: every language and layer, 0 too.
        tokens: By language, tokens behind the probabilities.
        threshold: τ.
        kept: Units that belong to any language.
        width: Units of a layer.
        layers: Blocks.
        languages: In the order of the counts.
        site: Where the units are.
    """

    table: pd.DataFrame
    counts: pd.DataFrame
    tokens: dict[str, int]
    threshold: float
    kept: int
    width: int
    layers: tuple[int, ...]
    languages: tuple[str, ...]
    site: str

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    def sizes(self) -> dict[str, int]:
        """How many units each language has, by tag; 0 too."""
        totals = self.counts.groupby("language")["n"].sum()
        return {tag: int(totals[tag]) for tag in self.languages}

    def units(self, language: str) -> dict[int, tuple[int, ...]]:
        """A language's units by layer.

        Raises:
            ValueError: a language that was not counted.
        """
        if language not in self.languages:
            raise InputError(
                f"No neurons of {language!r}: counted were {', '.join(self.languages)}."
            )
        mine = self.table[self.table["language"] == language]
        units = {layer: mine.loc[mine["layer"] == layer, "unit"].tolist() for layer in self.layers}
        return {layer: tuple(own) for layer, own in units.items() if own}


@typed
def entropies(
    probabilities: Float[np.ndarray, "language layer unit"],
) -> Float[np.ndarray, "layer unit"]:
    """LAPE of every unit, in nats; of one that is never active 0, the lowest there is."""
    total = probabilities.sum(axis=0)
    shares = np.divide(probabilities, total, out=np.zeros_like(probabilities), where=total > 0)
    # 0 ln 0 = 0: where there is no share the logarithm isn't taken.
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return -(shares * logs).sum(axis=0)


@typed
def language_neurons(
    counted: Tally,
    *,
    top: float = 0.01,
    filter_rate: float = 0.95,
    least_tokens: int = LEAST_TOKENS,
) -> LanguageNeurons:
    """The units with the lowest entropy over languages, among those active often enough.

    Args:
        counted: From `xlens.engine.tally`, in two languages or more.
        top: Share of all units that are kept.
        filter_rate: τ is this quantile of all probabilities; it can't be switched off, as units
            that are never active have the lowest entropy of all.
        least_tokens: Of each language; a probability over fewer is mostly chance.

    Raises:
        ValueError: one language, too few tokens in one, or a share outside (0, 1).
    """
    for name, value in (("top", top), ("filter_rate", filter_rate)):
        if not 0 < value < 1:
            raise InputError(f"{name} is {value}; accepted is a share between 0 and 1.")
    tokens = {t: int(n) for t, n in zip(counted.languages, counted.n_tokens, strict=True)}
    if len(tokens) < 2:
        raise InputError(
            f"Counted in {', '.join(tokens)} alone: entropy is over languages, two or more."
        )
    if few := {tag: n for tag, n in tokens.items() if n < least_tokens}:
        told = ", ".join(f"{tag} ({n})" for tag, n in few.items())
        raise InputError(
            f"Fewer than {least_tokens} tokens in {told}: give more text, or say that fewer are "
            "enough (least_tokens, --least-tokens)."
        )
    p = counted.probabilities
    # torch's kthvalue counts from 1.
    threshold = float(np.sort(p, axis=None)[round(filter_rate * p.size) - 1])
    entropy = entropies(p)
    ranked = np.where((p > threshold).any(axis=0), entropy, np.inf).ravel()
    wanted = min(round(top * entropy.size), int(np.isfinite(ranked).sum()))
    # Equal entropies go to the lower layer and unit. Infinite ones sort last, beyond `wanted`.
    places = np.argsort(ranked, kind="stable")[:wanted]
    layer, unit = np.unravel_index(places, entropy.shape)
    means = counted.means
    frames: list[pd.DataFrame] = []
    for k, tag in enumerate(counted.languages):
        own = p[k, layer, unit] > threshold
        at = (layer[own], unit[own])
        # `layer` numbers rows of the counts; the table names blocks.
        columns: dict[str, Any] = {
            "language": tag,
            "layer": np.array(counted.layers)[at[0]],
            "unit": at[1],
            "probability": p[k][at],
            "mean": means[k][at],
            "entropy": entropy[at],
        }
        frames.append(pd.DataFrame(columns))
    table = pd.concat(frames, ignore_index=True)
    axes = pd.MultiIndex.from_product(
        [counted.languages, counted.layers], names=["language", "layer"]
    )
    counts = table.groupby(["language", "layer"]).size().reindex(axes, fill_value=0)
    return LanguageNeurons(
        provenance=analysed(
            counted.provenance,
            "lape",
            {"top": top, "filter_rate": filter_rate, "least_tokens": least_tokens},
        ),
        table=table.sort_values(["language", "layer", "unit"], ignore_index=True),
        counts=counts.rename("n").reset_index(),
        tokens=tokens,
        threshold=threshold,
        kept=len(places),
        width=int(p.shape[2]),
        layers=counted.layers,
        languages=counted.languages,
        site=counted.site,
    )
