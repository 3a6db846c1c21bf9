"""Similarity, correlation, distances, probes, maps: against planted truth and plain references."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.linalg import sqrtm, subspace_angles

from xlens import subspace
from xlens.stats import Resampling
from xlens.subspace import LIR, LSAR, LanguageMap, LanguagePairs, LanguageProbe, LDAAxes, PooledPCA
from xlens.subspace.cka import Kernel, _left_out, cka, cka_interval
from xlens.subspace.controls import mismatch, mismatch_of_same_length, shuffled_languages, without
from xlens.subspace.states import parallel
from xlens.testbed.planted import planted_activations

seeds = st.integers(0, 100)


@pytest.fixture(scope="module")
def bed():
    """Languages come together in the middle."""
    return planted_activations(
        languages=4, n_items=40, d_model=32, semantic_rank=5, offset=(3.0, 0.3, 3.0), noise=0.4
    )


@pytest.fixture(scope="module")
def similar(bed):
    return subspace.language_similarity(bed.activations)


@pytest.fixture(scope="module")
def unrelated():
    """States of different items in each language: nothing is parallel, though ids say so."""
    return planted_activations(
        languages=3, n_items=40, d_model=32, semantic=0.0, specific=0.0, offset=0.0, noise=1.0
    ).activations


def changed(acts, change):
    """The activations with other states: `change(states of a layer, language) -> states`."""
    slot = acts.slot("last")
    values = slot.values.clone()
    languages = acts.meta["language"].to_numpy()
    for layer in range(len(values)):
        for tag in acts.languages:
            rows = np.flatnonzero(languages == tag)
            states = values[layer, rows].double().numpy()
            values[layer, rows] = type(values)(change(states, tag)).to(values.dtype)
    return replace(acts, slots={"last": replace(slot, values=values)})


def with_lengths(acts, lengths):
    """The activations with a length for each id."""
    meta = acts.meta.assign(n_tokens=[lengths[i] for i in acts.meta["id"]])
    return replace(acts, meta=meta)


def turn(seed, d=32):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


# --- CKA ---


def biased_reference(X, Y):
    X, Y = X - X.mean(0), Y - Y.mean(0)
    top = np.linalg.norm(Y.T @ X) ** 2
    return top / (np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y))


def unbiased_reference(X, Y):
    def hsic(K, L):
        n = len(K)
        K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
        one = np.ones(n)
        terms = np.trace(K @ L) + (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
        return (terms - 2 / (n - 2) * (one @ K @ L @ one)) / (n * (n - 3))

    K, L = X @ X.T, Y @ Y.T
    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=st.integers(6, 30), widths=st.tuples(st.integers(2, 40), st.integers(2, 40)))
def test_cka_is_the_plain_formula(seed, n, widths):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, widths[0])) + 3
    Y = rng.standard_normal((n, widths[1])) + np.outer(X[:, 0], rng.standard_normal(widths[1]))
    assert subspace.linear_cka(X, Y) == pytest.approx(biased_reference(X, Y), abs=1e-9)
    # Equal rows, whose mean misses them by a rounding, don't vary.
    still = np.full((len(X), 3), 0.1)
    assert np.isnan(subspace.linear_cka(still, still + 1 / 3))
    assert np.isnan(subspace.linear_cka(still, Y))
    found = subspace.linear_cka(X, Y, unbiased=True)
    wanted = unbiased_reference(X, Y)
    assert found == pytest.approx(wanted, abs=1e-6) or np.isnan(found) or abs(wanted) > 10


@settings(max_examples=20, deadline=None)
@given(seed=seeds, scale=st.floats(1e-3, 1e5), unbiased=st.booleans())
def test_cka_sees_no_rotation_scale_shift_or_row_order(seed, scale, unbiased):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((25, 8)), rng.standard_normal((25, 8))
    Y += X
    value = subspace.linear_cka(X, Y, unbiased=unbiased)
    rows = rng.permutation(25)
    moved = scale * (Y @ turn(seed, 8) + rng.standard_normal(8))
    again = subspace.linear_cka(X[rows], moved[rows], unbiased=unbiased)
    assert again == pytest.approx(value, abs=1e-6)
    copy = scale * (X @ turn(seed, 8) + 5)
    assert subspace.linear_cka(X, copy, unbiased=unbiased) == pytest.approx(1, abs=1e-9)


def test_unbiased_cka_of_unrelated_states_is_about_nothing():
    rng = np.random.default_rng(0)
    found = {False: [], True: []}
    for _ in range(30):
        X, Y = rng.standard_normal((20, 60)), rng.standard_normal((20, 60))
        for unbiased, values in found.items():
            values.append(subspace.linear_cka(X, Y, unbiased=unbiased))
    assert min(found[False]) > 0.6  # fewer items than dimensions
    assert abs(np.mean(found[True])) < 0.03


@pytest.mark.parametrize("unbiased", [False, True])
def test_the_jackknife_leaves_out_each_item(unbiased):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((12, 5))
    Y = X @ rng.standard_normal((5, 7)) + rng.standard_normal((12, 7))
    x, y = (Kernel.of(s, unbiased=unbiased) for s in (X, Y))
    quick = _left_out(x, y) / np.sqrt(_left_out(x, x) * _left_out(y, y))
    keep = [np.delete(np.arange(12), i) for i in range(12)]
    slow = [subspace.linear_cka(X[k], Y[k], unbiased=unbiased) for k in keep]
    assert np.allclose(quick, slow)
    low, high = cka_interval(x, y, z=1.96)
    error = np.sqrt(11 / 12 * ((slow - np.mean(slow)) ** 2).sum())
    assert low == pytest.approx(cka(x, y) - 1.96 * error) and high <= 1


def test_cka_refuses_what_it_cannot_pair():
    with pytest.raises(ValueError, match="X has 6 items and Y 5"):
        subspace.linear_cka(np.ones((6, 2)), np.ones((5, 2)))
    with pytest.raises(ValueError, match="at least 5"):
        subspace.linear_cka(np.eye(4), np.eye(4))
    assert np.isnan(subspace.linear_cka(np.ones((6, 2)), np.eye(6)))


# --- similarity ---


def slow(states, layer, a, b, measure):
    """The measure item by item."""
    X, Y = states.layer(layer)[[states.languages.index(a), states.languages.index(b)]]
    if measure.endswith("centred"):
        X, Y = X - X.mean(0), Y - Y.mean(0)
    n = len(X)
    c = np.array([[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in Y] for x in X])
    if measure.startswith("cosine"):
        return np.mean([c[i, i] for i in range(n)])
    forth = [all(c[i, i] > c[i, j] for j in range(n) if j != i) for i in range(n)]
    back = [all(c[i, i] > c[j, i] for j in range(n) if j != i) for i in range(n)]
    if measure == "retrieval":
        return (np.mean(forth) + np.mean(back)) / 2
    return np.mean([f and b for f, b in zip(forth, back, strict=True)])


def test_similarity_is_what_a_slow_reading_gives(bed, similar):
    states = parallel(bed.activations)
    X, Y = states.layer(1)[0], states.layer(1)[2]
    at = {"layer": 1, "a": states.languages[0], "b": states.languages[2]}
    for measure in similar.measures:
        table = similar.pick(measure)
        row = table[(table[list(at)] == pd.Series(at)).all(axis=1)]
        value = float(row["mean"].iloc[0])
        if measure == "cka":
            assert value == pytest.approx(biased_reference(X, Y), abs=1e-6)
        elif measure == "cka_unbiased":
            assert value == pytest.approx(unbiased_reference(X, Y), abs=1e-6)
        else:
            assert value == pytest.approx(slow(states, 1, at["a"], at["b"], measure), abs=1e-6)
        assert row["low"].iloc[0] <= value <= row["high"].iloc[0]


def test_offsets_are_seen_by_raw_cosine_and_by_nothing_centred(similar):
    def mean(measure, kind="value"):
        return similar.pick(measure, kind).groupby("layer")["mean"].mean()

    raw = mean("cosine")
    assert raw[1] > 0.6 > 0.3 > max(raw[0], raw[2])
    for measure in ("cka", "cka_unbiased", "cosine_centred"):
        assert mean(measure).max() - mean(measure).min() < 0.05
    # Planted: semantic 1, specific 0.25, noise 0.16 as variances; a cosine of about 1 / 1.41.
    assert mean("cosine_centred")[1] == pytest.approx(1 / 1.41, abs=0.05)
    for measure in similar.measures:
        for kind in ("mismatched", "same_length"):
            assert (mean(measure, kind) < mean(measure) - 0.05).all()
    assert mean("mexa_centred", "mismatched").max() < 0.05
    assert np.abs(mean("cka_unbiased", "mismatched")).max() < 0.05


def test_without_structure_nothing_is_above_its_control(unrelated):
    result = subspace.language_similarity(unrelated, n_controls=40)
    inside = 0
    for measure in result.measures:
        value = result.pick(measure).set_index(["layer", "a", "b"])
        control = result.pick(measure, "mismatched").set_index(["layer", "a", "b"])
        inside += (value["mean"] >= control["low"] - 1e-9).mean()
        above = value["mean"] > control["high"] + 0.05
        assert above.sum() <= 1, measure
    assert np.abs(result.pick("cka_unbiased")["mean"].mean()) < 0.05
    assert result.pick("mexa")["mean"].mean() < 0.1


@settings(max_examples=6, deadline=None)
@given(seed=seeds)
def test_similarity_sees_no_row_order_and_no_rotation(seed):
    acts = planted_activations(
        languages=2, n_items=20, n_layers=1, d_model=32, noise=0.3
    ).activations
    rng = np.random.default_rng(seed)
    shuffled = acts.take(rng.permutation(len(acts)))
    shuffled = shuffled.take(np.argsort(shuffled.meta["language"].to_numpy(dtype=str))[::-1])
    turned = changed(acts, lambda x, _: 7 * x @ turn(seed))
    results = [subspace.language_similarity(a, n_controls=1) for a in (acts, shuffled, turned)]
    for a, b in pairwise(results):
        values = [r.table[r.table["kind"] == "value"]["mean"].to_numpy() for r in (a, b)]
        assert np.allclose(*values, atol=1e-5)


def test_rotated_copies_have_cka_one_and_low_cosine():
    acts = planted_activations(languages=2, n_layers=1, specific=0.0, n_items=60, d_model=32)
    acts = changed(acts.activations, lambda x, tag: x if tag == "en" else x @ turn(1))
    result = subspace.language_similarity(acts)
    assert result.pick("cka")["mean"].item() == pytest.approx(1, abs=1e-5)
    assert result.pick("cka_unbiased")["mean"].item() == pytest.approx(1, abs=1e-5)
    assert abs(result.pick("cosine_centred")["mean"].item()) < 0.5
    assert result.pick("mexa")["mean"].item() < 0.3


def test_length_alone_is_taken_out():
    """States that are 1/T along one axis, and noise: all that is similar is the length."""
    acts = planted_activations(
        languages=2, n_items=150, n_layers=1, d_model=32, semantic=0.0, specific=0.0, noise=1.0
    ).activations
    lengths = {i: 4 + n % 30 for n, i in enumerate(sorted(set(acts.meta["id"])))}
    axis = np.eye(32)[0]
    for part in (acts,):
        rows = np.array([lengths[i] for i in part.meta["id"]])
        slot = part.slot("last")
        values = slot.values + (slot.values.new_tensor(200 * np.outer(1 / rows, axis)))[None]
        acts = replace(part, slots={"last": replace(slot, values=values)})
    acts = with_lengths(acts, lengths)
    result = subspace.language_similarity(acts, measures=["cka_unbiased", "cosine_centred"])

    def number(found, measure, kind, column="mean"):
        return found.pick(measure, kind)[column].item()

    assert number(result, "cka_unbiased", "value") > 0.9
    assert number(result, "cka_unbiased", "same_length") > 0.9
    assert number(result, "cka_unbiased", "mismatched") < 0.1
    assert abs(number(result, "cka_unbiased", "length_controlled")) < 0.1
    scores = subspace.score_correlation(acts, pooling="last", center="language")
    for measure in ("pearson_1", "spearman_1"):
        assert number(scores, measure, "value") > 0.95
        assert number(scores, measure, "same_length", "low") > 0.9
        assert abs(number(scores, measure, "mismatched")) < 0.1
    assert abs(number(scores, "pearson_1", "length_controlled")) < 0.2
    assert scores.components["length"].item() > 0.8


def test_what_is_not_defined_is_nan():
    acts = planted_activations(languages=2, n_items=16, n_layers=1).activations
    still = changed(acts, lambda x, tag: np.ones_like(x) if tag == "en" else x)
    result = subspace.language_similarity(still)
    defined = result.table[result.table["kind"] == "value"].set_index("measure")["mean"].notna()
    assert set(defined.index[defined]) == {"cosine", "retrieval", "mexa"}
    nothing = changed(acts, lambda x, tag: np.zeros_like(x))
    assert subspace.language_similarity(nothing).table["mean"].isna().all()
    assert subspace.score_correlation(nothing, pooling="last").table["mean"].isna().all()


# --- scores along a component ---


def test_scores_correlate_as_scipy_says(bed):
    result = subspace.score_correlation(
        bed.activations, pooling="last", center="language", n_components=2
    )
    X, y = bed.activations.get("last", layer=1).double().numpy(), bed.activations.meta["language"]
    pca = PooledPCA(2, center="language").fit(X, y)
    states = parallel(bed.activations)
    scores = states.layer(1) @ pca.components_.T
    for number in (0, 1):
        a, b = scores[0, :, number], scores[1, :, number]
        for name, wanted in (
            ("pearson", stats.pearsonr(a, b).statistic),
            ("spearman", stats.spearmanr(a, b).statistic),
        ):
            found = result.matrix(f"{name}_{number + 1}", 1).iloc[0, 1]
            assert found == pytest.approx(wanted, abs=1e-6)
    assert result.components.query("layer == 1")["explained"].tolist() == pytest.approx(
        pca.explained_variance_ratio_.tolist(), abs=1e-6
    )


def test_the_first_pooled_component_is_the_axis_between_languages(bed):
    """The paper's test speaks of little once languages are apart; the result says so."""
    pooled = subspace.score_correlation(bed.activations, pooling="last")
    own = subspace.score_correlation(bed.activations, pooling="last", center="language")
    apart = pooled.components.set_index("layer")["between_languages"]
    assert apart[0] > 0.9 and apart[2] > 0.9 and apart[1] < 0.5
    assert pooled.pick("pearson_1").groupby("layer")["mean"].mean()[0] < 0.5
    assert (own.pick("pearson_1").groupby("layer")["mean"].mean() > 0.6).all()
    for kind in ("mismatched", "same_length"):
        assert own.pick("pearson_1", kind)["mean"].abs().max() < 0.1
    assert pooled.provenance["score_correlation"]["sources"]["pearson"] == "our reading"


