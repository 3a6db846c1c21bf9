"""Each sentence is read against the frame it speaks of, whatever the frame."""

import re
from dataclasses import replace
from html import unescape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import lens_result, save_pair, study
from test_report import CONFIG, PROVENANCE

from xlens.acquisition import FrequencyResponse
from xlens.consistency import ConsistencyResult, Dissociation, OptionScores, consistency
from xlens.figures import steering_effects
from xlens.languages import english_name, english_names
from xlens.report import pair_sentences, verdict, write_report
from xlens.report.blocks import Drawing
from xlens.report.choices import findings
from xlens.report.fact_frequency import frequency_findings
from xlens.report.lens import told
from xlens.report.pair import landmark_table, pair_section
from xlens.report.process import language_names, process_findings, write_process_report
from xlens.report.sentences import landmark_value, named
from xlens.results import analysed
from xlens.runs import RunDirectory
from xlens.steering import SteeringResult
from xlens.studies.steps.latent_language import summarised

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
    assert ("for good from point" in " ".join(pair_sentences(found))) == clear


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
    assert ("for good from point" in " ".join(pair_sentences(found))) == done


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


def against(base, first) -> str:
    text = " ".join(pair_sentences({**base, "translation": first}))
    (said,) = re.findall(r"\]?: ((?:more|less|as much)[^:]*) its English translation", text)
    return said


@quick
@given(difference=intervals, sign=st.sampled_from([-1, 1]))
def test_the_difference_tells_where_it_is_known(base, difference, sign):
    """However far the two intervals overlap."""
    low, value, high = sorted(sign * np.array(difference))
    wide = {"source_peak_prob": (0.5 + value / 4, 0.0, 1.0), "pivot_peak_prob": (0.5, 0.0, 1.0)}
    said = against(
        base, landmarks(base["translation"], source_over_pivot=(value, low, high), **wide)
    )
    word = {1: "more than", -1: "less than", 0: "as much as"}[int(np.sign(value))]
    assert said.startswith(word)
    assert ("within the interval" in said) == (low <= 0 <= high and value != 0)


@quick
@given(shown=intervals, pivot=intervals)
def test_more_or_less_than_its_translation(base, shown, pivot):
    table = base["translation"].landmarks
    alone = replace(
        base["translation"], landmarks=table[table["name"] != "source_over_pivot"].copy()
    )
    first = landmarks(alone, source_peak_prob=shown, pivot_peak_prob=pivot)
    said = against(base, first)
    word = {1: "more than", -1: "less than", 0: "as much as"}[int(np.sign(shown[0] - pivot[0]))]
    assert said.startswith(word)
    overlap = shown[1] <= pivot[2] and pivot[1] <= shown[2]
    assert ("within the intervals" in said) == (overlap and shown[0] != pivot[0])


@pytest.mark.parametrize("name", ["pivot_peak_prob", "final_target_prob", "target_over_shuffled"])
@pytest.mark.parametrize("where", ["translation", "shuffled"])
def test_too_few_prompts_for_intervals_are_no_finding(base, name, where):
    if (base[where].landmarks["name"] == name).any():
        none = landmarks(base[where], **{name: (0.9, np.nan, np.nan)})
        found = {**base, where: none}
        n = int(none.landmark(name)["n"])
        assert verdict(found).startswith(f"{n} prompts are too few for intervals")
        assert "phase" not in verdict(found)
    shown = landmarks(
        base["translation"],
        source_peak_prob=(0.9, np.nan, np.nan),
        source_over_pivot=(0.6, np.nan, np.nan),
    )
    said = " ".join(pair_sentences({**base, "translation": shown}))
    assert "more than, though of too few prompts for intervals, its English translation" in said


def test_without_a_control_no_crossing_is_told(base):
    alone = {"translation": base["translation"]}
    assert "for good from point" in " ".join(pair_sentences(base))
    assert "ahead" not in " ".join(pair_sentences(alone))


