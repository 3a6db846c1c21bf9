import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlens.headers import Headers
from xlens.prompts import Prompt
from xlens.tasks.words import (
    KINDS,
    RELATIONS,
    WordList,
    answers,
    cldr_words,
    cloze_prompts,
    kind_of,
    read_words,
    repetition_prompts,
    translation_prompts,
)

TWELVE = ("en", "fr", "de", "es", "ru", "zh-Hans", "ja", "ko", "ar", "hi", "tr", "sw")
GATITOS = Path(__file__).parents[2] / "shared" / "data" / "gatitos" / "en_fr.tsv"


@pytest.fixture(scope="module")
def cldr() -> WordList:
    return cldr_words(TWELVE)


def words_of(table: dict[str, dict[str, str]]) -> WordList:
    """{id: {language: word}} as a word list."""
    return WordList(pd.DataFrame.from_dict(table, orient="index"), "test")


ANIMALS = words_of(
    {
        f"animal/{n}": {"en": en, "fr": fr, "de": de}
        for n, (en, fr, de) in enumerate(
            [
                ("dog", "chien", "Hund"),
                ("cat", "chat", "Katze"),
                ("horse", "cheval", "Pferd"),
                ("bird", "oiseau", "Vogel"),
                ("fish", "poisson", "Fisch"),
                ("bear", "ours", "Bär"),
                ("wolf", "loup", "Wolf"),
            ]
        )
    }
)


# --- word lists ----------------------------------------------------------------------------------


def test_a_word_list_standardises_selects_and_completes() -> None:
    words = words_of({"a/1": {"en": "one", "zh_hans": "一"}, "b/2": {"en": "two"}})
    assert words.languages == ("en", "zh-Hans")
    assert words.kinds == ("a", "b")
    assert words.complete().ids == ("a/1",)
    assert words.complete(["en"]).ids == ("a/1", "b/2")
    assert words.select(kinds=["b"]).ids == ("b/2",)
    assert words.select(languages=["zh-Hans"], ids=["a/1"]).words("zh-Hans") == {"a/1": "一"}
    assert words.words("zh-Hans") == {"a/1": "一"}
    assert kind_of("month/3") == "month"
    assert kind_of("dog") == "word"


def test_a_word_list_refuses_what_it_cannot_use() -> None:
    frame = pd.DataFrame({"en": ["a", "b"]}, index=["x", "x"])
    with pytest.raises(ValueError, match="'x' occur more than once"):
        WordList(frame, "test")
    for cell in ("", "  ", "two\nlines", 3):
        with pytest.raises(ValueError, match="'x' has no usable word in 'en'"):
            WordList(pd.DataFrame({"en": [cell]}, index=["x"]), "test")
    with pytest.raises(ValueError, match="'english'"):
        words_of({"x": {"english": "a"}})
    with pytest.raises(ValueError, match="more than once"):
        words_of({"x": {"en": "a", "eng": "a"}})
    with pytest.raises(ValueError, match=r"No words in 'tr'.*en, fr, de"):
        ANIMALS.words("tr")
    with pytest.raises(ValueError, match="No kind 'plant'"):
        ANIMALS.select(kinds=["plant"])
    with pytest.raises(ValueError, match=r"\['animal'\]"):
        ANIMALS.select(kinds="animal")
    with pytest.raises(ValueError, match="words of 7"):
        ANIMALS.sample(8)


def test_identical_words_are_named() -> None:
    words = words_of({"a": {"en": "Oman", "fr": "Oman"}, "b": {"en": "Peru", "fr": "Pérou"}})
    assert words.identical("en", "fr") == ("a",)


@settings(max_examples=30, deadline=None)
@given(st.permutations(ANIMALS.ids), st.integers(0, 5), st.integers(1, 7))
def test_a_sample_does_not_depend_on_the_rows_order(order: list[str], seed: int, n: int) -> None:
    shuffled = WordList(ANIMALS.frame.loc[order], "test")
    assert set(shuffled.sample(n, seed=seed).ids) == set(ANIMALS.sample(n, seed=seed).ids)
    assert len(ANIMALS.sample(n, seed=seed)) == n


# --- CLDR ----------------------------------------------------------------------------------------


