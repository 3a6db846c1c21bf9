"""The page of a run of `xlens lens`: which language's word each layer is about to say."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from xlens.figures import Figure, language_shares_curves, pairs_overview, report_colors
from xlens.languages import english_names
from xlens.lens.result import LensSummary, lens_title
from xlens.lens.share import LanguageShares
from xlens.report.blocks import Drawing, Finding, Findings, Section, Table, said
from xlens.report.cells import interval
from xlens.report.grouped import groups, parts_of
from xlens.report.lens_causal import causal_sections
from xlens.report.lens_minute import lens_minute
from xlens.report.minute import Minute, minutes
from xlens.report.pair import (
    anchor,
    languages_title,
    ordered,
    pair_figures,
    pair_section,
    pair_title,
)
from xlens.report.sentences import (
    landmark,
    named,
    pair_sentences,
    pivot_shows,
    used,
    verdict,
    with_interval,
)
from xlens.report.written import write_page
from xlens.results import Result, by_group
from xlens.runs import ACROSS, RunDirectory
from xlens.studies.lens import CAUSAL, SHARES, SUMMARY, SURVIVAL
from xlens.studies.running.kept import LeftOut
from xlens.studies.running.runner import LEFT_OUT
from xlens.wording import number_of

_OVERVIEW = "all-pairs"
_MARKS = ("pivot_peak_prob", "pivot_peak_layer", "final_target_prob")
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
    models = parts_of(run)
    found = {key: group for key, group in groups(run, models).items() if summaries(group.parts)}
    pairs = {key: summaries(group.parts) for key, group in found.items()}
    counts = {key: _counts(group.parts) for key, group in found.items()}
    several = len(models) > 1
    made_by = [next(iter(conditions.values())).provenance for conditions in pairs.values()]
    names = named(summary for conditions in pairs.values() for summary in conditions.values())
    titles = {
        key: title + (f", {found[key].model}" if several else "")
        for key, title in _titles(pairs, names).items()
    }
    figures = _figures(pairs, names, titles if several else None)
    everything = {name: fig for part in figures.values() for name, fig in part.items()}
    sections = [
        _found(pairs, counts, names, titles),
        *_between_lenses(pairs, names, {k: found[k].model for k in pairs} if several else {}),
        *_shares(run, {f"{found[k].model} {found[k].name}": titles[k] for k in pairs}, everything),
        *_causal(models, everything),
        *_overview(titles, figures),
        *(pair_section(key, pairs[key], figures[key], names, titles[key]) for key in pairs),
        *_survival(counts, titles),
        *_left_out(*models.values()),
    ]
    return write_page(
        run,
        _title(made_by),
        sections,
        made_by,
        everything,
        static,
        minute=minutes({m: p for m, p in models.items() if summaries_of(p)}, minute),
        offered=[*offered(run.provenance), *_unknown_origin(pairs)],
        template="lens",
    )


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


def _unknown_origin(pairs: Pairs) -> list[str]:
    """Lenses of which nobody knows that they are of these weights."""
    through = {
        summary.lens: summary.provenance.get("lens", {}).get("through", {})
        for conditions in pairs.values()
        for summary in conditions.values()
    }
    return [
        f"Which weights the {lens_title(lens)} was fitted on isn't known: it says what the model "
        "says at its highest layer, and may be another model's all the same."
        for lens, how in through.items()
        if how.get("fitted_on") == "unknown"
    ]


def told(_: str, parts: Mapping[str, Result]) -> list[Section]:
    """What the page and the terminal say of a model's parts."""
    own, pairs = by_group(parts), summaries_of(parts)
    counts = {key: _counts(own[key]) for key in pairs}
    names = named(summary for conditions in pairs.values() for summary in conditions.values())
    found = _found(pairs, counts, names, _titles(pairs, names))
    return [
        found,
        *_between_lenses(pairs, names, {}),
        *causal_sections(parts),
        *_left_out(parts),
    ]


def minute(parts: Mapping[str, Result]) -> Minute:
    """What is read first of a model."""
    own = by_group(parts)
    pairs = summaries_of(parts)
    names = named(summary for conditions in pairs.values() for summary in conditions.values())
    return lens_minute(pairs, own, names, _titles(pairs, names))


