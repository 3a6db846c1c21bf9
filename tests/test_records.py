"""Every reader with every oddity: the right rows, or an error that names file, place and fix."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from xlens.prompts import read_prompts
from xlens.records import read_records
from xlens.tasks.choices import read_choices
from xlens.tasks.words import read_words
from xlens.tasks.xmrc import read_reading

OTHER_LINES = "one\u2028two\u2029three\u0085four\x0bfive"
CONTEXT = f"Rome is in Italy. {OTHER_LINES}"


@dataclass(frozen=True)
class Reader:
    """A layout: a whole row, which of its fields are what, and how a file of it is read."""

    name: str
    row: dict[str, Any]
    texts: tuple[str, ...]
    ids: tuple[str, ...]
    wholes: tuple[str, ...]
    read: Callable[[Path], list[str]]  # what is asked and answered, joined
    kinds: tuple[str, ...] = (".jsonl", ".json", ".parquet")
    many: bool = False  # a language a file, in a folder

    def __str__(self) -> str:
        return self.name

    def put(self, folder: Path, row: Any, suffix: str = ".jsonl", *, name: str = "en") -> Path:
        """A file with this row as its second, and where to read it."""
        other = {**self.row, **{n: type(self.row[n])(99) for n in self.ids}}
        if self.name == "belebele":
            other["question_number"] = 7
        rows = [other, row]
        file = folder / f"{name}{suffix}"
        if suffix == ".jsonl":
            file.write_text("\n".join(json.dumps(r, ensure_ascii=r is row) for r in rows) + "\n")
        elif suffix == ".json":
            file.write_text(json.dumps(rows))
        elif suffix == ".parquet":
            pd.DataFrame(rows).to_parquet(file)
        if self.many and name == "en":
            ids = {n: row[n] for n in self.ids} if isinstance(row, dict) else {}
            self.put(folder, {**self.row, **ids}, suffix, name="de")
        return folder if self.many else file


def _choices(layout: str) -> Callable[[Path], list[str]]:
    def read(path: Path) -> list[str]:
        found = read_choices(path, layout=layout, incomplete="drop")
        return [
            " | ".join([id, item.context, item.question, *item.options, str(item.gold)])
            for id, item in found.items("en").items()
        ]

    return read


def _plain(path: Path) -> list[str]:
    # The plain layout holds all languages in a file: the German rows are the English ones.
    text = path.read_text(encoding="utf-8")
    rows = [r for line in text.split("\n") if line for r in [line]]
    if path.suffix == ".jsonl":
        german = [line.replace('"language": "en"', '"language": "de"') for line in rows]
        path.write_text("\n".join([*rows, *german]), encoding="utf-8")
    else:
        both = json.loads(text)
        path.write_text(json.dumps([*both, *({**r, "language": "de"} for r in both)]))
    return _choices("jsonl")(path)


def _reading(path: Path) -> list[str]:
    found = read_reading(path, languages=["en"], faulty="drop")
    return [
        " | ".join([id, item.context, item.question, *item.answers])
        for id, item in found.items("en").items()
    ]


READERS = [
    Reader(
        "prompts",
        {"text": CONTEXT, "language": "en", "id": "1"},
        ("text",),
        ("id",),
        (),
        lambda path: [f"{p.id} | {p.text}" for p in read_prompts(path)],
        (".jsonl", ".json"),
    ),
    Reader(
        "words",
        {"id": "1", "en": "dog", "de": "Hund"},
        ("en", "de"),
        ("id",),
        (),
        lambda path: [f"{id} | {w}" for id, w in read_words(path).words("en").items()],
        (".jsonl", ".json"),
    ),
    Reader(
        "choices",
        {
            "id": "1",
            "language": "en",
            "question": CONTEXT,
            "options": ["Italy", "Peru"],
            "gold": 0,
            "context": "A map.",
        },
        ("question", "context"),
        ("id",),
        ("gold",),
        _plain,
        (".jsonl", ".json"),
    ),
    Reader(
        "xcopa",
        {
            "premise": CONTEXT,
            "choice1": "It rained.",
            "choice2": "It shone.",
            "question": "cause",
            "label": 1,
            "idx": 3,
        },
        ("premise", "choice1", "choice2"),
        ("idx",),
        ("label",),
        _choices("xcopa"),
        many=True,
    ),
    Reader(
        "belebele",
        {
            "link": "a",
            "question_number": 1,
            "flores_passage": CONTEXT,
            "question": "Where?",
            **{f"mc_answer{n}": f"answer {n}" for n in (1, 2, 3, 4)},
            "correct_answer_num": "2",
        },
        ("flores_passage", "question", "mc_answer1", "mc_answer4"),
        (),
        ("correct_answer_num",),
        _choices("belebele"),
        many=True,
    ),
    Reader(
        "global-mmlu",
        {
            "sample_id": "s/1",
            "question": CONTEXT,
            **{f"option_{x}": f"option {x}" for x in "abcd"},
            "answer": "C",
        },
        ("question", "option_a", "option_d"),
        ("sample_id",),
        (),
        _choices("global-mmlu"),
        many=True,
    ),
    Reader(
        "reading",
        {
            "id": "1",
            "question": "Where is Rome?",
            "context": CONTEXT,
            "title": "Rome",
            "answers": {"text": ["Italy"], "answer_start": [11]},
        },
        ("question", "context"),
        ("id",),
        (),
        _reading,
    ),
]
BY_NAME = {reader.name: reader for reader in READERS}
WRONG = {
    "null": None,
    "5 (a number)": 5,
    "0.5 (a number)": 0.5,
    "true (a truth value)": True,
    '["a"] (a list)': ["a"],
    '{"a": 1} (an object)': {"a": 1},
}


def cells(fields: str) -> list[Any]:
    return [
        pytest.param(reader, field, id=f"{reader}-{field}")
        for reader in READERS
        for field in getattr(reader, fields)
    ]


@pytest.mark.parametrize("given", WRONG)
@pytest.mark.parametrize(("reader", "field"), cells("texts"))
def test_no_other_type_becomes_a_text(tmp_path, reader, field, given):
    path = reader.put(tmp_path, reader.row | {field: WRONG[given]})
    if given == "null" and (reader.name, field) == ("choices", "context"):
        assert reader.read(path)[1].startswith("1 |  | ")  # it may be left out
        return
    if given == "null" and reader.name == "words":
        with pytest.raises(ValueError, match=rf"'en.jsonl', line 2 has no word in '{field}'"):
            reader.read(path)
        return
    with pytest.raises(ValueError) as error:
        reader.read(path)
    said = str(error.value)
    place = "item 2" if path.suffix == ".json" else "line 2"
    assert "'en.jsonl'" in said and place in said and f'"{field}"' in said
    assert given in said and "accepted is a text" in said
    assert re.search(r"(Write|write) ", said)


@pytest.mark.parametrize("given", ["null", "0.5 (a number)", '["a"] (a list)', '"" (a text)'])
@pytest.mark.parametrize(("reader", "field"), cells("ids"))
def test_ids_are_texts_or_whole_numbers(tmp_path, reader, field, given):
    value = "" if given.startswith('""') else WRONG[given]
    path = reader.put(tmp_path, reader.row | {field: value})
    if reader.name in ("prompts", "choices") and given == "null":
        pytest.skip("without an id the row's number is the id")
    with pytest.raises(ValueError, match=r"(en|de).jsonl', line 2"):
        reader.read(path)


@pytest.mark.parametrize(("reader", "field"), cells("ids"))
def test_a_whole_number_is_an_id(tmp_path, reader, field):
    path = reader.put(tmp_path, reader.row | {field: 5})
    assert any(row.split(" | ")[0] in ("5", "test/5") for row in reader.read(path))


@pytest.mark.parametrize("given", ["null", "0.5 (a number)", "true (a truth value)"])
@pytest.mark.parametrize(("reader", "field"), cells("wholes"))
def test_numbers_are_whole(tmp_path, reader, field, given):
    path = reader.put(tmp_path, reader.row | {field: WRONG[given]})
    with pytest.raises(ValueError, match=rf'line 2: "{field}" is {re.escape(given)}'):
        reader.read(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("reader", READERS, ids=str)
def test_each_kind_of_file_gives_the_same_rows(tmp_path, reader, suffix):
    for kind in (".jsonl", suffix):
        (tmp_path / kind).mkdir(exist_ok=True)
    wanted = reader.read(reader.put(tmp_path / ".jsonl", reader.row))
    assert len(wanted) == 2
    path = reader.put(tmp_path / suffix, reader.row, suffix)
    if suffix in reader.kinds:
        assert reader.read(path) == wanted
    else:
        with pytest.raises(ValueError):
            reader.read(path)


@pytest.mark.parametrize("reader", READERS, ids=str)
def test_only_line_feeds_end_a_line(tmp_path, reader):
    """U+2028, U+2029 and U+0085 may stand in JSON's texts as they are."""
    path = reader.put(tmp_path, reader.row)
    file = path / "en.jsonl" if reader.many else path
    raw = file.read_text(encoding="utf-8")
    file.write_text(
        "\n".join(json.dumps(json.loads(x), ensure_ascii=False) for x in raw.split("\n") if x),
        encoding="utf-8",
    )
    found = reader.read(path)
    assert len(found) == 2
    if reader.name != "words":
        assert all("one\u2028two" in row for row in found)