def test_the_terminal_says_of_a_pair_what_its_page_says(base):
    for made in (
        base,
        {"translation": base["translation"]},
        {**base, "shuffled": base["translation"]},
    ):
        (section,) = told("m", {f"k/summary-{name}": one for name, one in made.items()})
        ((finding,),) = (block.items for block in section.blocks)
        assert (finding.verdict, finding.text) == (verdict(made), " ".join(pair_sentences(made)))
        assert ("for good from point" in finding.plain) == (made is base)


@quick
@given(own=shares, right=shares, room=st.sampled_from([0.0, 0.05, 0.4]))
def test_the_pivot_is_the_answer_only_where_it_is_ahead_at_the_output(base, own, right, room):
    last = base["translation"].n_layers
    first = landmarks(
        base["translation"],
        pivot_peak_layer=(last, last, last),
        final_pivot_prob=(own, own - room, own),
        final_target_prob=(right, right, right + room),
    )
    said = verdict({**base, "translation": first})
    assert ("the model answers in English" in said) == (own - room > right + room)
    assert ("not ahead of Russian ones: no phase" in said) == (not own > right)
    within = right < own and not own - room > right + room
    assert ("ahead of Russian ones within the intervals only: no phase" in said) == within


def test_the_output_and_the_controls_are_told_with_their_own_numbers(base):
    first = landmarks(
        base["translation"], final_target_prob=(0.71, 0.7, 0.8), final_pivot_prob=(0.21, 0.2, 0.3)
    )
    said = " ".join(pair_sentences({**base, "translation": first}))
    assert (
        "At the output the Russian word has 0.71 [0.70, 0.80], the English one 0.21 [0.20, 0.30]."
        in said
    )
    high = base["shuffled"].curves.copy()
    high.loc[3, "mean"] = 0.44
    other = {**base, "shuffled": replace(base["shuffled"], curves=high)}
    told = " ".join(pair_sentences(other))
    assert "the highest mean of any language is 0.44 with shuffled words" in told


def test_what_a_figure_of_curves_says_is_told_to_those_who_do_not_see_it(base):
    figures = {f"k-{kind}": go.Figure() for kind in ("curves", "states")}
    section = pair_section("k", base, figures, named(base.values()), "a pair")
    blocks = [b for block in section.blocks for b in getattr(block, "blocks", (block,))]
    drawn = [block for block in blocks if isinstance(block, Drawing)]
    curves, states = (re.findall(r'aria-label="([^"]*)"', unescape(d.plot))[0] for d in drawn)
    assert "for good from point" in curves and "for good from point" not in states
    assert "other prompts' words" in drawn[0].caption
    alone = {"translation": base["translation"]}
    section = pair_section("k", alone, figures, named(base.values()), "a pair")
    assert "other prompts' words" not in str(section)


def test_differences_keep_their_sign_in_the_table(base):
    first = landmarks(base["translation"], source_over_pivot=(-0.2, -0.3, -0.1))
    table = landmark_table({**base, "translation": first}, named([first]))
    assert "-0.200 [-0.300, -0.100]" in [cell for row in table.rows for cell in row]
    (row,) = [r for _, r in first.landmarks.iterrows() if r["name"] == "source_over_pivot"]
    assert landmark_value(row) == "-0.200"


def test_pairs_of_one_run_that_differ_in_script_only_read_as_two(tmp_path):
    run = RunDirectory.create(tmp_path, CONFIG, PROVENANCE)
    for target in ("zh-Hans", "zh-Hant"):
        rows = [{"pair": target, "reason": why, "n": 9} for why in ("offered", "kept")]
        save_pair(run, f"de_{target}", study("de", target), pd.DataFrame(rows))
    html = write_report(run).read_text(encoding="utf-8")
    for name in ("Simplified Chinese", "Traditional Chinese"):
        assert f"German → {name}" in html and f"{name} ahead of English for good" in html
        assert f"Translation from German to {name}" in html
    assert not re.search(r"(?<!Simplified )(?<!Traditional )Chinese", html)
    # One of them by itself is called what it usually is.
    assert "Chinese is ahead of English for good" in " ".join(
        pair_sentences({k: r.summary() for k, r in study("de", "zh-Hant").items()})
    )


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

