"""Is it language or is it script? Similarities of varieties that share the one, or the other.

Every number about pairs of languages may be about scripts. Here each is averaged over pairs that
share the language and not the script, the script and not the language, neither, or that are a text
and its shuffled twin. What two-script languages gain over unrelated pairs, held against what
sharing a script gains, is the share of "language" that survives a change of script.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.cluster.hierarchy import leaves_list, linkage

from xlens.activations import Activations
from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import Result
from xlens.stats import Bootstrap, Resampling, bootstrap
from xlens.subspace.cka import LEAST_ITEMS, unbiased_without
from xlens.subspace.controls import adjusted, nuisance
from xlens.subspace.folds import Folds, jackknifed, products
from xlens.subspace.pairs import LanguagePairs, language_pairs
from xlens.subspace.relations import PUBLISHED, Pair, Variety, chosen_pairs
from xlens.subspace.similarity import matches, unit
from xlens.subspace.states import origin, parallel

KERNEL, DISTANCE, DIRECTION = "cka_unbiased", "distance", "direction"
BY_ITEM = ("cosine_centred", "retrieval_centred", "mexa_centred", "cosine", "mexa")
SCRIPT_MEASURES = (KERNEL, *BY_ITEM, DISTANCE, DIRECTION)
SOURCES = {
    "distance": "squared distance of means across folds of documents (Walther et al. 2016), over "
    "the mean variance within a variety: our reading",
    "direction": "cosine of the mean-difference vectors from the mean of all varieties, across "
    "folds: our reading",
    "share": "our reading",
}
_WHOLE, _LENGTH = "value", "length_controlled"
_NO_SHARE = {"share": np.nan, "low": np.nan, "high": np.nan}


@dataclass(frozen=True, kw_only=True)
class ScriptControl(Result):
    """Similarities and distances by what two varieties share.

    Attributes:
        table: `layer measure kind relation mean low high n_pairs`: the mean over the pairs of a
            relation (`RELATIONS`). `kind` is `value`, or `length_controlled`: the log of the
            length, its inverse and the tokens a character regressed out. NaN without such pairs.
        share: `layer measure kind share low high`: of what sharing language or script gains over
            sharing neither, the part that is the language's. For `distance`, the part of the
            squared distance that is.
        pairs: `layer a b measure mean`: CKA and distance of every two varieties.
        languages: In the order of the activations, twins too.
        n_items: Parallel items.
        n_folds: Folds of documents.
        confidence: Of the intervals.
        pooling: How a text became one state.
    """

    table: pd.DataFrame
    share: pd.DataFrame
    pairs: pd.DataFrame
    languages: tuple[str, ...]
    n_items: int
    n_folds: int
    confidence: float
    pooling: str

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual points, ascending."""
        return tuple(sorted(map(int, self.table["layer"].unique())))

    @typed
    def similarity(self, families: Mapping[str, str] | None = None) -> LanguagePairs:
        """Every two published varieties, ordered by family, script, and by what lies together.

        Within a family and a script they stand as average linkage of their CKA leaves them.

        Args:
            families: Of the varieties, by tag; None: not known, all are one.

        Raises:
            ValueError: a variety without a family.
        """
        tags = [tag for tag in self.languages if not Variety.of(tag).twin]
        if families is not None and (lacking := [tag for tag in tags if tag not in families]):
            raise InputError(f"No family of {', '.join(lacking)}: name one for every variety.")
        alike = self.pairs[self.pairs["measure"] == KERNEL].groupby(["a", "b"])["mean"].mean()
        blocks: dict[tuple[str, str], list[str]] = {}
        for tag in tags:
            family = "" if families is None else families[tag]
            blocks.setdefault((family, Variety.of(tag).script), []).append(tag)
        first = list(dict.fromkeys(family for family, _ in blocks))
        order: list[str] = []
        # Sorting is stable: within a family, scripts stay in the order in which they came.
        for _, mine in sorted(blocks.items(), key=lambda block: first.index(block[0][0])):
            order += _together(mine, alike)
        there = self.pairs["a"].isin(tags) & self.pairs["b"].isin(tags)
        table = self.pairs[there].assign(kind="value", low=np.nan, high=np.nan, n=self.n_items)
        return LanguagePairs(
            provenance=self.provenance,
            table=table.reset_index(drop=True),
            languages=tuple(order),
            n_items=self.n_items,
            confidence=self.confidence,
            pooling=self.pooling,
        )