def summaries_of(parts: Mapping[str, Result]) -> dict[str, dict[str, LensSummary]]:
    """The summaries of every pair that has some."""
    return {key: found for key, own in by_group(parts).items() if (found := summaries(own))}


def _shares(
    run: RunDirectory, titles: Mapping[str, str], figures: dict[str, Figure]
) -> list[Section]:
    """Models side by side: one number each, and whose words are read at which depth."""
    found = run.parts(ACROSS).get(SHARES) if ACROSS in run.results() else None
    if not isinstance(found, LanguageShares) or len(run.models) < 2:
        return []  # of one model they are for `xlens compare`
    inside = found.inside
    tags = list(dict.fromkeys(inside["language"]))
    rows: list[list[str]] = []
    of_pivot = inside[inside["language"] == found.pivot].sort_values("share", ascending=False)
    for name in dict.fromkeys([*of_pivot["name"], *inside["name"]]):
        mine = inside[inside["name"] == name].set_index("language").to_dict("index")
        cells = [interval(mine[tag], "share") if tag in mine else "–" for tag in tags]
        rows.append([titles.get(name, name), *cells])
    fig = figures[SHARES] = language_shares_curves(found, titles=titles)
    caption = (
        "Of all probability that is read of an item's words in these languages between a tenth and "
        "nine tenths of the depth, each language's share; the highest share of the pivot first."
    )
    names = english_names(tags)
    table = Table(caption, ["Pair and model", *(names[tag] for tag in tags)], rows)
    drawn = "Each language's share of what is read of an item's words, by relative depth."
    blocks = (table, Drawing.of(fig, SHARES, drawn))
    return [Section("leaderboard", "Leaderboard: whose words are inside", blocks)]


def _causal(
    models: Mapping[str, Mapping[str, Result]], figures: dict[str, Figure]
) -> list[Section]:
    """Of every model."""
    return [
        section
        for model, parts in models.items()
        for section in causal_sections(parts, model if len(models) > 1 else "", figures)
    ]


def _found(
    pairs: Pairs,
    counts: Mapping[str, Mapping[str, int]],
    names: Mapping[str, str],
    titles: Mapping[str, str],
) -> Section:
    """What was found of every pair, and how many words it was asked."""
    findings = Findings(
        tuple(
            Finding(
                " ".join(
                    [*pair_sentences(conditions, names=names), *_used(counts.get(pair, {}))],
                ),
                title=titles[pair],
                anchor=anchor(pair),
                verdict=verdict(conditions, names=names),
            )
            for pair, conditions in pairs.items()
        )
    )
    return Section("findings", "What was found", (findings,))


def _between_lenses(
    pairs: Pairs, names: Mapping[str, str], models: Mapping[str, str]
) -> list[Section]:
    """The same words under each lens: what each reads of the pivot, and whether they agree.

    Args:
        pairs: Conditions by pair.
        names: English names of languages.
        models: Whose each pair is, where there are several.
    """
    beside: dict[tuple[str, ...], dict[str, Mapping[str, LensSummary]]] = {}
    for pair, conditions in pairs.items():
        one = next(iter(conditions.values()))
        key = (one.source, one.target, one.task, models.get(pair, ""))
        beside.setdefault(key, {})[one.lens] = conditions
    several = {key: found for key, found in beside.items() if len(found) > 1}
    if not several:
        return []
    rows: list[list[str]] = []
    said: list[str] = []
    for (*_, model), found in several.items():
        shown = {lens: pivot_shows(conditions) for lens, conditions in found.items()}
        one = next(iter(next(iter(found.values())).values()))
        title = ", ".join(filter(None, (languages_title(one, names), model)))
        pivot = names[one.pivot]
        yes, no, unknown = (
            [f"the {lens_title(lens)}" for lens, value in shown.items() if value is wanted]
            for wanted in (True, False, None)
        )
        if yes and no:
            said.append(
                f"{title}: the lenses disagree. {pivot} words are more probable than in the "
                f"controls under {', '.join(yes)}, and not under {', '.join(no)}."
            )
        elif yes or no:
            more = "" if yes else "not "
            said.append(
                f"{title}: the lenses agree. {pivot} words are {more}more probable than in the "
                f"controls under {', '.join(yes or no)}."
            )
        if unknown:
            said.append(f"{title}: of {', '.join(unknown)} nothing can be told.")
        for lens, conditions in found.items():
            first = next(iter(conditions.values()))
            marks = [landmark(first, name) for name in _MARKS]
            cells = ["–" if row is None else with_interval(row) for row in marks]
            rows.append([f"{title}, {lens_title(lens)}", *cells])
    head = ("Pair and lens", "Pivot, highest", "at point", "Target at the output")
    caption = (
        "The same prompts and words through each lens: the pivot's highest mean probability, and "
        "the target's word at the output, which is the same under all."
    )
    return [Section("lenses", "Between lenses", (Findings.of(said), Table(caption, head, rows)))]