TAGS = ["zh-Hans", "zh-Hant", "en", "vi", "th"]  # from two on, script is told
NAMES = ["Simplified Chinese", "Traditional Chinese", "English", "Vietnamese", "Thai"]


def panel(accuracy, low, high=1.0, chance=0.25, p=1.0):
    table = pd.DataFrame({"language": TAGS[: len(accuracy)], "accuracy": accuracy, "low": low})
    table = table.assign(high=high, chance=chance, ties=0.0, n=20)
    pairs = pd.DataFrame(
        columns=["metric", "source", "target", "value", "control"],
        data=[
            {"metric": "lift", "source": a, "target": b, "value": 0.2, "low": -0.1, "high": 0.1}
            | {"n": 20, "control": 0.1, "control_low": -0.1, "control_high": 0.1}
            for a in table["language"]
            for b in table["language"]
            if a != b
        ],
    )
    tested = pairs[["source", "target"]].assign(p=p, p_adjusted=p)
    return ConsistencyResult(provenance={}, languages=table, pairs=pairs, dependence=tested)


def languages_in(text):
    names = sorted(NAMES, key=len, reverse=True)
    return {name for name in names if re.search(rf"(?<!\w){name}", text)}


@quick
@given(rows=st.lists(intervals, min_size=2, max_size=5))
def test_the_best_the_worst_and_the_guessing_are_sets(rows):
    accuracy, low, high = (list(column) for column in zip(*rows, strict=True))
    said = findings(panel(accuracy, low, high))
    names = NAMES[: len(rows)]
    best = {n for n, a in zip(names, accuracy, strict=True) if a == max(accuracy)}
    worst = {n for n, a in zip(names, accuracy, strict=True) if a == min(accuracy)}
    assert said[0].endswith("; chance is 0.25.")
    for name, (value, least, most) in zip(names, rows, strict=True):
        if name in best | worst:
            parts = re.findall(r"([^]]*?), (\d\.\d\d \[\d\.\d\d, \d\.\d\d])", said[0])
            (mine,) = [share for told, share in parts if name in languages_in(told)]
            assert mine == f"{value:.2f} [{least:.2f}, {most:.2f}]"
    if len(best) == len(rows):
        assert said[0].startswith("Right equally often in all of")
        assert languages_in(said[0]) == best
    else:
        most, least = said[0].split(", least often in ")
        assert languages_in(most) == best and languages_in(least) == worst
        apart = all(
            one[1] > other[2]
            for one in rows
            for other in rows
            if one[0] == max(accuracy) and other[0] == min(accuracy)
        )
        assert ("within the intervals" in said[0]) == (not apart)
    for start, holds in (
        ("Not told apart", [x <= 0.25 <= y for _, x, y in rows]),
        ("Below guessing", [y < 0.25 for _, _, y in rows]),
    ):
        told = [s for s in said if s.startswith(start)]
        named = {n for n, is_so in zip(names, holds, strict=True) if is_so}
        assert (languages_in(told[0]) if told else set()) == named
        assert not told or start != "Below guessing" or "each language by itself" in told[0]


def test_accuracy_that_is_not_known_is_not_told():
    none = panel([np.nan, np.nan], [np.nan, np.nan], np.nan)
    none = replace(none, dependence=none.dependence.iloc[:0])
    assert findings(none) == [
        "Which answers are right isn't known in Simplified Chinese and Traditional Chinese."
    ]
    some = findings(panel([np.nan, 0.5, 0.75], [np.nan, 0.3, 0.5]))
    assert languages_in(some[0]) == {"Traditional Chinese", "English"} and "nan" not in " ".join(
        some
    )
    assert "isn't known in Simplified Chinese." in " ".join(some)
    few = findings(panel([0.5, 0.75], [np.nan, 0.5], [np.nan, 0.9]))
    assert "too few items for intervals" in few[0]
    assert "Not told apart from guessing in Simplified Chinese" in few[1]