# --- distances ---


def test_distances_are_the_plain_formulas(bed):
    found = subspace.subspace_distances(
        bed.activations,
        measures=["mean_angle", "geodesic", "chordal", "mean_shift", "fixed_rank", "full_rank"],
        n_components=3,
        n_controls=2,
    )
    X, Y = parallel(bed.activations).layer(1)[:2]
    parts = []
    for states in (X, Y):
        K = np.cov(states.T)
        sizes, vectors = np.linalg.eigh(K)
        parts.append((K, vectors[:, ::-1][:, :3], sizes[::-1][:3]))
    (K_a, V_a, s_a), (K_b, V_b, s_b) = parts
    angles = subspace_angles(V_a, V_b)
    O_a, _, O_bt = np.linalg.svd(V_a.T @ V_b)
    R_a, R_b = O_a.T @ np.diag(s_a) @ O_a, O_bt @ np.diag(s_b) @ O_bt.T

    def log_ratio(a, b):
        half = np.linalg.inv(np.real(sqrtm(a)))
        return np.sqrt((np.log(np.linalg.eigvalsh(half @ b @ half)) ** 2).sum())

    spread = np.sqrt((np.trace(K_a) + np.trace(K_b)) / 2)
    wanted = {
        "mean_angle": np.degrees(angles).mean(),
        "geodesic": np.sqrt((angles**2).sum()),
        "chordal": np.sqrt(3 - np.trace(V_a @ V_a.T @ V_b @ V_b.T)),
        "mean_shift": np.linalg.norm(X.mean(0) - Y.mean(0)) / spread,
        "fixed_rank": np.hypot(np.linalg.norm(angles), log_ratio(R_a, R_b)),
        "full_rank": log_ratio(K_a, K_b),
    }
    for measure, value in wanted.items():
        assert found.matrix(measure, 1).iloc[0, 1] == pytest.approx(value, rel=1e-4), measure
        kinds = set(found.table.query("measure == @measure")["kind"])
        assert kinds >= {"value", "shuffled"}


