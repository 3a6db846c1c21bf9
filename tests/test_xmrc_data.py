"""Reading comprehension: questions paired by id, answers at their place, sentences."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import readings

from xlens.segments import word_spans
from xlens.tasks.xmrc import (
    ReadingSet,
    cldr_reading,
    download_reading,
    mismatched,
    read_reading,
    sentences,
)
from xlens.tasks.xmrc import readers as readers_module
from xlens.tasks.xmrc.data import whole_readings
from xlens.tasks.xmrc.segments import holding
from xlens.text import form

real = pytest.mark.skipif(not readings.XQUAD.is_dir(), reason="XQuAD is not here")


@pytest.fixture(scope="module")
def stories() -> ReadingSet:
    return readings.reading_set()


@pytest.fixture(scope="module")
def xquad() -> ReadingSet:
    return read_reading(readings.XQUAD)


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


# --- the data object -----------------------------------------------------------------------------


def test_questions_by_id_language_and_paragraph(stories):
    assert stories.languages == readings.LANGUAGES
    assert len(stories) == 12 and len(stories.paragraphs) == 6
    assert stories.paragraphs["1/0"] == ("q20", "q21")
    item = stories.items("zh-hans")["q20"]
    assert item.context[item.starts[0] : item.starts[0] + 2] == item.answers[0] == "森林"
    assert (item.paragraph, item.article, item.title) == ("1/0", "1", "Story 1")
    part = stories.select(ids=["q20", "q11"], languages=["de", "en"])
    assert part.ids == ("q11", "q20") and part.languages == ("en", "de")
    assert "2 questions on 2 paragraphs" in repr(part)


def test_a_sample_takes_a_question_of_each_paragraph_first(stories):
    for seed in range(5):
        six = stories.sample(6, seed=seed)
        assert set(six.paragraphs) == set(stories.paragraphs)
        nine = stories.sample(9, seed=seed)
        assert set(six.ids) < set(nine.ids)
        assert sorted(map(len, nine.paragraphs.values())) == [1, 1, 1, 2, 2, 2]
    turned = ReadingSet(stories.frame.iloc[::-1], "stories")
    assert set(turned.sample(5, seed=3).ids) == set(stories.sample(5, seed=3).ids)
    assert len({stories.sample(3, seed=s).ids for s in range(20)}) > 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "q99"}, "'q99', de: missing language"),
        ({"question": " "}, "'q00', en: empty text"),
        ({"context": ""}, "empty text"),
        ({"answers": [], "starts": []}, "'q00', en: no answer"),
        ({"answers": [" "], "starts": [4]}, "no answer"),
        ({"answers": ["moon"]}, r"answer not found \('moon' is not at 46\)"),
        ({"starts": [0]}, r"answer elsewhere \('garden' is not at 0, but at 46\)"),
        ({"starts": [-5]}, "answer elsewhere"),
        ({"paragraph": "0/7"}, r"paragraph differs \(0/0, but 0/7 in en\)"),
        ({"starts": [45, 46]}, "has 1 answers but 2 starts"),
        ({"id": "q01"}, "'q01' occurs twice in en"),
        ({"language": "english"}, "Unknown language tag 'english'"),
    ],
)
def test_what_cannot_be_asked_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        readings.reading_set(change)


def test_refused_or_dropped_and_counted():
    rows = readings.rows()
    rows[0]["starts"] = [0]
    rows[3]["answers"] = ["moon"]
    del rows[20]
    frame = pd.DataFrame(rows)
    with pytest.raises(ValueError, match="missing language"):
        whole_readings(frame, "x", incomplete="error", faulty="drop")
    with pytest.raises(ValueError, match="answer elsewhere"):
        whole_readings(frame, "x", incomplete="drop", faulty="error")
    kept = whole_readings(frame, "x", incomplete="drop", faulty="drop")
    assert len(kept) == 9 and not {"q00", "q11"} & set(kept.ids)
    counts = kept.survival().set_index("reason")["n"]
    assert counts[["offered", "kept", "missing language"]].tolist() == [12, 9, 1]
    assert counts[["answer not found", "answer elsewhere"]].tolist() == [1, 1]
    with pytest.raises(ValueError, match="accepted are 'error', 'drop'"):
        whole_readings(frame, "x", incomplete="keep", faulty="drop")
    with pytest.raises(ValueError, match="No question of x is left; the first of 1 faults"):
        whole_readings(frame[:1], "x", incomplete="drop", faulty="drop")


def test_bad_selections(stories):
    with pytest.raises(ValueError, match="No questions in 'fr': stories has en, de, ru, zh-Hans"):
        stories.items("fr")
    with pytest.raises(ValueError, match=r"No id \['9'\]"):
        stories.select(ids=["9"])
    for n in (0, 13):
        with pytest.raises(ValueError, match=f"sample {n} questions of 12"):
            stories.sample(n)
    with pytest.raises(ValueError, match=r"lacks the columns \['starts'\]"):
        ReadingSet(stories.frame.drop(columns="starts"), "x")
    with pytest.raises(ValueError, match="No question is left"):
        ReadingSet(stories.frame[:0], "x")


# --- exchanged contexts --------------------------------------------------------------------------


def test_exchanged_contexts_are_a_permutation_between_articles(stories):
    for seed in range(4):
        other = mismatched(stories, seed=seed)
        assert other.control == "mismatched" and other.ids == stories.ids
        told, true = other.items("de"), stories.items("de")
        assert {item.context for item in told.values()} == {i.context for i in true.values()}
        home = {item.context: item.article for item in true.values()}
        assert all(home[told[id].context] != true[id].article for id in true)
        # The same exchange in every language, and the questions are as they were.
        number = {tag: {i.context: i.paragraph for i in stories.items(tag).values()}
                  for tag in stories.languages}  # fmt: skip
        for id in stories.ids:
            assert len({number[t][other.items(t)[id].context] for t in other.languages}) == 1
            assert told[id].question == true[id].question
    assert len({mismatched(stories, seed=s).items("en")["q00"].context for s in range(9)}) > 1
    few = stories.select(ids=["q00", "q01", "q10"])
    assert mismatched(few).items("en")["q00"].context == few.items("en")["q10"].context
    with pytest.raises(ValueError, match="has 1 paragraph"):
        mismatched(stories.select(ids=["q00", "q01"]))


def untitled(stories: ReadingSet) -> ReadingSet:
    """The same, as XQuAD lies on the hub: without titles."""
    return ReadingSet(stories.frame.drop(columns=["paragraph", "title"]), "untitled")


def test_where_articles_are_not_known_neighbours_are_avoided(stories):
    bare = untitled(stories)
    assert list(bare.paragraphs) == [f"/{n}" for n in range(6)]
    assert {item.article for item in bare.items("en").values()} == {""}
    home = {item.context: item.article for item in stories.items("de").values()}
    seen = set()
    for seed in range(12):
        other = mismatched(bare, seed=seed)
        assert not other.other_articles and mismatched(stories, seed=seed).other_articles
        told = other.items("de")
        assert {item.context for item in told.values()} == set(home)
        # Two paragraphs of an article stand side by side, as in XQuAD five do.
        assert all(home[told[id].context] != stories.items("de")[id].article for id in told)
        seen.add(told["q00"].context)
    assert len(seen) > 1
    few = bare.select(ids=["q00", "q10"])
    assert mismatched(few).items("en")["q00"].context == few.items("en")["q10"].context
    same = stories.select(ids=["q00", "q01", "q10"])  # one article
    assert not mismatched(same).other_articles


# --- files ---------------------------------------------------------------------------------------


def test_a_file_per_language(tmp_path, stories):
    for tag, name in (("en", "x.en.json"), ("de", "x.de.json"), ("zh-Hans", "x.zh.json")):
        write(tmp_path / name, readings.squad(tag))
    read = read_reading(tmp_path, languages=["en", "zh-Hans"])
    assert read.languages == ("en", "zh-Hans")
    assert read.frame.equals(stories.select(languages=["en", "zh-Hans"]).frame)
    assert set(read_reading(tmp_path).languages) == {"en", "de", "zh"}
    assert read_reading(tmp_path, languages={"zh_hans": "zh"}).languages == ("zh-Hans",)
    assert read_reading(tmp_path / "x.de.json", languages=["de"]).languages == ("de",)
    own = read_reading(tmp_path / "x.zh.json", languages={"zh_hans": "zh"})
    assert own.languages == ("zh-Hans",)
    with pytest.raises(ValueError, match="has no 'fr'"):
        read_reading(tmp_path, languages=["fr"])
    with pytest.raises(ValueError, match="is a file of one language"):
        read_reading(tmp_path / "x.de.json")
    with pytest.raises(ValueError, match="No file or folder"):
        read_reading(tmp_path / "y")
    with pytest.raises(ValueError, match="Unknown layout 'squad2'"):
        read_reading(tmp_path, layout="squad2")
    with pytest.raises(ValueError, match="'train' in its name"):
        read_reading(tmp_path, split="train")


def test_faulty_files_are_named(tmp_path):
    write(tmp_path / "de.json", {"data": [{"paragraphs": [{"context": "x"}]}]})
    with pytest.raises(
        ValueError, match=r"'de\.json', article 1, paragraph 1: lacks qas; .*SQuAD's layout"
    ):
        read_reading(tmp_path)
    (tmp_path / "de.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"'de.json', line 1 isn't JSON"):
        read_reading(tmp_path)
    write(tmp_path / "de.json", readings.squad("de"))
    write(tmp_path / "de.x.json", readings.squad("de"))
    with pytest.raises(ValueError, match="are 'de'"):
        read_reading(tmp_path)
    (tmp_path / "z").mkdir()
    with pytest.raises(ValueError, match=r"No file of .*z' ends in .json"):
        read_reading(tmp_path / "z")
    write(tmp_path / "z" / "plan.json", {})
    with pytest.raises(ValueError, match=r"is named after a language: plan.json"):
        read_reading(tmp_path / "z")


def test_mlqa_asks_each_context_in_each_language(tmp_path, stories):
    """A file per pair; a language's questions and contexts may stand in different files."""
    for context, question in (("en", "en"), ("en", "de"), ("de", "de"), ("zh", "en")):
        tags = [{"zh": "zh-Hans"}.get(code, code) for code in (context, question)]
        asked = stories.items(tags[1])
        content = readings.squad(tags[0])
        content["data"] = content["data"][::-1] if context == "de" else content["data"]
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for row in paragraph["qas"]:
                    row["question"] = asked[row["id"]].question
        if context == "de":  # not all questions are there in German
            content["data"] = content["data"][1:]
        write(tmp_path / f"test-context-{context}-question-{question}.json", content)
    read = read_reading(tmp_path, layout="mlqa", languages=["en", "de"], incomplete="drop")
    assert len(read) == 8 and read.survival()["n"][2] == 4
    for tag in ("en", "de"):
        for id, item in read.items(tag).items():
            wanted = stories.items(tag)[id]
            assert (item.question, item.context) == (wanted.question, wanted.context)
            # German articles are numbered otherwise: the first language's number counts.
            assert item.paragraph == wanted.paragraph
    with pytest.raises(ValueError, match="missing language"):
        read_reading(tmp_path, layout="mlqa", languages=["en", "de"])
    with pytest.raises(ValueError, match="no questions in zh: add the file context-zh-question-zh"):
        read_reading(tmp_path, layout="mlqa", languages=["en", "zh"])
    write(tmp_path / "dev-context-en-question-en.json", readings.squad("en"))
    with pytest.raises(ValueError, match="ask en of en; say which with split="):
        read_reading(tmp_path, layout="mlqa")
    again = read_reading(
        tmp_path, layout="mlqa", languages=["en", "de"], split="test", incomplete="drop"
    )
    assert again.frame.equals(read.frame)
    with pytest.raises(ValueError, match="named as MLQA's"):
        read_reading(write(tmp_path / "x" / "en.json", {}).parent, layout="mlqa")