def test_cldr_has_familiar_words_in_twelve_languages(cldr: WordList) -> None:
    assert cldr.languages == TWELVE
    assert cldr.kinds == KINDS
    assert cldr.source.startswith("CLDR ")
    assert "babel" in cldr.source
    counts = cldr.complete().frame.index.map(kind_of).value_counts()
    assert counts["territory"] > 140
    assert counts["language"] > 75
    assert counts["currency"] > 100
    assert counts["weekday"] == 7
    assert counts["unit"] > 25
    for id, tag, word in [
        ("territory/FR", "sw", "Ufaransa"),
        ("territory/DE", "zh-Hans", "德国"),
        ("language/fr", "tr", "Fransızca"),
        ("currency/EUR", "ru", "евро"),
        ("weekday/0", "ja", "月曜日"),
        ("weekday/6", "en", "Sunday"),
        ("unit/duration-day", "en", "day"),  # singular
        ("unit/duration-day", "ru", "день"),
        ("unit/duration-day", "ar", "يوم"),
        ("unit/length-meter", "sw", "mita"),
    ]:
        assert cldr.frame.loc[id, tag] == word
    assert not any(id.startswith("territory/") and len(id) != 12 for id in cldr.ids)
    assert not {"territory/EU", "territory/UN", "territory/AQ", "territory/001"} & set(cldr.ids)
    assert not {"currency/DEM", "currency/FRF", "currency/XTS"} & set(cldr.ids)


def test_months_stand_alone(cldr: WordList) -> None:
    # Russian and Turkish decline: "in March" is марта, the month's name март.
    march = cldr.words("ru")["month/3"], cldr.words("tr")["month/3"], cldr.words("hi")["month/3"]
    assert march == ("март", "Mart", "मार्च")
    assert cldr.words("zh-Hans")["month/12"] == "十二月"
    assert "month/3" not in cldr.words("ja")  # 3月 has a digit


def test_no_name_is_stripped_and_what_is_left_out_is_listed(cldr: WordList) -> None:
    cells = [word for tag in TWELVE for word in cldr.words(tag).values()]
    assert not [w for w in cells if set(w) & set('()（）,،、"0123456789.')]
    left_out = cldr.dropped.set_index(["id", "language"])
    assert left_out.loc[("territory/MM", "en"), "word"] == "Myanmar (Burma)"
    assert left_out.loc[("territory/MM", "en"), "reason"] == "parentheses"
    assert left_out.loc[("territory/CG", "en"), "reason"] == "dash"
    assert left_out.loc[("month/3", "ja"), "reason"] == "digits"
    assert left_out.loc[("month/3", "ja"), "word"] == "3月"
    # every cell is either there or accounted for
    assert len(cells) + len(cldr.dropped) == len(cldr) * len(TWELVE)


def test_items_do_not_depend_on_the_languages(cldr: WordList) -> None:
    few = cldr_words(["sw", "en"], ["currency", "territory"])
    assert few.kinds == ("currency", "territory")
    both = cldr.select(languages=["sw", "en"], kinds=few.kinds)
    kept = both.frame.dropna(how="all")
    pd.testing.assert_frame_equal(few.frame.sort_index(), kept.sort_index())


