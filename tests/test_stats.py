"""Bootstrap intervals over prompts."""

import numpy as np
import pytest
from scipy.stats import t as student

from xlens.stats import FEW, FEWEST, Resampling, bootstrap, holm


def test_mean_and_shape():
    values = np.arange(36.0).reshape(12, 3)
    boot = bootstrap(values, resampling=Resampling(draws=50))
    assert boot.mean.tolist() == [16.5, 17.5, 18.5] and boot.draws.shape == (50, 3)
    assert boot.n.tolist() == [12, 12, 12] and boot.resampling == Resampling(draws=50)
    low, high = boot.interval()
    assert (low <= boot.mean).all() and (boot.mean <= high).all()
    assert (low >= values.min(0)).all() and (high <= values.max(0)).all()


@pytest.mark.parametrize("confidence", [0.5, 0.9])
def test_intervals_cover_the_truth_as_often_as_they_say(confidence):
    rng = np.random.default_rng(0)
    trials, n, truth = 400, 60, 2.0
    values = rng.normal(truth, 3, size=(n, trials))
    # Columns share their resample; as trials are independent, so are the intervals.
    low, high = bootstrap(
        values, resampling=Resampling(draws=400, confidence=confidence)
    ).interval()
    covered = ((low <= truth) & (truth <= high)).mean()
    assert abs(covered - confidence) < 0.07


def test_the_spread_is_that_of_the_mean():
    values = np.random.default_rng(1).normal(0, 5, size=(100, 1))
    spread = bootstrap(values, resampling=Resampling(draws=2_000)).draws.std()
    assert spread == pytest.approx(values.std() / 10, rel=0.1)


def test_prompts_are_drawn_whole():
    """What holds in each prompt holds in each resample: columns are not drawn by themselves."""
    rng = np.random.default_rng(2)
    first = rng.normal(size=30)
    boot = bootstrap(np.stack([first, first + 1, -first], axis=1), resampling=Resampling(draws=200))
    np.testing.assert_allclose(boot.draws[:, 1], boot.draws[:, 0] + 1)
    np.testing.assert_allclose(boot.draws[:, 2], -boot.draws[:, 0])
    low, high = boot.interval(lambda m: m[..., 1] - m[..., 0], [0, 1])
    assert low == pytest.approx(1) and high == pytest.approx(1)


def test_the_seed_decides():
    values = np.random.default_rng(3).normal(size=(20, 2))
    one, same, other = (bootstrap(values, resampling=Resampling(seed=s)).draws for s in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    state = np.random.get_state()[1].copy()
    bootstrap(values)
    assert np.array_equal(np.random.get_state()[1], state)


def test_missing_cells_are_left_out():
    values = np.array([[1.0, np.nan, np.nan], [3.0, 4.0, np.nan], [5.0, 6.0, np.nan]])
    boot = bootstrap(values, resampling=Resampling(draws=300))
    assert boot.mean[:2].tolist() == [3.0, 5.0] and np.isnan(boot.mean[2])
    assert boot.n.tolist() == [3, 2, 0]
    assert np.isnan(boot.interval()).all()  # too few for any
    # A resample without any number in a column has no mean there, and is left out too.
    assert np.isnan(boot.draws[:, 1]).any()


@pytest.mark.parametrize("n", [1, 3, 4, 7, 8])
def test_below_four_clusters_no_interval_is_drawn(n):
    values = np.random.default_rng(5).uniform(size=(2 * n, 2))
    values[:, 1] = 1.0
    boot = bootstrap(values, clusters=np.arange(n).repeat(2), bounds=(0, 1))
    low, high = boot.interval()
    assert np.isnan([low, high]).all() == (n < FEWEST) and np.isfinite(boot.mean).all()
    if n >= FEWEST:
        assert (low < boot.mean).all() and (high >= boot.mean).all() and high[1] == 1


def test_bad_input():
    with pytest.raises(ValueError, match="at least one prompt; got none"):
        bootstrap(np.empty((0, 3)))
    for confidence in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match=rf"confidence is {confidence}"):
            Resampling(confidence=confidence)
    with pytest.raises(ValueError, match="draws is 0"):
        Resampling(draws=0)


