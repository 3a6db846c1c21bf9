"""What a causal test comes to: means with intervals, tests over layers, and verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xlens.checks import typed
from xlens.lens.causal import CausalResult
from xlens.results import Result, analysed
from xlens.stats import Resampling, holm, pair_bootstrap

PIVOT = "carried in the pivot"
NEUTRAL = "carried language-neutrally"
UNUSED = "readable but not used"
UNREAD = "neither readable nor used"
UNDONE = "task not done"
VERDICTS = (PIVOT, NEUTRAL, UNUSED, UNREAD, UNDONE)
_TESTS = {
    "concept": ("concept", "random"),
    "pivot": ("pivot", "random"),
    "pivot_over_other": ("pivot", "other"),
}
_QUESTIONS = ("p_done", "p_readable", "p_concept", "p_pivot")
_COLUMNS = (
    *("name", "source", "target", "pivot", "lens", "where", "verdict", "layers", "first", "last"),
    *_QUESTIONS,
    "n_items",
)


@dataclass(frozen=True, kw_only=True)
class CausalSummary(Result):
    """A causal test in numbers.

    Attributes:
        curves: `way where what layer mean low high n`: nats.
        tests: `way where test layer mean low high p`: `concept` less `random`, `pivot` less
            `random`, `pivot_over_other`: less another language's remainder. p is one-sided and
            adjusted (max-T) over the layers and tests of a way and a place.
        plain: `what layer mean low high p`: log-odds of the own against the donor's word:
            `readable`, the pivot's at each layer, p adjusted over layers; `output`, the target's at
            the output.
        n_items: Items.
        n_rows: Items with a donor.
        confidence: Of the intervals.
    """

    curves: pd.DataFrame
    tests: pd.DataFrame
    plain: pd.DataFrame
    n_items: int
    n_rows: int
    n_layers: int
    source: str
    target: str
    pivot: str
    others: tuple[str, ...]
    lens: str
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`curves`."""
        return self.curves

    @property
    def places(self) -> tuple[str, ...]:
        """Where states were changed: `last`, and `after` where there was such a place."""
        return tuple(dict.fromkeys(self.curves["where"]))

    def p_values(self, where: str) -> pd.DataFrame:
        """By layer: `concept`, and `pivot`: the larger p of its two tests."""
        rows = self.tests[(self.tests["way"] == "exchange") & (self.tests["where"] == where)]
        wide = rows.pivot(index="layer", columns="test", values="p")
        both = wide[["pivot", "pivot_over_other"]].max(axis=1)
        return pd.DataFrame({"concept": wide["concept"], "pivot": both})


@dataclass(frozen=True, kw_only=True)
class CausalVerdicts(Result):
    """What several causal tests come to, corrected for how many there are.

    Attributes:
        table: `name source target pivot lens where verdict layers first last p_done p_readable
            p_concept p_pivot n_items`: by test and place. `layers` are those at which what the
            verdict names was seen; p are the smallest over layers, adjusted (Holm) over the tests.
        level: Below which a p counts.
    """

    table: pd.DataFrame
    level: float

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@typed
def causal_summary(result: CausalResult, *, resampling: Resampling = Resampling()) -> CausalSummary:
    """Means, intervals and tests; a resample draws items, on either side of an exchange.

    Where items share headers of demonstrations, these are drawn.

    Raises:
        ValueError: nothing was exchanged.
    """
    headers = result.headers
    curves: list[pd.DataFrame] = []
    tests: list[pd.DataFrame] = []
    for (way, where), rows in result.rows.groupby(["way", "where"], sort=False):
        wide = _wide(rows, ["what", "layer"], "effect")
        found = pair_bootstrap(wide.to_numpy(), *_pairs(wide, headers), resampling=resampling)
        low, high = found.interval()
        names = wide.columns.to_frame(index=False)
        at = {"way": str(way), "where": str(where)}
        curves.append(names.assign(**at, mean=found.mean, low=low, high=high, n=len(wide)))
        less = pd.concat(
            {name: wide[one] - wide[other] for name, (one, other) in _TESTS.items()},
            axis=1,
            names=["test", "layer"],
        )
        apart = pair_bootstrap(less.to_numpy(), *_pairs(less, headers), resampling=resampling)
        low, high = apart.interval()
        names = less.columns.to_frame(index=False)
        tests.append(names.assign(**at, mean=apart.mean, low=low, high=high, p=apart.above()))
    return CausalSummary(
        provenance=analysed(result.provenance, "summary", resampling.provenance()),
        curves=pd.concat(curves, ignore_index=True),
        tests=pd.concat(tests, ignore_index=True),
        plain=_plain(result.plain, headers, resampling),
        n_items=int(result.rows["id"].nunique()),
        n_rows=len(result.plain) // result.plain["layer"].nunique(),
        n_layers=result.n_layers,
        source=result.source,
        target=result.target,
        pivot=result.pivot,
        others=result.others,
        lens=result.lens,
        confidence=resampling.confidence,
    )


