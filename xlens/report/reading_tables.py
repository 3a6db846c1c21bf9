"""What a model read, in rows and sentences: for the terminal and for the page."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from xlens.languages import english_names
from xlens.report.cells import interval, number, rounded, signed
from xlens.report.reading_inside import phase_findings
from xlens.report.sentences import listed
from xlens.results import Result
from xlens.studies.reading import ORACLE, SUMMARIES
from xlens.studies.steps.leaderboard import Leaderboard
from xlens.studies.steps.reading_summary import OracleSummary, ReadingSummary
from xlens.tasks.xmrc import ReadingResult
from xlens.tasks.xmrc.tables import SETTINGS
from xlens.wording import number_of, percent, range_of

HEAD = ("text", "question", "answer", "n", "exact match", "F1", "F1 by chance")
CUTS = {"truncated": "cut off", "text_cut": "text cut"}
"""Headings of the shares of answers and of texts that a limit cut."""
CONTROLS = {
    "mismatched": "F1, another text",
    "first-sentence": "F1, first sentence",
    "random-span": "F1, random words",
}
"""Headings of the columns with what needs no reading."""


def score_head(parts: Mapping[str, Result]) -> list[str]:
    """Headings of `score_rows`."""
    result = scores_of(parts)
    return [
        *HEAD,
        *(CUTS[name] for name in _cuts(result.scores)),
        f"F1 of {result.pivot}-{result.pivot}",
        *(CONTROLS[name] for name in controls_of(parts)),
    ]


def score_rows(parts: Mapping[str, Result]) -> list[list[str]]:
    """A row per combination of languages, then the settings' means over languages.

    Shares of the pivot's F1 are left out where that is no better than with exchanged texts.
    """
    result = scores_of(parts)
    reads = result.reads
    table = result.scores
    by_cell = {
        (row["control"], *_cell(row), row["metric"]): row for row in table.to_dict("records")
    }
    baselines: dict[str, dict[tuple[Any, ...], float]] = {
        name: {(*_cell(row), row["metric"]): row["value"] for row in part.scores.to_dict("records")}
        for name in CONTROLS
        if isinstance(part := parts.get(name), ReadingResult)
    }
    rows: list[list[str]] = []
    for cell in dict.fromkeys(key[1:4] for key in by_cell if not key[0]):
        em, f1 = (by_cell["", *cell, metric] for metric in ("em", "f1"))
        controls: list[str] = []
        for name in controls_of(parts):
            if name == "mismatched":
                value = by_cell.get((name, *cell, "f1"), {}).get("value", math.nan)
            else:
                value = baselines[name].get((*cell, "f1"), math.nan)
            controls.append(number(value))
        left = _ratio(f1) if reads else "–"
        beside = [number(f1["chance"]), *(percent(f1[name]) for name in _cuts(result.scores))]
        rows.append([*cell, str(f1["n"]), interval(em), interval(f1), *beside, left, *controls])
    for setting in dict.fromkeys(result.summary["setting"]):
        mine = result.summary[result.summary["setting"] == setting]
        by = {str(row["metric"]): row for row in mine.to_dict("records")}
        if by["f1"]["n_languages"] < 2:
            continue
        left = _ratio(by["f1"]) if reads else "–"
        beside = [number(by["f1"]["chance"]), *("" for _ in _cuts(result.scores))]
        shown = [interval(by["em"]), interval(by["f1"]), *beside, left]
        what = f"mean of {result.setting_name(setting)}"
        rows.append([what, "", "", "", *shown, *("" for _ in controls_of(parts))])
    return rows


def reading_findings(parts: Mapping[str, Result]) -> list[str]:
    """What the numbers say, in sentences; nothing but what they say."""
    result = scores_of(parts)
    summary = result.summary[result.summary["metric"] == "f1"]
    by = {str(row["setting"]): row for row in summary.to_dict("records")}
    names = _names(result)
    pivot = names[result.pivot]
    said: list[str] = []
    reads = result.reads
    if row := by.get("en-en"):
        doubt = "" if reads else _unreadable(result)
        said.append(f"With text and question in {pivot}, F1 is {_beside_chance(row)}{doubt}.")
    for setting, what in (
        ("en-x", f"With the text in {pivot} and the question in"),
        ("x-x", "With text and question in"),
        ("x-en", f"With the question in {pivot} and the text in"),
    ):
        if row := by.get(setting):
            others = ", ".join(names[tag] for tag in str(row["languages"]).split())
            told = reads and not math.isnan(row["ratio"])
            left = f", {_ratio(row)} of {pivot}'s" if told else ""
            said.append(f"{what} another language ({others}), F1 is {_beside_chance(row)}{left}.")
    told = summary_of(parts)
    said += _unread(told, result) + _cut(told) + _wrong(told, result, names)
    return said + oracle_findings(parts) + phase_findings(parts) + _refused(told)


def _refused(summary: ReadingSummary) -> list[str]:
    """How many prompts a server did not take."""
    if not summary.refused:
        return []
    told = number_of(summary.prompts, "prompt")
    return [f"Refused by the server, so that the answer is empty: {summary.refused} of {told}."]


def _names(result: ReadingResult) -> dict[str, str]:
    """English names of all languages asked, with script and region, told apart."""
    tags = result.scores[["context_language", "question_language", "answer_language"]]
    return english_names([result.pivot, *tags.to_numpy().ravel()], variant=True)


def _beside_chance(row: Mapping[Any, Any]) -> str:
    """F1 with what right answers to other questions get, and whether it is above that."""
    chance = row["chance"]
    if math.isnan(chance):
        return interval(row)
    above = "" if row["low"] > chance or math.isnan(row["low"]) else ": not above it"
    return f"{interval(row)} (by chance {number(chance)}{above})"


def _unreadable(result: ReadingResult) -> str:
    """Why shares of the pivot's F1 say nothing: the end of a sentence."""
    home = (result.scores["setting"] == "en-en") & (result.scores["metric"] == "f1")
    few = result.scores.loc[home, ["low", "high"]].isna().any(axis=None)
    why = "of too few paragraphs to hold against" if few else "within the intervals no more than"
    return f", {why} that with {result.other_text}: shares of it say nothing"


