"""What the last layers do: against numbers worked out by hand and models whose truth is known."""

import kit
import numpy as np
import pandas as pd
import pytest
import torch
from phase_kit import asked, bed, curves, relevance

import xlens
from xlens import phases
from xlens.phases import swap as swap_module
from xlens.stats import Resampling


def test_the_gap_between_languages_by_the_lens(tmp_path):
    made = curves({"readable": 6}, languages=["en", "de"], noise=0.2)
    german = (made.meta["language"] == "de").to_numpy()
    made.values[0, german] = made.values[0, ~german]
    made.values[0, german, 7:] -= 0.5
    found = phases.lens_gap(made)
    np.testing.assert_allclose(found.table["mean"], [0] * 7 + [0.5] * 2, atol=1e-12)
    assert found.table["language"].unique().tolist() == ["de"]
    # Prompt by prompt, with ids and paragraphs: what a comparison needs.
    assert found.meta.equals(made.meta[german].reset_index(drop=True))
    assert "paragraph" in found.meta and found.values.shape == (german.sum(), 9)
    with pytest.raises(ValueError, match="pivot='fr' is compared with other languages"):
        phases.lens_gap(made, pivot="fr")
    again = phases.LayerEffects.load(found.save(tmp_path))
    pd.testing.assert_frame_equal(again.table, found.table)
    compared = phases.compare_effects(again, found, resampling=Resampling(draws=5))
    assert (compared.table["difference"] == 0).all()


def test_what_the_pivots_state_gives_back():
    """In German answers an English state says the English word; the right one is lost."""
    made = bed(depth=4, question_layer=2, answer_layer=3, answer_language="question")
    found = phases.recovered(made.model, asked(made)["asked"], progress=False)
    table = found.table.set_index("layer")
    np.testing.assert_allclose(table["mean"][:2], 0, atol=1e-3)
    assert (table["mean"][2:] < -5).all() and (table["control"][2:] <= table["mean"][2:] + 1).all()
    assert len(found.meta) == 8 and found.meta["language"].nunique() == 1
    same = bed(depth=4, question_layer=2, answer_layer=3)
    table = phases.recovered(same.model, asked(same)["asked"], progress=False).table
    # With the same answer in both, nothing is lost; another question's state loses it.
    assert np.abs(table["mean"]).max() < 0.1
    assert (table.set_index("layer")["control"][2:] < -1).all()


def test_two_models_by_what_the_pivots_state_does():
    """One hands the question over at 2, the other at 3: at 2 alone they differ."""
    found = []
    for layer in (2, 3):
        made = bed(depth=4, question_layer=layer, answer_layer=4, answer_language="question")
        own = asked(made)["asked"]
        found.append(
            phases.recovered(made.model, own, progress=False, resampling=Resampling(draws=20))
        )
    table = phases.compare_effects(*found).table.query("language == 'all'").set_index("layer")
    assert table.loc[2, "difference"] > 5 and table.loc[2, "p"] < 0.05 and table.loc[2, "low"] > 5
    assert (table["difference"].drop(2).abs() < 1).all()


def test_late_relevance_by_hand():
    tokens = np.zeros((7, 2, 3))
    # As it is: nothing of a span is left where the scalar is read, at the last position.
    tokens[1:6, :, 1] = np.array([4, 3, 1, 1, -1])[:, None]
    tokens[:, :, 2] = 1
    scores = relevance(tokens, {"question": (1, 2), "tail": (2, 3)})
    found = phases.late_share(scores, last=[1, 2, 4])
    assert found.effect == "late relevance" and found.options["segment"] == "question"
    assert found.n_layers == 6
    table = found.table.set_index("layer")
    assert table["mean"].tolist() == pytest.approx([0.1, 0.2, 0.6])
    assert table["control"].tolist() == pytest.approx([0.2, 0.4, 0.8])
    higher = phases.late_share(scores, n_layers=7).table.iloc[0]  # layer 6 is no output then
    assert (higher["mean"], higher["control"]) == pytest.approx((0.1, 2 / 6))
    for last in (0, 5, []):
        with pytest.raises(ValueError, match="accepted are 1 to 4 of the 5 layers"):
            phases.late_share(scores, last=last)
    nothing = phases.late_share(relevance(np.zeros((4, 2, 3)), {"question": (1, 2)}), last=1)
    assert nothing.table["mean"].isna().all() and (nothing.table["n"] == 0).all()
    with pytest.raises(ValueError, match="No slot 'answer:sum'"):
        phases.late_share(scores, segment="answer")


