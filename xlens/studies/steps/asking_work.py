"""What studies of multiple-choice questions take of a model, counted from their prompts."""

from collections.abc import Callable

from xlens.models import HookedModel
from xlens.models.sources import Outline
from xlens.prompts import Prompt
from xlens.studies.asking import LATENT, LatentStudy, SampledStudy
from xlens.studies.process import ProcessStudy
from xlens.studies.steering import REMOVALS, STEERING, SteeredStudy
from xlens.studies.steps.steering import (
    SPLITS,
    check_steering,
    longest_output,
    steered_prompts,
)
from xlens.studies.work import NOTHING, Work, from_layers, passes, scored
from xlens.tasks.choices import Choices, choice_prompts
from xlens.tasks.choices.latent import offered_options

Model = HookedModel | Outline


def scoring_work(choices: Choices, study: SampledStudy, model: Model) -> Work:
    """Every option of the items that are asked, in every language."""
    return scored(model.tokenizer, *_asked(choices, study))


def _asked(choices: Choices, study: SampledStudy) -> tuple[list[Prompt], list[tuple[str, ...]]]:
    """Prompts in all languages, with their options."""
    asked = study.sampled(choices)
    prompts: list[Prompt] = []
    offered: list[tuple[str, ...]] = []
    for tag in asked.languages:
        mine, options = choice_prompts(asked, tag, **study.shown(choices))
        prompts += mine
        offered += options
    return prompts, offered


def latent_work(choices: Choices, study: LatentStudy, model: Model) -> Work:
    """Options read at every point."""
    few = study.read_inside(choices)
    inside = offered_options(few, pivot=study.pivot, **study.shown(choices))
    n = model.size.n_layers + 1
    return scored(model.tokenizer, list(inside.prompts), inside.candidates, layers=n)


def process_work(choices: Choices, study: ProcessStudy, model: Model) -> dict[str, Work]:
    """By part; what the states that several parts are about take stands at the first."""
    prompts, offered = _asked(choices, study)
    work = {
        "consistency": scored(model.tokenizer, prompts, offered),
        "similarity": passes(model.tokenizer, prompts),
    }
    parts = study.parts_of(choices)
    if LATENT in parts:
        work[LATENT] = latent_work(choices, study, model)
    if STEERING in parts:
        work[STEERING] = steering_work(choices, study, model)
    return work


def steering_work(choices: Choices, study: SteeredStudy, model: Model) -> Work:
    """To estimate, to choose, to report; where the chosen layer isn't known, the middle one."""
    parts = check_steering(choices, study)
    if study.steer_languages:
        choices = choices.select(languages=[study.pivot, *study.steer_languages])
    ids = {part: [id for id, p in parts.items() if p == part] for part in SPLITS}
    sources = [tag for tag in choices.languages if tag != study.pivot]
    layers = model.size.n_layers

    def prompts(tag: str, part: str) -> tuple[list[Prompt], list[tuple[str, ...]]]:
        mine, options = steered_prompts(choices, study, tag, ids[part], ids["estimate"])
        return list(mine), options

    def swept(tag: str, part: str, runs: list[float]) -> Work:
        # The plain run, which the store keeps: it is asked for again beside every method.
        return scored(model.tokenizer, *prompts(tag, part), runs=[1.0, *runs])

    starts = [
        band[0] if isinstance(band, tuple) else band for band in study.bands or range(1, layers + 1)
    ]
    tried = [
        share
        for method in study.steer
        for strength in study.tried(method)
        if strength != 0
        for share in from_layers(layers, starts)
    ]
    some = from_layers(layers, [layers // 2])
    every = [prompt for tag in choices.languages for prompt in prompts(tag, "estimate")[0]]
    work = passes(model.tokenizer, every)
    # What is taken out is the same subspace whatever the language, pushes are each one's own.
    harm = sum(1 if method in REMOVALS else len(sources) for method in study.steer)
    work += swept(study.pivot, "dev", []) + swept(study.pivot, "test", some * harm)
    for tag in sources:
        work += swept(tag, "dev", tried)
        work += swept(tag, "test", some * (len(study.steer) * (1 + 2 * study.n_controls)))
    return work + _continued(choices, study, model, prompts, sources)


def _continued(
    choices: Choices,
    study: SteeredStudy,
    model: Model,
    prompts: Callable[[str, str], tuple[list[Prompt], list[tuple[str, ...]]]],
    sources: list[str],
) -> Work:
    """Free continuations, without and with each method."""
    work, room = NOTHING, longest_output(choices, study, model.tokenizer)
    for tag in sources:
        some = prompts(tag, "test")[0][: study.n_outputs]
        runs = [1.0] * (1 + len(study.steer))
        work += passes(model.tokenizer, some, runs) + Work(said=len(some) * len(runs) * room)
    return work
