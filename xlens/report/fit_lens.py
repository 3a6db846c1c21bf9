"""The page of a run of `xlens fit-lens`: what lenses read, by the text that they were fitted on."""

import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from xlens.figures import lens_readings
from xlens.languages import english_name
from xlens.lens import JacobianLens, LensYardstick
from xlens.lens.readings import LensReadings
from xlens.lens.result import lens_title
from xlens.report.blocks import Findings, Paragraph, Section, Table
from xlens.report.by_model import ModelPage, write_by_model
from xlens.report.cells import interval, number, rounded, signed
from xlens.report.minute import Minute, prompt_of
from xlens.results import Result
from xlens.runs import RunDirectory
from xlens.studies.fit_lens import READINGS, YARDSTICK
from xlens.wording import number_of

_LEVEL = 0.05
_COMPARED = {
    ("jacobian", "logit"): "Jacobian less logit",
    ("tuned", "logit"): "tuned less logit",
    ("jacobian without it", "jacobian"): "Jacobian, without its own text less of all",
    ("jacobian of it", "jacobian"): "Jacobian, of its own text alone less of all",
}
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
    return write_by_model(run, static, PAGE)


def offered(known: Mapping[str, Any]) -> list[str]:
    """What the texts are."""
    tags = known.get("languages", [])
    if not tags:
        return []
    said = (
        f"{number_of(int(known['texts']), 'text')} in {', '.join(map(english_name, tags))}, "
        f"from {', '.join(map(str, known['from']))}."
    )
    if "fitted_on" in known:  # not in runs of before 0.3
        said += (
            f" Of each language {number_of(int(known['fitted_on']), 'passage')} of "
            f"{known['max_tokens']} tokens were fitted on, and {known['held_out']} others read."
        )
    return [said]


def told(model: str, parts: Mapping[str, Result]) -> list[Section]:
    """What the page and the terminal say of a model's parts."""
    found = _readings(parts)
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
                f"{rounded(told['nearer'], '.0f')} of {number_of(int(told['n']), 'language')} and "
                "farther in "
                f"{rounded(told['farther'], '.0f')}, the difference told from none (adjusted p < "
                f"{_LEVEL}); "
                f"over layers and languages it is {rounded(told['kl'], '+.2f')} bits."
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
            f"of all languages in {rounded(told['farther'], '.0f')} of {rounded(told['n'], '.0f')} "
            "and nearer in "
            f"{rounded(told['nearer'], '.0f')}; the largest change is {interval(most, 'kl')} bits, "
            "in "
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
        f"{number_of(int(there['words']), 'word')} {there['words of one token']} are one token "
        "here, in "
        f"{there['items with a word of one token']} of {number_of(int(there['items']), 'item')}.",
        ("Lens", "k", "Read", "Other items' words"),
        rows,
    )


def minute(parts: Mapping[str, Result]) -> Minute:
    """What is read first of a model: each lens against another, by language."""
    found = _readings(parts)
    told = {
        (row["lens"], row["against"], row["language"]): f"{signed(row, 'kl')} {_verdict(row)}"
        for row in found.changes.to_dict("records")
    }
    asked = [two for two in _COMPARED if any(key[:2] == two for key in told)]
    rows = [
        [english_name(str(tag)), *(told.get((*two, tag), "") for two in asked)]
        for tag in dict.fromkeys(tag for *_, tag in told)
    ]
    table = Table(
        "By how many bits a lens is farther from the output than another (below 0: nearer), mean "
        "over the layers below the last. A Jacobian lens that was fitted with or without a "
        "language's own text stands beside the one of all languages. Undecided: p is "
        f"{_LEVEL} or more, by sign flips over texts, adjusted for all that is in the table.",
        ("language", *(_COMPARED[two] for two in asked)),
        rows,
    )
    said = (Paragraph("No question is asked: the model only reads text, as this."),)
    prompt = prompt_of(found)
    return Minute(
        fit_lens_lead(found),
        table if rows else None,
        (*said, *prompt) if prompt else (),
        asked=False,
    )


def fit_lens_lead(found: LensReadings) -> str:
    """One sentence over all languages: does a fitted lens read nearer to the output than none?"""
    said: list[str] = []
    for lens in ("jacobian", "tuned"):
        if told := found.told_apart(lens, level=_LEVEL):
            n, nearer, farther = (int(told[name]) for name in ("n", "nearer", "farther"))
            more = f", and farther in {farther}" if farther else ""
            said.append(
                f"the {lens_title(lens)} reads nearer to the output than the logit lens in "
                f"{nearer or 'none'} of {number_of(n, 'language')}{more}"
            )
    if not said:
        return "No lens was compared with the logit lens."
    whole = "; ".join(said)
    return f"{whole[0].upper()}{whole[1:]}."


def _verdict(row: Mapping[Any, Any]) -> str:
    if not row["p_adjusted"] < _LEVEL:
        return "undecided"
    return "nearer" if row["kl"] < 0 else "farther"


def _readings(parts: Mapping[str, Result]) -> LensReadings:
    found = parts[READINGS]
    assert isinstance(found, LensReadings)
    return found


def _tables(parts: Mapping[str, Result]) -> Iterator[Table]:
    """Agreement at the highest layer below the output, and the public items."""
    found = _readings(parts)
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
    yield from _yardstick(parts.get(YARDSTICK))


PAGE = ModelPage(
    needs=READINGS,
    what="readings",
    title=lambda _: "Lenses, and the text that they were fitted on",
    template="fit_lens",
    offered=offered,
    told=told,
    minute=minute,
    figures=lambda parts: {READINGS: lens_readings(_readings(parts))},
    captions={READINGS: _CAPTION},
    tables=_tables,
)