def tydi_rows() -> list[dict]:
    return [
        {
            "id": f"{name}-{row['id']}",
            "question": row["question"],
            "context": row["context"],
            "answers": {"text": row["answers"], "answer_start": row["starts"]},
        }
        for row in readings.rows()
        for name, tag in (("english", "en"), ("russian", "ru"))
        if row["language"] == tag
    ]


def test_tydiqa_is_not_parallel(tmp_path):
    lines = "\n".join(json.dumps(row) for row in tydi_rows())
    (tmp_path / "dev.jsonl").write_text(lines, encoding="utf-8")
    read = read_reading(tmp_path / "dev.jsonl", layout="tydiqa")
    assert not read.parallel and read.languages == ("en", "ru") and len(read) == 24
    assert len(read.paragraphs) == 12  # numbered by their contexts
    few = read.sample(3, seed=1)
    assert [len(few.items(tag)) for tag in few.languages] == [3, 3]
    lone = read.select(ids=[*read.items("en"), *list(read.items("ru"))[:2]])
    with pytest.raises(ValueError, match="has 1 paragraph in ru"):
        mismatched(lone)
    other = mismatched(read)
    assert all("the" in item.context for item in other.items("en").values())
    alone = read_reading(tmp_path / "dev.jsonl", layout="tydiqa", languages=["ru"])
    assert alone.languages == ("ru",)
    with pytest.raises(ValueError, match="doesn't begin with the name of a language"):
        (tmp_path / "odd.jsonl").write_text(lines.replace("english-", "xx!-"), encoding="utf-8")
        read_reading(tmp_path / "odd.jsonl", layout="tydiqa")
    with pytest.raises(ValueError, match="line 1: lacks answers; it has"):
        (tmp_path / "odd.jsonl").write_text('{"id": "a", "context": "b", "question": "c"}')
        read_reading(tmp_path / "odd.jsonl", layout="tydiqa")