@pytest.mark.parametrize("reader", READERS, ids=str)
def test_json_lines_under_another_name(tmp_path, reader):
    path = reader.put(tmp_path, reader.row)
    for file in list(tmp_path.glob("*.jsonl")):
        file.rename(file.with_suffix(".json"))
    if reader.name == "choices":
        rows = [json.loads(x) for x in (tmp_path / "en.json").read_text().split("\n") if x]
        both = [*rows, *({**r, "language": "de"} for r in rows)]
        (tmp_path / "en.json").write_text("\n".join(map(json.dumps, both)))
        assert len(_choices("jsonl")(tmp_path / "en.json")) == 2
        return
    assert len(reader.read(path if reader.many else tmp_path / "en.json")) == 2


BROKEN = {
    "surrogate": (r'{ROW, "TEXT": "a\ud800"}', r"line 2.*U\+D800"),
    "twice": ('{ROW, "TEXT": "a", "TEXT": "b"}', "line 2.*occurs twice"),
    "constant": ('{ROW, "TEXT": NaN}', "line 2.*NaN is no JSON"),
    "torn": ("{ROW, ", "line 2 isn't JSON"),
    "list": ('["a"]', "line 2 is .*accepted is an object"),
    "deep": ('{ROW, "TEXT": ' + "[" * 100_000, "line 2: .*too deep"),
    "digits": ('{ROW, "TEXT": ' + "9" * 5000 + "}", "line 2: a number of 5000 digits"),
    "missing": ("{}", "line 2.*(lacks|no word)"),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("reader", READERS, ids=str)
def test_broken_lines_are_named(tmp_path, reader, how):
    line, said = BROKEN[how]
    path = reader.put(tmp_path, reader.row)
    file = tmp_path / "en.jsonl"
    first = file.read_text().split("\n")[0]
    text = reader.texts[0]
    rest = json.dumps({k: v for k, v in reader.row.items() if k != text})[1:-1]
    broken = line.replace("ROW", rest).replace("TEXT", text)
    file.write_text(f"{first}\n{broken}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"'en.jsonl', {said}"):
        # Not through _plain, which writes the file anew.
        _choices("jsonl")(file) if reader.name == "choices" else reader.read(path)


@pytest.mark.parametrize("reader", READERS, ids=str)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        ('{"a": "ü"}'.encode("latin-1"), "isn't utf-8 text: byte 0xfc at byte offset 7 .line 1."),
    ],
)
def test_files_that_hold_no_text(tmp_path, reader, content, said):
    path = reader.put(tmp_path, reader.row)
    (tmp_path / "en.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=f"'en.jsonl' {said}"):
        _choices("jsonl")(path) if reader.name == "choices" else reader.read(path)


@pytest.mark.parametrize("reader", READERS, ids=str)
def test_byte_order_marks_and_windows_lines(tmp_path, reader):
    path = reader.put(tmp_path, reader.row)
    wanted = reader.read(path)
    file = tmp_path / "en.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    again = _choices("jsonl")(file) if reader.name == "choices" else reader.read(path)
    assert again == wanted


# --- options ---


def test_options_by_letter_keep_their_order(tmp_path):
    reader = BY_NAME["choices"]
    named = reader.row | {"options": {"B": "Peru", "A": "Italy"}, "gold": "A"}
    assert reader.read(reader.put(tmp_path, named))[1].endswith("Peru | Italy | 1")
    assert reader.read(reader.put(tmp_path, named | {"gold": 1}))[1].endswith("| 1")
    numbered = named | {"options": {"1": "Peru", "2": "Italy"}, "gold": 1}
    assert reader.read(reader.put(tmp_path, numbered))[1].endswith("| 0")
    with pytest.raises(ValueError, match=r'"gold" is "C".*one of the options\' keys, B, A'):
        reader.read(reader.put(tmp_path, named | {"gold": "C"}))
    with pytest.raises(ValueError, match=r'line 2, options: "A" is null'):
        reader.read(reader.put(tmp_path, named | {"options": {"A": None, "B": "Peru"}}))


@pytest.mark.parametrize("options", [None, "Italy", 5, ["Italy", None], ["Italy", 5], ["a", ["b"]]])
def test_options_that_are_no_texts(tmp_path, options):
    reader = BY_NAME["choices"]
    with pytest.raises(ValueError, match=r"'en.jsonl', line 2"):
        reader.read(reader.put(tmp_path, reader.row | {"options": options}))


# --- answers ---

ANSWERS = [
    {"text": ["Italy"], "answer_start": [11]},
    [{"text": "Italy", "answer_start": 11}],
    json.dumps([{"text": "Italy", "answer_start": 11}]),
    json.dumps({"text": ["Italy"], "answer_start": [11]}),
    {"text": "Italy", "answer_start": 11},
    "Italy",
    ["Italy"],
]


@pytest.mark.parametrize("answers", ANSWERS, ids=lambda a: json.dumps(a)[:30])
def test_answers_in_any_shape(tmp_path, answers):
    reader = BY_NAME["reading"]
    assert reader.read(reader.put(tmp_path, reader.row | {"answers": answers}))[1].endswith("Italy")


@pytest.mark.parametrize("answers", [None, [], {"text": [], "answer_start": []}])
def test_no_answer_is_counted_not_read(tmp_path, answers):
    reader = BY_NAME["reading"]
    path = reader.put(tmp_path, reader.row | {"answers": answers})
    found = read_reading(path, languages=["en"], faulty="drop")
    assert len(found) == 1 and list(found.dropped["reason"]) == ["no answer"]
    with pytest.raises(ValueError, match="no answer"):
        read_reading(path, languages=["en"])


@pytest.mark.parametrize(
    "answers",
    [
        *(5, True, [5], [None], {"text": ["a"]}, {"text": ["a"], "answer_start": []}),
        *([{"text": None, "answer_start": 0}], [{"text": "a", "answer_start": "x"}]),
    ],
)
def test_answers_that_are_none(tmp_path, answers):
    reader = BY_NAME["reading"]
    with pytest.raises(ValueError, match=r"'en.jsonl', line 2"):
        reader.read(reader.put(tmp_path, reader.row | {"answers": answers}))


# --- SQuAD's nested files ---

SQUAD: dict[str, Any] = {
    "data": [
        {
            "title": "Rome",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "1",
                            "question": "Where is Rome?",
                            "answers": [{"text": "Italy", "answer_start": 11}],
                        }
                    ],
                }
            ],
        }
    ]
}


