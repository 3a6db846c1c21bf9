"""What a page about facts says of what is carried over from the pivot: states and pathways."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from xlens.acquisition import Transfer, TransferCurves
from xlens.figures import Figure, likeness_by_layer, likeness_over_training
from xlens.report.blocks import Drawing, Findings, Paragraph, Section, Table
from xlens.report.cells import interval, number, rounded
from xlens.wording import number_of

Names = Mapping[str, str]
_MEASURE = "cosine_centred"
_PLACES = {"subject:last": "the subject's last token", "last": "the prompt's last token"}
_GROUPED = ("frequency", "answers", "sets", "relations")
_RIGHT, _WRONG = (
    {"frequency": "rare, right", "answers": "right in both"},
    {
        "frequency": "rare, wrong",
        "answers": "right in the pivot only",
    },
)
_CAUTION = (
    "Facts that are easy are right in both languages whatever is carried over, and states are "
    "alike where the same is asked: neither is a sign by itself."
)


def transfer_figures(result: Transfer, start: str) -> dict[str, Figure]:
    """By file name: a figure for each grouping that has facts."""
    return {f"{start}likeness-{by}": likeness_by_layer(result, by) for by in _there(result.table)}


def transfer_section(
    result: Transfer, figures: Mapping[str, Figure], names: Names, model: str
) -> Section:
    """Tables and figures of one model."""
    blocks = (
        Findings.of(transfer_findings(result, names)),
        *_paths(result, names),
        _groups(result, names),
        *_drawings(figures, "Controls and numbers show on hovering."),
    )
    start, head = (f"{model}-", f"{model}, s") if model else ("", "S")
    title = f"{head}imilarity to the pivot, and what is carried over"
    return Section(f"{start}transfer", title, blocks)


def grown_figures(result: TransferCurves) -> dict[str, Figure]:
    """Groups of the last model followed back, in the middle of the model."""
    layer = _middle(result.table)
    some = [by for by in _there(result.table) if by != "relations"]
    return {f"likeness-{by}": likeness_over_training(result, by, layer=layer) for by in some}


def grown_section(result: TransferCurves, figures: Mapping[str, Figure], names: Names) -> Section:
    """Over models or checkpoints."""
    said = Paragraph(
        f"Facts are grouped by the answers of {result.last}; states are compared with those in "
        f"{names[result.pivot]}."
    )
    drawn = _drawings(figures, "Bars are intervals over facts.")
    return Section("likeness", "Similarity to the pivot, over models", (said, *drawn))


def transfer_findings(result: Transfer, names: Names) -> list[str]:
    """What the numbers say, in sentences."""
    said = [*_compared(result, names), *_tested(result, names), *_held_against(result, names)]
    return [*said, _CAUTION] if said else []


def _compared(result: Transfer, names: Names) -> Iterator[str]:
    by = next((by for by in _RIGHT if by in _there(result.table)), None)
    if by is None:
        return
    layer, home = _middle(result.table), names[result.pivot]
    table = _picked(result.table, by, layer)
    for slot in dict.fromkeys(table["slot"]):
        rows = {row["group"]: row for row in _rows(table[table["slot"] == slot])}
        right, wrong = rows[_RIGHT[by]], rows[_WRONG[by]]
        if not right["n"] or not wrong["n"]:
            continue
        shown = "; ".join(f"“{row['group']}” {_above(row)}" for row in (right, wrong))
        apart = right["above_low"] > wrong["above_high"] or right["above_high"] < wrong["above_low"]
        yield (
            f"Similarity to the same fact in {home} beyond that to others of its relation, at "
            f"{_PLACES.get(slot, slot)}, residual point {layer}, all languages: {shown}. The "
            f"intervals {'are apart' if apart else 'overlap'}."
        )


def _tested(result: Transfer, names: Names) -> Iterator[str]:
    if result.paths.empty:
        return
    home, paths = names[result.pivot], result.paths
    rows = {row["term"]: row for row in _rows(paths[paths["language"] == "all"].head(4))}
    frequency, pivot, similar, both = rows.values()
    if frequency["coefficient"] != frequency["coefficient"]:
        yield "The model of two pathways has no fit: too little varies, or a term tells all."
        return
    tested = (
        f"The first two are above zero by test (p {_p(both['p'])}), as two pathways, by frequency "
        f"and from {home}, would have it."
        if both["p"] < 0.05
        else f"The first two are not shown to be both above zero (p {_p(both['p'])}): no evidence "
        f"of two pathways, by frequency and from {home}."
    )
    yield (
        f"Of {both['n']:,} answers about {number_of(int(both['facts']), 'fact')}, relations and "
        "languages held "
        f"alike, the log-odds of being right change by {interval(frequency, 'coefficient')} for "
        f"tenfold frequency, by {interval(pivot, 'coefficient')} where the fact is right in "
        f"{home}, by {interval(similar, 'coefficient')} for a standard deviation of similarity at "
        f"{_PLACES.get(both['slot'], both['slot'])}. {tested}"
    )


def _held_against(result: Transfer, names: Names) -> Iterator[str]:
    """What the model of pathways says, beside what is known of the text."""
    if result.truth.empty:
        return
    home, rows = names[result.pivot], _rows(result.truth)
    shares = ", ".join(
        f"{names[row['language']]} {number(row['share'])} ({number(row['control'])})"
        for row in rows
    )
    sure = sum(row["p"] < 0.01 for row in rows)
    said = (
        "Of facts that the text of a language never states, but others do, are right (in brackets: "
        f"of those that no language states): {shares}; more by test (p < .01) in {sure} of "
        f"{number_of(len(rows), 'language')}."
    )
    paths = result.paths
    if len(paths):
        both = paths[(paths["term"] == "both") & (paths["slot"] == paths["slot"].iloc[0])]
        found = {row["language"]: row["p"] < 0.01 for row in _rows(both)}
        same = sum(found.get(row["language"], False) == (row["p"] < 0.01) for row in rows)
        n = sum(found.get(row["language"], False) for row in rows)
        said += (
            f" The model, which isn't told that, sees pathways by frequency and from {home} in {n} "
            f"(p < .01); it agrees in {same} of {len(rows)}."
        )
    yield said


def _paths(result: Transfer, names: Names) -> Iterator[Table]:
    for slot, rows in _by(_rows(result.paths), "slot").items():
        table: list[list[str]] = []
        for tag, terms in _by(rows, "language").items():
            both = terms[-1]
            cells = [interval(row, "coefficient") for row in terms[:-1]]
            cells += [_p(both["p"]).removeprefix("= "), f"{both['n']:,} ({both['facts']})"]
            table.append([names.get(str(tag), "all languages"), *cells])
        home = names[result.pivot]
        head = ["tenfold frequency", f"right in {home}", "similarity"]
        head += ["two pathways, p", "answers (facts)"]
        first, last = result.middle
        yield Table(
            f"Log-odds of being right, with relations (and languages) held alike; intervals "
            f"clustered by fact. Similarity: at {_PLACES.get(str(slot), str(slot))}, mean of "
            f"residual points {first} to {last}, for a standard deviation. A dash: too little "
            "varies, or a term tells right from wrong.",
            ["", *head],
            table,
        )


def _groups(result: Transfer, names: Names) -> Table:
    layer = _middle(result.table)
    rows: list[list[str]] = []
    for by in _there(result.table):
        for group, own in _by(_rows(_picked(result.table, by, layer)), "group").items():
            cells: list[str] = []
            for row in own:
                cells += [_above(row), number(row["value"]), number(row["mismatched"])]
            n = sorted(int(row["n"]) for row in own)[-1]
            rows.append([str(group), f"{n:,}", *cells])
    slots = list(dict.fromkeys(result.table["slot"]))
    head = [
        f"{_PLACES.get(slot, slot)}: {what}"
        for slot in slots
        for what in ("above others of the relation", "own", "other facts")
    ]
    caption = (
        f"Centred cosine with the same fact in {names[result.pivot]}, all languages, residual "
        f"point {layer}; without facts whose object (and, there, subject) is the same string."
    )
    return Table(caption, ["", "answers", *head], rows)


def _by(rows: list[dict[str, Any]], name: str) -> dict[Any, list[dict[str, Any]]]:
    """Rows that have the same in a column, in their order."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row[name], []).append(row)
    return found


def _there(table: pd.DataFrame) -> list[str]:
    known = set(table.loc[table["n"] > 0, "by"])
    return [by for by in _GROUPED if by in known]


def _middle(table: pd.DataFrame) -> int:
    layers = sorted(set(table["layer"]))
    return int(layers[len(layers) // 2])


def _picked(table: pd.DataFrame, by: str, layer: int) -> pd.DataFrame:
    own = (table["by"] == by) & (table["layer"] == layer) & (table["language"] == "all")
    return table[own & (table["measure"] == _MEASURE)]


def _above(row: Mapping[Any, Any]) -> str:
    return interval(row, "above", "above_low", "above_high")


def _p(value: float) -> str:
    if value != value:
        return "–"
    return "< .0001" if value < 1e-4 else f"= {rounded(value, '.4f')}"


def _rows(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.to_dict("records")


def _drawings(figures: Mapping[str, Figure], caption: str) -> Iterator[Drawing]:
    for name, fig in figures.items():
        yield Drawing.of(fig, name, caption, label=name.replace("-", " "))
