"""How the parts of `ProcessStudy` are made, and what scored options come to."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from xlens.activations import Activations
from xlens.consistency import (
    ConsistencyResult,
    Dissociation,
    consistency,
    dissociation,
    option_scores,
)
from xlens.engine import Scores, harvest
from xlens.lengths import By
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.results import Result, analysed
from xlens.stats import Resampling
from xlens.studies.asking import LATENT, LATENT_SUMMARY, LatentStudy
from xlens.studies.process import ProcessStudy
from xlens.studies.study import Kept, Parts, Step
from xlens.subspace import (
    LSAR,
    LanguageMap,
    LanguagePairs,
    LanguageProbe,
    language_map,
    language_probe,
    language_similarity,
)
from xlens.tasks.choices import (
    Choices,
    LatentOptions,
    LatentSummary,
    choice_prompts,
    latent_options,
    score_choices,
)
from xlens.tasks.choices.latent import offered_options


def panel_of(
    scores: Scores, gold: Mapping[str, int], *, by: By, resampling: Resampling
) -> ConsistencyResult:
    """Accuracy and agreement of scored options, with the provenance of their scores."""
    found = consistency(option_scores(scores, gold, by=by), resampling=resampling)
    return replace(found, provenance=analysed(scores.provenance, "consistency", found.provenance))


def latent_steps(
    name: str, choices: Choices, model: HookedModel, study: LatentStudy, kept: Kept
) -> Iterator[Step]:
    """The options inside, and what they come to; scored whole, so that `by` is the summary's."""
    few = study.read_inside(choices)
    shown = study.shown(choices)

    def states() -> Activations:
        offered = offered_options(few, pivot=study.pivot, **shown)
        return harvest(model, offered.prompts, **kept.options)

    def read(_: Parts) -> LatentOptions:
        lens = study.found_lens(model, states)
        return latent_options(model, few, pivot=study.pivot, lens=lens, **shown, **kept.options)

    def summed(done: Parts) -> LatentSummary:
        found = done[f"{name}/{LATENT}"]
        assert isinstance(found, LatentOptions)
        return found.compared(study.by).summary(resampling=study.resampling)

    yield Step.one(f"{name}/{LATENT}", LatentOptions, read)
    yield Step.one(f"{name}/{LATENT_SUMMARY}", LatentSummary, summed, derived=True)


def process_steps(
    name: str, choices: Choices, model: HookedModel, study: ProcessStudy, kept: Kept
) -> Iterator[Step]:
    """Ask, look inside, correlate, steer: what one set of questions allows."""
    asked = study.sampled(choices)
    shown = study.shown(choices)
    how: dict[str, Any] = {"pooling": study.pooling, "resampling": study.resampling}

    @cache
    def activations() -> Activations:
        prompts: list[Prompt] = [
            p for tag in asked.languages for p in choice_prompts(asked, tag, **shown)[0]
        ]
        slots = study.pooling if study.pooling == "last" else "all"
        # Not the embedding: at the last position it is often the same token in every prompt.
        layers = range(1, model.n_layers + 1)
        return harvest(model, Prompts(prompts), layers=layers, slots=slots, **kept.options)

    def ask(_: Parts) -> Result:
        scores = score_choices(model, asked, **shown, **kept.options)
        return panel_of(scores, asked.gold, by=study.by, resampling=study.resampling)

    def correlate(done: Parts) -> Result:
        panel = done[f"{name}/consistency"]
        assert isinstance(panel, ConsistencyResult)
        similar = done[f"{name}/similarity"].to_frame()
        return dissociation(similar, panel, seed=study.seed)

    made: dict[str, tuple[type[Result], Callable[[Parts], Result]]] = {
        "consistency": (ConsistencyResult, ask),
        "similarity": (LanguagePairs, lambda _: language_similarity(activations(), **how)),
        "probe": (LanguageProbe, lambda _: language_probe(activations(), LSAR(), **how)),
        "map": (LanguageMap, lambda _: language_map(activations(), pooling=study.pooling)),
        "dissociation": (Dissociation, correlate),
    }
    for part in study.parts_of(choices):
        if part == LATENT:
            yield from latent_steps(name, choices, model, study, kept)
        elif part == LATENT_SUMMARY:
            continue
        elif part in made:
            yield Step.one(f"{name}/{part}", *made[part])
        else:
            yield study.steering_step(name, choices, model, kept)
