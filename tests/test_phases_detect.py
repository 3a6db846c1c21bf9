"""The detector on curves made to order: exact steps, calibrated tests, nothing clipped."""

import inspect
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phase_kit import curves

from xlens import phases
from xlens.phases import KINDS, detect_phases
from xlens.phases.steps import best_step
from xlens.stats import Resampling

QUESTION = [k for k, v in KINDS.items() if v.edge == "question"]
ANSWER = [k for k, v in KINDS.items() if v.edge == "answer"]
FEW = {"resampling": Resampling(draws=200), "n_flips": 300}


def detect(made, **options):
    return detect_phases(made, **(FEW | options))


@settings(max_examples=25)
@given(st.integers(2, 24), st.data())
def test_steps_are_found_exactly(n_layers, data):
    p = data.draw(st.integers(1, n_layers - 1))
    r = data.draw(st.integers(p + 1, n_layers))
    steps = dict.fromkeys(QUESTION, p) | dict.fromkeys(ANSWER, r)
    found = detect(curves(steps, n=7, n_layers=n_layers))
    row = found.row()
    assert row["found"] and (row["question"], row["answer"], row["gap"]) == (p, r, r - p)
    assert (row["question_low"], row["answer_high"]) == (p, r)
    wanted = [p if KINDS[k].edge == "question" else r for k in found.edges["kind"]]
    assert found.edges["value"].tolist() == wanted
    assert (found.agreement["difference"] == 0).all()
    tested = found.edges[found.edges["basis"] != "untested"]
    assert tested["p_adjusted"].tolist() == pytest.approx([2**-7] * len(tested))


def test_a_step_that_moves_by_one_is_found_one_further():
    one, other = (detect(curves({"patch_question": p, "ablate_context": 6})).row() for p in (3, 4))
    assert other["question"] - one["question"] == 1 and one["gap"] - other["gap"] == 1


def test_within_one_layer_under_noise():
    off = []
    for seed in range(40):
        made = curves(
            {"patch_question": 3, "ablate_question": 3, "patch_last_context": 6},
            n=20,
            noise=0.7,
            seed=seed,
        )
        row = detect(made, resampling=Resampling(draws=50)).row()
        off.append(max(abs(row["question"] - 3), abs(row["answer"] - 6)) if row["found"] else 9)
    assert np.mean(np.array(off) <= 1) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("per_paragraph", [1, 3])
def test_noise_alone_has_no_structure(per_paragraph):
    """At every edge no more than the level promises, so of both together far fewer."""
    steps = dict.fromkeys(["patch_question", "ablate_question", "relevance_question"], 3)
    steps |= dict.fromkeys(["patch_last_context", "ablate_context"], 6)
    found = [
        detect(
            curves(steps, n=24, noise=1, size=0, per_paragraph=per_paragraph, seed=seed),
            resampling=Resampling(draws=20),
        ).row()
        for seed in range(200)
    ]
    assert np.mean([row["found"] for row in found]) <= 0.02
    for edge in ("question", "answer"):
        # 5 % of 200 and three standard errors.
        assert np.mean([row[f"p_{edge}"] < 0.05 for row in found]) <= 0.096
    assert {row["why"] for row in found if not row["found"]} <= {
        "no evidence that the question is handed over",
        "no evidence that the answer is retrieved",
        "no evidence that the answer is retrieved after the hand-over",
    }


def test_copies_of_a_prompt_are_no_evidence():
    """Four paragraphs of ten copies each weigh as four prompts, not as forty."""
    steps = {"patch_question": 3, "ablate_context": 6}
    one = curves(steps, n=4, noise=0.1)
    many = one.take(np.repeat(np.arange(4), 10))
    many = replace(many, meta=many.meta.assign(id=[f"q{i}" for i in range(40)]))
    row = detect(many).row()
    assert row["p_question"] == pytest.approx(2**-4) and not row["found"]
    assert detect(many, resampling=Resampling(clusters="id")).row()["p_question"] < 0.01


@pytest.mark.parametrize("r", [2, 3])
def test_an_answer_that_is_not_later_is_reported_as_it_is(r):
    found = detect(curves({"patch_question": 3, "ablate_context": r}))
    row = found.row()
    assert row["gap"] == r - 3 and not row["found"]
    assert row["why"] == "no evidence that the answer is retrieved after the hand-over"
    assert row["p_order"] == row["p"] == 1
    assert "no two-phase structure found (p = 1: no evidence that the answer" in found.verdict()


def test_a_boundary_without_an_interval_is_told_without_one():
    few = curves({"patch_question": 3, "ablate_context": 6}, n=3)
    found = detect(few, resampling=Resampling(confidence=0.5))
    assert np.isnan(found.row()["question_low"]) and found.found()
    assert found.verdict() == (
        "two phases: question handed over at 3, answer retrieved at 6 of 8 (p = 0.12)"
    )


