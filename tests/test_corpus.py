"""Counting facts in a corpus: what is a phrase, what is a document, nothing counted twice."""

import bz2
import gzip
import json
import lzma
import os
import random
import re
import signal
import subprocess
import sys
import time
import unicodedata
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xlens
from xlens.cli import main
from xlens.corpus import (
    FACT,
    FactCounts,
    Layout,
    Pairs,
    count_facts,
    counting,
    read_facts,
    sources,
)
from xlens.corpus import pairs as searching
from xlens.corpus.spelling import between, is_boundary, spelled, words
from xlens.text import form

pytest.importorskip("hyperscan")
ODD = "ab1ж.,':’\"_-  \u0301\u00ad\u200dカ中ภา👩ש\u0660é🇫🇷İı\u00a0한"
# What case folding or NFC makes several of, or puts in another order; vowels above and below;
# letters without their cases; a zero.
ODD += "iIßẞŉǰΐΰςΣﬁᾳK\u0323\u0307\u3099が\u1100\u1161กำเ\u0e49ə\x00\t"
texts = st.text(st.sampled_from(ODD), max_size=14)


def naive(document: str, subject: str, object_: str, window: int) -> tuple[bool, bool, bool]:
    """Whether a document holds a pair, apart, and near: by looking at every place in turn."""
    text, *phrases = (spelled(t.encode()).decode() for t in (document, subject, object_))
    found = []
    for phrase in (p.strip() for p in phrases):
        spans = [(n, n + len(phrase)) for n in range(len(text)) if text.startswith(phrase, n)]
        found.append([s for s in spans if all(is_boundary(text, place) for place in s)])
    begins = words(text)
    gaps = [
        sum(left[1] <= begin < right[0] for begin in begins)
        for some, others in (found, found[::-1])
        for left in some
        for right in others
        if left[1] <= right[0]
    ]
    return bool(found[0] and found[1]), bool(gaps), any(gap <= window for gap in gaps)


@settings(max_examples=150)
@given(
    st.lists(texts, max_size=6),
    st.lists(st.tuples(texts, texts), min_size=1, max_size=5),
    st.sampled_from([searching._SLICE, 5]),
)
def test_it_counts_what_one_would_find_by_looking_everywhere(documents, asked, size):
    pairs = [p for p in asked if all(spelled(t.encode()).strip() for t in p)]
    if not pairs:
        return
    found = Pairs.of(*map(list, zip(*pairs, strict=True)), window=1)
    lines = "\n".join(documents).encode()
    each = [[naive(document, *pair, 1) for pair in pairs] for document in documents]
    expected = np.array(each).reshape(len(documents), len(pairs), 3).sum(axis=0).T
    with patch.object(searching, "_SLICE", size):
        assert found.count(lines).tolist() == expected.tolist()


def test_far_context_is_looked_for_as_far_as_it_goes():
    # Whether the flags pair up, and the letters hang together, is decided 600 characters away.
    for n in (300, 301):
        line = "x " + "🇫🇷"[0] * n + "a" + "\u0301" * 600 + "'" + "\u0301" * 600 + "b paris france"
        pairs = Pairs.of(["b", "🇫", "paris"], ["france"] * 3)
        expected = [naive(line, subject, "france", 0)[0] for subject in ("b", "🇫", "paris")]
        assert pairs.count(line.encode())[0].tolist() == expected


def test_boundaries_are_those_of_icu():
    from icu4py.breakers import WordBreaker

    rng = random.Random(0)
    # Not the scripts that ICU cuts by its dictionaries.
    letters = "ab1ж.,':’\"_-  \n\r\u0301\u00ad\u200dカ\u3031👩ש\u0660;·é🇫🇷\u0085"
    for _ in range(800):
        text = "".join(rng.choices(letters, k=rng.randint(1, 9)))
        ends = np.cumsum([len(piece) for piece in WordBreaker(text, "en")]).tolist()
        assert [n for n in range(1, len(text) + 1) if is_boundary(text, n)] == ends, repr(text)
        for n in range(1, len(text)):
            assert between(text[n - 1], text[n]) in (None, is_boundary(text, n)), repr(text)