@typed
def causal_verdicts(
    summaries: Mapping[str, CausalSummary], *, resampling: Resampling = Resampling()
) -> CausalVerdicts:
    """The verdict of each test, corrected for all that were looked at; none of none."""
    known = [
        {"name": name, "where": where, "of": summary, **_smallest(summary, where)}
        for name, summary in summaries.items()
        for where in summary.places
    ]
    table = pd.DataFrame(known, columns=["name", "where", "of", *_QUESTIONS])
    for column in _QUESTIONS:
        adjusted = table.groupby("where", sort=False)[column].transform(
            lambda p: holm(p.to_numpy())
        )
        table[column] = adjusted
    said = [_judged(row, resampling.level) for row in table.to_dict("records")]
    origin = next((summary.provenance for summary in summaries.values()), {})
    return CausalVerdicts(
        provenance=analysed(origin, "verdicts", resampling.provenance()),
        table=pd.DataFrame(said, columns=_COLUMNS),
        level=resampling.level,
    )


def _wide(rows: pd.DataFrame, columns: list[str], values: str) -> pd.DataFrame:
    """Item with donor, which several derangements can bring together, × columns."""
    told = rows.assign(draw=rows.groupby(["id", "donor", *columns]).cumcount())
    return told.pivot(index=["id", "donor", "draw"], columns=columns, values=values)


def _pairs(wide: pd.DataFrame, headers: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What is drawn of each pair: its items, or the headers that these share with others."""
    ids = [wide.index.get_level_values(name) for name in ("id", "donor")]
    one, other = ([headers.get(id, id) for id in map(str, mine)] for mine in ids)
    return one, other


def _plain(plain: pd.DataFrame, headers: Mapping[str, str], resampling: Resampling) -> pd.DataFrame:
    tables: list[pd.DataFrame] = []
    for what in ("readable", "output"):
        wide = _wide(plain, ["layer"], what)
        if what == "output":
            wide = wide.iloc[:, :1]
        found = pair_bootstrap(wide.to_numpy(float), *_pairs(wide, headers), resampling=resampling)
        low, high = found.interval()
        row = {"what": what, "layer": wide.columns.get_level_values("layer"), "mean": found.mean}
        tables.append(pd.DataFrame({**row, "low": low, "high": high, "p": found.above()}))
    return pd.concat(tables, ignore_index=True)


def _smallest(summary: CausalSummary, where: str) -> dict[str, float]:
    """The smallest p of each question, over layers."""
    plain, by_layer = summary.plain, summary.p_values(where)
    of = {what: float(rows["p"].min()) for what, rows in plain.groupby("what")}
    return {
        "p_done": of["output"],
        "p_readable": of["readable"],
        "p_concept": float(by_layer["concept"].min()),
        "p_pivot": float(by_layer["pivot"].min()),
    }


def _judged(row: Mapping[Any, Any], level: float) -> dict[str, object]:
    summary, where = row["of"], str(row["where"])
    assert isinstance(summary, CausalSummary)
    sure = {k: float(row[f"p_{k}"]) < level for k in ("done", "readable", "concept", "pivot")}
    by_layer, layers = summary.p_values(where), list[int]()
    if not sure["done"]:
        verdict = UNDONE
    elif sure["pivot"] or sure["concept"]:
        what = "pivot" if sure["pivot"] else "concept"
        verdict = PIVOT if sure["pivot"] else NEUTRAL
        layers = [int(n) for n in by_layer.index[by_layer[what] < level]]
    elif sure["readable"]:
        verdict = UNUSED
        read = summary.plain[(summary.plain["what"] == "readable") & (summary.plain["p"] < level)]
        layers = [int(n) for n in read["layer"]]
    else:
        verdict = UNREAD
    return {
        "name": row["name"],
        **{k: getattr(summary, k) for k in ("source", "target", "pivot", "lens")},
        "where": where,
        "verdict": verdict,
        "layers": ", ".join(map(str, layers)),
        "first": float(layers[0]) if layers else np.nan,
        "last": float(layers[-1]) if layers else np.nan,
        **{k: row[k] for k in _QUESTIONS},
        "n_items": summary.n_items,
    }