def test_the_hub(monkeypatch):
    """Only the two functions of `datasets` are stood in for."""
    asked = []

    def load(name, config, *, split, revision):
        asked.append((name, config, split, revision))
        code = config.rpartition(".")[2]
        if name.endswith("tydiqa"):
            return tydi_rows()
        tag = {"zh": "zh-Hans"}.get(code, code)
        return [
            {**row, "answers": {"text": row["answers"], "answer_start": row["starts"]}}
            for row in readings.rows()
            if row["language"] == tag
        ]

    def configurations(name, *, revision):
        if name.endswith("mlqa"):
            return ["mlqa.en.en", "mlqa.en.de", "mlqa.de.de", "mlqa-translate-test.de"]
        return [f"xquad.{code}" for code in ("en", "de", "zh")]

    monkeypatch.setattr(readers_module, "open_hub", lambda: (load, configurations))
    read = download_reading("xquad", languages=["en", "zh-Hans"], revision="abc")
    assert read.languages == ("en", "zh-Hans") and read.source == "google/xquad@abc"
    assert asked == [(("google/xquad"), f"xquad.{x}", "validation", "abc") for x in ("en", "zh")]
    assert len(read.paragraphs) == 6 and len({p.split("/")[0] for p in read.paragraphs}) == 3
    asked.clear()
    assert download_reading("mlqa", languages=["en", "de"]).languages == ("en", "de")
    assert [a[1] for a in asked] == ["mlqa.en.en", "mlqa.de.de"] and asked[0][2] == "test"
    assert download_reading("tydiqa", languages=["ru"]).languages == ("ru",)
    with pytest.raises(ValueError, match="has no 'fr'"):
        download_reading("xquad", languages=["fr"])
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="pip install datasets"):
        download_reading("xquad", languages=["en"])


