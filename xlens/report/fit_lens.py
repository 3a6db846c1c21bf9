"""The page of a run of `xlens fit-lens`: what lenses read, by the text that they were fitted on."""

import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from xlens.errors import InputError
from xlens.figures import Figure, lens_readings
from xlens.languages import english_name
from xlens.lens import JacobianLens, LensYardstick
from xlens.lens.readings import LensReadings
from xlens.lens.result import lens_title
from xlens.report.blocks import Drawing, Findings, Section, Table
from xlens.report.cells import interval, number
from xlens.report.written import write_page
from xlens.results import Result
from xlens.runs import RunDirectory
from xlens.studies.fit_lens import READINGS, YARDSTICK
from xlens.wording import number_of

_LEVEL = 0.05
_CAPTION = (
    "KL of the model's output from what each lens reads, by layer, on text that no lens was "
    "fitted on; lower is nearer to what the model says in the end, which is not the same as nearer "
    "to what it thinks there."
)


def write_fit_lens_report(run: RunDirectory, static: Collection[str] = ()) -> Path:
    """Draw the figures of a run of `xlens fit-lens` and write `report.html`.

    Args:
        run: With the parts of a `FitLensStudy`.
        static: Pictures to draw as well; after the report is written.

    Raises:
        ValueError: no results yet.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    models = {
        m: parts
        for m in run.models
        if isinstance((parts := run.parts(m)).get(READINGS), LensReadings)
    }
    if not models:
        raise InputError(f"{str(run.path)!r} has no readings yet: the same command goes on.")
    figures: dict[str, Figure] = {}
    sections: list[Section] = []
    for model, parts in models.items():
        found = parts[READINGS]
        assert isinstance(found, LensReadings)
        key = f"{model}-{READINGS}"
        figures[key] = lens_readings(found)
        drawn = Drawing.of(figures[key], key, _CAPTION)
        more = [drawn, *_tables(found), *_yardstick(parts.get(YARDSTICK))]
        sections += [s.more(more) for s in told(model, parts)]
    made_by = [parts[READINGS].provenance for parts in models.values()]
    return write_page(
        run,
        "Lenses, and the text that they were fitted on",
        sections,
        made_by,
        figures,
        static,
        offered=offered(run.provenance),
        template="fit_lens",
        percent=run.resampling.percent,
    )


def offered(known: Mapping[str, Any]) -> list[str]:
    """What the texts are."""
    tags = known.get("languages", [])
    if not tags:
        return []
    return [
        f"{number_of(int(known['texts']), 'text')} in {', '.join(map(english_name, tags))}, "
        f"from {', '.join(map(str, known['from']))}."
    ]


def told(model: str, parts: Mapping[str, Result]) -> list[Section]:
    """What the page and the terminal say of a model's parts."""
    found = parts[READINGS]
    assert isinstance(found, LensReadings)
    title = str(found.provenance.get("model", model))
    estimators = {x.estimator for x in parts.values() if isinstance(x, JacobianLens)}
    sentences = [*_against_none(found), *_by_text(found)]
    if any("rows/" in name for name in estimators):
        rotation = sorted(name.rpartition("/")[2] for name in estimators)[0]
        sentences.append(
            f"Each text gave 1/{rotation} of a Jacobian's rows: an estimate, noisier than the full "
            "one on the same texts."
        )
    return [Section(model, title, (Findings.of(sentences),))]


def _against_none(found: LensReadings) -> Iterator[str]:
    """Of each kind, in how many languages it reads nearer to the output than no lens."""
    for lens in ("jacobian", "tuned"):
        if told := found.told_apart(lens, level=_LEVEL):
            yield (
                f"The {lens_title(lens)} reads nearer to the output than the logit lens in "
                f"{told['nearer']:.0f} of {number_of(int(told['n']), 'language')} and farther in "
                f"{told['farther']:.0f}, the difference told from none (adjusted p < {_LEVEL}); "
                f"over layers and languages it is {told['kl']:+.2f} bits."
            )


def _by_text(found: LensReadings) -> Iterator[str]:
    """By how much the language of the text changes the reading."""
    said = {
        "jacobian without it": "Fitted without a language's own text",
        "jacobian of it": "Fitted on a language's own text alone",
    }
    for lens, how in said.items():
        if not (told := found.told_apart(lens, level=_LEVEL)):
            continue
        rows = [row for row in found.changes.to_dict("records") if row["lens"] == lens]
        most = sorted(rows, key=lambda row: -math.fabs(row["kl"]))[0]
        yield (
            f"{how}, the Jacobian lens reads that language farther from the output than the lens "
            f"of all languages in {told['farther']:.0f} of {told['n']:.0f} and nearer in "
            f"{told['nearer']:.0f}; the largest change is {interval(most, 'kl')} bits, in "
            f"{english_name(str(most['language']))}."
        )


def _yardstick(found: Result | None) -> Iterator[Table]:
    """What lenses score on the public items, over all languages."""
    if not isinstance(found, LensYardstick):
        return
    there = dict(zip(found.survival["what"], found.survival["n"], strict=True))
    rows = [
        (
            str(row["lens"]),
            str(row["k"]),
            interval(row, "score"),
            interval(row, "control", "control_low", "control_high"),
        )
        for row in found.table.to_dict("records")
        if row["language"] == "all"
    ]
    yield Table(
        "The multilingual items of the Jacobian lens's authors: share of an item's English "
        "intermediates that are among the k most probable tokens at some layer below the output; "
        "the control reads other items' words. Uneven: most languages have one to three items. Of "
        f"{there['words']} words {there['words of one token']} are one token here, in "
        f"{there['items with a word of one token']} of {there['items']} items.",
        ("Lens", "k", "Read", "Other items' words"),
        rows,
    )


def _tables(found: LensReadings) -> Iterator[Table]:
    """Differences by language, and agreement at the highest layer below the output."""
    rows = [
        (
            f"{row['lens']} less {row['against']}",
            english_name(str(row["language"])),
            interval(row, "kl"),
            number(float(row["p_adjusted"])),
        )
        for row in found.changes.to_dict("records")
    ]
    if rows:
        yield Table(
            "Mean over the layers below the last, in bits; below 0 the first reads nearer to the "
            "output. p by sign flips over texts, adjusted for all rows.",
            ("Lenses", "Language", "Difference", "p"),
            rows,
        )
    wide = found.agreement()
    if len(wide):
        yield Table(
            f"How often the most probable token at point {found.n_layers - 1}, the highest below "
            "the output, is the output's.",
            ("Language", *map(str, wide.columns)),
            [
                (english_name(str(t)), *(number(float(x)) for x in row))
                for t, row in zip(wide.index, wide.to_numpy(), strict=True)
            ],
        )
