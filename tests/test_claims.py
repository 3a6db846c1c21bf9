"""Each sentence is read against the frame it speaks of, whatever the frame."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import lens_result, study

from xlens.consistency import ConsistencyResult, Dissociation
from xlens.languages import english_name, english_names
from xlens.report import pair_sentences, verdict
from xlens.report.choices import findings
from xlens.report.process import process_findings
from xlens.report.sentences import summarised
from xlens.results import analysed

quick = settings(max_examples=60, deadline=None)
shares = st.integers(0, 4).map(lambda n: n / 4)  # few values, so that ties and bounds are met


def landmarks(summary, **values):
    """The summary with other landmarks: name → (value, low, high)."""
    table = summary.landmarks.copy()
    for name, row in values.items():
        if not (table["name"] == name).any():
            new = {"name": name, "n": 8, "share_of_draws": 1.0}
            table = pd.concat([table, pd.DataFrame([new])], ignore_index=True)
        table.loc[table["name"] == name, ["value", "low", "high"]] = row
    return replace(summary, landmarks=table)


@pytest.fixture(scope="module")
def base():
    results = study()
    return {name: summarised(name, results) for name in results}


intervals = st.tuples(shares, shares, shares).map(lambda t: tuple(np.array(sorted(t))[[1, 0, 2]]))

# verdict and sentences of a pair ---------------------------------------------------------------


@quick
@given(pivot=intervals, null=intervals, blank=intervals)
def test_a_phase_is_claimed_only_above_every_control(base, pivot, null, blank):
    found = {
        "translation": landmarks(base["translation"], pivot_peak_prob=pivot),
        "shuffled": landmarks(base["shuffled"], pivot_peak_prob=null),
        "random-init": landmarks(base["random-init"], pivot_peak_prob=blank),
    }
    clear = pivot[1] > null[2] and pivot[1] > blank[2]
    assert ("an English phase" in verdict(found)) == clear
    assert ("with shuffled words" in verdict(found)) == (not pivot[1] > null[2])
    assert ("with random weights" in verdict(found)) == (not pivot[1] > blank[2])
    assert ("leads for good" in " ".join(pair_sentences(found))) == clear


@quick
@given(more=intervals, scale=st.sampled_from([-1, 1]))
def test_a_verdict_first_asks_whether_the_task_is_done(base, more, scale):
    value, low, high = (scale * x for x in more)
    low, high = min(low, high), max(low, high)
    first = landmarks(base["translation"], target_over_shuffled=(value, low, high))
    found = {**base, "translation": first}
    done = low > 0
    assert verdict(found).startswith("The task isn't done") == (not done)
    assert ("an English phase" in verdict(found)) == done
    assert ("leads for good" in " ".join(pair_sentences(found))) == done


@quick
@given(final=intervals, null=intervals)
def test_without_pairs_two_intervals_tell_whether_it_is_done(base, final, null):
    table = base["translation"].landmarks
    alone = replace(
        base["translation"], landmarks=table[table["name"] != "target_over_shuffled"].copy()
    )
    found = {
        "translation": landmarks(alone, final_target_prob=final),
        "shuffled": landmarks(base["shuffled"], final_target_prob=null),
    }
    assert verdict(found).startswith("The task isn't done") == (not final[1] > null[2])


@quick
@given(shown=intervals, pivot=intervals)
def test_more_or_less_than_its_translation(base, shown, pivot):
    first = landmarks(base["translation"], source_peak_prob=shown, pivot_peak_prob=pivot)
    text = " ".join(pair_sentences({**base, "translation": first}))
    (said,) = re.findall(r"\]?: ((?:more|less|as much)[^:]*) its English translation", text)
    word = {1: "more than", -1: "less than", 0: "as much as"}[int(np.sign(shown[0] - pivot[0]))]
    assert said.startswith(word)
    overlap = shown[1] <= pivot[2] and pivot[1] <= shown[2]
    assert ("within the intervals" in said) == (overlap and shown[0] != pivot[0])


def test_the_difference_is_paired_by_prompt():
    results = study(end=0.5)
    shuffled = results["shuffled"].rows
    results["shuffled"] = replace(results["shuffled"], rows=shuffled.iloc[::-1])
    row = summarised("translation", results).landmark("target_over_shuffled")
    at = results["translation"].rows
    at = at[(at["layer"] == 6) & (at["language"] == "ru")].set_index("id")["prob"]
    other = shuffled[(shuffled["layer"] == 6) & (shuffled["language"] == "ru")]
    assert row["value"] == pytest.approx((at - other.set_index("id")["prob"]).mean())
    assert row["n"] == 8


def test_a_pair_of_one_language_in_two_scripts_reads_as_two():
    names = english_names(["zh-Hans", "zh-Hant", "en"])
    assert list(names.values()) == ["Simplified Chinese", "Traditional Chinese", "English"]
    assert english_names(["pt-BR", "pt-PT"])["pt-BR"] != english_names(["pt-BR", "pt-PT"])["pt-PT"]
    assert english_names(["zh-Hans", "en"])["zh-Hans"] == english_name("zh-Hans")
    result = lens_result("de", "zh-Hant", pivot="zh-Hans")
    null = lens_result("de", "zh-Hant", pivot="zh-Hans", bump=0.001, end=0.01, seed=1)
    said = verdict({"translation": result.summary(), "shuffled": null.summary()})
    assert "Simplified Chinese" in said and "Traditional Chinese" in said


# choices -----------------------------------------------------------------------------------------

TAGS = ["en", "vi", "th", "zh-Hans", "zh-Hant"]
NAMES = ["English", "Vietnamese", "Thai", "Simplified Chinese", "Traditional Chinese"]


def panel(accuracy, low, chance=0.25):
    table = pd.DataFrame({"language": TAGS[: len(accuracy)], "accuracy": accuracy, "low": low})
    table = table.assign(high=1.0, chance=chance, ties=0.0, n=20)
    pairs = pd.DataFrame(
        [
            {"metric": "lift", "source": a, "target": b, "value": 0.0, "low": -0.1, "high": 0.1}
            | {"n": 20, "control": 0.0, "control_low": -0.1, "control_high": 0.1}
            for a in table["language"]
            for b in table["language"]
            if a != b
        ]
    )
    tested = pairs[["source", "target"]].assign(p=1.0, p_adjusted=1.0)
    return ConsistencyResult(provenance={}, languages=table, pairs=pairs, dependence=tested)


def languages_in(text):
    names = sorted(NAMES, key=len, reverse=True)
    return {name for name in names if re.search(rf"(?<!\w){name}", text)}


@quick
@given(rows=st.lists(st.tuples(shares, shares), min_size=2, max_size=5))
def test_the_best_the_worst_and_the_guessing_are_sets(rows):
    accuracy = [a for a, _ in rows]
    low = [min(a, b) for a, b in rows]
    said = findings(panel(accuracy, low))
    names = NAMES[: len(rows)]
    best = {n for n, a in zip(names, accuracy, strict=True) if a == max(accuracy)}
    worst = {n for n, a in zip(names, accuracy, strict=True) if a == min(accuracy)}
    if len(best) == len(rows):
        assert said[0].startswith("Right equally often in all of")
        assert languages_in(said[0]) == best
    else:
        most, least = said[0].split(", least often in ")
        assert languages_in(most) == best and languages_in(least) == worst
    guess = {n for n, x in zip(names, low, strict=True) if x <= 0.25}
    told = [s for s in said if s.startswith("Not told apart")]
    assert (languages_in(told[0]) if told else set()) == guess


@quick
@given(
    rows=st.lists(
        st.tuples(st.sampled_from([0.01, 0.05, 0.2]), st.sampled_from([0.01, 0.05, 0.2]), shares),
        min_size=1,
        max_size=6,
    )
)
def test_what_stays_with_accuracy_out_is_the_same_that_was_there(rows):
    table = [
        {"layer": n, "measure": "cosine", "metric": "spearman", "kind": kind, "rho": rho, "p": p}
        | {"null_low": -0.5, "null_high": 0.5, "n_pairs": 6}
        for n, (before, after, rho) in enumerate(rows)
        for kind, p in (("value", before), ("accuracy_out", after))
    ]
    found = Dissociation(
        provenance={}, table=pd.DataFrame(table), languages=("en", "de"), n_permutations=9
    )
    (said,) = process_findings({"dissociation": found})
    before = {n for n, row in enumerate(rows) if row[0] < 0.05}
    after = {n for n, row in enumerate(rows) if row[1] < 0.05}
    stay = re.search(r"(\d+) of the (\d+) stay", said)
    assert (int(stay[1]), int(stay[2])) == (len(before & after), len(before))
    new = re.search(r"(\d+) others of", said)
    assert (int(new[1]) if new else 0) == len(after - before)
    strongest = {n for n, row in enumerate(rows) if row[2] == max(r[2] for r in rows)}
    assert {int(n) for n in re.findall(r"cosine at layer (\d+)", said)} == strongest


def test_options_of_an_analysis_leave_the_models_own_facts_alone():
    origin = {"model": "m", "weights": "float32", "seed": 3}
    made = analysed(origin, "consistency", {"weights": "softmax", "seed": 0})
    assert {key: made[key] for key in origin} == origin
    assert made["consistency"]["weights"] == "softmax"
    with pytest.raises(ValueError, match="already"):
        analysed(made, "consistency", {})
