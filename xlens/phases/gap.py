"""How much deeper the context has to be encoded than the question, prompt by prompt."""

from dataclasses import replace

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.phases.depth import DepthResult, segment_means
from xlens.stats import Resampling


@typed
def depth_gap(
    depth: DepthResult,
    *,
    question: str = "question",
    context: str = "context",
    resampling: Resampling = Resampling(),
) -> pd.DataFrame:
    """Mean of each prompt's context depth less its question depth, with intervals.

    Zero or less is a result: by relevance, the question is then not done with before the context.

    Args:
        depth: With both segments.
        question: Name of the question's segment.
        context: Name of the context's, or of the answer sentence's.
        resampling: Of the intervals.

    Returns:
        `language gap low high share n`, in residual points; `share` is the gap by the blocks, and
        language `all` pools them.

    Raises:
        ValueError: a missing segment, an unknown column or a bad option.
    """
    if missing := [s for s in (question, context) if s not in depth.segments]:
        raise InputError(f"This depth has no segments {missing}; it has {list(depth.segments)}.")
    one, other = (
        depth.table[depth.table["segment"] == s].reset_index(drop=True) for s in (question, context)
    )
    gaps = one.assign(segment="gap", depth=other["depth"] - one["depth"])
    bounds = (-depth.n_layers, depth.n_layers)
    means = segment_means(replace(depth, table=gaps), bounds, resampling)
    return means.drop(columns="segment").rename(columns={"depth": "gap"})
