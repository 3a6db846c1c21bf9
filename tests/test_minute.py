"""What is read of a page in one minute: sentences follow the numbers, the task comes first."""

import ast
import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from test_heat import panel as agreement

import xlens
from xlens.acquisition import FactRecall
from xlens.figures import figure_block, theme
from xlens.gain import Gain
from xlens.lens.readings import LensReadings
from xlens.neurons import NeuronEffects
from xlens.phases import PhaseResult
from xlens.phases.curves import ALL, Answered
from xlens.report.blocks import Code, Drawing, Folded, Paragraph, Section, Table
from xlens.report.choices_minute import choices_lead
from xlens.report.facts_minute import facts_lead
from xlens.report.fit_lens import fit_lens_lead
from xlens.report.gain import gain_lead
from xlens.report.lens_minute import NO_PHASE, PHASE, lens_lead
from xlens.report.minute import Minute, contents, example_section, minute_blocks, model_lines
from xlens.report.neurons import neurons_lead
from xlens.report.phases import phases_lead
from xlens.report.process_inside import (
    latent_sentences,
    map_sentences,
    probe_sentences,
    similarity_sentences,
    space,
)
from xlens.report.process_minute import process_lead
from xlens.report.reading_minute import reading_lead
from xlens.report.sentences import used
from xlens.report.subspace import subspace_lead
from xlens.subspace import LanguageMap, LanguagePairs, LanguageProbe, ScriptControl
from xlens.subspace.courses import map_course, probe_course, similarity_course
from xlens.tasks.choices import ChoiceAnswers, LatentSummary
from xlens.wording import one_of, rounded

NAMES = {"en": "English", "de": "German", "ru": "Russian"}
UNDONE = ("The task isn't shown to be done", "The task isn't done")


# how it stands on a page ------------------------------------------------------------------------


def minute(lead="Found.", head=("", "n"), rows=(("en", "1"),), example=()):
    return Minute(lead, Table("c", head, rows), example)


def test_one_model_stands_alone_and_several_are_told_apart():
    (lead, table) = minute_blocks({"m": minute()})
    assert (lead, table) == (Paragraph("Found.", "lead"), Table("c", ("", "n"), (("en", "1"),)))
    first, second, table = minute_blocks({"m": minute(), "n": minute("None.")})
    assert (first.text, second.text) == ("m: Found.", "n: None.")
    assert table.head == ["model", "", "n"] and [r[0] for r in table.rows] == ["m", "n"]
    # Tables of other columns stay two.
    blocks = minute_blocks({"m": minute(), "n": minute(head=("", "p"))})
    assert [type(block) for block in blocks] == [Paragraph, Paragraph, Table, Table]


def test_the_prompt_of_the_first_model_is_open_and_others_fold():
    assert example_section({"m": minute()}) == []
    shown = {"m": minute(example=(Code("a"),)), "n": minute(example=(Code("b"),))}
    (section,) = example_section(shown)
    assert section.blocks[0] == Code("a")
    assert section.blocks[1] == Folded("The same of n", (Code("b"),))
    assert "what the model said" in section.title
    (section,) = example_section({"m": replace(shown["m"], asked=False)})
    assert "said" not in section.title


def test_contents_are_sections_with_the_figures_that_are_not_folded():
    drawn = Drawing("p", "c", "fig-a", "A")
    folded = Folded("more", (Drawing("p", "c", "fig-b", "B"),))
    (listed,) = contents([Section("s", "S", (drawn, folded, Drawing("p", "c")))])
    assert (listed.key, listed.title, listed.drawn) == ("s", "S", (("fig-a", "A"),))


def test_figures_of_one_title_are_told_apart_by_their_captions():
    said = {"a": "German. More.", "b": "French. More.", "c": "Hindi."}
    drawn = tuple(Drawing("p", caption, name, "A") for name, caption in said.items())
    (listed,) = contents([Section("s", "S", drawn)])
    assert listed.drawn == (("a", "German"), ("b", "French"), ("c", "Hindi"))


def test_three_plots_beside_each_other_scroll_on_a_narrow_page():
    for columns, wide in ((2, False), (3, True)):
        fig, _ = theme.small_plots(["t"] * columns, columns=columns, height=200)
        assert ("min-width:690px" in figure_block(fig, "f", label="l")) == wide


