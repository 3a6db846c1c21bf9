"""Questions about one passage hang together: intervals draw them together, whatever is asked."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from xlens import subspace
from xlens.consistency import consistency, option_scores
from xlens.report.choices import findings
from xlens.stats import Resampling
from xlens.studies.steering import SteeringStudy
from xlens.studies.steps.steering import check_steering
from xlens.studies.steps.steering_effects import summarised
from xlens.subspace.cka import Kernel, cka, cka_interval, unbiased_without
from xlens.subspace.states import parallel
from xlens.tasks.choices import Choices, LatentOptions, choice_prompts
from xlens.testbed.planted import planted_activations

N, EACH = 12, 4
FEW = Resampling(draws=60)
BY_ID = Resampling(draws=60, clusters="id")
PASSAGE = {f"{p}#{q}": f"{p}#0" for p in range(N) for q in range(EACH)}


def made(context) -> Choices:
    rows = [
        {"id": id, "language": tag, "question": f"{tag} {id}?", "gold": 0}
        | {"options": [f"{tag} {id} {x}" for x in "ab"], "context": context(tag, id)}
        for id in PASSAGE
        for tag in ("en", "de")
    ]
    return Choices(pd.DataFrame(rows), "test")


@pytest.fixture(scope="module")
def passages() -> Choices:
    return made(lambda tag, id: f"{tag} text {id.partition('#')[0]}")


def width(row, low="low", high="high") -> float:
    return float(row[high] - row[low])


def test_items_with_one_context_are_of_one_passage(passages):
    assert passages.paragraphs == PASSAGE
    assert made(lambda *_: "").paragraphs == {id: id for id in PASSAGE}
    prompts, _ = choice_prompts(passages, "de")
    assert {p.id: p.meta["paragraph"] for p in prompts} == PASSAGE


def scored(per_passage: bool) -> pd.DataFrame:
    """Right in all questions of a passage or in none."""
    rng = np.random.default_rng(0)
    right = dict(zip(dict.fromkeys(PASSAGE.values()), rng.random(N) < 0.5, strict=True))
    rows = [
        {"id": id, "language": tag, "candidate": c, "logprob": float(c != right[passage])}
        for tag in ("en", "de")
        for id, passage in PASSAGE.items()
        for c in (0, 1)
    ]
    table = pd.DataFrame(rows)
    return table.assign(paragraph=table["id"].map(PASSAGE)) if per_passage else table


def test_agreement_of_answers_is_drawn_by_passage():
    gold = dict.fromkeys(PASSAGE, 0)
    tables = []
    for per_passage, how in ((True, FEW), (True, BY_ID), (False, FEW)):
        panel = consistency(option_scores(scored(per_passage), gold), resampling=how)
        tables.append(panel)
    whole, by_id, alone = (t.languages.iloc[0] for t in tables)
    assert width(whole) > 1.5 * width(by_id) and width(by_id) == width(alone)
    assert [t.provenance["n_clusters"] for t in tables] == [N, N * EACH, N * EACH]
    said = [" ".join(findings(panel)) for panel in tables]
    assert f"the {N * EACH} items for independent, though these are of {N} texts" in said[0]
    assert "independent" not in said[1]


def test_options_inside_are_drawn_by_passage():
    rng = np.random.default_rng(0)
    level = dict(zip(dict.fromkeys(PASSAGE.values()), rng.random(N), strict=True))
    items = pd.DataFrame(
        [
            {"id": id, "language": "de", "layer": 1, "share": level[passage]}
            | {"share_control": 0.5, "right_native": 1.0, "right_pivot": 1.0}
            for id, passage in PASSAGE.items()
        ]
    )
    none = pd.DataFrame(columns=["set", "id", "language", "option"])
    found = LatentOptions(
        provenance={}, options=none, items=items, dropped=pd.DataFrame(), pivot="en",
        gold={}, paragraphs=PASSAGE,
    )  # fmt: skip
    whole = found.summary(resampling=FEW).table.iloc[0]
    alone = replace(found, paragraphs={}).summary(resampling=FEW).table.iloc[0]
    assert width(whole) > 1.5 * width(alone)


def test_changes_by_steering_are_drawn_by_passage():
    rng = np.random.default_rng(0)
    level = dict(zip(dict.fromkeys(PASSAGE.values()), rng.random(N), strict=True))
    items = pd.DataFrame(
        [
            {"language": "de", "vector": "de", "condition": c, "id": id, "paragraph": passage}
            | {"accuracy": level[passage] * (c != "none"), "consistency": 0.0, "transfer": np.nan}
            | {"same_wrong": 0.0, "gold_nll": 1.0}
            for id, passage in PASSAGE.items()
            for c in ("none", "v")
        ]
    )
    rows = [
        summarised(table, resampling=FEW).set_index(["condition", "metric"]).loc["v", "accuracy"]
        for table in (items, items.drop(columns="paragraph"))
    ]
    whole, alone = (width(row, "change_low", "change_high") for row in rows)
    assert whole > 1.5 * alone


def test_estimation_choice_and_test_share_passages_where_one_ends_only(passages):
    study = SteeringStudy(n_estimate=20, n_dev=12, n_test=16)
    parts = pd.Series(check_steering(passages, study))
    of = parts.groupby(parts.index.map(PASSAGE)).nunique()
    assert parts.value_counts().to_dict() == {"estimate": 20, "dev": 12, "test": 16}
    assert (of > 1).sum() <= 2


@pytest.fixture(scope="module")
def acts():
    found = planted_activations(languages=2, n_items=N * EACH, d_model=16).activations
    return replace(found, meta=found.meta.assign(paragraph=found.meta["id"].str[-1]))


def test_states_of_one_passage_are_drawn_together(acts):
    assert list(parallel(acts).meta["id"]) == list(parallel(acts).ids)
    alone = replace(acts, meta=acts.meta.drop(columns="paragraph"))
    ends = [
        subspace.language_similarity(
            x, measures=["cka", "cosine"], resampling=FEW, n_controls=1
        ).table
        for x in (acts, alone)
    ]
    tables = [t[t["kind"] == "value"].to_dict("records") for t in ends]
    for whole, single in zip(*tables, strict=True):
        assert whole["mean"] == pytest.approx(single["mean"])
        assert abs(width(whole) - width(single)) > 1e-3


def test_the_jackknife_of_cka_leaves_whole_clusters_out():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 20, 6))
    clusters = np.repeat(np.arange(5), 4)
    z = float(norm.ppf(0.975))
    for unbiased in (False, True):
        one, other = (Kernel.of(s, unbiased=unbiased) for s in (x, y))
        each = np.array(
            [
                cka(*(Kernel.of(s[clusters != c], unbiased=unbiased) for s in (x, y)))
                for c in range(5)
            ]
        )
        error = np.sqrt(4 / 5 * ((each - each.mean()) ** 2).sum())
        low, _ = cka_interval(one, other, z=z, clusters=clusters)
        assert low == pytest.approx(cka(one, other) - z * error)
        by_item = cka_interval(one, other, z=z, clusters=np.arange(20))
        assert by_item == cka_interval(one, other, z=z)
    few = np.repeat(np.arange(2), 10)
    assert np.isnan(cka_interval(one, other, z=z, clusters=few)).all()


def test_cka_of_many_sets_without_each_group_is_that_of_the_rest():
    rng = np.random.default_rng(2)
    states = rng.normal(size=(4, 30, 8)) + 3 * rng.normal(size=(30, 8))
    states[3] = 1.0
    of = rng.permutation(np.arange(30) % 7)
    groups = [np.flatnonzero(of == g) for g in range(7)]
    kernels = [Kernel.of(x, unbiased=True) for x in states]
    rests = [np.arange(30), *(np.flatnonzero(of != g) for g in range(7))]
    expected = [
        [[cka(a.only(rest), b.only(rest)) for b in kernels] for a in kernels] for rest in rests
    ]
    found = unbiased_without(states, groups)
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-9)
    assert np.isnan(found[:, 3]).all()  # it doesn't vary
    alone = unbiased_without(states[:, :5], [np.arange(2), np.arange(2, 5)])
    assert np.isnan(alone[1:]).all()  # three items are left, and two
    assert np.isfinite(alone[0, :3, :3]).all()


def test_probes_do_not_know_a_passage_from_training(acts):
    """Each passage's states are alike: with passages split, every item would be recognised."""
    seen = []

    class Spy:
        def get_params(self, deep=True):
            return {}

        def fit(self, states, languages):
            seen.append(len(states))
            return self

        def predict(self, states):
            return np.array(["en"] * len(states))

    with pytest.raises(ValueError, match="are of 10 texts, which are not split"):
        subspace.language_probe(acts, classifier=Spy(), n_splits=11, n_controls=1, resampling=FEW)
    ids = list(dict.fromkeys(acts.meta["id"]))
    long = acts.meta["id"].map(lambda id: "long" if id in ids[:20] else id)
    uneven = replace(acts, meta=acts.meta.assign(paragraph=long))
    subspace.language_probe(uneven, classifier=Spy(), n_splits=4, n_controls=1, resampling=FEW)
    # Twenty of the items are held out together, where folds would have twelve each.
    assert min(seen) == 2 * (N * EACH - 20)
