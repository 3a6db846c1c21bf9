"""How the parts of `SubspaceStudy` are made: one pass over all varieties and their twins."""

from collections.abc import Iterator
from functools import cache

from xlens.activations import Activations
from xlens.engine import harvest
from xlens.models import HookedModel
from xlens.results import Result
from xlens.studies.study import Kept, Parts, Step
from xlens.studies.subspace import DISTANCES, MAP, PROBE, SCRIPTS, SIMILARITY, SubspaceStudy
from xlens.subspace import (
    LanguageMap,
    LanguagePairs,
    RelatedPairs,
    ScriptControl,
    ScriptProbe,
    language_map,
    related_pairs,
    script_control,
    script_probe,
    subspace_distances,
)
from xlens.subspace.relations import in_two_scripts
from xlens.tasks.sentences import Sentences

ON_MAP = 60
"""Sentences that are drawn on the map: a point each, in every variety and at every layer."""

APART = ("chordal", "mean_shift")
"""Distances of subspaces: of their axes, and of their means."""


def subspace_steps(
    study: SubspaceStudy, data: Sentences, model: HookedModel, kept: Kept
) -> Iterator[Step]:
    """Columns by shared language and script; a matrix, a map, and the probe that is crossed."""
    asked, _ = study.asked(data)

    @cache
    def activations() -> Activations:
        layers = study.points(model.n_layers)
        return harvest(model, asked.prompts(), layers=layers, slots=study.pooling, **kept.options)

    @cache
    def published() -> Activations:
        return activations().select(languages=data.languages)

    def control(_: Parts) -> Result:
        return script_control(
            activations(),
            pooling=study.pooling,
            resampling=study.resampling,
            most_pairs=study.most_pairs,
        )

    def matrix(done: Parts) -> Result:
        found = done[SCRIPTS]
        assert isinstance(found, ScriptControl)
        return found.similarity(study.families_of(data))

    def drawn(_: Parts) -> Result:
        few = published().select(ids=data.sample(min(ON_MAP, len(asked)), seed=study.seed).ids)
        return language_map(few, pooling=study.pooling, n_controls=5, seed=study.seed)

    def probed(_: Parts) -> Result:
        return script_probe(
            published(),
            pooling=study.pooling,
            n_splits=min(5, study.documents(data)),
            resampling=study.resampling,
        )

    def distant(_: Parts) -> Result:
        # Of these varieties only: like is compared with like, and a subspace of each takes long.
        mine = in_two_scripts(activations().languages)
        found = subspace_distances(
            activations().select(languages=mine),
            measures=APART,
            pooling=study.pooling,
            n_controls=2,
            seed=study.seed,
        )
        return related_pairs(found)

    yield Step.one(SCRIPTS, ScriptControl, control)
    yield Step.one(SIMILARITY, LanguagePairs, matrix)
    yield Step.one(MAP, LanguageMap, drawn)
    if DISTANCES in study.parts(data):
        yield Step.one(DISTANCES, RelatedPairs, distant)
    if PROBE in study.parts(data):
        yield Step.one(PROBE, ScriptProbe, probed)