def test_scripts_without_spaces_are_cut_by_character():
    assert words("中国人ひらภา한국어 x") == [0, 1, 2, 3, 4, 5, 6, 7, 11]


def test_one_spelling():
    def same(*texts):
        return len({spelled(text.encode()) for text in texts}) == 1

    assert same("Istanbul", "İstanbul", "ISTANBUL", "i\u00adstanbul")
    assert not same("Isparta", "ısparta")
    assert same("Ångström", "A\u030angstro\u0308m", "ÅNGSTRÖM")
    assert same("STRASSE", "Straße")
    assert same("ΟΔΟΣ", "οδος", "οδοσ")
    assert same("New York", "new \t york", "New\u00a0York", "New\u3000 York")
    assert not same("café", "cafe")
    assert spelled(b"caf\xff E") == "caf\ufffd e".encode()


@given(
    st.lists(texts, min_size=1, max_size=9),
    st.sampled_from(["many plain WORDS " * 10, "x" * 150, "in\nlines\n" * 20, "a" * 200 + " "]),
)
def test_pieces_are_spelled_as_the_whole_is(pieces, between_them):
    text = between_them.join(pieces)
    whole = form(text)
    for space in "\u00a0\t\0":
        whole = whole.replace(space, " ")
    whole = unicodedata.normalize("NFC", whole.replace("İ", "i").casefold())
    assert spelled(text.encode()).decode() == re.sub("  +", " ", whole)


@given(st.lists(texts, min_size=1, max_size=5))
def test_a_line_is_spelled_by_itself(lines):
    alone = b"\n".join(spelled(line.encode()) for line in lines)
    assert spelled("\n".join(lines).encode()) == alone


def test_one_phrase_is_no_pair():
    pairs = Pairs.of(["Time", "University of Paris", "Niger"], ["Time", "Paris", "Nigeria"])
    counts = pairs.count(b"Time flies\nTime and time\nthe University of Paris\nNigeria\n")
    assert counts[:2].tolist() == [[2, 1, 0], [1, 0, 0]]


# --- files ---------------------------------------------------------------------------------------

DOCUMENTS = [
    "Paris is the capital\nof France.",
    "In FRANCE, they say. PARIS!",
    "parisian France",
    "Die Hauptstadt von Frankreich ist Paris.",
    "東京は日本の首都",
    "",
] * 40
FACTS = pd.DataFrame(
    [
        ("1", "capital", "en", "Paris", "France"),
        ("1", "capital", "de", "Paris", "Frankreich"),
        ("2", "capital", "ja", "東京", "日本"),
        ("3", "capital", "en", "Lima", "Peru"),
    ],
    columns=list(FACT),
)
EXPECTED = [80, 40, 40, 0]
QUIET = {"progress": False}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sources, "_READ", 64)
    monkeypatch.setattr(sources, "_ROWS", 16)
    monkeypatch.setattr(counting, "blocks", partial(sources.blocks, size=200))


def lines() -> bytes:
    return "\n".join(text.replace("\n", " ") for text in DOCUMENTS).encode()


def rows() -> bytes:
    return "\n".join(json.dumps({"text": text}) for text in DOCUMENTS).encode()


def zstd(data: bytes) -> bytes:
    return pa.compress(data, "zstd", asbytes=True)


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("make", [lines, rows])
def test_every_form_of_a_corpus_counts_the_same(tmp_path, make, packed):
    name = {lines: "a.txt", rows: "a.jsonl"}[make] + packed
    found = count_facts([write(tmp_path, name, PACK[packed](make()))], FACTS, **QUIET)
    assert found.facts["documents"].tolist() == EXPECTED
    assert found.problems.empty
    # An empty line is no document; an empty text is one.
    assert found.files.loc[0, "documents"] == {lines: 200, rows: 240}[make]


