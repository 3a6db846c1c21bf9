"""`LayerEffects`: what the last layers do, prompt by prompt, so that two models can be paired."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from xlens.errors import InputError
from xlens.phases.curves import mean_curve
from xlens.results import Result, analysed
from xlens.stats import ClusterSums, Resampling

SWAPPED = "swapped blocks"


@dataclass(frozen=True, kw_only=True)
class LayerEffects(Result):
    """Numbers by layer and language, with a control beside them, and the prompts behind them.

    Attributes:
        table: `language layer mean low high control n`; of swapped blocks also `change change_low
            change_high control_change`: paired with 0 swapped blocks.
        values: Each prompt's own; NaN where it has none.
        control: The same for the control.
        layers: What `layer` counts: residual points; of swapped blocks and late relevance the
            number of blocks or points, from the top.
        meta: One row per prompt: `id`, `language` and the prompts' meta.
        effect: `lens gap`, `recovered`, `late relevance` or `swapped blocks`.
        options: What the numbers were made with: the pivot, the kind of evidence, the segment.
        n_layers: Blocks of the model.
        confidence: Of the intervals.
    """

    table: pd.DataFrame
    values: Float[np.ndarray, "prompt layer"]
    control: Float[np.ndarray, "prompt layer"]
    layers: tuple[int, ...]
    meta: pd.DataFrame
    effect: str
    options: dict[str, Any]
    cluster: str | None
    n_layers: int
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    @property
    def changes(self) -> tuple[np.ndarray, np.ndarray]:
        """`values` and `control` less those of the same prompt with 0 swapped blocks.

        Raises:
            ValueError: an effect that is no exchange of blocks, and so has no such baseline.
        """
        if self.effect != SWAPPED:
            raise InputError(
                f"Changes are those from 0 {SWAPPED}; this effect is {self.effect!r}, a difference "
                "already. Take its values."
            )
        at = self.layers.index(0)
        return self.values - self.values[:, [at]], self.control - self.control[:, [at]]


def layer_effects(
    values: np.ndarray,
    control: np.ndarray,
    *,
    layers: Sequence[int],
    meta: pd.DataFrame,
    effect: str,
    options: dict[str, Any],
    n_layers: int,
    resampling: Resampling,
    provenance: dict[str, Any],
) -> LayerEffects:
    """Means of per-prompt values by language, with intervals over clusters.

    Raises:
        ValueError: no such column, or a bad option.
    """
    meta = meta.reset_index(drop=True)
    clusters = resampling.codes(meta)
    weights = resampling.weights(int(clusters.max()) + 1)

    def by_language(values: np.ndarray, control: np.ndarray) -> pd.DataFrame:
        parts: list[pd.DataFrame] = []
        for language in meta["language"].unique():
            here = (meta["language"] == language).to_numpy()
            table = mean_curve(values[here], clusters[here], weights, layers, resampling)
            beside = ClusterSums.of(control[here], clusters[here]).mean()
            parts.append(table.assign(language=language, control=beside))
        columns = ["language", "layer", "mean", "low", "high", "control", "n"]
        return pd.concat(parts, ignore_index=True)[columns]

    found = LayerEffects(
        provenance=analysed(
            provenance,
            "effects",
            {"effect": effect, "source": "our reading", **resampling.provenance()},
        ),
        table=by_language(values, control),
        values=np.asarray(values, dtype=np.float64),
        control=np.asarray(control, dtype=np.float64),
        layers=tuple(layers),
        meta=meta,
        effect=effect,
        options=options,
        cluster=resampling.clusters,
        n_layers=n_layers,
        confidence=resampling.confidence,
    )
    if effect == SWAPPED:
        changed = by_language(*found.changes)
        names = {"mean": "change", "low": "change_low", "high": "change_high"}
        for column, name in (names | {"control": "control_change"}).items():
            found.table[name] = changed[column]
    return found