def _titles(pairs: Pairs, names: Mapping[str, str]) -> dict[str, str]:
    return {key: pair_title(next(iter(found.values())), names) for key, found in pairs.items()}


def _used(counts: Mapping[str, int]) -> list[str]:
    told = used(counts, "words") if counts else ""
    return [told] if told else []


def _counts(parts: Mapping[str, Result]) -> dict[str, int]:
    if SURVIVAL not in parts:
        return {}
    table = parts[SURVIVAL].to_frame()
    return {str(r): int(n) for r, n in zip(table["reason"], table["n"], strict=True)}


def _figures(
    pairs: Pairs, names: Mapping[str, str], titles: Mapping[str, str] | None
) -> dict[str, dict[str, Figure]]:
    """Figures by pair and file name; those of all pairs under the empty name."""
    colors = report_colors(s for conditions in pairs.values() for s in conditions.values())
    figures = {pair: pair_figures(pair, pairs[pair], colors, names) for pair in pairs}
    if len(pairs) > 1:
        mains = {pair: next(iter(conditions.values())) for pair, conditions in pairs.items()}
        chances = {pair: c["shuffled"] for pair, c in pairs.items() if "shuffled" in c}
        overview = pairs_overview(mains, chances=chances, titles=titles, colors=colors)
        figures = {"": {_OVERVIEW: overview}, **figures}
    return figures


def _title(made_by: list[dict[str, Any]]) -> str:
    models = dict.fromkeys(str(p["model"]) for p in made_by if p.get("model"))
    does = "do" if len(models) > 1 else "does"
    return f"Which language {does} {' and '.join(models) or 'the model'} think in?"


def _overview(
    titles: Mapping[str, str], figures: Mapping[str, Mapping[str, Figure]]
) -> list[Section]:
    if "" not in figures:
        return []
    drawing = Drawing.of(
        figures[""][_OVERVIEW],
        _OVERVIEW,
        "Mean probability of each language's word by layer, for every pair on one scale.",
        label="Probability of each language's word by layer, one plot a pair: "
        f"{', '.join(titles.values())}.",
    )
    return [Section("pairs", "All pairs", (drawing,))]


def _left_out(*models: Mapping[str, Result]) -> list[Section]:
    """The pairs that could not be asked, and why; the same pair of several models once."""
    told: dict[str, None] = {}
    for parts in models:
        found = parts.get(LEFT_OUT)
        for row in found.table.to_dict("records") if isinstance(found, LeftOut) else ():
            told[left_out(str(row["what"]), str(row["why"]))] = None
    blocks = tuple(block for text in told for block in said(text))
    return [Section("left-out", "Which pairs could not be asked", blocks)] if blocks else []


def left_out(what: str, why: str) -> str:
    """That a pair could not be asked."""
    pair = what.replace(CAUSAL, ", causal test,").replace("_", " → ")
    return f"{pair} is left out: {why}"


def _survival(counts: Mapping[str, Mapping[str, int]], titles: Mapping[str, str]) -> list[Section]:
    """How many items of each pair the collision filter kept and why it dropped the others."""
    told = {titles[key]: own for key, own in counts.items() if own}
    if not told:
        return []
    reasons = list(dict.fromkeys(reason for row in told.values() for reason in row))
    body = [[pair, *(str(row.get(r, "–")) for r in reasons)] for pair, row in told.items()]
    caption = (
        "Items whose words can't be told apart by their tokens are left out: offered, kept, and "
        "dropped by reason."
    )
    table = Table(caption, ["pair", *reasons], body)
    return [Section("survival", "Which words could be used", (table,))]
