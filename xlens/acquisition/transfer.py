"""`Transfer`: are facts more like their pivot's where they may have come from it, and tested so?"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from xlens.acquisition.counterfactual import CONTROL, HIDDEN
from xlens.acquisition.likeness import KINDS, MEASURES, FactLikeness
from xlens.acquisition.pathways import COLUMNS, pathways
from xlens.acquisition.recall import ALL
from xlens.acquisition.threshold import GROUPS
from xlens.checks import typed
from xlens.errors import InputError
from xlens.models.series import Checkpoint
from xlens.results import Result, versions
from xlens.stats import Resampling, bootstrap

EVERY = "all"
ANSWERS = {
    (True, True): "right in both",
    (True, False): "right here only",
    (False, True): "right in the pivot only",
    (False, False): "wrong in both",
}
"""By whether a fact is right in the language, and in the pivot."""
NAMED = {True: "named entity", False: "other"}
BY: Mapping[str, tuple[str, ...]] = {
    EVERY: (EVERY,),
    "answers": (*ANSWERS.values(),),
    "frequency": (*GROUPS.values(),),
    "relations": (*NAMED.values(),),
    "sets": (),
}
"""What facts are grouped by, and the groups; of `sets` they are the facts' own."""
SUBJECT = "subject:last"
_TRUTH = ("language", "n", "share", "control_n", "control", "p")
_SAME = {SUBJECT: ("same_object", "same_subject")}
"""Cells left out of a slot: the same word has the same states, whatever is known of it."""


