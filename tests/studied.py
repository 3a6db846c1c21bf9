"""Studies run in memory, or into a folder, by one line of a test."""

from dataclasses import replace
from types import SimpleNamespace

import xlens
from xlens.studies import LensStudy, ProcessStudy, ReadingStudy


def study_pair(model, words, source, target, *, study=None, folder=None, **kept):
    """A pair's conditions and survival, by the names within it."""
    study = replace(study or LensStudy(), pairs=(f"{source}:{target}",))
    parts = xlens.run(study, model, data=words, out=folder, **kept).parts
    own = {name.rpartition("/")[2]: part for name, part in parts.items()}
    conditions = {name: own[name] for name in study.conditions}
    first = conditions[study.task]
    return SimpleNamespace(
        conditions=conditions,
        survival=own["survival"].table,
        summaries={name: own[f"summary-{name}"] for name in conditions},
        source=first.source,
        target=first.target,
    )


def study_process(model, choices, *, study=None, folder=None, **kept):
    """The parts of one set of questions."""
    parts = xlens.run(study or ProcessStudy(), model, data=choices, out=folder, **kept).parts
    return {name.rpartition("/")[2]: part for name, part in parts.items()}


def study_reading(model, reading, *, study=None, folder=None, **kept):
    """The parts of one model."""
    return xlens.run(study or ReadingStudy(), model, data=reading, out=folder, **kept).parts
