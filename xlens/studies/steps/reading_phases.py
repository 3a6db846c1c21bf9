"""The inside of reading: which questions are looked at, and the parts that come of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from xlens.engine import RelevanceScores, harvest, relevance
from xlens.engine.rules import check, find_rule
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.phases import (
    KINDS,
    Asked,
    Curves,
    DepthResult,
    PhaseResult,
    StabilityResult,
    answer_tokens,
    detect_phases,
    evidence,
    other_context,
    random_span_depth,
    relevance_depth,
    same_context,
    stability,
)
from xlens.prompts import Prompts
from xlens.prompts.fewshot import seeded_rank
from xlens.results import Result, analysed
from xlens.store import digest
from xlens.studies.phases import FEWEST_PHASES, INSIDE, RANDOM_INIT, TWIN, InsideStudy
from xlens.studies.steps.reading_summary import summary_steps
from xlens.studies.study import Kept, Parts, Step
from xlens.studies.through_lens import LOGIT
from xlens.tasks.xmrc import Combination, ReadingPrompts, ReadingSet
from xlens.tasks.xmrc.prompts import continued
from xlens.text import folded

SEGMENTS = ("question", "context")
PAIRED = ("patch_last_question", "patch_last_context", "ablate_question", "ablate_context")


@dataclass(frozen=True)
class PhasePrompts:
    """Questions with their donors.

    Attributes:
        own: The questions, each with the answer to its partner as the wrong one.
        question: Their partners: other questions about the same texts.
        context: The same questions over other texts, which don't hold the answer.
    """

    own: Asked
    question: Asked
    context: Asked

    def digest(self) -> str:
        """Of all texts and answers."""
        asked = (self.own, self.question, self.context)
        return digest([[[p.text for p in x.prompts], x.answers, x.others] for x in asked])


def phase_questions(
    reading: ReadingSet, languages: Sequence[Combination], study: InsideStudy
) -> tuple[ReadingSet, tuple[Combination, ...]]:
    """Two questions of each of some paragraphs, and the combinations in which to look inside.

    These are the combinations with text and answer in the pivot's language, so that the same answer
    is to be said whatever the question's language; or, where there are none, those within a
    language. The answers of a pair differ in every language. Paragraphs count, not questions, so no
    more than two questions of each are taken.

    Raises:
        ValueError: no such combination, or fewer than two such paragraphs.
    """
    if study.phase_languages:
        languages = [c for c in languages if c.question in study.phase_languages]
    home = tuple(c for c in languages if c.context == c.answer == study.pivot)
    chosen = home or tuple(c for c in languages if c.context == c.question == c.answer)
    if not chosen:
        raise InputError(
            f"phases need texts and answers in {study.pivot!r}, or all in one language; none of "
            f"{['-'.join(c) for c in languages]} is. Ask such a combination, or leave phases out."
        )
    answers: dict[str, dict[str, str]] = {}
    rows = zip(
        reading.frame["id"], reading.frame["language"], reading.frame["answers"], strict=True
    )
    for id, tag, said in rows:
        answers.setdefault(id, {})[tag] = folded(said[0])
    ids: list[str] = []
    paragraphs = reading.paragraphs
    for paragraph in sorted(paragraphs, key=lambda p: seeded_rank(p, seed=study.seed)):
        ranked = sorted(paragraphs[paragraph], key=lambda i: seeded_rank(i, seed=study.seed))
        pair = next(
            (
                (a, b)
                for n, a in enumerate(ranked)
                for b in ranked[n + 1 :]
                if _differ(a, b, answers)
            ),
            (),
        )
        ids += pair
        if len(ids) + 2 > study.n_phases:
            break
    if len(ids) < FEWEST_PHASES:
        raise InputError(
            f"phases need two paragraphs or more with two questions each whose answers differ; "
            f"{reading.source} has {len(ids) // 2}. Give more questions, or leave phases out."
        )
    return reading.select(ids=ids), chosen


def phase_prompts(groups: Sequence[ReadingPrompts]) -> PhasePrompts:
    """Questions and donors from prompts of one combination each.

    Args:
        groups: Their languages are those of the questions.

    Raises:
        ValueError: no pair of questions is left of those that fit into the model.
    """
    common = set.intersection(*({p.id for p in group} for group in groups))
    prompts = Prompts(p for group in groups for p in group if p.id in common)
    own, partners = same_context(prompts, [continued(p, p.part("answer")) for p in prompts])
    return PhasePrompts(own, partners, other_context(own))


def check_phases(model: HookedModel, prompts: PhasePrompts, study: InsideStudy) -> None:
    """Refuse, before anything runs, what can't be looked into.

    Raises:
        ValueError: a relevance rule that the model's family does not allow, an answer that the
            tokenizer joins with the prompt, or no answer that can be told from the wrong one.
    """
    check(model, find_rule(study.relevance_rule))
    longest = max(len(t) for x in vars(prompts).values() for t in model.tokenize(list(x.prompts)))
    if model.n_ctx is not None and longest > model.n_ctx:
        raise InputError(
            f"With another text in its place a prompt has {longest} tokens, but {model.name} takes "
            f"{model.n_ctx}; give fewer demonstrations: shots, or leave phases out."
        )
    try:
        tokens = answer_tokens(model, prompts.own)
    except ValueError as error:
        raise InputError(
            f"{error} What stands before an answer is an option: template={{'answer': TEXT}}, on "
            'the command line --template.answer "Answer: >".'
        ) from error
    if not (tokens >= 0).any():
        raise InputError(
            f"All {len(prompts.own)} right and wrong answers begin with the same token in "
            f"{model.name}; give more questions: n_phases."
        )


def phase_steps(
    model: HookedModel, prompts: PhasePrompts, study: InsideStudy, kept: Kept
) -> Iterator[Step]:
    """What makes each part, in order."""

    def explain(_: Parts) -> Result:
        tokens = answer_tokens(model, prompts.own)[:, 0]
        rows = (tokens >= 0).nonzero()[0]
        found = relevance(
            model,
            prompts.own.take(rows).prompts,
            targets=[int(tokens[i]) for i in rows],
            rule=study.relevance_rule,
            slots=["all", *(f"{name}:{how}" for name in SEGMENTS for how in ("sum", "each"))],
            **kept.options,
        )
        left_out = len(prompts.own) - len(rows)
        asked = analysed(found.provenance, "asked", {"left_out": left_out})
        return replace(found, provenance=asked)

    def scores(done: Parts) -> RelevanceScores:
        found = done["relevance"]
        assert isinstance(found, RelevanceScores)
        return found

    size: dict[str, Any] = {"segments": SEGMENTS, "n_layers": model.n_layers}
    layers: Any = list(study.phase_layers) or "all"
    tags = prompts.own.prompts.languages
    pivot = study.pivot if study.pivot in tags else tags[0]

    def observe(done: Parts) -> Result:
        states = partial(harvest, model, prompts.own.prompts, **kept.options)
        lens = study.found_lens(model, states) if study.lens != (LOGIT,) else None
        return evidence(
            model,
            prompts.own,
            question=prompts.question,
            context=prompts.context,
            kinds=study.kinds or None,
            layers=layers,
            rule=study.relevance_rule,
            right=scores(done),
            lens=lens,
            **kept.options,
        )

    def detect(done: Parts) -> Result:
        curves = done["curves"]
        assert isinstance(curves, Curves)
        return detect_phases(curves, resampling=study.resampling)

    def steady(done: Parts) -> Result:
        depth = done["depth"]
        assert isinstance(depth, DepthResult)
        return stability(depth, scores(done), pivot=pivot, resampling=study.resampling)

    def blank(_: Parts) -> Result:
        """The same questions in one language through random weights: there is nothing to find."""
        rows = [i for i, p in enumerate(prompts.own.prompts) if p.language == pivot]
        causal = [k for k in study.kinds or PAIRED if KINDS[k].basis == "causal"] or PAIRED
        found = evidence(
            model.random_twin(study.seed),
            prompts.own.take(rows),
            question=prompts.question.take(rows),
            context=prompts.context.take(rows),
            kinds=causal,
            layers=layers,
            **kept.options,
        )
        return detect_phases(found, resampling=study.resampling)

    made: dict[str, tuple[type[Result], Callable[[Parts], Result]]] = {
        "relevance": (RelevanceScores, explain),
        "depth": (
            DepthResult,
            lambda done: relevance_depth(scores(done), **size, resampling=study.resampling),
        ),
        "depth-control": (
            DepthResult,
            lambda done: random_span_depth(scores(done), **size, seed=study.seed),
        ),
        "curves": (Curves, observe),
        "phases": (PhaseResult, detect),
        "stability": (StabilityResult, steady),
    }
    for name in INSIDE:
        yield Step.one(name, *made[name])
    if RANDOM_INIT in study.controls:
        yield Step.one(TWIN, PhaseResult, blank)
    yield from summary_steps(INSIDE, study.resampling)


def _differ(one: str, other: str, answers: dict[str, dict[str, str]]) -> bool:
    mine, theirs = answers[one], answers[other]
    return mine.keys() == theirs.keys() and all(mine[tag] != theirs[tag] for tag in mine)
