"""Relevance depth of segments in prompts, and of random spans as long."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from xlens.checks import typed
from xlens.engine import RelevanceScores
from xlens.errors import InputError
from xlens.phases.curves import mean_curve
from xlens.phases.depth import Aggregate, DepthOptions, DepthResult, Normalise, major_depth
from xlens.results import analysed
from xlens.stats import Resampling, generator

_PROFILE = ["language", "segment", "layer", "mean", "low", "high", "n"]
SOURCES = {
    "definition": "arXiv 2504.10906 as third parties report it: the layer at the 95th percentile of"
    " a token's relevance; the paper's own text is not confirmed",
    "measure, sign, normalise, embedding, aggregate": "our reading",
}


@typed
def relevance_depth(
    scores: RelevanceScores,
    *,
    segments: Sequence[str] = ("question", "context"),
    n_layers: int | None = None,
    bos: bool | None = None,
    options: DepthOptions | None = None,
    resampling: Resampling = Resampling(),
) -> DepthResult:
    """Depth of named segments in every prompt (arXiv 2504.10906, its reading ours).

    Args:
        scores: From `xlens.relevance` with the slots `NAME:sum`, `NAME:mean` or `NAME:each` of the
            segments (or `last`); `NAME:each` for `aggregate="tokens"`, and `all` besides where
            layers are normalised.
        segments: Names of spans, or `last`.
        n_layers: Blocks of the model; None: the deepest layer of the scores.
        bos: Whether the first token is a BOS that normalising leaves out; None: whether all
            prompts began with a special token.
        options: The switches.
        resampling: Of the intervals of the profiles.

    Raises:
        ValueError: a slot that the scores lack.
    """
    how = DepthOptions() if options is None else options
    scale = _layer_scale(scores, how.normalise, bos)
    picked = {s: _segment(scores, s, how.aggregate) for s in segments}
    # Each prompt by itself, [layer, token]: scale[:, i : i + 1] divides its layers.
    depths = {
        s: [_one(x / scale[:, i : i + 1], scores.layers, how) for i, x in enumerate(columns)]
        for s, columns in picked.items()
    }
    clusters = resampling.codes(scores.meta)
    weights = resampling.weights(int(clusters.max()) + 1)
    means: list[pd.DataFrame] = []
    for segment, columns in picked.items():
        each = np.stack([x.sum(1) / scale[:, i] for i, x in enumerate(columns)]).astype(float)
        for language in scores.meta["language"].unique():
            here = (scores.meta["language"] == language).to_numpy()
            table = mean_curve(each[here], clusters[here], weights, scores.layers, resampling)
            means.append(table.assign(language=language, segment=segment))
    profiles = pd.concat(means, ignore_index=True)
    return _result(scores, depths, n_layers, how, "value", resampling.provenance(), profiles)


@typed
def random_span_depth(
    scores: RelevanceScores,
    *,
    segments: Sequence[str] = ("question", "context"),
    n_spans: int = 20,
    n_layers: int | None = None,
    bos: bool | None = None,
    options: DepthOptions | None = None,
    seed: int = 0,
) -> DepthResult:
    """The length control: depth of random spans as long as the segment, elsewhere in the prompt.

    Long segments collect relevance from more places; a depth says something about the segment only
    as far as it differs from this. Mean over `n_spans` spans per prompt, which do not touch the
    segment; NaN where no place is left.

    Args:
        scores: With the slots `all` and `NAME:each` of the segments.
        segments: Names of spans.
        n_spans: Spans per prompt and segment.
        n_layers: As for `relevance_depth`.
        bos: As for `relevance_depth`.
        options: The switches.
        seed: Of the places.

    Raises:
        ValueError: a slot that the scores lack, or no spans asked for.
    """
    if n_spans < 1:
        raise InputError(f"n_spans is {n_spans}; it must be at least 1.")
    how = DepthOptions() if options is None else options
    scale = _layer_scale(scores, how.normalise, bos)
    first = int(_has_bos(scores, bos))
    rng = generator(seed)
    depths: dict[str, list[float]] = {}
    for segment in segments:
        places = scores.rows[scores.rows["slot"] == f"{segment}:each"].groupby("prompt")["position"]
        starts, counts = places.min(), places.size()
        if places.ngroups < len(scores.meta):
            scores.slot(f"{segment}:each")  # says what is missing
        found: list[float] = []
        for i in range(len(scores.meta)):
            every = scores.slot("all", i) / scale[:, i : i + 1]
            start, length = int(starts[i]), int(counts[i])
            free = [
                a
                for a in range(first, every.shape[1] - length + 1)
                # Whole spans, before or after the segment.
                if a + length <= start or a >= start + length
            ]
            drawn = rng.choice(free, size=n_spans) if free else []
            depth = [
                _one(_joined(every[:, a : a + length], how), scores.layers, how) for a in drawn
            ]
            kept = [d for d in depth if np.isfinite(d)]
            found.append(float(np.mean(kept)) if kept else float("nan"))
        depths[segment] = found
    return _result(scores, depths, n_layers, how, "random spans", {"seed": seed})


def _one(relevance: np.ndarray, layers: Sequence[int], how: DepthOptions) -> float:
    """Of one prompt's segment, `[layer, token]`, or `[layer, 1]` if it was summed."""
    found = major_depth(
        relevance,
        layers,
        measure=how.measure,
        share=how.share,
        sign=how.sign,
        embedding=how.embedding,
    )
    kept = found[np.isfinite(found)]
    return float(kept.mean()) if len(kept) else float("nan")


