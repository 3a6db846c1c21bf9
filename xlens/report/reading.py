"""The page of a run of `xlens xmrc`: how well models read across languages, and where inside."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from xlens import files
from xlens.errors import InputError
from xlens.figures import Figure, error_bars, ratio_scatter, reading_bars, reading_matrix
from xlens.figures.traces import shorten
from xlens.languages import english_name
from xlens.phases import StabilityCorrelation
from xlens.report.blocks import Block, Drawing, Findings, Paragraph, Section, Table
from xlens.report.cells import rounded
from xlens.report.grouped import require_summaries
from xlens.report.minute import minutes
from xlens.report.phases import INSIDE_CAPTIONS, inside_figures, inside_tables, offered
from xlens.report.reading_inside import correlation_rows
from xlens.report.reading_minute import reading_minute
from xlens.report.reading_tables import (
    controls_of,
    has_settings,
    leaderboard_rows,
    oracle_rows,
    pair_rows,
    reading_findings,
    score_head,
    score_rows,
    scores_of,
    summary_of,
    wide_rows,
)
from xlens.report.written import write_page
from xlens.results import Result, spreadsheet_safe
from xlens.runs import ACROSS, RunDirectory
from xlens.studies.reading import BOARD, ORACLE, PARTS, STEADY, SUMMARIES
from xlens.studies.steps.leaderboard import RULE, Leaderboard
from xlens.studies.steps.reading_summary import OracleSummary, answer_table
from xlens.tasks.xmrc import ReadingResult
from xlens.tasks.xmrc.tables import SETTINGS
from xlens.wording import number_of, one_of

TABLE = "predictions.csv"
"""Texts stand in `predictions/table.parquet`."""
_BARS = "Token F1 by language and setting, with intervals over paragraphs."
_OTHER = " Grey lines: the same questions with another text. Only what stands above them was read."
_CAPTIONS = {
    "f1": _BARS,
    "matrix": "Token F1 for every language of the text (rows) and of the question (columns); "
    "intervals show on hovering.",
    "errors": "Why answers are wrong, by rules: shares of the wrong answers (F1 no higher than 19 "
    "of 20 right answers to other questions get in that language) in every language. Languages of "
    "one script are told apart only where the identifier is sure, and names are often written so "
    "in both: hold errors of language against their share among right answers to other questions.",
}


def write_reading_report(run: RunDirectory, static: Collection[str] = ()) -> Path:
    """Draw the figures of a run of `xlens xmrc` and write `report.html`.

    Args:
        run: With results under `results/<model>/<part>`.
        static: Pictures to draw as well; after the report is written.

    Raises:
        ValueError: no scores yet.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    models: dict[str, dict[str, Result]] = {
        model: {name: found[name] for name in PARTS if name in found}
        for model in run.models
        if "scores" in (found := run.parts(model))
    }
    if not models:
        raise InputError(
            f"{str(run.path)!r} has no scores yet: the same command goes on where it was."
        )
    require_summaries(run, models, SUMMARIES)
    for model, parts in models.items():
        if "predictions" in parts:
            write_table(parts, run.result_folder(model, TABLE))
    across = run.parts(ACROSS)
    board = _board_of(across) if len(models) > 1 else None
    figures = {
        f"{model}-{name}": fig
        for model, parts in models.items()
        for name, fig in _figures(parts).items()
    }
    if scatter := _scatter(models):
        figures = {"models-ratios": scatter, **figures}
    made_by = [scores_of(parts).provenance for parts in models.values()]
    names = [scores_of(parts).model for parts in models.values()]
    whose = f"does {names[0]}" if len(names) == 1 else f"do {len(names)} models"
    title = f"How well {whose} read across languages?"
    parts = next(iter(models.values()))
    asked = controls_of(parts)
    sections = [
        *([] if board is None else [_ranked(board, parts).more(_compared(board, scatter, parts))]),
        *(_section(model, own, figures) for model, own in models.items()),
        *_steadiness(across),
    ]
    return write_page(
        run,
        title,
        sections,
        made_by,
        figures,
        static,
        minute=minutes(models, reading_minute),
        offered=offered(run.provenance),
        template="reading",
        tag=scores_of(parts).pivot,
        pivot=english_name(scores_of(parts).pivot, variant=True),
        percent=scores_of(parts).resampling.percent,
        exchanged="mismatched" in asked,
        unasked=bool({*asked} - {"mismatched"}),
    )


