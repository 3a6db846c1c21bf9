"""Similarity of facts to their pivot's, and two pathways as a tested statement."""

import numpy as np
import pandas as pd
import pytest
import torch

from xlens.acquisition import fact_likeness, pathways, transfer, transfer_curves
from xlens.acquisition.transfer import likeness_table
from xlens.activations import Activations, SlotValues
from xlens.models.series import Checkpoint
from xlens.report.fact_transfer import _held_against
from xlens.stats import Resampling, generator
from xlens.testbed.planted import FactWorld, fact_world

FAST = Resampling(draws=100)
SLOTS = ("subject:last", "last")


def held(states: np.ndarray, language: str, ids: list[str]) -> Activations:
    """`[slot, layer, fact, d_model]` as `harvest` gives them."""
    n = len(ids)
    values = torch.tensor(states, dtype=torch.float32)
    return Activations(
        slots={
            name: SlotValues(
                values=values[k], offsets=torch.arange(n + 1), positions=torch.zeros(n).long()
            )
            for k, name in enumerate(SLOTS)
        },
        layers=tuple(range(values.shape[1])),
        meta=pd.DataFrame({"id": ids, "language": language}),
        fingerprint="f",
        provenance={"model": "m"},
    )


def flagged(ids: list[str], languages: tuple[str, ...], relations: list[str]) -> pd.DataFrame:
    rows = pd.DataFrame({"id": ids, "relation": relations})
    flags = dict.fromkeys(["identical_object", "identical_subject"], False)
    return pd.concat([rows.assign(language=tag, **flags) for tag in languages], ignore_index=True)


def test_cosines_and_controls_are_those_of_loops_over_facts() -> None:
    random = generator(3)
    ids, kinds = [f"f{n}" for n in range(7)], ["a", "a", "a", "b", "b", "b", "c"]
    home, other = random.normal(size=(2, 2, 3, 7, 5)) + 1
    other[0, 1, 4] = 0  # of no direction
    order = random.permutation(7)
    mixed = held(other[:, :, order], "de", [ids[n] for n in order])
    found = fact_likeness(held(home, "en", ids), [mixed], flagged(ids, ("en", "de"), kinds))
    assert found.cells["id"].tolist() == ids and found.pivot == "en"

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return (
            float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) if a.any() and b.any() else np.nan
        )

    for m in range(2):
        for k, layer in np.ndindex(2, 3):
            x, y = home[k, layer], other[k, layer]
            if m:
                x, y = x - x.mean(0), y - y.mean(0)
            for i in range(7):
                rest = [j for j in range(7) if j != i]
                same = [cosine(x[j], y[i]) for j in rest if kinds[j] == kinds[i]]
                wanted = [
                    cosine(x[i], y[i]),
                    np.mean(same) if same else np.nan,
                    np.mean([cosine(x[j], y[i]) for j in rest]),
                ]
                np.testing.assert_allclose(found.cosines[m, :, k, layer, i], wanted, rtol=1e-5)
    with pytest.raises(ValueError, match=r"1 facts have no states in de, first 'f6'"):
        fact_likeness(
            held(home, "en", ids), [held(other[:, :, :6], "de", ids[:6])],
            flagged(ids, ("en", "de"), kinds),
        )  # fmt: skip
    with pytest.raises(ValueError, match="no language beside 'en'"):
        fact_likeness(held(home, "en", ids), [], flagged(ids, ("en",), kinds))


def test_what_all_facts_share_is_no_likeness_of_a_fact() -> None:
    """Large common parts make every cosine high; the controls and centring say so."""
    random = generator(0)
    ids, kinds = [f"f{n}" for n in range(60)], ["a", "b"] * 30
    home, other = random.normal(size=(2, 2, 2, 60, 16)) + 20 * random.normal(size=(2, 1, 1, 1, 16))
    other += home.mean(axis=2, keepdims=True) - other.mean(axis=2, keepdims=True)
    found = fact_likeness(
        held(home, "en", ids), [held(other, "de", ids)], flagged(ids, ("en", "de"), kinds)
    )
    own, related, wrong = np.nanmean(found.cosines, axis=(2, 3, 4))[0]
    assert own > 0.9 and own == pytest.approx(related, abs=0.01) == pytest.approx(wrong, abs=0.01)
    assert abs(np.nanmean(found.cosines[1, 0])) < 0.05


def world(seed: int, *, share: float, slip: float = 0.05) -> tuple[FactWorld, pd.DataFrame]:
    made = fact_world(languages=4, n_facts=240, transfer=share, slip=slip, seed=seed)
    return made, made.answers.assign(word=made.answers["correct"])


