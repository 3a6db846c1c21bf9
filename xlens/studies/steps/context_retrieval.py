"""How well does a model find in a text in one language what is asked in another, and where inside?

The questions of arXiv 2504.10906: answers and their scores in every combination of languages, with
exchanged texts and answers without a model beside them; then relevance by layer and the phases of
retrieval. Each part is saved as soon as it is done.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.size import check_room
from xlens.models.sources import Outline
from xlens.prompts import Prompts
from xlens.results import Result
from xlens.served import ServedModel, served_generate
from xlens.served.ask import require_client
from xlens.served.model import read_key
from xlens.store import digest
from xlens.studies.reading import BASELINES, ORACLE, ReadingStudy
from xlens.studies.steps.reading_phases import (
    PhasePrompts,
    check_phases,
    phase_steps,
)
from xlens.studies.steps.reading_prompts import (
    Manner,
    combinations_there,
    expected_shots,
    looked_at,
    prompts_of,
)
from xlens.studies.study import Kept, Parts, Step
from xlens.tasks.xmrc import (
    Combination,
    OracleResult,
    Predictions,
    ReadingPrompts,
    ReadingResult,
    ReadingSet,
    answer_questions,
    baseline_predictions,
    gold_targets,
    mismatched,
    oracle_estimate,
    own_targets,
    predictions_of,
    reading_scores,
)
from xlens.tasks.xmrc.answers import KEY, MAX_NEW_TOKENS, answer_limit
from xlens.tasks.xmrc.metrics import chance_levels, check_normalisation

_log = logging.getLogger(__name__)


def _manner(
    model: HookedModel | ServedModel | Outline,
    study: ReadingStudy,
    reading: ReadingSet,
    found: Sequence[Combination],
) -> Manner:
    """With room for the longest right answer in the model's own tokens."""
    tokenizer = None if isinstance(model, ServedModel) else model.tokenizer
    longest = study.max_new_tokens or answer_limit(_golds(reading, found), tokenizer)
    if study.max_new_tokens is not None and not isinstance(model, ServedModel):
        check_room(study.max_new_tokens, model.n_ctx)
    return Manner.of(model, study, longest)


def _golds(reading: ReadingSet, found: Sequence[Combination]) -> set[str]:
    """Right answers of all questions there are, so that a sample has the same limit."""
    wanted = reading.frame["language"].isin({each.answer for each in found})
    return {str(answer) for answers in reading.frame.loc[wanted, "answers"] for answer in answers}


@typed
def check_reading(
    reading: ReadingSet,
    study: ReadingStudy,
    model: HookedModel | ServedModel | Outline | None = None,
) -> tuple[Combination, ...]:
    """What will be asked; wrong requests show before a model is loaded.

    Args:
        reading: Questions and texts.
        study: What is asked.
        model: Who will be asked, as far as it is known; None: only what holds for every model.

    Raises:
        ValueError: languages that aren't there, or answers in one that the rules don't cover, too
            few questions to demonstrate with, no template in a language, texts that can't be
            exchanged, or too few questions to look inside. With `model` also prompts that are too
            long for it, or a chat without a template.
    """
    found = _checked_combinations(reading, study)
    if isinstance(model, ServedModel):
        if study.phases or study.oracle:
            raise InputError(
                f"{model.model!r} is served and gives text only, so there are no phases to look "
                "for, and no oracle; leave out --phases and --oracle, or give models that can be "
                "loaded."
            )
        read_key(model)
        require_client()
    elif model is not None and study.phase_layers:
        model.size.check_layers(study.phase_layers)
    manner = (
        Manner(expected_shots(study), longest=MAX_NEW_TOKENS)
        if model is None
        else _manner(model, study, reading, found)
    )
    _questions(reading, found, study, manner)
    if study.phases:
        looked_at(reading, found, study, manner)
    return found


def _checked_combinations(reading: ReadingSet, study: ReadingStudy) -> tuple[Combination, ...]:
    found = combinations_there(reading, study)
    check_normalisation(study.normalisation, (each.answer for each in found))
    wanted = reading.frame["language"].isin([each.answer for each in found])
    if study.normalisation != "xlens" and (n := int(reading.frame.loc[wanted, "rewritten"].sum())):
        _log.warning(
            "%d right answers of %s were not in NFC, or held characters that nobody sees. The "
            "published %s rules would compare them so, and count answers as wrong that a "
            "tokenizer composes; here all texts are in NFC.",
            n,
            reading.source,
            study.normalisation,
        )
    return found


@dataclass(frozen=True)
class ReadingPlan:
    """What a model is asked. Made once for all parts, before anything runs: some may be too long.

    Attributes:
        reading: All questions there are.
        combinations: Languages of text, question and answer.
        manner: How the model is asked.
        asked: The questions drawn.
        prompts: Theirs, by combination.
        exchanged: With the text of another article.
    """

    reading: ReadingSet
    combinations: tuple[Combination, ...]
    manner: Manner
    asked: ReadingSet
    prompts: list[ReadingPrompts]
    exchanged: list[ReadingPrompts]

    @classmethod
    def of(
        cls, reading: ReadingSet, study: ReadingStudy, model: HookedModel | ServedModel | Outline
    ) -> "ReadingPlan":
        """What `model` is asked.

        Raises:
            ValueError: what `check_reading` refuses.
        """
        found = _checked_combinations(reading, study)
        manner = _manner(model, study, reading, found)
        return cls(reading, found, manner, *_questions(reading, found, study, manner))

    def beside(self, study: ReadingStudy) -> list[Prompts]:
        """Prompts of the questions that controls of their own are run of."""
        ids = set(_sampled(self.asked, study.n_controls, study).ids)
        return [Prompts(p for p in group if p.id in ids) for group in self.prompts]

    def inside(self, study: ReadingStudy) -> PhasePrompts | None:
        """Prompts that are looked at inside, if any are."""
        if not study.phases:
            return None
        return looked_at(self.reading, self.combinations, study, self.manner)

    def digest(self) -> str:
        """Of all texts."""
        return digest([p.text for group in (*self.prompts, *self.exchanged) for p in group])


