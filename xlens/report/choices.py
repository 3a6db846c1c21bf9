"""The page of a run of `xlens choices`: do the answers agree across languages?"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from xlens.consistency import METRICS, ConsistencyResult
from xlens.figures import Figure, agreement_matrix, latent_share
from xlens.languages import english_names
from xlens.report.blocks import Drawing, Findings, Section, Table, said
from xlens.report.cells import interval, number, rounded
from xlens.report.choices_minute import choices_minute
from xlens.report.grouped import Group, groups, parts_of, require_summaries
from xlens.report.minute import Minute, minutes
from xlens.report.sentences import listed, used
from xlens.report.ways import folded_ways, ways_sentences
from xlens.report.written import write_page
from xlens.results import Result, by_group
from xlens.runs import RunDirectory
from xlens.studies.asking import LATENT, LATENT_SUMMARY
from xlens.studies.choices import PANEL
from xlens.tasks.choices import LatentSummary
from xlens.wording import number_of, percent

LEVEL = 0.05
"""Of the tests that sentences speak of."""
OPTIONS_INSIDE = "The share of the pivot's options in what the layer would say."
_DRAWN = ("rank_c", "spearman", "lift", "jaccard_lift", "same_wrong")


def write_choices_report(run: RunDirectory, static: Collection[str] = ()) -> Path:
    """Draw the figures of a run of `xlens choices` and write `report.html`.

    Args:
        run: With the parts of a `ChoicesStudy`.
        static: Pictures to draw as well, any of `png`, `svg`, `pdf`; after the report is written.

    Raises:
        ValueError: no results yet.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    models = parts_of(run)
    found = groups(run, models)
    panels = {key: panel for key, group in found.items() if (panel := panel_in(group.parts))}
    require_summaries(run, {key: found[key].parts for key in panels}, {LATENT: LATENT_SUMMARY})
    names = english_names(tag for panel in panels.values() for tag in panel.languages["language"])
    figures: dict[str, dict[str, Figure]] = {}
    for key, panel in panels.items():
        measured = [name for name in _DRAWN if name in set(panel.pairs["metric"])]
        start = f"{key}-" if len(panels) > 1 else ""
        drawn = {f"{start}{m.replace('_', '-')}": agreement_matrix(panel, m) for m in measured}
        if isinstance(inside := found[key].parts.get(LATENT_SUMMARY), LatentSummary):
            drawn[f"{start}{LATENT}"] = latent_share(inside)
        figures[key] = drawn
    every = {name: fig for drawn in figures.values() for name, fig in drawn.items()}
    made_by = [panel.provenance for panel in panels.values()]
    title = f"Do the answers of {listed_models(made_by)} agree?"
    survival = run.provenance.get("survival", {})
    sections = [
        section
        for key, panel in panels.items()
        for section in _sections(found[key], panel, figures[key], names, len(panels) > 1, survival)
    ]
    return write_page(
        run,
        title,
        sections,
        made_by,
        every,
        static,
        minute=minutes({m: own for m, own in models.items() if panels_in(own)}, minute),
        template="choices",
        percent=run.resampling.percent,
    )


def panel_in(parts: Mapping[str, Result]) -> ConsistencyResult | None:
    """The panel of a group, if it is there."""
    found = parts.get(PANEL)
    return found if isinstance(found, ConsistencyResult) else None


def panels_in(parts: Mapping[str, Result]) -> dict[str, ConsistencyResult]:
    """The panel of every set of items."""
    return {group: panel for group, own in by_group(parts).items() if (panel := panel_in(own))}


def minute(parts: Mapping[str, Result]) -> Minute:
    """What is read first of a model."""
    panels = panels_in(parts)
    names = english_names(tag for panel in panels.values() for tag in panel.languages["language"])
    return choices_minute(panels, by_group(parts), names, LEVEL)


def listed_models(made_by: Iterable[Mapping[str, Any]]) -> str:
    """The models that results are of."""
    return " and ".join(dict.fromkeys(str(p.get("model", "the model")) for p in made_by))


def told(_: str, parts: Mapping[str, Result]) -> list[Section]:
    """What the page and the terminal say of a model's parts."""
    panels = panels_in(parts)
    names = english_names(tag for panel in panels.values() for tag in panel.languages["language"])
    several = len(panels) > 1
    return [_found(group, group, panel, names, several) for group, panel in panels.items()]


def _found(
    key: str, title: str, panel: ConsistencyResult, names: Mapping[str, str], several: bool
) -> Section:
    head = f"{title}: what was found" if several else "What was found"
    start = f"{key}-" if several else ""
    return Section(f"{start}findings", head, (Findings.of(findings(panel, names=names)),))


def _sections(
    group: Group,
    panel: ConsistencyResult,
    figures: Mapping[str, Figure],
    names: Mapping[str, str],
    several: bool,
    survival: Mapping[str, Mapping[str, int]],
) -> list[Section]:
    start = f"{group.key}-" if several else ""
    measures = {name: name.removeprefix(start).replace("-", "_") for name in figures}
    inside = {name: figures[name] for name in (f"{start}{LATENT}",) if name in figures}
    drawn = (
        Drawing.of(
            fig,
            name,
            f"{METRICS[measures[name]][0].upper()}{METRICS[measures[name]][1:]}. On the right the "
            "same with the second language's items permuted: what unrelated answers of the same "
            "accuracy give.",
            label=_label(panel, measures[name]),
        )
        for name, fig in figures.items()
        if name not in inside
    )
    found = _found(group.key, group.title, panel, names, several)
    accuracy = (accuracy_table(panel, names), *folded_ways(panel, names))
    return [
        found.more(said(used(survival.get(group.name, {}), "items"))),
        Section(f"{start}accuracy", "Accuracy", accuracy),
        Section(f"{start}agreement", "Agreement", (means_table(panel), *drawn)),
        *(
            Section(f"{start}inside", "Inside", (Drawing.of(fig, name, OPTIONS_INSIDE),))
            for name, fig in inside.items()
        ),
    ]


