"""What a page about facts says of their frequency."""

from collections.abc import Mapping
from typing import Any

from xlens.acquisition import FrequencyResponse
from xlens.figures import Figure, frequency_curves
from xlens.report.blocks import Drawing, Findings, Section, Table
from xlens.report.cells import interval, number

_SEEN = {"every": "all facts", "different": "without facts whose object is the pivot's string"}


def frequency_figures(result: FrequencyResponse, start: str) -> dict[str, Figure]:
    """By file name: all facts, and those with objects of their own."""
    kinds = dict.fromkeys(result.bins["facts"])
    return {f"{start}frequency-{kind}": frequency_curves(result, str(kind)) for kind in kinds}


def frequency_section(
    result: FrequencyResponse,
    figures: Mapping[str, Figure],
    names: Mapping[str, str],
    model: str,
) -> Section:
    """Tables and figures of one model."""
    drawn = (
        Drawing.of(fig, name, "Intervals show on hovering.", label=name.replace("-", " "))
        for name, fig in figures.items()
    )
    blocks = (
        Findings.of(frequency_findings(result, names)),
        _measures(result, names),
        _thresholds(result, names),
        _carried(result, names),
        *drawn,
    )
    start = f"{model}-" if model else ""
    title = f"{model}, frequency of facts" if model else "Frequency of facts"
    return Section(f"{start}frequency", title, blocks)


def frequency_findings(result: FrequencyResponse, names: Mapping[str, str]) -> list[str]:
    """What the numbers say, in sentences."""
    said: list[str] = []
    rows = [row for row in _rows(result.thresholds, "every")]
    useful = [row for row in rows if row["held_out"] > row["majority"]]
    said.append(
        "The rule “right if stated so often” is right more often than always saying the same, on "
        f"facts it was not chosen on, in {len(useful)} of {len(rows)} languages."
    )
    told = [row for row in _rows(result.carried, "every") if row["n"] and row["control_n"]]
    if told:
        sure = [row for row in told if row["p"] < 0.01]
        shares = ", ".join(
            f"{names[row['language']]} {number(row['share'])} ({number(row['expected'])})"
            for row in told
        )
        said.append(
            f"Of rare facts are right, where they are known in {names[result.pivot]} (in brackets: "
            f"expected within relations if that were no help): {shares}; more than expected, by a "
            f"test of each language by itself (p < .01), in {len(sure)} of {len(told)}. Facts that "
            f"are easy are right in both, so that alone is no sign that they came from "
            f"{names[result.pivot]}."
        )
    return said


def _rows(table: Any, facts: str) -> list[dict[Any, Any]]:
    return table[table["facts"] == facts].to_dict("records") if len(table) else []


def _each(table: Any) -> list[tuple[dict[Any, Any], str]]:
    return [(row, _SEEN[row["facts"]]) for row in table.to_dict("records")]


def _measures(result: FrequencyResponse, names: Mapping[str, str]) -> Table:
    rows = [
        [
            f"{names.get(row['language'], 'all languages')}, {seen}",
            *(f"{row[name]:,}" for name in ("n", "zeros")),
            *(number(row[name]) for name in ("spearman", "pearson", "pearson_bins", "auc")),
            interval(row, "slope"),
            "–" if row["half"] != row["half"] else f"{row['half']:,.1f}",
        ]
        for row, seen in _each(result.measures)
    ]
    head = ["", "facts", "never stated", "Spearman", "Pearson", "Pearson, bins", "AUC"]
    head += ["log-odds per tenfold", "half recalled at"]
    return Table("Frequency and recall.", head, rows)


def _thresholds(result: FrequencyResponse, names: Mapping[str, str]) -> Table:
    rows = [
        [
            f"{names[row['language']]}, {seen}",
            f"{row['theta']:g} [{row['low']:g}, {row['high']:g}]",
            *(number(row[name]) for name in ("accuracy", "held_out", "majority")),
            *(str(row[name]) for name in ("tp", "fp", "fn", "tn")),
        ]
        for row, seen in _each(result.thresholds)
    ]
    head = ["", "right if stated as often as", "accuracy", "held out", "majority"]
    head += ["frequent, right", "frequent, wrong", "rare, right", "rare, wrong"]
    return Table("The best threshold of frequency, and the four groups.", head, rows)


def _carried(result: FrequencyResponse, names: Mapping[str, str]) -> Table:
    rows = [
        [
            f"{names[row['language']]}, {seen}",
            f"{interval(row, 'share')} ({row['n']})",
            number(row["expected"]),
            f"{interval(row, 'control', 'control_low', 'control_high')} ({row['control_n']})",
            "–" if row["p"] != row["p"] else f"{row['p']:.1g}",
        ]
        for row, seen in _each(result.carried)
    ]
    home = names[result.pivot]
    head = ["", f"right, of those known in {home}", "expected", "of those that aren't", "p"]
    return Table("Facts below the threshold (facts).", head, rows)