def test_subspaces_of_languages_are_as_far_as_planted():
    """Shared 4, own 2: two right angles of six; labels dealt out anew show noise alone."""
    bed = planted_activations(
        languages=3, n_items=150, n_layers=1, semantic_rank=4, semantic=2.0, specific=1.4
    )
    found = subspace.subspace_distances(bed.activations, n_components=6)
    angle = found.pick("mean_angle")["mean"]
    assert np.allclose(angle, 90 * 2 / 6, atol=0.1)
    apart = 2 * 2**0.5 / ((4 + 1.96) * 150 / 149) ** 0.5
    assert np.allclose(found.pick("mean_shift")["mean"], apart, atol=1e-3)
    same = planted_activations(
        languages=3, n_items=150, n_layers=1, semantic_rank=4, specific=0.0, noise=0.3
    )
    found = subspace.subspace_distances(same.activations, n_components=4, n_controls=20)
    value, shuffled = found.pick("mean_angle"), found.pick("mean_angle", "shuffled")
    assert (value["mean"].to_numpy() < shuffled["high"].to_numpy() + 3).all()
    assert (found.pick("mean_angle", "random")["low"] > value["mean"].max() + 20).all()


def test_distances_that_need_more(bed):
    with pytest.raises(ValueError, match=r"fixed_rank compares .*n_components=0.9"):
        subspace.subspace_distances(bed.activations, measures=["fixed_rank"])
    few = bed.activations.select(ids=sorted(set(bed.activations.meta["id"]))[:20])
    with pytest.raises(ValueError, match=r"full_rank .* 32 dimensions, which 20 items"):
        subspace.subspace_distances(few, measures=["full_rank"])
    flat = planted_activations(n_layers=1, n_items=80, d_model=32).activations
    with pytest.raises(ValueError, match=r"A covariance isn't positive definite"):
        subspace.subspace_distances(flat, measures=["full_rank"])


