"""The page of a run of `xlens lens`: which language's word each layer is about to say."""

from collections.abc import Collection, Mapping
from html import escape
from pathlib import Path
from typing import Any

from xlens.figures import (
    Figure,
    figure_block,
    pairs_overview,
    report_colors,
)
from xlens.languages import english_names
from xlens.lens.result import LensSummary
from xlens.report.grouped import Group, groups
from xlens.report.pair import anchor, ordered, pair_figures, pair_section, pair_title
from xlens.report.sentences import (
    named,
    pair_sentences,
    used,
    verdict,
)
from xlens.report.tables import figure, table
from xlens.report.written import write_page
from xlens.results import Result
from xlens.runs import RunDirectory
from xlens.studies.lens import SUMMARY, SURVIVAL
from xlens.studies.running.kept import LeftOut
from xlens.studies.running.runner import LEFT_OUT
from xlens.wording import number_of

_OVERVIEW = "all-pairs"
Pairs = Mapping[str, Mapping[str, LensSummary]]


def write_lens_report(run: RunDirectory, static: Collection[str] = ()) -> Path:
    """Draw the figures of a run of `xlens lens` or `xlens demo` and write `report.html`.

    Args:
        run: With the parts of a `LensStudy`.
        static: Pictures to draw as well, any of `png`, `svg`, `pdf`; after the report is written.

    Raises:
        ValueError: no results yet.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    # A pair whose last control found too few words has results, but nothing to say of them.
    found = {key: group for key, group in groups(run).items() if summaries(group.parts)}
    pairs = {key: summaries(group.parts) for key, group in found.items()}
    several = len(run.models) > 1
    made_by = [next(iter(conditions.values())).provenance for conditions in pairs.values()]
    names = named(summary for conditions in pairs.values() for summary in conditions.values())
    titles = {
        key: pair_title(next(iter(conditions.values())), names)
        + (f", {found[key].model}" if several else "")
        for key, conditions in pairs.items()
    }
    figures = _figures(pairs, names)
    everything = {name: fig for part in figures.values() for name, fig in part.items()}
    sections = [
        _opening(run, pairs, made_by, names, titles),
        _overview(titles, figures),
        *(pair_section(key, pairs[key], figures[key], names, titles[key]) for key in pairs),
        _survival(found, titles),
        _left_out(run),
    ]
    return write_page(run, _title(made_by), sections, made_by, everything, static)


def summaries(parts: Mapping[str, Result]) -> dict[str, LensSummary]:
    """The summaries of a pair's conditions, the result first."""
    found = {
        name.removeprefix(SUMMARY): part
        for name, part in parts.items()
        if name.startswith(SUMMARY) and isinstance(part, LensSummary)
    }
    return ordered(found) if found else {}


def offered(known: Mapping[str, Any]) -> list[str]:
    """Rows of the word list that were left out."""
    return [
        f"{known['words']}: rows of {number_of(n, 'item')} are left out, {reason}."
        for reason, n in known.get("dropped", {}).items()
    ]


def headline(parts: Mapping[str, Result]) -> list[str]:
    """What is said of a pair in the terminal: how many words there were, and the page's sentences.

    Landmarks alone would say more than they are: lines of noise peak and cross, too.
    """
    conditions = summaries(parts)
    one = next(iter(conditions.values()))
    names = english_names((one.source, one.target, one.pivot), variant=True)
    left = used(_counts(parts), "words")
    words = number_of(int(one.landmarks["n"].max()), "word")
    return [
        *([left] if left else []),
        f"{words}: {verdict(conditions, names=names)}",
        *pair_sentences(conditions, names=names),
    ]


def _counts(parts: Mapping[str, Result]) -> dict[str, int]:
    if SURVIVAL not in parts:
        return {}
    table = parts[SURVIVAL].to_frame()
    return {str(r): int(n) for r, n in zip(table["reason"], table["n"], strict=True)}


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
    does = "do" if len(models) > 1 else "does"
    return f"Which language {does} {' and '.join(models) or 'the model'} think in?"


def _opening(
    run: RunDirectory,
    pairs: Pairs,
    made_by: list[dict[str, Any]],
    names: Mapping[str, str],
    titles: Mapping[str, str],
) -> str:
    """Title, what was done, the findings in words, and how far the weights can be trusted."""
    findings = "".join(
        f'<li><a href="#{anchor(pair)}">'
        f"{escape(titles[pair])}</a>: "
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


def _overview(titles: Mapping[str, str], figures: Mapping[str, Mapping[str, Figure]]) -> str:
    if "" not in figures:
        return ""
    block = figure_block(
        figures[""][_OVERVIEW],
        _OVERVIEW,
        label="Probability of each language's word by layer, one plot a pair: "
        f"{', '.join(titles.values())}.",
    )
    caption = "Mean probability of each language's word by layer, for every pair on one scale."
    return f'<section id="pairs">\n<h2>All pairs</h2>\n{figure(block, caption)}</section>\n'


def _left_out(run: RunDirectory) -> str:
    """The pairs that could not be asked, and why."""
    several = len(run.models) > 1
    rows: list[list[str]] = []
    for model in run.models:
        found = run.parts(model).get(LEFT_OUT)
        for row in found.table.to_dict("records") if isinstance(found, LeftOut) else ():
            shown = row["what"].replace("_", " → ") + (f", {model}" if several else "")
            rows.append([shown, row["why"]])
    if not rows:
        return ""
    caption = "Pairs that were asked for, and have too few words to ask."
    return (
        '<section id="left-out">\n<h2>Which pairs could not be asked</h2>\n'
        f"{table(caption, ['pair', 'why'], rows, numbers=False)}</section>\n"
    )


def _survival(found: Mapping[str, Group], titles: Mapping[str, str]) -> str:
    """How many items of each pair the collision filter kept and why it dropped the others."""
    told = {titles[key]: _counts(group.parts) for key, group in found.items()}
    counts = {title: own for title, own in told.items() if own}
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