def test_the_model_s_line_says_what_is_not_recorded():
    known = {"model": "m", "weights": "Q4", "dtype": "float32", "tokenizer": "abc"}
    known |= {"revision": "r1", "versions": {"xlens-interp": "1", "torch": "2", "numpy": "3"}}
    assert model_lines([known, known]) == [
        "m. Weights: Q4. Precision: float32. Tokenizer: abc. Revision: r1. "
        "Versions: xlens-interp 1, torch 2."
    ]
    (bare,) = model_lines([{"model": "m"}])
    assert bare.count("not recorded") == 5
    assert "the server's" in model_lines([{"model": "m", "endpoint": "http://x"}])[0]


# sentences follow the numbers -------------------------------------------------------------------


def test_lens():
    pairs = {"a": "phase", "b": "no phase", "c": "not done"}
    assert lens_lead(pairs, "English") == (
        "The task is done in 2 of 3 pairs: words of English come first, above all controls, in 1 "
        "of 2 (a); no English phase is found in 1 of 2 (b); the task isn't done in c."
    )
    every = lens_lead(dict.fromkeys("abc", PHASE), "English")
    assert every.endswith("come first, above all controls, in all 3 pairs.")
    assert "is found in any of the 2 pairs" in lens_lead(dict.fromkeys("ab", NO_PHASE), "English")
    undone = lens_lead(dict.fromkeys("ab", "not done"), "English")
    assert undone.startswith(UNDONE[1]) and "phase" not in undone
    assert "can't be told" in lens_lead({"a": "can't be told"}, "English")
    assert lens_lead({"a": "weak"}, "English").startswith("The task is done: words of English come")


def scores(low, high, p=0.2):
    table = pd.DataFrame(
        {"language": list(NAMES), "accuracy": 0.5, "low": low, "high": high, "chance": 0.25}
        | {"ties": 0.0, "n": 20, "unsettled": 0.0}
    )
    tested = pd.DataFrame({"a": ["en", "en"], "b": ["de", "ru"], "p_adjusted": [p, 0.5]})
    return replace(agreement(), languages=table, dependence=tested)


def test_choices():
    none = choices_lead(scores(0.1, 0.6), NAMES, 0.05)
    assert none.startswith(UNDONE[0]) and "any of 3 languages" in none
    some = choices_lead(scores([0.3, 0.1, 0.1], 0.6), NAMES, 0.05)
    assert some.startswith("Answers are above guessing in 1 of 3 languages (English); in none of 2")
    tied = choices_lead(scores(0.3, 0.6, p=0.01), NAMES, 0.05)
    assert "in 3 of 3 languages; being right" in tied and "in 1 of 2 pairs" in tied


def test_reading():
    how = {"reads": True, "controlled": True, "pivot": "English"}
    assert reading_lead({"en-en": False}, **how).startswith(UNDONE[0])
    assert reading_lead({"en-en": True}, **how).endswith("texts are read.")
    unread = reading_lead({"en-en": True}, **{**how, "reads": False})
    assert unread.endswith("that texts are read isn't shown.")
    assert "wasn't tried" in reading_lead({"en-en": True}, **{**how, "controlled": False})


def phases(found):
    table = pd.DataFrame({"language": [ALL, "en", "de"], "found": found})
    empty = pd.DataFrame()
    return PhaseResult(
        provenance={}, edges=empty, phases=table, agreement=empty, layers=(0, 1), n_layers=1,
        confidence=0.95,
    )  # fmt: skip


def test_phases():
    undone = phases_lead(phases([True] * 3), Answered(5, 10, 0.24))
    assert undone.startswith(UNDONE[0]) and "two phases" not in undone
    done = phases_lead(phases([True, True, False]), Answered(10, 10, 0.72))
    assert "two phases are found" in done and "in 1 of 2 languages by itself (English)" in done
    assert "two phases are not found" in phases_lead(phases([False] * 3), Answered(10, 10, 0.72))
    assert "wasn't looked at" in phases_lead(phases([False] * 3), Answered(0, 0, 0.0))


def recall(low, co):
    rows = {"rule": "word", "language": ["en", "de"], "accuracy": 0.5, "low": low, "high": 0.9}
    pairs = {"metric": "co", "language": ["de"], "value": co, "control_high": 0.3}
    empty = pd.DataFrame()
    return FactRecall(
        provenance={}, languages=pd.DataFrame({**rows, "majority": 0.2, "n": 9}), relations=empty,
        pairs=pd.DataFrame(pairs), false_credits=empty, pivot="en", rule="word",
    )  # fmt: skip


