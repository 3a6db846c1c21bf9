"""`Resampling`: what intervals are drawn from, how often, and how wide."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from xlens.checks import check_fields, typed
from xlens.errors import InputError
from xlens.stats.draws import generator
from xlens.stats.intervals import interval
from xlens.wording import percent

DEFAULT_CLUSTER = "paragraph"
HEADER = "header"
"""Column of the demonstrations that prompts share."""
MOST_DRAWS = 1_000_000  # their weights fill the memory before they make an interval surer


@dataclass(frozen=True)
class Resampling:
    """How intervals are made; every function that draws some takes one.

    Attributes:
        draws: Resamples.
        confidence: Of the intervals.
        seed: Of the draws.
        clusters: Column of the prompts' table whose values are drawn whole, as prompts about one
            paragraph, and one item in several languages, are not independent. None: `paragraph`
            where there is one, else `id`. Prompts that share a `header` of demonstrations are
            drawn whole as well.

    Raises:
        ValueError: no draws, a confidence outside (0, 1), or a seed that is none.
    """

    draws: int = 1000
    confidence: float = 0.95
    seed: int = 0
    clusters: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.confidence < 1:
            raise InputError(
                f"confidence is {self.confidence}; accepted is a share between 0 and 1."
            )
        if not 1 <= self.draws <= MOST_DRAWS:
            raise InputError(f"draws is {self.draws}; accepted are 1 to {MOST_DRAWS:,}.")

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> "Resampling":
        """What a result's intervals were drawn by; the usual where its provenance says none."""
        # Rooms append their options: the last one's are those of what is looked at now.
        for known in (*reversed(list(provenance.values())), provenance):
            if isinstance(known, Mapping) and "resampling" in known:
                return cls(**known["resampling"])
        return cls()

    @property
    def percent(self) -> str:
        """The confidence in words: `95 %`."""
        return percent(self.confidence, whole=False)

    @property
    def level(self) -> float:
        """Of tests that go with the intervals: what is left of 1."""
        return 1 - self.confidence

    def codes(self, meta: pd.DataFrame) -> Int[np.ndarray, " prompt"]:
        """The number of each prompt's cluster: `cluster_of` with the column asked for."""
        return cluster_of(meta, self.clusters)

    def weights(self, n: int) -> Float[np.ndarray, "draw cluster"]:
        """How often each of `n` clusters is drawn."""
        # One seed and one n give the same resamples again, so that two tables of the same clusters
        # are drawn together and their difference keeps what they share.
        random = generator(self.seed)
        return random.multinomial(n, np.full(n, 1 / n), size=self.draws).astype(np.float64)

    def rows(self, n: int) -> "Rows":
        """The weights of `n` clusters in the sample, its resamples and without each in turn."""
        # One product of this with sums by cluster computes the statistic for every row at once.
        every = np.vstack([np.ones(n), self.weights(n), 1 - np.eye(n)])
        return Rows(every, slice(1, 1 + self.draws))

    def provenance(self) -> dict[str, Any]:
        """For a result's provenance."""
        return {"resampling": asdict(self)}


@dataclass(frozen=True, eq=False)
class Rows:
    """Weights by which a statistic is computed over and over, to get its interval.

    Attributes:
        weights: The first row is the sample as it is; last come rows without one cluster each.
        drawn: Which rows are resamples.
    """

    weights: Float[np.ndarray, "row cluster"]
    drawn: slice

    @property
    def n(self) -> int:
        """Clusters."""
        return self.weights.shape[1]

    def interval(
        self, values: Float[np.ndarray, " row"], clusters: int, confidence: float
    ) -> tuple[float, float]:
        """Of a statistic, from its value in every row.

        Args:
            values: By row.
            clusters: That play a part in it.
            confidence: Of the interval.
        """
        draws, left_out = values[self.drawn, None], values[self.drawn.stop :, None]
        (low,), (high,) = interval(
            values[:1], draws, left_out, clusters=clusters, confidence=confidence
        )
        return float(low), float(high)


@typed
def cluster_of(meta: pd.DataFrame, column: str | None = None) -> Int[np.ndarray, " prompt"]:
    """The number of each prompt's cluster.

    Where prompts share headers of demonstrations (a column `header`), what shares one hangs
    together, and so does what shares a cluster: the numbers are those of `joined`.

    Args:
        meta: One row per prompt.
        column: Of the clusters; None for `paragraph` where there is one, else `id`.

    Raises:
        ValueError: no such column, or a prompt without a value in it.
    """
    if column is None:
        column = DEFAULT_CLUSTER if DEFAULT_CLUSTER in meta else "id"
    if column not in meta:
        raise InputError(
            f"clusters={column!r} is no column of the prompts' table; there are "
            f"{list(meta.columns)}."
        )
    codes, _ = pd.factorize(meta[column])
    if (codes < 0).any():
        raise InputError(
            f"{int((codes < 0).sum())} prompts have no {column!r}; give each one its cluster, or "
            "name another column."
        )
    own = np.asarray(codes, dtype=np.int64)
    return joined(own, meta[HEADER]) if HEADER in meta else own


@typed
def joined(
    clusters: Sequence[Hashable] | np.ndarray | pd.Series,
    *others: Sequence[Hashable] | np.ndarray | pd.Series,
) -> Int[np.ndarray, " prompt"]:
    """Clusters of what hangs together in any way: connected components.

    Where one kind of cluster lies within the other, as paragraphs do within headers that are dealt
    by paragraph, it is the larger kind. Where they cross, as few components are left as there are
    independent parts: intervals get wide, or there are none; they never feign certainty.

    Args:
        clusters: Of each prompt.
        others: Further kinds; a prompt without a value is of no such cluster.

    Returns:
        Numbers from 0, in the prompts' order.
    """
    found = np.asarray(pd.factorize(pd.Series(list(clusters), dtype="object"))[0], dtype=np.int64)
    for other in others:
        codes, _ = pd.factorize(pd.Series(list(other), dtype="object"))
        there = np.flatnonzero(codes >= 0)
        # A graph with the clusters so far as nodes 0 to n - 1 and the other kind's after them;
        # every prompt is an edge between its two.
        n, m = int(found.max(initial=-1)) + 1, int(codes.max(initial=-1)) + 1
        ends = (found[there], n + codes[there])
        links = coo_array((np.ones(len(there)), ends), shape=(n + m, n + m))
        _, parts = connected_components(links, directed=False)
        found = np.asarray(pd.factorize(parts[found])[0], dtype=np.int64)
    return found
