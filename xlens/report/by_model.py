"""A page that says the same of each model, one after the other."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xlens.errors import InputError
from xlens.figures import Figure
from xlens.report.blocks import Block, Drawing, Folded, Section
from xlens.report.grouped import require_summaries
from xlens.report.minute import Minute, Parts, minutes
from xlens.report.written import write_page
from xlens.runs import RunDirectory


@dataclass(frozen=True)
class ModelPage:
    """What a study says of a model.

    Attributes:
        needs: The part without which nothing is said of a model.
        what: What that part holds, in a word, for the error.
        title: Of the page, by the names of its models.
        template: Of `report/templates`.
        offered: What the run says of what was asked about.
        told: Sections of a model, which the terminal says as well; the rest is put at their end.
        minute: What is read first.
        figures: Of a model, by name, in reading order.
        captions: By the figure's name.
        tables: Tables of a model, before its figures.
        folded: Of figures that are controls or details: their message in one line, by name.
        summaries: Of what each part is summed up in.
    """

    needs: str
    what: str
    title: Callable[[Sequence[str]], str]
    template: str
    offered: Callable[[Mapping[str, Any]], list[str]]
    told: Callable[[str, Parts], list[Section]]
    minute: Callable[[Parts], Minute]
    figures: Callable[[Parts], Mapping[str, Figure]]
    captions: Mapping[str, str]
    tables: Callable[[Parts], Iterable[Block]]
    folded: Mapping[str, str] = field(default_factory=dict[str, str])
    summaries: Mapping[str, str] = field(default_factory=dict[str, str])


def write_by_model(run: RunDirectory, static: Collection[str], page: ModelPage) -> Path:
    """Draw the figures of every model and write `report.html`.

    Args:
        run: Of the study that the page is of.
        static: Pictures to draw as well; after the report is written.
        page: What the study says of a model.

    Raises:
        ValueError: no results yet, or an older xlens made them.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    models = {m: parts for m in run.models if page.needs in (parts := run.parts(m))}
    if not models:
        raise InputError(f"{str(run.path)!r} has no {page.what} yet: the same command goes on.")
    require_summaries(run, models, page.summaries)
    figures: dict[str, Figure] = {}
    sections: list[Section] = []
    for model, parts in models.items():
        drawn: list[Block] = []
        for name, fig in page.figures(parts).items():
            key = f"{model}-{name}"
            figures[key] = fig
            one = Drawing.of(fig, key, page.captions[name])
            drawn.append(Folded(page.folded[name], (one,)) if name in page.folded else one)
        sections += [s.more([*page.tables(parts), *drawn]) for s in page.told(model, parts)]
    made_by = [parts[page.needs].provenance for parts in models.values()]
    names = list(dict.fromkeys(str(made.get("model", "the model")) for made in made_by))
    return write_page(
        run,
        page.title(names),
        sections,
        made_by,
        figures,
        static,
        minute=minutes(models, page.minute),
        offered=page.offered(run.provenance),
        template=page.template,
        percent=run.resampling.percent,
    )