def test_facts():
    assert facts_lead(recall(0.1, 0.9), NAMES).startswith(UNDONE[0])
    same = facts_lead(recall([0.3, 0.1], 0.9), NAMES)
    assert "in 1 of 2 languages (English)" in same and "in 1 of 1 other," in same
    assert "in 0 of 1 other," in facts_lead(recall(0.3, 0.2), NAMES)


def test_neurons():
    def effects(difference, p):
        cells = [(a, b) for a in ("en", "de") for b in ("en", "de")]
        rows = [
            {"neurons": a, "language": b, "kind": "beyond", "difference": difference, "p": p}
            for a, b in cells
        ]
        return NeuronEffects(
            provenance={}, table=pd.DataFrame(rows), how="off", languages=("en", "de"),
            confidence=0.95,
        )  # fmt: skip

    assert "in 2 of 2 languages (English, German)" in neurons_lead(effects(1.0, 0.01))
    assert neurons_lead(effects(1.0, 0.2)).startswith("In none of 2 languages")
    assert neurons_lead(effects(-1.0, 0.01)).startswith("In none of 2 languages")
    assert "wasn't asked" in neurons_lead(None)


def test_subspace():
    def control(low, high):
        share = {"layer": 1, "measure": "cka_unbiased", "kind": "value", "share": 0.5}
        return ScriptControl(
            provenance={}, table=pd.DataFrame({"layer": [1]}),
            share=pd.DataFrame([{**share, "low": low, "high": high}]), pairs=pd.DataFrame(),
            languages=("en",), n_items=9, n_folds=2, confidence=0.95, pooling="mean",
        )  # fmt: skip

    assert "more the language by" in subspace_lead(control(0.6, 0.9))
    assert "more the script by" in subspace_lead(control(0.1, 0.4))
    assert "undecided" in subspace_lead(control(0.4, 0.6))
    none = control(0.4, 0.6)
    assert "isn't seen" in subspace_lead(replace(none, share=none.share.assign(share=math.nan)))


def test_fit_lens():
    def readings(kl, p):
        rows = {"lens": "tuned", "against": "logit", "language": ["en", "de"], "kl": kl}
        return LensReadings(
            provenance={}, table=pd.DataFrame(), changes=pd.DataFrame({**rows, "p_adjusted": p}),
            n_layers=2, confidence=0.95,
        )  # fmt: skip

    assert "in 2 of 2 languages" in fit_lens_lead(readings(-1.0, 0.01))
    assert "in none of 2 languages, and farther in 2" in fit_lens_lead(readings(1.0, 0.01))
    assert fit_lens_lead(readings(-1.0, 0.3)).endswith("in none of 2 languages.")


def test_gain():
    def found(verdict, low):
        rows = {"condition": "aligned", "against": "before", "language": ["de", "all"]}
        rows |= {"before_low": low, "difference": 0.1, "low": 0.05, "high": 0.2, "p": 0.01}
        return Gain(
            provenance={}, table=pd.DataFrame({**rows, "verdict": verdict}), runs=pd.DataFrame(),
            bound=0.03, trained=(), confidence=0.95,
        )  # fmt: skip

    before = ChoiceAnswers(provenance={}, table=pd.DataFrame(), rule="sequence", chance={"de": 0.5})
    undone = gain_lead(found("better", 0.4), "aligned", before, NAMES)
    assert undone.startswith("Before, the task isn't shown to be done")
    done = gain_lead(found("better", 0.6), "aligned", before, NAMES)
    assert done.startswith("Before, answers are above guessing in 1 of 1 language; after, better")
    assert done.endswith("by language, better in German.")
    assert "none of them shown" in gain_lead(found("undecided", 0.6), "aligned", before, NAMES)
    assert "isn't known" in gain_lead(found("better", 0.6), "aligned", None, NAMES)


# process: its own title -------------------------------------------------------------------------


