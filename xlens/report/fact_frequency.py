"""What a page about facts says of their frequency."""

from collections.abc import Mapping
from typing import Any

from xlens.acquisition import FrequencyResponse
from xlens.figures import Figure, frequency_curves, frequency_groups, threshold_bars
from xlens.report.blocks import Drawing, Findings, Section, Table
from xlens.report.cells import interval, number, rounded
from xlens.wording import number_of

_SEEN = {
    "every": "all facts",
    "different": "without identical pairs",
    "other object": "without identical objects",
}


def frequencies_given(counted: Mapping[str, int]) -> str:
    """Of how many facts the frequency is known, and how many were given for others."""
    facts = number_of(counted["asked"], "fact")
    said = f"The frequency of {counted['counted']:,} of {facts} is known"
    if counted["counted"] < counted["asked"]:
        said += "; the others are left out where frequency plays a part"
    if counted["estimates"]:
        said += f"; {counted['estimates']:,} are estimates of the index that was asked"
    if counted.get("unknown"):
        said += f"; {counted['unknown']:,} of {counted['given']:,} frequencies are of other facts"
    return f"{said}."


def frequency_figures(result: FrequencyResponse, start: str) -> dict[str, Figure]:
    """By file name: curves for all facts and without identical ones, the threshold, the groups."""
    kinds = [str(kind) for kind in dict.fromkeys(result.bins["facts"])]
    curves = {_curves_of(kind): frequency_curves(result, kind) for kind in kinds}
    drawn = {
        **curves,
        "frequency-threshold": threshold_bars(result),
        "frequency-groups": frequency_groups(result),
    }
    return {f"{start}{name}": fig for name, fig in drawn.items()}


def _curves_of(kind: str) -> str:
    return f"frequency-{kind.replace(' ', '-')}"


def frequency_section(
    result: FrequencyResponse,
    figures: Mapping[str, Figure],
    names: Mapping[str, str],
    model: str,
) -> Section:
    """Tables and figures of one model."""
    of = {_curves_of(kind): f"{said.capitalize()}. " for kind, said in _SEEN.items()}
    drawn = (
        Drawing.of(fig, name, f"{said}Numbers show on hovering.", label=name.replace("-", " "))
        for name, fig in figures.items()
        for said in [next((of[end] for end in of if name.endswith(end)), "")]
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
    rows = _rows(result.measures, "every")
    sure = [row for row in rows if row["auc_p"] < 0.01]
    shares = ", ".join(
        f"{names.get(row['language'], 'all together')} {_beside(row, 'auc')}" for row in rows
    )
    said.append(
        "A recalled fact is more frequent than one that isn't (AUC; in brackets with frequencies "
        f"shuffled within relations): {shares}; above shuffled ones (p < .01) in {len(sure)} of "
        f"{len(rows)}."
    )
    rows = _rows(result.thresholds, "every")
    useful = [row for row in rows if row["beyond_low"] > 0]
    said.append(
        "The rule “right if stated so often” is right more often than always saying the same, on "
        f"facts it was not chosen on, by more than its interval in {len(useful)} of "
        f"{number_of(len(rows), 'language')}."
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
            f"{row['n']:,}" + (f" ({row['estimates']:,})" if row["estimates"] else ""),
            f"{row['zeros']:,}",
            *(_beside(row, name) for name in ("auc", "spearman", "pearson", "pearson_bins")),
            interval(row, "slope"),
            "–" if row["half"] != row["half"] else rounded(row["half"], ",.1f"),
        ]
        for row, seen in _each(result.measures)
    ]
    head = ["", "facts (of estimated frequency)", "never stated", "AUC (shuffled)"]
    head += ["Spearman (shuffled)", "Pearson (shuffled)", "Pearson, bins (shuffled)"]
    head += ["log-odds per tenfold", "half recalled at"]
    return Table("Frequency and recall; identical: written as in the pivot.", head, rows)


def _beside(row: Mapping[Any, Any], name: str) -> str:
    """A measure with its interval, and what it is with shuffled frequencies."""
    shown = interval(row, name, f"{name}_low", f"{name}_high")
    return shown if shown == "–" else f"{shown} ({number(row[f'{name}_control'])})"


def _thresholds(result: FrequencyResponse, names: Mapping[str, str]) -> Table:
    rows = [
        [
            f"{names[row['language']]}, {seen}",
            f"{row['theta']:g} [{row['low']:g}, {row['high']:g}]",
            *(number(row[name]) for name in ("accuracy", "majority", "held_out")),
            interval(row, "beyond", "beyond_low", "beyond_high"),
            *(str(row[name]) for name in ("tp", "fp", "fn", "tn")),
        ]
        for row, seen in _each(result.thresholds)
    ]
    head = ["", "right if stated as often as", "accuracy", "majority", "held out"]
    head += ["held out, above the majority"]
    head += ["frequent, right", "frequent, wrong", "rare, right", "rare, wrong"]
    return Table("The best threshold of frequency, and the four groups.", head, rows)


def _carried(result: FrequencyResponse, names: Mapping[str, str]) -> Table:
    rows = [
        [
            f"{names[row['language']]}, {seen}",
            f"{interval(row, 'share')} ({row['n']})",
            number(row["expected"]),
            f"{interval(row, 'control', 'control_low', 'control_high')} ({row['control_n']})",
            "–" if row["p"] != row["p"] else rounded(row["p"], ".1g"),
        ]
        for row, seen in _each(result.carried)
    ]
    home = names[result.pivot]
    head = ["", f"right, of those known in {home}", "expected", "of those that aren't", "p"]
    return Table("Facts below the threshold (facts).", head, rows)