def told(model: str, parts: Mapping[str, Result]) -> list[Section]:
    """What the page and the terminal say of a model's parts: scores, findings, how it was asked."""
    return [_found(model, parts)]


def ranked(
    across: Mapping[str, Result], models: Mapping[str, Mapping[str, Result]]
) -> list[Section]:
    """What the page and the terminal say of several models, or of all languages of one."""
    board = _board_of(across)
    ranks = [] if board is None else [_ranked(board, next(iter(models.values())))]
    return [*ranks, *_steadiness(across)]


def _board_of(across: Mapping[str, Result]) -> Leaderboard | None:
    found = across.get(BOARD)
    return found if isinstance(found, Leaderboard) else None


def write_table(parts: Mapping[str, Result], path: Path) -> None:
    """One row per answer with its scores, for people."""
    safe = spreadsheet_safe(answer_table(parts))
    files.write(path, safe.to_csv(index=False, lineterminator="\n"))


def _figures(parts: Mapping[str, Result]) -> dict[str, Figure]:
    result = scores_of(parts)
    drawn: dict[str, Figure] = {}
    if has_settings(result):
        drawn["f1"] = reading_bars(result)
        drawn["errors"] = error_bars(result)
    cells = result.scores[result.scores["control"] == ""]
    own = cells[cells["context_language"] == cells["answer_language"]]
    mixed = own[~own["setting"].isin(SETTINGS)]  # two languages, neither of them the pivot
    if len(mixed):
        drawn["matrix"] = reading_matrix(result)
    return drawn | inside_figures(parts)


def _scatter(models: Mapping[str, Mapping[str, Result]]) -> Figure | None:
    """Models by what is left of the pivot's score, where at least two were asked for that."""
    results: list[ReadingResult] = []
    for parts in models.values():
        table = scores_of(parts).summary.dropna(subset="ratio")
        if scores_of(parts).reads and {"en-x", "x-x"} <= set(table["setting"]):
            results.append(scores_of(parts))
    return ratio_scatter(results) if len(results) > 1 else None


def _ranked(board: Leaderboard, parts: Mapping[str, Result]) -> Section:
    what = {"en-x": "text in the pivot's language, question in another", "x-x": "all in another"}
    name = scores_of(parts).setting_name(board.setting)
    setting = f"{name} ({what[board.setting]})" if board.setting in what else name
    caption = (
        f"Sorted by F1 in {setting}, the mean over languages. Another text: F1 with exchanged "
        "texts, to be held against F1. By chance, and in brackets beside the pivot's F1: F1 of "
        "right answers to other questions. Cut off: answers ended by the limit on their length. "
        "Questions: in each language."
    )
    if (board.table["n"] != board.table["common"]).any():
        caption += (
            " The models were not all asked the same questions (in brackets: those that all were "
            "asked), as some prompts were too long for some, say: rows are of different texts."
        )
    return Section("leaderboard", "Leaderboard", (Table(caption, *leaderboard_rows(board)),))


def _compared(
    board: Leaderboard, scatter: Figure | None, parts: Mapping[str, Result]
) -> Iterator[Block]:
    """The leaderboard in detail."""
    name = scores_of(parts).setting_name(board.setting)
    if len(board.pairs):
        caption = (
            f"Base and post-trained models side by side, in {name}, on the questions that "
            f"both answered. {RULE}"
        )
        yield Table(caption, *pair_rows(board))
    yield Table(
        f"F1 by language, {name}. By chance: right answers to other questions.",
        *wide_rows(board.languages, "language", "f1"),
    )
    caption = (
        f"Shares of the wrong answers by kind, {name}, all languages together. In "
        "brackets: how often the same rules say so of right answers to other questions."
    )
    yield Table(caption, *wide_rows(board.errors, "kind", "share", "baseline"))
    if scatter is not None:
        caption = (
            "What is left of the score in the pivot's language when only the question is in "
            "another language (up), and when everything is (right), with intervals."
        )
        yield Drawing.of(scatter, "models-ratios", caption)


