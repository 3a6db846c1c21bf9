"""Similarity against consistency over pairs: a planted link is found, accuracy's is taken out."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from xlens.consistency import ConsistencyResult, Dissociation, dissociation
from xlens.figures import dissociation_curves

TAGS = ("ar", "de", "en", "fr", "hi", "ru", "sw")


def panel(matrix, accuracy) -> ConsistencyResult:
    rows = [
        {"metric": m, "source": a, "target": b, "value": f(matrix[i, j])}
        for i, a in enumerate(TAGS)
        for j, b in enumerate(TAGS)
        if i != j
        for m, f in (("spearman", float), ("lift", lambda x: -float(x)))
    ]
    languages = pd.DataFrame({"language": TAGS, "accuracy": accuracy})
    return ConsistencyResult(provenance={}, languages=languages, pairs=pd.DataFrame(rows))


def similarity(**layers) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"layer": int(name[1:]), "a": a, "b": b, "measure": "cka", "kind": "value"}
            | {"mean": m[TAGS.index(a), TAGS.index(b)]}
            for name, m in layers.items()
            for a, b in combinations(TAGS, 2)
        ]
    )


def symmetric(rng):
    m = rng.normal(size=(len(TAGS),) * 2)
    return m + m.T


def test_a_planted_link_is_found_at_its_layer_alone():
    rng = np.random.default_rng(0)
    outside, other = symmetric(rng), symmetric(rng)
    found = dissociation(
        similarity(l1=other, l2=outside + 0.1 * symmetric(rng)),
        panel(outside, rng.random(len(TAGS))),
        metrics=("spearman", "lift"),
    )
    table = found.table.set_index(["layer", "metric", "kind"]).sort_index()
    at = np.triu_indices(len(TAGS), 1)
    assert table.loc[(1, "spearman", "value"), "rho"] == pytest.approx(
        spearmanr(other[at], outside[at]).statistic
    )
    assert table.loc[(2, "spearman", "value"), "rho"] > 0.95
    assert table.loc[(2, "lift", "value"), "rho"] < -0.95
    assert (table.loc[2, "p"] <= 0.005).all() and (table.loc[1, "p"] > 0.05).all()
    low, high = (table.loc[(2, "spearman", "value"), f"null_{side}"] for side in ("low", "high"))
    assert -0.8 < low < 0 < high < 0.8
    assert set(table["n_pairs"]) == {21} and found.n_permutations == 999


def test_what_accuracy_alone_does_is_taken_out():
    """Languages that are known badly are unlike the others and answer unlike them: no more."""
    rng = np.random.default_rng(1)
    accuracy = np.linspace(0.2, 0.9, len(TAGS))
    by_accuracy = (accuracy[:, None] + accuracy[None]) / 2
    noise = [0.02 * symmetric(rng) for _ in range(2)]
    found = dissociation(
        similarity(l1=by_accuracy + noise[0]),
        panel(by_accuracy + noise[1], accuracy),
        metrics=("spearman",),
    ).table.set_index("kind")
    assert found.loc["value", "rho"] > 0.9 and found.loc["value", "p"] < 0.01
    assert abs(found.loc["accuracy_out", "rho"]) < 0.5 and found.loc["accuracy_out", "p"] > 0.05


def test_p_is_uniform_where_nothing_is():
    """Matrices with strong effects of the languages, as real ones have; unrelated to each other."""
    ps = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(2, len(TAGS)))
        first = a[:, None] + a[None] + 0.3 * symmetric(rng)
        second = b[:, None] + b[None] + 0.3 * symmetric(rng)
        found = dissociation(
            similarity(l1=first), panel(second, rng.random(len(TAGS))), metrics=("spearman",),
            n_permutations=199,
        )  # fmt: skip
        ps.append(found.table["p"].iloc[0])
    assert np.mean(np.array(ps) < 0.05) <= 0.12 and 0.35 < np.mean(ps) < 0.65


def test_undefined_layers_are_nan_and_few_languages_are_tried_in_all_orders(tmp_path):
    rng = np.random.default_rng(2)
    flat, outside = np.ones((len(TAGS),) * 2), symmetric(rng)
    missing = np.full_like(flat, np.nan)
    few = similarity(l1=flat, l2=missing, l3=outside)
    few = few[few["a"].isin(TAGS[:4]) & few["b"].isin(TAGS[:4])]
    found = dissociation(few, panel(outside, rng.random(len(TAGS))), metrics=("spearman",))
    table = found.table[found.table["kind"] == "value"].set_index("layer")
    assert table.loc[[1, 2], ["rho", "p", "null_low"]].isna().all(axis=None)
    assert found.n_permutations == 24 and found.languages == TAGS[:4]
    assert table.loc[3, "rho"] == pytest.approx(1) and table.loc[3, "p"] == pytest.approx(1 / 24)
    again = Dissociation.load(found.save(tmp_path))
    assert again.to_frame().equals(found.to_frame())
    drawn = dissociation_curves(found)
    assert len(drawn.data) == 2 and drawn.data[1].y[2] == pytest.approx(1)
    with pytest.raises(ValueError, match="measures"):
        dissociation_curves(found, ["x"])


def test_the_strongest_of_many_layers_has_a_p_of_its_own():
    """Where nothing is, the smallest of many p is below 0.05 far more often than one in twenty."""
    single, whole = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        layers = {f"l{n}": symmetric(rng) for n in range(8)}
        found = dissociation(
            similarity(**layers), panel(symmetric(rng), rng.random(len(TAGS))),
            metrics=("spearman",), n_permutations=199,
        ).table  # fmt: skip
        rows = found[found["kind"] == "value"]
        assert (rows["p_adjusted"] >= rows["p"]).all()
        strongest = rows.loc[rows["rho"].abs().idxmax()]
        assert strongest["p_adjusted"] == rows["p_adjusted"].min()
        single.append(rows["p"].min())
        whole.append(rows["p_adjusted"].min())
    assert np.mean(np.array(single) < 0.05) > 0.2
    assert np.mean(np.array(whole) < 0.05) <= 0.12


def test_refuses():
    rng = np.random.default_rng(3)
    result = panel(symmetric(rng), rng.random(len(TAGS)))
    good = similarity(l1=symmetric(rng))
    with pytest.raises(ValueError, match="lacks the columns"):
        dissociation(good.drop(columns="mean"), result)
    with pytest.raises(ValueError, match="the panel has"):
        dissociation(good, result, metrics=("nothing",))
    few = good[good["a"].isin(TAGS[:1]) & good["b"].isin(TAGS[:2])]
    with pytest.raises(ValueError, match="needs at least 4"):
        dissociation(few, result, metrics=("lift",))
