"""`run`: the one way to run a study, in Python as on the command line."""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.series import Checkpoint
from xlens.prompts import TooFewItems
from xlens.results import HEADER, Result, load
from xlens.runs import ACROSS, RunDirectory, describe_run
from xlens.store import Store
from xlens.studies.loading import Loading
from xlens.studies.running.ahead import Ahead
from xlens.studies.running.asked import asked_of, check_models
from xlens.studies.running.fp32_sample import FP32_SAMPLE, OPTION, Sampled
from xlens.studies.running.kept import LeftOut, MadeFrom, differing, identity, other
from xlens.studies.running.places import Model, Place, read_seen, write_seen
from xlens.studies.serving import FREE as SERVING_FREE
from xlens.studies.serving import Serving
from xlens.studies.study import Kept, Step, Study
from xlens.studies.watch import Watch
from xlens.studies.work import Plan, flops_of

LEFT_OUT = "left-out"
_LINE = 200  # characters


@dataclass(frozen=True)
class Outcome:
    """What came of a study.

    Attributes:
        models: The parts of each model, by the name of its folder.
        across: Parts about several models.
        folder: The run directory, if there is one.
    """

    models: dict[str, dict[str, Result]]
    across: dict[str, Result]
    folder: RunDirectory | None

    def __repr__(self) -> str:
        """The models and the names of their parts, in a line."""
        models = ", ".join(f"{name}: {', '.join(parts)}" for name, parts in self.models.items())
        across = f"; across: {', '.join(self.across)}" if self.across else ""
        line = f"{models}{across}"
        return f"Outcome({line[:_LINE]}{'…' if len(line) > _LINE else ''})"

    @property
    def parts(self) -> dict[str, Result]:
        """The parts of the only model.

        Raises:
            ValueError: several models.
        """
        if len(self.models) != 1:
            raise InputError(
                f"Parts of {len(self.models)} models are there: take models[NAME], of "
                f"{', '.join(self.models)}."
            )
        return next(iter(self.models.values()))

    def __getitem__(self, name: str) -> Result:
        """A part of the only model."""
        if name not in self.parts:
            raise KeyError(f"{name!r}; the parts are {', '.join(self.parts)}")
        return self.parts[name]


@typed
def run(
    study: Study,
    model: Model | Sequence[Model] | None = None,
    *,
    data: Any = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    loading: Loading | None = None,
    serving: Serving | None = None,
    store: Store | None = None,
    progress: bool = True,
    watch: Watch | None = None,
) -> Outcome:
    """Run a study: refuse what can't be asked, make the parts that aren't there, keep them.

    Args:
        study: What is asked.
        model: From `xlens.load`, or a name that it takes; or a `ServedModel`; or several.
        data: What is asked about, instead of what the study itself reads: a `WordList`, `Choices`
            or a `ReadingSet`.
        out: A run directory. Each part is saved there as soon as it is made: the same call goes on
            with a stopped run, and `xlens.report.write_report` makes a page of it.
        overwrite: Delete an earlier run there first.
        loading: How models that are named are loaded.
        serving: How models behind endpoints are asked.
        store: Where states, scores and answers are kept, so that less than a part is lost.
        progress: Show bars.
        watch: Told of every step.

    Raises:
        ValueError: what the study refuses; parts in `out` of another model, other data or another
            study, with what changed.
    """
    loading, serving, watch = loading or Loading(), serving or Serving(), watch or Watch()
    study, chosen, data = asked_of(study, model, data, loading, serving)
    folders = {place.name: place.folder for place in chosen}
    planned = study.parts(data)
    results = None if out is None else RunDirectory(Path(out)).results_folder
    whole = {
        place.folder: not overwrite and results is not None and _whole(results, place, planned)
        for place in chosen
    }
    config = _config(study, chosen, loading, serving)
    free = (*study.FREE, *SERVING_FREE, OPTION)
    how: dict[str, Any] = {"free": [f"{study.COMMAND}.{n}" for n in free]}
    if out is not None:
        # A run that has no result yet has nothing to lose: its options can still be mended. Asked
        # the same, another process may be at it just now, and what it writes is left to it.
        there = RunDirectory(Path(out))
        mended = not there.results() and there.asked_otherwise(config, free=how["free"])
        how["overwrite"] = overwrite or mended
        RunDirectory.check(out, config, **how)
    # What would be refused when its turn comes, after hours of others.
    check_models(study, data, chosen, [folder for folder, there in whole.items() if there])
    sampled = Sampled.of(study, data, chosen, loading.fp32_sample, None if overwrite else results)
    known = study.described(data)
    folder = None
    if out is not None:
        names = [place.name for place in chosen]
        asked = names[0] if len(names) == 1 else names
        made_by = describe_run(model=asked, device=loading.main_device, **known)
        folder = RunDirectory.create(out, config, made_by, **how)
    watch.described(known)
    decided = {**study.options(), **study.digest(data)}
    saved = {place.folder: _saved(study, decided, planned, results, place) for place in chosen}
    done: dict[str, dict[str, Result]] = {}
    finished = {
        place.folder: None if sampled.due(place) else _finished(place, results, whole, saved)
        for place in chosen
    }
    waiting = [place for place in chosen if finished[place.folder] is None]
    with Ahead(waiting, loading.keep_weights) as ahead:
        for number, place in enumerate(chosen, 1):
            if len(chosen) > 1:
                watch.model(place.name, number, len(chosen))
            parts = finished[place.folder]
            if parts is None:
                ahead.begin(place)
                at = results and results / place.folder
                kept = Kept(store, progress, folder and folder.adapters_folder / place.folder)
                parts = _made(study, data, place, decided, at, kept, watch, sampled)
                gc.collect()  # hooked modules refer to each other: two models may not fit
                ahead.done(place)
                if at and (seen := place.seen()):
                    write_seen(at, seen)
            done[place.folder] = parts
            watch.model_done(place.folder, parts)
    series = {place.folder: place.point for place in chosen if place.point is not None}
    across = _across(study, done, folders, series, results)
    return Outcome(done, across, folder)