GRADED = ("patch_last_question", "ablate_question", "patch_last_context", "ablate_context")


def graded(shapes, n_layers=18, n=20):
    """Curves that go from nothing to all as x to the power of `shapes[edge]`, with some noise."""
    made = curves(dict.fromkeys(GRADED, 1), n=n, n_layers=n_layers)
    x = np.arange(n_layers + 1) / n_layers
    rng = np.random.default_rng(0)
    rows = []
    for kind in GRADED:
        shape = x ** shapes[KINDS[kind].edge]
        shape = shape if KINDS[kind].rises else 1 - shape
        rows.append(10 * shape + rng.normal(size=(n, n_layers + 1)))
    return replace(made, values=np.stack(rows), kinds=GRADED)


@pytest.mark.parametrize("answer", [1, 2])
def test_a_model_that_answers_right_without_phases_has_none(answer):
    """Both curves grow all the way: their best steps differ, but there are no steps."""
    row = detect(graded({"question": 1, "answer": answer})).row()
    assert not row["found"] and row["gradual"] > 0.9
    if answer == 2:
        assert row["gap"] > 0 and row["p_order"] < 0.05
        assert row["why"].startswith("the change is gradual")


def test_slopes_that_are_short_are_steps():
    """A change within a third of the layers is a step for this purpose."""
    x = np.arange(19)
    made = graded({"question": 1, "answer": 1})
    rng = np.random.default_rng(1)
    rows = []
    for kind in GRADED:
        start = 3 if KINDS[kind].edge == "question" else 9
        shape = np.clip((x - start) / 6, 0, 1)
        shape = shape if KINDS[kind].rises else 1 - shape
        rows.append(10 * shape + rng.normal(size=(20, 19)))
    row = detect(replace(made, values=np.stack(rows))).row()
    assert row["found"] and 4 <= row["gap"] <= 6 and row["gradual"] < 0.05


def test_order_is_judged_within_pairs_of_one_kind():
    """Ablation sees everything two layers earlier than patching; the pairs agree on the gap."""
    steps = {"patch_last_question": 5, "ablate_question": 3}
    steps |= {"patch_last_context": 6, "ablate_context": 4}
    row = detect(curves(steps, noise=0.05)).row()
    assert row["gap_basis"] == "matched" and row["gap"] == 1 and row["p_order"] < 0.05
    alone = detect(curves({"patch_question": 3, "ablate_context": 4})).row()
    assert alone["gap_basis"] == "medians"
    # By medians over unlike kinds there would be a gap; by the one pair there is none.
    unlike = {"ablate_question": 5, "patch_question": 3, "ablate_context": 5}
    assert not detect(curves(unlike)).row()["found"]


def test_layers_that_were_not_looked_at_widen_the_interval():
    made = curves({"patch_question": 3, "ablate_context": 7}, n_layers=10)
    kept = [0, 2, 4, 6, 8, 10]
    some = replace(
        made, values=made.values[..., kept], control=made.control[..., kept], layers=tuple(kept)
    )
    row = detect(some).row()
    assert (row["question_low"], row["question"], row["question_high"]) == (3, 4, 4)
    assert (row["answer_low"], row["answer"], row["answer_high"]) == (7, 8, 8)


def test_the_wrong_direction_is_no_step():
    made = curves({"patch_question": 3, "ablate_context": 6})
    upside_down = detect(replace(made, values=-made.values)).edges
    assert not upside_down["found"].any()
    # Less wrong than before is not right.
    below = detect(replace(made, values=made.values - 5)).edges
    assert below["value"].isna().all() and (below["p"] == 1).all()


def test_what_is_constant_has_no_step():
    made = curves({"patch_question": 3, "ablate_context": 6})
    flat = replace(made, values=np.ones_like(made.values))
    row = detect(flat).row()
    assert not row["found"] and np.isnan(row["question"]) and row["p"] == 1


def test_causal_evidence_decides_where_there_is_any():
    steps = {"aligned_last": 1, "patch_question": 4, "readable": 5, "ablate_context": 7}
    row = detect(curves(steps)).row()
    assert (row["question"], row["answer"]) == (4, 7)
    assert row["question_basis"] == row["answer_basis"] == "causal"
    row = detect(curves(steps), kinds=["aligned_last", "readable"]).row()
    assert (row["question"], row["answer"]) == (1, 5) and row["found"]
    assert row["question_basis"] == row["answer_basis"] == "observed"
    # What can be read but has no effect is no phase structure.
    made = curves(steps)
    made.values[made.index("ablate_context")] = 0
    row = detect(made).row()
    assert not row["found"] and row["why"] == "no evidence that the answer is retrieved"
    # What has no control of its own decides nothing.
    row = detect(curves({"depth_question": 3, "depth_context": 6})).row()
    assert not row["found"] and row["p"] == 1