def test_a_panel_without_right_answers_is_told():
    rng = np.random.default_rng(0)
    scores = OptionScores(rng.normal(size=(3, 6, 4)), ("en", "de", "fr"), tuple("abcdef"))
    found = consistency(scores, n_permutations=2)
    assert findings(found)[0].startswith("Which answers are right isn't known in English, German")
    assert not any("beyond accuracy" in s or "nan" in s for s in findings(found))


def test_chances_that_differ_are_named_by_language():
    said = findings(panel([0.5, 0.75, 0.5], [0.4, 0.6, 0.3], chance=[0.25, 0.5, 0.25]))
    assert said[0].endswith(
        "; chance is 0.25 in Simplified Chinese and English, 0.50 in Traditional Chinese."
    )


@quick
@given(p=st.lists(st.sampled_from([0.001, 0.05, 0.4]), min_size=6, max_size=6))
def test_pairs_beyond_accuracy_are_those_whose_test_says_so(p):
    (said,) = [s for s in findings(panel([0.5] * 3, [0.4] * 3, p=p)) if "beyond accuracy" in s]
    assert f"in {sum(x < 0.05 for x in p)} of 6 pairs" in said
    assert "mean lift 0.20, with permuted items 0.10" in said


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
    assert f"{len(before) or 'none'} {'have' if len(before) > 1 else 'has'} p < 0.05" in said
    stay = re.search(r"(\d+) of the (\d+) (stays?)\b", said)
    assert bool(stay) == bool(before)
    if stay:
        assert (int(stay[1]), int(stay[2])) == (len(before & after), len(before))
        assert stay[3] == ("stays" if len(before & after) == 1 else "stay")
        new = re.search(r"(\d+) others? of \d+ (has|have) it", said)
        assert (int(new[1]) if new else 0) == len(after - before)
        assert not new or new[2] == ("has" if len(after - before) == 1 else "have")
    else:
        new = re.search(r"taken out, (none|\d+) (has|have) it, of", said)
        assert new[1] == str(len(after) or "none")
    strongest = {n for n, row in enumerate(rows) if row[2] == max(r[2] for r in rows)}
    assert {int(n) for n in re.findall(r"cosine at layer (\d+)", said)} == strongest


def test_a_correlation_that_turns_round_does_not_stay():
    def told(*rows):
        table = [
            {"layer": n, "measure": "cosine", "metric": "spearman", "kind": kind, "rho": rho}
            | {"p": 0.01, "null_low": -0.5, "null_high": 0.5, "n_pairs": 6}
            for n, both in enumerate(rows)
            for kind, rho in zip(("value", "accuracy_out"), both, strict=True)
        ]
        found = Dissociation(
            provenance={}, table=pd.DataFrame(table), languages=("en", "de"), n_permutations=9
        )
        return process_findings({"dissociation": found})[0]

    assert "1 of the 1 stays." in told((0.8, 0.7))
    assert "0 of the 1 stay; 1 other of 1 has it." in told((0.8, -0.7))
    assert "0 of the 1 stay; of 1 nothing can be told" in told((0.8, np.nan), (np.nan, np.nan))
    assert "negative" not in told((0.8, 0.7))
    assert ", 1 of them negative;" in told((0.8, 0.7), (-0.9, -0.7))
    assert ", all of them negative;" in told((-0.9, -0.7), (-0.9, -0.7))
    assert "1 has p < 0.05" in told((-0.9, -0.7)) and ", a negative one;" in told((-0.9, -0.7))
    assert "nothing varies" in told((np.nan, np.nan))


