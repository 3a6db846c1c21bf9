"""The page of a run of `xlens phases`: where inside a question ends and its answer begins."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlens.figures import (
    Figure,
    depth_by_language,
    language_colors,
    phase_boundaries,
    phase_curves,
    segment_relevance,
)
from xlens.languages import english_names
from xlens.phases import Curves, CurveSummary, DepthResult, PhaseResult, StabilityResult
from xlens.phases.curves import ALL, Answered
from xlens.report.blocks import Block, Findings, Section, Table
from xlens.report.by_model import ModelPage, write_by_model
from xlens.report.cells import number
from xlens.report.minute import Minute, prompt_of
from xlens.report.reading_inside import phase_findings, phase_rows, stability_rows
from xlens.report.sentences import listed, used
from xlens.results import Result
from xlens.runs import RunDirectory
from xlens.studies.phases import INSIDE_SUMMARIES
from xlens.wording import number_of

READABLE, HALF = "readable", 0.5
_PHASES = (
    "Where inside, by the language of the question: the first residual point (0 is the embedding, "
    "{} the output of the last block) at which the question has been handed over, and at which the "
    "answer has been retrieved; p of both and of their order, each language by itself."
)
INSIDE_FOLDED = {"depth": "Control: relevance depth of every question, and of random words"}
"""Of figures that are details: their message in one line."""
INSIDE_CAPTIONS = {
    "curves": "Evidence by layer. Coloured: what an intervention or a layer says about the right "
    "answer; grey, its control: the same for the answer to another question about the same text. "
    "Only their difference counts. Shaded: interval over paragraphs; dotted boundaries are "
    "not significant.",
    "boundaries": "The boundary that each kind of evidence points at, with its interval; open "
    "markers are not significant.",
    "relevance": "How much the tokens of the question and of the text matter for the right "
    "answer's first token, by layer (shaded: interval); diamonds: the layer by which most of "
    "it is reached, on average.",
    "depth": "That layer for every question. Grey, the control: random words of the prompt, as "
    "many as the segment has; where there is none, no place was left for them.",
}


def write_phases_report(run: RunDirectory, static: Collection[str] = ()) -> Path:
    """Draw the figures of a run of `xlens phases` and write `report.html`.

    Args:
        run: With the parts of a `PhasesStudy`.
        static: Pictures to draw as well; after the report is written.

    Raises:
        ValueError: no results yet.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    return write_by_model(run, static, PAGE)


def offered(known: Mapping[str, Any]) -> list[str]:
    """How many questions can be used, if not all."""
    said = used(known.get("survival", {}), "questions")
    return [said] if said else []


def _title(names: Sequence[str]) -> str:
    does = "does" if len(names) == 1 else "do"
    return f"Where inside {does} {' and '.join(names)} understand a question and find the answer?"


def told(model: str, parts: Mapping[str, Result]) -> list[Section]:
    """What the page and the terminal say of a model's parts."""
    title = str(parts["phases"].provenance.get("model", model))
    return [Section(model, title, (Findings.of(phase_findings(parts)),))]


def inside_figures(parts: Mapping[str, Result]) -> dict[str, Figure]:
    """What is drawn of the inside of a model that reads, by name."""
    drawn: dict[str, Figure] = {}
    curves, phases = parts.get("curves"), parts.get("phases")
    means = parts.get(INSIDE_SUMMARIES["curves"])
    if isinstance(curves, Curves) and isinstance(means, CurveSummary):
        found = phases if isinstance(phases, PhaseResult) else None
        # A kind may have no prompt at all: donors as long as the question are rare.
        kinds = [kind for kind, n in curves.telling.items() if n]
        drawn["curves"] = phase_curves(means, found, kinds=kinds)
    if isinstance(phases, PhaseResult):
        drawn["boundaries"] = phase_boundaries(phases)
    depth, control = parts.get("depth"), parts.get("depth-control")
    if isinstance(depth, DepthResult):
        drawn["relevance"] = segment_relevance(depth)
        null = control if isinstance(control, DepthResult) else None
        colors = language_colors(depth.table["language"].unique())
        drawn["depth"] = depth_by_language(depth, control=null, colors=colors)
    return drawn


def inside_tables(parts: Mapping[str, Result], *, phases: bool = True) -> Iterator[Table]:
    """Boundaries, where they don't stand elsewhere, and stability by language."""
    if phases and isinstance(found := parts.get("phases"), PhaseResult):
        yield Table(_PHASES.format(found.n_layers), *phase_rows(found))
    if isinstance(found := parts.get("stability"), StabilityResult):
        caption = (
            "How stable relevance depth is; higher is stabler. Candidates for the paper's phasing "
            "stability, whose definition isn't public: the names are ours."
        )
        yield Table(caption, *stability_rows(found))


def minute(parts: Mapping[str, Result]) -> Minute:
    """What is read first of a model."""
    phases, curves = parts["phases"], parts.get("curves")
    assert isinstance(phases, PhaseResult)
    head, rows = phase_rows(phases)
    answered = curves.answered() if isinstance(curves, Curves) else Answered(0, 0, 0.0)
    return Minute(
        phases_lead(phases, answered),
        Table(_PHASES.format(phases.n_layers), head, rows),
        _example(curves) if isinstance(curves, Curves) else (),
    )


def phases_lead(phases: PhaseResult, answered: Answered) -> str:
    """One sentence over all languages: first whether the task is done."""
    right, n, low = answered
    tags = [str(tag) for tag in phases.phases["language"] if tag != ALL]
    found = [tag for tag in tags if phases.found(tag)]
    names = english_names(tags, variant=True)
    done = (
        f"At the output the right answer is ahead of the wrong one in {right} of "
        f"{number_of(n, 'prompt')}"
        if n
        else "Whether questions are answered wasn't looked at"
    )
    if n and not low > HALF:
        return (
            f"The task isn't shown to be done: {done[0].lower()}{done[1:]}, by chance in half of "
            "them; what is found inside says nothing."
        )
    both = "two phases are" if phases.found() else "two phases are not"
    each = f", and in {len(found)} of {number_of(len(tags), 'language')} by itself"
    which = f" ({listed(names, found)})" if found and len(found) < len(tags) else ""
    return f"{done}; {both} found in all languages together{each}{which}."


def _example(curves: Curves) -> tuple[Block, ...]:
    """The first prompt, and how far its right answer is ahead of the other one at each layer."""
    if not (prompt := prompt_of(curves)) or READABLE not in curves.kinds:
        return prompt
    table = curves.to_frame()
    first = curves.meta.iloc[0]
    mine = table[
        (table["kind"] == READABLE)
        & (table["id"] == first["id"])
        & (table["language"] == first["language"])
    ].to_dict("records")
    rows = [[str(row["layer"]), *(number(row[c]) for c in ("value", "control"))] for row in mine]
    caption = (
        f"Item {first['id']} in {first['language']}: how readable the right answer and the other "
        "one are at the last position, in nats."
    )
    return (*prompt, Table(caption, ["point", "right answer", "the other answer"], rows))


PAGE = ModelPage(
    needs="phases",
    what="phases",
    title=_title,
    template="phases",
    offered=offered,
    told=told,
    minute=minute,
    figures=inside_figures,
    captions=INSIDE_CAPTIONS,
    tables=lambda parts: inside_tables(parts, phases=False),
    folded=INSIDE_FOLDED,
    summaries=INSIDE_SUMMARIES,
)