def test_names_do_not_depend_on_what_babel_read_before() -> None:
    # python-babel/babel#1234: after Chinese, babel's Swahili stand-alone months are Chinese.
    code = """
from babel.dates import get_month_names
from xlens.tasks.words import cldr_words
def babels(tag):
    return get_month_names("wide", "stand-alone", tag)[1]
mine = lambda: cldr_words(["zh-Hans", "sw", "tr"], ["month"]).frame.loc["month/1"].tolist()
first = mine()
assert babels("tr") == "Ocak"  # reading them here left babel as it was
get_month_names("wide", "stand-alone", "he")
import xlens.tasks.cldr.names as module
module.names.cache_clear()
assert first == mine() == ["一月", "Januari", "Ocak"], (first, mine())
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_cldr_words_refuse_unknown_kinds_and_languages() -> None:
    with pytest.raises(ValueError, match=r"'animal'.*territory, language"):
        cldr_words(["en"], ["animal"])
    with pytest.raises(ValueError, match="one or more of"):
        cldr_words(["en"], [])
    with pytest.raises(ValueError, match="Did you mean 'en'"):
        cldr_words(["english"])
    with pytest.raises(ValueError, match="no data for language 'tlh'"):
        cldr_words(["tlh"])


# --- the user's files ----------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, text: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_the_same_words_from_every_format(write: Callable[..., Path]) -> None:
    tsv = write("a.tsv", '# from somewhere\nid\ten\tzh_hans\nnoun/dog\tdog\t狗\nx\t"big" one\t大\n')
    csv = write("a.csv", 'id,en,zh_hans\r\nnoun/dog,dog,狗\r\n\r\nx,"""big"" one",大\r\n')
    jsonl = write(
        "a.jsonl",
        '{"id": "noun/dog", "en": "dog", "zh_hans": "狗"}\n'
        '{"id": "x", "en": "\\"big\\" one", "zh_hans": "大"}\n',
    )
    first, *others = (read_words(path) for path in (tsv, csv, jsonl))
    assert first.ids == ("noun/dog", "x")
    assert first.kinds == ("noun", "word")
    assert first.words("zh-Hans") == {"noun/dog": "狗", "x": "大"}
    assert first.words("en")["x"] == '"big" one'
    assert first.source == "a.tsv"
    for other in others:
        pd.testing.assert_frame_equal(first.frame, other.frame)


def test_headerless_and_mapped_columns(write: Callable[..., Path]) -> None:
    pairs = write("p.tsv", "\ufeffdog\tchien\n# no word\n cat \tchat\n")
    words = read_words(pairs, languages=("en", "fr"))
    assert words.words("fr") == {"word/dog": "chien", "word/cat": "chat"}
    assert words.words("en")["word/cat"] == "cat"
    mapped = write("m.csv", "English,notes,French,key\ndog,good,chien,d1\n")
    words = read_words(mapped, languages={"English": "en", "French": "fr"}, id="key")
    assert (words.languages, words.ids) == (("en", "fr"), ("d1",))
    # `id` is also the tag of Indonesian
    indonesian = read_words(write("i.tsv", "dog\tanjing\n"), languages=("en", "id"))
    assert indonesian.words("id") == {"word/dog": "anjing"}
    jsonl = write("s.jsonl", '{"en": "dog", "fr": "chien", "note": "good"}\n')
    assert read_words(jsonl, languages=["fr"]).words("fr") == {"word/chien": "chien"}
    numbers = write("c.tsv", "#dog\tchien\n")
    assert len(read_words(numbers, languages=["en", "fr"], comment=None)) == 1


def test_repeated_items_are_an_error_that_names_the_rows(write: Callable[..., Path]) -> None:
    path = write("r.tsv", "en\tfr\ndog\tchien\ncat\tchat\ndog\tclébard\ndog\ttoutou\n")
    with pytest.raises(ValueError, match=r"line 4 repeats 'word/dog' of line 2; line 5.*'first'"):
        read_words(path)
    words = read_words(path, repeats="first")
    assert words.words("fr") == {"word/dog": "chien", "word/cat": "chat"}
    assert set(words.dropped.query("reason == 'repeated'").word) >= {"clébard", "toutou"}


