"""Can the language be read from the states, from a subspace of them, and from what is left?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.base import clone

from xlens.activations import Activations
from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import Result
from xlens.stats import Resampling, bootstrap, generator
from xlens.subspace.base import Subspace
from xlens.subspace.controls import shuffled_languages
from xlens.subspace.pairs import check_options, spread
from xlens.subspace.states import origin, parallel

FEATURES = {
    "all": "the whole state",
    "inside": "coordinates in the subspace",
    "outside": "what is left without the subspace",
}


@dataclass(frozen=True, kw_only=True)
class LanguageProbe(Result):
    """How well a linear classifier tells the language of items it was not fitted on.

    Attributes:
        table: `layer features kind mean low high n`. `features`: `all`, `inside` or `outside` the
            subspace. `kind`: `value`; `random`, the same with random subspaces of equal rank;
            `shuffled`, the same with the languages of each item dealt out anew, all through.
            `mean` is accuracy; `low` and `high` an interval over items (controls: the range of
            their draws).
        variance: `layer kind mean low high n`: the share of the held-out states' variance that
            removal takes (`value`, `random`).
        languages: What is told apart; chance is one in as many.
        estimator: The subspace, in words; empty if there was none.
        confidence: Of the intervals.
        pooling: How a prompt became one state.
    """

    table: pd.DataFrame
    variance: pd.DataFrame
    languages: tuple[str, ...]
    estimator: str
    confidence: float
    pooling: str

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1 / len(self.languages)

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@typed
def language_probe(
    activations: Activations,
    estimator: Subspace | None = None,
    *,
    classifier: Any = None,
    pooling: str = "last",
    n_splits: int = 5,
    n_controls: int = 5,
    resampling: Resampling = Resampling(),
) -> LanguageProbe:
    """Language identification before and after a subspace is removed, and within it.

    Splits are over parallel ids, or what these belong to (GroupKFold): neither a translation of a
    held-out item nor another question about its passage is in training. Subspace and classifier
    see the training items alone. An estimator with a subspace per language is told the language of
    held-out states too, as its removal needs it: read it as "once the language is known"; `inside`
    is left out then, as it would give the answer away.

    Args:
        activations: The same items in several languages.
        estimator: The subspace looked at; None probes whole states alone.
        classifier: Any scikit-learn classifier; by default a ridge classifier on standardised
            features.
        pooling: How a prompt becomes one state (`pool`).
        n_splits: Folds.
        n_controls: Draws of each control.
        resampling: Of the intervals; its seed is that of the controls too.

    Raises:
        ValueError: fewer items than folds, or what `parallel` and the estimator refuse.
    """
    from sklearn.model_selection import GroupKFold

    check_options(resampling.confidence, n_controls)
    confidence, seed = resampling.confidence, resampling.seed
    if n_splits < 2:
        raise InputError(f"n_splits is {n_splits}; give 2 or more.")
    classifier = ridge_classifier() if classifier is None else classifier
    states = parallel(activations, pooling, at_least=n_splits)
    n = len(states.ids)
    clusters = resampling.codes(states.meta)
    if (whole := int(clusters.max()) + 1) < n_splits:
        raise InputError(
            f"n_splits is {n_splits}, but the {n} items are of {whole} texts, which are not split: "
            "give more of these, or fewer folds."
        )
    rows: list[dict[str, Any]] = []
    variance: list[dict[str, Any]] = []
    for index, layer in enumerate(states.layers):
        flat, languages, items = states.flat(index)
        folds = list(GroupKFold(n_splits).split(flat, groups=clusters[items]))
        rng = generator(seed, index)
        ask = _Ask(flat, items, folds, classifier, estimator)
        try:
            kinds = {
                "value": [ask(languages, None)],
                # Without a subspace there is none to draw at random.
                "random": [ask(languages, rng) for _ in range(n_controls * bool(estimator))],
                "shuffled": [
                    ask(shuffled_languages(languages, items, rng), None) for _ in range(n_controls)
                ],
            }
        except ValueError as error:
            raise InputError(f"Layer {layer}: {error}") from error
        for kind, answers in kinds.items():
            for features in answers[0].right if answers else ():
                right = np.stack([answer.right[features] for answer in answers])
                numbers = _numbers(right, kind, resampling, clusters)
                rows.append({"layer": layer, "features": features, "kind": kind, **numbers, "n": n})
            if estimator is not None and kind != "shuffled":
                taken = np.array([answer.variance for answer in answers])
                mean, low, high = spread(taken, confidence)
                numbers = {"mean": mean, "low": low, "high": high}
                variance.append({"layer": layer, "kind": kind, **numbers, "n": n})
    return LanguageProbe(
        provenance=origin(
            activations,
            "language_probe",
            pooling=pooling,
            classifier=repr(classifier),
            n_splits=n_splits,
            n_controls=n_controls,
            **resampling.provenance(),
            sources={"probe": "our reading"},
        ),
        table=pd.DataFrame(rows),
        variance=pd.DataFrame(
            variance, columns=pd.Index(["layer", "kind", "mean", "low", "high", "n"])
        ),
        languages=states.languages,
        estimator="" if estimator is None else repr(estimator),
        confidence=confidence,
        pooling=pooling,
    )


def ridge_classifier() -> Any:
    """What a probe is where nothing else is asked for."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), RidgeClassifier())


