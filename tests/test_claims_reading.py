"""Each sentence about reading, and about the inside of a model that reads, against its frame."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phase_kit import curves
from readings import summed
from test_phases_compare import DE, EN, depth

from xlens import phases
from xlens.phases.curves import ALL
from xlens.report.reading_inside import phase_findings, phase_rows
from xlens.report.reading_tables import (
    leaderboard_rows,
    oracle_findings,
    pair_rows,
    reading_findings,
    score_rows,
    wide_rows,
)
from xlens.stats import Resampling
from xlens.studies.phases import TWIN
from xlens.studies.steps import reading_summary
from xlens.studies.steps.leaderboard import BY_CHANCE, leaderboard
from xlens.tasks.xmrc import OracleResult, ReadingResult
from xlens.wording import percent

quick = settings(max_examples=25, deadline=None)
shares = st.integers(0, 4).map(lambda n: n / 4)
intervals = st.tuples(shares, shares, shares).map(lambda t: tuple(np.array(sorted(t))[[1, 0, 2]]))
CELLS = {
    "en-en": ("en", "en", "en"),
    "en-x": ("en", "zh-Hant", "en"),
    "x-x": ("zh-Hans", "zh-Hans", "zh-Hans"),
}


def result(
    f1=None, chance=0.1, other=None, errors=None, cut=None, of="wrong", ratio=0.5
) -> ReadingResult:
    """Frames made up: `(value, low, high)` by setting, of real and of exchanged texts."""
    f1 = f1 or dict.fromkeys(CELLS, (0.5, 0.4, 0.6))
    chances = chance if isinstance(chance, dict) else dict.fromkeys(CELLS, chance)
    rows, summary, kinds = [], [], []
    for setting, (value, low, high) in f1.items():
        numbers = {"setting": setting, "value": value, "low": low, "high": high}
        numbers |= {"ratio": ratio, "ratio_low": ratio, "ratio_high": ratio, "flag": ""}
        numbers["chance"] = chances[setting]
        cell = dict(
            zip(
                ("context_language", "question_language", "answer_language"),
                CELLS[setting],
                strict=True,
            )
        )
        more = {
            "truncated": (cut or {}).get(setting, 0.0),
            "text_cut": 0.0,
            "n": 20,
            "paragraphs": 10,
        }
        for metric in ("f1", "em"):
            rows.append({"control": "", **cell, **numbers, **more, "metric": metric})
            tag = next((t for t in CELLS[setting] if t != "en"), "en")
            many = {"n_languages": 1, "languages": tag, "metric": metric}
            summary.append({**numbers, **many})
            if setting in (other or {}):
                ends = dict(zip(("value", "low", "high"), other[setting], strict=True))
                rows.append({**rows[-1], "control": "mismatched", **ends})
        for kind, (n, whole, low, baseline) in (errors or {}).get(setting, {}).items():
            kinds.append(
                {"control": "", **cell, "setting": setting, "kind": kind, "n": n}
                | {"of": whole, "low": low, "baseline": baseline, "share": n / whole}
            )
    columns = ["control", "setting", "kind", "n", "of", "low", "baseline"]
    return ReadingResult(
        provenance={"error_denominator": of},
        model="m",
        pivot="en",
        scores=pd.DataFrame(rows),
        summary=pd.DataFrame(summary),
        errors=pd.DataFrame(kinds, columns=None if kinds else columns),
        items=pd.DataFrame(),
        chance=pd.DataFrame(),
    )


def said_of(found: ReadingResult, start: str) -> str:
    (said,) = [s for s in reading_findings(summed({"scores": found})) if s.startswith(start)]
    return said


@quick
@given(f1=st.fixed_dictionaries(dict.fromkeys(CELLS, intervals)), chance=shares)
def test_every_f1_is_told_with_its_chance_and_whether_it_is_above(f1, chance):
    found = result(f1, chance)
    for setting, start in (
        ("en-en", "With text and question in English"),
        ("en-x", "With the text in English and the question in another language (Traditional Chi"),
        ("x-x", "With text and question in another language (Simplified Chinese)"),
    ):
        value, low, high = f1[setting]
        beside = f"F1 is {value:.2f} [{low:.2f}, {high:.2f}] (by chance {chance:.2f}"
        said = said_of(found, start)
        assert beside in said
        assert (": not above it)" in said) == (not low > chance)


@quick
@given(real=intervals, other=intervals)
def test_shares_of_the_pivots_score_are_told_where_it_reads(real, other):
    f1 = {"en-en": real, "en-x": (0.3, 0.2, 0.4), "x-x": (0.3, 0.2, 0.4)}
    found = result(f1, other={"en-en": other, "x-x": (0.2, 0.1, 0.3)})
    first = said_of(found, "With text and question in English")
    reads = real[1] > other[2]
    assert ("within the intervals no more than" in first) == (not reads)
    assert ("0.50 [0.50, 0.50] of English's" in said_of(found, "With the text in")) == reads
    unread = said_of(found, "With another text F1")
    top = max((other, (0.2, 0.1, 0.3)), key=lambda row: row[0])
    assert f"is {np.mean([other[0], 0.2]):.2f} on average and at most {top[0]:.2f}" in unread


def test_too_few_paragraphs_for_an_interval_are_not_called_a_tie():
    f1 = {"en-en": (0.5, np.nan, np.nan)}
    said = said_of(result(f1, other={"en-en": (0.1, np.nan, np.nan)}), "With text and question")
    assert "of too few paragraphs to hold against that" in said and "not above" not in said
    assert "within the intervals" not in said


@quick
@given(cut=st.fixed_dictionaries(dict.fromkeys(CELLS, shares)))
def test_combinations_cut_off_most_are_all_of_them(cut):
    said = [
        s for s in reading_findings(summed({"scores": result(cut=cut)})) if "cut answers off" in s
    ]
    assert bool(said) == any(cut.values())
    if said:
        assert f"in {sum(x > 0 for x in cut.values())} of 3 combinations" in said[0]
        most = re.findall(r"\w+(?:-Han[st])?-\w+(?:-Han[st])?-\w+(?:-Han[st])?", said[0])
        assert set(most) == {"-".join(CELLS[s]) for s, x in cut.items() if x == max(cut.values())}


@quick
@given(low=shares, baseline=shares, of=st.sampled_from(["wrong", "all"]))
def test_errors_of_language_are_held_against_right_answers(low, baseline, of):
    kinds = {"content": (4, 16, 0.1, 0.0), "language": (8, 16, low, baseline)}
    found = result(errors={"x-x": kinds | {"failure": (2, 16, 0.1, 0.0)}}, of=of)
    said = said_of(found, f"Of 16 {'wrong ' if of == 'wrong' else ''}answers in x-x")
    assert "25 % are wrong in what they say, 50 % in another language" in said and "12 % no" in said
    assert f"other questions, {percent(baseline)} would count so" in said
    above = "in Simplified Chinese)" if low > baseline else "in no language)"
    assert f"the interval lies above its own language's share of these {above}" in said
    # Of several that were looked at, one may lie above by chance.
    twice = replace(found, errors=pd.concat([found.errors] * 2, ignore_index=True))
    said = said_of(twice, "Of 32")
    assert f"of these {above[:-1]}, of 2 combinations, each by itself)" in said


@quick
@given(hits=st.lists(st.booleans(), min_size=8, max_size=8))
def test_the_oracle_is_told_with_the_chance_of_its_sentences(hits):
    rows = [
        {"id": f"q{n}", "paragraph": str(n), "language": "en", "target": "right answer"}
        | {"hit": hit, "chance": 0.25, "longest": n % 2 == 0}
        for n, hit in enumerate(hits)
    ]
    found = OracleResult(provenance={}, items=pd.DataFrame(rows), left_out=pd.DataFrame())
    (said,) = oracle_findings(summed({"oracle": found}))
    assert (
        f"the right answer in {percent(np.mean(hits))} (chance 25 %, longest sentence 50 %;" in said
    )
    clear = int((found.summary()["above_low"] > 0).sum())
    assert f"in {clear} of 1 combination" in said


def test_the_oracle_is_told_by_the_intervals_that_were_asked_for():
    rows = [
        {"id": f"q{n}", "paragraph": str(n), "language": "en", "target": "right answer"}
        | {"hit": n < 12, "chance": 0.5, "longest": False}
        for n in range(20)
    ]
    found = OracleResult(provenance={}, items=pd.DataFrame(rows), left_out=pd.DataFrame())
    for confidence, clear in ((0.3, 1), (0.99, 0)):
        how = Resampling(confidence=confidence)
        assert int((found.summary(resampling=how)["above_low"] > 0).sum()) == clear
        scores = replace(result(), provenance={"scores": how.provenance()})
        (said,) = oracle_findings(summed({"oracle": found, "scores": scores}))
        assert f"in {clear} of 1 combination" in said


# tables ------------------------------------------------------------------------------------------


def test_means_over_languages_have_their_chance_beside_them():
    found = result(chance={"en-en": 0.02, "en-x": 0.02, "x-x": 0.11})
    two = found.summary.assign(n_languages=2)
    rows = score_rows({"scores": replace(found, summary=two)})
    assert [row[6] for row in rows] == ["0.02", "0.02", "0.11"] * 2
    assert rows[-1][0] == "mean of x-x"


def test_the_leaderboard_has_chance_beside_every_rate():
    items = pd.DataFrame(
        [
            {"control": "", "context_language": c, "question_language": q, "answer_language": a}
            | {"id": f"q{n}", "paragraph": str(n), "f1": 0.5, "wrong": True, "kind": "language"}
            for c, q, a in CELLS.values()
            for n in range(4)
        ]
    )
    kinds = {"content": (4, 16, 0.1, 0.0), "language": (8, 16, 0.2, 0.33)}
    found = result(
        errors={s: kinds for s in CELLS}, chance={"en-en": 0.02, "en-x": 0.07, "x-x": 0.11}
    )
    found = replace(found, items=items)
    board = leaderboard({"a": found, "b": found}, resampling=Resampling(draws=20))
    head, rows = leaderboard_rows(board)
    assert rows[0][head.index("pivot's F1")] == "0.50 (0.02)"
    assert rows[0][head.index("by chance")] == "0.07"
    head, rows = wide_rows(board.languages, "language", "f1")
    assert head == ["model", "zh-Hant"] and rows[0] == [BY_CHANCE, "0.07"]
    head, rows = wide_rows(board.errors, "kind", "share", "baseline")
    assert rows[0][head.index("language")] == "1.00 (0.33)"
    assert rows[0][head.index("blank")] == "0.00"  # no baseline is known of it
    lacking = pd.concat([board.languages, board.languages.tail(1).assign(language="ru")])
    assert wide_rows(lacking, "language", "f1")[1][0] == [BY_CHANCE, "0.07", "–"]
    none = {"base": "a", "post": "b", "f1_base": np.nan, "f1_post": np.nan, "n": 0}
    none |= dict.fromkeys(("difference", "low", "high"), np.nan)
    assert pair_rows(replace(board, pairs=pd.DataFrame([none])))[1][0][4] == "–"


# inside ------------------------------------------------------------------------------------------

STEPS = {"patch_question": 3, "patch_context": 6}


@pytest.fixture(scope="module")
def detected():
    """Two phases, and none."""
    few = {"resampling": Resampling(draws=50), "n_flips": 200}
    return [
        phases.detect_phases(
            curves(STEPS, noise=0.2, size=size, languages=["en", "zh-Hans"]), **few
        )
        for size in (1.0, 0.0)
    ]


@pytest.mark.parametrize("mine", [0, 1])
@pytest.mark.parametrize("blank", [0, 1, None])
def test_phases_are_held_against_random_weights(detected, mine, blank):
    parts = {"phases": detected[mine]}
    parts |= {} if blank is None else {TWIN: detected[blank]}
    first, *others = phase_findings(summed(parts))
    assert first.startswith(f"Inside: {detected[mine].verdict()}")
    assert ("no finding" in first) == (mine == 0 and blank == 0)
    told = [s for s in others if s.startswith("The same with random weights")]
    assert len(told) == (blank is not None)
    if told:
        assert "questions in English, Simplified Chinese: " in told[0]
        assert detected[blank].verdict() in told[0]


def test_the_reason_and_its_p_belong_to_one_edge(detected):
    row = detected[1].row()
    edge = max(("question", "answer"), key=lambda name: row[f"p_{name}"])
    assert row["p"] == row[f"p_{edge}"]
    assert {"question": "handed over", "answer": "retrieved"}[edge] in row["why"]


def test_a_table_of_phases_names_the_scripts(detected):
    assert [row[0] for row in phase_rows(detected[0])[1]] == [
        "all languages",
        "English",
        "Simplified Chinese",
    ]


three = st.tuples(*[st.integers(-2, 2)] * 3).map(lambda t: tuple(sorted(t)))


@quick
@given(mine=three, random=three)
def test_deeper_is_told_from_the_interval_and_against_random_tokens(mine, random):
    found, control = depth({"en": EN}), depth({"en": DE})

    def gap(which, **_):
        low, value, high = mine if which is found else random
        one = {"language": "en", "gap": 9.0, "low": 8.0, "high": 9.5}
        pooled = {"language": ALL, "gap": value, "low": low, "high": high}
        return pd.DataFrame([one, pooled, one])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading_summary, "depth_gap", gap)
        (said,) = [
            s
            for s in phase_findings(summed({"depth": found, "depth-control": control}))
            if s.startswith("By it")
        ]
        (alone,) = [s for s in phase_findings(summed({"depth": found})) if s.startswith("By it")]
    low, value, high = mine
    assert ("lies deeper than" in said) == (low > 0)
    assert ("lies less deep than" in said) == (high < 0)
    assert ("isn't told apart" in said) == (low <= 0 <= high)
    assert f"the difference is {value:.1f} [{low:.1f}, {high:.1f}] layers" in said
    assert f"random tokens: {random[1]:.1f} [{random[0]:.1f}, {random[2]:.1f}]" in said
    assert ("within the intervals the same" in said) == (low <= random[2] and random[0] <= high)
    assert "random tokens" not in alone


def test_a_depth_of_few_prompts_is_not_called_the_same(monkeypatch):
    none = pd.DataFrame([{"language": ALL, "gap": 2.0, "low": np.nan, "high": np.nan}])
    monkeypatch.setattr(reading_summary, "depth_gap", lambda _, **__: none)
    said = phase_findings(summed({"depth": depth({"en": EN})}))[-1]
    assert "can't be told apart" in said and "nan" not in said


def test_a_depth_that_is_not_known_is_called_so():
    none = [np.nan] * 4
    said = phase_findings(summed({"depth": depth({"en": (none, [6.0] * 4)})}))[0]
    assert "by which 95 % of a segment's relevance is reached, of 10" in said
    assert "the question's is unknown, the context's is 6.0 [" in said
    other = replace(depth({"en": EN}), options={"measure": "percentile", "share": 0.9})
    assert "relevance reaches the 90th percentile" in phase_findings(summed({"depth": other}))[0]


def test_prompts_that_say_something_are_counted_by_kind():
    made = curves({"patch_question": 3, "patch_context": 6}, n=12)
    assert not [s for s in phase_findings(summed({"curves": made})) if "say something" in s]
    made.values[0, :3] = np.nan
    (said,) = phase_findings(summed({"curves": made}))
    assert "Of 12 prompts, 9 to 12 say something" in said and "(fewest: patch_question)" in said
    made.values[1, :3] = np.nan
    (said,) = phase_findings(summed({"curves": made}))
    assert "Of 12 prompts, 9 say something" in said
    assert "(fewest: patch_question, patch_context)" in said
