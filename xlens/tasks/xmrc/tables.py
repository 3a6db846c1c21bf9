"""Tables of scores: what cells are called, means and ratios over them, and their intervals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from xlens.stats import Bootstrap, Resampling, joined
from xlens.tasks.xmrc.answers import KEY
from xlens.tasks.xmrc.errors import ERRORS, FAILURES
from xlens.tasks.xmrc.metrics import METRICS

Cell = tuple[str, ...]
Column = tuple[Cell, str]
SETTINGS = ("en-en", "en-x", "x-en", "x-x")
SUMMARY = (
    *("setting", "metric", "value", "low", "high"),
    *("ratio", "ratio_low", "ratio_high", "flag", "chance", "n_languages", "languages"),
)
DERIVED = ("failure", "question's language")
"""Sums and parts of the kinds of error: gibberish, refusal or blank; and in the question's
language."""


@dataclass(frozen=True)
class Wide:
    """A row per question, a column per cell and quantity; NaN where there is none."""

    values: Float[np.ndarray, "question column"]
    columns: list[Column]
    questions: pd.DataFrame

    @classmethod
    def of(cls, items: pd.DataFrame, cells: list[Cell], denominator: str) -> "Wide":
        """From a row per answer; shares of errors are of the wrong answers, or of all."""
        numbers = {key: n for n, key in enumerate(dict.fromkeys(_questions(items)))}
        columns: list[Column] = []
        parts: list[np.ndarray] = []
        for cell in cells:
            mine = items[_of_cell(items, cell)]
            at = [numbers[key] for key in _questions(mine)]
            for name, values in _quantities(mine, denominator).items():
                column = np.full(len(numbers), np.nan)
                column[at] = values
                columns.append((cell, name))
                parts.append(column)
        questions = pd.DataFrame(list(numbers), columns=["id", "paragraph"])
        return cls(np.stack(parts, axis=1), columns, questions)

    def clusters(self, items: pd.DataFrame, resampling: Resampling) -> Int[np.ndarray, " question"]:
        """The number of each question's cluster, from the answers that `of` was given."""
        return clusters_of(self.questions, items, resampling, "header")

    def asked(self, cell: Cell) -> np.ndarray:
        """Which questions a cell has; an exact match is a number for all of them."""
        return np.isfinite(self.values[:, self.columns.index((cell, "em"))])

    def n_paragraphs(self, column: int) -> int:
        """Of how many paragraphs a column has questions."""
        there = np.isfinite(self.values[:, column])
        return int(self.questions.loc[there, "paragraph"].nunique())


def clusters_of(
    questions: pd.DataFrame, answers: pd.DataFrame, resampling: Resampling, *headers: str
) -> Int[np.ndarray, " question"]:
    """The number of each question's cluster: what hangs together by itself or by its answers.

    Args:
        questions: `id paragraph` of each, no two alike.
        answers: One row or more per question.
        resampling: By what clusters.
        headers: Columns of the answers with the headers of their prompts; those that are there.
    """
    numbers = {key: n for n, key in enumerate(_questions(questions))}
    at = np.array([numbers[key] for key in _questions(answers)], dtype=np.int64)
    out = resampling.codes(questions)
    # Row by row of the answers: a question asked under two headers joins both.
    out[at] = joined(out[at], *(answers[name] for name in headers if name in answers))
    return out


def _quantities(items: pd.DataFrame, denominator: str) -> dict[str, np.ndarray]:
    """The numbers of every answer of a cell, by name."""
    kind, wrong = items["kind"], items["wrong"].to_numpy(bool)
    found = {name: items[name].to_numpy(float) for name in METRICS}
    content = kind.isin(["right", "content"]).to_numpy(bool)
    # NaN leaves an answer out of the mean: other errors are forgiven, not counted as 0.
    found["f1_content"] = np.where(content, found["f1"], np.nan)
    is_kind = {name: (kind == name).to_numpy(bool) for name in ERRORS}
    asked = (items["language"] == items["question_language"]).to_numpy(bool)
    is_kind["failure"] = kind.isin(FAILURES).to_numpy(bool)
    is_kind["question's language"] = is_kind["language"] & asked
    for name, holds in is_kind.items():
        found[f"error:{name}"] = (
            holds.astype(float) if denominator == "all" else np.where(wrong, holds, np.nan)
        )
    return found