def _finished(
    place: Place,
    results: Path | None,
    whole: Mapping[str, bool],
    saved: Mapping[str, dict[str, Result] | None],
) -> dict[str, Result] | None:
    """A model's parts, where nothing is left to do that takes the model."""
    seen, parts = place.seen(), saved[place.folder]
    if results is None or not parts or not seen or not whole[place.folder]:
        return None
    return parts if read_seen(results / place.folder) == seen else None


def _whole(results: Path, place: Place, planned: Sequence[str]) -> bool:
    return all((results / place.folder / name / HEADER).is_file() for name in planned)


def _config(
    study: Study, chosen: Sequence[Place], loading: Loading, serving: Serving
) -> dict[str, dict[str, Any]]:
    """All that is asked, under the study's command."""
    # As they were named: a series may have grown when the run is taken up again.
    names = list(dict.fromkeys(place.asked or place.name for place in chosen))
    served = serving.options() if study.SERVED else {}
    asked = {"model": names[0] if len(names) == 1 else names}
    # A list names its models itself.
    options = {**({} if loading.series is not None else asked), **study.options()}
    options |= {**served, **loading.options()}
    return {study.COMMAND: {name: v for name, v in options.items() if v is not None}}


def _saved(
    study: Study,
    decided: Mapping[str, Any],
    planned: Sequence[str],
    results: Path | None,
    place: Place,
) -> dict[str, Result] | None:
    """A model's saved parts; None where a derived one is to be made anew.

    Raises:
        ValueError: they were made from other data, or by another study: told before hours of work.
    """
    if results is None:
        return None
    made_from, found = MadeFrom(decided, study.FREE, None), dict[str, Result]()
    stale = False
    for name in (*planned, LEFT_OUT, FP32_SAMPLE):
        at = results / place.folder / name
        if not (at / HEADER).is_file():
            continue
        part = found[name] = load(at)
        was: dict[str, Any] = part.provenance.get("made_from") or {}
        derived = not {*study.FREE}.isdisjoint(was)
        # What only the model tells is compared when it is there.
        but = {"model", "asked", OPTION, *was.get("asked", ())}
        if changed := differing(part, made_from.of(derived=derived), but=but):
            if not (derived and {*changed} <= {*study.FREE}):
                raise other(at, changed)
            stale = True
    return None if stale else found


def _made(
    study: Study,
    data: Any,
    place: Place,
    decided: Mapping[str, Any],
    at: Path | None,
    kept: Kept,
    watch: Watch,
    sampled: Sampled,
) -> dict[str, Result]:
    """The parts of one model, which nothing refers to afterwards.

    Raises:
        TooFewItems: no group of parts can be asked; where some can, the others are listed.
    """
    base = sampled.reference(place, progress=kept.progress)
    model = place.get()
    asked, decides = study.prepared(data, model)
    known = {**decided, **decides, "asked": sorted(decides), "model": identity(model)}
    made_from = MadeFrom(known, study.FREE, at)
    if isinstance(model, HookedModel):
        watch.planned(partial(_left, study, data, asked, model, at))
    groups = list(dict.fromkeys(filter(None, map(_group, study.parts(data)))))
    done = dict(sampled.part(model, base, made_from, progress=kept.progress))
    without: dict[str, TooFewItems] = {}
    last = ""
    for step in study.steps(asked, model, kept):
        group = _group(next(iter(step.kinds)))
        if group != last:
            last = group
            if group:
                watch.group(group, groups.index(group) + 1, len(groups))
        if group in without:
            continue
        try:
            done |= made_from.take(step, done)
        except TooFewItems as error:
            without[group] = error
            if not group or len(without) == len(groups):
                raise
            watch.without(group, str(error))
    if without:
        table = pd.DataFrame({"what": list(without), "why": list(map(str, without.values()))})
        step = Step({LEFT_OUT: LeftOut}, lambda _: {LEFT_OUT: LeftOut(provenance={}, table=table)})
        done |= made_from.take(step, done)
    return done


def _left(study: Study, data: Any, asked: Any, model: HookedModel, at: Path | None) -> Plan:
    """What is still to be made."""
    plan = study.plan(data, model, asked=asked, flops=flops_of(model.device, model.dtype))
    return plan.without(n for n in plan.parts if at is not None and (at / n / HEADER).is_file())


def _group(name: str) -> str:
    return name.rpartition("/")[0]


def _across(
    study: Study,
    models: Mapping[str, Mapping[str, Result]],
    folders: Mapping[str, str],
    series: Mapping[str, Checkpoint],
    results: Path | None,
) -> dict[str, Result]:
    """Parts about all models together: made anew each time, as they cost little."""
    done: dict[str, Result] = {}
    for step in study.across(models, folders, series):
        done |= step.make(done)
    for name, part in done.items() if results is not None else ():
        part.save(results / ACROSS / name)  # type: ignore[operator]
    return done
