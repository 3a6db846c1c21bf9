"""Scores of the same options of the same items in several languages, aligned by id."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from xlens.checks import typed
from xlens.engine import Scores
from xlens.errors import DataError, InputError
from xlens.languages import standardize_all
from xlens.lengths import By, compared, known_ways


@dataclass(frozen=True, eq=False)
class OptionScores:
    """What every consistency measure is computed from.

    Attributes:
        values: Higher is better; NaN after an item's last option, where items have unequal numbers
            of them. Options are the same, in the same order, in every language.
        languages: BCP-47 tags.
        ids: Parallel ids of the items.
        gold: Right option of each item, or None where right and wrong play no part.
        paragraphs: What each item belongs to, such as the passage that it is about: intervals draw
            these whole. Empty: each to itself.
        ways: The same scores by every way of comparing texts of unequal length that is known
            (`xlens.lengths`), that of `values` first.
        headers: Of the demonstrations that items share: drawn whole, too. Empty: they share none.
    """

    values: Float[np.ndarray, "language item option"]
    languages: tuple[str, ...]
    ids: tuple[str, ...]
    gold: Int[np.ndarray, " item"] | None = None
    paragraphs: tuple[str, ...] = ()
    ways: Mapping[str, Float[np.ndarray, "language item option"]] = field(
        default_factory=dict[str, np.ndarray]
    )
    headers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "languages", tuple(standardize_all(self.languages)))
        shape = (len(self.languages), len(self.ids))
        if self.values.ndim != 3 or self.values.shape[:2] != shape or self.values.shape[2] < 2:
            raise InputError(
                f"values has the shape {self.values.shape}; expected [language, item, option] = "
                f"{(*shape, '2 or more')}."
            )
        if len(self.languages) < 2 or len(set(self.ids)) < len(self.ids) or not self.ids:
            raise InputError(
                f"{len(self.languages)} languages and {len(self.ids)} items ({len(set(self.ids))} "
                "distinct ids): agreement needs two languages, and items with ids of their own."
            )
        for called in ("paragraphs", "headers"):
            if (given := getattr(self, called)) and len(given) != len(self.ids):
                raise InputError(
                    f"{len(given)} {called} for {len(self.ids)} items; give each its own."
                )
        if np.isinf(self.values).any():
            raise InputError("A score is infinite; give log-probabilities or other finite scores.")
        there = ~np.isnan(self.values)
        if (np.diff(there.astype(int), axis=2) > 0).any():
            raise InputError("NaN stands before a score; it may only follow an item's last option.")
        counts = there.sum(2)
        if (uneven := np.flatnonzero((counts != counts[0]).any(0))).size:
            n = {t: int(counts[k, uneven[0]]) for k, t in enumerate(self.languages)}
            raise InputError(
                f"{len(uneven)} items have unequal numbers of options across languages, first "
                f"{self.ids[uneven[0]]!r}: {n}. Leave them out, or score the same options."
            )
        if (few := np.flatnonzero(counts[0] < 2)).size:
            raise InputError(
                f"Item {self.ids[few[0]]!r} has {counts[0, few[0]]} options; expected 2 or more."
            )
        if self.gold is not None:
            bad = np.flatnonzero((self.gold < 0) | (self.gold >= counts[0]))
            if len(self.gold) != len(self.ids) or bad.size:
                where = f"item {self.ids[bad[0]]!r}" if bad.size else f"{len(self.gold)} items"
                raise DataError(
                    f"gold doesn't fit ({where}): one number from 0 to an item's last option each."
                )

    @property
    def meta(self) -> pd.DataFrame:
        """`id paragraph`, and `header` where there are some: what `Resampling.codes` takes."""
        paragraphs = self.paragraphs or self.ids
        shared = {"header": self.headers} if self.headers else {}
        return pd.DataFrame({"id": self.ids, "paragraph": paragraphs, **shared})

    @property
    def counts(self) -> Int[np.ndarray, " item"]:
        """Options of each item."""
        return (~np.isnan(self.values[0])).sum(1)


@typed
def option_scores(
    scores: Scores | pd.DataFrame,
    gold: Mapping[str, int] | None = None,
    *,
    languages: Sequence[str] | None = None,
    layer: int | None = None,
    by: By = "logprob",
) -> OptionScores:
    """Align what `xlens.score` gave for the options of parallel items.

    Args:
        scores: One row per item, language and candidate; candidates in the same order everywhere.
            Columns `paragraph` and `header` (`score_choices` has them) say which items hang
            together.
        gold: Number of the right candidate by item id.
        languages: These, in this order; None: all.
        layer: Of the scores; None where there is only one.
        by: Options are compared by their summed log-probability, or by that per token
            (`mean_logprob`), byte (`byte_logprob`) or character (`char_logprob`).

    Raises:
        ValueError: a language that lacks items, naming them; candidates listed twice; several
            layers and none chosen; an item without a right answer.
    """
    table = scores if isinstance(scores, pd.DataFrame) else scores.to_frame()
    if lacking := sorted({"id", "language", "candidate"} - set(table.columns)):
        raise InputError(f"scores lacks the columns {lacking}; give what xlens.score returns.")
    if "layer" in table:
        layers = sorted(set(table["layer"]))
        if layer is None and len(layers) > 1:
            raise InputError(f"scores holds the layers {layers}; choose one with layer=.")
        chosen = layers[0] if layer is None else layer
        if chosen not in layers:
            raise InputError(f"layer {layer} was not scored; there are {layers}.")
        table = table[table["layer"] == chosen]
    there = list(dict.fromkeys(table["language"]))
    tags = there if languages is None else list(standardize_all(languages))
    if missing := [tag for tag in tags if tag not in there]:
        raise InputError(f"No scores in {', '.join(missing)}; there are {', '.join(there)}.")
    table = table[table["language"].isin(tags)]
    if (twice := table.duplicated(["id", "language", "candidate"])).any():
        row = table[twice].iloc[0]
        raise InputError(
            f"Candidate {row['candidate']} of item {row['id']!r} occurs twice in "
            f"{row['language']}; give the items of each language ids of their own."
        )
    ids = list(dict.fromkeys(table["id"]))
    for tag in tags:
        own = set(table.loc[table["language"] == tag, "id"])
        if absent := [id for id in ids if id not in own]:
            raise InputError(
                f"{len(absent)} items have no scores in {tag}, first {absent[0]!r}: pairing is by "
                "id, so every language must answer the same items."
            )
    if gold is not None and (without := [id for id in ids if id not in gold]):
        raise InputError(f"gold has nothing for {len(without)} items, first {without[0]!r}.")
    right = None if gold is None else np.array([gold[id] for id in ids], dtype=np.int64)
    # `by` first, once: `ways[by]` and `values` are one array.
    ways = {way: _values(table, way, tags, ids) for way in dict.fromkeys([by, *known_ways(table)])}
    # What an item belongs to is the same in every language: its first row says it.
    first = table.drop_duplicates("id").set_index("id").loc[ids]
    paragraphs, headers = (
        tuple(map(str, first[name])) if name in first else () for name in ("paragraph", "header")
    )
    return OptionScores(
        ways[by], tuple(tags), tuple(map(str, ids)), right, paragraphs, ways, headers
    )


def _values(
    table: pd.DataFrame, by: str, tags: Sequence[str], ids: Sequence[str]
) -> Float[np.ndarray, "language item option"]:
    keys = table[["language", "id", "candidate"]].assign(score=compared(table, by))
    wide = keys.pivot(index=["language", "id"], columns="candidate", values="score")
    # Columns are candidates' numbers, in every language; an item with fewer has NaN at the end.
    wide = wide.sort_index(axis=1)
    return np.stack([wide.loc[tag].loc[list(ids)].to_numpy(float) for tag in tags])
