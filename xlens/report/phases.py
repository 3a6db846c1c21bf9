"""The page of a run of `xlens phases`: where inside a question ends and its answer begins."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from xlens.errors import InputError
from xlens.figures import (
    Figure,
    depth_by_language,
    language_colors,
    phase_boundaries,
    phase_curves,
    segment_relevance,
)
from xlens.phases import Curves, CurveSummary, DepthResult, PhaseResult, StabilityResult
from xlens.report.blocks import Drawing, Findings, Section, Table
from xlens.report.grouped import require_summaries
from xlens.report.reading_inside import phase_findings, phase_rows, stability_rows
from xlens.report.sentences import used
from xlens.report.written import write_page
from xlens.results import Result
from xlens.runs import RunDirectory
from xlens.studies.phases import INSIDE_SUMMARIES

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
    models = {model: parts for model in run.models if "phases" in (parts := run.parts(model))}
    if not models:
        raise InputError(f"{str(run.path)!r} has no phases yet: the same command goes on.")
    require_summaries(run, models, INSIDE_SUMMARIES)
    figures = {
        f"{model}-{name}": fig
        for model, parts in models.items()
        for name, fig in inside_figures(parts).items()
    }
    sections: list[Section] = []
    for model, parts in models.items():
        drawn = (
            Drawing.of(figures[key], key, words)
            for name, words in INSIDE_CAPTIONS.items()
            if (key := f"{model}-{name}") in figures
        )
        sections += [
            section.more([*inside_tables(parts), *drawn]) for section in told(model, parts)
        ]
    made_by = [parts["phases"].provenance for parts in models.values()]
    names = list(dict.fromkeys(str(made.get("model", "the model")) for made in made_by))
    does = "does" if len(names) == 1 else "do"
    title = f"Where inside {does} {' and '.join(names)} understand a question and find the answer?"
    return write_page(
        run,
        title,
        sections,
        made_by,
        figures,
        static,
        offered=offered(run.provenance),
        template="phases",
        percent=run.resampling.percent,
    )


def offered(known: Mapping[str, Any]) -> list[str]:
    """How many questions can be used, if not all."""
    said = used(known.get("survival", {}), "questions")
    return [said] if said else []


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


def inside_tables(parts: Mapping[str, Result]) -> Iterator[Table]:
    """Boundaries and stability by language."""
    if isinstance(phases := parts.get("phases"), PhaseResult):
        caption = (
            "Where inside, by the language of the question: the first residual point (0 is the "
            f"embedding, {phases.n_layers} the output of the last block) at which the question has "
            "been handed over, and at which the answer has been retrieved; p of both and of their "
            "order, each language by itself."
        )
        yield Table(caption, *phase_rows(phases))
    if isinstance(found := parts.get("stability"), StabilityResult):
        caption = (
            "How stable relevance depth is; higher is stabler. Candidates for the paper's phasing "
            "stability, whose definition isn't public: the names are ours."
        )
        yield Table(caption, *stability_rows(found))