# --- probes ---


def test_removal_takes_the_language_and_its_controls_do_not(bed):
    probe = subspace.language_probe(bed.activations, LSAR(), n_controls=3)
    table = probe.table[probe.table["layer"] == 0].set_index(["features", "kind"])["mean"]
    assert table["all", "value"] > 0.99 and table["inside", "value"] > 0.99
    assert abs(table["outside", "value"] - probe.chance) < 0.1
    assert table["outside", "random"] > 0.9
    assert table["inside", "random"] < table["inside", "value"]
    for features in ("all", "inside", "outside"):
        assert abs(table[features, "shuffled"] - probe.chance) < 0.1
    taken = probe.variance[probe.variance["layer"] == 0].set_index("kind")["mean"]
    assert taken["value"] > 0.7 > 0.3 > taken["random"]


def test_shuffled_languages_are_at_chance_within_their_interval(unrelated):
    probe = subspace.language_probe(unrelated, n_controls=30)
    value = probe.table[probe.table["kind"] == "value"]
    shuffled = probe.table[probe.table["kind"] == "shuffled"]
    assert ((shuffled["low"] <= 1 / 3) & (shuffled["high"] >= 1 / 3)).all()
    assert ((value["low"] <= 1 / 3 + 0.05) & (value["high"] >= 1 / 3 - 0.05)).all()