def test_several_sets_of_items_have_headings_of_their_own(tmp_path):
    row = {"layer": 1, "metric": "spearman", "rho": 0.9, "p": 0.01, "p_adjusted": 0.3}
    row |= {"null_low": -0.5, "null_high": 0.5, "n_pairs": 6}
    table = [
        {**row, "measure": measure, "kind": kind}
        for measure in ("cka_unbiased", "cosine", "cosine_centred", "mexa")
        for kind in ("value", "accuracy_out")
    ]
    found = Dissociation(
        provenance={}, table=pd.DataFrame(table), languages=("en", "de"), n_permutations=9
    )
    for sets, heads in (
        (["one"], ["What was found"]),
        (["one", "two"], ["Items: one", "Items: two"]),
    ):
        run = RunDirectory.create(tmp_path / str(len(sets)), CONFIG, PROVENANCE)
        for name in sets:
            found.save(run.result_folder("m", f"{name}/dissociation"))
        text = write_process_report(run).read_text(encoding="utf-8")
        assert re.findall(r"<h2>(Items[^<]*|What was found)</h2>", text) == heads


def test_the_strongest_of_many_is_judged_as_the_strongest():
    row = {"layer": 1, "measure": "cosine", "metric": "spearman", "kind": "value", "rho": 0.9}
    row |= {"p": 0.01, "p_adjusted": 0.3, "null_low": -0.5, "null_high": 0.5, "n_pairs": 6}
    found = Dissociation(
        provenance={}, table=pd.DataFrame([row]), languages=("en", "de"), n_permutations=9
    )
    (said,) = process_findings({"dissociation": found})
    assert "cosine at layer 1 (rho 0.90, p 0.300 as the strongest of all)" in said
    assert "p 0.01" not in said


changes = st.tuples(st.sampled_from([0.001, 0.05, np.nan]), st.sampled_from([-0.1, 0.0, 0.1]))


@quick
@given(rows=st.lists(st.tuples(changes, changes), min_size=4, max_size=4))
def test_languages_that_steering_changes_are_those_whose_test_says_so(rows):
    tags, names = ([x for x in every if x not in ("en", "English")] for every in (TAGS, NAMES))
    table = [
        {"language": tag, "vector": tag, "condition": name, "metric": "accuracy"}
        | {"value": 0.5, "change": change, "p_adjusted": p}
        for tag, both in zip(tags, rows, strict=True)
        for name, (p, change) in zip(("lda", "lda, random"), both, strict=True)
    ]
    harm = {**table[0], "language": "en", "change": 1.0, "p_adjusted": 0.0001}
    other = {**table[0], "metric": "consistency", "change": -1.0, "p_adjusted": 0.0001}
    (said,) = process_findings({"steering": steered(pd.DataFrame([*table, harm, other]))})
    real, random = ([both[k] for both in rows] for k in (0, 1))
    for word, sign in (("rises", 1), ("falls", -1)):
        sure, blind = (
            {
                name
                for name, (p, change) in zip(names, side, strict=True)
                if p < 0.05 and np.sign(change) == sign
            }
            for side in (real, random)
        )
        whole, _, alike = said.partition("; with random directions")
        (mine,) = re.findall(rf"{word} in (.*?)(?: and falls|\.$|$)", whole)
        assert languages_in(mine) == sure and ("no language" in mine) == (not sure)
        both = re.findall(rf"it {word} in (.*?) as well", alike)
        assert (languages_in(both[0]) if both else set()) == sure & blind
    means = [f"{np.mean([c for _, c in side]):+.3f}" for side in (real, random)]
    means = [said if float(said) else "0.000" for said in means]  # nothing has no sign
    assert f"changes by {means[0]} on average" in said
    assert f"random directions by {means[1]}" in said
    assert "adjusted for the 4 languages looked at, it" in said


