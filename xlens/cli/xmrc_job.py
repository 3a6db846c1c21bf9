"""`xlens xmrc`: reading across languages, of one or several models, into a report."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from xlens.cli.common import load_model, open_run
from xlens.engine import Store
from xlens.models import HookedModel
from xlens.models.sources import resolve
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
from xlens.results import Result
from xlens.runs import RunDirectory
from xlens.served import ServedModel
from xlens.served.model import read_key
from xlens.studies import ReadingStudy, check_reading, study_reading
from xlens.studies.context_retrieval import PARTS, TABLE, combinations, planned_reading
from xlens.studies.leaderboard import find_pairs
from xlens.tasks.xmrc import ReadingSet, download_reading, read_reading

Policy = Literal["error", "drop"]
_HUB = ("xquad", "mlqa", "tydiqa")
_AT = re.compile(r"(.+)@(https?://.+)")


def xmrc_job(
    *,
    model: Sequence[str],
    data: str,
    layout: str,
    study: ReadingStudy,
    incomplete: Policy,
    faulty: Policy,
    pair: Sequence[str],
    served: str | None,
    api_key_env: str | None,
    price_in: float | None,
    price_out: float | None,
    concurrency: int,
    dtype: str,
    revision: str | None,
    trust_remote_code: bool,
    out: Path,
    overwrite: bool,
) -> Path:
    """Read the questions, ask every model, write the report and print the scores.

    Raises:
        ValueError: unusable questions, languages, options, models, key or folder, before a model is
            loaded.
    """
    folders = folder_names(model)
    find_pairs(list(folders.values()), given_pairs(pair, folders))
    how: dict[str, Any] = {"api_key_env": api_key_env, "concurrency": concurrency}
    how |= {"price_in": price_in, "price_out": price_out, "chat": study.chat != "no"}
    endpoints = {name: found for name in model if (found := _endpoint(name, served, how))}
    if endpoints and (study.phases or study.oracle):
        raise ValueError(
            f"{', '.join(endpoints)}: served models give text only, so there are no phases to look "
            "for, and no oracle; leave out --phases and --oracle, or give models that can be "
            "loaded."
        )
    reading = _reading(data, layout, study, incomplete, faulty)
    check_reading(reading, study)
    for endpoint in endpoints.values():
        read_key(endpoint)
    for name in model:
        if name not in endpoints:
            resolve(name, revision=revision)
    options: dict[str, Any] = {
        "model": list(model),
        "data": data,
        "layout": layout,
        **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(study).items()},
        "incomplete": incomplete,
        "faulty": faulty,
        "pair": list(pair),
        "served": served,
        "api_key_env": api_key_env,
        "price_in": price_in,
        "price_out": price_out,
        "concurrency": concurrency,
        "dtype": dtype,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
    }
    survival = reading.survival()
    left = dict(zip(survival["reason"], survival["n"].tolist(), strict=True))
    run = open_run(
        out, COMMAND, options, overwrite=overwrite, questions=reading.source, survival=left
    )
    if left["offered"] > left["kept"]:
        print(f"{left['kept']} of {left['offered']} questions can be used: {_told(left)}.")
    done: dict[str, dict[str, Result]] = {}
    for n, (name, folder) in enumerate(folders.items(), 1):
        if len(folders) > 1:
            print(f"[{n}/{len(folders)}] {name}", flush=True)
        place = run.result_folder(folder, "x").parent
        if all(run.has_result(folder, part) for part in planned_reading(study)):
            # Of the same config: the model need not be loaded to know that nothing is left to do.
            parts = {part: PARTS[part].load(place / part) for part in planned_reading(study)}
        else:
            asked: HookedModel | ServedModel = endpoints.get(name) or load_model(
                name, dtype, revision, trust_remote_code
            )
            parts = study_reading(asked, reading, study=study, folder=place, store=Store())
        done[folder] = parts
        _tell(parts, place)
    if len(done) > 1:
        _rank(run, done)
    page = write_report(run)
    print(f"\nReport: {page.resolve()}")
    return page


def _endpoint(name: str, served: str | None, how: dict[str, Any]) -> ServedModel | None:
    """The endpoint of `NAME@URL`, or of every model with --served."""
    if found := _AT.fullmatch(name):
        return ServedModel(found[1], found[2], **how)
    return None if served is None else ServedModel(name, served, **how)


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


def _told(left: dict[str, int]) -> str:
    reasons = [f"{reason} {n}" for reason, n in left.items() if n]
    return ", ".join(r for r in reasons if not r.startswith(("offered", "kept")))


def _tell(parts: dict[str, Result], place: Path) -> None:
    """A model's scores, in a table and in sentences."""
    print(f"\n{scores_of(parts).model}\n")
    print(text_table(score_head(parts), score_rows(parts)), end="\n\n")
    print(*reading_findings(parts), sep="\n")
    print(f"Answers: {(place / TABLE).resolve()}\n", flush=True)


def _rank(run: RunDirectory, done: dict[str, dict[str, Result]]) -> None:
    board = compared(run, done)
    if board is not None:
        print(f"Models by F1 in {board.setting}, the mean over languages\n")
        print(text_table(*leaderboard_rows(board)))