def test_clusters_are_drawn_whole():
    """Prompts that are copies of one another are one observation, however many there are."""
    rng = np.random.default_rng(4)
    each = rng.normal(size=(50, 2))
    alone = bootstrap(each, resampling=Resampling(draws=4_000))
    copied = bootstrap(np.repeat(each, 4, axis=0), clusters=np.repeat(np.arange(50), 4).tolist(),
                       resampling=Resampling(draws=4_000))  # fmt: skip
    np.testing.assert_allclose(copied.mean, alone.mean)
    np.testing.assert_allclose(copied.draws, alone.draws)
    assert copied.n.tolist() == [200, 200]
    ignored = bootstrap(np.repeat(each, 4, axis=0), resampling=Resampling(draws=4_000))
    assert (ignored.draws.std(0) < 0.6 * copied.draws.std(0)).all()


def test_clusters_of_unequal_size_weigh_their_prompts():
    values = np.array([[0.0], [0.0], [0.0], [1.0], [np.nan]])
    boot = bootstrap(
        values, clusters=["a", "a", "a", ("b", 1), ("b", 1)], resampling=Resampling(draws=500)
    )
    assert boot.mean.tolist() == [0.25] and boot.n.tolist() == [4]
    assert set(np.round(boot.draws[:, 0], 6)) == {0.0, 0.25, 1.0}
    with pytest.raises(ValueError, match="5 prompts but 4 clusters"):
        bootstrap(values, clusters=["a"] * 4)


def test_a_test_has_the_level_that_the_interval_leaves():
    assert Resampling().level == pytest.approx(0.05)
    assert Resampling(confidence=0.9).level == pytest.approx(0.1)


def test_intervals_go_by_t_below_eight_clusters_and_by_resamples_from_there():
    rng = np.random.default_rng(0)
    for n in (FEW - 1, FEW):
        values = rng.exponential(size=(n, 1))
        found = bootstrap(values)
        (low,), (high,) = found.interval()
        error = values.std(ddof=1) / np.sqrt(n)
        by_t = values.mean() + np.array([-1, 1]) * student.ppf(0.975, n - 1) * error
        assert np.allclose([low, high], by_t) == (n == 7)
        assert ({low, high} <= set(found.draws[:, 0])) == (n == 8)


def test_holms_adjustment_multiplies_by_what_is_left():
    assert holm([0.01, 0.03, np.nan, 0.02]) == pytest.approx(
        [0.03, 0.04, np.nan, 0.04], nan_ok=True
    )


@pytest.mark.parametrize("all_of", [0.0, 1.0])
def test_a_column_at_its_bound_is_not_known_though_nothing_moves_it(all_of):
    """All 20 right in one language, half of them in another: the difference has both doubts."""
    values = np.column_stack([np.full(20, all_of), np.arange(20) % 2])
    boot = bootstrap(values, bounds=(0, 1))
    low, high = boot.interval(lambda m: m[..., 0] - m[..., 1], [0, 1])
    alone = boot.interval(lambda m: m[..., 0], [1])
    other = (boot.interval()[0][0], boot.interval()[1][0])
    wide = float(alone[1] - alone[0]) + float(other[1] - other[0])
    assert high - low == pytest.approx(wide, abs=1e-9)
    ratio = boot.interval(lambda m: m[..., 0] / m[..., 1], [0, 1])
    assert ratio[1] > ratio[0]


def test_a_number_that_is_known_moves_nothing():
    """Chance of one in four for every item is no estimate."""
    values = np.column_stack([np.full(20, 0.25), np.arange(20) % 2])
    boot = bootstrap(values, bounds=(0, 1))
    low, high = boot.interval(lambda m: m[..., 1] - m[..., 0], [0, 1])
    alone = boot.interval(lambda m: m[..., 0], [1])
    assert (low, high) == pytest.approx((alone[0] - 0.25, alone[1] - 0.25))
