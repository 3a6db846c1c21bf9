"""Does a probe of the language read the language, or the script that it is written in?

Trained to tell L1 in script S1 from L2 in S2, it is asked of L1 in S2 and L2 in S1: one that reads
languages is right nearly always, one that reads scripts nearly never.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from xlens.activations import Activations
from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import Result
from xlens.stats import Resampling, bootstrap, generator
from xlens.subspace.controls import adjusted, nuisance
from xlens.subspace.probe import ridge_classifier
from xlens.subspace.relations import Variety
from xlens.subspace.states import origin, parallel

CROSSED, OWN = "crossed", "own"
Square = tuple[int, int, int, int]
"""Numbers of L1 in S1, L2 in S2, L1 in S2, L2 in S1."""


@dataclass(frozen=True, kw_only=True)
class ScriptProbe(Result):
    """How often a probe of two languages is right when their scripts are swapped.

    Attributes:
        table: `layer asked kind mean low high n`: accuracy over the squares. `asked`: `crossed`
            (scripts swapped; 0.5 reads neither more than the other) or `own` (as trained). `kind`:
            `value` or `length_controlled`. `n`: squares, each way round.
        squares: `layer first second kind mean`: `crossed`, by what it was trained on. Their mean
            says little where some are near 1 and others near 0: near languages are confused first.
        confidence: Of the intervals, which are over documents, for these varieties.
        pooling: How a text became one state.
    """

    table: pd.DataFrame
    squares: pd.DataFrame
    confidence: float
    pooling: str

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual points, ascending."""
        return tuple(sorted(map(int, self.table["layer"].unique())))

    def by_pair(self, layer: int) -> pd.DataFrame:
        """The squares of a layer, `first second mean`, the least that is right first."""
        of = (self.squares["layer"] == layer) & (self.squares["kind"] == "value")
        found = self.squares[of].sort_values("mean", kind="stable", ignore_index=True)
        return found[["first", "second", "mean"]]

    def read_as_languages(self, layer: int) -> int:
        """How many squares of a layer are right more often than not."""
        return int((self.by_pair(layer)["mean"] > 0.5).sum())


def squares_of(languages: Sequence[str]) -> list[Square]:
    """Every two languages that are published in the same two scripts, trained either way round."""
    by: dict[str, dict[str, int]] = {}
    for n, tag in enumerate(languages):
        variety = Variety.of(tag)
        if not variety.twin:
            # Two varieties of one language and script (`zh-Hant-HK`): the first stands for both.
            by.setdefault(variety.language, {}).setdefault(variety.script, n)
    found: list[Square] = []
    for one, other in combinations(by.values(), 2):
        for first, second in combinations(sorted(one.keys() & other.keys()), 2):
            # Either way round: which language has which script in training must not matter.
            found.append((one[first], other[second], one[second], other[first]))
            found.append((one[second], other[first], one[first], other[second]))
    return found


@typed
def script_probe(
    activations: Activations,
    *,
    classifier: Any = None,
    pooling: str = "last",
    n_splits: int = 5,
    resampling: Resampling = Resampling(),
    most: int = 24,
) -> ScriptProbe:
    """Train on L1 in S1 against L2 in S2; test on L1 in S2 against L2 in S1, on other documents.

    Args:
        activations: The same items in several varieties.
        classifier: Any scikit-learn classifier; by default a ridge classifier on standardised
            features, as `language_probe`.
        pooling: How a text becomes one state (`pool`).
        n_splits: Folds of documents.
        resampling: Of the intervals.
        most: Squares; more are drawn by its seed.

    Raises:
        ValueError: no two languages are there in the same two scripts, too few documents, or what
            `parallel` refuses.
    """
    from sklearn.model_selection import GroupKFold

    classifier = ridge_classifier() if classifier is None else classifier
    states = parallel(activations, pooling, at_least=n_splits)
    squares = squares_of(states.languages)
    if not squares:
        raise InputError(
            "No two languages are there in the same two scripts, so a probe's script can't be "
            f"swapped: there are {', '.join(states.languages)}. SIB-200 has ace, arb and bjn in "
            "Arabic and Latin script."
        )
    if len(squares) > most:
        at = sorted(generator(resampling.seed, 5).permutation(len(squares))[:most])
        squares = [squares[i] for i in at]
    clusters = resampling.codes(states.meta)
    if (whole := int(clusters.max()) + 1) < n_splits or n_splits < 2:
        raise InputError(f"n_splits is {n_splits}; accepted are 2 to the {whole} documents.")
    folds = list(GroupKFold(n_splits).split(clusters, groups=clusters))
    terms = nuisance(activations, states)
    rows: list[dict[str, Any]] = []
    each: list[dict[str, Any]] = []
    for index, layer in enumerate(states.layers):
        here = states.layer(index)
        for kind, now in (("value", here), ("length_controlled", adjusted(here, terms))):
            right = [_asked(now, square, folds, classifier) for square in squares]
            for asked in (CROSSED, OWN):
                # Over the squares first: documents are drawn, squares are not.
                by_item = np.mean([found[asked] for found in right], axis=0)
                boot = bootstrap(
                    by_item[:, None], clusters=clusters, resampling=resampling, bounds=(0.0, 1.0)
                )
                (low,), (high,) = boot.interval()
                numbers = {"mean": float(boot.mean[0]), "low": float(low), "high": float(high)}
                rows.append(
                    {"layer": layer, "asked": asked, "kind": kind, **numbers, "n": len(squares)}
                )
            for (one, other, *_), found in zip(squares, right, strict=True):
                a, b = states.languages[one], states.languages[other]
                mean = float(found[CROSSED].mean())
                each.append({"layer": layer, "first": a, "second": b, "kind": kind, "mean": mean})
    return ScriptProbe(
        provenance=origin(
            activations,
            "script_probe",
            pooling=pooling,
            classifier=repr(classifier),
            n_splits=n_splits,
            most=most,
            **resampling.provenance(),
            sources={"script_probe": "our reading"},
        ),
        table=pd.DataFrame(rows),
        squares=pd.DataFrame(each),
        confidence=resampling.confidence,
        pooling=pooling,
    )


def _asked(
    states: np.ndarray,
    square: Square,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    classifier: Any,
) -> dict[str, np.ndarray]:
    """Shares of an item's two states that were told right."""
    right = {name: np.zeros(states.shape[1]) for name in (CROSSED, OWN)}
    trained, swapped = square[:2], square[2:]
    for train, test in folds:
        # Language 0's states, then language 1's: in the order of the labels.
        model: Any = clone(classifier).fit(  # type: ignore[attr-defined]
            np.vstack([states[v][train] for v in trained]), np.repeat([0, 1], len(train))
        )
        for name, varieties in ((OWN, trained), (CROSSED, swapped)):
            for language, variety in enumerate(varieties):
                # In `swapped` the order is L1, L2 again, so that the
                # label is the language both times.
                right[name][test] += (model.predict(states[variety][test]) == language) / 2
    return right
