"""Evidence from relevance: how long question and context matter for the answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xlens.engine import RelevanceScores, relevance
from xlens.engine.rules import Rule, find_rule
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.phases.asked import Asked, answer_tokens, require_before_last
from xlens.phases.curves import KINDS, Curves, join_curves, one_kind
from xlens.phases.depth import major_depth

SEGMENTS = {"question": "question", "context": "context"}
_KINDS = ("relevance_", "depth_")


def relevant(
    model: HookedModel,
    asked: Asked,
    *,
    segments: dict[str, str] | None = None,
    rule: Rule | str = "attnlrp",
    layers: str | int | Sequence[int] = "all",
    right: RelevanceScores | None = None,
    **options: Any,
) -> Curves:
    """Relevance of question and context by layer, and their relevance depth.

    `relevance_question`: relevance of the segment to the right answer's logit, its control that to
    the wrong answer's. `depth_question`: 1 up to the layer of the major relevance depth of the
    right answer, the embedding counted, then 0; it has no control of its own. The same for the
    context. Prompts whose
    right and wrong answers begin with the same token are left out (NaN).

    Args:
        model: From `xlens.load`.
        asked: Prompts with these spans.
        segments: Names of the spans: `{"question": ..., "context": ...}`.
        rule: As for `relevance`.
        layers: Residual points.
        right: Relevance to the right answers where it is there already: of the prompts that are
            not left out, at these layers or more, with the slot `NAME:sum` of each segment.
        **options: Further options of `relevance`: `token_budget`, `progress`, `prepend_bos`.

    Raises:
        ValueError: scores of other prompts, layers, rule or model, or what `relevance` refuses.
    """
    named = SEGMENTS if segments is None else segments
    for span in named.values():
        require_before_last(model, asked, span)
    points = model.layers(layers)
    tokens = answer_tokens(model, asked)
    rows = np.flatnonzero(tokens[:, 0] >= 0)
    some = asked.take(rows)
    slots = [f"{span}:sum" for span in named.values()]

    def towards(column: int) -> RelevanceScores:
        targets = [int(tokens[i, column]) for i in rows]
        return relevance(
            model, some.prompts, targets=targets, rule=rule, layers=points, slots=slots, **options
        )

    shape = (len(asked), len(points))
    curves = {kind: np.full(shape, np.nan) for kind in KINDS if kind.startswith(_KINDS)}
    control = {kind: np.full(shape, np.nan) for kind in curves}
    origin = model.provenance()
    if len(rows):
        # What is given may have more layers than are asked: depth is of all, curves of `points`.
        right = _checked(right, model, some, tokens[rows, 0], points, rule) or towards(0)
        wrong = towards(1)
        origin = right.provenance
        at = [right.layers.index(point) for point in points]
        for segment, span in named.items():
            mine = right.get(f"{span}:sum")
            curves[f"relevance_{segment}"][rows] = mine[:, at]
            control[f"relevance_{segment}"][rows] = wrong.get(f"{span}:sum")
            # With the embedding: what block 0 hands over has its relevance there.
            depth = major_depth(mine.T, right.layers, embedding=True)[:, None]
            inside = np.where(np.isnan(depth), np.nan, np.array(points) <= depth)
            curves[f"depth_{segment}"][rows] = inside
    return join_curves(
        [
            one_kind(
                kind,
                values,
                control[kind],
                layers=points,
                meta=asked.meta,
                n_layers=model.n_layers,
                provenance=origin,
                left_out={kind: len(asked) - len(rows)},
            )
            for kind, values in curves.items()
        ]
    )


def _checked(
    right: RelevanceScores | None,
    model: HookedModel,
    asked: Asked,
    tokens: np.ndarray,
    points: Sequence[int],
    rule: Rule | str,
) -> RelevanceScores | None:
    """These scores, if they are what would be computed."""
    keys = ["id", "language"]
    if right is not None and (
        right.fingerprint != model.fingerprint
        or right.rule != find_rule(rule).name
        or right.meta[keys].to_numpy().tolist() != asked.meta[keys].to_numpy().tolist()
        or right.targets["token"].tolist() != tokens.tolist()
        or not set(points) <= set(right.layers)
    ):
        raise InputError(
            f"right is {right!r}; it must be the relevance, by {find_rule(rule).name} in "
            f"{model.name}, of the {len(asked)} prompts whose right and wrong answers begin with "
            f"different tokens, to the right ones' first tokens, at the layers {list(points)} or "
            "more. Leave it out, and it is computed."
        )
    return right
