"""The page of a run of `xlens align`: did answers get better, and what changed inside?"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from xlens.errors import InputError
from xlens.figures import (
    Figure,
    gain_bars,
    latent_share,
    training_loss,
    twin_entropies,
    twin_maps,
    twin_similarity,
)
from xlens.gain import ALL, BEFORE, SEEN, UNSEEN, Gain
from xlens.lens import TwinCurves
from xlens.report.blocks import Block, Drawing, Findings, Folded, Section, Table
from xlens.report.cells import number, rounded
from xlens.report.choices import listed_models
from xlens.report.gain import (
    MEANS,
    SAID,
    Names,
    answered,
    change,
    gain_lead,
    gain_names,
    gain_table,
    rows_of,
    verdict_words,
)
from xlens.report.minute import Minute, minutes
from xlens.report.sentences import listed, used
from xlens.report.written import write_page
from xlens.results import Result
from xlens.runs import RunDirectory
from xlens.studies.align import ALIGNED, ANSWERS, GAIN, INSIDE, SHUFFLED, TRAINING
from xlens.studies.steps.twins import TwinSummary
from xlens.subspace import TwinStates
from xlens.tasks.choices import LatentSummary
from xlens.training.fit import Training
from xlens.wording import number_of

Row = Mapping[Any, Any]


def write_alignment_report(run: RunDirectory, static: Collection[str] = ()) -> Path:
    """Draw the figures of a run of `xlens align` and write `report.html`.

    Args:
        run: With the parts of an `AlignStudy`.
        static: Pictures to draw as well, any of `png`, `svg`, `pdf`; after the report is written.

    Raises:
        ValueError: no results yet.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    models = {model: run.parts(model) for model in run.models}
    done = {model: parts for model, parts in models.items() if isinstance(parts.get(GAIN), Gain)}
    if not done:
        raise InputError(
            f"{str(run.path)!r} has no results yet: run the study to its end first, so that "
            f"results/<model>/{GAIN} holds one."
        )
    figures: dict[str, Figure] = {}
    sections: list[Section] = []
    for model, parts in done.items():
        start = f"{model}-" if len(done) > 1 else ""
        title = f"{model}: " if start else ""
        sections += _sections(parts, start, title, figures)
    made_by = [parts[GAIN].provenance for parts in done.values()]
    return write_page(
        run,
        f"Did {listed_models(made_by)} gain by learning to translate questions?",
        sections,
        made_by,
        figures,
        static,
        minute=minutes(done, minute),
        offered=offered(run.provenance),
        template="alignment",
        percent=run.resampling.percent,
    )


def offered(known: Mapping[str, Any]) -> list[str]:
    """What is said of the data before anything is trained."""
    said = used(known.get("survival", {}), "questions")
    n = known.get("evaluated")
    more = f" {number_of(int(n), 'item')} evaluated, none of them trained on." if n else ""
    return [f"{said}{more}".strip()] if said or more else []


def told(_: str, parts: Mapping[str, Result]) -> list[Section]:
    """What the page and the terminal say of a model's parts."""
    found = parts.get(GAIN)
    if not isinstance(found, Gain):
        return []
    return [_found(found, _trainings(parts), "", "")]


def minute(parts: Mapping[str, Result]) -> Minute:
    """What is read first of a model."""
    found, before = parts[GAIN], parts.get(f"{BEFORE}/{ANSWERS}")
    assert isinstance(found, Gain)
    names = gain_names(found)
    return Minute(
        gain_lead(found, ALIGNED, before, names),
        gain_table(found, names, ALIGNED, BEFORE),
        answered(before),
    )


def findings(result: Gain, names: Names) -> list[str]:
    """What the numbers say, in sentences; nothing but what they say."""
    said = [_mean(result, ALIGNED, where) for where in (UNSEEN, SEEN, ALL)]
    said += [_each(result, ALIGNED, names)]
    said += [_control(result)] if SHUFFLED in set(result.table["condition"]) else []
    return [text for text in said if text]


def _trainings(parts: Mapping[str, Result]) -> dict[str, Training]:
    return {
        name.rpartition("/")[0]: part
        for name, part in parts.items()
        if name.endswith(f"/{TRAINING}") and isinstance(part, Training)
    }


def _found(result: Gain, trainings: Mapping[str, Training], start: str, title: str) -> Section:
    names = gain_names(result)
    return Section(
        f"{start}findings",
        f"{title}What was found",
        (Findings.of(filter(None, [*findings(result, names), _trained(trainings)])),),
    )


def _mean(result: Gain, condition: str, where: str) -> str:
    row = rows_of(result, condition).get(where)
    if row is None:
        return ""
    before, after = (100 * row[name] for name in ("before", "after"))
    return (
        f"{verdict_words(row).capitalize()} {SAID[where]}: {rounded(before, '.1f')} % right "
        f"before, {rounded(after, '.1f')} % after, {change(row)}."
    )


def _each(result: Gain, condition: str, names: Names) -> str:
    """Which languages changed by themselves, after adjusting for all that were looked at."""
    rows = {t: r for t, r in rows_of(result, condition).items() if t not in MEANS}
    by_verdict = {
        verdict: [tag for tag, row in rows.items() if row["verdict"] == verdict]
        for verdict in ("better", "worse", "the same")
    }
    parts = [f"{verdict} in {listed(names, tags)}" for verdict, tags in by_verdict.items() if tags]
    rest = len(rows) - sum(map(len, by_verdict.values()))
    said = f"Language by language, adjusted for all {len(rows)}: {', '.join(parts) or 'nothing'}"
    return f"{said}; undecided in {rest}." if rest else f"{said}."