def test_missing_words_are_an_error_that_names_row_and_language(write: Callable[..., Path]) -> None:
    path = write("m.tsv", "en\tfr\tde\ndog\tchien\tHund\ncat\t\tKatze\nbird\n")
    with pytest.raises(ValueError, match=r"line 3 has no word in 'fr'.*missing='drop'"):
        read_words(path)
    dropped = read_words(path, missing="drop")
    assert dropped.ids == ("word/dog",)
    assert list(dropped.dropped.id) == ["word/cat", "word/bird", "word/bird"]
    assert list(dropped.dropped.language) == ["fr", "fr", "de"]
    kept = read_words(path, missing="keep")
    assert kept.ids == ("word/dog", "word/cat", "word/bird")
    assert kept.words("fr") == {"word/dog": "chien"}
    unnamed = write("n.tsv", "id\ten\ndog\tdog\n\tcat\n")
    with pytest.raises(ValueError, match="line 3 has no id"):
        read_words(unnamed)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("e.tsv", b"", {}, "'e.tsv' is empty"),
        ("e.tsv", b"# only\n", {}, "empty but for comments"),
        ("e.tsv", b"en\tfr\n", {}, "holds no words"),
        ("e.xlsx", b"PK", {}, r"\.tsv, \.txt, \.csv, \.jsonl"),
        ("e.tsv", b"en\tfr\nd\xe9j\xe0\tx\n", {}, r"byte 0xe9 at byte offset 7 \(line 2\).*cp1252"),
        ("e.tsv", "en\tfr\na\tb\n".encode("utf-16"), {}, "byte offset 0 .*encoding='utf-16'"),
        ("e.tsv", b"en\tfr\na\tb\n", {"encoding": "utf-9"}, "Unknown encoding 'utf-9'"),
        ("e.tsv", b"english\tfr\na\tb\n", {}, "column 'english' names no language.*'en'"),
        ("e.tsv", b"dog\tchien\ncat\tchat\n", {}, "languages=\\['en', 'fr'\\]"),
        ("e.tsv", b"en\ten\na\tb\n", {}, "column 'en' occurs twice"),
        ("e.tsv", b"en\tfr\na\tb\n", {"languages": {"EN": "en"}}, "no column 'EN'.*'en', 'fr'"),
        ("e.tsv", b"en\tfr\na\tb\n", {"languages": ["en", "fr"]}, "leave out languages="),
        ("e.tsv", b"a\tb\tc\n", {"languages": ["en", "fr"]}, "line 1 has 3 cells"),
        ("e.tsv", b"a\tb\n", {"languages": "en"}, r"\['en'\]"),
        ("e.tsv", b"en\tfr\n\ta\n", {"missing": "drop"}, "none is left"),
        ("e.csv", b'en,fr\na,"b\nc,d\n', {}, "line 2: a cell runs over several lines"),
        ("e.jsonl", b'{"en": "a"}\n{"en" "b"}\n', {}, "line 2 isn't JSON"),
        ("e.jsonl", b'{"en": 3}\n', {}, 'line 1: "en" is 3 .a number.; accepted is a text'),
        ("e.jsonl", b'{"en": "a"}\n', {"languages": ["fr"]}, "no words in .*'fr'"),
    ],
)
def test_files_that_cannot_be_read_say_why(
    write: Callable[..., Path], name: str, content: bytes, options: dict, message: str
) -> None:
    path = write(name, content)
    with pytest.raises(ValueError, match=message):
        read_words(path, **options)


