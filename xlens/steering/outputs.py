"""What is said under steering: in which language, about what, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import Result
from xlens.stats import Bootstrap, Resampling, bootstrap
from xlens.steering.judging import harmonic

RATES = {
    "forcing": "said in the target language",
    "relevance": "likelier after its own prompt in the target language than after others",
    "lines": "every long line is in the target language (line pass rate)",
    "words": "no word slips into Latin letters, of those (word pass rate)",
    "wrong_language": "relevant, but in another language",
    "unknown": "in a language that can't be told",
}
SCORE, OF_MEANS = "score", "score_of_means"
SCORES = {
    SCORE: "harmonic mean of forcing and relevance, by language; over languages its mean",
    OF_MEANS: "harmonic mean of the means over languages, as CLaS-Bench's code has it",
}
PLAIN, ASKED, WRITTEN = "none", "asked in it", "written"
CONDITIONS = {
    PLAIN: "no steering",
    ASKED: "asked in the language",
    WRITTEN: "what was written there",
}
SWEEP, RULE = "sweep", "rule"
ALL = "*"
"""In place of a target: the mean over all of them."""


@dataclass(frozen=True, kw_only=True)
class OutputSteering(Result):
    """What a model said when it was pushed from one language to others.

    Attributes:
        dev: `target method band strength score forcing relevance n`: every cell that was tried, on
            prompts that were chosen on.
        chosen: `target method picked band strength dev_score`. `picked`: `sweep` is the cell with
            the best score on development prompts; `rule` the layer that `layer_balance` predicts,
            with the best strength there.
        test: `target condition metric value low high change change_low change_high n`, on other
            prompts. Metrics: `RATES`, and `SCORES`; target `*` is the mean over targets. `change`
            is against no steering, paired. Conditions: `CONDITIONS`, each method, `METHOD, rule`,
            and its controls `METHOD, random` and `METHOD, shuffled`, which are means over draws.
        swept: `target method lost low high`: the score of the swept cell less that of the rule's,
            paired: what is lost by not sweeping.
        said: `target condition identified share n`.
        outputs: `target condition id text identified forcing lines words unknown relevance
            wrong_language truncated`, every output that was judged.
        balance: `layer alignment separability`; empty where there are too few targets.
        split: `id part`: which sentences served for what.
        source: The language of the prompts.
        chance: Of relevance: what a text that has to do with no prompt gets.
    """

    dev: pd.DataFrame
    chosen: pd.DataFrame
    test: pd.DataFrame
    swept: pd.DataFrame
    said: pd.DataFrame
    outputs: pd.DataFrame
    balance: pd.DataFrame
    split: pd.DataFrame
    source: str
    chance: float

    def to_frame(self) -> pd.DataFrame:
        """`test`."""
        return self.test

    @property
    def targets(self) -> tuple[str, ...]:
        """Languages that were steered to."""
        return tuple(tag for tag in dict.fromkeys(self.test["target"]) if tag != ALL)

    @property
    def conditions(self) -> tuple[str, ...]:
        """In order: no steering and its yardsticks, methods, then their controls."""
        return tuple(dict.fromkeys(self.test["condition"]))

    @property
    def resampling(self) -> Resampling:
        """What the intervals were drawn by."""
        return Resampling.of(self.provenance)

    def pick(self, metric: str, target: str | None = None) -> pd.DataFrame:
        """The rows of a metric; of one target, or of the mean over them (`*`).

        Raises:
            ValueError: a metric or target that isn't there.
        """
        table = self.test
        for name, asked in (("metric", metric), ("target", target)):
            if asked is not None and asked not in (there := set(table[name])):
                raise InputError(f"{name}={asked!r}; there are {sorted(there)}.")
        found = table[table["metric"] == metric]
        return found if target is None else found[found["target"] == target]


@typed
def pick_cells(dev: pd.DataFrame, layer: int | None) -> pd.DataFrame:
    """The cell of each target and method: the best of the sweep, and the best at the rule's layer.

    Equal ones go to the weaker push, then to the lower layer.

    Args:
        dev: As `OutputSteering.dev`.
        layer: That the rule predicts; None: no such rows.
    """
    table = dev[dev["method"] != PLAIN].assign(
        force=lambda t: t["strength"].abs(),
        lowest=lambda t: [min(map(int, str(band).split("-"))) for band in t["band"]],
    )
    ranked = table.sort_values(
        ["score", "force", "lowest"], ascending=[False, True, True], kind="stable"
    )
    rows: list[dict[str, Any]] = []
    for (target, method), mine in table.groupby(["target", "method"], sort=False):
        there = ranked[(ranked["target"] == target) & (ranked["method"] == method)]
        # The rule names one layer, so bands of several are none of its cells.
        at = there[there["band"] == str(layer)]
        for picked, cells in ((SWEEP, there), (RULE, at)):
            # A method with one band only has nothing to choose.
            if cells.empty or (picked == RULE and mine["band"].nunique() < 2):
                continue
            best = cells.iloc[0]
            rows.append(
                {
                    "target": target,
                    "method": method,
                    "picked": picked,
                    "band": best["band"],
                    "strength": best["strength"],
                    "dev_score": best["score"],
                }
            )
    return pd.DataFrame(rows)


@typed
def output_rates(
    outputs: pd.DataFrame, *, resampling: Resampling = Resampling()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rates, scores and changes on test prompts, and what is lost by the rule.

    Prompts are drawn whole, the same for all targets and conditions, and with them what belongs to
    one `paragraph`. Draws of a control are averaged prompt by prompt.

    Args:
        outputs: As `OutputSteering.outputs`, with `paragraph`.
        resampling: Of the intervals.

    Returns:
        `OutputSteering.test` and `OutputSteering.swept`.
    """
    # Draws of a control are called "METHOD, random 0", "METHOD, random 1", and so on.
    names = outputs["condition"].str.replace(r" \d+$", "", regex=True)
    table = outputs.assign(condition=names)
    keys = ["id", "target", "condition"]
    each = table.groupby(keys, sort=False)[list(RATES)].mean()
    # [prompt, (rate, target, condition)]: one row a prompt, so that draws keep conditions paired.
    wide = each.unstack(["target", "condition"])  # of every prompt, once
    documents = outputs.drop_duplicates("id").set_index("id")["paragraph"]
    meta = pd.DataFrame({"id": wide.index, "paragraph": documents.loc[wide.index].to_numpy()})
    boot = bootstrap(
        wide.to_numpy(float),
        clusters=resampling.codes(meta),
        resampling=resampling,
        bounds=(0.0, 1.0),
    )
    at = {tuple(map(str, column)): n for n, column in enumerate(wide.columns)}
    targets = list(dict.fromkeys(table["target"].astype(str)))
    at |= _same_cells(table, at)
    work = _Rates(boot, at)
    rows: list[dict[str, Any]] = []
    for condition in dict.fromkeys(names):
        for target in (*targets, ALL):
            there = [t for t in (targets if target == ALL else [target])
                     if ("forcing", t, condition) in at]  # fmt: skip
            if not there:
                continue
            head = {"target": target, "condition": condition}
            rows += [{**head, **row} for row in work.rows(there, condition, whole=target == ALL)]
    return pd.DataFrame(rows), pd.DataFrame(
        work.lost(targets, list(dict.fromkeys(names))),
        columns=["target", "method", "lost", "low", "high"],
    )