def _together(tags: list[str], alike: "pd.Series[float]") -> list[str]:
    """Tags in the order of the leaves of a tree of them."""
    if len(tags) < 3 or alike.empty:
        return tags
    # In the order of SciPy's condensed distances. Pairs have a before b as `languages` have.
    away = [1 - float(alike[a, b]) for a, b in combinations(tags, 2)]
    tree = linkage(np.nan_to_num(np.maximum(away, 0.0), nan=1.0), "average")
    return [tags[i] for i in leaves_list(tree)]


@typed
def script_control(
    activations: Activations,
    *,
    measures: Sequence[str] = SCRIPT_MEASURES,
    pooling: str = "last",
    resampling: Resampling = Resampling(),
    most_pairs: int = 100,
) -> ScriptControl:
    """Similarity by shared language and shared script, at every layer.

    | measure | what it is |
    |---|---|
    | `cka_unbiased` | as in `language_similarity` |
    | `cosine`, `mexa`, `…_centred`, `retrieval_centred` | the same |
    | `distance` | squared distance of the varieties' means, in variances within a variety |
    | `direction` | cosine of their mean-difference (steering) vectors, from the mean of all |

    Means over pairs; documents (`paragraph`) are drawn whole. Distances and directions compare
    different documents only, so that noise adds nothing to them. The intervals hold for these
    varieties: they say nothing of others.

    Args:
        activations: The same items in several varieties; twins by their tags.
        measures: Any of the table's.
        pooling: How a text becomes one state (`pool`).
        resampling: Of the intervals.
        most_pairs: Of each relation; more are drawn by its seed.

    Raises:
        ValueError: an unknown measure, fewer than five items, or what `parallel` refuses.
    """
    if (unknown := [m for m in measures if m not in SCRIPT_MEASURES]) or not measures:
        raise InputError(f"measures={unknown or measures!r}; accepted are {list(SCRIPT_MEASURES)}.")
    if most_pairs < 1:
        raise InputError(f"most_pairs is {most_pairs}; give 1 or more.")
    states = parallel(activations, pooling, at_least=LEAST_ITEMS)
    clusters = resampling.codes(states.meta)
    folds = Folds.deal(clusters, resampling.seed)
    related = chosen_pairs(states.languages, most=most_pairs, seed=resampling.seed)
    terms = nuisance(activations, states)
    work = _Work(measures, related, folds, clusters, resampling)
    rows: list[dict[str, Any]] = []
    shares: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    for index, layer in enumerate(states.layers):
        here = states.layer(index)
        for kind, now in ((_WHOLE, here), (_LENGTH, adjusted(here, terms))):
            for measure, found in work.measured(now, centred_only=kind == _LENGTH).items():
                at = {"layer": layer, "measure": measure, "kind": kind}
                rows += [{**at, **row} for row in found.rows]
                shares.append({**at, **found.share})
                if kind == _WHOLE and found.matrix is not None:
                    pairs += [
                        {
                            "layer": layer,
                            "a": states.languages[a],
                            "b": states.languages[b],
                            "measure": measure,
                            "mean": float(found.matrix[a, b]),
                        }
                        for a, b in language_pairs(len(states.languages))
                    ]
    return ScriptControl(
        provenance=origin(
            activations,
            "script_control",
            pooling=pooling,
            most_pairs=most_pairs,
            **resampling.provenance(),
            sources=SOURCES,
        ),
        table=pd.DataFrame(rows),
        share=pd.DataFrame(shares),
        pairs=pd.DataFrame(pairs, columns=pd.Index(["layer", "a", "b", "measure", "mean"])),
        languages=states.languages,
        n_items=len(states.ids),
        n_folds=folds.n,
        confidence=resampling.confidence,
        pooling=pooling,
    )


