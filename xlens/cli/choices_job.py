"""`xlens choices`: the same questions in many languages, into a run directory and a report."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from xlens.cli.common import counted, load_model, open_run
from xlens.cli.options import Loading
from xlens.consistency import ConsistencyResult
from xlens.engine import Scores, Store
from xlens.languages import standardize_all
from xlens.lengths import By
from xlens.report import write_report
from xlens.report.choices import PANEL, SCORES, STUDY, findings
from xlens.report.sentences import used
from xlens.results import Result
from xlens.studies.latent_process import panel_of
from xlens.studies.options import Intervals
from xlens.studies.parts import identity, run_parts
from xlens.tasks.choices import FACTS, Choices, cldr_choices, read_choices, score_choices
from xlens.tasks.items import content

Policy = Literal["error", "drop"]


def choices_job(
    *,
    model: str,
    languages: Sequence[str],
    items: Path | None,
    layout: str,
    split: str | None,
    incomplete: Policy,
    identical: Literal["keep", "drop"] | None,
    kinds: Sequence[str],
    n_items: int,
    shots: int,
    by: By,
    intervals: Intervals,
    loading: Loading,
    out: Path,
    overwrite: bool,
) -> Path:
    """Ask, compare, save, write the report and print where it is.

    Raises:
        ValueError: unusable items, languages or folder, before the model is loaded.
    """
    seed = intervals.seed
    tags = list(standardize_all(languages)) if languages else []
    offered = offered_choices(
        items, layout, tags, kinds, seed, split=split, incomplete=incomplete, identical=identical
    )
    survival = counted(offered.survival())
    if said := used(survival, "items"):
        print(said)
    asked = offered.sample(min(n_items, len(offered.ids)), seed=seed)
    options: dict[str, Any] = {
        "model": model,
        "languages": list(asked.languages),
        "items": None if items is None else str(items),
        "layout": layout,
        "split": split,
        "incomplete": incomplete,
        "identical": identical,
        "kinds": list(kinds),
        "n_items": n_items,
        "shots": shots,
        "by": by,
        **asdict(intervals),
        **loading.options(),
    }
    run = open_run(
        out,
        STUDY,
        options,
        overwrite=overwrite,
        items=offered.source,
        n_items=len(asked.ids),
        survival=survival,
    )
    hooked = load_model(model, loading)
    done: dict[str, Result] = {}

    def scores() -> Scores:
        return score_choices(hooked, asked, shots=shots, seed=seed, pool=offered, store=Store())

    def panel() -> ConsistencyResult:
        made = done[SCORES]
        assert isinstance(made, Scores)
        return panel_of(made, asked.gold, by=by, resampling=intervals.resampling)

    run_parts(
        {SCORES: scores, PANEL: panel},
        {SCORES: Scores, PANEL: ConsistencyResult},
        done,
        folder=run.result_folder(STUDY, PANEL).parent,
        made_from={
            "model": identity(hooked),
            "items": content(offered.frame),
            "options": {name: value for name, value in options.items() if name != "model"},
        },
    )
    page = write_report(run)
    found = done[PANEL]
    assert isinstance(found, ConsistencyResult)
    print(*findings(found), sep="\n")
    print(f"\nReport: {page.resolve()}")
    return page


def offered_choices(
    items: Path | None,
    layout: str,
    tags: list[str],
    kinds: Sequence[str],
    seed: int,
    *,
    split: str | None = None,
    incomplete: Policy = "error",
    identical: Literal["keep", "drop"] | None = None,
) -> Choices:
    """Items of a file in its layout, or those that CLDR gives in these languages.

    Names from CLDR that are one string in two languages are left out by default, a file's options
    are kept.
    """
    if items is not None:
        found = read_choices(
            items,
            layout=layout,
            languages=tags or None,
            split=split,
            incomplete=incomplete,
            identical=identical or "keep",
        )
        return found.select(kinds=kinds) if kinds else found
    if layout != "jsonl" or split is not None:
        raise ValueError(
            f"layout={layout!r} and split={split!r} are of a file or folder: name it with --items."
        )
    if not tags:
        raise ValueError("Name two languages or more: --languages en de sw.")
    return cldr_choices(tags, kinds or FACTS, seed=seed, identical=identical or "drop")
