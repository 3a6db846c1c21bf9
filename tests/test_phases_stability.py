"""Stability and its correlation with scores: numbers worked out by hand, planted, and none."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from phase_kit import relevance
from scipy.stats import pearsonr, spearmanr
from test_phases_compare import DE, EN, ES, depth

from xlens import phases
from xlens.phases.correlation import _correlations
from xlens.stats import Resampling


def by_index(found):
    return found.table.set_index(["index", "language"])


def test_indices_by_hand():
    found = phases.stability(depth({"en": EN, "de": DE, "es": ES}), resampling=Resampling(draws=50))
    value = by_index(found)["value"]
    assert value["S1_question", "en"] == pytest.approx(-0.1)
    assert value["S1_context", "en"] == 0
    assert value["S1_gap", "de"] == pytest.approx(-np.std([1, 3, 0, 2]) / 10)
    assert value["S2", "de"] == value["S2", "es"] == pytest.approx(-0.1)
    assert (value["shift", "de"], value["shift", "es"]) == pytest.approx((0.1, -0.1))
    # German lies two layers deeper than Spanish in every item: no sampling in that, and the pivot,
    # between them, has no part.
    assert value["S3", "all"] == pytest.approx(-0.1)
    assert (value["S5", "en"], value["S5", "de"]) == (1.0, 0.75)
    assert {("S2", "en"), ("shift", "en")}.isdisjoint(value.index)
    assert "S4" not in set(found.table["index"])
    assert by_index(found).loc[("S3", "all"), "n"] == 2
    inside = found.table["low"] <= found.table["high"]
    assert inside.all() and found.draws.shape == (len(found.table), 50)
    assert "S3" not in set(
        phases.stability(depth({"en": EN, "de": DE}), resampling=Resampling(draws=5)).table["index"]
    )


def test_pairs_are_by_id():
    """An item that German lacks is not compared, nor one without a depth; the others are."""
    made = depth({"en": EN, "de": DE})
    table = made.table
    german, english = (table["language"] == tag for tag in ("de", "en"))
    less = replace(made, table=table[~(german & (table["id"] == "q0"))].reset_index(drop=True))
    found = by_index(phases.stability(less, resampling=Resampling(draws=5)))
    assert found.loc[("S2", "de"), "value"] == pytest.approx(-abs(13 / 3 - 10 / 3) / 10)
    empty = table.assign(depth=table["depth"].mask(english & (table["id"] == "q3"), np.nan))
    found = by_index(phases.stability(replace(made, table=empty), resampling=Resampling(draws=5)))
    assert found.loc[("shift", "de"), "value"] == pytest.approx((11 / 3 - 8 / 3) / 10)
    assert found.loc[("shift", "de"), "n"] == 3


def test_the_interval_of_a_size_holds_the_size():
    rng = np.random.default_rng(0)
    base = rng.integers(3, 6, 40).astype(float)
    apart = rng.normal(size=40)
    apart -= apart.mean()
    context = [8.0] * 40
    found = by_index(
        phases.stability(
            depth(
                {
                    "en": (base.tolist(), context),
                    "de": ((base + apart).tolist(), context),  # no shift at all
                    "es": ((base + apart - 2).tolist(), context),
                    "ru": ((base + apart + 2).tolist(), context),
                }
            ),
            resampling=Resampling(draws=400),
        )
    )
    none, less, more = (found.loc[("S2", tag)] for tag in ("de", "es", "ru"))
    # No resample's size is below 0, so that the percentiles of sizes would leave 0 out.
    assert none["value"] == pytest.approx(0, abs=1e-12) and none["high"] == 0 > none["low"] + 0.01
    assert found.loc[("shift", "de"), "low"] < 0 < found.loc[("shift", "de"), "high"]
    for size, tag, sign in ((less, "es", -1), (more, "ru", 1)):
        signed = found.loc[("shift", tag)]
        assert signed["value"] == pytest.approx(sign * 0.2)
        ends = sorted(-abs(signed[["low", "high"]]))
        assert [size["low"], size["high"]] == ends and size["high"] < 0
    inside = (found["low"] <= found["value"]) & (found["value"] <= found["high"])
    assert inside[["S2", "shift", "S3"]].all()


@pytest.mark.parametrize("true", [0.0, 1.0])
def test_sampling_is_no_spread_over_languages(true):
    """Twelve languages, whose means of ten prompts err by 0.6 layers each."""
    rng = np.random.default_rng(1)
    variances, naive, with_zero = [], [], []
    planted = np.tile([-true, true], 6)
    for _ in range(40):
        item = rng.normal(0, 3, 10)  # how hard an item is, in every language
        means = 10 + planted[:, None] + item + rng.normal(0, 0.6 * np.sqrt(10), (12, 10))
        made = {f"l{i}": (row.tolist(), [20.0] * 10) for i, row in enumerate(means)}
        found = by_index(
            phases.stability(depth({"en": EN_LONG} | made), resampling=Resampling(draws=100))
        )
        row = found.loc[("S3", "all")]
        variances.append((10 * row["value"]) ** 2)
        naive.append(means.mean(1).var())
        with_zero.append(row["high"] == 0)
        assert row["low"] <= row["value"] <= row["high"] and row["n"] == 12
    # What is floored at 0 leaves a little more than nothing.
    assert np.mean(variances) == pytest.approx(true, abs=0.1)
    assert np.mean(naive) > true + 0.25
    assert np.mean(with_zero) == pytest.approx(1 - true, abs=0.2)


EN_LONG = ([5.0] * 10, [20.0] * 10)


def test_profiles_that_agree():
    tokens = np.zeros((6, 4, 3))
    tokens[:, :, 1] = np.array([5, 4, 3, 2, 1, 0])[:, None]
    tokens[:, 2:, 1] = np.array([1, 0, 1, 0, 1, 0])[:, None] * 2
    scores = relevance(tokens, {"question": (1, 2)})
    names = pd.DataFrame({"id": ["a", "b"] * 2, "language": ["en", "en", "de", "de"]})
    scores = replace(scores, meta=scores.meta.drop(columns=["id", "language"]).join(names))
    context = replace(scores, rows=scores.rows.assign(slot="all"))
    made = phases.relevance_depth(scores, segments=["question"])
    made = replace(
        made, table=pd.concat([made.table, made.table.assign(segment="context")], axis=0)
    )
    found = phases.stability(made, scores, resampling=Resampling(draws=5)).table.set_index("index")
    wanted = pearsonr([5, 4, 3, 2, 1, 0], [1, 0, 1, 0, 1, 0]).statistic
    assert found.loc["S4", "value"] == pytest.approx(wanted)
    with pytest.raises(ValueError, match="No slot 'question:sum'"):
        phases.stability(made, context)


def test_what_is_missing_is_named():
    made = depth({"en": EN, "de": DE})
    with pytest.raises(ValueError, match="no segment 'answer'"):
        phases.stability(made, context="answer")
    with pytest.raises(ValueError, match="pivot='fr' is not among"):
        phases.stability(made, pivot="fr")


# --- correlations ---

TAGS = ("en", "de", "es", "ru")


def stabilities(n: int = 3, tags: tuple[str, ...] = TAGS):
    rng = np.random.default_rng(0)
    return {
        f"m{m}": phases.stability(
            depth(
                {x: (rng.integers(1, 5, 6).tolist(), rng.integers(5, 9, 6).tolist()) for x in tags}
            ),
            resampling=Resampling(draws=100),
        )
        for m in range(n)
    }


def scored(found, *, index="S1_question", noise=0.05, seed=1):
    """A score for each cell that goes with an index, the pivot's with nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for model, one in found.items():
        value = by_index(one)["value"]
        for tag in TAGS:
            score = 100.0 if tag == "en" else 3 * value[index, tag] + noise * rng.normal()
            rows.append({"model": model, "language": tag, "f1": score})
    return pd.DataFrame(rows)


