"""Resampling whole clusters of prompts: intervals by bootstrap, tests by sign flips."""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

DEFAULT_CLUSTER = "paragraph"


def cluster_of(meta: pd.DataFrame, column: str | None = None) -> Int[np.ndarray, " prompt"]:
    """The number of each prompt's cluster.

    Prompts about one paragraph, and the same item in several languages, are not independent: they
    are drawn, and flipped, together.

    Args:
        meta: One row per prompt.
        column: Of the clusters; None for `paragraph` where there is one, else `id`.

    Raises:
        ValueError: no such column, or a prompt without a value in it.
    """
    if column is None:
        column = DEFAULT_CLUSTER if DEFAULT_CLUSTER in meta else "id"
    if column not in meta:
        raise ValueError(
            f"cluster={column!r} is no column of the prompts' meta; there are {list(meta.columns)}."
        )
    codes, _ = pd.factorize(meta[column])
    if (codes < 0).any():
        raise ValueError(
            f"{int((codes < 0).sum())} prompts have no {column!r}; give each one its cluster, or "
            "name another column."
        )
    return np.asarray(codes, dtype=np.int64)


def shared_rows(
    meta: pd.DataFrame, one: str, other: str
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Rows of two languages' prompts that have the same ids, in the order of the first."""
    rows = list(enumerate(zip(meta["id"], meta["language"], strict=True)))
    where = [{id: i for i, (id, language) in rows if language == tag} for tag in (one, other)]
    shared = [id for id in where[0] if id in where[1]]
    return (
        np.array([where[0][id] for id in shared], dtype=np.int64),
        np.array([where[1][id] for id in shared], dtype=np.int64),
    )


def random_signs(n: int, n_flips: int, seed: int) -> Float[np.ndarray, "draw cluster"]:
    """Signs of `n` clusters; the first row is all +1, the clusters as they are.

    Where there are fewer than `n_flips` different rows, each of them occurs once.
    """
    if n < 63 and 2**n <= n_flips:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return 1.0 - 2.0 * bits
    signs = np.random.default_rng([seed, 1]).choice([-1.0, 1.0], size=(n_flips + 1, n))
    signs[0] = 1.0
    return signs


def percentiles(draws: Float[np.ndarray, " draw"], confidence: float) -> tuple[float, float]:
    """The interval that holds `confidence` of the draws; NaN where fewer than half are numbers."""
    kept = draws[np.isfinite(draws)]
    if 2 * len(kept) < max(1, len(draws)):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    # An integer statistic's interval ends at integers.
    low, high = np.quantile(kept, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)