def test_parquet_and_other_cuts(tmp_path):
    pq.write_table(pa.table({"body": DOCUMENTS}), tmp_path / "a.parquet", row_group_size=32)
    found = count_facts([tmp_path], FACTS, layout=Layout(field="body"), **QUIET)
    assert found.facts["documents"].tolist() == EXPECTED
    blank = write(tmp_path, "b.txt", "\r\n \r\n".join(DOCUMENTS).encode())
    found = count_facts([blank], FACTS, layout=Layout(cut="blank line"), **QUIET)
    assert found.facts["documents"].tolist() == EXPECTED
    assert found.files.loc[0, "documents"] == 200
    found = count_facts([blank], FACTS, layout=Layout(cut="file"), **QUIET)
    assert found.facts["documents"].tolist() == [1, 1, 1, 0]


def test_a_long_document_is_one(tmp_path):
    path = write(tmp_path, "a.txt", b"Paris " + b"and so on " * 500 + b"France\nParis\n")
    found = count_facts([path], FACTS, window=999, **QUIET)
    assert found.facts[["documents", "windowed"]].to_numpy().tolist()[0] == [1, 0]
    found = count_facts([path], FACTS, window=1500, **QUIET)
    assert found.facts["windowed"].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("how", ["cut off", "broken"])
def test_damage_midway_is_reported_skipped_and_counted(tmp_path, monkeypatch, packed, how):
    monkeypatch.setattr(sources, "_READ", 1024)
    monkeypatch.setattr(counting, "blocks", partial(sources.blocks, size=20_000))
    rng = random.Random(0)
    noise = [f"{rng.getrandbits(400):x}" for _ in range(3000)]
    text = "\n".join(f"Paris France {word}" for word in noise).encode()
    data = bytearray(PACK[packed](text))
    if how == "cut off":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2 :] = b"\0" * (len(data) - len(data) // 2)
    paths = [write(tmp_path, f"a.txt{packed}", bytes(data)), write(tmp_path, "b.txt", lines())]
    found = count_facts(paths, FACTS, **QUIET)
    assert found.files["damaged"].tolist() == [True, False]
    *more, problem = found.problems.to_dict("records")
    assert (problem["file"], problem["n"]) == (str(paths[0]), 1)
    assert "bytes: " in problem["first"]
    read, counted = found.files.loc[0, "documents"], found.facts.loc[0, "documents"] - 80
    # Before xz sees that anything is wrong it makes something of what is broken.
    assert counted == read < 3000 or (packed == ".xz" and more and 0 < counted < read)
    assert found.facts["documents"].tolist()[1:] == [40, 40, 0]
    assert "1 damaged parts, skipped: " in str(found)


def test_a_document_without_an_end_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_LONGEST", 1 << 20)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"Paris France\n" + b"a" * (1 << 22)))
    (*_, last) = sources.blocks(path, Layout(), size=1 << 10)
    assert last.end == 13 and "after 13 bytes: a document of more than 1 MB" in str(last.problems)


def test_a_damaged_row_group_leaves_the_others(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": DOCUMENTS}), path, row_group_size=60, use_dictionary=False)
    data = bytearray(path.read_bytes())
    at = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    data[at : at + 40] = b"\xff" * 40
    path.write_bytes(data)
    found = count_facts([path], FACTS, **QUIET)
    assert found.facts["documents"].tolist() == [60, 30, 30, 0]
    assert found.problems["first"].iloc[0].startswith("row group 1: ")


def test_what_is_no_record_is_counted(tmp_path):
    more = b'\n{"text": 5}\nno json\n[1]\n{"text": null}\n\n{"text": "\\ud800 Paris France"}\n'
    found = count_facts([write(tmp_path, "a.jsonl", rows() + more)], FACTS, **QUIET)
    assert found.facts["documents"].tolist() == [81, 40, 40, 0]
    assert found.problems.groupby("problem")["n"].sum().to_dict() == {
        sources.NO_JSON: 2,
        sources.NO_TEXT: 2,
    }
    path = write(tmp_path, "b.txt", b"Paris \xff France\nParis France\n\xfe\n")
    found = count_facts([path], FACTS, **QUIET)
    assert found.facts["documents"].tolist() == [2, 0, 0, 0]
    assert found.problems.loc[0, ["problem", "n"]].tolist() == [sources.NO_UTF8, 2]


# --- going on ------------------------------------------------------------------------------------


def stopped_at(monkeypatch, n: int) -> None:
    """Let a count stop, with its state kept, when it has counted n blocks."""
    monkeypatch.setattr(counting, "SAVE_SECONDS", -1.0)
    plain = partial(sources.blocks, size=200)

    def some(path, how):
        for number, block in enumerate(plain(path, how)):
            if number == n:
                raise KeyboardInterrupt
            yield block

    monkeypatch.setattr(counting, "blocks", some)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl.gz", "a.parquet"])
def test_a_stopped_count_goes_on_to_the_same_counts(tmp_path, monkeypatch, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"text": DOCUMENTS}), path, row_group_size=60)
    else:
        path.write_bytes(gzip.compress(rows()) if name.endswith("gz") else lines())
    whole = count_facts([path], FACTS, window=3, **QUIET)
    for n in (1, 2, 5):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            stopped_at(patched, n)
            count_facts([path], FACTS, window=3, out=tmp_path / "out", **QUIET)
    counted = []
    count = Pairs.count
    monkeypatch.setattr(
        Pairs, "count", lambda pairs, lines: counted.append(lines) or count(pairs, lines)
    )
    done = count_facts([path], FACTS, window=3, out=tmp_path / "out", **QUIET)
    for table in ("facts", "files", "problems"):
        pd.testing.assert_frame_equal(getattr(done, table), getattr(whole, table))
    assert 0 < len(counted) < len(list(sources.blocks(path, Layout(), size=200))) - 4
    counted.clear()
    count_facts([path], FACTS, window=3, out=tmp_path / "out", **QUIET)
    assert counted == []