@pytest.mark.parametrize("option", ["repeats", "missing"])
def test_unknown_policies_are_refused(write: Callable[..., Path], option: str) -> None:
    path = write("e.tsv", "en\na\n")
    # without the tests' own type checks, as users run it
    with pytest.raises(ValueError, match=f"{option}='last'.*'error'"):
        inspect.unwrap(read_words)(path, **{option: "last"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.tsv"):
        read_words(tmp_path / "nowhere.tsv")


def test_an_encoding_is_taken_at_its_word(write: Callable[..., Path]) -> None:
    path = write("l.tsv", "en\tfr\nbeen\tété\n".encode("cp1252"))
    assert read_words(path, encoding="cp1252").words("fr") == {"word/been": "été"}


def test_names_taken_over_from_another_language_are_no_words_of_this_one() -> None:
    # CLDR's tables inherit: hi-Latn from English (India), Haitian from French, others from a root
    # in which Monday is Mon; Nynorsk and Austrian German inherit from their own language.
    words = cldr_words(["hi-Latn", "en"], ["territory"])
    own = {"Bharat", "America", "Turkiye", "Cote d’Ivoire"}
    assert set(words.words("hi-Latn").values()) == own
    assert "territory/DE" in set(words.dropped.query("language == 'hi-Latn'")["id"])
    assert cldr_words(["ht"], ["unit", "weekday"]).words("ht") == {}
    assert cldr_words(["zh-Latn"], ["weekday"]).words("zh-Latn") == {}
    assert len(cldr_words(["hi-Latn"], ["weekday"]).words("hi-Latn")) == 7
    assert len(cldr_words(["nn"], ["territory"]).words("nn")) > 100
    assert cldr_words(["de-AT"], ["month"]).words("de-AT")["month/2"] == "Februar"


@pytest.mark.skipif(not GATITOS.is_file(), reason="the GATITOS sample isn't here")
def test_gatitos_is_read_as_published() -> None:
    words = read_words(GATITOS, languages=("en", "fr"))
    assert len(words) == len(GATITOS.read_text("utf-8").splitlines())
    assert words.words("fr")["word/ability"] == "capacité"
    prompts = translation_prompts(words, "en", "fr", ids=["word/ability"])
    assert prompts[0].text.endswith('English: "ability" - Français: "')


# --- prompts -------------------------------------------------------------------------------------


def test_translation_is_laid_out_as_in_wendlers_prompts() -> None:
    prompt = translation_prompts(ANIMALS, "fr", "de", ids=["animal/1"], shots=2, headers="item")[0]
    lines = prompt.text.split("\n")
    assert len(lines) == 3
    shown = prompt.meta["demonstrations"].split("|")
    french, german = ANIMALS.words("fr"), ANIMALS.words("de")
    assert lines[:2] == [f'Français: "{french[i]}" - Deutsch: "{german[i]}"' for i in shown]
    assert lines[2] == 'Français: "chat" - Deutsch: "'
    cut = {name: prompt.text[start:stop] for name, (start, stop) in prompt.spans.items()}
    assert cut == {"demonstrations": "\n".join(lines[:2]), "query": lines[2], "word": "chat"}
    assert (prompt.id, prompt.language) == ("animal/1", "fr")
    assert dict(prompt.meta) == {
        "task": "translation", "source": "fr", "target": "de", "kind": "animal",
        "answer": "animal/1", "demonstrations": "|".join(shown),
    }  # fmt: skip


def test_four_shots_by_default_and_none_if_asked() -> None:
    prompt = translation_prompts(ANIMALS, "fr", "de")[0]
    assert prompt.text.count("\n") == 4
    bare = translation_prompts(ANIMALS, "fr", "de", shots=0)[0]
    assert bare.text == 'Français: "chien" - Deutsch: "'
    assert set(bare.spans) == {"query", "word"}


def test_repetition_shows_what_translation_shows() -> None:
    translated = translation_prompts(ANIMALS, "fr", "de")
    repeated = repetition_prompts(ANIMALS, "de")
    assert repeated.ids == translated.ids
    assert repeated[0].text.endswith('Deutsch: "Hund" - Deutsch: "')
    assert repeated[0].language == repeated[0].meta["source"] == repeated[0].meta["target"] == "de"
    for one, other in zip(translated, repeated, strict=True):
        assert one.meta["demonstrations"] == other.meta["demonstrations"]


def test_names_of_languages_can_be_told_apart_and_given() -> None:
    words = words_of({f"a/{n}": {"zh-Hans": f"甲{n}x", "zh-Hant": f"乙{n}x"} for n in range(6)})
    assert '简体中文: "' in translation_prompts(words, "zh-Hans", "zh-Hant")[0].text
    named = translation_prompts(ANIMALS, "fr", "de", names={"FR": "French"})[0]
    assert named.text.endswith('French: "chien" - Deutsch: "')


def said(prompt: Prompt, words: WordList) -> set[str]:
    """Every word that the demonstrations show, folded."""
    shown = prompt.meta["demonstrations"].split("|")
    tags = {prompt.meta["source"], prompt.meta["target"]}
    return {words.words(tag)[id].casefold() for tag in tags for id in shown}


# Few distinct words, so that items collide within and across languages and in case only.
some_words = st.sampled_from(
    ["Oman", "oman", "mars", "Mars", "März", "Marsch", "die", "x", "q", "二月", "十二月"]
)
tables = st.lists(st.tuples(some_words, some_words, some_words), min_size=3, max_size=9)


@settings(max_examples=60, deadline=None)
@given(tables, st.integers(0, 3), st.integers(1, 3), st.sampled_from([2, 12, "item"]), st.data())
def test_no_demonstration_leaks_and_all_languages_see_the_same(
    table: list[tuple[str, str, str]],
    seed: int,
    shots: int,
    headers: Headers,
    data: st.DataObject,
) -> None:
    rows = {
        f"k{n % 2}/{n}": dict(zip(("en", "fr", "de"), row, strict=True))
        for n, row in enumerate(table)
    }
    words = words_of(rows)
    shuffled = data.draw(st.permutations(list(rows)))
    id = data.draw(st.sampled_from(list(rows)))
    reordered = WordList(words.frame.loc[shuffled, ["de", "en", "fr"]], "test")
    own = {word.casefold() for word in rows[id].values()}
    harmless = [
        i
        for i, row in rows.items()
        if not any(mine in other.casefold() for mine in own for other in row.values())
    ]
    options = {"ids": [id], "shots": shots, "seed": seed, "headers": headers}
    if len(harmless) < shots:
        with pytest.raises(ValueError, match="candidates are left"):
            translation_prompts(words, "en", "fr", **options)
        return
    first = translation_prompts(words, "en", "fr", **options)[0]
    assert translation_prompts(reordered, "en", "fr", **options)[0] == first
    for pair in (("de", "en"), ("fr", "de")):
        prompt = translation_prompts(words, *pair, **options)[0]
        assert prompt.meta["demonstrations"] == first.meta["demonstrations"]
        assert not any(mine in other for mine in own for other in said(prompt, words))
    assert set(first.meta["demonstrations"].split("|")) <= set(harmless)


def test_an_item_that_the_labels_give_away_is_asked_for_only_by_name(cldr: WordList) -> None:
    ids = translation_prompts(cldr, "de", "ru").ids
    assert "language/fr" in ids
    assert not {"language/de", "language/ru"} & set(ids)  # 'Deutsch: …', 'Русский: …'
    named = {"de": "A", "ru": "B"}
    assert "language/ru" in translation_prompts(cldr, "de", "ru", names=named).ids
    assert translation_prompts(cldr, "de", "ru", ids=["language/ru"]).ids == ("language/ru",)


def test_demonstrations_are_of_the_querys_kind_where_there_are_enough(cldr: WordList) -> None:
    prompts = translation_prompts(cldr, "fr", "ru", ids=["weekday/2", "territory/JP", "month/3"])
    for prompt in prompts:
        shown = prompt.meta["demonstrations"].split("|")
        assert {kind_of(id) for id in shown} == {prompt.meta["kind"]}
    mixed = words_of(
        {id: {"en": id + "e", "fr": id + "f"} for id in ("a/1", "a/2", "b/1", "b/2", "b/3")}
    )
    shown = translation_prompts(mixed, "en", "fr", ids=["a/1"], shots=3)[0].meta["demonstrations"]
    assert "b" in {kind_of(id) for id in shown.split("|")}  # one other "a" is too few
    first = translation_prompts(mixed, "en", "fr", ids=["a/1"], shots=1)[0]
    assert first.meta["demonstrations"] == "a/2"


def test_the_same_demonstrations_before_every_pair_of_cldr(cldr: WordList) -> None:
    ids = cldr.complete().sample(12).ids
    shown = {
        tuple(p.meta["demonstrations"] for p in translation_prompts(cldr, *pair, ids=ids))
        for pair in (("en", "fr"), ("ar", "ja"), ("zh-Hans", "sw"))
    }
    assert len(shown) == 1


def test_a_pool_is_kept_to() -> None:
    pool = ["animal/2", "animal/3", "animal/4"]
    for prompt in translation_prompts(ANIMALS, "en", "fr", pool=pool, shots=2):
        assert set(prompt.meta["demonstrations"].split("|")) < set(pool)
        assert prompt.id not in prompt.meta["demonstrations"].split("|")


def test_prompts_refuse_what_they_cannot_ask() -> None:
    gap = words_of({"a/1": {"en": "x", "fr": "y"}, "a/2": {"en": "z"}})
    for call, message in [
        (lambda: translation_prompts(ANIMALS, "fr", "tr"), "No words in 'tr'"),
        (lambda: translation_prompts(ANIMALS, "fr", "french"), "'fr'"),
        (lambda: translation_prompts(ANIMALS, "fr", "fr"), "repetition_prompts"),
        (lambda: translation_prompts(ANIMALS, "fr", "de", ids=["animal/99"]), "'animal/99'"),
        (lambda: translation_prompts(ANIMALS, "fr", "de", ids="animal/1"), r"\['animal/1'\]"),
        (lambda: translation_prompts(ANIMALS, "fr", "de", ids=[]), "No item"),
        (lambda: translation_prompts(ANIMALS, "fr", "de", pool=["nothing"]), "'nothing'"),
        (lambda: translation_prompts(ANIMALS, "fr", "de", shots=7), "only 6 candidates"),
        (lambda: translation_prompts(ANIMALS, "fr", "de", shots=-1), "shots=-1"),
        (lambda: translation_prompts(gap, "en", "fr", ids=["a/2"]), r"'a/2' has no word in en"),
        (lambda: cloze_prompts(ANIMALS, "fr"), "no items for 'next-month'.*cldr_words"),
        (lambda: cloze_prompts(ANIMALS, "fr", relations=["capital"]), "next-weekday"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    quoted = words_of({f"a/{n}": {"en": f'{n}"', "fr": f"m{n}"} for n in range(6)})
    with pytest.raises(ValueError, match="double quote"):
        translation_prompts(quoted, "en", "fr")


# --- cloze ---------------------------------------------------------------------------------------


def test_cloze_asks_for_what_follows(cldr: WordList) -> None:
    prompts = {p.id: p for p in cloze_prompts(cldr, "fr")}
    assert {p.meta["relation"] for p in prompts.values()} == set(RELATIONS)
    march = prompts["month/3"]
    assert march.text.endswith('\nFrançais: "février" - "')
    assert (march.meta["cue"], march.meta["answer"]) == ("month/2", "month/3")
    assert march.text[slice(*march.spans["word"])] == "février"
    assert march.text.count("\n") == 2
    assert "language/fr" not in prompts  # its label would say it: Français
    for cue, answer in [
        ("territory/RU", "language/ru"),
        ("territory/CN", "language/zh"),
        ("territory/JP", "currency/JPY"),
        ("territory/DE", "currency/EUR"),  # the most populous of the euro area
        ("month/12", "month/1"),
        ("weekday/6", "weekday/0"),
    ]:
        assert prompts[answer].meta["cue"] == cue
    # Belgium has three official languages, Panama two currencies: they ask for nothing
    assert not {"territory/BE", "territory/PA"} & {
        p.meta["cue"] for p in prompts.values() if p.meta["relation"] == "territory-language"
    }


def test_cloze_never_shows_the_querys_cue_or_answer(cldr: WordList) -> None:
    related = ["next-month", "next-weekday", "territory-language"]
    by_language = {
        tag: {p.id: p for p in cloze_prompts(cldr, tag, relations=related)} for tag in ("en", "hi")
    }
    for tag, prompts in by_language.items():
        table = cldr.words(tag)
        for prompt in prompts.values():
            shown = prompt.text[slice(*prompt.spans["demonstrations"])].casefold()
            for id in (prompt.meta["cue"], prompt.meta["answer"]):
                assert f'"{table[id].casefold()}"' not in shown
            shown_ids = prompt.meta["demonstrations"].split("|")
            # the relation that is asked for is the one shown
            assert {kind_of(id) for id in shown_ids} == {prompt.meta["kind"]}
    for id in by_language["en"].keys() & by_language["hi"].keys():
        one, other = by_language["en"][id], by_language["hi"][id]
        assert one.meta["demonstrations"] == other.meta["demonstrations"]


def test_cloze_takes_the_relations_that_the_list_has() -> None:
    words = cldr_words(["de", "en"], ["month"])
    assert set(cloze_prompts(words, "de").ids) == {f"month/{m}" for m in range(1, 13)}
    with pytest.raises(ValueError, match="'next-weekday'"):
        cloze_prompts(words, "de", relations=["next-weekday"])


def test_answers_are_the_words_asked_for(cldr: WordList) -> None:
    prompts = cloze_prompts(cldr, "fr", ids=["month/3", "currency/JPY"])
    table = answers(cldr, prompts, ["en", "ja"])
    assert list(table.index) == ["month/3", "currency/JPY"]
    assert list(table.columns) == ["en", "ja"]
    assert table.loc["currency/JPY"].tolist() == ["Japanese Yen", "日本円"]
    assert table.loc["month/3", "en"] == "March"
    assert pd.isna(table.loc["month/3", "ja"])
    with pytest.raises(ValueError, match="built from"):
        answers(ANIMALS, prompts, ["en"])
    with pytest.raises(ValueError, match="'tlh'"):
        answers(cldr, prompts, ["tlh"])
