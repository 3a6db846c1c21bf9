"""`xlens lens` and `xlens demo`: a study over language pairs into a run directory and a report."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from xlens.cli.common import load_model, open_run
from xlens.cli.options import LOADING, Loading
from xlens.engine import Store
from xlens.figures.export import STATIC
from xlens.languages import standardize
from xlens.report import write_report
from xlens.report.sentences import layer, probability
from xlens.runs import pair_name
from xlens.studies.latent_language import PairStudy, check_pair, study_pair
from xlens.studies.options import LensStudy
from xlens.tasks.words import KINDS, WordList, cldr_words, read_words


def lens_job(
    *,
    command: str,
    model: str,
    pairs: Sequence[str],
    study: LensStudy,
    out: Path,
    words: Path | None = None,
    kinds: Sequence[str] = (),
    loading: Loading = LOADING,
    static: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Run the study, save every result as it comes, write the report and print where it is.

    Raises:
        ValueError: an unusable pair, word list, option or folder, before the model is loaded.
    """
    asked = [_pair(pair) for pair in pairs]
    if unknown := sorted(set(static) - set(STATIC)):
        raise ValueError(f"Unknown pictures {unknown}; --static takes {', '.join(STATIC)}.")
    offered = _words(words, kinds, asked, study.pivot)
    for source, target in asked:
        check_pair(offered, source, target, study=study)
    options: dict[str, Any] = {
        "model": model,
        "pairs": [f"{source}:{target}" for source, target in asked],
        **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(study).items()},
    }
    if command == "lens":
        options |= {
            "words": None if words is None else str(words),
            "kinds": list(kinds),
            **loading.options(),
        }
    run = open_run(
        out,
        command,
        options,
        overwrite=overwrite,
        words=offered.source,
        n_words=len(offered),
    )
    hooked = load_model(model, loading)
    lacking = [p for p in asked if not run.has_result(pair_name(*p), "random-init")]
    twin = hooked.random_twin(study.seed) if lacking and "random-init" in study.controls else None
    for n, (source, target) in enumerate(asked, 1):
        print(f"[{n}/{len(asked)}] {source} → {target}", flush=True)
        name = pair_name(source, target)
        folder = run.result_folder(name, study.task).parent
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
        run.save_survival(name, done.survival)
        print(_headline(done, study), flush=True)
    page = write_report(run, static=static)
    print(f"\nReport: {page.resolve()}")
    return page


def _pair(text: str) -> tuple[str, str]:
    parts = text.split(":")
    if len(parts) != 2 or not all(parts):
        raise ValueError(f"{text!r} is no language pair; write SOURCE:TARGET, such as fr:zh-Hans.")
    return standardize(parts[0]), standardize(parts[1])


def _words(
    path: Path | None, kinds: Sequence[str], pairs: Sequence[tuple[str, str]], pivot: str
) -> WordList:
    languages = list(dict.fromkeys([pivot, *(tag for pair in pairs for tag in pair)]))
    if path is None:
        return cldr_words(languages, kinds or KINDS)
    found = read_words(path)
    found.require(languages)
    return found.select(kinds=kinds) if kinds else found


def _headline(done: PairStudy, study: LensStudy) -> str:
    summary = done.conditions[study.task].summary()
    table: pd.DataFrame = summary.landmarks
    shown = [
        f"{row['name'].replace('_', ' ')} "
        + (layer if row["name"].endswith("layer") else probability)(row["value"])
        for _, row in table.iterrows()
    ]
    n = int(table["n"].iloc[0])
    return f"      {n} words; " + ", ".join(shown)
