"""The size of a pathway, from two models of which one lacks the pivot's text."""

import numpy as np
import pandas as pd
import pytest

from xlens.acquisition import pathway
from xlens.stats import Resampling, generator

FAST = Resampling(draws=100)
SIZES = {"hidden": 120, "control": 60, "core": 150, "transfer": 40}


def answered(seed: int, *, lost: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hidden facts right by .8, of which `lost` falls to the control's .2; others as they were."""
    random, rows = generator(seed), []
    for group, n in SIZES.items():
        base = {"hidden": 0.8, "control": 0.2, "core": 0.9, "transfer": 0.9}[group]
        for k in range(n):
            for tag in ("en", "de", "fr"):
                drawn = random.random(2)
                falls = group == "hidden" and tag != "en" and random.random() < lost
                whole = drawn[0] < base
                rows.append((f"{group}{k}", tag, group if tag != "en" else "told", whole,
                             drawn[1] < 0.2 if falls else whole))  # fmt: skip
    table = pd.DataFrame(rows, columns=["id", "language", "group", "word", "other"])
    return table.drop(columns="other"), table.drop(columns="word").rename(columns={"other": "word"})


@pytest.mark.slow
def test_the_share_that_was_lost_is_found() -> None:
    inside = {share: 0 for share in (0.0, 0.5, 1.0)}
    for share in inside:
        for seed in range(5):
            sizes = pathway(*answered(seed, lost=share), rule="word", resampling=FAST).sizes
            row = sizes.set_index("language").loc["all"]
            inside[share] += row["share_low"] - 1e-9 <= share <= row["share_high"] + 1e-9
    assert min(inside.values()) >= 4, inside  # of 5 at 95 %


def test_the_table_says_where_nothing_was_withheld() -> None:
    whole, without = answered(0, lost=1.0)
    found = pathway(whole, without.sample(frac=1, random_state=1), rule="word", resampling=FAST)
    table = found.table.set_index(["group", "language"])
    for group in ("core", "control", "told"):
        rows = table.loc[group]
        assert (rows["fall"] == 0).all(), group
    own = whole[(whole["group"] == "hidden") & (whole["language"] == "de")]
    assert table.loc[("hidden", "de"), "whole"] == pytest.approx(own["word"].mean())
    assert table.loc[("hidden", "all"), "n"] == 2 * SIZES["hidden"]
    assert table.loc[("hidden", "all"), "low"] > 0.4
    assert set(found.sizes["language"]) == {"all", "de", "fr"}
    sizes = found.sizes.set_index("language").loc["de"]
    assert sizes["fall"] == pytest.approx(sizes["whole"] - sizes["without"])
    # Facts that know no more than the control have no pathway to measure.
    known = whole["group"] == "hidden"
    blind = whole.assign(word=np.where(known, False, whole["word"]))
    none = pathway(blind, blind, rule="word", resampling=FAST).sizes
    assert none["share"].isna().all() and (none["fall"] == 0).all()


def test_answers_that_cannot_be_compared_are_refused() -> None:
    whole, without = answered(0, lost=0.0)
    with pytest.raises(ValueError, match="1 facts were answered by one of the two models only"):
        pathway(whole.iloc[1:], without, rule="word")
    with pytest.raises(ValueError, match=r"'without' lack the columns \['exact'\]"):
        pathway(whole.assign(exact=True), without, rule="exact")
    with pytest.raises(ValueError, match="No fact of the group 'control'"):
        pathway(*(t[t["group"] != "control"] for t in (whole, without)), rule="word")