def _control(result: Gain) -> str:
    """What is left of the gain beside training on shuffled pairs."""
    control = rows_of(result, SHUFFLED).get(ALL)
    beside = rows_of(result, ALIGNED, SHUFFLED).get(ALL)
    if control is None or beside is None:
        return ""
    left = {
        "better": "the gain is more than that",
        "worse": "the alignment did worse than that",
        "the same": "the alignment did the same as that",
        "undecided": "whether the alignment did more isn't shown",
    }[beside["verdict"]]
    return (
        f"Training as long on shuffled pairs, which teach no translation: {change(control)}; "
        f"{left} (aligned less shuffled: {change(beside)})."
    )


def _trained(trainings: Mapping[str, Training]) -> str:
    """How far the loss fell, of the first alignment; nothing where none was trained."""
    for name, training in trainings.items():
        if not name.startswith(ALIGNED) or not len(training.curve):
            continue
        losses = training.curve["loss"]
        return (
            f"The loss on translations fell from {rounded(losses.iloc[0], '.2f')} to "
            f"{rounded(losses.iloc[-1], '.2f')} in {number_of(len(losses), 'step')} "
            f"({number_of(training.n_rows, 'pair')}, "
            f"{rounded(training.provenance['training']['seconds'], ',.0f')} s)."
        )
    return ""


def _sections(
    parts: Mapping[str, Result], start: str, title: str, figures: dict[str, Figure]
) -> Iterable[Section]:
    result, trainings = parts[GAIN], _trainings(parts)
    assert isinstance(result, Gain)
    names = gain_names(result)
    yield _found(result, trainings, start, title)
    drawn = {f"{start}gain": gain_bars(result), f"{start}loss": training_loss(trainings)}
    figures |= drawn
    yield Section(
        f"{start}accuracy",
        f"{title}Before and after",
        (
            *_drawn(drawn, {"gain": "What changed by language, of the alignment and its control."}),
            *_against_control(result, names),
        ),
    )
    loss = tuple(_drawn(drawn, {"loss": "Loss on the translations, a mean over a step's rows."}))
    yield Section(
        f"{start}training",
        f"{title}Training",
        (Folded(_trained(trainings) or "Loss on the translations", loss),),
    )
    inside = {name.partition("/")[2]: p for name, p in parts.items() if name.startswith(INSIDE)}
    if inside:
        yield inside_section(inside, start, title, figures)


def _against_control(result: Gain, names: Names) -> tuple[Folded, ...]:
    """The alignment beside training on shuffled pairs, where that was done."""
    if not len(result.of(ALIGNED, SHUFFLED)):
        return ()
    said = _control(result) or "Control: training as long on shuffled pairs"
    return (Folded(said, (gain_table(result, names, ALIGNED, SHUFFLED),)),)


def _drawn(figures: Mapping[str, Figure], captions: Mapping[str, str]) -> list[Drawing]:
    found: list[Drawing] = []
    for name, fig in figures.items():
        caption = next((text for key, text in captions.items() if name.endswith(key)), "")
        if caption:
            found.append(Drawing.of(fig, name, caption))
    return found


def inside_section(
    inside: Mapping[str, Result], start: str, title: str, figures: dict[str, Figure]
) -> Section:
    """Two models' insides: states, maps, how sure each layer is, options, and means by layer.

    Args:
        inside: Parts of `twin_parts`.
        start: Of the ids on the page.
        title: Before the section's own.
        figures: What is drawn is added to these.
    """
    blocks: list[Block] = []
    states = inside.get("states")
    if isinstance(states, TwinStates):
        drawn = {f"{start}states": twin_similarity(states), f"{start}map": twin_maps(states)}
        figures |= drawn
        captions = {
            "states": "Linear CKA (unbiased) of the two models: 1 is the same geometry.",
            "map": "The same items in both models, on the first one's own axes.",
        }
        blocks += _drawn(drawn, captions)
    curves = inside.get("curves")
    if isinstance(curves, TwinCurves):
        name = f"{start}entropy"
        figures[name] = twin_entropies(curves)
        blocks.append(Drawing.of(figures[name], name, "How sure each layer is of what comes next."))
    for part, said in (("latent-first", "first"), ("latent-second", "second")):
        found = inside.get(part)
        if isinstance(found, LatentSummary):
            name = f"{start}latent-{said}"
            figures[name] = latent_share(found)
            blocks.append(Drawing.of(figures[name], name, f"Options inside the {said} model."))
    summary = inside.get("summary")
    if isinstance(summary, TwinSummary):
        blocks += _means(summary)
    return Section(f"{start}inside", f"{title}Inside", tuple(blocks))


_MEASURES = {
    "separation": ("Share of the states' variance that lies between languages", ""),
    "pearson": ("Pearson's r of languages' scores on the first component", "other items, as long"),
    "angle": ("Mean angle between languages' subspaces, in degrees", "languages shuffled"),
}


def _means(found: TwinSummary) -> list[Table]:
    """Both models by layer, at five layers, a table each measure."""
    tables: list[Table] = []
    for measure, (said, control) in _MEASURES.items():
        rows = found.table[found.table["measure"] == measure].to_dict("records")
        some = [rows[k] for k in sorted({round(k * (len(rows) - 1) / 4) for k in range(5)})]
        head = ["layer", *found.names]
        names = ["first", "second"]
        if control:
            head += [f"{name}: {control}" for name in found.names]
            names += ["control_first", "control_second"]
        cells = [[str(row["layer"]), *(number(row[name]) for name in names)] for row in some]
        more = ", mean over pairs of them" if control else ""
        tables.append(Table(f"{said}{more}.", head, cells))
    return tables
