"""Agreement across languages: against slow references, planted truths and its own control."""

import time

import kit
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr

import xlens
from xlens.consistency import (
    METRICS,
    ConsistencyResult,
    OptionScores,
    consistency,
    option_ranks,
    option_scores,
    rank_c,
    spearman,
)
from xlens.figures import agreement_matrix
from xlens.stats import Resampling

IDS = tuple(f"q{i}" for i in range(400))


def planted(
    languages=("en", "de", "sw"), n=400, options=4, accuracy=0.7, shared=0.0, seed=0
) -> OptionScores:
    """Answers right with a probability; with probability `shared` all say what the first says."""
    draw = np.random.default_rng(seed)
    gold = draw.integers(options, size=n)
    values = draw.normal(size=(len(languages), n, options))
    right = draw.random((len(languages), n)) < accuracy
    wrong = (gold + draw.integers(1, options, size=(len(languages), n))) % options
    said = np.where(right, gold, wrong)
    said = np.where(draw.random(n) < shared, said[0], said)
    np.put_along_axis(values, said[..., None], values.max(-1, keepdims=True) + 1, axis=-1)
    return OptionScores(values, languages, IDS[:n], gold)


def slow_rank_c(a, b, weights):
    """As the definition says it, with sets."""
    tops = [sorted(range(len(x)), key=lambda i, x=x: (-x[i], i)) for x in (a, b)]
    n = len(a)
    w = {
        "softmax": [np.exp(n - j) for j in range(1, n + 1)],
        "norm1": [n - j + 1 for j in range(1, n + 1)],
        "norm2": [(n - j + 1) ** 2 for j in range(1, n + 1)],
    }[weights]
    w = np.array(w) / np.sum(w)
    shares = [len({*tops[0][:j]} & {*tops[1][:j]}) / j for j in range(1, n + 1)]
    return float(w @ shares)


def test_ties_are_counted_by_item_and_ends_lie_within_what_a_measure_can_be():
    values = np.tile(np.array([3.0, 2.0, 1.0]), (2, 20, 1))
    values[0, :5, 1] = 3.0
    found = consistency(
        OptionScores(values, ("en", "de"), IDS[:20]), resampling=Resampling(draws=20)
    )
    assert found.languages["ties"].tolist() == [0.25, 0.0]
    alike = OptionScores(values[[1, 1]], ("en", "de"), IDS[:20])
    pairs = consistency(alike, resampling=Resampling(draws=20)).pairs
    low = pairs[pairs["source"] == "en"].set_index("metric")["low"]
    unseen = norm.ppf(0.975) ** 2 / (20 + norm.ppf(0.975) ** 2)
    # All alike: a share of what was not seen may lie at the other end, of rho at -1.
    assert low[["rank_c", "top1"]].to_list() == pytest.approx([1 - unseen] * 2)
    assert low["spearman"] == pytest.approx(1 - 2 * unseen)


some_scores = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=7)


@settings(max_examples=80, deadline=None)
@given(some_scores, st.sampled_from(["softmax", "norm1", "norm2"]), st.integers(0, 3))
def test_per_item_measures_equal_slow_references(table, weights, more):
    """Ties included; options that an item lacks change nothing."""
    a, b = (np.array(x, float) for x in zip(*table, strict=True))
    one, other = (np.append(x, np.full(more, np.nan))[None] for x in (a, b))
    got = rank_c(option_ranks(one), option_ranks(other), np.array([len(a)]), weights=weights)
    assert got[0] == pytest.approx(slow_rank_c(a, b, weights), abs=1e-12)
    if len(set(a)) > 1 and len(set(b)) > 1:
        assert spearman(one, other)[0] == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    else:
        assert np.isnan(spearman(one, other)[0])


def test_rank_c_of_the_toy_and_of_many_options():
    one, other = np.array([[1, 2, 3]]), np.array([[2, 1, 3]])
    n = np.array([3])
    for weights, wanted in (("softmax", 0.334759), ("norm1", 0.5), ("norm2", 0.357143)):
        assert rank_c(one, other, n, weights=weights)[0] == pytest.approx(wanted, abs=1e-6)
    many = np.arange(1, 1001)[None]
    assert rank_c(many, many, np.array([1000]))[0] == pytest.approx(1)  # exp(1000) overflows
    swapped = many.copy()
    swapped[0, :2] = [2, 1]
    lost = 1 - rank_c(many, swapped, np.array([1000]))[0]
    assert lost == pytest.approx(1 - 1 / np.e, abs=1e-6)


