"""By what options of unequal length are compared, and what is said where that decides."""

import kit
import numpy as np
import pandas as pd
import pytest

import xlens
from xlens.consistency import consistency, option_scores
from xlens.lengths import WAYS, compared, known_ways
from xlens.report.choices import findings
from xlens.report.ways import ways_table
from xlens.stats import Resampling
from xlens.studies.steps.steering_effects import items_table
from xlens.tasks.choices.latent import item_shares

FEW = Resampling(draws=20)
# Text, tokens, summed log-probability: each way of comparing finds another one the best.
OPTIONS_OF = [(" no", 1, -4.0), ("日本", 2, -5.0), ("abcdef", 2, -7.0), (" abcd", 6, -9.0)]
BEST = {"logprob": 0, "mean_logprob": 3, "byte_logprob": 1, "char_logprob": 2}


def planted(n=5, split=2) -> pd.DataFrame:
    """`n` items, in English all with options of one length, in Japanese `split` with unequal."""
    rows = []
    for i in range(n):
        for tag in ("en", "ja"):
            for k, (text, tokens, logprob) in enumerate(OPTIONS_OF):
                if tag == "en" or i >= split:
                    text, tokens = f" {k}", 1
                rows.append((str(i), tag, k, text, logprob, tokens))
    columns = ["id", "language", "candidate", "text", "logprob", "n_tokens"]
    return pd.DataFrame(rows, columns=columns)


def test_each_way_divides_by_its_own_length():
    table = planted(1, 1).query("language == 'ja'")
    assert known_ways(table) == list(WAYS)
    wanted = {
        "logprob": [-4, -5, -7, -9],
        "mean_logprob": [-4, -2.5, -3.5, -1.5],
        "byte_logprob": [-2, -5 / 6, -7 / 6, -9 / 4],  # UTF-8, without the space before a word
        "char_logprob": [-2, -2.5, -7 / 6, -9 / 4],
    }
    for way, values in wanted.items():
        np.testing.assert_allclose(compared(table, way), values)
        assert int(np.argmax(values)) == BEST[way]
    assert known_ways(table.drop(columns="text")) == ["logprob", "mean_logprob"]
    with pytest.raises(ValueError, match=r"lacks the columns \['text'\]"):
        compared(table.drop(columns="text"), "byte_logprob")
    with pytest.raises(ValueError, match=r"lacks the columns \['acc'\].*char_logprob"):
        compared(table, "acc")
    # A text of nothing but spaces has a length all the same.
    blank = pd.DataFrame({"text": ["  "], "logprob": [-4.0]})
    assert compared(blank, "char_logprob").item() == -2


@pytest.mark.parametrize("by", WAYS)
def test_the_answer_is_that_of_the_way_asked_for(by):
    table = planted()
    gold = dict.fromkeys("01234", BEST[by])
    found = consistency(option_scores(table, gold, by=by), resampling=FEW, n_permutations=1)
    right = found.languages.set_index("language")["accuracy"]
    # In items of equal lengths the most probable option is best whatever the way.
    assert right["ja"] == pytest.approx((2 + 3 * (by == "logprob")) / 5)
    assert right["en"] == (by == "logprob")
    assert found.provenance["by"] == by
    # Steering and options inside choose alike.
    cells = table.query("language == 'ja'").assign(method="none", band="", strength=0.0)
    cells = cells.assign(mean_logprob=compared(cells, "mean_logprob"))
    assert items_table(cells, gold, by=by)["said"].tolist() == [BEST[by]] * 2 + [0] * 3
    inside = table.query("language == 'ja'").rename(columns={"candidate": "option"})
    sets = pd.concat(inside.assign(set=name, layer=1) for name in ("native", "pivot", "control"))
    shares = item_shares(sets, gold, by=by)
    assert shares["right_native"].tolist() == [1, 1] + [float(by == "logprob")] * 3


def test_answers_that_hang_on_the_way_are_counted():
    gold = dict.fromkeys("01234", 0)
    found = consistency(option_scores(planted(), gold), resampling=FEW, n_permutations=1)
    assert found.languages.set_index("language")["unsettled"].to_dict() == {"en": 0, "ja": 2}
    ways = found.ways.set_index(["language", "by"])
    assert found.ways.index.is_unique
    assert list(dict.fromkeys(found.ways["by"])) == list(WAYS)
    for way in WAYS[1:]:
        assert ways.loc[("ja", way), ["accuracy", "changed", "n"]].tolist() == [0.6, 2, 5]
        assert ways.loc[("en", way), ["accuracy", "changed"]].tolist() == [1, 0]
    (said,) = [s for s in findings(found) if "unequal length" in s]
    assert said.startswith("Options of unequal length are compared summed")
    assert "in 2 of 10 answers (per token 2, per byte 2, per character 2)" in said
    (table,) = ways_table(found)
    assert table.head[1] == "summed (acc)" and "per character (acc_norm)" in table.head
    assert table.head[2].startswith("per token") and "2 of 5" in table.rows[1]


def test_one_way_only_has_nothing_to_compare():
    table = planted().drop(columns=["text", "n_tokens"])
    found = consistency(option_scores(table), resampling=FEW, n_permutations=1)
    assert found.ways.empty and found.languages["unsettled"].isna().all()
    assert ways_table(found) == ()


def test_a_models_scores_hold_every_way(family_dir):
    model = kit.model(family_dir("gpt2"))
    scores = xlens.score(model, [xlens.Prompt("The dog", "en", "1")], [" été", "b"], progress=False)
    row = scores.table.iloc[0]
    assert row["byte_logprob"] == pytest.approx(row["logprob"] / 5)
    assert row["char_logprob"] == pytest.approx(row["logprob"] / 3)
    for way in WAYS:
        assert scores.best(by=way)["candidate"].item() == int(scores.table[way].argmax())