def likeness_of(made: FactWorld, seed: int, *, aligned: bool):
    """States of a fact world: those that are answered through the source are aligned with it."""
    random, cells = generator(seed + 100), made.truth.cells
    tags = tuple(dict.fromkeys(cells["language"]))
    home = cells[cells["language"] == tags[0]]
    ids, kinds = home["id"].tolist(), home["relation"].tolist()
    base = random.normal(size=(2, 5, len(ids), 24))
    others = []
    for tag in tags[1:]:
        mine = cells[cells["language"] == tag].set_index("id").loc[ids]
        pull = np.where(mine["transferred"], 1.2, 0.4) if aligned else np.full(len(ids), 0.4)
        states = base * pull[:, None] + random.normal(size=base.shape)
        others.append(held(states, tag, ids))
    return fact_likeness(held(base, tags[0], ids), others, flagged(ids, tags, kinds))


def test_planted_transfer_is_found_by_group_and_by_the_model() -> None:
    made, answers = world(1, share=0.4)
    truth = made.truth.cells.set_index(["id", "language"])
    cells = answers[["id", "language"]].copy()
    keys = list(zip(cells["id"], cells["language"], strict=True))
    kinds = ["frequent, right", "rare, right"]
    why = [truth["recalled"][keys], truth["transferred"][keys]]
    cells["group"] = np.select(why, kinds, "rare, wrong")
    found = transfer(
        likeness_of(made, 1, aligned=True), answers.drop(columns="checkpoint"), rule="word",
        named=["r0", "r1"], frequent=cells, resampling=FAST,
    )  # fmt: skip
    table = found.table[
        (found.table["language"] == "all")
        & (found.table["measure"] == "cosine_centred")
        & (found.table["layer"] == 2)
        & (found.table["slot"] == "subject:last")
    ].set_index("group")
    assert table.loc["rare, right", "above_low"] > table.loc["rare, wrong", "above_high"] > 0
    assert table.loc["rare, right", "above_low"] > table.loc["frequent, right", "above_high"]
    # Two relations each: nothing was planted between them.
    assert table.loc["named entity", "above_low"] < table.loc["other", "above_high"]
    assert (table["low"] <= table["value"]).all() or table["low"].isna().any()
    empty = table.loc["frequent, wrong"]
    assert empty["n"] == 0 and np.isnan(empty["value"]) and np.isnan(empty["above_low"])
    paths = found.paths.set_index(["slot", "language", "term"])
    for slot in SLOTS:
        for term in ("log frequency", "right in the pivot", "similarity"):
            assert paths.loc[(slot, "all", term), "low"] > 0, term
        assert paths.loc[(slot, "all", "both"), "p"] < 1e-3
    assert found.middle == (1, 3) and found.truth.empty
    with pytest.raises(ValueError, match="have states but no answer"):
        transfer(likeness_of(made, 1, aligned=True), answers.iloc[5:], rule="word")
    with pytest.raises(ValueError, match=r"lack the columns \['exact'\]"):
        transfer(likeness_of(made, 1, aligned=True), answers, rule="exact")


@pytest.mark.slow
def test_where_there_is_one_pathway_two_are_rarely_found() -> None:
    """Frequency alone decides, and is shared between languages; states know nothing of it."""
    both, alike = 0, 0
    for seed in range(60):
        made, answers = world(seed, share=0.0)
        like = likeness_of(made, seed, aligned=False)
        home = answers[answers["language"] == like.pivot].set_index("id")["word"]
        cells = like.cells.assign(similarity=like.cosines[1, 0, 1, 1:4].mean(axis=0))
        own = answers[["id", "language", "frequency", "word"]].rename(columns={"word": "right"})
        cells = cells.merge(own, on=["id", "language"]).assign(
            pivot_right=lambda table, home=home: table["id"].map(home)
        )
        told = pathways(cells).set_index("term")["p"]
        both, alike = both + (told["both"] < 0.05), alike + (told["similarity"] < 0.05)
    assert both <= 7 and alike <= 7  # of 60 at 5 %: 3 are expected, 8 come in one of 100


def drawn(seed: int, slopes: tuple[float, float, float], *, n: int = 300) -> pd.DataFrame:
    """Cells of a logistic truth in three languages."""
    random = generator(seed)
    fame, rows = random.normal(size=n), []
    home = random.random(n) < 1 / (1 + np.exp(-1.5 * fame))
    for k, tag in enumerate(("de", "fr", "ru")):
        counts = np.floor(10 ** np.clip(1 + fame - 0.3 * k + random.normal(size=n), -1, 6))
        similar = random.normal(size=n)
        steep = slopes[0] * (np.log10(1 + counts) - 1.5) + slopes[1] * home + slopes[2] * similar
        right = random.random(n) < 1 / (1 + np.exp(-steep))
        table = pd.DataFrame({"id": range(n), "language": tag, "frequency": counts.astype(int)})
        table["relation"] = [f"r{i % 4}" for i in range(n)]
        rows.append(table.assign(pivot_right=home, similarity=similar, right=right))
    return pd.concat(rows, ignore_index=True)