def test_splits_keep_translations_together():
    """States that say which item they are, and nothing about language: a leak would show."""
    seen = []

    from sklearn.dummy import DummyClassifier

    class Spy(DummyClassifier):
        def fit(self, X, y, sample_weight=None):
            seen.append(("train", X))
            return super().fit(X, y)

        def predict(self, X):
            seen.append(("test", X))
            return super().predict(X)

    acts = planted_activations(n_items=20, d_model=32, n_layers=1, semantic_rank=4).activations
    subspace.language_probe(acts, classifier=Spy(), n_splits=4, n_controls=1)
    states = parallel(acts).layer(0)
    for (_, train), (_, test) in zip(seen[::2], seen[1::2], strict=True):
        items = []
        for part in (train, test):
            near = ((part[:, None, None] - states) ** 2).sum(-1).reshape(len(part), -1).argmin(1)
            items.append(set(near % 20))
        assert not items[0] & items[1] and len(items[0] | items[1]) == 20


def test_a_subspace_per_language_offers_no_coordinates_to_the_probe(bed):
    probe = subspace.language_probe(bed.activations.select(layers=[0]), LIR(), n_controls=1)
    assert set(probe.table["features"]) == {"all", "outside"}
    assert probe.estimator == "LIR()"


# --- maps ---