@quick
@given(lows=st.lists(st.sampled_from([0.1, 0.25, 0.4, np.nan]), min_size=4, max_size=4))
def test_steering_says_where_there_was_nothing_but_guessing_to_steer(lows):
    tags, names = ([x for x in every if x not in ("en", "English")] for every in (TAGS, NAMES))
    numbers = {"metric": "accuracy", "value": 0.5, "high": 0.6, "change": 0.0, "p_adjusted": 1.0}
    table = [
        {"language": tag, "vector": tag, "condition": name, "low": low if name == "none" else 0.0}
        | numbers
        for tag, low in zip([*tags, "en"], [*lows, 0.0], strict=True)
        for name in ("none", "lda", "lda, random")
    ]
    found = steered(pd.DataFrame(table))
    assert len(process_findings({"steering": found})) == 1  # guessing isn't known
    known = replace(found, provenance={"steering": {"chance": 0.25}})
    said = process_findings({"steering": known})[1:]
    untold = {name for name, low in zip(names, lows, strict=True) if not low > 0.25}
    assert languages_in(" ".join(said)) == untold
    assert all(one.startswith("Without steering, answers aren't told apart from") for one in said)


def steered(test):
    chosen = pd.DataFrame([{"method": "lda", "band": "3", "strength": 2.0}])
    none = pd.DataFrame()
    return SteeringResult(
        provenance={},
        dev=none,
        chosen=chosen,
        test=test,
        items=none,
        outputs=none,
        split=none,
        target="en",
    )


def test_harm_is_told_by_whose_vector_did_it():
    numbers = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 20, "condition": "lda"}
    table = [
        {"language": tag, "vector": vector, "metric": "accuracy", **numbers}
        | {"change": 0.1, "change_low": 0.0, "change_high": 0.2}
        for tag, vector in (("th", "th"), ("vi", "vi"), ("en", "th"), ("en", "vi"))
    ]
    ticks = steering_effects(steered(pd.DataFrame(table))).layout.yaxis.ticktext
    assert [re.findall(r"\((?:vector of .*\()?(\w+)\)", tick)[-1] for tick in ticks] == [
        *("th", "vi", "th", "vi"),
    ]
    assert all("vector of" in tick for tick in ticks[2:])


def test_sets_of_items_in_one_language_of_two_scripts_read_as_two():
    sets = [
        {"consistency": replace(panel([0.5], [0.4]), languages=table)}
        for tag in ("zh-Hans", "zh-Hant")
        for table in [panel([0.5], [0.4]).languages.assign(language=tag)]
    ]
    names = language_names(sets)
    said = [process_findings(parts, names=names)[0] for parts in sets]
    assert "Right in Simplified Chinese" in said[0] and "Right in Traditional Chinese" in said[1]


def test_options_of_an_analysis_leave_the_models_own_facts_alone():
    origin = {"model": "m", "weights": "float32", "seed": 3}
    made = analysed(origin, "consistency", {"weights": "softmax", "seed": 0})
    assert {key: made[key] for key in origin} == origin
    assert made["consistency"]["weights"] == "softmax"
    with pytest.raises(ValueError, match="already"):
        analysed(made, "consistency", {})


@quick
@given(p=st.sampled_from([0.001, 0.5, 1.0]), share=shares, control=shares)
def test_rare_facts_are_told_with_what_their_test_says(p, share, control):
    rows = {"facts": "every", "language": "th", "n": 20, "control_n": 20, "p": p}
    rows |= {"expected": control}
    none = pd.DataFrame(columns=["facts"])
    found = FrequencyResponse(
        provenance={},
        carried=pd.DataFrame([rows | {"share": share, "control": control}]),
        **dict.fromkeys(("bins", "measures", "thresholds", "curves", "cells"), none),
        pivot="en",
        rule="exact",
    )
    said = frequency_findings(found, {"th": "Thai", "en": "English"})[-1]
    assert f"Thai {share:.2f} ({control:.2f})" in said
    assert f"(p < .01), in {int(p < 0.01)} of 1. " in said
    assert said.endswith("that alone is no sign that they came from English.")
    assert "are right more often" not in said
