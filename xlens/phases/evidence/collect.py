"""`evidence`: every kind of evidence about the same prompts."""

from collections.abc import Sequence
from typing import Any

from xlens.checks import typed
from xlens.engine import RelevanceScores, harvest
from xlens.engine.transport import Transport
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.phases.asked import Asked
from xlens.phases.curves import KINDS, Curves, join_curves
from xlens.phases.evidence.observed import aligned, readable
from xlens.phases.evidence.relevant import relevant
from xlens.phases.evidence.sweep import ablated, patched, require_same

ALIGNED = {"aligned_question_end": "{question}:last", "aligned_last": "last"}


@typed
def evidence(
    model: HookedModel,
    asked: Asked,
    *,
    question: Asked | None = None,
    context: Asked | None = None,
    kinds: Sequence[str] | None = None,
    spans: dict[str, str] | None = None,
    layers: str | int | Sequence[int] = "all",
    rule: str = "attnlrp",
    right: RelevanceScores | None = None,
    fill: str = "mean",
    lens: Transport | None = None,
    progress: bool = True,
    **harvesting: Any,
) -> Curves:
    """Curves over layers of all kinds of evidence that the prompts allow.

    | kind | needs | runs |
    |---|---|---|
    | `readable` | | one |
    | `ablate_question`, `ablate_context` | | one per layer each |
    | `relevance_…`, `depth_…` | a rule for this family | two, backward; with `right` one |
    | `patch_question`, `patch_last_question` | donors `question` | one per layer each |
    | `aligned_question_end`, `aligned_last` | donors `question`, two languages | two |
    | `patch_context`, `patch_last_context` | donors `context` | one per layer each |

    Args:
        model: From `xlens.load`.
        asked: Prompts with right and wrong answers, and the spans `question` and `context`.
        question: Other questions about the same contexts, from `same_context`.
        context: The same questions over other contexts, from `other_context`. A donor with another
            question would bring the look of its answer along, and none of its context.
        kinds: Which; None for all that these donors and languages allow.
        spans: Other names of the spans: `{"question": ..., "context": ...}`.
        layers: Residual points.
        rule: Of `relevance`; `attnlrp` is covered by a licence note in `docs/relevance.md`.
        right: Relevance to the right answers where it is there already, as for `relevant`.
        fill: Of ablation: `mean` or `zero`.
        lens: Of `readable`: through which states are read; None: the logit lens.
        progress: Show bars.
        **harvesting: Further options of `harvest`: `token_budget`, `prepend_bos`, `store`.

    Raises:
        ValueError: an unknown kind, or one whose donors are missing.
    """
    # By segment: what it is called in these prompts.
    names = {"question": "question", "context": "context"} | (spans or {})
    several = len(asked.prompts.languages) > 1
    donors = {"question": question, "context": context}
    for found in donors.values():
        if found is not None:
            require_same(asked, found)
    same = context is not None and _same_question(asked, context, names["question"])
    there = {
        **dict.fromkeys(("patch_context", "patch_last_context"), same),
        **dict.fromkeys(("patch_question", "patch_last_question"), question is not None),
        **dict.fromkeys(ALIGNED, question is not None and several),
    }
    allowed = [kind for kind in KINDS if there.get(kind, True)]
    wanted = list(allowed if kinds is None else dict.fromkeys(kinds))
    wrong = [kind for kind in wanted if kind not in allowed]
    if wrong or not wanted:
        raise InputError(
            f"kinds={wrong or wanted} can't be had here; accepted are {allowed}. patch_… needs "
            "donors (question=, context=), those of the context with the same question "
            "(other_context), aligned_… a second language."
        )
    options: dict[str, Any] = {"layers": layers, "progress": progress, **harvesting}
    parts: list[Curves] = []
    for segment in ("question", "context"):
        donor, span = donors[segment], names[segment]
        for kind, slot in ((f"patch_{segment}", f"{span}:each"), (f"patch_last_{segment}", "last")):
            if kind in wanted and donor is not None:
                # Donors with the prompts' own answers are those that don't hold them.
                lost = (donor.answers, donor.others) == (asked.answers, asked.others)
                how: dict[str, Any] = {"slot": slot, "measure": "loss" if lost else "gain"}
                parts.append(patched(model, asked, donor, kind=kind, **how, **options))
        if f"ablate_{segment}" in wanted:
            kind = f"ablate_{segment}"
            parts.append(ablated(model, asked, kind=kind, span=span, fill=fill, **options))
    if "readable" in wanted:
        parts.append(readable(model, asked, lens=lens, **options))
    if question is not None and (pairs := [kind for kind in ALIGNED if kind in wanted]):
        slots = {kind: ALIGNED[kind].format(**names) for kind in pairs}
        states = [
            harvest(model, x.prompts, slots=list(slots.values()), **options)
            for x in (asked, question)
        ]
        parts += [
            aligned(*states, kind=kind, slot=slot, n_layers=model.n_layers)
            for kind, slot in slots.items()
        ]
    if any(kind.startswith(("relevance", "depth")) for kind in wanted):
        backward = {k: v for k, v in options.items() if k in _BACKWARD}
        parts.append(relevant(model, asked, segments=names, rule=rule, right=right, **backward))
    joined = join_curves(parts)
    # `relevant` gives all four of its kinds at once: those not asked for are left out here.
    in_order = [kind for kind in KINDS if kind in wanted]
    return joined.take(range(len(asked)), in_order)


_BACKWARD = ("layers", "progress", "prepend_bos", "store")


def _same_question(asked: Asked, donors: Asked, span: str) -> bool:
    """Whether donors ask the same: only then is there an answer to it in their contexts."""
    texts = [
        [p.part(span) if span in p.spans else None for p in x.prompts] for x in (asked, donors)
    ]
    return texts[0] == texts[1]