@dataclass(frozen=True)
class Table:
    """Bootstrapped columns, to be read into tables."""

    found: Bootstrap
    wide: Wide
    pivot: str
    levels: pd.DataFrame
    left_out: Mapping[Cell, int]

    def scores(self, cells: list[Cell], items: pd.DataFrame) -> pd.DataFrame:
        """As `ReadingResult.scores`."""
        by_cell = items.groupby(list(KEY), sort=False)
        cut = {name: by_cell[name].mean().to_dict() for name in ("truncated", "text_cut")}
        rows: list[dict[str, Any]] = []
        for cell in cells:
            for metric in (*METRICS, "f1_content"):
                at = self.wide.columns.index((cell, metric))
                rows.append(
                    {
                        **dict(zip(KEY, cell, strict=True)),
                        "setting": setting_of(cell, self.pivot),
                        "metric": metric,
                        **self._interval("value", [at]),
                        "n": int(self.found.n[at]),
                        "paragraphs": self.wide.n_paragraphs(at),
                        **self._ratio(cells, [cell], metric),
                        **self._above(cell, metric),
                        "chance": self._chance([cell], metric),
                        **{name: shares[cell] for name, shares in cut.items()},
                        "left_out": self.left_out.get(cell, 0),
                    }
                )
        return pd.DataFrame(rows)

    def summary(self, cells: list[Cell]) -> pd.DataFrame:
        """As `ReadingResult.summary`."""
        rows: list[dict[str, Any]] = []
        for setting in SETTINGS:
            # c[0] is the control: only answers to texts as they are have a mean.
            mine = [c for c in cells if not c[0] and setting_of(c, self.pivot) == setting]
            for metric in (*METRICS, "f1_content") if mine else ():
                others = [self._foreign(cell) for cell in mine]
                rows.append(
                    {
                        "setting": setting,
                        "metric": metric,
                        **self._interval("value", self._at(mine, metric)),
                        **self._ratio(cells, mine, metric),
                        "chance": self._chance(mine, metric),
                        "n_languages": len(mine),
                        "languages": " ".join(others),
                    }
                )
        return pd.DataFrame(rows, columns=list(SUMMARY))

    def errors(
        self,
        cells: list[Cell],
        items: pd.DataFrame,
        denominator: str,
        baseline: Mapping[Cell, Mapping[str, float]],
    ) -> pd.DataFrame:
        """As `ReadingResult.errors`."""
        rows: list[dict[str, Any]] = []
        for cell in cells:
            mine = items[_of_cell(items, cell)]
            whole = int(mine["wrong"].sum()) if denominator == "wrong" else len(mine)
            for kind in (*ERRORS, *DERIVED):
                at = self._at([cell], f"error:{kind}")
                value = float(self.found.mean[at[0]])
                rows.append(
                    {
                        **dict(zip(KEY, cell, strict=True)),
                        "setting": setting_of(cell, self.pivot),
                        "kind": kind,
                        **self._interval("share", at),
                        "n": round(value * whole) if whole else 0,
                        "of": whole,
                        "baseline": baseline.get(cell, {}).get(kind, np.nan),
                    }
                )
        return pd.DataFrame(rows)

    def _at(self, cells: list[Cell], name: str) -> list[int]:
        return [self.wide.columns.index((cell, name)) for cell in cells]

    def _interval(self, name: str, at: list[int]) -> dict[str, float]:
        """The mean over some columns, each counting the same."""
        if len(at) == 1:
            low, high = (ends[at[0]] for ends in self.found.interval())
        else:
            low, high = self.found.interval(lambda m: m.mean(axis=-1), at)
        value = float(np.mean(self.found.mean[at]))
        return {name: value, "low": float(low), "high": float(high)}

    def _above(self, cell: Cell, metric: str) -> dict[str, float]:
        """By how much a score is above that of the same questions about exchanged texts."""
        columns = [(cell, metric), (("mismatched", *cell[1:]), metric)]
        if cell[0] or not all(column in self.wide.columns for column in columns):
            return dict.fromkeys(("above", "above_low", "above_high"), np.nan)
        at = [self.wide.columns.index(column) for column in columns]
        value = float(self.found.mean[at[0]] - self.found.mean[at[1]])
        low, high = self.found.interval(lambda m: m[..., 0] - m[..., 1], at)
        return {"above": value, "above_low": float(low), "above_high": float(high)}

    def _ratio(self, cells: list[Cell], mine: list[Cell], metric: str) -> dict[str, float | str]:
        home = ("", self.pivot, self.pivot, self.pivot)
        nothing = {"ratio": np.nan, "ratio_low": np.nan, "ratio_high": np.nan}
        if home not in cells:
            return {**nothing, "flag": f"{self.pivot}-{self.pivot} wasn't asked"}
        # The pivot's column last, as `_shares` wants it.
        at = [*self._at(mine, metric), *self._at([home], metric)]
        if not self.found.mean[at[-1]] > 0:
            return {**nothing, "flag": f"{self.pivot}-{self.pivot} scores 0"}
        low, high = self.found.interval(_shares, at)
        if mine == [home]:  # by itself: 1, whatever is drawn
            low, high = 1.0, 1.0
        asked = self.wide.asked(home)
        same = all(np.array_equal(self.wide.asked(cell), asked) for cell in mine)
        return {
            "ratio": float(_shares(self.found.mean[at])),
            "ratio_low": float(low),
            "ratio_high": float(high),
            "flag": "" if same else f"other questions than {self.pivot}-{self.pivot}",
        }

    def _chance(self, cells: list[Cell], metric: str) -> float:
        """F1 of right answers to other questions, each language of the answer counting the same."""
        by_language = dict(zip(self.levels["language"], self.levels["chance"], strict=True))
        levels = [by_language.get(cell[3], np.nan) for cell in cells]
        return float(np.mean(levels)) if metric == "f1" else np.nan

    def _foreign(self, cell: Cell) -> str:
        """The language of a cell that isn't the pivot, or the pivot."""
        return next((tag for tag in cell[1:] if tag != self.pivot), self.pivot)


def _shares(means: Float[np.ndarray, "*row column"]) -> Float[np.ndarray, "*row"]:
    """The mean of all but the last by the last, the pivot's."""
    base = means[..., -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(base > 0, means[..., :-1].mean(axis=-1) / base, np.nan)


def setting_of(cell: Cell, pivot: str) -> str:
    """`en-en`, `en-x`, `x-en`, `x-x`, or the three languages, where none of these fits.

    Args:
        cell: Control, context, question and answer language.
        pivot: What `en` stands for.
    """
    _, context, question, answer = cell
    if answer == context:
        if context == question:
            return "en-en" if context == pivot else "x-x"
        if pivot in (context, question):
            return "en-x" if context == pivot else "x-en"
    return f"{context}-{question}-{answer}"


def _questions(items: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(items["id"], items["paragraph"], strict=True))


def _of_cell(items: pd.DataFrame, cell: Cell) -> pd.Series:
    return pd.Series(
        np.logical_and.reduce([items[k] == v for k, v in zip(KEY, cell, strict=True)]),
        index=items.index,
    )
