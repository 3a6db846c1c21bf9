"""Questions to translate: read, split, kept apart from what is evaluated, and made into rows."""

import json
from pathlib import Path

import pandas as pd
import pytest

import tiny
import xlens
from xlens.languages import named_in
from xlens.tasks.alignment import (
    INSTRUCTIONS,
    Questions,
    instruction,
    leaks,
    questions_of,
    read_questions,
    translation_pairs,
)

SHARED = Path(__file__).parents[2] / "shared" / "data"
TEXTS = {"en": "Where is town {}?", "de": "Wo ist Stadt {}?", "zh": "城市{}在哪里？"}


def frame(n=8, group=lambda k: f"article{k // 2}", **changed):
    rows = [
        {"id": f"q{k}", "language": tag, "text": text.format(k), "group": group(k)}
        for k in range(n)
        for tag, text in TEXTS.items()
    ]
    return pd.DataFrame(rows).assign(**changed)


@pytest.fixture
def questions():
    return Questions(frame(), "mine")


# --- questions ---


def test_questions_of_every_task():
    choices = xlens.tasks.choices.cldr_choices(["en", "de"], ["next-month"])
    found = questions_of(choices)
    assert found.texts("de")["next-month/2"] == "Januar" and len(found) == len(choices)
    words = questions_of(xlens.cldr_words(["en", "de", "zh-Hans"], ["month"]))
    assert words.texts("zh-Hans")["month/1"] == "一月"
    facts = questions_of(xlens.tasks.facts.cldr_facts(["en", "de"]))
    assert len(set(facts.groups.values())) < len(facts)  # of one subject there are several


def test_facts_questions_hold_no_object():
    facts = xlens.tasks.facts.cldr_facts(["en", "de"])
    texts = questions_of(facts).texts("en")
    objects = {id: fact.objects[0] for id, fact in facts.facts("en").items()}
    assert not [id for id in texts if texts[id].endswith(objects[id])]


def test_groups_are_never_split(questions):
    train, held = questions.split(0.3, seed=3)
    assert len(train) + len(held) == len(questions) and len(held) >= 0.3 * len(questions)
    assert not set(train.groups.values()) & set(held.groups.values())
    assert questions.split(0.3, seed=3)[1].ids == held.ids
    other = {questions.split(0.3, seed=seed)[1].ids for seed in range(6)}
    assert len(other) > 1


def test_one_group_cannot_be_split():
    with pytest.raises(ValueError, match="has 1 groups of questions, and groups are never split"):
        Questions(frame(group=lambda k: "one"), "mine").split(0.5)


def test_what_is_evaluated_is_left_out_by_text_in_any_language(questions):
    changed = frame(2).assign(id=["a", "a", "a", "b", "b", "b"], group="")
    changed.loc[changed["language"] != "de", "text"] += " now"
    changed["text"] = changed["text"].str.upper()
    evaluated = Questions(changed, "other")
    left = questions.apart_from(evaluated)
    assert set(questions.ids) - set(left.ids) == {"q0", "q1"}
    assert set(left.dropped["reason"]) == {"text of an evaluated item"}
    assert not leaks(left, evaluated)


def test_of_one_source_a_shared_group_is_a_leak(questions):
    train, held = questions.split(0.3)
    assert not leaks(train, held)
    one = held.select(ids=held.ids[:1])
    partner = questions.apart_from(one)
    assert not set(partner.groups.values()) & set(one.groups.values())
    with pytest.raises(ValueError, match="none is left to train on"):
        held.apart_from(held)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.drop(columns="text"), "lacks the columns"),
        (lambda f: f[f["language"] == "en"], "two languages or more"),
        (lambda f: f[~((f["id"] == "q1") & (f["language"] == "de"))], "missing language"),
        (lambda f: f.assign(text=f["text"].where(f["id"] != "q2", "  ")), "q2.*empty text"),
        (lambda f: pd.concat([f, f.head(1)]), "occurs twice"),
        (lambda f: f.assign(group=f["id"] + f["language"]), "group differs"),
        (lambda f: f.assign(text=3), "a text"),
    ],
)
def test_questions_that_cannot_be(change, said):
    with pytest.raises(ValueError, match=said):
        Questions(change(frame()), "mine")


# --- files ---


def test_read_from_a_file(tmp_path):
    file = tmp_path / "mine.jsonl"
    rows = frame(4).to_dict("records")
    file.write_text("\n".join(json.dumps(row) for row in rows))
    found = read_questions(file, languages=["de", "en"])
    assert found.languages == ("de", "en") and found.groups["q3"] == "article1"
    table = tmp_path / "mine.tsv"
    frame(4).drop(columns="group").to_csv(table, sep="\t", index=False)
    assert read_questions(table).groups["q3"] == "q3"


def test_an_empty_side_is_an_error_or_left_out(tmp_path):
    file = tmp_path / "mine.jsonl"
    rows = frame(4).to_dict("records")
    rows[1]["text"] = None
    file.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(ValueError, match="question 'q0', de: empty text"):
        read_questions(file)
    found = read_questions(file, incomplete="drop")
    assert len(found) == 3 and found.survival().set_index("reason")["n"]["empty text"] == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [('{"id": 1, "language": "de"}', "lacks text"), ('{"id": 1, "text": "a"}', "lacks language")],
)
def test_a_broken_line_is_named(tmp_path, line, said):
    (tmp_path / "mine.jsonl").write_text(line)
    with pytest.raises(ValueError, match=f"line 1.*{said}"):
        read_questions(tmp_path / "mine.jsonl")