# --- sentences -----------------------------------------------------------------------------------

SENTENCES = {
    "en": ["The dog sleeps.", "Dr. Lee waits, e.g. at home!", "Is it 3.5 km?"],
    "de": ["Der Hund schläft.", "Das sind z.B. 3,5 km.", "Wo ist er?"],
    "el": ["Πού είναι η πόλη;", "Εδώ είναι."],
    "hi": ["राम घर जाता है।", "सीता यहाँ है।"],
    "ar": ["أين مدينة الملك؟", "الكلب ينام في البيت."],
    "tr": ["Köpek evde uyuyor.", "Kitap nerede?"],
}


@pytest.mark.parametrize("tag", SENTENCES)
def test_sentences_and_their_places(tag):
    wanted = SENTENCES[tag]
    text = "  " + " ".join(wanted) + "\n"
    assert [text[a:b] for a, b in sentences(text, tag)] == wanted


def test_sentences_without_spaces_and_without_marks():
    text = "狗在花园里睡觉。猫呢？🐶在这里！"
    assert [text[a:b] for a, b in sentences(text, "zh-Hans")] == [
        "狗在花园里睡觉。",
        "猫呢？",
        "🐶在这里！",
    ]
    # Spaces stand between clauses as well: they are joined to about a sentence's 25 words.
    thai = "แมวนอนอยู่ในบ้าน สุนัขวิ่งเล่นในสวน"
    assert [thai[a:b] for a, b in sentences(thai, "th")] == [thai]
    for clause, tag in ((thai, "th"), ("ແມວນອນຢູ່ໃນເຮືອນ ໝາແລ່ນ", "lo")):
        whole = " ".join([clause] * 20)
        found = [whole[a:b] for a, b in sentences(whole, tag)]
        words = [len(word_spans(part, tag)) for part in found]
        assert " ".join(found) == whole and len(found) == round(sum(words) / 25) > 3
        assert min(words) > 15 and max(words) < 35
    # Full stops of abbreviations and numbers cut nothing.
    years = "แมวเกิดเมื่อ ค.ศ. 2015 ในบ้าน สุนัขวิ่งเล่น"
    assert [years[a:b] for a, b in sentences(years, "th")] == [years]
    assert sentences("", "en") == () and sentences(" \n ", "th") == ()
    one = "no mark at all"
    assert sentences(one, "sw") == ((0, len(one)),)


