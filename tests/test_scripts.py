"""Language or script: planted directions of both are told apart, by every measure."""

import numpy as np
import pandas as pd
import pytest
import torch

from xlens import subspace
from xlens.activations import Activations, SlotValues
from xlens.stats import Resampling
from xlens.subspace import by_relation, missing_relations, relation
from xlens.subspace.folds import Folds, products
from xlens.subspace.relations import chosen_pairs

TAGS = ("ace-Arab", "ace-Latn", "bjn-Arab", "bjn-Latn", "ar", "ar-Latn", "de", "fa")
TWINS = ("de-x-words", "de-x-letters", "ar-Latn-x-arab")
FEW = Resampling(draws=200)
SPREAD = 24 * 1.25  # variances of items and noise over 24 dimensions


def planted(language=2.0, script=1.0, n=60, d=24, noise=0.5, tags=TAGS, paragraphs=30, seed=0):
    """States that are item + language + script: directions of known lengths, at right angles."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    items = rng.standard_normal((n, d))
    names = {subspace.relations.Variety.of(t).language for t in tags}
    of = {name: basis[:, k] * language for k, name in enumerate(sorted(names))}
    rows, meta = [], []
    for tag in tags:
        said = subspace.relations.Variety.of(tag)
        at = basis[:, -1] * script * (1 if said.script == "Arab" else -1)
        mean = 0 * at if said.twin in ("words", "letters") else items
        rows.append(mean + of[said.language] + at + noise * rng.standard_normal((n, d)))
        meta += [
            {"id": str(i), "language": tag, "n_tokens": 9 + i % 7, "paragraph": i % paragraphs,
             "characters": 30 + i % 11}
            for i in range(n)
        ]  # fmt: skip
    values = torch.tensor(np.concatenate(rows), dtype=torch.float32)[None]
    places = torch.arange(values.shape[1] + 1)
    slot = SlotValues(values=values, offsets=places, positions=0 * places[1:])
    return Activations(
        slots={"last": slot}, layers=(0,), meta=pd.DataFrame(meta),
        fingerprint="planted", provenance={"model": "planted"},
    )  # fmt: skip


def row(found, measure, name, kind="value"):
    table = found.table
    return table[
        (table["measure"] == measure) & (table["relation"] == name) & (table["kind"] == kind)
    ].iloc[0]


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ("ace-Arab", "ace-Latn", "language"),
        ("arb-Arab", "ar-Latn", "language"),
        ("zh-Hans", "zh-Hant", "language"),
        ("zh-CN", "zh-Hans", ""),
        ("de", "fr", "script"),
        ("de", "ru", "neither"),
        ("de-x-words", "de", "words"),
        ("de", "de-x-letters", "letters"),
        ("fr", "de-x-words", ""),
        ("de-x-words", "de-x-letters", ""),
        ("ru", "ru-Latn-x-cyrl", "made"),
        ("sr-Latn", "sr-Latn-x-cyrl", ""),
    ],
)
def test_what_two_varieties_share(a, b, said):
    assert relation(a, b) == relation(b, a) == said


def test_like_is_compared_with_like():
    tags = ["ace-Arab", "ace-Latn", "de", "fr", "ru"]
    found = chosen_pairs(tags, most=99, seed=0)
    assert found["language"] == [(0, 1)]
    assert found["script"] == [(1, 2), (1, 3)], "de and fr have no variety of the same language"
    assert len(found["neither"]) == 4
    assert len(chosen_pairs(tags, most=2, seed=0)["neither"]) == 2


@pytest.mark.parametrize(("language", "script"), [(2.0, 1.0), (0.0, 1.5), (1.5, 0.0)])
def test_directions_of_known_lengths_are_recovered(language, script):
    found = subspace.script_control(planted(language, script), measures=["distance"])
    true = {"language": 4 * script**2, "script": 2 * language**2}
    true["neither"] = true["language"] + true["script"]
    for name, size in true.items():
        mine = row(found, "distance", name)
        assert mine["low"] - 0.01 <= size / SPREAD <= mine["high"] + 0.01
        assert mine["mean"] == pytest.approx(size / SPREAD, abs=0.06)
    share = found.share.iloc[0]
    whole = 2 * language**2 / (2 * language**2 + 4 * script**2)
    assert share["share"] == pytest.approx(whole, abs=0.05)


def test_distances_hold_no_noise_and_their_intervals_are_true():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(20):
        acts = planted(1.0, 0.5, noise=1.5, seed=seed)
        found = subspace.script_control(acts, measures=["distance"])
        mine = row(found, "distance", "language")
        spread = 24 * (1 + 1.5**2)
        inside += mine["low"] <= 1.0 / spread <= mine["high"]
    assert inside >= 17
    x = rng.standard_normal((2, 20, 3))
    folds = Folds(np.arange(20) % 5, 5)
    inner = products(folds.sums(x), folds.sizes)
    other = folds.of[:, None] != folds.of
    assert np.allclose(inner[0], np.einsum("vid,wjd,ij->vw", x, x, other) / other.sum())
    kept = other & (folds.of != 2)[:, None] & (folds.of != 2)
    assert np.allclose(inner[3], np.einsum("vid,wjd,ij->vw", x, x, kept) / kept.sum())


def test_every_measure_has_its_columns_and_twins_share_nothing():
    acts = planted(tags=(*TAGS, *TWINS))
    found = subspace.script_control(acts, resampling=FEW)
    assert set(found.table["relation"]) == set(subspace.relations.RELATIONS)
    for measure in ("cka_unbiased", "mexa_centred", "cosine_centred", "retrieval_centred"):
        alike, twin = row(found, measure, "language"), row(found, measure, "words")
        assert alike["mean"] > 0.6 and abs(twin["mean"]) < 0.2
        assert alike["low"] <= alike["mean"] <= alike["high"]
        assert row(found, measure, "made")["n_pairs"] == 1
    assert row(found, "direction", "language")["mean"] > row(found, "direction", "script")["mean"]
    plain = subspace.language_similarity(
        acts.select(languages=["ace-Arab", "ace-Latn"]), measures=["mexa_centred", "cka_unbiased"],
        n_controls=1, resampling=FEW,
    )  # fmt: skip
    matrix = found.similarity().matrix("cka_unbiased", 0)
    assert matrix.loc["ace-Arab", "ace-Latn"] == pytest.approx(plain.pick("cka_unbiased")["mean"])
    assert found.layers == (0,)


def test_length_is_taken_out_beside():
    acts = planted(0.0, 0.0)
    values = acts.slot("last").values
    arab = acts.meta["language"].str.contains("Arab|fa|ar$").to_numpy()
    lengths = np.where(arab, 20, 9) + np.random.default_rng(1).integers(0, 7, len(arab))
    values[0, :, 0] += torch.tensor(5.0 * np.log(lengths))
    acts = type(acts)(**{**acts.__dict__, "meta": acts.meta.assign(n_tokens=lengths)})
    found = subspace.script_control(acts, measures=["distance"])
    before, after = (row(found, "distance", "language", k)["mean"] for k in
                     ("value", "length_controlled"))  # fmt: skip
    assert before > 0.2 and abs(after) < 0.1 * before


@pytest.mark.parametrize(("language", "script", "right"), [(6.0, 0.0, 1.0), (0.0, 6.0, 0.0)])
def test_a_probe_that_reads_scripts_is_unmasked(language, script, right):
    found = subspace.script_probe(planted(language, script, noise=0.3), resampling=FEW)
    table = found.table[found.table["kind"] == "value"].set_index("asked")
    assert table.loc["own", "mean"] > 0.95, "where it was trained it looks like a language probe"
    assert table.loc["crossed", "mean"] == pytest.approx(right, abs=0.05)
    assert table.loc["crossed", "n"] == 6


def test_what_can_not_be_had_is_said():
    one = planted(tags=("de", "en", "fr"))
    found = subspace.script_control(one, measures=["mexa", "distance"], resampling=FEW)
    assert np.isnan(row(found, "distance", "language")["mean"])
    assert row(found, "distance", "language")["n_pairs"] == 0
    assert found.share["share"].isna().all()
    assert "one script (Latn)" in missing_relations(["de", "en", "fr"])[0]
    assert "No language is there in two scripts" in missing_relations(["de", "ru"])[0]
    assert not missing_relations(list(TAGS))
    with pytest.raises(ValueError, match="same two scripts"):
        subspace.script_probe(one)
    with pytest.raises(ValueError, match="accepted are"):
        subspace.script_control(one, measures=["cka"])


def test_any_table_of_pairs_has_the_columns():
    pairs = pd.DataFrame(
        [("de", "fr", 0.5), ("de", "ru", 0.1), ("ar", "ar-Latn", 0.3), ("de", "en", 0.7)],
        columns=["a", "b", "mean"],
    )
    neurons = pairs.rename(columns={"a": "first", "b": "second", "mean": "jaccard"})
    assert by_relation(neurons, "jaccard").equals(by_relation(pairs))
    found = by_relation(pairs).set_index("relation")
    assert found.loc["script", "mean"] == pytest.approx(0.6) and found.loc["script", "n"] == 2
    assert found.loc["language", "mean"] == 0.3 and found.loc["neither", "mean"] == 0.1