@dataclass(frozen=True)
class _Answer:
    """Shares of an item's states that were told right, by features; variance removed."""

    right: dict[str, Float[np.ndarray, " item"]]
    variance: float


@dataclass(frozen=True)
class _Ask:
    """One layer's states and folds: what every question about them shares."""

    flat: Float[np.ndarray, "state d_model"]
    items: np.ndarray
    folds: list[tuple[np.ndarray, np.ndarray]]
    classifier: Any
    estimator: Subspace | None

    def __call__(self, languages: np.ndarray, random: np.random.Generator | None) -> _Answer:
        """Probe with these languages; with `random`, in a random subspace of equal rank."""
        right: dict[str, np.ndarray] = {}
        before = after = 0.0
        for train, test in self.folds:
            # Whole states are the same whatever the subspace: they are asked once, with `value`.
            features = {} if random else {"all": (self.flat[train], self.flat[test])}
            if self.estimator is not None:
                fitted: Any = clone(self.estimator).fit(self.flat[train], languages[train])  # type: ignore[attr-defined]
                if random:
                    fitted = fitted.randomized(random)
                parts = [(self.flat[rows], languages[rows]) for rows in (train, test)]
                features["outside"] = tuple(fitted.remove(*part) for part in parts)
                if not fitted.per_language:
                    features["inside"] = tuple(fitted.transform(*part) for part in parts)
                # Summed over folds, then divided: folds weigh by their variance, not alike.
                before += _variance(self.flat[test])
                after += _variance(features["outside"][1])
            for name, (seen, held_out) in features.items():
                classifier: Any = clone(self.classifier)
                said = classifier.fit(seen, languages[train]).predict(held_out)
                # Every state is held out in one fold, so the folds
                # fill this without gap or overlap.
                right.setdefault(name, np.zeros(len(self.flat)))[test] = said == languages[test]
        n_items = int(self.items.max()) + 1
        return _Answer(
            right={
                # Over an item's languages: states of one item hang together and are drawn as one.
                name: np.bincount(self.items, found, n_items) / np.bincount(self.items)
                for name, found in right.items()
            },
            variance=1 - after / before if before else float("nan"),
        )


def _variance(states: Float[np.ndarray, "state d_model"]) -> float:
    return float(((states - states.mean(0)) ** 2).sum())


def _numbers(
    right: Float[np.ndarray, "draw item"], kind: str, resampling: Resampling, clusters: np.ndarray
) -> dict[str, float]:
    if kind == "value":
        boot = bootstrap(right.T, clusters=clusters, resampling=resampling, bounds=(0, 1))
        (low,), (high,) = boot.interval()
        return {"mean": float(boot.mean[0]), "low": float(low), "high": float(high)}
    # Draws of a control are whole probes, each with its own accuracy.
    mean, low, high = spread(right.mean(1), resampling.confidence)
    return {"mean": mean, "low": low, "high": high}