def _joined(relevance: np.ndarray, how: DepthOptions) -> np.ndarray:
    return relevance.sum(1, keepdims=True) if how.aggregate == "segment" else relevance


def _segment(
    scores: RelevanceScores, segment: str, aggregate: Aggregate
) -> list[Float[np.ndarray, "layer token"]]:
    """Each prompt's relevances of a segment."""
    there = set(scores.rows["slot"])
    each = segment if segment == "last" else f"{segment}:each"
    n = len(scores.meta)
    if aggregate == "segment":
        # A mean is the sum over a number that all layers share: it gives the same depth.
        for slot in (f"{segment}:sum", f"{segment}:mean"):
            if slot in there:
                return list(scores.get(slot)[:, :, None])
    if each not in there:
        wanted = f"{segment}:each" if aggregate == "tokens" else f"{segment}:sum"
        raise InputError(
            f"These relevance scores have no slot {wanted!r}; they hold {sorted(there)}. Ask "
            f"relevance() for it: slots=[{wanted!r}, ...]."
        )
    found = [scores.slot(each, i) for i in range(n)]
    return [x.sum(1, keepdims=True) for x in found] if aggregate == "segment" else found


def _layer_scale(
    scores: RelevanceScores, normalise: Normalise, bos: bool | None
) -> Float[np.ndarray, "layer prompt"]:
    """What each prompt's layers are divided by."""
    shape = (len(scores.layers), len(scores.meta))
    if normalise == "none":
        return np.ones(shape)
    first = int(_has_bos(scores, bos))
    every = [np.abs(scores.slot("all", i)[:, first:]) for i in range(shape[1])]
    scale = np.stack([x.sum(1) if normalise == "sum" else x.max(1) for x in every], axis=1)
    return np.where(scale > 0, scale, 1.0)  # a layer without relevance stays without


def _has_bos(scores: RelevanceScores, bos: bool | None) -> bool:
    if bos is not None:
        return bos
    firsts: dict[str, int] | None = scores.provenance.get("begins_with")
    if firsts is None:  # scores of before
        return bool(scores.provenance.get("prepends_bos", False))
    # It counts what prompts began with; no prompt with text means that all had a special token.
    return "text" not in firsts


def _result(
    scores: RelevanceScores,
    depths: dict[str, list[float]],
    n_layers: int | None,
    how: DepthOptions,
    kind: str,
    drawn: dict[str, Any],
    profiles: pd.DataFrame | None = None,
) -> DepthResult:
    n = max(scores.layers) if n_layers is None else n_layers
    none = pd.DataFrame(columns=pd.Index(_PROFILE))
    meta = scores.meta.drop(columns=["n_tokens", "tokens"])
    rest = meta.drop(columns=["id", "language"])
    parts = [
        pd.DataFrame(
            {
                "prompt": range(len(meta)),
                "id": meta["id"],
                "language": meta["language"],
                "segment": segment,
                "depth": found,
                "share": np.array(found) / n,
            }
        ).join(rest[[c for c in rest.columns if c not in ("prompt", "segment", "depth", "share")]])
        for segment, found in depths.items()
    ]
    return DepthResult(
        provenance=analysed(scores.provenance, "depth", {"sources": SOURCES, **drawn}),
        table=pd.concat(parts, ignore_index=True),
        profiles=none if profiles is None else profiles[_PROFILE],
        n_layers=n,
        options=asdict(how),
        kind=kind,
    )
