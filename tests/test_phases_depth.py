"""Major relevance depth: the reference toy, its invariances, its switches, and planted models."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phase_kit import asked, bed, relevance

import xlens
from xlens import phases
from xlens.phases import DepthOptions, major_depth

_DEFAULT = {"measure": "cumulative", "share": 0.95, "sign": "abs", "embedding": False}
TOY = np.array([10, 5, 4, 0.5, 0.5])[:, None]
POINTS = (1, 2, 3, 4, 5)
profiles = hnp.arrays(
    float, st.tuples(st.integers(1, 12), st.just(1)), elements=st.floats(-100, 100, width=32)
)


def test_the_toy_of_the_methods():
    assert major_depth(TOY, POINTS) == 3  # 19 of 20 is exactly 95 %
    assert major_depth(TOY, POINTS, measure="percentile") == 1
    assert major_depth(-TOY, POINTS) == 3


@given(profiles, st.floats(1e-6, 1e6), st.sampled_from(["cumulative", "percentile"]))
def test_scale_and_sign_do_not_matter(profile, factor, measure):
    layers = range(len(profile))
    depth = major_depth(profile, layers, measure=measure)
    for other in (profile * factor, -profile):
        np.testing.assert_array_equal(depth, major_depth(other, layers, measure=measure))


@given(profiles, st.floats(0.01, 1), st.floats(0.01, 1))
def test_more_relevance_lies_deeper(profile, one, other):
    layers = range(len(profile))
    less, more = (major_depth(profile, layers, share=x) for x in sorted((one, other)))
    assert np.isnan(less).all() or (less <= more).all()


@given(profiles, st.integers(1, 5))
def test_layers_without_relevance_on_top_change_nothing(profile, n):
    higher = np.vstack([profile, np.zeros((n, 1))])
    np.testing.assert_array_equal(
        major_depth(profile, range(len(profile))), major_depth(higher, range(len(higher)))
    )


@given(profiles)
def test_depth_is_a_layer_that_holds_something(profile):
    depth = major_depth(profile, range(len(profile)))
    if not np.abs(profile).sum():
        assert np.isnan(depth).all()
    else:
        assert np.abs(profile[: int(depth[0]) + 1]).sum() > 0


def test_the_switches():
    mixed = np.array([[1.0, -9.0, 1.0]]).T
    assert major_depth(mixed, range(3), sign="positive", share=0.5) == 0
    assert major_depth(mixed, range(3), share=0.5) == 1
    assert major_depth(np.array([[100.0, 1.0, 1.0]]).T, range(3), embedding=False) == 2
    assert major_depth(np.array([[100.0, 1.0, 1.0]]).T, range(3)) == 0
    assert np.isnan(major_depth(-np.ones((3, 1)), range(3), sign="positive"))
    assert np.isnan(major_depth(np.array([[1.0, 0.0]]).T, range(2), embedding=False))
    # A sum that is 95 % but for rounding counts as 95 %.
    thirds = np.full((20, 1), 0.1) / 3
    assert major_depth(thirds, range(1, 21)) == 19


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "median"}, "measure is 'median'; accepted are"),
        ({"sign": "negative"}, "sign is 'negative'"),
        ({"share": 0.0}, "share is 0.0"),
        ({"normalise": "mean"}, "normalise is 'mean'"),
        ({"aggregate": "span"}, "aggregate is 'span'"),
    ],
)
def test_unknown_switches_are_refused(options, message):
    made = object.__new__(DepthOptions)  # the tests' type checker would refuse these first
    for name, value in ({"aggregate": "segment", "normalise": "none"} | _DEFAULT | options).items():
        object.__setattr__(made, name, value)
    with pytest.raises(ValueError, match=message):
        made.__post_init__()


def test_layers_and_rows_must_fit():
    with pytest.raises(ValueError, match="5 rows of relevance for the layers"):
        major_depth(TOY, (1, 2))
    with pytest.raises(ValueError, match="No layer is left"):
        major_depth(np.ones((1, 1)), (0,), embedding=False)


def scores():
    """Three prompts, 5 layers, 8 tokens: BOS, question [1, 3), context [3, 7), last."""
    tokens = np.full((5, 3, 8), 1e-3)
    tokens[:, :, 0] = 1000  # a sink
    tokens[:3, :, 1], tokens[:2, :, 2] = 1, 1  # layers 0 to 2, 0 to 1
    tokens[:4, :, 3:7] = 2
    return relevance(tokens, {"question": (1, 3), "context": (3, 7)})


def test_segments_and_tokens():
    found = phases.relevance_depth(scores())
    table = found.table.set_index(["segment", "prompt"])["depth"]
    assert (table["question"] == 2).all() and (table["context"] == 3).all()
    assert (found.table["share"] == found.table["depth"] / 4).all()
    each = phases.relevance_depth(scores(), options=DepthOptions(aggregate="tokens"))
    assert each.table.loc[each.table["segment"] == "question", "depth"].tolist() == [1.5] * 3
    with_embedding = phases.relevance_depth(
        scores(), segments=["question"], options=DepthOptions(embedding=True, share=0.35)
    )
    assert (with_embedding.table["depth"] == 0).all()
    shown = found.profiles.query("segment == 'question' and language == 'en'")
    assert shown["mean"].tolist() == pytest.approx([2, 2, 1.001, 0.002, 0.002])
    assert list(found.summary()["language"].unique()) == ["all", "en"]


def test_layers_are_normalised_without_bos():
    tokens = np.ones((5, 2, 4))
    tokens[:, :, 0] = np.array([1, 1, 1, 1, 1e6])[:, None]  # a sink that grows
    tokens[3:, :, 3] = 1000  # elsewhere, much happens in the last layers
    made = relevance(tokens, {"question": (1, 2), "context": (2, 3)})
    plain = phases.relevance_depth(made, segments=["question"])
    assert (plain.table["depth"] == 4).all()
    for how in ("sum", "max"):
        options = DepthOptions(normalise=how)
        found = phases.relevance_depth(made, segments=["question"], options=options)
        assert (found.table["depth"] == 2).all(), how
    with_bos = phases.relevance_depth(made, bos=False, options=DepthOptions(normalise="max"))
    assert with_bos.profiles["mean"].tolist()[4] == pytest.approx(1e-6)
    without = phases.relevance_depth(made, options=DepthOptions(normalise="max"))
    assert without.profiles["mean"].tolist()[4] == pytest.approx(1e-3)


def test_random_spans_of_the_same_length():
    made = scores()
    control = phases.random_span_depth(made, segments=["question"], n_spans=30)
    # Of the places left, [3, 5) to [6, 8): all hold context.
    assert control.kind == "random spans" and (control.table["depth"] == 3).all()
    full = phases.random_span_depth(made, segments=["context"])
    assert full.table["depth"].isna().all()  # no four tokens in a row are left
    with pytest.raises(ValueError, match="n_spans is 0"):
        phases.random_span_depth(made, n_spans=0)


def test_what_the_scores_lack_is_named():
    made = scores()
    with pytest.raises(ValueError, match="no slot 'answer:sum'"):
        phases.relevance_depth(made, segments=["answer"])
    with pytest.raises(ValueError, match="no slot 'answer:each'"):
        phases.relevance_depth(made, segments=["answer"], options=DepthOptions(aggregate="tokens"))


@pytest.mark.parametrize(("p", "r"), [(2, 4), (2, 5), (3, 5)])
def test_planted_depths_are_found(p, r, tmp_path):
    model = bed(depth=5, question_layer=p, answer_layer=r, noise=0.2)
    prompts = asked(model)["asked"]
    made = xlens.relevance(
        model.model,
        prompts.prompts,
        targets=list(prompts.answers),
        rule="attnlrp",
        slots=["question:sum", "context:sum"],
        progress=False,
    )
    found = phases.relevance_depth(made)
    depth = {segment: part["depth"] for segment, part in found.table.groupby("segment")}
    # A question whose tokens' relevances happen to cancel has a depth of nothing but noise.
    assert (depth["question"] == p - 1).mean() >= 0.85
    assert (depth["context"] == r - 1).all()
    found.save(tmp_path)
    again = phases.DepthResult.load(tmp_path)
    pd.testing.assert_frame_equal(again.table, found.table)
    pd.testing.assert_frame_equal(again.profiles, found.profiles)
    assert again.options == found.options