def test_another_count_is_not_gone_on_with(tmp_path, monkeypatch):
    path, out = write(tmp_path, "a.txt", lines()), tmp_path / "out"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        stopped_at(patched, 3)
        count_facts([path], FACTS, out=out, **QUIET)
    for facts, options in [
        (FACTS[:2], {}),
        (FACTS, {"window": 2}),
        (FACTS, {"layout": Layout(cut="file")}),
    ]:
        with pytest.raises(ValueError, match="count of other facts, or with other options"):
            count_facts([path], facts, out=out, **options, **QUIET)
    when = path.stat().st_mtime_ns
    path.write_bytes(lines().replace(b"Paris", b"Parys"))
    with pytest.raises(ValueError, match=r"a\.txt' has changed since"):
        count_facts([path], FACTS, out=out, **QUIET)
    os.utime(path, ns=(when, when))  # of the same size and age: told by its bytes
    with pytest.raises(ValueError, match=r"a\.txt' has changed since"):
        count_facts([path], FACTS, out=out, **QUIET)


@pytest.mark.slow
def test_a_killed_process_loses_nothing(tmp_path):
    text = lines() + b"\n"
    path, out = write(tmp_path, "a.txt", text * 6000), tmp_path / "out"
    table = tmp_path / "facts.tsv"
    FACTS.to_csv(table, sep="\t", index=False)
    code = (
        "import sys; from xlens.cli import main; from xlens.corpus import counting; "
        "counting.SAVE_SECONDS = 0.02; main(sys.argv[1:])"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "count",
        str(path),
        "--facts",
        str(table),
        "--out",
        str(out),
    ]
    kills = 0
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = {p: p.stat().st_mtime_ns for p in out.glob("parts/*.json")}
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            if {p: p.stat().st_mtime_ns for p in out.glob("parts/*.json")} != before:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        process.wait()
    assert kills > 0
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    found = FactCounts.load(out / "counts")
    assert found.facts["documents"].tolist() == [6000 * n for n in EXPECTED]