@dataclass(frozen=True, kw_only=True)
class Transfer(Result):
    """How like facts are to their counterparts in the pivot, by group; and the two pathways.

    Attributes:
        table: One row per language (and `all`), grouping (`BY`), group, slot, measure and layer:
            `language by group slot measure layer value low high same_relation mismatched above
            above_low above_high n`. `above` is what the cosine with the own fact has over that with
            others of its relation. Facts whose object is the pivot's string are left out, and of
            the subject's slot those whose subject is. A group without facts has no number.
        paths: The logistic model, see `pathways`; empty where frequencies aren't known.
        groups: `id language by group`: which groups each fact is of, by its answers here.
        pivot: What languages are compared with.
        rule: By which an answer is right.
        middle: The first and last layer that the model's similarity is the mean of.
        truth: Where facts are known to be `hidden` from a language's text, and others (`control`)
            from all: `language n share control_n control p`, the latter of Fisher's exact test,
            one-sided: more hidden facts right than facts that nothing states. Else empty.
    """

    table: pd.DataFrame
    paths: pd.DataFrame
    groups: pd.DataFrame
    pivot: str
    rule: str
    middle: tuple[int, ...]
    truth: pd.DataFrame = field(default_factory=pd.DataFrame)

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@dataclass(frozen=True, kw_only=True)
class TransferCurves(Result):
    """The similarity of the last checkpoint's groups, followed back through the earlier ones.

    Attributes:
        table: As that of `Transfer`, after `model step tokens`; NaN where these aren't known.
        last: The model whose answers say which group a fact is of.
        pivot: What languages are compared with.
    """

    table: pd.DataFrame
    last: str
    pivot: str

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@typed
def transfer(
    likeness: FactLikeness,
    answers: pd.DataFrame,
    *,
    rule: str,
    named: Collection[str] = (),
    frequent: pd.DataFrame | None = None,
    resampling: Resampling = Resampling(),
) -> Transfer:
    """Similarity by group with its controls, and the logistic model of two pathways.

    Args:
        likeness: From `fact_likeness`.
        answers: One row per fact and language: `id language relation`, a column of truth values
            called like the rule and, if known, `frequency` (-1: not counted) and `group`.
        rule: That column.
        named: Relations whose objects are named entities; which ones the paper means isn't known.
        frequent: `FrequencyResponse.cells`, whose four groups are taken.
        resampling: Of intervals, over facts: a fact is drawn in all its languages.

    Raises:
        ValueError: a missing column, or facts without an answer.
    """
    if lacking := sorted({"id", "language", "relation", rule} - set(answers.columns)):
        raise InputError(f"The answers lack the columns {lacking}; give FactAnswers.table.")
    cells = _answered(likeness, answers, rule)
    groups = _groups(cells, named, frequent)
    n = len(likeness.layers)
    # The middle half of the layers, and one at least.
    middle = slice(n // 4, max(n - n // 4, n // 4 + 1))
    paths = pd.DataFrame(columns=[*COLUMNS])
    if "frequency" in cells and (cells["frequency"] >= 0).any():
        paths = _paths(likeness, cells, middle, resampling)
    ends = likeness.layers[middle]
    return Transfer(
        provenance={**resampling.provenance(), "named": sorted(named), "versions": versions()},
        table=likeness_table(likeness, groups, resampling=resampling),
        paths=paths,
        groups=groups,
        pivot=likeness.pivot,
        rule=rule,
        middle=(ends[0], ends[-1]),
        truth=_truth(cells),
    )


@typed
def transfer_curves(
    likeness: Mapping[str, FactLikeness],
    groups: pd.DataFrame,
    *,
    last: str,
    series: Mapping[str, Checkpoint] | None = None,
    resampling: Resampling = Resampling(),
) -> TransferCurves:
    """Follow groups back through the checkpoints of a training (arXiv 2505.14824's code).

    Args:
        likeness: By the model's name, in order.
        groups: `Transfer.groups` of the last.
        last: Its name.
        series: Of those that are checkpoints of one training, when.
        resampling: Of intervals, over facts.

    Raises:
        ValueError: no model.
    """
    if not likeness:
        raise InputError("No similarity is given; there is nothing to draw over.")
    tables: list[pd.DataFrame] = []
    for name, each in likeness.items():
        point = (series or {}).get(name)
        when: dict[str, Any] = {"model": name, "step": np.nan, "tokens": np.nan}
        if point is not None:
            known = {"step": point.step, "tokens": point.tokens}
            when |= {what: float(n) for what, n in known.items() if n is not None}
        table = likeness_table(each, groups, resampling=resampling)
        tables.append(table.assign(**when)[[*when, *table.columns]])
    return TransferCurves(
        provenance={**resampling.provenance(), "models": [*likeness], "versions": versions()},
        table=pd.concat(tables, ignore_index=True),
        last=last,
        pivot=next(iter(likeness.values())).pivot,
    )


@typed
def likeness_table(
    likeness: FactLikeness, groups: pd.DataFrame, *, resampling: Resampling = Resampling()
) -> pd.DataFrame:
    """The rows of `Transfer.table`.

    Args:
        likeness: From `fact_likeness`.
        groups: `id language by group`.
        resampling: Of intervals, over facts.
    """
    cells = likeness.cells
    keys = pd.MultiIndex.from_frame(cells[["id", "language"]])
    codes = pd.factorize(cells["id"])[0]
    each, names = _columns(likeness)
    tags = list(dict.fromkeys(cells["language"]))
    tables: list[pd.DataFrame] = []
    for by, group, inside in _members(groups, keys):
        for tag in (ALL, *tags):
            rows = inside if tag == ALL else inside & (cells["language"] == tag).to_numpy()
            found = _summed(each[rows], codes[rows], len(names), resampling)
            tables.append(names.assign(language=tag, by=by, group=group, **found))
    table = pd.concat(tables, ignore_index=True)
    first = ["language", "by", "group"]
    return table[[*first, *(name for name in table.columns if name not in first)]]


def _members(
    groups: pd.DataFrame, keys: pd.MultiIndex
) -> Iterator[tuple[str, str, Bool[np.ndarray, " cell"]]]:
    """Each group and which cells are of it; groups of a fixed list also where nobody is."""
    for by, rows in groups.groupby("by", sort=False):
        found = dict(
            zip(zip(rows["id"], rows["language"], strict=True), rows["group"], strict=True)
        )
        own = np.array([found.get(key) for key in keys], dtype=object)
        # A fixed list is gone through as it is, so that every language has the same rows.
        for group in BY[str(by)] or dict.fromkeys(rows["group"]):
            yield str(by), group, np.asarray(own == group, dtype=bool)


def _columns(likeness: FactLikeness) -> tuple[Float[np.ndarray, "cell column"], pd.DataFrame]:
    """For each cell: own, same_relation, mismatched and above; and what each column of one is."""
    cosines = likeness.cosines.astype(np.float64)
    for n, slot in enumerate(likeness.slots):
        same = likeness.cells[[*_SAME.get(slot, ("same_object",))]].any(axis=1).to_numpy()
        cosines[:, :, n, :, same] = np.nan
    above = cosines[:, 0] - cosines[:, 1]
    kinds = [*(cosines[:, k] for k in range(len(KINDS))), above]
    names = pd.MultiIndex.from_product(
        [MEASURES, likeness.slots, likeness.layers], names=["measure", "slot", "layer"]
    ).to_frame(index=False)[["slot", "measure", "layer"]]
    # [measure * slot * layer, cell] each, in the order of `names`.
    flat = [kind.reshape(-1, kind.shape[-1]) for kind in kinds]
    return np.concatenate(flat).T, names


def _summed(
    each: Float[np.ndarray, "cell column"], codes: np.ndarray, n: int, resampling: Resampling
) -> dict[str, np.ndarray]:
    """Means of the four kinds, intervals of the first and the last."""
    nothing = np.full(n, np.nan)
    ends = ("value", "low", "high", "same_relation", "mismatched", "above", "above_low")
    if not len(each) or not np.isfinite(each).any():
        return {**dict.fromkeys([*ends, "above_high"], nothing), "n": np.zeros(n, dtype=int)}
    with np.errstate(invalid="ignore", divide="ignore"):
        found = bootstrap(each, clusters=codes, resampling=resampling)
    low, high = found.interval()
    # Columns were put together kind by kind (`_columns`).
    value, related, mismatched, above = found.mean.reshape(4, n)
    (own_low, *_, above_low), (own_high, *_, above_high) = low.reshape(4, n), high.reshape(4, n)
    parts = (value, own_low, own_high, related, mismatched, above, above_low, above_high)
    return {**dict(zip([*ends, "above_high"], parts, strict=True)), "n": found.n.reshape(4, n)[0]}


def _answered(likeness: FactLikeness, answers: pd.DataFrame, rule: str) -> pd.DataFrame:
    """The cells with what was answered here and in the pivot."""
    wanted = [name for name in ("frequency", "group") if name in answers]
    own = answers[["id", "language", rule, *wanted]].rename(columns={rule: "right"})
    found = likeness.cells.merge(own, how="left", on=["id", "language"], validate="one_to_one")
    home = answers[answers["language"] == likeness.pivot].set_index("id")[rule]
    found["pivot_right"] = found["id"].map(home)
    if (lacking := found[["right", "pivot_right"]].isna().any(axis=1)).any():
        row = found[lacking].iloc[0]
        raise InputError(
            f"{int(lacking.sum())} facts have states but no answer, first {row['id']!r} "
            f"({row['language']}): give the answers to the same facts."
        )
    return found.astype({"right": bool, "pivot_right": bool})


def _truth(cells: pd.DataFrame) -> pd.DataFrame:
    from scipy.stats import fisher_exact

    rows: list[dict[str, Any]] = []
    if "group" in cells:
        for tag, own in cells.groupby("language", sort=False):
            right = [own.loc[own["group"] == name, "right"] for name in (HIDDEN, CONTROL)]
            if not all(map(len, right)):
                continue
            told = [[int(r.sum()), int((~r).sum())] for r in right]
            tested: Any = fisher_exact(told, alternative="greater")
            p = float(tested.pvalue)
            hidden, control = ((len(r), float(r.mean())) for r in right)
            values = (tag, *hidden, *control, p)
            rows.append(dict(zip(_TRUTH, values, strict=True)))
    return pd.DataFrame(rows)


def _groups(
    cells: pd.DataFrame, named: Collection[str], frequent: pd.DataFrame | None
) -> pd.DataFrame:
    keys = cells[["id", "language"]]
    pairs = zip(cells["right"], cells["pivot_right"], strict=True)
    found = [
        keys.assign(by=EVERY, group=EVERY),
        keys.assign(by="answers", group=[ANSWERS[pair] for pair in pairs]),
        keys.assign(by="relations", group=cells["relation"].isin(list(named)).map(NAMED)),
    ]
    if frequent is not None:
        found.append(frequent[["id", "language", "group"]].assign(by="frequency"))
    if "group" in cells:
        found.append(keys.assign(by="sets", group=cells["group"]))
    table = pd.concat(found, ignore_index=True)
    return table[table["language"].isin(cells["language"].unique())].reset_index(drop=True)


def _paths(
    likeness: FactLikeness, cells: pd.DataFrame, middle: slice, resampling: Resampling
) -> pd.DataFrame:
    at = MEASURES.index("cosine_centred")
    tables: list[pd.DataFrame] = []
    for n, slot in enumerate(likeness.slots):
        own, related = (likeness.cosines[at, k, n, middle] for k in range(2))
        above = (own - related).astype(float).mean(axis=0)
        same = cells[[*_SAME.get(slot, ("same_object",))]].any(axis=1)
        counted = ~same & (cells["frequency"] >= 0) & np.isfinite(above)
        asked = cells.assign(similarity=above)[counted]
        for tag in (ALL, *dict.fromkeys(cells["language"])):
            rows = asked if tag == ALL else asked[asked["language"] == tag]
            found = pathways(rows, confidence=resampling.confidence)
            tables.append(found.assign(slot=slot, language=tag))
    return pd.concat(tables, ignore_index=True)[[*COLUMNS]]