@dataclass(frozen=True)
class _Found:
    """One measure at one layer."""

    rows: list[dict[str, Any]]
    share: dict[str, float]
    matrix: np.ndarray | None = None


@dataclass(frozen=True)
class _Work:
    measures: Sequence[str]
    related: Mapping[str, list[Pair]]
    folds: Folds
    clusters: np.ndarray
    resampling: Resampling

    @cached_property
    def there(self) -> list[str]:
        """Relations that have a pair."""
        return [name for name, pairs in self.related.items() if pairs]

    @cached_property
    def columns(self) -> list[int]:
        """Of `there`, what a share is made of; empty where one of them is lacking."""
        known = all(name in self.there for name in PUBLISHED)
        return [self.there.index(name) for name in PUBLISHED] if known else []

    @cached_property
    def needed(self) -> list[Pair]:
        """Every pair of a relation, once."""
        return sorted({pair for pairs in self.related.values() for pair in pairs})

    def measured(self, states: np.ndarray, *, centred_only: bool) -> dict[str, _Found]:
        found: dict[str, _Found] = {}
        if KERNEL in self.measures:
            found[KERNEL] = self._kernels(states)
        for centred in (True, False):
            wanted = [
                m for m in self.measures if m in BY_ITEM and m.endswith("_centred") == centred
            ]
            if wanted and (centred or not centred_only):
                found |= self._by_item(states, wanted, centred)
        if {DISTANCE, DIRECTION} & {*self.measures}:
            found |= self._means(states)
        return found

    def _by_item(
        self, states: np.ndarray, wanted: Sequence[str], centred: bool
    ) -> dict[str, _Found]:
        """Cosines once, for all that is read from them; single precision is enough to rank."""
        x = np.empty(states.shape, np.float32)
        for variety, own in enumerate(states):
            x[variety] = unit(own - own.mean(0) if centred else own)
        sums = {m: np.empty((states.shape[1], len(self.there))) for m in wanted}
        for column, name in enumerate(self.there):
            each = [_each(x[a] @ x[b].T) for a, b in self.related[name]]
            for measure in wanted:
                # `_each` is given centred states already, and knows nothing of centring.
                part = measure.removesuffix("_centred")
                sums[measure][:, column] = np.mean([found[part] for found in each], axis=0)
        found: dict[str, _Found] = {}
        for measure, table in sums.items():
            least = -1.0 if measure.startswith("cosine") else 0.0
            boot = bootstrap(
                table, clusters=self.clusters, resampling=self.resampling, bounds=(least, 1.0)
            )
            rows = self._rows(boot.mean, *boot.interval())
            found[measure] = _Found(rows, _boot_share(boot, self.columns))
        return found

    def _kernels(self, states: np.ndarray) -> _Found:
        every = unbiased_without(states, self.folds.members())
        rows = np.stack([every[:, a, b] for a, b in self.needed], axis=1)
        return self._jackknifed(rows, every[0])

    def _means(self, states: np.ndarray) -> dict[str, _Found]:
        if self.folds.n < 2:
            return {}
        centred = states - states.mean((0, 1))  # large common parts would only cost precision
        inner = products(self.folds.sums(centred), self.folds.sizes)
        # The variance within a variety: of one after another, as all at once take long to copy.
        spread = float(np.mean([own.var(0).sum() for own in states]))
        own = np.diagonal(inner, axis1=1, axis2=2)
        # |a - b|² of the means, [row, variety, variety], from inner products across folds only.
        squared = (own[:, :, None] + own[:, None, :] - 2 * inner) / (spread or np.nan)
        found: dict[str, _Found] = {}
        for measure, all_rows in ((DISTANCE, squared), (DIRECTION, _cosines(inner))):
            if measure in self.measures:
                rows = np.stack([all_rows[:, a, b] for a, b in self.needed], axis=1)
                distance = measure == DISTANCE
                # Row 0 has all folds.
                matrix = all_rows[0] if distance else None
                found[measure] = self._jackknifed(rows, matrix, distance=distance)
        return found

    def _jackknifed(
        self, rows: np.ndarray, matrix: np.ndarray | None, *, distance: bool = False
    ) -> _Found:
        """Means over pairs, from the numbers of every pair: all folds first, then without each."""
        at = {pair: n for n, pair in enumerate(self.needed)}
        means = np.column_stack(
            [rows[:, [at[pair] for pair in self.related[name]]].mean(1) for name in self.there]
        )
        confidence = self.resampling.confidence
        low, high = jackknifed(means[0], means[1:], confidence)
        # A squared distance has no upper bound; the others are cosines of a kind.
        said = self._rows(means[0], low, high if distance else np.minimum(high, 1.0))
        if not self.columns:
            return _Found(said, _NO_SHARE, matrix)
        share = _share(means[:, self.columns], distance=distance)
        (low,), (high,) = jackknifed(share[:1], share[1:, None], confidence)
        ends = {"share": float(share[0]), "low": float(low), "high": float(high)}
        return _Found(said, ends, matrix)

    def _rows(self, mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[dict[str, Any]]:
        """A row for every relation; NaN where it has no pair."""
        known = dict(zip(self.there, zip(mean, low, high, strict=True), strict=True))
        rows: list[dict[str, Any]] = []
        for name, pairs in self.related.items():
            ends = zip(("mean", "low", "high"), known.get(name, (np.nan,) * 3), strict=True)
            numbers = {end: float(number) for end, number in ends}
            rows.append({"relation": name, **numbers, "n_pairs": len(pairs)})
        return rows


def _each(cosines: Float[np.ndarray, "item item"]) -> dict[str, Float[np.ndarray, " item"]]:
    return {"cosine": np.diag(cosines).astype(np.float64), **matches(cosines)}


def _cosines(inner: Float[np.ndarray, "row variety variety"]) -> np.ndarray:
    """Between the varieties' means, seen from the mean of all."""
    # Centring an inner product's rows and columns is centring the vectors.
    around = inner - inner.mean(1, keepdims=True)
    around = around - around.mean(2, keepdims=True)
    own = np.diagonal(around, axis1=1, axis2=2)
    with np.errstate(invalid="ignore"):
        return around / np.sqrt(own[:, :, None] * own[:, None, :])


def _share(
    means: Float[np.ndarray, "*row relation"], *, distance: bool = False
) -> Float[np.ndarray, "*row"]:
    """The language's part, from the means by language, script and neither.

    NaN where sharing either makes varieties less alike than sharing neither.
    """
    language, script, neither = (means[..., n] for n in range(3))
    if distance:
        # Same language: the distance is the script's. Same script: it is the language's.
        # A squared length that is estimated without bias falls below 0 where it is nothing.
        of_language, of_script = np.maximum(script, 0.0), np.maximum(language, 0.0)
    else:
        of_language, of_script = language - neither, script - neither
    both = (of_language >= 0) & (of_script >= 0) & (of_language + of_script > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(both, of_language / (of_language + of_script), np.nan)


def _boot_share(boot: Bootstrap, columns: Sequence[int]) -> dict[str, float]:
    if not columns:
        return _NO_SHARE
    # Without a share of the sample there is nothing whose interval could be said.
    share = float(_share(boot.mean[list(columns)]))
    if share != share:
        return {"share": share, "low": np.nan, "high": np.nan}
    low, high = boot.interval(_share, columns)
    return {"share": share, "low": float(low), "high": float(high)}
