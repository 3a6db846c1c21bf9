"""Major relevance depth, up to which layer something has to be encoded: definition and result."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from xlens._renamed import names_of, renamed
from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import Result
from xlens.stats import Bootstrap, ClusterSums, Resampling

Measure = Literal["cumulative", "percentile"]
Sign = Literal["abs", "positive"]
Normalise = Literal["none", "sum", "max"]
Aggregate = Literal["segment", "tokens"]
# An exact share must not flip with the last bit of a sum.
_TOLERANCE = 1e-9


@renamed(reading="measure")
@dataclass(frozen=True)
class DepthOptions:
    """How relevance becomes a depth; what the paper leaves open is a switch.

    Attributes:
        measure: `cumulative`: the first layer at which `share` of the relevance, summed from below,
            has been reached. `percentile`: the last layer whose relevance reaches that percentile
            of the layers' relevances (linear interpolation).
        share: Of the relevance, or the percentile as a share.
        sign: `abs`, or `positive`: negative relevance counts as none.
        normalise: Each layer's relevances divided by `none`, or by the `sum` or the `max` of their
            sizes over all tokens of the prompt but BOS.
        embedding: Whether layer 0 counts.
        aggregate: `segment`: relevances are summed over the segment first; `tokens`: mean of its
            tokens' depths.

    Raises:
        ValueError: an unknown switch, or a share outside (0, 1].
    """

    measure: Measure = "cumulative"
    share: float = 0.95
    sign: Sign = "abs"
    normalise: Normalise = "none"
    embedding: bool = False
    aggregate: Aggregate = "segment"

    def __post_init__(self) -> None:
        for name, accepted in (
            ("measure", Measure),
            ("sign", Sign),
            ("normalise", Normalise),
            ("aggregate", Aggregate),
        ):
            if getattr(self, name) not in get_args(accepted):
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; accepted are {list(get_args(accepted))}."
                )
        if not 0 < self.share <= 1:
            raise InputError(f"share is {self.share}; accepted is a number above 0 and up to 1.")


@dataclass(frozen=True, kw_only=True)
class DepthResult(Result):
    """Depth per prompt and segment.

    Attributes:
        table: `prompt id language segment depth share` and the prompts' meta; `depth` in residual
            points, `share` of the model's blocks. NaN where a segment has no relevance.
        n_layers: Blocks of the model.
        options: The switches, by name.
        profiles: Mean relevance of the segments by layer, as summed or averaged over their tokens:
            `language segment layer mean low high n`; intervals over clusters of prompts. Empty
            for the length control.
        kind: `value`, or `random spans` for the length control.
    """

    table: pd.DataFrame
    profiles: pd.DataFrame
    n_layers: int
    options: dict[str, Any]
    kind: str = "value"

    def __post_init__(self) -> None:
        """Results of before say `reading` for what is `measure` now."""
        now = names_of(DepthOptions)
        object.__setattr__(self, "options", {now.get(k, k): v for k, v in self.options.items()})

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    @property
    def segments(self) -> tuple[str, ...]:
        """In order."""
        return tuple(self.table["segment"].unique())

    @property
    def resampling(self) -> Resampling:
        """What the intervals were drawn by."""
        return Resampling.of(self.provenance)

    def summary(
        self,
        *,
        resampling: Resampling = Resampling(),
    ) -> pd.DataFrame:
        """Means per language and segment, with intervals over clusters of prompts.

        Args:
            resampling: Of the intervals.

        Returns:
            `language segment depth low high share n`; language `all` pools them.

        Raises:
            ValueError: an unknown column or a bad option.
        """
        return segment_means(self, (0, self.n_layers), resampling)


def segment_means(
    depth: DepthResult, bounds: tuple[int, int], resampling: Resampling
) -> pd.DataFrame:
    """`DepthResult.summary` of numbers between `bounds`."""
    clusters = resampling.codes(depth.table)
    weights = resampling.weights(int(clusters.max()) + 1)
    rows: list[dict[str, Any]] = []
    for language in ("all", *depth.table["language"].unique()):
        for segment in depth.segments:
            here = (depth.table["segment"] == segment).to_numpy(copy=True)
            if language != "all":
                here &= (depth.table["language"] == language).to_numpy()
            each = np.where(here, depth.table["depth"], np.nan)[:, None]
            sums = ClusterSums.of(each, clusters)
            found = Bootstrap.of(sums, weights, resampling, bounds)
            (low,), (high,) = found.interval()
            mean = float(found.mean[0])
            rows.append(
                {
                    "language": language,
                    "segment": segment,
                    "depth": mean,
                    "low": float(low),
                    "high": float(high),
                    "share": mean / depth.n_layers,
                    "n": int(np.isfinite(each).sum()),
                }
            )
    return pd.DataFrame(rows)


@renamed(reading="measure")
@typed
def major_depth(
    relevance: Float[np.ndarray, "layer item"],
    layers: Sequence[int],
    *,
    measure: Measure = "cumulative",
    share: float = 0.95,
    sign: Sign = "abs",
    embedding: bool = True,
) -> Float[np.ndarray, " item"]:
    """The major relevance depth of tokens or segments.

    `min{l : sum_{k<=l} |R_k| >= share * sum_k |R_k|}`, or the latest l with |R_l| at the percentile
    or above. Sums are compared with a relative tolerance of 1e-9.

    Args:
        relevance: By layer.
        layers: Residual points, ascending.
        measure: As in `DepthOptions`.
        share: As in `DepthOptions`.
        sign: As in `DepthOptions`.
        embedding: Whether layer 0 counts.

    Returns:
        Residual points; NaN where there is no relevance at all, or a NaN in it.

    Raises:
        ValueError: an unknown switch, other layers than rows, or none left.
    """
    DepthOptions(measure=measure, share=share, sign=sign)
    points = np.array(layers)
    if len(points) != len(relevance) or (np.diff(points) <= 0).any():
        raise InputError(
            f"{len(relevance)} rows of relevance for the layers {list(layers)}; give one row per "
            "layer, in ascending order."
        )
    if not embedding:
        relevance, points = relevance[points > 0], points[points > 0]
    if not len(points):
        raise InputError("No layer is left; give layers above 0, or embedding=True.")
    size = np.abs(relevance) if sign == "abs" else np.maximum(relevance, 0.0)
    total = size.sum(axis=0)
    if measure == "cumulative":
        reached = size.cumsum(axis=0) >= share * total * (1 - _TOLERANCE)
        # The first True by item.
        at = reached.argmax(axis=0)
    else:
        with np.errstate(invalid="ignore"):
            wanted = np.quantile(size, share, axis=0)
        reached = size >= wanted * (1 - _TOLERANCE)
        # The last True: the first of the reversed rows.
        at = len(points) - 1 - reached[::-1].argmax(axis=0)
    # Without relevance `argmax` says 0, and a NaN makes `total > 0` False.
    return np.where(total > 0, points[at].astype(float), np.nan)
