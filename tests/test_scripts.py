"""Language or script: planted directions of both are told apart, by every measure."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from xlens import figures, subspace
from xlens.activations import Activations, SlotValues
from xlens.neurons import LanguageNeurons, neuron_overlap
from xlens.report.cells import number
from xlens.report.neurons import told as neurons_told
from xlens.report.subspace import _probe, distance_tables, script_table, told
from xlens.stats import Resampling
from xlens.subspace import by_relation, missing_relations, related_pairs, relation
from xlens.subspace.folds import Folds, products
from xlens.subspace.relations import Variety, chosen_pairs, in_two_scripts
from xlens.subspace.scripts import _share, _together
from xlens.wording import percent

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
    rows = []
    for tag in tags:
        said = subspace.relations.Variety.of(tag)
        at = basis[:, -1] * script * (1 if said.script == "Arab" else -1)
        mean = 0 * at if said.twin in ("words", "letters") else items
        rows.append(mean + of[said.language] + at + noise * rng.standard_normal((n, d)))
    return held(rows, tags, paragraphs)


def held(rows, tags, paragraphs=30):
    """States of varieties at one layer, `[item, d_model]` of each."""
    meta = [
        {"id": str(i), "language": tag, "n_tokens": 9 + i % 7, "paragraph": i % paragraphs,
         "characters": 30 + i % 11}
        for tag, mine in zip(tags, rows, strict=True)
        for i in range(len(mine))
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


def said_by_the_page(parts):
    """Findings on columns, on shares, and on the probe."""
    (section,) = told("m", parts)
    texts = [finding.plain for finding in section.blocks[0].items]
    kinds = [text.split()[0] for text in texts]
    assert kinds == sorted(kinds, key=["At", "By", "A"].index)
    return [[t for t in texts if t.startswith(f"{kind} ")] for kind in ("At", "By", "A")]


@pytest.mark.parametrize(
    ("language", "script", "reads"),
    [
        (6.0, 0.0, "it reads the language more than the script"),
        (0.0, 6.0, "it reads the script more than the language"),
        (3.0, 3.0 / 2**0.5, "that it reads the one more than the other can't be told"),
    ],
)
def test_the_page_says_which_is_read(language, script, reads):
    acts = planted(language, script, noise=0.3)
    control = subspace.script_control(acts, resampling=FEW)
    probe = subspace.script_probe(acts, resampling=FEW)
    columns, shares, probed = said_by_the_page({"scripts": control, "script-probe": probe})
    assert columns[0].startswith("At layer 0, MEXA, centred (share): same language, other script ")
    share = control.share.query("measure == 'distance' and kind == 'value'").iloc[0]["share"]
    assert f", {percent(share)} [" in shares[-1] and "survives a change of script" in shares[-1]
    assert probed[0].endswith(f"with the scripts swapped: {reads}.")


def test_where_some_languages_are_told_and_others_not_no_mean_speaks_for_them():
    """Acehnese and Banjar lie together, Arabic apart from both: planted, beside the script."""
    rng, tags = (
        np.random.default_rng(0),
        ("ace-Arab", "ace-Latn", "ar", "ar-Latn", "bjn", "bjn-Arab"),
    )

    def states(tag: str) -> np.ndarray:
        variety = Variety.of(tag)
        middle = np.zeros(24)
        middle[:2] = 4 * (variety.script == "Arab"), 8 * (variety.language == "ar")
        return middle + 0.3 * rng.normal(size=(40, 24))

    probe = subspace.script_probe(held([states(tag) for tag in tags], tags), resampling=FEW)
    squares = probe.squares[probe.squares["kind"] == "value"]
    near = squares["first"].str.startswith("ar") | squares["second"].str.startswith("ar")
    assert (squares.loc[near, "mean"] > 0.95).all() and (squares.loc[~near, "mean"] < 0.05).all()
    (said,) = _probe(probe)
    assert "from 0 % (ace-" in said and "to 100 % (" in said
    assert said.endswith("; more the language in 4 of 6 pairs.")
    fig = figures.script_probe_curves(probe)
    thin = sorted(list(trace.y) for trace in fig.data if trace.name.startswith("trained on "))
    assert thin == sorted([mean] for mean in squares["mean"]), "a point a layer, of one kind"


def test_subspaces_are_compared_by_what_two_varieties_share():
    """Each language varies along axes of its own, whatever script it is in: planted."""
    rng, tags, n, d = np.random.default_rng(0), ("ace-Arab", "ace-Latn", "ar", "ar-Latn"), 200, 48
    tags = (*tags, "ace-Latn-x-words", "de")
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    axes = {"ace": basis[:, :3], "ar": basis[:, 3:6], "de": basis[:, 6:9]}
    rows = [
        3 * rng.normal(size=(n, 3)) @ axes[Variety.of(tag).language].T
        + 0.1 * rng.normal(size=(n, d))
        for tag in tags
    ]
    acts = held(rows, tags)
    assert in_two_scripts(tags) == [*tags[:-1]]
    assert in_two_scripts(["de", "ru", "de-x-words"]) == []
    few = acts.select(languages=list(tags[:-1]))
    found = subspace.related_pairs(
        subspace.subspace_distances(few, measures=["chordal", "mean_shift"], n_controls=2)
    )
    mean = found.table.set_index(["measure", "kind", "relation"])["mean"]
    assert mean["chordal", "value", "language"] < 0.3 < 1.6 < mean["chordal", "value", "script"]
    assert mean["chordal", "value", "words"] < 0.3 < 1.0 < mean["chordal", "random", "language"]
    (table,) = distance_tables({"distances": found})
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["chordal distance"][0] == number(mean["chordal", "value", "language"])
    assert {"chordal distance: shuffled languages", "distance of means (spreads)"} <= set(rows)
    assert list(distance_tables({})) == []


def test_where_sharing_a_script_makes_nothing_more_alike_no_share_is_said():
    found = subspace.script_control(planted(), resampling=FEW)
    none = replace(found, share=found.share.assign(share=np.nan))
    columns, shares, _ = said_by_the_page({"scripts": none})
    assert len(columns) == len(shares) == 3
    assert all("no share is the language's or the script's at layer 0" in text for text in shares)
    one = subspace.script_control(planted(tags=("de", "fr", "ru")), resampling=FEW)
    columns, shares, _ = said_by_the_page({"scripts": one})
    assert len(columns) == 3 and not shares, "there is none to miss"
    rows = one.table[one.table["relation"] != "language"]  # a run's, of many varieties
    columns, shares, _ = said_by_the_page({"scripts": replace(one, table=rows)})
    assert len(columns) == 3 and not shares


def test_a_share_needs_both_to_make_something_more_alike():
    # by language, script and neither: of similarities, then of distances
    means = np.array([[0.5, 0.3, 0.1], [0.4, 0.1, 0.25], [0.1, 0.4, 0.25], [0.2, 0.2, 0.2]])
    assert _share(means)[0] == pytest.approx(0.4 / 0.6) and np.isnan(_share(means)[1:]).all()
    away = np.array([[1.0, 3.0, 4.0], [-0.1, 3.0, 3.0], [1.0, -0.1, 1.0]])
    assert _share(away, distance=True) == pytest.approx([0.75, 1.0, 0.0])


def test_figures_have_a_line_for_every_relation():
    acts = planted(tags=(*TAGS, *TWINS))
    control = subspace.script_control(acts, measures=["cka_unbiased", "distance"], resampling=FEW)
    fig = figures.script_columns(control)
    named = [trace.name for trace in fig.data if trace.showlegend]
    assert named == list(subspace.relations.RELATIONS.values())
    drawn = {(trace.name, trace.xaxis) for trace in fig.data}
    assert {(name, axis) for name in named for axis in ("x", "x2")} <= drawn
    assert fig.layout.annotations[1].text == "squared distance of means<br>(variances)"
    with pytest.raises(ValueError, match="No \\['cka'\\] of kind 'value' here"):
        figures.script_columns(control, ["cka"])
    probe = subspace.script_probe(acts, resampling=FEW)
    fig = figures.script_probe_curves(probe)
    lines = {trace.name: trace.y[0] for trace in fig.data if trace.showlegend}
    table = probe.table[probe.table["kind"] == "value"].set_index("asked")["mean"]
    assert lines == {"scripts as trained": table["own"], "scripts swapped": table["crossed"]}


def test_varieties_stand_by_script_and_by_what_lies_together():
    found = subspace.script_control(planted(tags=TAGS), measures=["cka_unbiased"], resampling=FEW)
    tags = [tag for tag in found.languages if tag not in TWINS]
    scripts = [subspace.relations.Variety.of(tag).script for tag in found.similarity().languages]
    assert sorted(found.similarity().languages) == sorted(tags)
    assert scripts == sorted(scripts), "each script in one piece"
    order = _together(
        ["a", "b", "c", "d"],
        pd.Series({("a", "b"): 0.1, ("a", "c"): 0.9, ("a", "d"): 0.1, ("b", "c"): 0.1,
                   ("b", "d"): 0.8, ("c", "d"): 0.1}),
    )  # fmt: skip
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset("ac"), frozenset("bd")}
    family = {tag: "one" if tag.startswith(("ace", "ar", "fa")) else "two" for tag in tags}
    mine = found.similarity(family).languages
    assert [family[tag] for tag in mine] == ["one"] * 5 + ["two"] * 3, "families before scripts"
    with pytest.raises(ValueError, match="No family of fa"):
        found.similarity({tag: "one" for tag in tags if tag != "fa"})


@pytest.mark.parametrize("language, script", [(6.0, 1.0), (1.0, 6.0)])
def test_on_the_map_varieties_lie_apart_by_what_was_planted(language, script):
    activations = planted(language, script, tags=TAGS)
    drawn = subspace.language_map(activations, n_controls=1)
    apart = drawn.apart()
    assert len(apart) == len(TAGS) * (len(TAGS) - 1) / 2
    means = by_relation(apart).set_index("relation")["mean"]
    # The map's first axis is the larger of the two: pairs that differ in it lie apart on it.
    larger, other = ("script", "language") if language > script else ("language", "script")
    assert means[larger] > 1.5 * means[other]
    control = subspace.script_control(activations, measures=["distance"], resampling=FEW)
    table = script_table({"scripts": control, "map": drawn})
    row = next(row for row in table.rows if row[0].startswith("distance on the map"))
    assert row[3:5] == [f"{means['language']:.2f}", f"{means['script']:.2f}"]


def test_neurons_of_two_scripts_stand_by_what_their_varieties_share():
    """Planted: every unit is of a script, none of a language."""
    units = {"ace-Arab": (1, 2, 3), "bjn-Arab": (1, 2, 3), "ace-Latn": (5, 6), "bjn-Latn": (5, 6)}
    units["ace-Latn-x-words"] = (5, 6)
    rows = [(t, 0, u, 0.5, 0.5, 0.0) for t, own in units.items() for u in own]
    found = LanguageNeurons(
        provenance={"model": "planted"},
        table=pd.DataFrame(
            rows, columns=["language", "layer", "unit", "probability", "mean", "entropy"]
        ),
        counts=pd.DataFrame([(t, 0, len(own)) for t, own in units.items()],
                            columns=["language", "layer", "n"]),
        tokens=dict.fromkeys(units, 1000), threshold=0.1, kept=5, width=10, layers=(0,),
        languages=tuple(units), site="mlp_gate",
    )  # fmt: skip
    related = related_pairs(neuron_overlap(found), "jaccard")
    means = related.table.set_index("relation")["mean"].to_dict()
    assert means == {"language": 0.0, "script": 1.0, "neither": 0.0, "words": 1.0}
    assert related.missing() == []
    said = neurons_told("m", {"neurons": found, "overlap-scripts": related})[0].blocks[0].items
    assert "same language, other script 0.00 (2 pairs)" in said[1].plain
    assert "other language, same script 1.00 (2 pairs)" in said[1].plain
    few = replace(found, languages=("ace-Arab", "bjn-Arab"))
    assert "one script" in related_pairs(neuron_overlap(few), "jaccard").missing()[0]