def test_only_line_feeds_end_a_question(tmp_path):
    for tag in ("en", "de"):
        asked = f"{tag} one\u2028more?\t3\r\n{tag} two?\t4\n"
        (tmp_path / f"mgsm_{tag}.tsv").write_bytes(asked.encode())
    found = read_questions(tmp_path, layout="mgsm")
    assert found.texts("de") == {"1": "de one\u2028more?", "2": "de two?"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets are not here")
def test_published_layouts():
    xquad = read_questions(SHARED / "xquad", layout="squad", languages=["en", "zh"])
    assert len(xquad) == 1190 and len(set(xquad.groups.values())) == 48
    mgsm = read_questions(SHARED / "mgsm", layout="mgsm")
    assert len(mgsm) == 250 and {"de", "sw", "zh"} <= set(mgsm.languages)
    assert "16" in mgsm.texts("de")["1"] and not mgsm.texts("de")["1"].endswith("18")


# --- rows ---


def test_rows_have_the_instruction_after_the_text(questions):
    pairs = translation_pairs(questions, ["zh", "de"], "en")
    row = pairs.frame[(pairs.frame["id"] == "q1") & (pairs.frame["source"] == "zh")].iloc[0]
    assert row["prompt"] == "城市1在哪里？\nTranslate the input from Chinese to English:\n"
    assert row["completion"] == "Where is town 1?"
    assert len(pairs) == 16 and set(pairs.frame["source"][:8]) == {"zh", "de"}  # mixed


def test_directions_targets_and_numbers(questions):
    both = translation_pairs(questions, ["de"], "zh", direction="both", n=3)
    assert set(zip(both.frame["source"], both.frame["target"], strict=True)) == {
        ("de", "zh"),
        ("zh", "de"),
    }
    assert len(both) == 6 and both.frame["id"].nunique() == 3
    back = translation_pairs(questions, ["de"], "en", direction="from")
    assert set(back.frame["source"]) == {"en"}


def test_asked_in_the_language_of_the_text(questions):
    pairs = translation_pairs(questions, ["de", "zh"], "en", instruction_in="source")
    prompts = dict(zip(pairs.frame["source"], pairs.prompts, strict=True))
    assert "Übersetze den Text (Deutsch → Englisch):" in prompts["de"]
    assert "翻译以上文字（中文 → 英语）:" in prompts["zh"]


@pytest.mark.parametrize("tag", INSTRUCTIONS)
def test_every_wording_names_both_languages_in_its_own(tag):
    said = instruction("de", "fr", tag)
    assert named_in("de", tag) in said and named_in("fr", tag) in said
    assert "{" not in said and said.endswith(":")


def test_a_language_without_a_wording(questions):
    with pytest.raises(ValueError, match="No wording to ask for a translation in 'is'"):
        translation_pairs(questions, ["de"], "en", instruction_in="is")
    made = translation_pairs(
        questions, ["de"], "en", instruction_in="is", templates={"is": "{source}>{target}:"}
    )
    assert ">" in made.prompts[0]
    with pytest.raises(ValueError, match=r"lacks \{target\}"):
        instruction("de", "en", "is", templates={"is": "{source}:"})


def test_what_cannot_be_translated(questions):
    with pytest.raises(ValueError, match="both source and target"):
        translation_pairs(questions, ["en", "de"], "en")
    with pytest.raises(ValueError, match="No questions in 'fr'"):
        translation_pairs(questions, ["fr"], "en")
    with pytest.raises(ValueError, match="Can't sample 9"):
        translation_pairs(questions, ["de"], "en", n=9)


def test_shuffled_pairs_are_the_same_texts_with_none_its_own(questions):
    pairs = translation_pairs(questions, ["zh", "de"], "en", direction="both")
    other = pairs.shuffled(seed=1)
    assert other.prompts == pairs.prompts
    for way in (["source", "target"],):
        for key, mine in pairs.frame.groupby(way):
            shuffled = other.frame.groupby(way).get_group(key)
            assert sorted(mine["completion"]) == sorted(shuffled["completion"])
    own = dict(zip(pairs.frame["completion"], pairs.frame["group"], strict=True))
    groups = [own[text] for text in other.completions]
    assert not [a for a, b in zip(groups, pairs.frame["group"], strict=True) if a == b]
    assert other.digest() != pairs.digest()


def test_lengths_and_sides_that_are_the_same():
    rows = frame(4)
    rows.loc[(rows["id"] == "q0"), "text"] = "2 + 2?"
    pairs = translation_pairs(Questions(rows, "mine"), ["de", "zh"], "en")
    table = pairs.lengths(tiny.tokenizer("llama")).set_index("source")
    assert table["same"].tolist() == [0.25, 0.25]
    assert (table["longest"] > table["completion"]).all() and (table["n"] == 4).all()