def test_independent_answers_are_at_chance_and_shared_ones_are_not():
    for shared, wanted in ((0.0, 0.0), (0.6, 0.18)):
        found = consistency(
            planted(n=400, shared=shared), resampling=Resampling(draws=300), n_permutations=40
        )
        table = found.pairs.set_index("metric")
        lift = table.loc["lift"]
        # right in both rises from a² to a² + shared · a(1 - a): by a share of 1 - a in the ratio
        assert lift["value"].mean() == pytest.approx(wanted, abs=0.05)
        assert lift["control"].abs().max() < 0.02
        assert abs(table.loc["jaccard_lift", "control"]).max() < 0.02
        inside = (lift["low"] <= wanted) & (wanted <= lift["high"])
        assert inside.mean() >= 0.8
        assert table.loc["same_wrong", "control"].mean() == pytest.approx(0.1, abs=0.03)
        outside = table.loc["top1", "value"] > table.loc["top1", "control_high"]
        assert outside.all() == (shared > 0)


def test_measures_by_hand():
    # Right: en 0 1 2, de 1 2 3, of 4; both wrong never.
    gold = np.zeros(4, int)
    right, wrong = [2.0, 1.0, 0.0], [0.0, 2.0, 1.0]
    en, de = [right, right, right, wrong], [wrong, right, right, right]
    found = consistency(
        OptionScores(np.array([en, de]), ("en", "de"), IDS[:4], gold),
        resampling=Resampling(draws=10),
        n_permutations=1,
    )
    assert list(found.languages["accuracy"]) == [0.75, 0.75]
    assert found.languages["chance"].tolist() == pytest.approx([1 / 3, 1 / 3])
    value = {m: found.matrix(m).loc["en", "de"] for m in METRICS}
    assert value["transfer"] == pytest.approx(2 / 3)
    assert value["lift"] == pytest.approx(2 / 3 - 3 / 4)
    assert value["jaccard"] == pytest.approx(2 / 4)
    assert value["jaccard_lift"] == pytest.approx(0.5 - 0.5625 / (1.5 - 0.5625))
    assert (value["same_wrong"], value["any_wrong"], value["top1"]) == (0, 0, 0.5)
    assert np.isnan(found.matrix("lift").loc["en", "en"])
    rows = found.pairs.set_index(["metric", "source"])["n"]
    assert (rows["transfer", "en"], rows["same_wrong", "en"], rows["jaccard", "en"]) == (3, 1, 4)


def test_what_is_not_defined_is_nan_and_not_zero():
    gold = np.zeros(5, int)
    always = np.tile([1.0, 0.0], (2, 5, 1))
    found = consistency(
        OptionScores(always, ("en", "de"), IDS[:5], gold), resampling=Resampling(draws=5)
    )
    assert found.matrix("same_wrong").isna().all().all()  # nobody is wrong
    never = consistency(
        OptionScores(1 - always, ("en", "de"), IDS[:5], gold), resampling=Resampling(draws=5)
    )
    assert never.matrix("transfer").isna().all().all()
    assert never.matrix("jaccard").isna().all().all()
    flat = consistency(
        OptionScores(always * 0, ("en", "de"), IDS[:5]), resampling=Resampling(draws=5)
    )
    assert flat.matrix("spearman").isna().all().all()
    assert flat.languages["ties"].tolist() == [1, 1]
    assert set(flat.pairs["metric"]) == {"spearman", "rank_c", "top1"}  # nothing about right


def test_unequal_numbers_of_options_are_permuted_among_their_own():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(2, 60, 5))
    values[:, ::2, 3:] = np.nan
    scores = OptionScores(values, ("en", "de"), IDS[:60], np.zeros(60, int))
    assert set(scores.counts) == {3, 5}
    found = consistency(scores, resampling=Resampling(draws=20), n_permutations=3)
    assert np.isfinite(found.pairs["control"]).all()
    assert found.languages["chance"][0] == pytest.approx((1 / 3 + 1 / 5) / 2)


def test_order_of_languages_and_items_plays_no_part():
    scores = planted(n=60)
    order = np.random.default_rng(1).permutation(60)
    again = OptionScores(
        scores.values[::-1][:, order],
        scores.languages[::-1],
        tuple(scores.ids[i] for i in order),
        scores.gold[order],
    )
    one, other = (
        consistency(s, resampling=Resampling(draws=5)).matrix("rank_c") for s in (scores, again)
    )
    pd.testing.assert_frame_equal(one, other.reindex_like(one), check_names=False)