def findings(panel: ConsistencyResult, *, names: Mapping[str, str] | None = None) -> list[str]:
    """What the numbers say, in sentences; nothing but what they say.

    Args:
        panel: Of a run.
        names: Of the languages of the whole run; by default those of the panel, told apart.
    """
    table = panel.languages
    names = names or english_names(table["language"])
    known = table[table["accuracy"].notna()]
    said = [_accuracy(known, names), *_guessing(known, names)] if len(known) else []
    if len(known) < len(table):
        rest = table.loc[table["accuracy"].isna(), "language"]
        said.append(f"Which answers are right isn't known in {listed(names, rest)}.")
    return said + _dependence(panel) + ways_sentences(panel)


def _accuracy(known: pd.DataFrame, names: Mapping[str, str]) -> str:
    """Who is right most and least often: all that share it, and whether intervals tell them."""
    best, worst = (known[known["accuracy"] == pick(known["accuracy"])] for pick in (max, min))
    if len(best) == len(known):
        said = "Right equally often in all of" if len(known) > 1 else "Right in"
        said = f"{said} {_shares(best, names)}"
    else:
        said = f"Right most often in {_shares(best, names)}, least often in {_shares(worst, names)}"
        if known[["low", "high"]].isna().any(axis=None):
            said += ", of too few items for intervals"
        elif min(best["low"]) <= max(worst["high"]):
            said += ", though within the intervals"
    chances: dict[float, list[str]] = {}
    for chance, tag in zip(known["chance"], known["language"], strict=True):
        chances.setdefault(chance, []).append(tag)
    if len(chances) == 1:
        return f"{said}; chance is {rounded(next(iter(chances)), '.2f')}."
    told = [
        f"{rounded(chance, '.2f')} in {listed(names, tags)}"
        for chance, tags in sorted(chances.items())
    ]
    return f"{said}; chance is {', '.join(told)}."


def _shares(rows: pd.DataFrame, names: Mapping[str, str]) -> str:
    """Languages with their accuracy: once, where it and its interval are the same for all."""
    by_share: dict[str, list[str]] = {}
    for row in rows.to_dict("records"):
        by_share.setdefault(interval(row, "accuracy"), []).append(str(row["language"]))
    return " and ".join(f"{listed(names, tags)}, {share}" for share, tags in by_share.items())


def _guessing(known: pd.DataFrame, names: Mapping[str, str]) -> list[str]:
    """Where accuracy isn't above chance, or is below it."""
    below = known["high"] < known["chance"]
    tags = known.loc[~(known["low"] > known["chance"]) & ~below, "language"].tolist()
    said: list[str] = []
    if any(below):
        alone = ", each language by itself" if len(known) > 1 else ""
        said.append(f"Below guessing in {listed(names, known.loc[below, 'language'])}{alone}.")
    if tags:
        said.append(
            f"Not told apart from guessing in {listed(names, tags)}: what follows says little "
            f"about {'it' if len(tags) == 1 else 'them'}."
        )
    return said


def _dependence(panel: ConsistencyResult) -> list[str]:
    """In how many pairs of languages right answers fall together; nothing where none is tested."""
    tested = panel.dependence
    if tested.empty:
        return []
    (lift,) = (row for row in panel.means().to_dict("records") if row["metric"] == "lift")
    means = f"mean lift {_two(lift['value'])}, with permuted items {_two(lift['control'])}"
    how = panel.provenance.get("consistency", panel.provenance)
    n, passages = (int(how.get(name, 0)) for name in ("n_items", "n_clusters"))
    if passages < n:
        means += (
            f"; they take the {number_of(n, 'item')} for independent, though these are of "
            f"{number_of(passages, 'text')}"
        )
    return [
        "Being right in one language goes with being right in another, beyond accuracy, in "
        f"{panel.dependent(LEVEL)} of {number_of(len(tested), 'pair')} of languages (exact tests, "
        f"adjusted for all of them; {means})."
    ]


def _two(value: float) -> str:
    """Two decimals, and no minus before a zero; a dash for none."""
    return number(round(value, 2) + 0.0)


def accuracy_table(panel: ConsistencyResult, names: Mapping[str, str]) -> Table:
    """Share of right answers by language."""
    rows = [
        [
            names[row["language"]],
            interval(row, "accuracy"),
            rounded(row["chance"], ".2f"),
            percent(row["ties"]),
            str(row["n"]),
        ]
        for row in panel.languages.to_dict("records")
    ]
    head = ["", "accuracy", "chance", "items with ties", "items"]
    return Table("Share of right answers by language.", head, rows)


def means_table(panel: ConsistencyResult) -> Table:
    """Every measure over all pairs, beside permuted items."""
    rows = [
        [METRICS[row["metric"]], _two(row["value"]), _two(row["control"])]
        for _, row in panel.means().iterrows()
    ]
    return Table("Means over all ordered pairs.", ["", "result", "permuted items"], rows)


def _label(panel: ConsistencyResult, metric: str) -> str:
    names = ", ".join(english_names(panel.languages["language"]).values())
    return f"{METRICS[metric]}, for every two of {names}, beside its control."