def reading_steps(
    model: HookedModel | ServedModel, plan: ReadingPlan, study: ReadingStudy, kept: Kept
) -> Iterator[Step]:
    """Ask, score, and look inside: the parts that `ReadingStudy.parts` names.

    They are `predictions`, `scores` (a `ReadingResult`), the baselines, and with `study.phases`
    `relevance`, `depth`, `depth-control` (random spans as long), `curves`, `phases`, `stability`
    and `phases-control` (random weights).

    Raises:
        ValueError: what `check_reading` refuses; phases of a served model.
        ServedError: a question got no answer; those that came are in the store.
    """
    reading, found, manner, prompts = plan.reading, plan.combinations, plan.manner, plan.prompts
    inside = plan.inside(study)
    if inside is not None and isinstance(model, HookedModel):
        check_phases(model, inside, study)

    # Of all questions there are: the same for every model, control and sample.
    levels = chance_levels(
        {
            tag: [(item.paragraph, item.answers) for item in reading.items(tag).values()]
            for tag in dict.fromkeys(each.answer for each in found)
        },
        normalisation=study.normalisation,
    )

    def scored(answers: Result) -> ReadingResult:
        assert isinstance(answers, Predictions)
        return reading_scores(
            answers,
            normalisation=study.normalisation,
            chance=levels,
            pivot=study.pivot,
            resampling=study.resampling,
        )

    def ask(_: Parts) -> Result:
        return _ask(model, [*prompts, *plan.exchanged], manner.longest, kept.options)

    def baseline(how: Any, _: Parts) -> Result:
        return scored(baseline_predictions(prompts, how, seed=study.seed))

    yield Step.one("predictions", Predictions, ask)
    yield Step.one("scores", ReadingResult, lambda done: scored(done["predictions"]))
    for name in BASELINES:
        if name in study.controls:
            yield Step.one(name, ReadingResult, partial(baseline, BASELINES[name]))
    if study.oracle and isinstance(model, HookedModel):
        some = plan.beside(study)

        def leave_out(done: Parts) -> Result:
            return _oracle(model, some, done["predictions"].to_frame(), kept.options)

        yield Step.one(ORACLE, OracleResult, leave_out)
    if inside is not None and isinstance(model, HookedModel):
        yield from phase_steps(model, inside, study, kept)


def _questions(
    reading: ReadingSet, languages: Sequence[Combination], study: ReadingStudy, manner: Manner
) -> tuple[ReadingSet, list[ReadingPrompts], list[ReadingPrompts]]:
    """What is asked, its prompts, and those with exchanged texts, if these are asked for."""
    asked = _sampled(reading, study.n_items, study)
    prompts = prompts_of(asked, reading, languages, study, manner)
    # Too long ones may have been skipped: controls are of the questions that are left.
    asked = asked.select(ids={p.id for group in prompts for p in group})
    if "mismatched" not in study.controls:
        return asked, prompts, []
    other = mismatched(_sampled(asked, study.n_controls, study), seed=study.seed)
    return asked, prompts, prompts_of(other, reading, languages, study, manner)


def _sampled(reading: ReadingSet, n: int, study: ReadingStudy) -> ReadingSet:
    """At most `n` questions: of each language, where every language has its own."""
    how = {"seed": study.seed, "per_paragraph": study.per_paragraph}
    if reading.parallel:
        return reading.sample(min(n, len(reading)), **how)
    fewest = int(reading.frame["language"].value_counts().min())
    return reading.sample(min(n, fewest), **how)


def _oracle(
    model: HookedModel,
    prompts: Sequence[Prompts],
    answers: pd.DataFrame,
    kept: dict[str, Any],
) -> OracleResult:
    """Sentences left out, for the right answers and for the model's own."""
    columns = ["id", *KEY]
    said = dict(
        zip(answers[columns].itertuples(index=False, name=None), answers["prediction"], strict=True)
    )
    parts: list[OracleResult] = []
    for group in prompts:
        own = [str(said[(p.id, *(p.meta[name] for name in KEY))]) for p in group]
        targets = {"right answer": gold_targets(group), "own answer": own_targets(group, own)}
        parts.append(oracle_estimate(model, group, targets, **kept))
    return replace(
        parts[0],
        items=pd.concat([part.items for part in parts], ignore_index=True),
        left_out=pd.concat([part.left_out for part in parts], ignore_index=True),
    )


def _ask(
    model: HookedModel | ServedModel,
    prompts: list[ReadingPrompts],
    longest: int,
    kept: dict[str, Any],
) -> Predictions:
    if isinstance(model, HookedModel):
        return answer_questions(model, prompts, max_new_tokens=longest, **kept)
    # An id names one prompt a language, but a question is asked in several combinations.
    sent = Prompts(
        replace(prompt, id=f"{n}/{prompt.id}")
        for n, group in enumerate(prompts)
        for prompt in group
    )
    stop = None if model.chat else "\n"
    said = served_generate(model, sent, max_new_tokens=longest, stop=stop, **kept)
    return predictions_of(
        prompts,
        said.table["text"].tolist(),
        model=model.model,
        provenance={**said.provenance, "tokens": said.tokens, "cost": said.cost},
        more={name: said.table[name].tolist() for name in ("n_tokens", "reason")},
    )
