"""Does dissimilarity inside go with inconsistency outside? Correlations over pairs of languages."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from math import factorial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import rankdata

from xlens.checks import typed
from xlens.consistency.panel import METRICS, ConsistencyResult
from xlens.errors import InputError
from xlens.results import Result, analysed
from xlens.stats import generator, middle

FEWEST = 4
"""Languages: three have three pairs, whose order a permutation can hardly beat."""
KINDS = {
    "value": "as it is",
    "accuracy_out": "what goes with the two languages' mean accuracy taken out of both",
}


@dataclass(frozen=True, kw_only=True)
class Dissociation(Result):
    """Correlations over pairs of languages of similarity with consistency, layer by layer.

    Attributes:
        table: One row per layer, similarity measure, consistency metric and kind: `layer measure
            metric kind rho p p_adjusted null_low null_high n_pairs`. `rho` is Spearman's;
            `p` and the null's middle 95 % come from permuting the languages of one of the two
            matrices (Mantel's test), since pairs that share a language are not independent.
            `p_adjusted` is over all layers and measures of a metric and kind: how often the
            strongest of them is as strong, under the same permutations.
        languages: Whose pairs.
        n_permutations: Behind each p.
    """

    table: pd.DataFrame
    languages: tuple[str, ...]
    n_permutations: int

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    def counted(self, level: float, *, metric: str = "spearman") -> "Counted | None":
        """How many correlations there are, and how many of them stay; None: nothing varies.

        Args:
            level: Of the tests.
            metric: Of consistency.
        """
        known = self.table.dropna(subset=["rho"])
        known = known[known["metric"] == metric]
        raw, out = (known[known["kind"] == kind] for kind in KINDS)
        if raw.empty:
            return None
        # What has no number with accuracy taken out is neither kept nor lost: it is `untold`.
        before, after = (_signed(rows[rows["p"] < level]) for rows in (raw, out))
        told = {cell[:2] for cell in _signed(out)}
        strength = raw["rho"].abs()
        return Counted(
            n=len(raw),
            found=len(before),
            negative=sum(sign < 0 for *_, sign in before),
            strongest=raw[strength == strength.max()],
            adjusted=bool((self.table["kind"] == "accuracy_out").any()),
            n_adjusted=len(out),
            stay=len(before & after),
            untold=sum(cell[:2] not in told for cell in before),
            new=len(after - before),
        )


@dataclass(frozen=True)
class Counted:
    """Correlations of a `Dissociation` in numbers.

    Attributes:
        n: Combinations of layer and measure.
        found: Of these, correlated by the test.
        negative: Of these, the negative ones.
        strongest: Rows of the strongest: several where they are alike.
        adjusted: Whether accuracy was taken out as well.
        n_adjusted: Combinations with accuracy taken out.
        stay: Of those found, how many are found then too, with the same sign.
        untold: Of those found, of how many nothing can be told then.
        new: Found then only, or with another sign.
    """

    n: int
    found: int
    negative: int
    strongest: pd.DataFrame
    adjusted: bool
    n_adjusted: int
    stay: int
    untold: int
    new: int


def _signed(rows: pd.DataFrame) -> set[tuple[Any, ...]]:
    """Layer, measure and sign: a correlation that turns round is another one."""
    return set(zip(rows["layer"], rows["measure"], np.sign(rows["rho"]), strict=True))


@typed
def dissociation(
    similarity: pd.DataFrame,
    panel: ConsistencyResult,
    *,
    metrics: Sequence[str] = ("spearman", "rank_c", "lift"),
    n_permutations: int = 999,
    seed: int = 0,
) -> Dissociation:
    """Correlate how alike two languages are inside with how alike they answer.

    arXiv 2505.13141 finds that inconsistent predictions go with dissimilar, language-specific
    representations; how it tests that is not confirmed, so this test is our reading. Languages
    that a model knows badly are both unlike the others and answered badly: `accuracy_out` says
    what is left when that is taken out.

    Args:
        similarity: `layer a b measure mean` and, if there, `kind` (rows of kind `value` count):
            `language_similarity(...).to_frame()`. Higher is more alike.
        panel: From `consistency`; directed metrics are averaged over both directions.
        metrics: Of the panel.
        n_permutations: Draws, where the languages have more orders than that; else all orders.
        seed: Of the draws.

    Raises:
        ValueError: fewer than four common languages, a missing column or metric.
    """
    if lacking := sorted({"layer", "a", "b", "measure", "mean"} - set(similarity.columns)):
        raise InputError(
            f"similarity lacks the columns {lacking}; give language_similarity(...).to_frame()."
        )
    there = set(panel.pairs["metric"])
    if (unknown := [m for m in metrics if m not in there]) or not metrics:
        raise InputError(
            f"metrics={unknown or metrics!r}; the panel has {sorted(there)} of {list(METRICS)}."
        )
    if "kind" in similarity:
        similarity = similarity[similarity["kind"] == "value"]
    inside = {*similarity["a"], *similarity["b"]}
    tags = [tag for tag in panel.languages["language"] if tag in inside]
    if len(tags) < FEWEST:
        raise InputError(
            f"{len(tags)} languages are in both ({tags}); a correlation over pairs of languages "
            f"needs at least {FEWEST}."
        )
    # The same orders for every layer and measure, so that the strongest of
    # them can be taken order by order below.
    orders = _orders(len(tags), n_permutations, generator(seed))
    # [pair] twice: numbers of each pair's two languages.
    first, second = np.array(list(combinations(range(len(tags)), 2))).T
    accuracy = panel.languages.set_index("language").loc[tags, "accuracy"].to_numpy(float)
    pair_accuracy = (accuracy[first] + accuracy[second]) / 2
    outside = {metric: _symmetric(panel, metric, tags)[first, second] for metric in metrics}
    drawn = len(orders) < factorial(len(tags))
    strongest = {(m, kind): np.zeros(len(orders)) for m in outside for kind in KINDS}
    rows: list[dict[str, Any]] = []
    for (layer, measure), mine in similarity.groupby(["layer", "measure"], sort=False):
        alike = _matrix(mine, tags)
        # [draw, pair]: languages change places, and with them all their pairs at once (Mantel).
        permuted = alike[orders[:, first], orders[:, second]]
        for metric, values in outside.items():
            for kind in KINDS:
                # Accuracy stays with the answers, whose it is: only the inside is permuted.
                control = None if kind == "value" else pair_accuracy
                null = _spearman(permuted, values, control)
                rho = _spearman(alike[first, second][None], values, control)[0]
                low, high = middle(null) if np.isfinite(rho) else (np.nan, np.nan)
                most = strongest[metric, kind]
                # `fmax` passes over NaN: a layer where nothing varies sets no mark.
                np.fmax(most, np.abs(null), out=most)
                rows.append(
                    {
                        "layer": layer,
                        "measure": measure,
                        "metric": metric,
                        "kind": kind,
                        "rho": rho,
                        "p": _share_beyond(np.abs(null), rho, drawn),
                        "null_low": float(low),
                        "null_high": float(high),
                        "n_pairs": len(first),
                    }
                )
    for row in rows:
        most = strongest[row["metric"], row["kind"]]
        row["p_adjusted"] = _share_beyond(most, row["rho"], drawn)
    columns = ["layer", "measure", "metric", "kind", "rho", "p", "p_adjusted"]
    return Dissociation(
        provenance=analysed(panel.provenance, "dissociation", {"seed": seed}),
        table=pd.DataFrame(rows, columns=[*columns, "null_low", "null_high", "n_pairs"]),
        languages=tuple(tags),
        n_permutations=len(orders),
    )


def _share_beyond(null: Float[np.ndarray, " draw"], rho: float, drawn: bool) -> float:
    """How often chance does as well; the identity is among all orders, and added to drawn ones."""
    if not np.isfinite(rho):
        return float("nan")
    # The room is for sums that differ by the order of their
    # terms: a permutation may give rho again.
    return float(((null >= abs(rho) - 1e-12).sum() + drawn) / (len(null) + drawn))


def _orders(n: int, most: int, rng: np.random.Generator) -> Int[np.ndarray, "draw language"]:
    if factorial(n) <= most:
        return np.array(list(permutations(range(n))))
    return np.stack([rng.permutation(n) for _ in range(most)])


def _symmetric(
    panel: ConsistencyResult, metric: str, tags: list[str]
) -> Float[np.ndarray, "language language"]:
    matrix = panel.matrix(metric).loc[tags, tags].to_numpy(float)
    return (matrix + matrix.T) / 2


def _matrix(rows: pd.DataFrame, tags: list[str]) -> Float[np.ndarray, "language language"]:
    out = np.full((len(tags), len(tags)), np.nan)
    for a, b, value in rows[["a", "b", "mean"]].itertuples(index=False, name=None):
        if a in tags and b in tags:
            out[tags.index(a), tags.index(b)] = out[tags.index(b), tags.index(a)] = value
    return out


def _spearman(
    many: Float[np.ndarray, "draw pair"],
    one: Float[np.ndarray, " pair"],
    control: Float[np.ndarray, " pair"] | None,
) -> Float[np.ndarray, " draw"]:
    """Spearman's rho of each row with `one`; with a control, of what its ranks leave of both."""
    known = np.isfinite(many[0]) & np.isfinite(one)
    if not np.isfinite(many).all() or known.sum() < 3:
        return np.full(len(many), np.nan)
    ranks = [rankdata(values[..., known], axis=-1) for values in (many, one[None])]
    ranks = [r - r.mean(-1, keepdims=True) for r in ranks]
    if control is not None:
        # Residuals of ranks on ranks: their correlation is Spearman's partial rho.
        c = rankdata(control[known])
        c = c - c.mean()
        if (size := c @ c) > 0:
            ranks = [r - np.outer(r @ c / size, c) for r in ranks]
    x, y = ranks[0], ranks[1][0]
    # Ranks are whole or half numbers, so what is so short is rounding's: nothing was left to vary.
    scale = np.linalg.norm(x, axis=1) * np.linalg.norm(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 1e-9, (x @ y) / scale, np.nan)
