"""`write_report`: from a run directory to its figures and its page; and what the terminal says."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlens.checks import typed
from xlens.report import (
    alignment,
    choices,
    facts,
    fit_lens,
    lens,
    neurons,
    phases,
    plain,
    process,
    reading,
    subspace,
    twins,
)
from xlens.report.blocks import Section
from xlens.report.minute import Minute, leads, minutes
from xlens.report.reading_minute import reading_minute
from xlens.results import Result
from xlens.runs import RunDirectory

Parts = Mapping[str, Result]


@dataclass(frozen=True)
class Page:
    """What is written and said of a study: the terminal says the sentences of the page.

    Attributes:
        write: Writes the page of a run.
        offered: Of what is asked about, by what the study says of it: what was left out, and why.
        model: Of a model's parts, by the name of its folder.
        across: Of parts about several models, and those of each.
        minute: What is read first of a model's parts; None: a table of them is all there is.
        minutes: The same of parts about several models, and those of each, by what it is of.
    """

    write: Callable[[RunDirectory, Collection[str]], Path]
    offered: Callable[[Mapping[str, Any]], list[str]] = lambda known: []
    model: Callable[[str, Parts], list[Section]] = lambda model, parts: []
    across: Callable[[Parts, Mapping[str, Parts]], list[Section]] = lambda across, models: []
    minute: Callable[[Parts], Minute] | None = None
    minutes: Callable[[Parts, Mapping[str, Parts]], dict[str, Minute]] = lambda across, models: {}

    def leads(self, across: Parts, models: Mapping[str, Parts]) -> list[str]:
        """What stands at the top of the page: what the terminal says at the end."""
        if self.minute is None:
            return leads(self.minutes(across, models))
        return leads(minutes(models, self.minute))


_LENS = Page(lens.write_lens_report, lens.offered, lens.told, minute=lens.minute)
_PROCESS = Page(process.write_process_report, process.offered, process.told, minute=process.minute)
PAGES = {
    "align": Page(
        alignment.write_alignment_report,
        alignment.offered,
        alignment.told,
        minute=alignment.minute,
    ),
    "lens": _LENS,
    "demo": _LENS,
    "choices": Page(
        choices.write_choices_report, process.offered, choices.told, minute=choices.minute
    ),
    "process": _PROCESS,
    "steer": _PROCESS,
    "fit-lens": Page(
        fit_lens.write_fit_lens_report, fit_lens.offered, fit_lens.told, minute=fit_lens.minute
    ),
    "facts": Page(
        facts.write_facts_report, facts.offered, facts.told, facts.grew, minute=facts.minute
    ),
    "neurons": Page(
        neurons.write_neurons_report, neurons.offered, neurons.told, minute=neurons.minute
    ),
    "phases": Page(phases.write_phases_report, phases.offered, phases.told, minute=phases.minute),
    "subspace": Page(
        subspace.write_subspace_report, subspace.offered, subspace.told, minute=subspace.minute
    ),
    "twins": Page(
        twins.write_twins_report, twins.offered, across=twins.told, minutes=twins.minutes_of
    ),
    "xmrc": Page(
        reading.write_reading_report,
        phases.offered,
        reading.told,
        reading.ranked,
        minute=reading_minute,
    ),
}
PLAIN = Page(plain.write_plain_report)


@typed
def page_of(command: str) -> Page:
    """The page of a study, by its command: tables of its parts where it has none of its own."""
    return PAGES.get(command, PLAIN)


@typed
def write_report(run: RunDirectory, *, static: Collection[str] = ()) -> Path:
    """Draw every figure of a run and write `report.html`; the same results, the same bytes.

    The page needs no network: it takes `plotly.min.js` from beside itself. It follows the reader's
    light or dark mode and fits a telephone.

    Args:
        run: Of any study.
        static: Pictures to draw as well, any of `png`, `svg`, `pdf`; after the report is written.

    Returns:
        The path of `report.html`.

    Raises:
        ValueError: the run has no results, or one that can't be read.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    return page_of(run.command).write(run, static)
