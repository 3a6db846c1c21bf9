"""Where to steer, said before anything is steered: languages alike and apart in equal parts."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.steering.vectors import SteeringVectors


@typed
def layer_balance(vectors: Mapping[str, SteeringVectors]) -> pd.DataFrame:
    """How far the languages' vectors are one, and how far they are apart: `alignment separability`.

    As in the code of arXiv 2605.23036 (Yusser96/Multilingual-Steering-by-Design, detect_layer.py):
    alignment is the share that the first eigenvalue has of the correlation matrix of the
    languages' vectors, separability is the rest. From which mean their vectors are taken it doesn't
    say; here they lead from one source to every target (our reading).

    Args:
        vectors: From one source to each of two languages or more, at the same layers.

    Returns:
        A row per layer: `layer alignment separability`; NaN where a vector is constant.

    Raises:
        ValueError: fewer than two languages, or other layers.
    """
    every = list(vectors.values())
    if len(every) < 2 or len({each.layers for each in every}) > 1:
        raise InputError(
            f"Vectors to {', '.join(vectors) or 'no language'}; the rule compares those to two "
            "languages or more, at the same layers."
        )
    rows: list[dict[str, float]] = []
    for at, layer in enumerate(every[0].layers):
        with np.errstate(divide="ignore", invalid="ignore"):
            # [language, language]; corrcoef centres each vector over its own d_model entries.
            alike = np.corrcoef(np.stack([each.vectors[at] for each in every]).astype(np.float64))
        share = np.nan
        if np.isfinite(alike).all():
            # A correlation matrix has none below 0 but by rounding.
            sizes = np.clip(np.linalg.eigvalsh(alike), 0.0, None)
            share = float(sizes.max() / sizes.sum())
        rows.append({"layer": layer, "alignment": share, "separability": 1 - share})
    return pd.DataFrame(rows)


@typed
def predicted_layer(balance: pd.DataFrame, layers: Sequence[int]) -> int | None:
    """The layer at which the two come nearest to each other, the lowest of equals.

    Args:
        balance: From `layer_balance`.
        layers: That can be chosen.

    Returns:
        The layer; None where none of them has numbers.
    """
    there = balance[balance["layer"].isin(list(layers))].dropna()
    if there.empty:
        return None
    apart = (there["alignment"] - there["separability"]).abs().to_numpy()
    return int(there["layer"].iloc[int(apart.argmin())])