def test_the_map_shows_what_pca_finds(bed):
    found = subspace.language_map(bed.activations)
    X = bed.activations.get("last", layer=2).double().numpy()
    pca = PooledPCA(2).fit(X)
    points = found.points[found.points["layer"] == 2].set_index(["language", "id"])
    keys = list(zip(bed.activations.meta["language"], bed.activations.meta["id"], strict=True))
    for axis, column in enumerate("xy"):
        mine, wanted = points.loc[keys, column].to_numpy(), pca.transform(X)[:, axis]
        assert np.allclose(np.abs(mine), np.abs(wanted), atol=1e-5)
        assert abs(np.corrcoef(mine, wanted)[0, 1]) > 0.999999  # turned, if at all, as a whole
    shares = found.axes[found.axes["layer"] == 2]["explained"].tolist()
    assert shares == pytest.approx(pca.explained_variance_ratio_.tolist())
    cloud = points.loc["de"][["x", "y"]].to_numpy()
    row = found.centroids.query("layer == 2 and language == 'de'").iloc[0]
    assert np.allclose(row[["x", "y"]].to_numpy(dtype=float), cloud.mean(0))
    sizes, vectors = np.linalg.eigh(np.cov(cloud.T))
    assert [row["sd_minor"], row["sd_major"]] == pytest.approx(np.sqrt(sizes).tolist())
    major = [np.cos(row["angle"]), np.sin(row["angle"])]
    assert abs(major @ vectors[:, 1]) == pytest.approx(1)


def test_axes_keep_their_side_from_layer_to_layer(bed):
    found = subspace.language_map(bed.activations)
    wide = found.points.pivot(index=["language", "id"], columns="layer", values=["x", "y"])
    for axis in "xy":
        for low, high in pairwise(found.layers):
            assert (wide[axis, low] * wide[axis, high]).sum() >= 0


def test_separation_is_there_where_planted_and_shuffled_is_flat(bed):
    found = subspace.language_map(bed.activations)
    table = found.separation.set_index(["layer", "where", "kind"])["mean"]
    for layer, apart in ((0, True), (1, False), (2, True)):
        assert (table[layer, "map", "value"] > 0.8) == apart
        assert table[layer, "map", "shuffled"] < 0.15
        assert table[layer, "space", "shuffled"] < 0.1
    # Planted: the offsets' share of all variance, 3 of 4 directions' worth.
    offsets = 9 * 3 / 4
    assert table[0, "space", "value"] == pytest.approx(offsets / (offsets + 1.41), abs=0.03)


def test_lda_finds_separation_in_noise_and_its_control_says_so(unrelated):
    wide = planted_activations(
        languages=3, n_items=12, d_model=64, semantic=0.0, specific=0.0, offset=0.0, noise=1.0,
        semantic_rank=1, specific_rank=1, n_layers=1,
    ).activations  # fmt: skip
    found = subspace.language_map(wide, LDAAxes(2, ridge=1e-3))
    table = found.separation.set_index(["where", "kind"])["mean"]
    assert table["map", "value"] > 0.8 and table["map", "shuffled"] > 0.8


def test_a_layer_where_nothing_varies_has_a_map_of_one_point(bed):
    layers = iter(range(100))
    acts = changed(bed.activations, lambda x, _: np.ones_like(x) if next(layers) < 4 else x)
    found = subspace.language_map(acts)
    assert found.points[found.points["layer"] == 0][["x", "y"]].abs().to_numpy().max() == 0
    assert found.axes.query("layer == 0")["explained"].isna().all()
    assert found.axes.query("layer == 1")["explained"].notna().all()


def test_maps_need_two_axes_that_all_share(bed):
    with pytest.raises(ValueError, match=r"LIR\(\) has a subspace per language; .*PooledPCA\(2\)"):
        subspace.language_map(bed.activations, LIR())
    with pytest.raises(ValueError, match=r"gives 3 axes; a map needs 2"):
        subspace.language_map(bed.activations, PooledPCA(3))


# --- results, options, controls ---