def _squad(tmp_path: Path, change: Callable[[Any], None]) -> list[str]:
    content = json.loads(json.dumps(SQUAD))
    change(content)
    (tmp_path / "en.json").write_text(json.dumps(content))
    return _reading(tmp_path)


def _paragraph(content: Any) -> Any:
    return content["data"][0]["paragraphs"][0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(data={}), r'the whole file: "data" is {} \(an object\)'),
        (lambda c: c.update(data=None), '"data" is null'),
        (lambda c: c.update(data=[]), "holds no question"),
        (lambda c: c.update(data=["x"]), "article 1 is"),
        (lambda c: c["data"][0].update(paragraphs={}), 'article 1: "paragraphs" is'),
        (lambda c: c["data"][0].update(title=5), 'article 1: "title" is 5'),
        (lambda c: _paragraph(c).update(context=None), 'paragraph 1: "context" is null'),
        (lambda c: _paragraph(c).update(qas={}), 'paragraph 1: "qas" is'),
        (lambda c: _paragraph(c)["qas"][0].update(question=5), 'question 1: "question" is 5'),
        (lambda c: _paragraph(c)["qas"][0].update(id=None), 'question 1: "id" is null'),
        (lambda c: _paragraph(c)["qas"][0].update(answers=5), 'question 1: "answers" is 5'),
        (lambda c: _paragraph(c)["qas"][0].pop("answers"), "question 1: lacks answers"),
    ],
)
def test_squad_files_name_the_place(tmp_path, change, said):
    assert _squad(tmp_path, lambda c: None) == [f"1 | {CONTEXT} | Where is Rome? | Italy"]
    with pytest.raises(ValueError, match=f"'en.json'.*{said}"):
        _squad(tmp_path, change)