def _same_cells(
    table: pd.DataFrame, at: Mapping[tuple[str, ...], int]
) -> dict[tuple[str, ...], int]:
    """Columns of the rule's outputs that are the sweep's: their difference is 0 for certain."""
    texts = {
        (str(target), str(condition)): dict(zip(mine["id"], mine["text"], strict=True))
        for (target, condition), mine in table.groupby(["target", "condition"], sort=False)
    }
    return {
        (rate, target, condition): at[rate, target, method]
        for (target, condition), said in texts.items()
        if (method := condition.removesuffix(f", {RULE}")) != condition
        and said == texts[target, method]
        for rate in RATES
    }


@dataclass(frozen=True)
class _Rates:
    boot: Bootstrap
    at: dict[tuple[str, ...], int]

    def rows(self, targets: list[str], condition: str, *, whole: bool) -> list[dict[str, Any]]:
        wanted: list[tuple[str, Any, tuple[str, ...]]] = [(name, _mean, (name,)) for name in RATES]
        wanted.append((SCORE, _score, ("forcing", "relevance")))
        if whole:
            wanted.append((OF_MEANS, _score_of_means, ("forcing", "relevance")))
        return [
            {"metric": metric, **self._numbers(targets, condition, of, rates)}
            for metric, of, rates in wanted
        ]

    def _numbers(
        self, targets: list[str], condition: str, of: Any, rates: tuple[str, ...]
    ) -> dict[str, float]:
        # A rate that no output of a language has, such as words in Latin script.
        known = [
            t
            for t in targets
            if all(np.isfinite(self.boot.mean[self.at[rate, t, condition]]) for rate in rates)
        ]
        columns = [self.at[rate, t, condition] for t in known for rate in rates]
        # Of the column that says least: a language's `words` may be of few outputs.
        n = int(self.boot.n[columns].min()) if columns else 0
        nothing = dict.fromkeys(("low", "high", "change", "change_low", "change_high"), np.nan)
        if not columns:
            return {"value": np.nan, **nothing, "n": n}
        apply = partial(of, k=len(rates))
        low, high = self.boot.interval(apply, columns)
        found = {
            "value": float(apply(self.boot.mean[columns])),
            "low": max(float(low), 0.0),
            "high": min(float(high), 1.0),
        }
        # Of the same targets: between means over different ones the change would be the targets'.
        plain = [self.at.get((rate, t, PLAIN), -1) for t in known for rate in rates]
        if condition == PLAIN or min(plain) < 0 or not np.isfinite(self.boot.mean[plain]).all():
            same = condition == PLAIN
            return {**found, **dict.fromkeys([*nothing][2:], 0.0 if same else np.nan), "n": n}
        value, low, high = self._less(apply, columns, plain)
        return {**found, "change": value, "change_low": low, "change_high": high, "n": n}

    def _less(self, of: Any, one: list[int], other: list[int]) -> tuple[float, float, float]:
        # Each once: the interval moves stuck columns one by one, and a column on both sides can't
        # be high on one and low on the other.
        columns = list(dict.fromkeys([*one, *other]))
        first, second = ([columns.index(n) for n in each] for each in (one, other))

        def apart(means: Float[np.ndarray, "*row k"]) -> np.ndarray:
            return of(means[..., first]) - of(means[..., second])

        low, high = self.boot.interval(apart, columns)
        value = float(apart(self.boot.mean[columns]))
        return value, max(float(low), -1.0), min(float(high), 1.0)

    def lost(self, targets: Sequence[str], conditions: list[str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for method in (c for c in conditions if f"{c}, {RULE}" in conditions):
            both = [t for t in targets if ("forcing", t, f"{method}, {RULE}") in self.at]
            for target in (*both, ALL):
                there = both if target == ALL else [target]
                columns = [
                    [self.at[rate, t, c] for t in there for rate in ("forcing", "relevance")]
                    for c in (method, f"{method}, {RULE}")
                ]
                value, low, high = self._less(partial(_score, k=2), *columns)
                found.append(
                    {"target": target, "method": method, "lost": value, "low": low, "high": high}
                )
        return found


def _mean(means: Float[np.ndarray, "*row k"], k: int) -> np.ndarray:
    return means.mean(-1)


def _score(means: Float[np.ndarray, "*row k"], k: int) -> np.ndarray:
    """The mean over languages of their harmonic means."""
    # Columns come target by target, k rates each: [..., target, rate].
    return harmonic(means.reshape(*means.shape[:-1], -1, k)).mean(-1)


def _score_of_means(means: Float[np.ndarray, "*row k"], k: int) -> np.ndarray:
    return harmonic(means.reshape(*means.shape[:-1], -1, k).mean(-2))


def languages_of(outputs: pd.DataFrame) -> pd.DataFrame:
    """How often each language was said: `target condition identified share n`, all draws."""
    names = outputs["condition"].str.replace(r" \d+$", "", regex=True)
    keys = ["target", "condition"]
    table = outputs.assign(condition=names)
    found = table.groupby(keys, sort=False)["identified"].value_counts().rename("k").reset_index()
    found["n"] = found.groupby(keys)["k"].transform("sum")
    return found.assign(share=found["k"] / found["n"])[[*keys, "identified", "share", "n"]]
