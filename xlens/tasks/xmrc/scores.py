"""From answers to scores: per combination of languages, against the pivot, and why answers fail."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from xlens._renamed import renamed
from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import standardize
from xlens.results import Result, analysed
from xlens.segments import segmenter
from xlens.stats import Resampling, bootstrap
from xlens.tasks.xmrc.answers import KEY, Predictions
from xlens.tasks.xmrc.errors import ERRORS, FAILURES, Langid, Verdict, classify
from xlens.tasks.xmrc.metrics import Normalisation, answer_scores, chance_levels, tokens
from xlens.tasks.xmrc.tables import Cell, Table, Wide
from xlens.text import out_of_form

Classifier = Callable[[Mapping[str, Any]], Verdict]
_COPIED = (*KEY, "id", "paragraph", "header", "prediction")
_MOST_GOLDS = 200  # of a cell, to see what the rules say of right answers
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReadingResult(Result):
    """How well a model reads, in which combination of languages.

    Attributes:
        model: Its name.
        pivot: The language whose context, question and answer are the yardstick.
        scores: One row per cell and metric: `control context_language question_language
            answer_language setting metric value low high n paragraphs ratio ratio_low ratio_high
            flag above above_low above_high chance truncated text_cut left_out`. Metrics `em`, `f1`,
            `inclusion` and `f1_content` (F1 of the answers that are no error other than of
            content), 0 to 1. `ratio` is the value by the pivot's; `flag` says why there is none, or
            that it compares other questions than the pivot's. `above` is the value less that of
            questions about exchanged texts, where these were asked. `chance` is the F1 of right
            answers to other questions in that language, `truncated` the share of answers that the
            limit on their length cut off, `text_cut` the share of prompts whose text was cut to fit
            into the model, and `left_out` the number of questions that are missing because prompts
            were too long, there or elsewhere.
        summary: Means over languages other than the pivot, each language counting the same:
            `setting metric value low high ratio ratio_low ratio_high n_languages languages flag
            chance`.
            The ratio of `en-x` is the review's ratio_cross, that of `x-x` its ratio_mono. No rows
            where no cell is of a setting that has a name.
        errors: One row per cell and kind of error: its columns, `kind share low high n of
            baseline`. `of` is what shares are of: the wrong answers, or all. `baseline` is how
            often the same rules say so of right answers to questions about other texts (as if the
            model had given them): no share below it is a finding. Kinds are `ERRORS` and `DERIVED`.
        chance: What right answers to questions about other texts score, by language of the answer:
            `language chance shares wrong_to pairs`; see `chance_levels`.
        items: One row per answer: its cell, `id paragraph prediction em f1 inclusion wrong kind
            rule language truncated text_cut`, and `header` where paragraphs share demonstrations.
            `kind` is `right` where it isn't wrong.
    """

    model: str
    pivot: str
    scores: pd.DataFrame
    summary: pd.DataFrame
    errors: pd.DataFrame
    items: pd.DataFrame
    chance: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """`scores`."""
        return self.scores

    @property
    def resampling(self) -> Resampling:
        """What the intervals were drawn by."""
        return Resampling.of(self.provenance)

    @property
    def reads(self) -> bool:
        """Whether the pivot's F1 is above that with exchanged texts: shares of it say nothing else.

        By the interval of their difference. Yes where these weren't asked.
        """
        home = (self.scores["setting"] == "en-en") & (self.scores["metric"] == "f1")
        rows = {str(row["control"]): row for row in self.scores[home].to_dict("records")}
        real, other = rows.get(""), rows.get("mismatched")
        if real is None or other is None:
            return True
        if "above_low" not in real:  # results of before have two intervals only
            return bool(real["low"] > other["high"])
        return bool(real["above_low"] > 0)

    @property
    def shares_of(self) -> str:
        """What shares of errors are of, in words."""
        how = self.provenance.get("scores", self.provenance)  # older ones had no room
        return "wrong answers" if how["error_denominator"] == "wrong" else "answers"

    def setting_name(self, setting: str) -> str:
        """A setting with its own pivot: `de-x` where that is German."""
        return "-".join(self.pivot if part == "en" else part for part in setting.split("-"))

    @property
    def other_text(self) -> str:
        """What exchanged texts are: of another article, where that is known of all of them."""
        made: list[Mapping[str, Any]] = self.provenance.get("prompts", [])
        known = [how.get("other_articles", False) for how in made if how.get("control")]
        return "another article's text" if known and all(known) else "another text"


@renamed(rules="normalisation")
@typed
def reading_scores(
    predictions: Predictions,
    *,
    normalisation: Normalisation = "xlens",
    wrong_if: Literal["f1", "em"] = "f1",
    error_denominator: Literal["wrong", "all"] = "wrong",
    langid: Langid | None = None,
    classifier: Classifier | None = None,
    chance: pd.DataFrame | None = None,
    pivot: str = "en",
    resampling: Resampling = Resampling(),
) -> ReadingResult:
    """Score answers, with intervals over paragraphs, or the headers that several of them share.

    They are drawn whole, the same for every cell: their questions are alike, and a ratio
    compares answers to the same questions, if all cells were asked the same (`paired`); `flag` says
    where they weren't. A ratio of a pivot that scores 0 is NaN, and flagged.

    Args:
        predictions: From `answer_questions`.
        normalisation: How answers are normalised; see `xlens.tasks.xmrc.metrics`.
        wrong_if: An answer is wrong if its F1 is no higher than 19 of 20 right answers to other
            questions get in its language (`chance`), or (`em`) unless it is exactly right.
        error_denominator: Shares of errors are of the wrong answers, or of all. The review calls
            it the test set, where its purpose suggests the wrong ones.
        langid: Tells languages of one script apart; None: `xlens.tasks.xmrc.errors.identify`.
        classifier: From a row of `predictions.table` to a `Verdict`; None: by rules (`classify`).
        chance: From `chance_levels`, of all questions there are; None: of those asked here.
        pivot: What other languages are compared with.
        resampling: Of the intervals.

    Raises:
        ValueError: an unknown option, or languages that the rules don't cover.
    """
    for name, value, accepted in (
        ("wrong_if", wrong_if, ("f1", "em")),
        ("error_denominator", error_denominator, ("wrong", "all")),
    ):
        if value not in accepted:
            raise InputError(f"{name}={value!r}: accepted are {', '.join(map(repr, accepted))}.")
    home = standardize(pivot)
    _warn_of_form(predictions, normalisation)
    levels = (
        chance_levels(_golds(predictions), normalisation=normalisation)
        if chance is None
        else chance
    )
    judge = classifier or (lambda r: classify(r, langid=langid))
    items = _items(predictions, normalisation, wrong_if, levels, judge)
    # A classifier of one's own may be a model: it is not asked twice as much.
    baseline = {} if classifier else _baseline(predictions, judge)
    cells = list(dict.fromkeys(items[list(KEY)].itertuples(index=False, name=None)))
    wide = Wide.of(items, cells, error_denominator)
    found = bootstrap(
        wide.values,
        clusters=wide.clusters(items, resampling),
        resampling=resampling,
        bounds=(0, 1),
    )
    table = Table(found, wide, home, levels, _left_out(predictions))
    empty = sum(
        not any(
            tokens(r, row["answer_language"], normalisation=normalisation)
            for r in row["references"]
        )
        for row in _rows(predictions.table)
    )
    if empty:
        _log.warning(
            "%d right answers are nothing once normalised (an article, a sign): F1 is 0 there.",
            empty,
        )
    return ReadingResult(
        model=predictions.model,
        pivot=home,
        scores=table.scores(cells, items),
        summary=table.summary(cells),
        errors=table.errors(cells, items, error_denominator, baseline),
        items=items,
        chance=levels,
        provenance=analysed(
            predictions.provenance,
            "scores",
            {
                "normalisation": normalisation,
                "wrong_if": wrong_if,
                "error_denominator": error_denominator,
                "langid": "given" if langid else "py3langid",
                "classifier": "given" if classifier else "rules",
                "segmenter": segmenter(),
                "empty_references": empty,
                **resampling.provenance(),
            },
        ),
    )


def _warn_of_form(predictions: Predictions, normalisation: Normalisation) -> None:
    """Published rules compare code points: say so where equal texts would differ."""
    if normalisation == "xlens":
        return
    table = predictions.table
    texts = [*table["prediction"], *(r for found in table["references"] for r in found)]
    if n := out_of_form(texts):
        _log.warning(
            "%d answers are not in NFC, or hold characters that nobody sees. %s rules compare them "
            "as they stand, as published; normalisation='xlens' compares what they say.",
            n,
            normalisation,
        )


def _golds(predictions: Predictions) -> dict[str, list[tuple[str, list[str]]]]:
    """By language of the answer, paragraph and right answers of every question."""
    found: dict[str, dict[str, tuple[str, list[str]]]] = {}
    for row in _rows(predictions.table):
        mine = found.setdefault(row["answer_language"], {})
        mine.setdefault(row["id"], (row["paragraph"], row["references"]))
    return {language: list(mine.values()) for language, mine in found.items()}


def _baseline(predictions: Predictions, classifier: Classifier) -> dict[Cell, dict[str, float]]:
    """By cell and kind, how often right answers to questions about other texts count as it."""
    found: dict[Cell, dict[str, float]] = {}
    for cell, mine in predictions.table.groupby(list(KEY), sort=False):
        rows = _rows(mine)[:_MOST_GOLDS]
        kinds: list[dict[str, bool]] = []
        for n, row in enumerate(rows):
            # The next one round the circle that asks about another text.
            others = (rows[(n + k) % len(rows)] for k in range(1, len(rows)))
            donor = next((o for o in others if o["paragraph"] != row["paragraph"]), None)
            if donor is not None:
                said = donor["references"][0]
                verdict = classifier({**row, "prediction": said, "text": said})
                kinds.append(_is_kind(verdict, row["question_language"]))
        if kinds:
            found[tuple(map(str, cell))] = {
                kind: float(np.mean([each[kind] for each in kinds])) for kind in kinds[0]
            }
    return found


def _left_out(predictions: Predictions) -> dict[Cell, int]:
    """Questions of each cell that were too long, there or in another combination."""
    made: list[Mapping[str, Any]] = predictions.provenance.get("prompts", [])
    return {
        tuple(str(how[name]) for name in KEY): sum(
            len(how.get(name, ())) for name in ("skipped", "unpaired")
        )
        for how in made
        if {*KEY} <= {*how}
    }


def _is_kind(verdict: Verdict, asked: str) -> dict[str, bool]:
    own = verdict.kind == "language" and verdict.language == asked
    derived = {"failure": verdict.kind in FAILURES, "question's language": own}
    return {kind: verdict.kind == kind for kind in ERRORS} | derived


def _cut_off(row: Mapping[str, Any]) -> bool:
    """Whether the limit ended an answer; not where only what came after it was cut."""
    said = str(row["prediction"])
    return row.get("reason") == "length" and str(row["text"]).rstrip().endswith(said.rstrip())


def _items(
    predictions: Predictions,
    normalisation: Normalisation,
    wrong_if: str,
    levels: pd.DataFrame,
    classifier: Classifier,
) -> pd.DataFrame:
    # Below what other answers get by chance, an F1 above 0 says nothing.
    wrong_to = dict(zip(levels["language"], levels["wrong_to"], strict=True))
    rows: list[dict[str, Any]] = []
    for row in _rows(predictions.table):
        scores = answer_scores(
            row["prediction"],
            row["references"],
            row["answer_language"],
            normalisation=normalisation,
        )
        wrong = (
            scores["em"] < 1
            if wrong_if == "em"
            else (scores["f1"] <= wrong_to.get(row["answer_language"], 0.0))
        )
        verdict = classifier(row) if wrong else Verdict("right", "")
        rows.append(
            {
                **{name: row[name] for name in _COPIED if name in row},
                **scores,
                "wrong": bool(wrong),
                **verdict._asdict(),
                "truncated": _cut_off(row),
                "text_cut": bool(row.get("cut", 0) > 0),
            }
        )
    return pd.DataFrame(rows)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