def test_which_sentences_hold_an_answer():
    spans = ((0, 5), (6, 10), (12, 20))
    assert holding(spans, (6, 9)) == range(1, 2)
    assert holding(spans, (4, 7)) == range(0, 2)
    assert holding(spans, (3, 15)) == range(0, 3)
    assert list(holding(spans, (5, 6))) == [] == list(holding((), (0, 3)))


# --- the real one --------------------------------------------------------------------------------


@real
def test_xquad_is_what_its_card_says(xquad):
    assert len(xquad) == 1190 and len(xquad.paragraphs) == 240
    assert len({p.split("/")[0] for p in xquad.paragraphs}) == 48
    assert xquad.dropped.empty
    assert all(len(answers) == 1 for answers in xquad.frame["answers"])
    means = {"en": 784.84, "de": 894.10, "es": 883.81, "zh": 252.49, "ar": 683.55, "ru": 850.34}
    for tag in xquad.languages:
        contexts = {i.paragraph: i.context for i in xquad.items(tag).values()}
        file = json.loads((readings.XQUAD / f"xquad.{tag}.json").read_text(encoding="utf-8"))
        raw = [p["context"] for article in file["data"] for p in article["paragraphs"]]
        assert sum(map(len, raw)) / 240 == pytest.approx(means[tag], abs=0.005)
        assert list(contexts.values()) == list(map(form, raw))
    assert len(xquad.sample(240).paragraphs) == 240


@pytest.mark.parametrize("source", readings.sources())
def test_answers_stand_in_one_sentence(source, tmp_path):
    every = readings.read(source, ["en", "de", "es", "zh", "ar", "ru"], tmp_path)
    for tag in every.languages:
        crossing = 0
        for item in every.items(tag).values():
            spans = sentences(item.context, tag)
            assert all(a[1] <= b[0] for a, b in pairwise(spans))
            kept = "".join(item.context[a:b] for a, b in spans)
            assert "".join(kept.split()) == "".join(item.context.split())
            stop = item.starts[0] + len(item.answers[0])
            hit = holding(spans, (item.starts[0], stop))
            assert len(hit) >= 1
            crossing += len(hit) > 1
        assert crossing <= 0.01 * len(every)


def test_whole_paragraphs_can_be_drawn():
    every = readings.reading_set()
    two = every.sample(4, per_paragraph=2)
    assert sorted(len(ids) for ids in two.paragraphs.values()) == [2, 2]
    assert len(every.sample(4).paragraphs) == 4
    assert set(every.sample(2, per_paragraph=2).ids) <= set(two.ids)
    with pytest.raises(ValueError, match="per_paragraph=0"):
        every.sample(2, per_paragraph=0)


@pytest.mark.slow
def test_lists_from_cldr_are_the_same_questions_in_sixteen_languages():
    """What `--data cldr` reads: nothing is fetched, and answers stand where they are said to."""
    whole = cldr_reading()
    assert len(whole.languages) == 16 and len(whole) >= 100
    for tag in whole.languages:
        for id, item in whole.items(tag).items():
            (start,), (answer,) = item.starts, item.answers
            assert item.context[start:].startswith(answer), id
    some = cldr_reading(["zh-Hans", "en"])
    assert some.ids == whole.ids and len(some.languages) == 2
    with pytest.raises(ValueError, match="sw"):
        cldr_reading(["en", "sw"])
