"""Promises that could be turned round without any other test noticing."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic import lens_result
from test_dissociation import TAGS, panel, similarity, symmetric
from test_reading_study import planted

from xlens import figures
from xlens.consistency import dissociation
from xlens.lens import TargetSets
from xlens.lens.controls import shuffled_pairs
from xlens.report.sentences import pair_sentences, verdict
from xlens.stats import Resampling, bootstrap
from xlens.studies.steps.leaderboard import leaderboard

FEW = Resampling(draws=50)


def with_landmarks(summary, **numbers):
    """The summary with other numbers in some landmarks: value, low, high."""
    table = summary.landmarks.set_index("name")
    for name, values in numbers.items():
        table.loc[name, ["value", "low", "high"]] = values
    return replace(summary, landmarks=table.reset_index())


def test_the_bound_and_not_the_value_must_clear_the_controls():
    """A value above the control whose interval reaches down to it is no finding."""
    result, control = (lens_result(bump=b).summary(resampling=FEW) for b in (0.3, 0.01))
    nulls = {"shuffled": with_landmarks(control, pivot_peak_prob=(0.1, 0.05, 0.2))}
    for low, found in ((0.19, False), (0.2, False), (0.21, True)):
        shown = with_landmarks(result, pivot_peak_prob=(0.3, low, 0.4))
        said = verdict({"translation": shown, **nulls})
        assert ("No English phase was found" in said) != found, (low, said)
    # Nor is the control's own value what is to be cleared.
    shown = with_landmarks(result, pivot_peak_prob=(0.3, 0.15, 0.4))
    assert "No English phase" in verdict({"translation": shown, **nulls})


@pytest.mark.parametrize(("source", "words"), [(0.6, "more than"), (0.1, "less than")])
def test_the_prompts_own_word_is_compared_with_its_translation(source, words):
    shown = with_landmarks(
        lens_result().summary(resampling=FEW),
        source_peak_prob=(source, source - 0.02, source + 0.02),
        source_over_pivot=(source - 0.3, source - 0.34, source - 0.26),
        pivot_peak_prob=(0.3, 0.28, 0.32),
    )
    said = " ".join(pair_sentences({"translation": shown}))
    assert f"{words} its English translation" in said
    assert ("less than" in said) == (words == "less than")


def test_languages_count_the_same_on_the_leaderboard_however_many_their_questions():
    base, post = planted("m", {}), planted("m-it", {"ru": 12})
    kept = [
        replace(
            result,
            items=result.items[
                (result.items["question_language"] != "ru")
                | result.items["id"].isin(sorted(set(result.items["id"]))[:8])
            ],
        )
        for result in (base, post)
    ]
    board = leaderboard(
        dict(zip(("m", "m-it"), kept, strict=True)), pairs=[("m", "m-it")], resampling=FEW
    )
    (pair,) = board.pairs.to_dict("records")
    n = board.languages["language"].nunique()
    assert pair["f1_post"] == pytest.approx(1 / n) and pair["f1_base"] == 0
    assert pair["difference"] == pytest.approx(1 / n)
    assert pair["low"] <= 1 / n <= pair["high"]


def test_the_interval_of_a_pair_gives_each_language_the_same_weight():
    """Russian has half the questions: by their number, or its inverse, it would lie elsewhere."""
    base, post = planted("m", {}), planted("m-it", {"ru": 11})
    odd = [result.items["id"].str.endswith("1") for result in (base, post)]
    kept = [
        replace(result, items=result.items[(result.items["question_language"] != "ru") | ~second])
        for result, second in zip((base, post), odd, strict=True)
    ]
    right = kept[1].items.query("question_language == 'ru' and control == ''")["f1"]
    assert len(right) == 6 and right.mean() == 1
    some = {"m": kept[0], "m-it": kept[1]}
    rows = some["m-it"].items
    rows.loc[right.index[-1], "f1"] = 0.0
    (pair,) = leaderboard(some, pairs=[("m", "m-it")], resampling=FEW).pairs.to_dict("records")
    assert pair["difference"] == pytest.approx(5 / 6 / 3)
    # The other two languages are the same in both models: all that varies is a third of Russian.
    every = rows[rows["question_language"] == "de"].sort_values("id")
    mine = every["id"].map(rows[rows["question_language"] == "ru"].set_index("id")["f1"])
    found = bootstrap(
        mine.to_numpy(float)[:, None],
        clusters=every["paragraph"].tolist(),
        resampling=FEW,
        bounds=(-1, 1),
    )
    third = found.interval(lambda means: means[..., 0] / 3, [0])
    assert (pair["low"], pair["high"]) == pytest.approx(tuple(map(float, third)))


def test_a_permutation_p_is_never_zero():
    """The languages as they are, are one of the orders: of k drawn ones, p is at least 1/(k+1)."""
    rng = np.random.default_rng(0)
    link = symmetric(rng)
    for n in (19, 99):
        found = dissociation(
            similarity(l1=link),
            panel(link, rng.random(len(TAGS))),
            metrics=("spearman",),
            n_permutations=n,
        )
        p = found.table.query("kind == 'value'")["p"]
        assert p.min() == pytest.approx(1 / (n + 1))


def test_the_seed_decides_who_is_shuffled_with_whom():
    words = pd.DataFrame({"en": [f"w{i}" for i in range(12)]}, index=[str(i) for i in range(12)])
    one, again, other = (shuffled_pairs(words, seed=s)["en"].tolist() for s in (1, 1, 2))
    assert one == again and one != other


def test_bars_of_the_composition_stand_at_their_layers():
    summary = lens_result().summary(resampling=FEW)
    shares = pd.DataFrame(
        [
            {"layer": k, "language": tag, "share": share}
            for k in range(summary.n_layers + 1)
            for tag, share in (("en", 0.1 + 0.1 * k), ("ru", 0.9 - 0.1 * k))
        ]
    )
    fig = figures.composition_bars(replace(summary, composition=shares))
    rising = next(trace for trace in fig.data if trace.y[0] == pytest.approx(0.1))
    assert list(rising.x) == list(range(summary.n_layers + 1))
    assert list(rising.y) == pytest.approx([0.1 + 0.1 * k for k in rising.x])


def test_advice_about_missing_target_sets_can_be_followed():
    """Also where there are sets of items that no prompt asks about."""
    from xlens import Prompt, Prompts

    sets = TargetSets(
        sets=pd.DataFrame({"en": [(1,), (2,)]}, index=["a", "elsewhere"]),
        languages=("en",),
        extra=(),
        dropped=pd.DataFrame([("b", "no token", "")], columns=["id", "reason", "detail"]),
        n_offered=3,
        match="prefixes",
    )
    prompts = Prompts([Prompt("x", "en", id) for id in "abc"])
    with pytest.raises(ValueError, match="dropped 1 of them, and 1 were never") as error:
        sets.tensor(prompts.ids)
    advice = str(error.value).split("harvesting: ")[1].rstrip(".")
    left = eval(advice, {"prompts": prompts, "targets": sets})
    assert left.ids == ("a",) and sets.tensor(left.ids).tolist() == [[[1]]]
