"""`xlens xmrc`: reading across languages, of one or several models, into a report."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

from xlens import files
from xlens.cli.common import counted, load_model, open_run
from xlens.cli.options import Loading
from xlens.cli.serving import FREE, Serving
from xlens.engine import Store
from xlens.models import HookedModel
from xlens.models.sources import Source, load_outline, resolve, weight_files
from xlens.report import write_report
from xlens.report.reading import COMMAND, compared, folder_names, given_pairs
from xlens.report.reading_tables import (
    leaderboard_rows,
    reading_findings,
    score_head,
    score_rows,
    scores_of,
    text_table,
)
from xlens.report.sentences import used
from xlens.results import Result
from xlens.runs import RunDirectory
from xlens.served import ServedModel
from xlens.served.ask import require_client
from xlens.served.generate import REFUSED
from xlens.served.model import read_key
from xlens.studies import ReadingStudy, check_reading, study_reading
from xlens.studies.context_retrieval import TABLE, combinations, planned_reading, saved_reading
from xlens.studies.leaderboard import find_pairs
from xlens.tasks.xmrc import ReadingSet, download_reading, read_reading
from xlens.wording import number_of

Policy = Literal["error", "drop"]
SEEN = "model.json"
"""Beside a model's results: what shows that it is the same one, without loading it."""
_HUB = ("xquad", "mlqa", "tydiqa")


def xmrc_job(
    *,
    model: Sequence[str],
    data: str,
    layout: str,
    study: ReadingStudy,
    incomplete: Policy,
    faulty: Policy,
    pair: Sequence[str],
    serving: Serving,
    loading: Loading,
    out: Path,
    overwrite: bool,
) -> Path:
    """Read the questions, ask every model, write the report and print the scores.

    Raises:
        ValueError: unusable questions, languages, options, models, key or folder, before a model is
            loaded.
    """
    endpoints = serving.endpoints(model, chat=study.chat != "no")
    if loading.adapter is not None and (len(model) > 1 or endpoints):
        raise ValueError(
            f"--adapter {loading.adapter} goes with one model that is loaded here; got "
            f"{', '.join(model)}. Ask each with its own adapter, and compare the runs."
        )
    folders = folder_names(model)
    find_pairs(list(folders.values()), given_pairs(pair, folders))
    if endpoints and (study.phases or study.oracle):
        raise ValueError(
            f"{', '.join(endpoints)}: served models give text only, so there are no phases to look "
            "for, and no oracle; leave out --phases and --oracle, or give models that can be "
            "loaded."
        )
    reading = _reading(data, layout, study, incomplete, faulty)
    check_reading(reading, study)
    finished = {
        name: not overwrite and _finished(out / "results" / folder, study)
        for name, folder in folders.items()
    }
    places: dict[str, ServedModel | Source] = {
        name: endpoints.get(name) or resolve(name, revision=loading.revision) for name in model
    }
    todo = {name: place for name, place in places.items() if not finished[name]}
    _check_models(todo, reading, study, loading.trust_remote_code)
    options: dict[str, Any] = {
        "model": list(model),
        "data": data,
        "layout": layout,
        **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(study).items()},
        "incomplete": incomplete,
        "faulty": faulty,
        "pair": list(pair),
        **asdict(serving),
        **loading.options(),
    }
    left = counted(reading.survival())
    known: dict[str, Any] = {"questions": reading.source, "survival": left}
    free = ("pair", *FREE)
    run = open_run(out, COMMAND, options, overwrite=overwrite, free=free, **known)
    if said := used(left, "questions"):
        print(said)
    # All of them first: other questions are to be refused before hours of asking these.
    saved = {
        name: saved_reading(run.path / "results" / folder, reading, study)
        for name, folder in folders.items()
    }
    done: dict[str, dict[str, Result]] = {}
    for n, (name, folder) in enumerate(folders.items(), 1):
        if len(folders) > 1:
            print(f"[{n}/{len(folders)}] {name}", flush=True)
        at, place = run.path / "results" / folder, places[name]
        seen = None if isinstance(place, ServedModel) else _seen(place)
        if seen and finished[name] and _read_seen(at) == seen:
            parts = saved[name]  # nothing is left to do that a model would be needed for
        else:
            here = (name, loading)
            asked = place if isinstance(place, ServedModel) else partial(load_model, *here)
            parts = _ask(asked, reading, study, at)
            gc.collect()  # hooked modules refer to each other: freed before the next is loaded
            if seen:
                files.write(at / SEEN, files.sealed_json(seen))
        done[folder] = parts
        _tell(parts, at)
    if len(done) > 1:
        _rank(run, done)
    page = write_report(run)
    print(f"\nReport: {page.resolve()}")
    return page


