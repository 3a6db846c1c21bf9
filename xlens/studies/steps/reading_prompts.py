"""How questions about texts become prompts: which languages, which questions, in what words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xlens.checks import typed
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.sources import Outline
from xlens.served import ServedModel
from xlens.studies.phases import InsideStudy
from xlens.studies.steps.reading_phases import PhasePrompts, phase_prompts, phase_questions
from xlens.studies.texts import TextStudy
from xlens.tasks.xmrc import (
    Combination,
    ReadingPrompts,
    ReadingSet,
    paired,
    reading_prompts,
    settings,
)

_DEFAULT = ("en-en", "en-x", "x-x")


@dataclass(frozen=True)
class Manner:
    """How a model is asked: what decides its prompts besides the study.

    Attributes:
        shots: Demonstrations; None: as many as such prompts have by default.
        chat: A tokenizer whose chat template makes turns; None: plain text.
        tokenizer: What lengths are counted with.
        limit: Most tokens of a prompt.
        longest: Most tokens of an answer.
    """

    shots: int | None
    chat: Any = None
    tokenizer: Any = None
    limit: int | None = None
    longest: int = 1

    @classmethod
    def of(
        cls, model: HookedModel | ServedModel | Outline, study: TextStudy, longest: int
    ) -> "Manner":
        """As a model can be asked, with answers of at most `longest` tokens.

        Raises:
            ValueError: texts are to be cut for a model whose tokens can't be counted.
        """
        if isinstance(model, ServedModel):
            if study.too_long != "refuse":
                raise InputError(
                    f"too_long={study.too_long!r} needs a tokenizer to count with, and "
                    f"{model.model!r} is served: leave it out. Prompts that the server does not "
                    "take can count as empty answers: refused='empty' (--refused empty)."
                )
            # The server writes its own template around what the user says: a plain prompt.
            return cls(0 if study.shots is None and model.chat else study.shots, longest=longest)
        templated = bool(getattr(model.tokenizer, "chat_template", None))
        chat = study.chat == "yes" or (study.chat == "auto" and templated)
        limit = None if model.n_ctx is None else max(1, model.n_ctx - longest)
        return cls(study.shots, model.tokenizer if chat else None, model.tokenizer, limit, longest)


def combinations(study: TextStudy, languages: Sequence[str] = ()) -> tuple[Combination, ...]:
    """The combinations of languages that a study asks.

    Args:
        study: What is asked.
        languages: Of the questions, where the study names none.

    Raises:
        ValueError: no combination.
    """
    questions = study.questions or tuple(languages)
    if study.settings or not (study.context or study.questions or study.answers):
        names = [{"full": "matrix"}.get(name, name) for name in study.settings or _DEFAULT]
        return settings(names, questions, pivot=study.pivot)
    return tuple(
        Combination(context, question, answer)
        for context in study.context or (study.pivot,)
        for question in questions
        for answer in study.answers or (context,)
    )


def prompts_of(
    asked: ReadingSet,
    pool: ReadingSet,
    languages: Sequence[Combination],
    study: TextStudy,
    manner: Manner,
) -> list[ReadingPrompts]:
    """Prompts of the questions, by combination of languages.

    Raises:
        ValueError: as `reading_prompts`.
    """
    made = [
        reading_prompts(
            asked,
            context=each.context,
            question=each.question,
            answer=each.answer,
            shots=manner.shots,
            seed=study.seed,
            headers=study.headers,
            pool=pool,
            instruction=None if study.instruction == "none" else study.instruction,
            template=study.template or None,
            chat=manner.chat,
            too_long=study.too_long,
            limit=manner.limit,
            tokenizer=manner.tokenizer,
        )
        for each in languages
    ]
    return paired(made) if asked.parallel else made


def combinations_there(reading: ReadingSet, study: TextStudy) -> tuple[Combination, ...]:
    """The combinations that a study asks, all of whose languages the questions have.

    Raises:
        ValueError: no combination, or a language that isn't there.
    """
    found = combinations(study, reading.languages)
    reading.require(dict.fromkeys(tag for each in found for tag in each))
    return found


def expected_shots(study: TextStudy) -> int | None:
    """Demonstrations, before it is known whether there will be a chat, which needs none."""
    return study.shots if study.shots is not None or study.chat == "no" else 0


def looked_at(
    reading: ReadingSet, found: Sequence[Combination], study: InsideStudy, manner: Manner
) -> PhasePrompts:
    """Prompts of the questions that are looked at inside, with their donors.

    Raises:
        ValueError: too few of them, or as `reading_prompts`.
    """
    few, pairs = phase_questions(reading, found, study)
    return phase_prompts(prompts_of(few, reading, pairs, study, manner))


def inside_prompts(
    reading: ReadingSet, study: InsideStudy, model: HookedModel | Outline
) -> PhasePrompts:
    """What a model is asked where only its inside is looked at."""
    found = combinations(study, reading.languages)
    return looked_at(reading, found, study, Manner.of(model, study, longest=1))


@typed
def check_inside(
    reading: ReadingSet, study: InsideStudy, model: HookedModel | Outline | None = None
) -> tuple[Combination, ...]:
    """What will be looked at; wrong requests show before a model is loaded.

    Args:
        reading: Questions and texts.
        study: What is asked.
        model: Who will be asked, as far as it is known; None: only what holds for every model.

    Raises:
        ValueError: languages that aren't there, too few questions, no template in a language, or,
            with `model`, layers that it lacks.
    """
    if model is not None and study.phase_layers:
        model.size.check_layers(study.phase_layers)
    found = combinations_there(reading, study)
    manner = Manner(expected_shots(study)) if model is None else Manner.of(model, study, longest=1)
    looked_at(reading, found, study, manner)
    return found
