"""Evidence from relevance: how long question and context matter for the answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xlens.engine import RelevanceScores, relevance
from xlens.models import HookedModel
from xlens.phases.asked import Asked, answer_tokens, require_before_last
from xlens.phases.curves import Curves, join_curves, one_kind
from xlens.phases.depth import major_depth

SEGMENTS = {"question": "question", "context": "context"}


def relevant(
    model: HookedModel,
    asked: Asked,
    *,
    segments: dict[str, str] | None = None,
    rule: str = "attnlrp",
    layers: str | int | Sequence[int] = "all",
    **options: Any,
) -> Curves:
    """Relevance of question and context by layer, and their relevance depth.

    `relevance_question`: relevance of the segment to the right answer's logit, its control that to
    the wrong answer's. `depth_question`: 1 up to the layer of the major relevance depth of the
    right answer, then 0; it has no control of its own. The same for the context.

    Args:
        model: From `xlens.load`.
        asked: Prompts with these spans.
        segments: Names of the spans: `{"question": ..., "context": ...}`.
        rule: As for `relevance`.
        layers: Residual points.
        **options: Further options of `relevance`: `token_budget`, `progress`, `prepend_bos`.

    Raises:
        ValueError: what `relevance` refuses.
    """
    named = SEGMENTS if segments is None else segments
    for span in named.values():
        require_before_last(model, asked, span)
    tokens = answer_tokens(model, asked)
    slots = [f"{span}:sum" for span in named.values()]
    right, wrong = (
        relevance(
            model,
            asked.prompts,
            targets=[max(int(t), 0) for t in column],
            rule=rule,
            layers=layers,
            slots=slots,
            **options,
        )
        for column in tokens.T
    )
    return relevance_curves(
        right, wrong, segments=named, n_layers=model.n_layers, left_out=tokens[:, 0] < 0
    )


def relevance_curves(
    right: RelevanceScores,
    wrong: RelevanceScores,
    *,
    n_layers: int,
    segments: dict[str, str] | None = None,
    left_out: np.ndarray | None = None,
) -> Curves:
    """The same from scores: relevance to the right answers, and to the wrong ones.

    Args:
        right: With the slot `NAME:sum` of each segment.
        wrong: For the same prompts and slots.
        n_layers: Blocks of the model.
        segments: As for `relevant`.
        left_out: Prompts that count for nothing.

    Raises:
        ValueError: other prompts or layers, or a missing slot.
    """
    keys = ["id", "language"]
    if not right.meta[keys].equals(wrong.meta[keys]) or right.layers != wrong.layers:
        raise ValueError(
            "The relevance scores must be of the same prompts and layers, in one order."
        )
    named = SEGMENTS if segments is None else segments
    out = np.zeros(len(right.meta), dtype=bool) if left_out is None else left_out
    meta = right.meta.drop(columns=["n_tokens", "tokens"])
    layers = np.array(right.layers)
    parts: list[Curves] = []
    for segment, span in named.items():
        mine, other = (
            np.where(out[:, None], np.nan, scores.get(f"{span}:sum")) for scores in (right, wrong)
        )
        depth = major_depth(mine.T, right.layers)
        inside = np.where(np.isnan(depth)[:, None], np.nan, layers <= depth[:, None])
        for kind, value, control in (
            (f"relevance_{segment}", mine, other),
            (f"depth_{segment}", inside, None),
        ):
            parts.append(
                one_kind(
                    kind,
                    value,
                    control,
                    layers=right.layers,
                    meta=meta,
                    n_layers=n_layers,
                    provenance={**right.provenance, "left_out": {kind: int(out.sum())}},
                )
            )
    return join_curves(parts)