def test_correlations_over_cells(tmp_path):
    found = stabilities(5)
    scores = scored(found)
    result = phases.correlate(found, scores, resampling=Resampling(draws=300))
    assert result.unit == "cells" and result.over == "models"
    table = result.table.set_index(["index", "coefficient"])
    cells = result.cells[result.cells["index"] == "S1_question"]
    for name, function in (("pearson", pearsonr), ("spearman", spearmanr)):
        row = table.loc[("S1_question", name)]
        assert row["value"] == pytest.approx(function(cells["stability"], cells["score"]).statistic)
        assert row["low"] <= row["value"] <= row["high"] <= 1
        # Fifteen cells of five models: five things are resampled.
        assert (row["n"], row["resampled"], row["small"]) == (15, 5, True)
    assert table.loc[("S1_question", "pearson"), "low"] > 0.3
    assert table.loc[("S3", "pearson"), "n"] == 5
    assert set(table.index.levels[0]) == set(phases.INDICES) - {"S4"}
    result.save(tmp_path)
    again = phases.StabilityCorrelation.load(tmp_path)
    pd.testing.assert_frame_equal(again.table, result.table)


@pytest.mark.parametrize("unit", ["cells", "models"])
def test_the_pivot_is_no_point_and_in_no_mean(unit):
    found = stabilities()
    scores = scored(found)
    result = phases.correlate(found, scores, unit=unit, resampling=Resampling(draws=50))
    assert "en" not in set(result.cells["language"])
    without = phases.correlate(
        found, scores[scores["language"] != "en"], unit=unit, resampling=Resampling(draws=50)
    )
    pd.testing.assert_frame_equal(result.table, without.table)
    s3 = result.cells[result.cells["index"] == "S3"].set_index("model")["score"]
    means = scores[scores["language"] != "en"].groupby("model")["f1"].mean()
    assert s3.to_dict() == pytest.approx(means.to_dict())
    with pytest.raises(ValueError, match="no language besides the pivot 'en'"):
        phases.correlate(
            {"m": phases.stability(depth({"en": EN}), resampling=Resampling(draws=5))},
            scores,
            resampling=Resampling(draws=5),
        )


