"""Stability, two models side by side, last layers: against numbers worked out by hand."""

from dataclasses import replace

import kit
import numpy as np
import pandas as pd
import pytest
import torch
from phase_kit import asked, bed, curves, meta, relevance
from scipy.stats import pearsonr, spearmanr

import xlens
from xlens import phases


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
        options={},
    )


EN = ([2, 2, 4, 4], [6, 6, 6, 6])
DE = ([3, 3, 5, 5], [4, 6, 5, 7])


def test_indices_by_hand():
    found = phases.stability(depth({"en": EN, "de": DE}), n_boot=50)
    value = found.table.set_index(["index", "language"])["value"]
    assert value["S1_question", "en"] == pytest.approx(-0.1)
    assert value["S1_context", "en"] == 0
    assert value["S1_gap", "de"] == pytest.approx(-np.std([1, 3, 0, 2]) / 10)
    assert value["S2", "de"] == pytest.approx(-0.1)
    assert value["S3", "all"] == pytest.approx(-0.05)
    assert (value["S5", "en"], value["S5", "de"]) == (1.0, 0.75)
    assert ("S2", "en") not in value.index and "S4" not in set(found.table["index"])
    inside = found.table["low"] <= found.table["high"]
    assert inside.all() and found.draws.shape == (len(found.table), 50)


def test_pairs_are_by_id():
    """An item that German lacks is not compared; the others are with their own."""
    made = depth({"en": EN, "de": DE})
    table = made.table
    lacks = (table["language"] == "de") & (table["id"] == "q0")
    less = replace(made, table=table[~lacks].reset_index(drop=True))
    value = phases.stability(less, n_boot=5).table.set_index(["index", "language"])["value"]
    assert value["S2", "de"] == pytest.approx(-abs(13 / 3 - 10 / 3) / 10)


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
    found = phases.stability(made, scores, n_boot=5).table.set_index("index")
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


def stabilities(n: int = 3):
    rng = np.random.default_rng(0)
    return {
        f"m{m}": phases.stability(
            depth(
                {
                    x: (rng.integers(1, 5, 6).tolist(), rng.integers(5, 9, 6).tolist())
                    for x in ("en", "de", "es", "ru")
                }
            ),
            n_boot=100,
        )
        for m in range(n)
    }


def test_correlations_over_cells_and_models(tmp_path):
    found = stabilities()
    rng = np.random.default_rng(1)
    rows = []
    for model, one in found.items():
        table = one.table.set_index(["index", "language"])["value"]
        for language in ("en", "de", "es", "ru"):
            score = 3 * table["S1_question", language] + 0.05 * rng.normal()
            rows.append({"model": model, "language": language, "f1": score})
    scores = pd.DataFrame(rows)
    result = phases.correlate(found, scores, n_boot=300)
    table = result.table.set_index(["index", "coefficient"])
    cells = result.cells[result.cells["index"] == "S1_question"]
    for name, function in (("pearson", pearsonr), ("spearman", spearmanr)):
        row = table.loc[("S1_question", name)]
        assert row["value"] == pytest.approx(function(cells["stability"], cells["score"]).statistic)
        assert row["low"] < row["value"] < row["high"] <= 1 and row["n"] == 12 and not row["small"]
    assert table.loc[("S1_question", "pearson"), "low"] > 0.3
    assert table.loc[("S2", "pearson"), "n"] == 9 and table.loc[("S2", "pearson"), "small"]
    assert table.loc[("S3", "pearson"), "n"] == 3
    result.save(tmp_path)
    again = phases.StabilityCorrelation.load(tmp_path)
    pd.testing.assert_frame_equal(again.table, result.table)


def test_correlations_over_items_resample_stability_and_scores_together():
    found = stabilities(2)
    rows = [
        {"model": m, "language": x, "id": f"q{i}", "f1": float(i % 2)}
        for m in found
        for x in ("en", "de", "es", "ru")
        for i in range(6)
    ]
    result = phases.correlate(found, pd.DataFrame(rows), over="items")
    # The same scores everywhere: no correlation is defined, whatever is drawn.
    assert result.table["value"].isna().all()
    for row in rows:
        row["f1"] = float(hash((row["model"], row["language"])) % 97) + 0.001 * int(row["id"][1:])
    result = phases.correlate(found, pd.DataFrame(rows), over="items")
    kept = result.table.dropna(subset=["low"])
    assert (kept["low"] <= kept["high"]).all() and not kept.empty
    with pytest.raises(ValueError, match=r"scores lacks the columns \['id'\]"):
        phases.correlate(found, pd.DataFrame(rows).drop(columns="id"), over="items")
    with pytest.raises(ValueError, match="scores has no row of 'm0' in 'de'"):
        phases.correlate(found, pd.DataFrame([r for r in rows if r["language"] != "de"][:30]))


