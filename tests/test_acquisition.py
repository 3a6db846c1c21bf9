"""What answers to facts come to: recall, consistency with its chance, curves."""

import numpy as np
import pandas as pd
import pytest

from xlens.acquisition import MEASURES, curves, overlap, recall
from xlens.models.series import Checkpoint
from xlens.stats import Resampling, generator

FAST = Resampling(draws=100)
pytestmark = pytest.mark.usefixtures("as_users_have_it")


def answers(right: dict[str, list[bool]], **columns: object) -> pd.DataFrame:
    """A row per fact and language; two relations, objects of which one is more frequent."""
    return pd.DataFrame(
        [
            {
                "id": f"f{n}",
                "language": tag,
                "relation": f"r{n % 2}",
                "object": "common" if n % 3 else f"o{n}",
                "word": value,
                "prefix": value or n == 0,
                **columns,
            }
            for tag, values in right.items()
            for n, value in enumerate(values)
        ]
    )


def found(right: dict[str, list[bool]], **columns: object):
    rules = ["word", "prefix"]
    table = answers(right, **columns)
    return recall(table, rules=rules, rule="word", pivot="en", resampling=FAST)


def test_measures_by_hand() -> None:
    a = np.array([True, True, True, False, False, False, False, False, False, False])
    b = np.array([True, True, False, True, True, False, False, False, False, False])
    said = overlap(a, b)
    assert said["co"] == pytest.approx(2 / 5)
    assert said["given_pivot"] == pytest.approx(2 / 3) and said["pivot_given"] == 0.5
    assert said["j0"] == pytest.approx(0.12 / 0.58)
    assert said["phi"] == pytest.approx(np.corrcoef(a, b)[0, 1])
    from sklearn.metrics import cohen_kappa_score

    assert said["kappa"] == pytest.approx(cohen_kappa_score(a, b))
    assert MEASURES["j0"][1](np.array(0.5), np.array(0.4), np.array(0)) == pytest.approx(2 / 7)


def test_nothing_right_is_no_number() -> None:
    none = np.zeros(5, bool)
    said = overlap(none, none)
    assert np.isnan(said["co"]) and np.isnan(said["j0"]) and np.isnan(said["phi"])
    result = found({"en": [False] * 8, "de": [False] * 8})
    assert np.isnan(result.matrix("co")["de"]) and np.isnan(result.mean_co())
    with pytest.raises(ValueError, match="5 facts and 4"):
        overlap(none, none[:4])


def test_recall_and_its_controls() -> None:
    right = {"en": [True] * 6 + [False] * 6, "de": [True] * 3 + [False] * 9, "ru": [False] * 12}
    result = found(right, dealt=0.25, group="g")
    shares = result.accuracy.set_index("language")
    assert shares["accuracy"].to_dict() == {"en": 0.5, "de": 0.25, "ru": 0.0}
    assert (shares["dealt"] == 0.25).all() and shares["majority"]["en"] == pytest.approx(8 / 12)
    assert (shares["low"] <= shares["accuracy"]).all() and shares["high"]["ru"] > 0
    assert result.matrix("co") == {"de": 0.5, "ru": 0.0}
    assert result.mean_co() == 0.25 and result.mean_co(with_pivot=True) == 0.5
    assert result.false_credits.set_index("language")["prefix_only"].to_dict()["ru"] == 1
    prefix = result.languages[result.languages["rule"] == "prefix"].set_index("language")
    assert prefix["accuracy"]["ru"] == pytest.approx(1 / 12)
    groups = result.groups.set_index("language")["accuracy"]
    assert groups["all"] == pytest.approx(0.25) and groups["en"] == 0.5
    by_relation = result.relations.set_index(["relation", "language"])
    assert by_relation.loc[("r0", "en"), "n"] == 6 and np.isnan(by_relation.loc[("r0", "en"), "co"])


def test_consistency_by_chance_is_told_from_more() -> None:
    random = generator(3)
    same = random.random(300) < 0.4
    apart = random.permutation(same)
    told = found({"en": same.tolist(), "de": same.tolist(), "ru": apart.tolist()})
    rows = told.pairs.set_index(["metric", "language"])
    assert rows.loc[("co", "de"), "value"] == 1 and rows.loc[("co", "de"), "low"] < 1
    assert rows.loc[("co", "de"), "control_high"] < 0.5
    ru = rows.loc[("co", "ru")]
    assert ru["control_low"] <= ru["value"] <= ru["control_high"]
    assert ru["control"] == pytest.approx(rows.loc[("j0", "ru"), "value"], abs=0.02)
    assert rows.loc[("phi", "ru"), "low"] < 0 < rows.loc[("phi", "ru"), "high"]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="pivot 'en' isn't among the languages de, ru"):
        found({"de": [True] * 4, "ru": [True] * 4})
    table = answers({"en": [True] * 4, "de": [True] * 4}).iloc[:-1]
    with pytest.raises(ValueError, match="1 facts aren't answered in every language, first 'f3'"):
        recall(table, rules=["word"], rule="word", pivot="en")
    with pytest.raises(ValueError, match=r"lack the columns \['exact'\]"):
        recall(table, rules=["exact"], rule="exact", pivot="en")
    with pytest.raises(ValueError, match="rule='x'"):
        recall(table, rules=["word"], rule="x", pivot="en")


def test_curves_are_in_order_and_of_the_same() -> None:
    early = found({"en": [True] * 4 + [False] * 4, "de": [False] * 8}, group="g")
    late = found({"en": [True] * 8, "de": [True] * 8}, group="g")
    series = {"m@step5": Checkpoint.named("m", "step5"), "m@final": Checkpoint.named("m", "final")}
    grown = curves({"m@step5": early, "m@final": late}, series=series)
    assert grown.models == ("m@step5", "m@final")
    rows = grown.table[grown.table["metric"] == "accuracy"].set_index(["model", "language"])
    assert rows.loc[("m@step5", "en"), "value"] == 0.5 and rows.loc[("m@final", "de"), "value"] == 1
    assert rows.loc[("m@step5", "en"), "step"] == 5
    assert np.isnan(rows.loc[("m@final", "en"), "step"])
    assert set(grown.groups["group"]) == {"g"} and set(grown.table["metric"]) > {"co", "phi"}
    other = found({"en": [True] * 8, "fr": [True] * 8})
    with pytest.raises(ValueError, match="differ in rule, pivot or languages"):
        curves({"a": early, "b": other})
    with pytest.raises(ValueError, match="No recall"):
        curves({})