def _found(model: str, parts: Mapping[str, Result]) -> Section:
    result = scores_of(parts)
    unread = "On the right F1 of what needs no reading. " if controls_of(parts) else ""
    caption = (
        f"Answers of {result.model}: scores of every combination of languages. {unread}By chance: "
        "F1 of right answers to other questions in that language, which differs between languages. "
        "Cut off: answers ended by the limit on their length. Shares of the F1 in "
        f"{result.pivot}-{result.pivot} are left out where that is no better than with another "
        "text."
    )
    blocks = (
        Findings.of(reading_findings(parts)),
        Paragraph(_asked(model, parts), "said"),
        Table(caption, score_head(parts), score_rows(parts)),
    )
    return Section(model, result.model, blocks)


def _section(model: str, parts: Mapping[str, Result], figures: Mapping[str, Figure]) -> Section:
    captions = _CAPTIONS | INSIDE_CAPTIONS
    captions["f1"] += _OTHER if "mismatched" in controls_of(parts) else ""
    drawn = [
        Drawing.of(figures[key], key, words)
        for name, words in captions.items()
        if (key := f"{model}-{name}") in figures
    ]
    more = (*_oracle(parts), *inside_tables(parts), *_examples(parts), *drawn)
    return _found(model, parts).more(more)


def _asked(model: str, parts: Mapping[str, Result]) -> str:
    """How the model was asked, and what became of prompts that were too long."""
    made = scores_of(parts).provenance
    how: list[dict[str, Any]] = list(made.get("prompts", []))
    shots = sorted({int(each["shots"]) for each in how if "shots" in each})
    chat = any(each.get("chat") for each in how)
    form = "turns of a chat" if chat else "plain prompts"
    if made.get("endpoint"):
        form = f"{made['api']} at {made['endpoint']}"
    how_many = one_of(shots, "demonstration")
    if headers := max((int(each.get("headers", 0)) for each in how), default=0):
        how_many = f"{number_of(headers, 'header')} of {how_many}"
    said = [f"Asked as {form}, with {how_many}"]
    for name, word in (("skipped", "left out"), ("truncated", "cut")):
        if n := sum(len(each.get(name, [])) for each in how):
            prompts = number_of(n, "prompt that was", "prompts that were")
            said.append(f"{prompts} too long {'was' if n == 1 else 'were'} {word}")
    if n := sum(len(each.get("unpaired", [])) for each in how):
        prompts = number_of(n, "prompt")
        said.append(
            f"so {'was' if n == 1 else 'were'} {prompts} whose question was too long in another "
            "combination"
        )
    if tokens := made.get("tokens"):
        counts = [f"{tokens[way]:,} {way}" for way in ("in", "out") if tokens.get(way) is not None]
        price = "" if made.get("cost") is None else f", cost {rounded(made['cost'], ',.4f')}"
        said.append(f"tokens by the server's count: {', '.join(counts) or 'unknown'}{price}")
    return f"{'; '.join(said)}. Every answer with its scores: results/{model}/{TABLE}."


def _oracle(parts: Mapping[str, Result]) -> Iterator[Table]:
    """Sentences left out, where that was asked for."""
    found = parts.get(SUMMARIES[ORACLE])
    if not isinstance(found, OracleSummary):
        return
    caption = (
        "Does the answer hang on the sentence that holds it? Each sentence of the text left out in "
        "turn; oracle: how often the answer's own matters most. Chance: the share of sentences "
        "that hold it; longest: how often the longest one does."
    )
    yield Table(caption, *oracle_rows(found))


def _steadiness(across: Mapping[str, Result]) -> Iterator[Section]:
    """Stability against F1, where there are enough languages or models."""
    found = across.get(STEADY)
    if not isinstance(found, StabilityCorrelation):
        return
    caption = (
        "Does stability go with F1? Correlations over languages and models, the pivot left out. "
        "Below ten cells they say little."
    )
    yield Section("stability", "Stability and F1", (Table(caption, *correlation_rows(found)),))


def _examples(parts: Mapping[str, Result]) -> Iterator[Table]:
    """A few answers, right and wrong, of as many combinations as possible."""
    rows = [
        [
            f"{row['context_language']}, {row['question_language']}",
            str(row["question"]),
            str(row["reference"]),
            shorten(str(row["prediction"]), 80) or "(nothing)",
            rounded(row["f1"], ".2f") + ("" if row["kind"] == "right" else f", {row['kind']}"),
        ]
        for row in summary_of(parts).examples.to_dict("records")
    ]
    head = ["text, question", "question", "right answer", "the model's", "F1, kind of error"]
    if rows:
        yield Table("Some answers, the first questions of each list.", head, rows, numbers=False)