def test_results_are_saved_and_loaded(bed, similar, tmp_path):
    acts = bed.activations
    results = [
        similar,
        subspace.score_correlation(
            acts, pooling="last", n_controls=2, resampling=Resampling(draws=20)
        ),
        subspace.subspace_distances(acts, n_controls=2),
        subspace.language_probe(acts, LSAR(), n_controls=1),
        subspace.language_map(acts, n_controls=1),
    ]
    kinds = [LanguagePairs, subspace.ScoreCorrelation, LanguagePairs, LanguageProbe, LanguageMap]
    rooms = ["language_similarity", "score_correlation", "subspace_distances"]
    rooms += ["language_probe", "language_map"]
    for n, (result, kind, room) in enumerate(zip(results, kinds, rooms, strict=True)):
        assert type(result) is kind
        back = kind.load(result.save(tmp_path / str(n)))
        assert back.to_frame().equals(result.to_frame())
        assert back.languages == result.languages == acts.languages
        assert back.provenance["fingerprint"] == acts.fingerprint
        assert result.provenance[room]["sources"]
    assert results[1].components.equals(subspace.ScoreCorrelation.load(tmp_path / "1").components)


def test_the_same_seed_gives_the_same_numbers(bed, similar):
    again = subspace.language_similarity(bed.activations)
    assert again.table.equals(similar.table)
    other = subspace.language_similarity(bed.activations, resampling=Resampling(seed=1))
    assert not other.table.equals(similar.table)
    assert other.matrix("cka", 1).equals(similar.matrix("cka", 1))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda a: subspace.language_similarity(a, measures=["cca"]), r"measures=\['cca'\]"),
        (lambda a: subspace.language_similarity(a, measures=[]), r"measures=\[\]; accepted"),
        (lambda a: subspace.language_similarity(a, n_controls=0), "n_controls is 0"),
        (
            lambda a: subspace.language_similarity(a, resampling=Resampling(confidence=95.0)),
            "confidence is 95",
        ),
        (lambda a: subspace.language_similarity(a, pooling="mean"), "needs the slot 'all'"),
        (lambda a: subspace.subspace_distances(a, measures=["far"]), r"measures=\['far'\]"),
        (lambda a: subspace.subspace_distances(a, n_components=99), r"Layer 0: n_components=99"),
        (lambda a: subspace.language_probe(a, n_splits=1), "n_splits is 1"),
        (lambda a: subspace.language_probe(a, n_splits=41), "40 parallel items.*at least 41"),
        (lambda a: subspace.language_probe(a, LSAR(9)), "Layer 0: rank=9"),
        (lambda a: subspace.score_correlation(a, pooling="last", n_components=0), "n_components=0"),
        (lambda a: subspace.language_similarity(a).pick("cka", "random"), r"No 'cka' of kind"),
        (lambda a: subspace.language_similarity(a).matrix("cka", 9), r"No layer 9.*\[0, 1, 2\]"),
    ],
)
def test_bad_input(ask, message, bed):
    with pytest.raises(ValueError, match=message):
        ask(bed.activations)


def test_too_few_items(bed):
    few = bed.activations.select(ids=sorted(set(bed.activations.meta["id"]))[:4])
    with pytest.raises(ValueError, match="4 parallel items; this needs at least 5"):
        subspace.language_similarity(few)


@given(seed=seeds, n=st.integers(2, 30))
def test_partners_are_never_oneself(seed, n):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 12, n).astype(float)
    for partner in (mismatch(n, rng), mismatch_of_same_length(lengths, rng)):
        assert sorted(partner) == list(range(n))
        assert (partner != np.arange(n)).all()
    if n % 2 == 0:
        near = np.abs(lengths[mismatch_of_same_length(lengths, rng)] - lengths)
        assert near.max() <= np.diff(np.sort(lengths)).max()


@given(seed=seeds)
def test_shuffled_languages_are_dealt_within_items(seed):
    rng = np.random.default_rng(seed)
    languages, items = np.repeat(["a", "b", "c"], 5), np.tile(np.arange(5), 3)
    dealt = shuffled_languages(languages, items, rng)
    for item in range(5):
        assert sorted(dealt[items == item]) == ["a", "b", "c"]


def test_what_length_explains_is_gone():
    lengths = np.arange(3.0, 20)
    terms = np.column_stack([np.log(lengths), 1 / lengths])
    noise = np.random.default_rng(0).standard_normal(len(lengths))
    left = without(np.column_stack([5 - 2 / lengths, noise]), terms)
    assert (left[:, 0] == 0).all()
    assert np.abs(left[:, 1] @ terms).max() < 1e-9 and left[:, 1].std() > 0.3
