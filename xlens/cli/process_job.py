"""`xlens process`: shared space, consistency and steering, into a run directory and a report."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xlens.cli.choices_job import offered_choices
from xlens.cli.common import counted, load_model, open_run
from xlens.cli.options import Loading
from xlens.engine import Store
from xlens.languages import standardize_all
from xlens.lengths import By
from xlens.report import write_report
from xlens.report.process import language_names, left_out, process_findings
from xlens.studies import ProcessStudy, SteeringStudy, planned_parts, study_process
from xlens.studies.latent_process import left_out_parts
from xlens.studies.options import Intervals
from xlens.tasks.choices import Choices


def process_job(
    *,
    model: str,
    languages: Sequence[str],
    items: Sequence[str],
    kinds: Sequence[str],
    pivot: str,
    n_items: int,
    shots: int,
    by: By,
    pooling: str,
    steer: Sequence[str],
    steer_languages: Sequence[str],
    layers: Sequence[str],
    strengths: Sequence[float],
    slot: str,
    n_estimate: int,
    n_dev: int,
    n_test: int,
    intervals: Intervals,
    loading: Loading,
    out: Path,
    overwrite: bool,
) -> Path:
    """Read the items, run every part, write the report and print where it is.

    Raises:
        ValueError: unusable items, languages, options or folder, before the model is loaded.
    """
    seed = intervals.seed
    tags = list(standardize_all(languages)) if languages else []
    if items and "cldr" not in items and (tags or kinds):
        raise ValueError(
            "--languages and --kinds choose items from CLDR, and --items has only others: leave "
            "them out, or name cldr among the items."
        )
    lonely = {"--steer-languages": steer_languages, "--layers": layers, "--strengths": strengths}
    if not steer and (unused := [name for name, value in lonely.items() if value]):
        raise ValueError(f"{', '.join(unused)} without --steer: say which methods to try.")
    given: dict[str, Any] = {"strengths": tuple(strengths)} if strengths else {}
    steering = (
        SteeringStudy(
            methods=tuple(steer),
            languages=tuple(steer_languages) or None,
            bands=tuple(_band(text) for text in layers) or None,
            slot=slot,
            n_estimate=n_estimate,
            n_dev=n_dev,
            n_test=n_test,
            **given,
        )
        if steer
        else None
    )
    study = ProcessStudy(
        pivot=pivot,
        n_items=n_items,
        shots=shots,
        by=by,
        pooling=pooling,
        steering=steering,
        **asdict(intervals),
    )
    sets: dict[str, Choices] = {}
    survival: dict[str, dict[str, int]] = {}
    without: dict[str, dict[str, str]] = {}
    for source in items or ["cldr"]:
        name, found = _items(source, tags, kinds, seed)
        if name in sets:
            raise ValueError(
                f"--items {' '.join(items)}: two of these are called {name!r} in the report; "
                "rename a file."
            )
        planned_parts(found, study)
        sets[name] = found
        survival[name] = counted(found.survival())
        without[name] = left_out_parts(found, study)
        for said in left_out(survival[name], without[name]):
            print(f"{name}: {said}")
    options: dict[str, Any] = {
        "model": model,
        "languages": tags,
        "items": list(items),
        "kinds": list(kinds),
        "pivot": pivot,
        "n_items": n_items,
        "shots": shots,
        "by": by,
        "pooling": pooling,
        "steer": list(steer),
        "steer_languages": list(steer_languages),
        "layers": list(layers),
        "strengths": list(strengths),
        "slot": slot,
        "n_estimate": n_estimate,
        "n_dev": n_dev,
        "n_test": n_test,
        **asdict(intervals),
        **loading.options(),
    }
    run = open_run(
        out,
        "process",
        options,
        overwrite=overwrite,
        sources={name: found.source for name, found in sets.items()},
        survival=survival,
        without=without,
    )
    hooked = load_model(model, loading)
    results = {
        name: study_process(
            hooked, found, study=study, folder=run.result_folder(name, "x").parent, store=Store()
        )
        for name, found in sets.items()
    }
    page = write_report(run)
    names = language_names(results.values())
    for name, parts in results.items():
        said = process_findings(parts, names=names)
        print(*([f"{name}:"] if len(results) > 1 else []), *said, sep="\n")
    print(f"\nReport: {page.resolve()}")
    return page


def _items(source: str, tags: list[str], kinds: Sequence[str], seed: int) -> tuple[str, Choices]:
    """`cldr`, `LAYOUT:PATH`, or a file of the plain layout; with a name for the folder."""
    if source == "cldr":
        return "cldr", offered_choices(None, "jsonl", tags, kinds, seed)
    layout, colon, place = source.partition(":")
    if not colon or Path(source).exists():
        layout, place = "jsonl", source
    name = layout if layout != "jsonl" else Path(place).stem
    return name, offered_choices(Path(place), layout, [], (), seed, incomplete="drop")


def _band(text: str) -> int | tuple[int, ...]:
    """`7`, or a band `7-9`."""
    first, dash, last = text.partition("-")
    try:
        return tuple(range(int(first), int(last) + 1)) if dash else int(first)
    except ValueError:
        raise ValueError(f"--layers {text!r}: give a layer (7) or a band of them (7-9).") from None