def test_correlations_over_models():
    found = stabilities(5)
    scores = scored(found)
    result = phases.correlate(found, scores, unit="models", resampling=Resampling(draws=50))
    assert result.unit == result.over == "models"
    cells = result.cells[result.cells["index"] == "S2"].set_index("model")
    assert set(cells["language"]) == {"all"} and len(cells) == 5
    for model, one in found.items():
        value = by_index(one)["value"]["S2"]
        assert cells.loc[model, "stability"] == pytest.approx(value[["de", "es", "ru"]].mean())
        mine = scores[(scores["model"] == model) & (scores["language"] != "en")]
        assert cells.loc[model, "score"] == pytest.approx(mine["f1"].mean())
    row = result.table.set_index(["index", "coefficient"]).loc[("S2", "pearson")]
    assert row["value"] == pytest.approx(pearsonr(cells["stability"], cells["score"]).statistic)
    assert (row["n"], row["resampled"], row["small"]) == (5, 5, True)
    with pytest.raises(ValueError, match=r"at least three; got \['m0', 'm1'\]"):
        phases.correlate({m: found[m] for m in ("m0", "m1")}, scores, unit="models")
    fewer = found | {"m4": stabilities(1, ("en", "de", "es"))["m0"]}
    with pytest.raises(ValueError, match=r"\['de', 'es', 'ru'\] and 'm4' \['de', 'es'\]"):
        phases.correlate(fewer, scores, unit="models")


def test_one_models_languages_are_resampled():
    found = stabilities(1)
    result = phases.correlate(found, scored(found), resampling=Resampling(draws=50))
    assert result.over == "languages"
    row = result.table.set_index(["index", "coefficient"]).loc[("S1_question", "pearson")]
    assert (row["n"], row["resampled"]) == (3, 3)


