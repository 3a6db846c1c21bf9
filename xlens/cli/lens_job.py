"""`xlens lens` and `xlens demo`: a study over language pairs into a run directory and a report."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from xlens.cli.common import counted, load_model, open_run
from xlens.cli.options import LOADING, Loading
from xlens.engine import Store
from xlens.figures.export import STATIC
from xlens.languages import standardize
from xlens.prompts import TooFewItems
from xlens.report import write_report
from xlens.report.sentences import landmark_value, used
from xlens.runs import pair_name
from xlens.studies.latent_language import PairStudy, check_pair, study_pair
from xlens.studies.options import DRAWN, LensStudy
from xlens.tasks.words import KINDS, WordList, cldr_words, read_words
from xlens.wording import number_of


def lens_job(
    *,
    command: str,
    model: str,
    pairs: Sequence[str],
    study: LensStudy,
    out: Path,
    words: Path | None = None,
    columns: Sequence[str] = (),
    repeats: Literal["error", "first"] = "error",
    missing: Literal["error", "drop", "keep"] = "error",
    kinds: Sequence[str] = (),
    loading: Loading = LOADING,
    static: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Run the study, save every result as it comes, write the report and print where it is.

    Raises:
        TooFewItems: no pair has enough words; where some have, the others are listed.
        ValueError: an unusable pair, word list, option or folder, before the model is loaded.
    """
    asked = [_pair(pair) for pair in pairs]
    if unknown := sorted(set(static) - set(STATIC)):
        raise ValueError(f"Unknown pictures {unknown}; --static takes {', '.join(STATIC)}.")
    languages = list(dict.fromkeys([study.pivot, *(tag for pair in asked for tag in pair)]))
    offered = (
        cldr_words(languages, kinds or KINDS)
        if words is None
        else _own_words(words, languages, kinds, columns, repeats=repeats, missing=missing)
    )
    if words is None and columns:
        raise ValueError(f"--columns {' '.join(columns)}: of what file? Give --words as well.")
    left_out: dict[str, str] = {}
    for source, target in asked:
        try:
            check_pair(offered, source, target, study=study)
        except TooFewItems as error:
            _leave_out(left_out, source, target, error, len(asked))
    options: dict[str, Any] = {
        "model": model,
        "pairs": [f"{source}:{target}" for source, target in asked],
        **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(study).items()},
    }
    if command == "lens":
        options |= {
            "words": None if words is None else str(words),
            "columns": list(columns),
            "repeats": repeats,
            "missing": missing,
            "kinds": list(kinds),
        }
    options |= loading.options()
    run = open_run(
        out,
        command,
        options,
        overwrite=overwrite,
        free=DRAWN,
        words=offered.source,
        n_words=len(offered),
    )
    hooked = load_model(model, loading)
    ready = [pair for pair in asked if pair_name(*pair) not in left_out]
    lacking = [p for p in ready if not run.has_result(pair_name(*p), "random-init")]
    twin = hooked.random_twin(study.seed) if lacking and "random-init" in study.controls else None
    for n, (source, target) in enumerate(ready, 1):
        print(f"[{n}/{len(ready)}] {source} → {target}", flush=True)
        name = pair_name(source, target)
        folder = run.result_folder(name, study.task).parent
        try:
            done = study_pair(
                hooked,
                offered,
                source,
                target,
                study=study,
                twin=twin,
                folder=folder,
                store=Store(),
            )
        except TooFewItems as error:
            _leave_out(left_out, source, target, error, len(asked))
            continue
        run.save_survival(name, done.survival)
        print(_headline(done, study), flush=True)
    run.save_left_out(left_out)
    page = write_report(run, static=static)
    if left_out:
        print(f"\nLeft out, without enough words: {', '.join(left_out)}.")
    print(f"\nReport: {page.resolve()}")
    return page


def _leave_out(
    left_out: dict[str, str], source: str, target: str, error: TooFewItems, n_pairs: int
) -> None:
    """Note why a pair can't be asked; the only one, or the last of all, is an error."""
    left_out[pair_name(source, target)] = str(error)
    if len(left_out) == n_pairs:
        raise error
    print(f"{source} → {target} is left out: {error}", flush=True)


def _pair(text: str) -> tuple[str, str]:
    parts = text.split(":")
    if len(parts) != 2 or not all(parts):
        raise ValueError(f"{text!r} is no language pair; write SOURCE:TARGET, such as fr:zh-Hans.")
    return standardize(parts[0]), standardize(parts[1])


def _own_words(
    path: Path,
    languages: Sequence[str],
    kinds: Sequence[str],
    columns: Sequence[str],
    **policies: Any,
) -> WordList:
    found = read_words(path, languages=_columns(columns), **policies)
    for reason in ("repeated", "missing"):
        if n := found.dropped.loc[found.dropped["reason"] == reason, "id"].nunique(dropna=False):
            print(f"{path.name}: rows of {number_of(n, 'item')} are left out, {reason}.")
    found.require(languages)
    return found.select(kinds=kinds) if kinds else found


def _columns(given: Sequence[str]) -> dict[str, str] | list[str] | None:
    """Columns by name, or in order; None: the first row names them."""
    named = [text.rpartition(":") for text in given]
    if all(name and tag for name, _, tag in named):
        return {name: tag for name, _, tag in named} or None
    if any(colon for _, colon, _ in named):
        raise ValueError(
            f"--columns {' '.join(given)}: write NAME:TAG for every column that is to be read, or "
            "only tags, in order, for a file without a row of names."
        )
    return list(given)


def _headline(done: PairStudy, study: LensStudy) -> str:
    summary = done.conditions[study.task].summary(resampling=study.resampling)
    table: pd.DataFrame = summary.landmarks
    shown = [
        f"{row['name'].replace('_', ' ')} {landmark_value(row)}" for _, row in table.iterrows()
    ]
    n = int(table["n"].iloc[0])
    left = used(counted(done.survival), "words")
    return (
        (f"      {left}\n" if left else "") + f"      {number_of(n, 'word')}; " + ", ".join(shown)
    )
