"""Two models side by side: curves, depth, and what the last layers do."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from phase_kit import curves, meta

from xlens import phases
from xlens.stats import Resampling


def depth(by_language: dict[str, tuple[list[float], list[float]]], n_layers: int = 10):
    """Question and context depths of the items in every language."""
    parts = []
    languages = list(by_language)
    n = len(by_language[languages[0]][0])
    table = meta(n, languages)
    for s, segment in enumerate(("question", "context")):
        found = [
            by_language[x][s][int(i[1:])] for i, x in zip(table.id, table.language, strict=True)
        ]
        parts.append(
            table.assign(
                prompt=range(len(table)),
                segment=segment,
                depth=found,
                share=np.array(found) / n_layers,
            )
        )
    return phases.DepthResult(
        provenance={},
        table=pd.concat(parts, ignore_index=True),
        profiles=pd.DataFrame(),
        n_layers=n_layers,
        options={"measure": "cumulative", "share": 0.95},
    )


EN = ([2, 2, 4, 4], [6, 6, 6, 6])
DE = ([3, 3, 5, 5], [4, 6, 5, 7])
ES = ([1, 1, 3, 3], [6, 6, 6, 6])


def test_differences_are_paired_and_tested():
    base = curves({"patch_question": 3, "readable": 6}, n=16, noise=0.5)
    values = base.values.copy()
    values[1, :, 6:] += 1.0
    post = replace(base, values=values)
    found = phases.compare_curves(base, post.take(np.arange(16)[::-1]))
    table = found.table.set_index(["kind", "layer"])
    np.testing.assert_allclose(table.loc["patch_question", "difference"], 0, atol=1e-12)
    np.testing.assert_allclose(table.loc["readable", "difference"], [0] * 6 + [1] * 3, atol=1e-12)
    # Every prompt differs by the same: the pairing takes all other noise away.
    assert (table.loc["readable", "p"] < 0.01).tolist() == [False] * 6 + [True] * 3
    assert (table.loc["patch_question", "p"] == 1).all()
    np.testing.assert_allclose(table["second"] - table["first"], table["difference"])
    with pytest.raises(ValueError, match="models of one shape can be compared"):
        phases.compare_curves(base, curves({"readable": 2}, n_layers=4))
    with pytest.raises(ValueError, match="both models have"):
        phases.compare_curves(base, post, kinds=["aligned_last"])


def test_no_difference_is_found_where_there_is_none():
    wrong = 0
    for seed in range(60):
        one, other = (curves({"readable": 4}, n=14, noise=1, seed=2 * seed + i) for i in (0, 1))
        found = phases.compare_curves(one, other, resampling=Resampling(draws=10), n_flips=300)
        wrong += (found.table["p"] < 0.05).any()  # at any of nine layers
    assert wrong / 60 <= 0.14


def test_depths_are_compared_as_shares():
    base, post = depth({"en": EN, "de": DE}), depth({"en": DE, "de": DE}, n_layers=20)
    table = phases.compare_depth(base, post).table.set_index(["segment", "language"])
    assert table.loc[("question", "en"), "difference"] == pytest.approx(4 / 20 - 3 / 10)
    assert table.loc[("question", "de"), "difference"] == pytest.approx(4 / 20 - 4 / 10)
    assert table.loc[("question", "all"), "n"] == 8
    with pytest.raises(ValueError, match="read differently"):
        phases.compare_depth(base, replace(post, options={"sign": "positive"}))


# --- last layers: how these are made, tests/test_phases_last_layers.py shows ---


def gaps(extra: float = 0.0, *, seed: int = 0, noise: float = 1.0, n: int = 16):
    """Lens gaps of two languages that open at layer 6, in German wider by `extra` from 7 on."""
    made = curves({"readable": 6}, n=n, languages=["en", "de", "ru"], noise=noise, seed=seed)
    tags = made.meta["language"]
    made.values[0, tags == "ru", 6:] -= 1
    made.values[0, tags == "de", 6:] -= 1
    made.values[0, tags == "de", 7:] -= extra
    made.control[0, tags == "de", 8] += 0.25 * extra
    return made


def test_last_layer_effects_are_paired_by_prompt(tmp_path):
    first = phases.lens_gap(gaps())
    post = gaps(0.5)
    shuffled = np.random.default_rng(0).permutation(len(post.meta))[:-5]  # and some are missing
    second = phases.lens_gap(post.take(shuffled))
    found = phases.compare_effects(first, second, resampling=Resampling(draws=100))
    assert (found.effect, found.options) == ("lens gap", {"pivot": "en", "kind": "readable"})
    table = found.table.set_index(["language", "layer"])
    # Prompts differ much, each from itself not at all: the pairing takes the noise away.
    np.testing.assert_allclose(table.loc["de", "difference"], [0] * 7 + [0.5] * 2, atol=1e-12)
    np.testing.assert_allclose(table.loc["ru", "difference"], 0, atol=1e-12)
    np.testing.assert_allclose(table.loc["de", "control"], [0] * 8 + [-0.125], atol=1e-12)
    assert (table.loc["de", "p"] < 0.01).tolist() == [False] * 7 + [True] * 2
    assert (table.loc["ru", "p"] == 1).all()
    pairs = set(zip(second.meta["id"], second.meta["language"], strict=True))
    assert table.loc[("all", 0), "n"] == len(pairs) < 32
    np.testing.assert_allclose(table["second"] - table["first"], table["difference"], atol=1e-12)
    assert (
        (table["low"] <= table["difference"] + 1e-12)
        & (table["difference"] <= table["high"] + 1e-12)
    ).all()
    again = phases.PairedEffects.load(found.save(tmp_path))
    pd.testing.assert_frame_equal(again.table, found.table)
    assert again.names == found.names and not again.change


def test_no_difference_of_effects_is_found_where_there_is_none():
    wrong = 0
    for seed in range(40):
        one, other = (
            phases.lens_gap(gaps(seed=2 * seed + i, n=14), resampling=Resampling(draws=5))
            for i in (0, 1)
        )
        found = phases.compare_effects(one, other, resampling=Resampling(draws=5), n_flips=300)
        wrong += (found.table.query("language == 'de'")["p"] < 0.05).any()
    assert wrong / 40 <= 0.15


def test_clusters_of_the_effects_are_resampled_whole():
    """Four questions about each paragraph that say the same are no four questions."""
    wide = []
    for per_paragraph in (1, 4):
        made = curves({"readable": 6}, n=32, languages=["en", "de"], per_paragraph=per_paragraph)
        shift = np.random.default_rng(0).normal(size=8)[made.meta["id"].str[1:].astype(int) // 4]
        german = (made.meta["language"] == "de").to_numpy()
        made.values[0, german] += shift[german, None]
        one = phases.lens_gap(curves({"readable": 6}, n=32, languages=["en", "de"]))
        other = phases.lens_gap(made)
        row = phases.compare_effects(other, one).table.iloc[0]
        wide.append(row["high"] - row["low"])
    assert wide[1] > 1.5 * wide[0]
    with pytest.raises(ValueError, match="clusters='article' is no column"):
        phases.compare_effects(one, other, resampling=Resampling(clusters="article"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"effect": "recovered"}, "the effects lens gap and recovered"),
        ({"options": {"pivot": "de", "kind": "readable"}}, "the options"),
        ({"layers": tuple(range(1, 10))}, "the layers"),
        ({"n_layers": 9}, "the numbers of blocks 8 and 9"),
    ],
)
def test_effects_of_another_kind_are_refused(changed, message):
    first = phases.lens_gap(gaps(), resampling=Resampling(draws=5))
    with pytest.raises(ValueError, match=message):
        phases.compare_effects(first, replace(first, **changed))


def test_nothing_to_compare_is_said():
    first = phases.lens_gap(gaps(), resampling=Resampling(draws=5))
    with pytest.raises(ValueError, match="share no prompt"):
        phases.compare_effects(first, replace(first, meta=first.meta.assign(id="x")))
    with pytest.raises(ValueError, match="No prompt has a lens gap at every layer"):
        phases.compare_effects(first, replace(first, values=first.values * np.nan))
    with pytest.raises(ValueError, match="Changes are those from 0 swapped blocks"):
        phases.compare_effects(first, first, change=True)
    nothing = curves({"readable": 6})
    nothing.values[:] = np.nan
    with pytest.raises(ValueError, match=r"No prompt has evidence of \['readable'\]"):
        phases.compare_curves(nothing, nothing)