# --- tables ---


@pytest.mark.parametrize("printed", ["['nuage']", '["nuage", "x"]', "{'a': 'b'}", "('nuage',)"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_lists_printed_into_a_table(tmp_path, suffix, printed):
    gap = {".csv": ",", ".tsv": "\t"}[suffix]
    cell = '"' + printed.replace('"', '""') + '"' if suffix == ".csv" else printed
    file = tmp_path / f"w{suffix}"
    file.write_text(f"en{gap}fr\ndog{gap}chien\ncloud{gap}{cell}\n")
    with pytest.raises(ValueError, match=rf"'w{suffix}', line 3: the cell .* was printed"):
        read_words(file)


def test_brackets_alone_are_text(tmp_path):
    file = tmp_path / "w.tsv"
    file.write_text("en\tfr\n[dog]\t(chien)\n[1]\t{x}\n")
    assert read_words(file).words("fr") == {"word/[dog]": "(chien)", "word/[1]": "{x}"}


BMLAMA = (
    "Rome is in <mask>.\tItaly\tPeru, Italy\tRome\nLima is in <mask>.\tPeru\tPeru, Italy\tLima\n"
)


def test_a_header_torn_by_a_tab(tmp_path):
    """BMLAMA-17's Chinese file names five columns over rows of four."""
    (tmp_path / "en.tsv").write_text("Prompt\tAns\tCandidate Ans\tSubject\n" + BMLAMA)
    (tmp_path / "zh.tsv").write_text("Prompt\tAns\tCandidate\tAns\tSubject\n" + BMLAMA)
    found = read_choices(tmp_path, layout="bmlama")
    assert found.items("zh") == found.items("en")
    (tmp_path / "zh.tsv").write_text("Prompt\tAns\tCandidate\tOther\tSubject\n" + BMLAMA)
    with pytest.raises(ValueError, match=r"'zh.tsv', line 2 has 4 cells, but there are 5 columns"):
        read_choices(tmp_path, layout="bmlama")
    (tmp_path / "zh.tsv").write_text("Prompt\tAns\tCandidate Ans\n" + BMLAMA)
    with pytest.raises(ValueError, match=r"'zh.tsv', line 2 has 4 cells, but there are 3 columns"):
        read_choices(tmp_path, layout="bmlama")


# --- shards ---


@pytest.mark.parametrize("reader", [r for r in READERS if r.many], ids=str)
def test_shards_of_a_language_are_one_file(tmp_path, reader):
    for code in ("en", "de"):
        (tmp_path / code).mkdir()
        for n in range(2):
            row = reader.row | dict.fromkeys(reader.ids, str(n))
            if reader.name == "belebele":
                row["question_number"] = n
            name = f"test-0000{n}-of-00002.jsonl"
            (tmp_path / code / name).write_text(json.dumps(row) + "\n")
    assert len(reader.read(tmp_path)) == 2
    (tmp_path / "de" / "test-00001-of-00002.jsonl").unlink()
    with pytest.raises(ValueError, match="There are 1 of 2 shards of 'de'"):
        reader.read(tmp_path)


def test_shards_of_reading_questions(tmp_path):
    reader = BY_NAME["reading"]
    (tmp_path / "en").mkdir()
    for n in range(3):
        name = f"train-0000{n}-of-00003.jsonl"
        (tmp_path / "en" / name).write_text(json.dumps(reader.row | {"id": str(n)}))
    assert len(_reading(tmp_path)) == 3


def test_two_files_of_a_language_are_no_shards(tmp_path):
    for name in ("xquad.en.json", "other.en.json"):
        (tmp_path / name).write_text(json.dumps(SQUAD))
    with pytest.raises(ValueError, match=r"Both .* are 'en'; say which with split="):
        _reading(tmp_path)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(ValueError, match=r"Can't tell the format of 'a.docx': accepted are"):
        read_records(tmp_path / "a.docx", (".jsonl",))
    (tmp_path / "a.parquet").write_text("x")
    with pytest.raises(ValueError, match=r"Can't read 'a.parquet' as Parquet"):
        read_records(tmp_path / "a.parquet", (".parquet",))
