"""How `FactsStudy` looks for what is carried over from the pivot: states, groups, pathways."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from xlens.acquisition import (
    FactLikeness,
    FrequencyResponse,
    Transfer,
    TransferCurves,
    fact_likeness,
    transfer,
    transfer_curves,
)
from xlens.models import HookedModel
from xlens.results import Result, analysed
from xlens.studies.steps.facts import judged
from xlens.studies.study import Kept, Parts, Step
from xlens.tasks.facts import NAMED, Facts, fact_states

if TYPE_CHECKING:
    from xlens.models.series import Checkpoint
    from xlens.studies.facts import FactsStudy

FOLLOWED = ("all", "answers", "frequency", "sets")
"""Groups that are followed back: which relation a fact is of says nothing of its answers."""


def transfer_steps(
    data: Facts, study: "FactsStudy", model: HookedModel, kept: Kept
) -> Iterator[Step]:
    """Compare states, and say of which facts they are alike."""
    from xlens.studies.facts import LIKENESS, RESPONSE, TRANSFER

    asked = study.sampled(data)

    def compared(_: Parts) -> Result:
        tags = [study.pivot, *(tag for tag in asked.languages if tag != study.pivot)]
        states = fact_states(model, asked, tags, pool=data, progress=kept.progress, **study.how)
        found = fact_likeness(next(states), states, asked.flags(study.pivot))
        return replace(found, provenance=analysed(found.provenance, "asked", study.how))

    def carried(done: Parts) -> Result:
        likeness, response = done[LIKENESS], done.get(RESPONSE)
        assert isinstance(likeness, FactLikeness)
        answers, table = judged(done, data, study)
        found = transfer(
            likeness,
            table,
            rule=study.rule,
            named=study.named or NAMED,
            frequent=response.cells if isinstance(response, FrequencyResponse) else None,
            resampling=study.resampling,
        )
        known = analysed(answers.provenance, "transfer", found.provenance)
        return replace(found, provenance=known)

    # The pivot may be another when a run is taken up again: then states are compared anew.
    yield Step.one(LIKENESS, FactLikeness, compared, derived=True)
    yield Step.one(TRANSFER, Transfer, carried, derived=True)


def grown_step(
    models: Mapping[str, Parts], study: "FactsStudy", series: "Mapping[str, Checkpoint]"
) -> Step:
    """Follow the last model's groups back through all."""
    from xlens.studies.facts import GROWN, LIKENESS, TRANSFER

    found = {name: part for name, each in models.items()
             if isinstance(part := each.get(LIKENESS), FactLikeness)}  # fmt: skip
    # The latest where all say when they are, else the last that was asked.
    steps = {name: series[name].step for name in found if name in series}
    known = len(steps) == len(found) and None not in steps.values()
    last = max(steps, key=lambda name: steps[name] or 0) if known else [*found][-1]
    ended = models[last][TRANSFER]
    assert isinstance(ended, Transfer)
    groups = ended.groups[ended.groups["by"].isin(FOLLOWED)]

    def follow(_: Parts) -> Result:
        return transfer_curves(found, groups, last=last, series=series, resampling=study.resampling)

    return Step.one(GROWN, TransferCurves, follow)
