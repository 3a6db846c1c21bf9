"""How much deeper the context has to be encoded than the question, prompt by prompt."""

from typing import Any

import numpy as np
import pandas as pd

from xlens.phases.curves import ALL
from xlens.phases.depth import DepthResult
from xlens.phases.resample import cluster_of, percentiles
from xlens.stats import ClusterSums, bootstrap_weights, check_draws


def depth_gap(
    depth: DepthResult,
    *,
    question: str = "question",
    context: str = "context",
    cluster: str | None = None,
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean of each prompt's context depth less its question depth, with bootstrap intervals.

    Zero or less is a result: by relevance, the question is then not done with before the context.

    Args:
        depth: With both segments.
        question: Name of the question's segment.
        context: Name of the context's, or of the answer sentence's.
        cluster: Meta column drawn whole; None for `paragraph` where there is one, else `id`.
        confidence: Of the intervals.
        n_boot: Resamples.
        seed: Of the bootstrap.

    Returns:
        `language gap low high share n`, in residual points; `share` is the gap by the blocks, and
        language `all` pools them.

    Raises:
        ValueError: a missing segment, an unknown column or a bad option.
    """
    check_draws(confidence, n_boot=n_boot)
    if missing := [s for s in (question, context) if s not in depth.segments]:
        raise ValueError(f"This depth has no segments {missing}; it has {list(depth.segments)}.")
    one, other = (
        depth.table[depth.table["segment"] == s].reset_index(drop=True) for s in (question, context)
    )
    gaps = (other["depth"] - one["depth"]).to_numpy(float)
    clusters = cluster_of(one, cluster)
    weights = bootstrap_weights(int(clusters.max()) + 1, n_boot, seed)
    rows: list[dict[str, Any]] = []
    for language in (ALL, *one["language"].unique()):
        here = np.ones(len(one), bool) if language == ALL else (one["language"] == language)
        values = np.where(here, gaps, np.nan)[:, None]
        sums = ClusterSums.of(values, clusters)
        low, high = percentiles(sums.draws(weights)[:, 0], confidence)
        mean = float(sums.mean()[0])
        rows.append(
            {
                "language": language,
                "gap": mean,
                "low": low,
                "high": high,
                "share": mean / depth.n_layers,
                "n": int(np.isfinite(values).sum()),
            }
        )
    return pd.DataFrame(rows)