def test_kinds_that_disagree_are_shown_to():
    steps = {"patch_question": 2, "ablate_question": 3, "patch_last_question": 5}
    found = detect(curves(steps | {"ablate_context": 7, "depth_context": 8}))
    assert found.row()["question"] == 3  # the median
    table = found.agreement.set_index(["first", "second"])["difference"]
    assert table["patch_question", "patch_last_question"] == 3
    assert table["patch_question", "ablate_question"] == 1
    assert table["ablate_context", "depth_context"] == 1
    # The range of the kinds is not the sampling interval.
    assert found.row()["question_low"] == found.row()["question_high"] == 3


def test_languages_apart_and_together():
    made = curves({"patch_question": 3, "ablate_context": 6}, languages=["en", "de"], noise=0.1)
    german = (made.meta["language"] == "de").to_numpy()
    made.values[0, german] = np.roll(made.values[0, german], 2, axis=1)
    made.values[0, german, :2] = 1
    found = detect(made)
    assert list(found.phases["language"]) == ["all", "en", "de"]
    assert (found.row("en")["question"], found.row("de")["question"]) == (3, 5)
    assert found.edges.query("language == 'de'")["n"].tolist() == [12, 12]
    assert found.found("de") and "question handed over at 5" in found.verdict("de")
    with pytest.raises(ValueError, match="No language 'fr' here"):
        found.row("fr")


def test_prompts_without_evidence_are_left_out():
    made = curves({"patch_question": 3, "ablate_context": 6})
    made.values[0, :4] = np.nan
    edges = detect(made).edges.set_index("kind")
    assert edges["n"].to_dict() == {"patch_question": 8, "ablate_context": 12}
    assert edges["value"].tolist() == [3, 6]
    made.values[0] = np.nan
    found = detect(made)
    assert found.edges["kind"].tolist() == ["ablate_context"] and not found.found()


def test_the_same_seed_gives_the_same_result(tmp_path):
    made = curves({"patch_question": 3, "readable": 6}, noise=0.5)
    one, again, other = (detect(made, resampling=Resampling(draws=200, seed=s)) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(one.edges, again.edges)
    assert not one.edges.equals(other.edges)
    one.save(tmp_path)
    loaded = phases.PhaseResult.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.phases, one.phases)
    pd.testing.assert_frame_equal(loaded.to_frame(), one.phases)
    assert loaded.layers == one.layers and loaded.verdict() == one.verdict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["relevance"]}, "No evidence of kind 'relevance' here; there is"),
        ({"resampling": Resampling(clusters="page")}, "clusters='page' is no column"),
        ({"n_flips": 0}, "n_flips is 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        detect(curves({"patch_question": 3}), **options)


def test_curves_are_joined_cut_and_summarised(tmp_path):
    made = curves({"patch_question": 3, "readable": 6}, languages=["en", "de"], noise=0.1)
    again = phases.join_curves([made.take(range(24), [k]) for k in made.kinds])
    np.testing.assert_array_equal(again.values, made.values)
    frame = made.to_frame()
    picked = frame[(frame.kind == "readable") & (frame.id == "q3") & (frame.language == "de")]
    assert picked["value"].tolist() == made.get("readable", "values")[7].tolist()
    summary = made.summary()
    english = made.get("readable")[(made.meta["language"] == "en").to_numpy()]
    table = summary.pick("readable", "en").query("part == 'excess'")
    np.testing.assert_allclose(table["mean"], english.mean(0))
    assert ((table["low"] <= table["mean"]) & (table["mean"] <= table["high"])).all()
    with pytest.raises(ValueError, match="No evidence of kind 'readable' in language 'fr'"):
        summary.pick("readable", "fr")
    with pytest.raises(ValueError, match="occur twice"):
        phases.join_curves([made, made])
    with pytest.raises(ValueError, match="about other prompts"):
        phases.join_curves([made, made.take(range(23))])
    with pytest.raises(ValueError, match="has layers"):
        phases.join_curves([made, curves({"ablate_context": 2}, n_layers=4)])
    made.save(tmp_path)
    loaded = phases.Curves.load(tmp_path)
    np.testing.assert_array_equal(loaded.excess, made.excess)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=20), st.booleans())
def test_the_best_step_is_the_best(curve, rises):
    """Against every split, computed one by one."""
    values = np.array(curve)
    (at,), (size,) = inspect.unwrap(best_step)(values[None], rises=rises)
    n, best = len(values), 0.0
    for k in range(1, n):
        low, high = values[:k].mean(), values[k:].mean()
        low, high = (low, high) if rises else (high, low)
        if high > low and high > 0:
            best = max(best, k * (n - k) / n * (high - low) ** 2)
    assert size == pytest.approx(best, rel=1e-6, abs=1e-6)
    assert (at == -1) == (size == 0)