def test_saved_and_loaded(tmp_path):
    found = consistency(planted(n=30), resampling=Resampling(draws=5), n_permutations=2)
    found.save(tmp_path / "c")
    again = ConsistencyResult.load(tmp_path / "c")
    pd.testing.assert_frame_equal(again.pairs, found.pairs)
    pd.testing.assert_frame_equal(again.means(), found.means())


def test_seventeen_languages_of_thousands_of_items():
    """As large as BMLAMA-17: every pair's RankC, vectorised (minutes with sets)."""
    draw = np.random.default_rng(0)
    ranks = option_ranks(draw.normal(size=(17, 6_792, 10)))
    counts = np.full(6_792, 10)
    began = time.process_time()
    for a in range(17):
        for b in range(a):
            rank_c(ranks[a], ranks[b], counts)
    assert time.process_time() - began < 30


def test_the_figure_shows_the_measure_and_its_control():
    found = consistency(planted(n=40, shared=0.9), resampling=Resampling(draws=5), n_permutations=3)
    fig = agreement_matrix(found, "jaccard_lift")
    values, control = (np.array(trace.z, float) for trace in fig.data if trace.type == "heatmap")
    np.testing.assert_allclose(values, found.matrix("jaccard_lift"))
    np.testing.assert_allclose(control, found.matrix("jaccard_lift", column="control"))
    assert fig.layout.coloraxis.cmin == -1 and "40 items" in fig.layout.title.text
    with pytest.raises(ValueError, match="no measure 'rankc'"):
        agreement_matrix(found, "rankc")


# --- from xlens.score ---


def test_from_scores_of_a_model(family_dir):
    model = kit.model(family_dir("gpt2"))
    prompts = [
        xlens.Prompt(f"{text} {i}", tag, str(i))
        for i in range(3)
        for tag, text in (("de", "Der Hund"), ("en", "The dog"))
    ]
    scores = xlens.score(model, prompts, [" ja", " nein", " eins zwei"], progress=False)
    gold = {"0": 0, "1": 1, "2": 2}
    found = option_scores(scores, gold, languages=["en", "de"])
    assert found.values.shape == (2, 3, 3) and found.languages == ("en", "de")
    row = scores.table.query("id == '1' and language == 'en' and candidate == 2")
    assert found.values[0, 1, 2] == pytest.approx(row["logprob"].item())
    mean = option_scores(scores, gold, by="mean_logprob")
    assert not np.allclose(mean.values, found.values)
    assert (
        consistency(found, resampling=Resampling(draws=5), n_permutations=2)
        .pairs["value"]
        .notna()
        .any()
    )


def test_bad_input_is_named():
    good = planted(n=5)
    rows = [
        {"id": id, "language": tag, "candidate": c, "logprob": float(c), "mean_logprob": 0.0}
        for id in "ab"
        for tag in ("en", "de")
        for c in range(2)
    ]
    table = pd.DataFrame(rows)
    cases = [
        (lambda: OptionScores(good.values[:1], ("en",), good.ids), "two languages"),
        (lambda: OptionScores(good.values, good.languages, ("a",) * 5), "1 distinct"),
        (lambda: OptionScores(good.values[..., :1], good.languages, good.ids), "shape"),
        (lambda: OptionScores(good.values * np.inf, good.languages, good.ids), "infinite|NaN"),
        (
            lambda: OptionScores(good.values, good.languages, good.ids, np.full(5, 4)),
            "item 'q0'",
        ),
        (lambda: option_scores(table.drop(columns="candidate")), "candidate"),
        (lambda: option_scores(table, languages=["en", "sw"]), "sw; there are en, de"),
        (lambda: option_scores(table.iloc[:-2]), "1 items have no scores in de, first 'b'"),
        (lambda: option_scores(pd.concat([table, table])), "occurs twice in en"),
        (lambda: option_scores(table, {"a": 0}), "nothing for 1 items, first 'b'"),
        (lambda: option_scores(table.assign(layer=[0, 1] * 4)), "choose one"),
        (lambda: consistency(good, resampling=Resampling(draws=0)), "accepted are 1 to"),
        (lambda: consistency(good, resampling=Resampling(confidence=1.5)), "between 0 and 1"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
    uneven = good.values.copy()
    uneven[0, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"'q2': \{'en': 3, 'de': 4, 'sw': 4\}"):
        OptionScores(uneven, good.languages, good.ids)
    early = good.values.copy()
    early[:, 2, 1] = np.nan
    with pytest.raises(ValueError, match="only follow"):
        OptionScores(early, good.languages, good.ids)