@pytest.mark.slow
def test_processes_count_the_same(tmp_path):
    paths = [write(tmp_path, f"{n}.txt", lines()) for n in range(3)]
    code = (
        "import sys, pandas as pd; from pathlib import Path; from xlens.corpus import *\n"
        "if __name__ == '__main__':\n"
        "    facts, *paths = map(Path, sys.argv[1:])\n"
        "    found = count_facts(paths, read_facts(facts), workers=2, progress=False)\n"
        "    print(found.facts['documents'].tolist())\n"
    )
    table = tmp_path / "facts.tsv"
    FACTS.to_csv(table, sep="\t", index=False)
    script = write(tmp_path, "script.py", code.encode())
    command = [sys.executable, str(script), str(table), *map(str, paths)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
    assert json.loads(done.stdout) == [3 * n for n in EXPECTED]


# --- use -----------------------------------------------------------------------------------------


def test_the_command(tmp_path, capsys):
    path, table = write(tmp_path, "a.txt", lines()), tmp_path / "facts.jsonl"
    FACTS.to_json(table, orient="records", lines=True)
    options = ["--facts", str(table), "--window", "3", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main(["count", str(path), *options])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "200 documents of 1 file" in said and "3 of 4 facts occur" in said
    found = xlens.results.load(tmp_path / "out" / "counts")
    assert list(found.to_frame()) == [*FACT, "documents", "apart", "windowed"]
    assert found.facts["documents"].tolist() == EXPECTED
    assert found.provenance["counter"]["window"] == 3
    with pytest.raises(SystemExit):
        main(["count", str(path), "--facts", str(tmp_path / "none.tsv")])
    assert "Give the path of a table of facts" in capsys.readouterr().err


def test_nothing_heavy_is_needed(tmp_path):
    code = "import sys, xlens.corpus; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"corpora": []}, "No corpus is given"),
        ({"corpora": ["none.txt"]}, "No file or folder '.*none.txt'"),
        ({"corpora": ["a.pdf"]}, r"format of '.*a.pdf': accepted are files that end in .txt"),
        ({"corpora": ["a.txt", "a.txt"]}, "given twice"),
        ({"corpora": ["empty"]}, "holds no corpus file"),
        ({"corpora": ["empty.txt"]}, "is empty; leave it out"),
        ({"corpora": ["wide.txt"]}, "no text in UTF-8: it holds zero bytes"),
        ({"corpora": ["a.jsonl"]}, "no text in the field 'text'; there are body"),
        ({"corpora": ["a.parquet"]}, "no text in the field 'text'; there are body"),
        ({"window": -1}, "window is -1; accepted is"),
        ({"workers": 0}, "workers is 0; accepted is"),
        ({"facts": FACTS.drop(columns="object")}, "lacks object"),
        ({"facts": FACTS[:0]}, "has no row"),
        ({"facts": FACTS.assign(subject="\u200b")}, "no phrase to look for"),
        ({"facts": FACTS.assign(object="Perú" * 3000)}, "it has 15,000 bytes, and at most 10,000"),
        ({"facts": FACTS.assign(id=range(4))}, "id is 0 in the table of facts"),
    ],
)
def test_bad_input_is_refused_before_anything_is_counted(tmp_path, monkeypatch, change, said):
    monkeypatch.setattr(Pairs, "count", lambda *_: pytest.fail("it went on"))
    for name, data in {"a.txt": b"x", "a.pdf": b"x", "empty.txt": b""}.items():
        write(tmp_path, name, data)
    write(tmp_path, "wide.txt", "Paris".encode("utf-16"))
    write(tmp_path, "a.jsonl", b'{"body": "x"}')
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "a.parquet")
    (tmp_path / "empty").mkdir()
    given = {"corpora": ["a.txt"], "facts": FACTS, **change}
    given["corpora"] = [tmp_path / name for name in given["corpora"]]
    with pytest.raises(ValueError, match=said):
        count_facts(**given, **QUIET)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id\tlanguage\tsubject\tobject\n1\ten\ta\tb\n", "lacks relation"),
        ("\t".join(FACT) + "\n1\tr\ten\t\tb\n", '"subject" is "" .*text'),
        ("\t".join(FACT) + "\n1\tr\tenglish\ta\tb\n", "line 2: Unknown language tag"),
        (
            "\t".join(FACT) + "\n1\tr\ten\ta\tb\n1\tr\ten\ta\tb\n",
            "line 3: the same fact as in line 2",
        ),
    ],
)
def test_a_table_of_facts_says_where_it_is_wrong(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        read_facts(write(tmp_path, "facts.tsv", text.encode()))