def _ask(
    model: ServedModel | Callable[[], HookedModel],
    reading: ReadingSet,
    study: ReadingStudy,
    folder: Path,
) -> dict[str, Result]:
    """Ask a model that nothing refers to afterwards: two may not fit into memory."""
    asked = model if isinstance(model, ServedModel) else model()
    return study_reading(asked, reading, study=study, folder=folder, store=Store())


def _finished(folder: Path, study: ReadingStudy) -> bool:
    return all((folder / part / "result.json").is_file() for part in planned_reading(study))


def _check_models(
    places: Mapping[str, ServedModel | Source],
    reading: ReadingSet,
    study: ReadingStudy,
    trust_remote_code: bool,
) -> None:
    """What would be refused when its turn comes, after hours of other models: now.

    Raises:
        ValueError: no client or no key for an endpoint; a model that can't be asked this.
    """
    for place in places.values():
        if isinstance(place, ServedModel):
            read_key(place)
            require_client()
    for name, place in places.items():
        try:
            if isinstance(place, ServedModel):
                check_reading(reading, study, place)
            else:
                outline = load_outline(place, trust_remote_code=trust_remote_code)
                check_reading(reading, study, outline)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def _seen(source: Source) -> dict[str, Any]:
    known = {"revision": source.revision, "digest": source.digest}
    return {"source": source.kind, **known, "files": weight_files(source)}


def _read_seen(folder: Path) -> dict[str, Any] | None:
    try:
        path = folder / SEEN
        return files.unsealed_json(path, path.read_bytes(), "It is made again.")
    except (OSError, ValueError):
        return None  # then the model is loaded, and its results compared with it


def _reading(
    data: str, layout: str, study: ReadingStudy, incomplete: Policy, faulty: Policy
) -> ReadingSet:
    """Questions from a file or a folder, or else from the hub."""
    policies: dict[str, Policy] = {"incomplete": incomplete, "faulty": faulty}
    tags: list[str] | None = None  # all there are
    if study.questions:
        tags = list(dict.fromkeys(tag for each in combinations(study) for tag in each))
    if Path(data).exists():
        return read_reading(data, layout=layout, languages=tags, **policies)
    folder = "Give a file or a folder of them: --data FOLDER"
    if data not in _HUB:
        raise ValueError(
            f"No file or folder {data!r}. {folder}; or one of {', '.join(_HUB)}, from the hub."
        )
    if tags is None:
        raise ValueError(f"Name the languages of {data}: --questions en,de,zh-Hans.")
    try:
        return download_reading(data, languages=tags, **policies)
    except ValueError:
        raise
    except Exception as error:  # whatever the hub's client finds between itself and the hub
        raise ValueError(
            f"Can't get {data} from the hub ({type(error).__name__}: {error}). {folder}."
        ) from None


def _tell(parts: dict[str, Result], place: Path) -> None:
    """A model's scores, in a table and in sentences."""
    print(f"\n{scores_of(parts).model}\n")
    print(text_table(score_head(parts), score_rows(parts)), end="\n\n")
    print(*reading_findings(parts), sep="\n")
    reasons = parts["predictions"].to_frame()["reason"]
    if n := int((reasons == REFUSED).sum()):
        told = number_of(len(reasons), "prompt")
        print(f"Refused by the server, so that the answer is empty: {n} of {told}.")
    print(f"Answers: {(place / TABLE).resolve()}\n", flush=True)


def _rank(run: RunDirectory, done: dict[str, dict[str, Result]]) -> None:
    board = compared(run, done)
    if board is not None:
        setting = scores_of(next(iter(done.values()))).setting_name(board.setting)
        print(f"Models by F1 in {setting}, the mean over languages\n")
        print(text_table(*leaderboard_rows(board)))
