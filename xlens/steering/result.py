"""What a study of steering found."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from xlens.errors import InputError
from xlens.results import Result
from xlens.stats import Resampling

EFFECTS = {
    "accuracy": "share of items answered right",
    "consistency": "Spearman's rho of the options' order with the target language's, unsteered",
    "transfer": "right, given right in the target language",
    "same_wrong": "the target language's own wrong option, given wrong there",
    "gold_nll": "surprise at the right option's text, nats per token (log of its perplexity)",
}


@dataclass(frozen=True, kw_only=True)
class SteeringResult(Result):
    """What steering did. Made by a `SteeringStudy`.

    Attributes:
        dev: One row per language, cell and metric, on the items that were chosen on: `language
            method band strength metric value n`. Metrics: `EFFECTS`.
        chosen: The cell of each method: `method band strength dev_accuracy dev_gain`.
        test: One row per language, condition and metric, on the test items: `language vector
            condition metric value low high change change_low change_high n`. `vector` says which
            language's vector was used: on the target language's own prompts (harm) each is tried.
            `change` is against no steering, paired; intervals by bootstrap over items. Controls
            are means over their draws.
        items: The same item by item.
        outputs: What was said freely: `language condition id text identified truncated`, the
            last whether the limit on tokens ended it.
        split: `id part`: which items served for what.
        target: The language that is steered to.
    """

    dev: pd.DataFrame
    chosen: pd.DataFrame
    test: pd.DataFrame
    items: pd.DataFrame
    outputs: pd.DataFrame
    split: pd.DataFrame
    target: str

    def to_frame(self) -> pd.DataFrame:
        """`test`."""
        return self.test

    @property
    def resampling(self) -> Resampling:
        """What the intervals were drawn by."""
        return Resampling.of(self.provenance)

    def surface(self, method: str, metric: str, language: str | None = None) -> pd.DataFrame:
        """A metric's change against no steering on the development items, bands × strengths.

        Args:
            method: One of those tried.
            metric: One of `EFFECTS`.
            language: None: the mean over languages.

        Raises:
            ValueError: a method, metric or language that was not tried.
        """
        for name, asked, there in (
            ("method", method, set(self.dev["method"]) - {"none"}),
            ("metric", metric, set(self.dev["metric"])),
            ("language", language, {None, *self.dev["language"]}),
        ):
            if asked not in there:
                raise InputError(f"{name}={asked!r}; there are {sorted(map(str, there))}.")
        table = self.dev[self.dev["metric"] == metric]
        if language is not None:
            table = table[table["language"] == language]
        means = table.groupby(["method", "band", "strength"], sort=False)["value"].mean()
        here = means.loc[method].reset_index()
        plain = float(means.loc["none"].iloc[0])
        wide = here.pivot(index="band", columns="strength", values="value") - plain
        return wide.loc[list(dict.fromkeys(here["band"]))]

    @property
    def chance(self) -> float | None:
        """How often guessing is right; None of results that don't know it."""
        known = self.provenance.get("steering", {}).get("chance")
        return None if known is None else float(known)

    def guessed(self) -> list[str]:
        """The languages, the target left out, whose answers without steering may be guesses."""
        plain = self._accuracy[self._accuracy["condition"] == "none"]
        if self.chance is None:
            return []
        # A "not", so that an interval that can't be had (NaN) counts as a guess.
        return plain[~(plain["low"] > self.chance)]["language"].tolist()

    @property
    def _accuracy(self) -> pd.DataFrame:
        table = self.test
        return table[(table["language"] != self.target) & (table["metric"] == "accuracy")]

    def effects(self, level: float) -> pd.DataFrame:
        """What each chosen cell does to accuracy, beside random directions; the target left out.

        Args:
            level: Of the tests, adjusted for all languages and methods.

        Returns:
            `method band strength n change change_random rises falls rises_random falls_random`:
            mean changes over `n` languages, and the languages, between spaces, whose accuracy rises
            or falls beyond chance.
        """
        accuracy = self._accuracy
        rows: list[dict[str, object]] = []
        for row in self.chosen.to_dict("records"):
            told: dict[str, object] = {}
            for name, suffix in ((row["method"], ""), (f"{row['method']}, random", "_random")):
                mine = accuracy[accuracy["condition"] == name]
                sure = mine[mine["p_adjusted"] < level]
                told |= {
                    f"change{suffix}": float(mine["change"].mean()),
                    f"rises{suffix}": " ".join(sure[sure["change"] > 0]["language"]),
                    f"falls{suffix}": " ".join(sure[sure["change"] < 0]["language"]),
                }
            kept = {key: row[key] for key in ("method", "band", "strength")}
            rows.append({**kept, "n": accuracy["language"].nunique(), **told})
        return pd.DataFrame(rows)

    def languages_said(self) -> pd.DataFrame:
        """Share of free continuations by identified language: `language condition said share n`.

        `truncated` is the share of the language's and condition's that the limit on tokens ended.
        """
        keys = ["language", "condition"]
        counts = self.outputs.groupby(keys, sort=False)["identified"].value_counts()
        found = counts.rename("k").reset_index().rename(columns={"identified": "said"})
        found["n"] = found.groupby(keys)["k"].transform("sum")
        found["share"] = found["k"] / found["n"]
        columns = [*keys, "said", "share", "n"]
        cut = self.outputs.assign(truncated=self.outputs.get("truncated", np.nan))  # older: unknown
        return found[columns].join(cut.groupby(keys)["truncated"].mean(), on=keys)