# --- two models ---


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
        found = phases.compare_curves(one, other, n_boot=10, n_flips=300)
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


# --- last layers ---


def test_the_gap_between_languages_by_the_lens():
    made = curves({"readable": 6}, languages=["en", "de"], noise=0.2)
    german = (made.meta["language"] == "de").to_numpy()
    made.values[0, german, 7:] -= 0.5
    made.values[0, german] += made.values[0, ~german] - made.values[0, german] * 1.0
    made.values[0, german, 7:] -= 0.5
    found = phases.lens_gap(made)
    np.testing.assert_allclose(found.table["mean"], [0] * 7 + [0.5] * 2, atol=1e-12)
    assert found.table["language"].unique().tolist() == ["de"]
    with pytest.raises(ValueError, match="pivot='fr' is compared with other languages"):
        phases.lens_gap(made, pivot="fr")


def test_what_the_pivots_state_gives_back():
    """In German answers an English state says the English word; the right one is lost."""
    made = bed(depth=4, question_layer=2, answer_layer=3, answer_language="question")
    found = phases.recovered(made.model, asked(made)["asked"], progress=False)
    table = found.table.set_index("layer")
    np.testing.assert_allclose(table["mean"][:2], 0, atol=1e-3)
    assert (table["mean"][2:] < -5).all() and (table["control"][2:] <= table["mean"][2:] + 1).all()
    same = bed(depth=4, question_layer=2, answer_layer=3)
    table = phases.recovered(same.model, asked(same)["asked"], progress=False).table
    # With the same answer in both, nothing is lost; another question's state loses it.
    assert np.abs(table["mean"]).max() < 0.1
    assert (table.set_index("layer")["control"][2:] < -1).all()


def test_late_relevance():
    tokens = np.zeros((6, 2, 3))
    tokens[1:, :, 1] = np.array([4, 3, 1, 1, -1])[:, None]
    scores = relevance(tokens, {"question": (1, 2)})
    row = phases.late_share(scores, segments=["question"], last=2).iloc[0]
    assert row["share"] == pytest.approx(0.2) and row["uniform"] == pytest.approx(0.4)
    with pytest.raises(ValueError, match="last is 5; accepted are 1 to 4"):
        phases.late_share(scores, segments=["question"], last=5)


def test_swapped_blocks_come_back():
    one = bed(depth=3, question_layer=1, answer_layer=2)
    other = bed(depth=3, question_layer=1, answer_layer=3)
    model, own = one.model, asked(one)["asked"]
    before, theirs = model.fingerprint, other.model.fingerprint
    kept = [p.data_ptr() for p in model.hf_model.parameters()]
    with phases.swapped_blocks(model, other.model, 2):
        assert model.fingerprint != before
        top = model.blocks[-1].state_dict()
        assert all(torch.equal(v, top[k]) for k, v in other.model.blocks[-1].state_dict().items())
        first = model.blocks[0].state_dict()
        assert all(v is not other.model.blocks[0].state_dict()[k] for k, v in first.items())
    assert model.fingerprint == before and other.model.fingerprint == theirs
    with pytest.raises(RuntimeError, match="stop"), phases.swapped_blocks(model, other.model, 3):
        raise RuntimeError("stop")
    assert [p.data_ptr() for p in model.hf_model.parameters()] == kept
    assert model.fingerprint == before
    # All blocks of the other are the other, where the ends are the same.
    swap = phases.layer_swap(model, other.model, own, progress=False)
    assert swap.table["layer"].unique().tolist() == [0, 1, 2, 3]
    mean = swap.table.groupby("layer")["mean"].mean()
    # Block 1 looks up the answer in one model, block 2 in the other.
    assert mean[0] > -1 and mean[1] > -1 and mean[3] > -1
    with (
        pytest.raises(ValueError, match="accepted are 0 to 3 blocks"),
        phases.swapped_blocks(model, other.model, 4),
    ):
        pass
    bigger = kit.fresh("llama")
    with (
        pytest.raises(ValueError, match="differ in shape"),
        phases.swapped_blocks(model, bigger, 1),
    ):
        pass
    assert xlens.harvest(model, own.prompts, progress=False).fingerprint == before