def similarity(means, width=0.05):
    """Two pairs; the control of mismatched items lies around 0."""
    rows = [
        {"layer": layer, "a": "en", "b": b, "measure": "cka_unbiased", "kind": kind}
        | {"mean": mean, "low": mean - width, "high": mean + width, "n": 9}
        for layer, value in enumerate(means)
        for b in ("de", "ru")
        for kind, mean in (("value", value), ("mismatched", 0.0))
    ]
    return LanguagePairs(
        provenance={}, table=pd.DataFrame(rows), languages=tuple(NAMES), n_items=9,
        confidence=0.95, pooling="last",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("means", "said"),
    [
        ((0.1, 0.8, 0.3), "and leave it by point 2, less alike in 2 of them"),
        ((0.1, 0.8, 0.75), "that it is left by point 2 isn't shown"),
        ((0.1, 0.3, 0.8), "so it isn't left"),
        ((0.01, 0.04, 0.02), "no shared space is shown"),
    ],
)
def test_whether_a_shared_space_is_left_follows_the_numbers(means, said):
    found = similarity(means)
    course = similarity_course(found, "cka_unbiased")
    assert said in space(course)
    assert said in process_lead({"similarity": found}, NAMES, 0.05)
    text = " ".join(similarity_sentences(course))
    assert "the highest of 3 layers" in text and "mismatched items 0.00" in text


def test_a_layer_without_numbers_is_no_layer():
    found = similarity((math.nan, 0.8, 0.3))
    course = similarity_course(found, "cka_unbiased")
    assert (course.lowest, course.peak, course.n_layers, course.risen) == (1, 1, 2, 0)
    assert similarity_course(similarity((math.nan,)), "cka_unbiased") is None


def probe(whole, out, random):
    kinds = (("all", "value", whole), ("all", "shuffled", (0.3, 0.3)), ("outside", "value", out))
    kinds += (("outside", "random", random), ("outside", "shuffled", (0.3, 0.3)))
    rows = [
        {"layer": layer, "features": features, "kind": kind, "mean": mean}
        | {"low": mean - 0.05, "high": mean + 0.05, "n": 9}
        for features, kind, means in kinds
        for layer, mean in enumerate(means)
    ]
    return LanguageProbe(
        provenance={}, table=pd.DataFrame(rows), variance=pd.DataFrame(), languages=tuple(NAMES),
        estimator="LSAR(2)", confidence=0.95, pooling="last",
    )  # fmt: skip


def test_the_probe_is_told_beside_both_controls():
    first, second = probe_sentences(probe((0.9, 1.0), (0.3, 0.5), (0.9, 0.95)))
    assert "at 2 of 2 points" in first and "most at point 1, in 100 %" in first
    assert "in 30 % to 50 %" in second and "less than with these at 2 of 2 points" in second
    assert second.endswith("no more than shuffled languages at 1.")
    bare = probe((0.9, 1.0), (0.3, 0.5), (0.9, 0.95))
    without = bare.table.assign(low=math.nan, high=math.nan)  # too few items for an interval
    course = probe_course(replace(bare, table=without))
    assert (course.above, course.less, course.gone) == (0, 0, 0)
    nothing, _ = probe_sentences(probe((0.3, 0.32), (0.3, 0.3), (0.3, 0.3)))
    assert "at 0 of 2 points" in nothing


def drawn(space, plane, shuffled=0.1):
    rows = [
        {"layer": layer, "where": where, "kind": kind, "mean": mean, "low": mean, "high": mean}
        for where, means in (("space", space), ("map", plane))
        for layer, value in enumerate(means)
        for kind, mean in (("value", value), ("shuffled", shuffled))
    ]
    points = pd.DataFrame({"layer": range(len(space)), "id": "a", "language": "en", "x": 0.0})
    return LanguageMap(
        provenance={}, points=points.assign(y=0.0), centroids=pd.DataFrame(), axes=pd.DataFrame(),
        separation=pd.DataFrame(rows), languages=("en",), estimator="PooledPCA(2)",
        pooling="last", confidence=0.95,
    )  # fmt: skip


def test_the_map_opens_where_it_tells_languages_apart_best():
    assert drawn((0.2, 0.3, 0.2), (0.2, 0.6, 0.9)).telling == 2
    assert drawn((0.2, 0.3, 0.2), (0.7, 0.6, 0.5)).telling == 0
    assert drawn((0.2,) * 3, (math.nan, 0.6, math.nan)).telling == 1
    assert drawn((0.2,) * 3, (math.nan,) * 3).telling == 0