def oracle_rows(found: OracleSummary) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: languages and target a row."""
    rows = [
        [
            *(str(row[f"{part}_language"]) for part in ("context", "question", "answer")),
            str(row["target"]),
            interval(row, "oracle"),
            *(number(row[name]) for name in ("chance", "longest")),
            str(row["n"]),
        ]
        for row in found.table.to_dict("records")
    ]
    head = ["text", "question", "answer", "target", "oracle", "chance", "longest", "prompts"]
    return head, rows


def oracle_findings(parts: Mapping[str, Result]) -> list[str]:
    """Whether answers hang on the sentence that holds them, all combinations together."""
    found = parts.get(SUMMARIES[ORACLE])
    if not isinstance(found, OracleSummary):
        return []
    told = [
        f"the {row['target']} in {percent(row['hit'])} (chance {percent(row['chance'])}, longest "
        f"sentence {percent(row['longest'])}; above chance, by the interval, in "
        f"{row['above']} of {number_of(int(row['of']), 'combination')} of languages)"
        for row in found.targets.to_dict("records")
    ]
    return [
        "Of all sentences left out in turn, the one that holds the answer matters most for "
        f"{', for '.join(told)}."
    ]


def leaderboard_rows(board: Leaderboard) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: a model a row, the best first.

    In brackets: the pivot's F1 by chance; of a model's questions in a language, how many every
    model was asked, where not all.
    """
    head = ["model", "base", "F1", "exact match", "of the pivot's", "pivot's F1", "another text"]
    cuts = _cuts(board.table)
    head += ["by chance", *(CUTS[name] for name in cuts), "questions"]
    rows = [
        [
            *(str(row["model"]), str(row["base"]) or "–"),
            *(interval(row, metric, f"{metric}_low", f"{metric}_high") for metric in ("f1", "em")),
            number(row["ratio"]),
            f"{number(row['f1_pivot'])} ({number(row['chance_pivot'])})",
            *(number(row[name]) for name in ("control", "chance")),
            *(percent(row[name]) for name in cuts),
            str(row["n"]) + ("" if row["n"] == row["common"] else f" ({row['common']} of all)"),
        ]
        for row in board.table.to_dict("records")
    ]
    return head, rows