@pytest.mark.parametrize(("question_layer", "answer_layer"), [(2, 5), (2, 4), (4, 5)])
def test_late_relevance_of_planted_models(question_layer, answer_layer):
    """A question matters below the point where it is handed over, a context till it is read."""
    made = bed(depth=5, question_layer=question_layer, answer_layer=answer_layer)
    own = asked(made)["asked"]
    scores = xlens.relevance(
        made.model,
        own.prompts,
        targets=list(own.answers),
        rule="attnlrp",
        slots=["question:sum", "context:sum", "last"],
        progress=False,
    )
    assert not scores.get("context:sum")[:, -1].any()  # why the output does not count
    shares = {
        name: phases.late_share(scores, segment=name, last=[1, 2]).table.groupby("layer").mean(True)
        for name in ("question", "context", "last")
    }
    assert shares["context"]["control"].tolist() == pytest.approx([1 / 4, 1 / 2])
    assert shares["last"]["control"].tolist() == pytest.approx([1 / 5, 2 / 5])
    # The last layer below the output is 4.
    for name, until in (("question", question_layer), ("context", answer_layer)):
        assert (shares[name].loc[1, "mean"] > 0.1) == (until > 4), name
        assert (shares[name].loc[2, "mean"] > 0.1) == (until > 3), name


def test_two_models_by_their_late_relevance():
    tokens = np.random.default_rng(0).uniform(0.5, 1, (6, 10, 3))
    tokens[-1, :, 1] = 0
    late = tokens.copy()
    late[4] *= 3
    made = [phases.late_share(relevance(x, {"question": (1, 2)}), last=1) for x in (tokens, late)]
    row = phases.compare_effects(*made).table.iloc[0]
    assert row["low"] > 0.1 and row["p"] < 0.01 and row["control"] == 0


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


def swaps(**options):
    """Block 1 looks up the answer in one, block 2 in the other: each lent the other's last."""
    one = bed(depth=3, question_layer=1, answer_layer=2, noise=0.2)
    other = bed(depth=3, question_layer=1, answer_layer=3, noise=0.2)
    own = asked(one)["asked"]
    options = {"progress": False, "resampling": Resampling(draws=200), **options}
    return (
        phases.layer_swap(one.model, other.model, own, **options),
        phases.layer_swap(other.model, one.model, own, **options),
    )


def test_what_swapped_blocks_change_is_paired_with_no_swap():
    for swap in swaps():
        value = swap.values - swap.values[:, :1]
        table = swap.table.set_index(["language", "layer"])
        for tag in swap.meta["language"].unique():
            here = (swap.meta["language"] == tag).to_numpy()
            assert table.loc[tag, "change"].tolist() == pytest.approx(value[here].mean(0))
            wrong = (swap.control - swap.control[:, :1])[here].mean(0)
            assert table.loc[tag, "control_change"].tolist() == pytest.approx(wrong)
        none = table.xs(0, level="layer")
        assert (none[["change", "change_low", "change_high", "control_change"]] == 0).all(axis=None)
        assert (table["change_low"] <= table["change"] + 1e-9).all()
        assert (table["change"] <= table["change_high"] + 1e-9).all()
    # Without its own last block the second model never looks the answer up.
    lost = table.xs(1, level="layer")
    assert (lost["change_high"] < -1).all()
    only = swaps(last=[2])[0]
    assert only.layers == (0, 2)  # what it is compared with is always run


def test_two_models_by_what_they_lend():
    first, second = swaps()
    change = phases.compare_effects(
        first, second, change=True, resampling=Resampling(draws=200)
    ).table
    level = phases.compare_effects(first, second, resampling=Resampling(draws=200)).table
    change, level = (
        table.query("language == 'all'").set_index("layer") for table in (change, level)
    )
    assert (change.loc[0, ["difference", "low", "high"]] == 0).all() and change.loc[0, "p"] == 1
    assert change.loc[1, "high"] < -1 and change.loc[1, "p"] < 0.05
    wanted = level["difference"] - level.loc[0, "difference"]
    assert change["difference"].tolist() == pytest.approx(wanted.tolist())


def test_what_cannot_be_swapped_is_refused_before_anything_runs(monkeypatch):
    made = bed(depth=3, question_layer=1, answer_layer=2)
    deeper = bed(depth=4, question_layer=1, answer_layer=2)
    own = asked(made)["asked"]
    monkeypatch.setattr(swap_module, "harvest", lambda *_args, **_kwargs: pytest.fail("ran"))
    for other, options, message in (
        (kit.fresh("llama"), {}, "differ in shape"),
        (deeper.model, {"last": [4]}, "accepted are 0 to 3 blocks"),
        (made.model, {"last": [-1]}, "last is -1"),
        (made.model, {"resampling": Resampling(clusters="article")}, "no column"),
    ):
        with pytest.raises(ValueError, match=message):
            phases.layer_swap(made.model, other, own, **options)