def test_the_map_s_sentence_is_of_the_whole_space():
    (said,) = map_sentences(drawn((0.2, 0.5, 0.3), (0.9, 0.9, 0.9)))
    assert said.startswith(
        "Of the states' variance 50 % lies between the languages' means at point"
    )
    assert "20 % at point 0, the least; at the last it is 30 %" in said
    assert said.endswith("at 3 of 3.")
    assert map_course(drawn((math.nan,), (math.nan,))) is None


def latent(share, right):
    rows = [
        {"language": "de", "layer": layer, "quantity": name, "mean": mean, "n": 9}
        | {"low": mean - 0.05, "high": mean + 0.05}
        for layer in (0, 1)
        for name, mean in (("share", share), ("share_control", 0.3), ("right_native", right))
    ]
    return LatentSummary(
        provenance={}, table=pd.DataFrame(rows), pivot="en", chance={"de": 0.25}, by="logprob",
        confidence=0.95,
    )  # fmt: skip


def test_options_inside_are_told_beside_another_item_s():
    first, second = latent_sentences(latent(0.6, 0.5), NAMES)
    assert "German at 2 of 2 (most 60 % at point 0, the other's 30 %)" in first
    assert "2 looks, each by its own interval" in first and "in 1 of 1 language" in second
    first, second = latent_sentences(latent(0.32, 0.26), NAMES)
    assert "German at 0 of 2;" in first and "in 0 of 1 language" in second


def test_reasons_have_one_order_whatever_the_file_s():
    counts = {"offered": 9, "kept": 3, "b": 1, "c": 4, "a": 1, "d": 0}
    said = "3 of 9 items can be used; of the others: c 4, a 1, b 1."
    assert used(counts, "items") == used(dict(sorted(counts.items())), "items") == said
    assert used({"offered": 3, "kept": 3, "a": 0}, "items") == ""


# numbers and words ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "form", "said"),
    [(-0.001, ".2f", "0.00"), (0.001, "+.2f", "0.00"), (-0.0, ".4g", "0"), (math.nan, ".2f", "–"),
     (-0.006, "+.2f", "-0.01"), (1234.5, ",.0f", "1,234"), (-0.04, ",.1f", "0.0")],
)  # fmt: skip
def test_no_zero_has_a_sign(value, form, said):
    assert rounded(value, form) == said


def formatted(code):
    """Number formats that a module applies by itself."""
    specs = [
        part.value
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None
        for part in node.format_spec.values
        if isinstance(part, ast.Constant)
    ]
    return [spec for spec in specs if "." in spec and spec[-1] in "fg"]


def test_reports_round_in_one_place():
    for path in (Path(xlens.__file__).parent / "report").rglob("*.py"):
        assert not formatted(path.read_text(encoding="utf-8")), path
    assert formatted('f"{x:+.2f} {n:,} {k:d}"') == ["+.2f"]


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([1], "1 shot"),
        ([2], "2 shots"),
        ([], "no shots"),
        ([0], "no shots"),
        ([1, 0, 1], "0 or 1 shots"),
    ],
)
def test_counts_that_occur(counts, said):
    assert one_of(counts, "shot") == said


# Nouns that are counted on pages, and how a number that may be 1 looks in code.
COUNTED = (
    *("languages", "items", "prompts", "layers", "points", "demonstrations", "questions", "pairs"),
    *("texts", "facts", "units", "tokens", "words", "methods", "combinations", "sentences"),
)


def counted_by_hand(code):
    """Numbers that are written before a plural, whatever they are."""
    return [
        f"{ast.unparse(number.value)}{noun.value}"
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.JoinedStr)
        for number, noun in pairwise(node.values)
        if isinstance(number, ast.FormattedValue)
        and isinstance(noun, ast.Constant)
        and re.match(rf" ({'|'.join(COUNTED)})\b", noun.value)
        and re.search(r"^len\(|^int\(|\['(n|of|asked)'\]$|\.n_\w+$", ast.unparse(number.value))
    ]


def test_nothing_counts_one_items():
    for room in ("report", "figures"):
        for path in (Path(xlens.__file__).parent / room).rglob("*.py"):
            assert not counted_by_hand(path.read_text(encoding="utf-8")), path
    assert counted_by_hand("f\"{len(x)} items, {row['of']} pairs, {of} pairs\"") == [
        "len(x) items, ",
        "row['of'] pairs, ",
    ]