def pair_rows(board: Leaderboard) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: base and post-trained model side by side."""
    head = ["base", "post-trained", "F1, base", "F1, post-trained", "difference", "questions"]
    rows = [
        [
            *(str(row["base"]), str(row["post"])),
            *(number(row["f1_base"]), number(row["f1_post"])),
            signed(row, "difference"),
            str(row["n"]),
        ]
        for row in board.pairs.to_dict("records")
    ]
    return head, rows


def wide_rows(
    table: pd.DataFrame, column: str, value: str, beside: str = ""
) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: a model a row, a column for each value of `column`.

    Args:
        table: One row per model and value of `column`.
        column: Of the headings.
        value: Column of the numbers.
        beside: Column of what stands in brackets beside them, if any.
    """
    names = list(dict.fromkeys(table[column]))
    by_model: dict[str, dict[Any, str]] = {}
    for row in table.to_dict("records"):
        more = f" ({number(row[beside])})" if beside and not math.isnan(row[beside]) else ""
        by_model.setdefault(str(row["model"]), {})[row[column]] = number(row[value]) + more
    rows = [[model, *(cells.get(name, "–") for name in names)] for model, cells in by_model.items()]
    return ["model", *map(str, names)], rows


def scores_of(parts: Mapping[str, Result]) -> ReadingResult:
    """The scores of a model's answers."""
    found = parts["scores"]
    assert isinstance(found, ReadingResult)
    return found


def summary_of(parts: Mapping[str, Result]) -> ReadingSummary:
    """The summary of a model's answers."""
    found = parts[SUMMARIES["scores"]]
    assert isinstance(found, ReadingSummary)
    return found


def has_settings(result: ReadingResult) -> bool:
    """Whether any combination has a setting's name: what most figures need."""
    return bool(result.scores["setting"].isin(SETTINGS).any())


def controls_of(parts: Mapping[str, Result]) -> list[str]:
    """Which of `CONTROLS` were asked."""
    there = (scores_of(parts).scores["control"] == "mismatched").any()
    return [name for name in CONTROLS if name in parts or (name == "mismatched" and there)]


def _cell(row: Mapping[Any, Any]) -> tuple[str, str, str]:
    return tuple(str(row[f"{part}_language"]) for part in ("context", "question", "answer"))  # type: ignore[return-value]


def _cuts(table: pd.DataFrame) -> list[str]:
    """Of `CUTS`: that of answers always, that of texts where there is one."""
    there = {name for name in CUTS if name in table and (table[name] > 0).any()}
    return [name for name in CUTS if name in {"truncated", *there}]


def _ratio(row: Mapping[Any, Any]) -> str:
    return interval(row, "ratio", "ratio_low", "ratio_high")


def _unread(summary: ReadingSummary, result: ReadingResult) -> list[str]:
    """What scores without reading."""
    rows = {str(row["control"]): row for row in summary.unread.to_dict("records")}
    said: list[str] = []
    if row := rows.get("mismatched"):
        said.append(
            f"With {result.other_text} F1 is {rounded(row['mean'], '.2f')} on average and at most "
            f"{interval(row, 'top')} ({range_of((row['fewest'], row['most']), 'question')} a "
            "combination): that much is known, guessed or looks like an answer, and was not read."
        )
    what = {
        "first-sentence": "the text's first sentence",
        "random-span": "words drawn from the text",
    }
    said += [
        f"To answer with {words} would give {rounded(rows[name]['mean'], '.2f')}."
        for name, words in what.items()
        if name in rows
    ]
    return said


def _cut(summary: ReadingSummary) -> list[str]:
    """Where a limit cut answers off, or texts."""
    words = {
        "truncated": ("The limit on their length cut answers off", "scores there may be too low"),
        "text_cut": ("Texts were cut to fit into the model", "these are easier to search"),
    }
    return [
        f"{words[row['limit']][0]} in {row['n']} of {number_of(int(row['of']), 'combination')} of "
        "text, question and "
        f"answer, most in {row['most']} ({percent(row['share'])}): {words[row['limit']][1]}."
        for row in summary.cut.to_dict("records")
    ]


def _wrong(summary: ReadingSummary, result: ReadingResult, names: Mapping[str, str]) -> list[str]:
    return [
        f"Of {row['of']} {result.shares_of} in {result.setting_name(row['setting'])}, "
        f"{percent(row['content'])} are wrong in what they say, {percent(row['language'])} in "
        f"another language{_of_golds(row, names)}, and {percent(row['failure'])} no answer "
        "(gibberish, refusal, blank)."
        for row in summary.wrong.to_dict("records")
    ]


def _of_golds(row: Mapping[Any, Any], names: Mapping[str, str]) -> str:
    """How often the rules say so of right answers, and where an interval lies above that."""
    if math.isnan(row["golds"]):
        return ""
    of = row["compared"]
    alone = f", of {number_of(of, 'combination')}, each by itself" if of > 1 else ""
    return (
        f" (of right answers to other questions, {percent(row['golds'])} would count so; the "
        "interval lies above its own language's share of these in "
        f"{listed(names, row['above'].split())}{alone})"
    )
