"""Before, training, after: how the parts of `AlignStudy` are made."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from xlens.errors import InputError
from xlens.gain import Gain, gain
from xlens.models import HookedModel
from xlens.models.loading import adapted
from xlens.models.sources import Outline
from xlens.prompts import Prompt
from xlens.results import Result
from xlens.studies.align import (
    ALIGNED,
    ANSWERS,
    BEFORE,
    GAIN,
    INSIDE,
    SHUFFLED,
    TRAINING,
    AlignStudy,
)
from xlens.studies.steps.twins import TWIN_PARTS, TWIN_RUNS, own_parts, twin_parts
from xlens.studies.study import Kept, Parts, Step
from xlens.studies.work import BACKWARD, Work, passes, scored
from xlens.tasks.alignment import (
    Questions,
    TranslationPairs,
    questions_of,
    read_questions,
    translation_pairs,
)
from xlens.tasks.choices import ChoiceAnswers, Choices, answer_choices, check_labels, choice_prompts
from xlens.tasks.choices.prompts import demonstrations
from xlens.tasks.facts import cldr_facts
from xlens.tasks.xmrc import (
    ReadingPrompts,
    ReadingResult,
    ReadingSet,
    answer_questions,
    read_reading,
    reading_prompts,
    reading_scores,
)
from xlens.training.fit import FINAL, SERIES, Training, train

CLDR = "cldr"
LEAST_INSIDE = 8


@dataclass(frozen=True)
class AlignData:
    """What is trained on and what is asked; no item is in both.

    Attributes:
        questions: To be translated.
        items: Evaluated.
        pool: Items to demonstrate with.
    """

    questions: Questions
    items: Choices | ReadingSet
    pool: Choices | ReadingSet


def read_alignment(study: AlignStudy) -> AlignData:
    """What the study's options name.

    Raises:
        ValueError: no source language; what readers refuse; nothing left to train on.
    """
    if not study.source:
        raise InputError("Name one language or more to translate from: --from zh-Hans,de.")
    if study.data is not None:
        return _of_reading(study, study.data)
    trained = _questions(study)
    tags = study.languages
    if not tags and not study.items:
        tags = tuple(dict.fromkeys([study.target, *study.source, *trained.languages]))
    sets = replace(study, languages=tags).sets()
    if len(sets) > 1:
        raise InputError(f"{', '.join(sets)}: one set of items is evaluated in a run; name one.")
    (choices,) = sets.values()
    items = choices.sample(min(study.n_items, len(choices)), seed=study.seed)
    return AlignData(trained.apart_from(questions_of(items)), items, choices)


def _questions(study: AlignStudy) -> Questions:
    tags = (study.target, *study.source)
    if study.questions in (None, CLDR):
        return questions_of(cldr_facts(tags))
    return read_questions(
        str(study.questions), layout=study.question_layout, incomplete=study.incomplete
    )


def _of_reading(study: AlignStudy, place: str) -> AlignData:
    """Articles of a reading set: some to train on, the others to be asked about."""
    tags = list(dict.fromkeys([study.target, *study.source, *study.languages]))
    every = bool(study.languages)
    read = read_reading(
        place,
        languages=tags if every else None,
        incomplete=study.incomplete,
        faulty=study.incomplete,
    )
    asked = questions_of(read)
    if study.questions is None or Path(study.questions).resolve() == Path(place).resolve():
        trained, held = asked.split(study.held_out, seed=study.seed)
        pool = read.select(ids=held.ids)
    else:
        trained, pool = _questions(study), read
    if study.languages:
        pool = pool.select(languages=study.languages)
    items = pool.sample(min(study.n_items, len(pool)), seed=study.seed)
    return AlignData(trained.apart_from(questions_of(items)), items, pool)


def check_alignment(study: AlignStudy, data: AlignData) -> None:
    """Refuse what can't be trained on or asked.

    Raises:
        ValueError: languages that the questions lack, no wording, too few items.
    """
    pairs_of(study, data).shuffled(seed=study.seed)
    if study.inside and len(data.items) < LEAST_INSIDE:
        raise InputError(
            f"{len(data.items)} items are evaluated, and a look inside needs {LEAST_INSIDE}: give "
            "more, or leave it out (inside=False, --no-inside)."
        )
    if isinstance(data.items, Choices):
        demonstrations(data.items, _pool(data), study.shots, study.seed, study.headers, False)
    else:
        _readings(study, data)


def pairs_of(study: AlignStudy, data: AlignData) -> TranslationPairs:
    """What is trained on."""
    n = study.n_pairs
    return translation_pairs(
        data.questions,
        study.source,
        study.target,
        direction=study.direction,
        n=None if n is None else min(n, len(data.questions)),
        instruction_in=study.instruction,
        templates=study.templates or None,
        names=study.names or None,
        seed=study.seed,
    )


def inside_parts(study: AlignStudy, data: AlignData) -> tuple[str, ...]:
    """Names of the parts about the inside: options are looked at where the target has some."""
    if not study.inside:
        return ()
    options = isinstance(data.items, Choices) and study.target in data.items.languages
    return tuple(
        f"{INSIDE}/{name}" for name in TWIN_PARTS if options or not name.startswith("latent")
    )


def alignment_steps(
    study: AlignStudy, data: AlignData, model: HookedModel, kept: Kept
) -> Iterator[Step]:
    """Ask, train, ask again, compare, look inside."""
    _require_targets(study, model)
    kind = ChoiceAnswers if isinstance(data.items, Choices) else ReadingResult
    if isinstance(data.items, Choices) and study.rule in ("prefix_sum", "first_token"):
        check_labels(model, data.items, rule=study.rule)  # type: ignore[arg-type]
    place = cache(lambda: kept.adapters or Path(tempfile.mkdtemp(prefix="xlens-align-")))
    pairs = pairs_of(study, data)

    def ask(model: HookedModel) -> Result:
        return answers(study, data, model, kept)

    def learn(name: str, _: Parts) -> Result:
        condition, run = study.trainings()[name]
        mine = pairs.shuffled(seed=study.seed) if condition == SHUFFLED else pairs
        done = train(
            model,
            mine.prompts,
            mine.completions,
            place() / name,
            recipe=study.recipe(run),
            made_by=mine.made_by,
            progress=kept.progress,
        )
        # By their names within the training's folder: a run may be moved.
        return replace(done, adapter=FINAL, checkpoints=SERIES)

    def twin(name: str) -> HookedModel:
        return adapted(model, place() / name / FINAL)

    def ask_twin(name: str, _: Parts) -> Result:
        return ask(twin(name))

    def compare(done: Parts) -> Result:
        return gained(study, done)

    yield Step.one(f"{BEFORE}/{ANSWERS}", kind, lambda _: ask(model))
    for name in study.trainings():
        yield Step.one(f"{name}/{TRAINING}", Training, partial(learn, name))
        yield Step.one(f"{name}/{ANSWERS}", kind, partial(ask_twin, name))
    yield Step.one(GAIN, Gain, compare, derived=True)
    if wanted := inside_parts(study, data):
        kinds = {f"{INSIDE}/{part}": TWIN_PARTS[part] for part in TWIN_PARTS}

        def own(model: HookedModel) -> dict[str, Result]:
            return own_parts(
                model,
                asked_inside(study, data),
                pivot=study.target,
                choices=_inside(study, data) if isinstance(data.items, Choices) else None,
                how=study.shown(data.pool),
                pooling=study.pooling,
                resampling=study.resampling,
                kept=kept,
            )

        def look(_: Parts) -> Parts:
            found = twin_parts(
                own(model),
                own(twin(f"{ALIGNED}-1")),
                names=("base", "aligned"),
                pooling=study.pooling,
                resampling=study.resampling,
            )
            return {f"{INSIDE}/{part}": result for part, result in found.items()}

        yield Step({name: kinds[name] for name in wanted}, look)


def _require_targets(study: AlignStudy, model: HookedModel) -> None:
    """See that there are modules to train: before hours of answers."""
    names = [name for name, _ in model.hf_model.named_modules()]
    ends = dict.fromkeys(name.rpartition(".")[2] for name in names if "." in name)
    for target in study.targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise InputError(
                f"targets holds {target!r}, and no module of {model.name} is called so; modules "
                f"end in {', '.join(list(ends)[:30])}."
            )


def gained(study: AlignStudy, done: Parts) -> Gain:
    """What changed, by language; from the answers alone."""
    before = done[f"{BEFORE}/{ANSWERS}"]
    after = {
        condition: [
            values_of(done[f"{name}/{ANSWERS}"])
            for name, (of, _) in study.trainings().items()
            if of == condition
        ]
        for condition in study.conditions
    }
    return gain(
        values_of(before),
        after,
        trained=(*study.source, study.target),
        bound=study.bound,
        controls=study.controls,
        provenance=before.provenance,
        resampling=study.resampling,
    )


def values_of(part: Result) -> pd.DataFrame:
    """`id language paragraph value`: of options whether right, of answers in text their F1.

    Raises:
        TypeError: no answers.
    """
    if isinstance(part, ChoiceAnswers):
        return part.table
    if not isinstance(part, ReadingResult):
        raise TypeError(f"{type(part).__name__} holds no answers.")
    # `language` is there that of the answer, as far as it can be told.
    own = {"id": "id", "question_language": "language", "paragraph": "paragraph", "f1": "value"}
    own |= {"header": "header"} if "header" in part.items else {}
    return part.items[list(own)].rename(columns=own)


def answers(study: AlignStudy, data: AlignData, model: HookedModel, kept: Kept) -> Result:
    """Of a model to the evaluated items, in every language."""
    if isinstance(data.items, ReadingSet):
        said = answer_questions(model, _readings(study, data), **kept.options)
        return reading_scores(said, pivot=study.target, resampling=study.resampling)
    return answer_choices(
        model,
        data.items,
        rule=study.rule,
        by=study.by,
        calibrated=study.calibrated,
        **study.shown(_pool(data)),
        **kept.options,
    )


def _pool(data: AlignData) -> Choices:
    assert isinstance(data.pool, Choices)
    return data.pool


def _readings(study: AlignStudy, data: AlignData) -> list[ReadingPrompts]:
    assert isinstance(data.items, ReadingSet) and isinstance(data.pool, ReadingSet)
    return [
        reading_prompts(
            data.items,
            context=study.context or tag,
            question=tag,
            **study.shown(data.pool),
        )
        for tag in data.items.languages
    ]


def _inside(study: AlignStudy, data: AlignData) -> Any:
    return data.items.sample(min(study.n_inside, len(data.items)), seed=study.seed)


def asked_inside(study: AlignStudy, data: AlignData) -> list[Prompt]:
    """Prompts of the items that are looked at inside, in every language."""
    few = replace(data, items=_inside(study, data))
    if isinstance(few.items, ReadingSet):
        return [prompt for group in _readings(study, few) for prompt in group]
    how = study.shown(_pool(data))
    return [p for tag in few.items.languages for p in choice_prompts(few.items, tag, **how)[0]]


def alignment_work(
    study: AlignStudy, data: AlignData, model: HookedModel | Outline
) -> dict[str, Work]:
    """By part: the same answers before and after each training; rows forth and back."""
    if isinstance(data.items, ReadingSet):
        prompts: list[Prompt] = [p for group in _readings(study, data) for p in group]
        asked = passes(model.tokenizer, prompts) + Work(said=32 * len(prompts))
    else:
        how = study.shown(_pool(data))
        both = [choice_prompts(data.items, tag, **how) for tag in data.items.languages]
        prompts = [p for mine, _ in both for p in mine]
        asked = scored(model.tokenizer, prompts, [o for _, own in both for o in own])
    pairs = pairs_of(study, data)
    rows = [
        Prompt(p + c, "und", str(n))
        for n, (p, c) in enumerate(zip(pairs.prompts, pairs.completions, strict=True))
    ]
    learned = passes(model.tokenizer, rows, [BACKWARD] * study.epochs)
    work: dict[str, Work] = {f"{BEFORE}/{ANSWERS}": asked}
    for name in study.trainings():
        work |= {f"{name}/{TRAINING}": learned, f"{name}/{ANSWERS}": asked}
    if wanted := inside_parts(study, data):
        work[wanted[0]] = passes(model.tokenizer, asked_inside(study, data), 2 * TWIN_RUNS)
    return work