def test_intervals_hold_the_planted_slopes() -> None:
    slopes, seeds = (1.2, 0.8, 0.5), range(25)
    inside = np.zeros(3)
    for seed in seeds:
        told = pathways(drawn(seed, slopes))
        low, high = told["low"].to_numpy()[:3], told["high"].to_numpy()[:3]
        inside += (low <= slopes) & (high >= slopes)
    assert (inside >= 21).all(), inside  # of 25 at 95 %


def test_a_fact_asked_in_several_languages_is_not_several() -> None:
    one = drawn(4, (1.2, 0.0, 0.0))
    one = one[one["language"] == "de"]
    four = pd.concat([one.assign(language=tag) for tag in ("de", "fr", "ru", "hi")])
    narrow, wide = (pathways(each).set_index("term") for each in (four, one))
    for term in ("log frequency", "right in the pivot"):
        widths = [each.loc[term, "high"] - each.loc[term, "low"] for each in (narrow, wide)]
        assert widths[0] == pytest.approx(widths[1], rel=0.02), term
    assert narrow["facts"].iloc[0] == wide["facts"].iloc[0] == 300


def test_what_cannot_be_fitted_has_no_number() -> None:
    cells = drawn(2, (1.0, 0.5, 0.5))
    parted = cells.assign(right=cells["frequency"] > 30)
    assert pathways(parted)[["coefficient", "low", "p"]].isna().all(axis=None)
    same = pathways(cells.assign(frequency=3))
    assert same["p"].isna().all() and (same["n"] == 900).all()
    none = pathways(cells.assign(right=True))
    assert (none["n"] == 0).all() and (none["left_out"] == 900).all() and none["p"].isna().all()
    # A relation that all know says nothing, and would fit any steepness.
    known = cells["relation"] == "r1"
    some = pathways(cells.assign(right=cells["right"] | known))
    assert some["left_out"].iloc[0] == known.sum() and some["p"].notna().all()
    with pytest.raises(ValueError, match="A frequency is negative"):
        pathways(cells.assign(frequency=-1))
    with pytest.raises(ValueError, match=r"lack the columns \['right'\]"):
        pathways(cells.drop(columns="right"))


def test_what_is_known_of_the_text_stands_beside() -> None:
    """By hand: 30 of 40 hidden facts right, 10 of 40 that nothing states."""
    random, ids = generator(0), [f"f{n}" for n in range(80)]
    home, other = random.normal(size=(2, 2, 2, 80, 4))
    flags = flagged(ids, ("en", "de"), ["a"] * 80)
    like = fact_likeness(held(home, "en", ids), [held(other, "de", ids)], flags)
    right = [n % 40 < (30 if n < 40 else 10) for n in range(80)]
    table = pd.DataFrame({"id": ids * 2, "language": ["en"] * 80 + ["de"] * 80, "relation": "a"})
    table["word"], table["group"] = right * 2, (["hidden"] * 40 + ["control"] * 40) * 2
    found = transfer(like, table, rule="word", resampling=FAST)
    (row,) = found.truth.to_dict("records")
    assert (row["language"], row["n"], row["control_n"]) == ("de", 40, 40)
    assert row["share"] == 0.75 and row["control"] == 0.25
    assert row["p"] == pytest.approx(7.4374e-06, rel=1e-3)
    (said,) = _held_against(found, {"en": "English", "de": "German"})
    assert "German 0.75 (0.25); more by test (p < .01) in 1 of 1 language" in said
    alone = table.assign(group="hidden")
    assert transfer(like, alone, rule="word", resampling=FAST).truth.empty


def test_the_last_groups_are_followed_back() -> None:
    made, answers = world(2, share=0.4)
    early, late = (likeness_of(made, 2, aligned=known) for known in (False, True))
    groups = transfer(late, answers, rule="word", resampling=FAST).groups
    series = {"b": Checkpoint("b", None, "b", step=20, tokens=200)}
    grown = transfer_curves(
        {"a": early, "b": late}, groups, last="b", series=series, resampling=FAST
    )
    assert grown.last == "b" and set(grown.table["model"]) == {"a", "b"}
    by_model = grown.table.groupby("model")
    assert by_model["step"].first()["b"] == 20 and np.isnan(by_model["tokens"].first()["a"])
    own = grown.table[grown.table["model"] == "b"].drop(columns=["model", "step", "tokens"])
    alone = likeness_table(late, groups, resampling=FAST)
    pd.testing.assert_frame_equal(own.reset_index(drop=True), alone)
    with pytest.raises(ValueError, match="No similarity is given"):
        transfer_curves({}, groups, last="b")