def made_up(rng, *, n_models=12, n_languages=8):
    """Models that differ, languages within them that hardly do; stability tells nothing."""
    found, rows = {}, []
    tags = [f"l{i}" for i in range(n_languages)]
    for m in range(n_models):
        level, skill = rng.normal(size=2)
        table = pd.DataFrame(
            {
                "index": "S1_question",
                "language": tags,
                "value": level + 0.2 * rng.normal(size=n_languages),
                "low": 0.0,
                "high": 0.0,
                "n": 1,
            }
        )
        found[f"m{m}"] = phases.StabilityResult(
            provenance={},
            table=table,
            draws=np.zeros((n_languages, 1)),
            clusters=pd.DataFrame({"id": ["q0"], "cluster": [0]}),
            pivot="en",
            seed=0,
        )
        rows += [
            {"model": f"m{m}", "language": tag, "f1": skill + 0.2 * rng.normal()} for tag in tags
        ]
    return found, pd.DataFrame(rows)


def test_an_order_that_no_resample_moves_has_no_interval():
    """Of four models one in twelve is in one exact order, or its reverse, by chance alone."""
    seen = set()
    for seed in range(30):
        found, scores = made_up(np.random.default_rng(seed), n_models=4)
        how = {"unit": "models", "resampling": Resampling(draws=20)}
        table = phases.correlate(found, scores, **how).table.set_index("coefficient")
        row = table.loc["spearman"]
        exact = abs(row["value"]) > 1 - 1e-9
        assert np.isnan(row["low"]) == np.isnan(row["high"]) == exact
        seen.add(exact)
    assert seen == {True, False}


@pytest.mark.slow
def test_languages_of_a_model_are_not_many_models():
    """Where nothing goes with anything, the interval should hold 0 in 19 of 20 cases."""
    rng = np.random.default_rng(0)
    wrong, naive, n = 0, 0, 40
    for _ in range(n):
        found, scores = made_up(rng)
        result = phases.correlate(found, scores, resampling=Resampling(draws=200))
        row = result.table.iloc[0]
        assert (row["n"], row["resampled"], row["small"]) == (96, 12, False)
        wrong += not row["low"] <= 0 <= row["high"]
        x, y = (result.cells[side].to_numpy() for side in ("stability", "score"))
        picks = rng.integers(len(x), size=(200, len(x)))
        low, high = np.quantile(
            _correlations(x[picks], y[picks], np.ones((1, len(x))), False), [0.025, 0.975]
        )
        naive += not low <= 0 <= high
    assert wrong / n <= 0.25  # twelve models: a bootstrap of so few is a little too sure
    assert naive / n >= 0.4


def test_weights_are_repetitions():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 4, (2, 7)).astype(float)  # ties
    weights = rng.integers(1, 4, (5, 7)).astype(float)
    for ranked, function in ((False, pearsonr), (True, spearmanr)):
        found = _correlations(x[None], y[None], weights, ranked)
        for one, row in zip(found, weights.astype(int), strict=True):
            wanted = function(np.repeat(x, row), np.repeat(y, row)).statistic
            assert one == pytest.approx(wanted)


@pytest.mark.parametrize("unit", ["cells", "models"])
def test_correlations_over_items_resample_stability_and_scores_together(unit):
    found = stabilities(3)
    rows = [
        {"model": m, "language": x, "id": f"q{i}", "f1": float(i % 2)}
        for m in found
        for x in TAGS
        for i in range(6)
    ]
    result = phases.correlate(found, pd.DataFrame(rows), over="items", unit=unit)
    # The same scores everywhere: no correlation is defined, whatever is drawn.
    assert result.table["value"].isna().all() and result.over == "items"
    assert set(result.table["resampled"]) == {6}
    level = {m: i for i, m in enumerate(found)}
    for row in rows:
        shift = 10 * level[row["model"]] + 3 * TAGS.index(row["language"])
        row["f1"] = shift + 0.001 * int(row["id"][1:])
    result = phases.correlate(found, pd.DataFrame(rows), over="items", unit=unit)
    kept = result.table.dropna(subset=["low"])
    assert (kept["low"] <= kept["high"]).all() and not kept.empty
    with pytest.raises(ValueError, match=r"scores lacks the columns \['id'\]"):
        phases.correlate(found, pd.DataFrame(rows).drop(columns="id"), over="items")
    with pytest.raises(ValueError, match="scores has no row of 'm0' in 'de'"):
        phases.correlate(found, pd.DataFrame([r for r in rows if r["language"] != "de"][:30]))
