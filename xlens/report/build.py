"""`write_report`: from a run directory to its figures and its page."""

from collections.abc import Collection, Mapping
from html import escape
from pathlib import Path
from typing import Any

from xlens import files
from xlens.checks import typed
from xlens.figures import (
    Figure,
    figure_block,
    page,
    pairs_overview,
    report_colors,
    write_figures,
)
from xlens.lens.result import LensResult, LensSummary
from xlens.report.choices import STUDY, write_choices_report
from xlens.report.pair import anchor, ordered, pair_figures, pair_section, pair_title
from xlens.report.process import MARK, write_process_report
from xlens.report.reading import MARK as READING_MARK
from xlens.report.reading import write_reading_report
from xlens.report.reproduce import reproduce
from xlens.report.sentences import named, pair_sentences, summarised, verdict
from xlens.report.style import STYLE
from xlens.report.tables import figure, table
from xlens.runs import RunDirectory

_PLOTLY = "../plotly.min.js"
_OVERVIEW = "all-pairs"
Pairs = Mapping[str, Mapping[str, LensSummary]]


@typed
def write_report(run: RunDirectory, *, static: Collection[str] = ()) -> Path:
    """Draw every figure of a run and write `report.html`; the same results, the same bytes.

    The page needs no network: it takes `plotly.min.js` from beside itself. It follows the reader's
    light or dark mode and fits a telephone.

    Args:
        run: With saved `LensResult`s under `results/<pair>/<condition>/`, or of `xlens choices`,
            `xlens process` or `xlens xmrc`.
        static: Pictures to draw as well, any of `png`, `svg`, `pdf`; after the report is written.

    Returns:
        The path of `report.html`.

    Raises:
        ValueError: the run has no results, or one that can't be read.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    names = run.results()
    if STUDY in names:
        return write_choices_report(run, static=static)
    if any(MARK in parts for parts in names.values()):
        return write_process_report(run, static=static)
    if any(READING_MARK in parts for parts in names.values()):
        return write_reading_report(run, static=static)
    if not names:
        raise ValueError(
            f"{str(run.path)!r} has no results yet: run the study to its end first, so that "
            "results/<pair>/<condition>/ holds at least one."
        )
    loaded = {
        pair: {name: LensResult.load(run.result_folder(pair, name)) for name in conditions}
        for pair, conditions in names.items()
    }
    pairs = {
        pair: ordered({name: summarised(name, results, run.resampling) for name in results})
        for pair, results in loaded.items()
    }
    made_by = [loaded[pair][next(iter(pairs[pair]))].provenance for pair in pairs]
    names = named(summary for conditions in pairs.values() for summary in conditions.values())
    figures = _figures(pairs, names)
    everything = {name: fig for part in figures.values() for name, fig in part.items()}
    write_figures(everything, run.figures, plotlyjs=_PLOTLY)
    body = "\n".join(
        [
            "<main>",
            _opening(run, pairs, made_by, names),
            _overview(pairs, figures, names),
            *(pair_section(pair, pairs[pair], figures[pair], names) for pair in pairs),
            _survival(run, pairs, names),
            _left_out(run),
            reproduce(run, made_by),
            "</main>\n",
        ]
    )
    title = _title(made_by)
    files.write(run.report_file, page(title, body, style=STYLE))
    if static:
        write_figures(everything, run.figures, static=static, plotlyjs=_PLOTLY)
    return run.report_file


def _figures(pairs: Pairs, names: Mapping[str, str]) -> dict[str, dict[str, Figure]]:
    """Figures by pair and file name; those of all pairs under the empty name."""
    colors = report_colors(s for conditions in pairs.values() for s in conditions.values())
    figures = {pair: pair_figures(pair, pairs[pair], colors, names) for pair in pairs}
    if len(pairs) > 1:
        mains = {pair: next(iter(conditions.values())) for pair, conditions in pairs.items()}
        chances = {pair: c["shuffled"] for pair, c in pairs.items() if "shuffled" in c}
        overview = pairs_overview(mains, chances=chances, colors=colors)
        figures = {"": {_OVERVIEW: overview}, **figures}
    return figures


def _title(made_by: list[dict[str, Any]]) -> str:
    models = dict.fromkeys(str(p["model"]) for p in made_by if p.get("model"))
    return f"Which language does {' and '.join(models) or 'the model'} think in?"


def _opening(
    run: RunDirectory, pairs: Pairs, made_by: list[dict[str, Any]], names: Mapping[str, str]
) -> str:
    """Title, what was done, the findings in words, and how far the weights can be trusted."""
    findings = "".join(
        f'<li><a href="#{anchor(pair)}">'
        f"{escape(pair_title(next(iter(conditions.values())), names))}</a>: "
        f"<strong>{escape(verdict(conditions, names=names))}</strong> "
        f"{escape(' '.join(pair_sentences(conditions, names=names)))}</li>\n"
        for pair, conditions in pairs.items()
    )
    weights = dict.fromkeys(str(p["weights"]) for p in made_by if p.get("weights"))
    known = run.provenance
    note = (
        f'<p class="note">Weights: {escape("; ".join(weights))}. The numbers hold for these '
        "weights; other precisions and quantisations of the model may differ.</p>\n"
        if weights
        else ""
    )
    started = f'<p class="quiet">Run started {escape(str(known["started"]))}.</p>\n'
    return (
        f"<header>\n<h1>{escape(_title(made_by))}</h1>\n"
        f"{started if known.get('started') else ''}</header>\n"
        "<p>A model is asked for a word in one language. The logit lens reads every layer as if it "
        "were the last: does the word come up in another language, the pivot, on the way? Residual "
        "point 0 is the embedding, point 1 the state after the first block, and so on. Numbers are "
        "means over prompts, intervals in brackets; controls say what chance looks like.</p>\n"
        f'{note}<h2 id="findings">What was found</h2>\n<ul class="findings">\n{findings}</ul>\n'
    )


def _overview(
    pairs: Pairs, figures: Mapping[str, Mapping[str, Figure]], names: Mapping[str, str]
) -> str:
    if "" not in figures:
        return ""
    titles = ", ".join(pair_title(next(iter(c.values())), names) for c in pairs.values())
    block = figure_block(
        figures[""][_OVERVIEW],
        _OVERVIEW,
        label=f"Probability of each language's word by layer, one plot a pair: {titles}.",
    )
    caption = "Mean probability of each language's word by layer, for every pair on one scale."
    return f'<section id="pairs">\n<h2>All pairs</h2>\n{figure(block, caption)}</section>\n'


def _left_out(run: RunDirectory) -> str:
    """The pairs that could not be asked, and why."""
    rows = [[pair.replace("_", " → "), why] for pair, why in run.left_out().items()]
    if not rows:
        return ""
    caption = "Pairs that were asked for, and have too few words to ask."
    return (
        '<section id="left-out">\n<h2>Which pairs could not be asked</h2>\n'
        f"{table(caption, ['pair', 'why'], rows, numbers=False)}</section>\n"
    )


def _survival(run: RunDirectory, pairs: Pairs, names: Mapping[str, str]) -> str:
    """How many items of each pair the collision filter kept and why it dropped the others."""
    counts: dict[str, dict[str, int]] = {}
    for pair, conditions in pairs.items():
        if (rows := run.survival(pair)) is not None:
            title = pair_title(next(iter(conditions.values())), names)
            counts[title] = {str(r): int(n) for r, n in zip(rows["reason"], rows["n"], strict=True)}
    if not counts:
        return ""
    reasons = list(dict.fromkeys(reason for row in counts.values() for reason in row))
    body = [[pair, *(str(row.get(r, "–")) for r in reasons)] for pair, row in counts.items()]
    caption = (
        "Items whose words can't be told apart by their tokens are left out: offered, kept, and "
        "dropped by reason."
    )
    return (
        '<section id="survival">\n<h2>Which words could be used</h2>\n'
        f"{table(caption, ['pair', *reasons], body)}</section>\n"
    )
