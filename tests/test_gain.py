"""Before and after: what is planted is found, and what is not shown is not said."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from xlens.figures import gain_bars
from xlens.gain import gain
from xlens.stats import Resampling

FEW = Resampling(draws=300)
TAGS = ("en", "de", "sw")


def answers(values, tags=TAGS, paragraphs=None):
    """A table of `values[item, language]`."""
    rows = [
        {"id": f"q{i}", "language": tag, "value": float(values[i, k]),
         "paragraph": f"q{i}" if paragraphs is None else paragraphs[i]}
        for i in range(len(values)) for k, tag in enumerate(tags)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def drawn(n=200, p=0.5, seed=0):
    return (np.random.default_rng(seed).random((n, len(TAGS))) < p).astype(float)


def row(result, language, condition="aligned", against="before"):
    return result.of(condition, against).set_index("language").loc[language]


def test_a_gain_in_one_language_is_found_there_alone():
    before = drawn()
    after = before.copy()
    after[:60, 2] = 1
    found = gain(answers(before), {"aligned": [answers(after)]}, trained=["de"], resampling=FEW)
    assert row(found, "sw")["verdict"] == "better" and row(found, "sw")["p"] < 0.01
    assert row(found, "de")["verdict"] == "the same" and row(found, "de")["difference"] == 0
    assert row(found, "unseen")["difference"] == pytest.approx(
        (row(found, "sw")["difference"] + row(found, "en")["difference"]) / 2
    )
    assert row(found, "seen")["difference"] == 0
    assert row(found, "sw")["low"] < row(found, "sw")["difference"] < row(found, "sw")["high"]


def test_a_language_in_training_counts_whatever_its_script():
    tags = ("en", "zh-Hans", "sr-Latn", "ru")
    before = answers(np.ones((20, len(tags))), tags)
    found = gain(before, {"aligned": [before]}, trained=["zh", "sr-Cyrl", "en"], resampling=FEW)
    seen = found.of("aligned").set_index("language")["seen"]
    assert [tag for tag in tags if seen[tag]] == ["en", "zh-Hans", "sr-Latn"]


def test_mcnemar_is_the_exact_test_of_discordant_items():
    before, after = drawn(seed=1), drawn(seed=2)
    found = gain(answers(before), {"aligned": [answers(after)]}, trained=["en"], resampling=FEW)
    b, c = ((after > before)[:, 1].sum(), (after < before)[:, 1].sum())
    assert row(found, "de")["p_mcnemar"] == pytest.approx(binomtest(int(b), int(b + c)).pvalue)
    assert (row(found, "de")["better"], row(found, "de")["worse"]) == (b, c)


def test_clusters_make_the_test_less_sure():
    before = np.zeros((40, 3))
    after = before.copy()
    after[:10] = 1  # ten items of one paragraph
    alone = gain(answers(before), {"aligned": [answers(after)]}, trained=["en"], resampling=FEW)
    paragraphs = ["p0"] * 10 + [f"p{i // 10}" for i in range(10, 40)]
    tables = [answers(values, paragraphs=paragraphs) for values in (before, after)]
    together = gain(tables[0], {"aligned": [tables[1]]}, trained=["en"], resampling=FEW)
    assert row(alone, "all")["p"] < 0.05 and row(alone, "all")["verdict"] == "better"
    assert row(together, "all")["p"] > 0.2 and row(together, "all")["verdict"] == "undecided"


def test_tests_are_adjusted_for_the_languages_looked_at():
    tags = tuple(f"{a}" for a in ("en", "de", "fr", "es", "it", "ru", "hi", "sw"))
    rng = np.random.default_rng(3)
    smallest = []
    for _ in range(15):
        before, after = ((rng.random((60, 8)) < 0.5).astype(float) for _ in range(2))
        found = gain(
            answers(before, tags), {"aligned": [answers(after, tags)]}, trained=["en"],
            resampling=Resampling(draws=10),
        )  # fmt: skip
        own = found.of("aligned").query("language in @tags")
        smallest.append((own["p"].min(), own["p_mcnemar"].min()))
    adjusted, plain = np.mean(np.array(smallest) < 0.05, axis=0)
    assert adjusted <= 0.2 and plain >= adjusted


def test_a_gain_that_the_control_has_too_is_told():
    before = drawn()
    after = before.copy()
    after[:60] = 1
    both = {"aligned": [answers(after)], "shuffled": [answers(after)]}
    found = gain(answers(before), both, trained=["de"], controls=["shuffled"], resampling=FEW)
    assert row(found, "all")["verdict"] == row(found, "all", "shuffled")["verdict"] == "better"
    assert row(found, "all", against="shuffled")["verdict"] == "the same"


def test_equivalence_needs_items_enough():
    for n, verdict in ((60, "undecided"), (4000, "the same")):
        before = drawn(n)
        after = before.copy()
        flip = np.random.default_rng(9).permutation(n)[: n // 10]
        after[flip] = 1 - after[flip]
        found = gain(
            answers(before),
            {"aligned": [answers(after)]},
            trained=["de"],
            resampling=FEW,
            bound=0.05,
        )
        assert row(found, "all")["verdict"] == verdict


def test_several_trainings_are_averaged_and_told_apart():
    before = np.zeros((30, 3))
    ones = [np.ones((30, 3)), np.zeros((30, 3))]
    found = gain(
        answers(before), {"aligned": [answers(v) for v in ones]}, trained=["en"], resampling=FEW
    )
    assert row(found, "de")["after"] == 0.5 and np.isnan(row(found, "de")["p_mcnemar"])
    runs = found.runs.query("condition == 'aligned' and language == 'all'")
    assert runs["value"].tolist() == [1.0, 0.0]


def test_other_items_are_refused():
    table = answers(drawn(10))
    with pytest.raises(ValueError, match="pairs need the same ones"):
        gain(table, {"aligned": [answers(drawn(9))]}, trained=["en"])
    with pytest.raises(ValueError, match="bound of 0"):
        gain(table, {"aligned": [table]}, trained=["en"], bound=0.0)
    with pytest.raises(ValueError, match="no answer in some language"):
        gain(table.drop(index=3), {"aligned": [table]}, trained=["en"])


def test_what_cannot_be_compared_is_named():
    before = answers(drawn())
    with pytest.raises(ValueError, match="controls holds nope; the conditions are aligned"):
        gain(before, {"aligned": [before]}, trained=["de"], controls=("nope",))
    half = Resampling(draws=50, confidence=0.5)
    with pytest.raises(ValueError, match=r"confidence is 0\.5; equivalence"):
        gain(before, {"aligned": [before]}, trained=["de"], resampling=half)


def test_bars_of_two_conditions_stand_apart():
    after = {"aligned": [answers(drawn(seed=1))], "shuffled": [answers(drawn(seed=2))]}
    fig = gain_bars(gain(answers(drawn()), after, trained=[], resampling=FEW))
    # Plotly parts groups across y only where the markers are told to lie along x.
    assert fig.layout.scattermode == "group"
    assert [trace.orientation for trace in fig.data] == ["h", "h"]
