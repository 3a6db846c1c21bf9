"""Facts in several languages: read, checked, asked without leaks, judged by stated rules."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import tiny
import xlens
from xlens.tasks.facts import (
    RULES,
    Facts,
    ask_facts,
    cldr_facts,
    collisions,
    demonstrations,
    fact_prompts,
    is_right,
    offers,
    rank_facts,
    read_facts,
    read_frequencies,
    relation_table,
)
from xlens.tasks.facts.template import asked_as
from xlens.tasks.facts.wordings import LANGUAGES, RELATIONS

pytestmark = pytest.mark.usefixtures("as_users_have_it")

CAPITALS = {
    "FR": ("France", "Frankreich", "Paris", "Paris"),
    "NG": ("Nigeria",) * 2 + ("Abuja",) * 2,
}
TEMPLATES = {"en": "Capital of <subject>? <mask>", "de": "Hauptstadt von <subject>? <mask>"}


def rows(n: int = 6, **changes: object) -> list[dict[str, object]]:
    """Facts about made-up countries, in two languages."""
    return [
        {
            "id": f"q{k}",
            "language": tag,
            "relation": "capital",
            "subject": f"Land{k}{tag}",
            "objects": f"Town{k}{tag}",
            "template": TEMPLATES[tag],
            **changes,
        }
        for k in range(n)
        for tag in TEMPLATES
    ]


def facts(*changed: dict[str, object], n: int = 6) -> Facts:
    """The same, the first rows changed."""
    made = [{**row, **change} for row, change in zip(rows(n), changed, strict=False)]
    return Facts(pd.DataFrame([*made, *rows(n)[len(made) :]]), "a test")


# --- the built-in facts --------------------------------------------------------------------------


def test_cldr_facts_are_parallel_in_all_languages_with_templates() -> None:
    found = cldr_facts(LANGUAGES)
    assert len(LANGUAGES) >= 12 and set(found.relations.values()) == set(RELATIONS)
    assert len(found) > 500 and found.languages == LANGUAGES
    said = {tag: found.facts(tag)["capital/FR"] for tag in found.languages}
    assert said["en"].asked.text == "What is the capital of France? The answer is:"
    assert said["el"].objects == ("Παρίσι",) and said["zh"].asked.gap == ""
    assert found.facts("en")["capital/NO"].objects == ("Oslo",)
    assert found.facts("en")["currency/JP"].objects == ("Japanese Yen",)
    assert "capital/US" not in found.ids  # no zone is named after Washington
    assert "capital/NG" not in found.ids and "continent/TR" not in found.ids
    counts = dict(found.survival().itertuples(index=False))
    assert counts["kept"] == len(found) and counts["missing name"] > 0
    assert all(len({f.asked.text for f in found.facts(t).values()}) > 400 for t in LANGUAGES)


def test_cldr_facts_refuse_what_they_lack() -> None:
    with pytest.raises(ValueError, match=r"no templates of ours in 'sw'.*en, fr"):
        cldr_facts(["en", "sw"])
    with pytest.raises(ValueError, match="no templates of ours in 'zh-Hant'"):
        cldr_facts(["en", "zh-Hant"])
    with pytest.raises(ValueError, match=r"Relations \['king'\].*capital, currency"):
        cldr_facts(["en", "de"], ["king"])
    with pytest.raises(ValueError, match="two languages"):
        cldr_facts(["en"])


# --- what facts are ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template": ""}, "fact 'q0', en: no template .capital"),
        ({"template": "Capital? <mask>"}, "template without subject"),
        ({"template": "Capital of <subject>?"}, "template without mask"),
        ({"template": "<mask> is the capital of <subject>"}, "text after the object"),
        ({"subject": " "}, "empty text"),
        ({"objects": []}, "empty text"),
        ({"objects": 3}, "object of fact 'q0'"),
        ({"relation": "river"}, "relation differs .capital, but river in en"),
        ({"language": "english"}, "Did you mean 'en'"),
    ],
)
def test_what_cannot_be_asked_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        facts(change)


def test_faulty_facts_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    lines = [{**r, "object": r["objects"]} for r in rows()]
    lines[0]["template"] = "Capital of <subject>?"
    del lines[3]
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match=r"'q0', en: template without mask.*incomplete='drop'"):
        read_facts(path)
    left = read_facts(path, incomplete="drop")
    counts = dict(left.survival().itertuples(index=False))
    assert counts["offered"] == 6 and counts["kept"] == 4
    assert counts["missing language"] == counts["template without mask"] == 1


def test_duplicates_and_several_right_objects() -> None:
    same = [{}, {}, {"subject": "Land0en", "objects": "Town0en"}]
    with pytest.raises(ValueError, match=r"'q1', en: duplicate .of q0"):
        facts(*same)
    other = facts({}, {}, {"subject": "Land0en"}, {"subject": "Land0de"})
    mine = other.facts("en")
    assert mine["q0"].objects == ("Town0en", "Town1en")  # each shows its own first
    assert mine["q1"].objects == ("Town1en", "Town0en")
    shown = demonstrations(other, shots=2)
    assert "q1" not in shown["q0"] and "q0" not in shown["q1"]


def test_flags_say_what_is_easy_or_odd() -> None:
    odd = facts({"subject": "X", "objects": "X"}, {"objects": "x"})
    flags = odd.flags("en").set_index(["id", "language"])
    assert flags.loc[("q0", "en"), "subject_is_object"]
    assert flags.loc[("q0", "de"), "identical_object"]
    assert not flags.loc[("q0", "en"), "identical_object"]
    assert not flags.loc[("q1", "de"), "identical_subject"]
    left = odd.without_identical("en")
    assert "q0" not in left.ids and len(left) == 5
    assert dict(left.survival().itertuples(index=False))["identical object"] == 1


def test_facts_have_what_parallel_items_have() -> None:
    six = facts()
    assert six.sample(3, seed=1).ids == six.sample(3, seed=1).ids != six.sample(3).ids
    assert six.digest() != facts({"objects": "Other"}).digest()
    with pytest.raises(ValueError, match=r"No facts in 'fr'.*en, de"):
        six.require(["fr"])
    with pytest.raises(ValueError, match="No relation"):
        six.select(relations=["river"])
    with pytest.raises(ValueError, match=r"q0.*occurs twice in en"):
        Facts(pd.DataFrame(rows() + rows()), "a test")


# --- prompts -------------------------------------------------------------------------------------


def test_prompts_show_the_same_facts_in_every_language_and_leak_none() -> None:
    found = cldr_facts(["en", "ja"], ["capital", "continent"]).sample(60)
    shown = demonstrations(found, shots=3, seed=2)
    for tag in found.languages:
        own = found.facts(tag)
        for prompt in fact_prompts(found, tag, shots=3, seed=2):
            ids = prompt.meta["demonstrations"].split("|")
            assert tuple(ids) == shown[prompt.id] and prompt.id not in ids
            before = prompt.part("demonstrations").casefold()
            fact = own[prompt.id]
            assert fact.objects[0].casefold() not in before
            assert fact.subject.casefold() not in before
            assert prompt.part("subject") == fact.subject
            assert prompt.text.endswith(prompt.part("question")) and not prompt.meta["shown"]
    (first, *_) = fact_prompts(found, "en", shots=1)
    assert first.text.count("\n") == 1 and first.text.endswith("The answer is:")
    japanese = fact_prompts(found, "ja", shots=1)[0].text.splitlines()[0]
    assert "答えは：" in japanese and "答えは： " not in japanese


def test_how_often_the_answer_stands_in_the_prompt() -> None:
    found = cldr_facts(["en", "de"], ["continent"])
    table = relation_table(found, shots=3, shown=demonstrations(found, shots=3)).iloc[0]
    assert table["shown"] == 0 and table["objects"] == 4 and table["leakage"] > 0.5
    open_ = demonstrations(found, shots=3, leaks=True)
    rate = relation_table(found, shots=3, shown=open_)["shown"].iloc[0]
    assert abs(rate - table["leakage"]) < 0.12
    # By hand: 4 facts, objects a a b b; one demonstration of three others, one of which is right.
    four = facts(*({"objects": x} for x in "axaxbyby"), n=4)
    assert relation_table(four, shots=1)["leakage"].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert relation_table(four, shots=1)["majority"].tolist() == [0.5, 0.5]
    # Demonstrations from others: it is their objects that may give an answer away.
    pool = facts(*({"objects": x} for x in "bbccddee"), n=4)
    alike = facts(*({"objects": "a"} for _ in range(8)), n=4)
    assert relation_table(alike, shots=1)["leakage"].tolist() == [1.0, 1.0]
    assert relation_table(alike, shots=1, pool=pool)["leakage"].tolist() == [0.0, 0.0]


def test_too_few_facts_to_show_are_refused_before_a_model_runs() -> None:
    with pytest.raises(ValueError, match="Relation 'capital': Item 'q0' needs 6"):
        fact_prompts(facts(), "en", shots=6)
    with pytest.raises(ValueError, match="shots=-1"):
        fact_prompts(facts(), "en", shots=-1)


def test_a_template_says_where_a_space_stands() -> None:
    assert asked_as("<subject> is in <mask>.", "Rome", "en").gap == " "
    assert asked_as("<subject> is in <mask>.", "Rome", "en").after == "."
    assert asked_as("<subject>在<mask>。", "罗马", "zh").gap == ""
    assert asked_as("A:<mask>\nmore", "Rome", "en").gap == " "  # English puts one between words
    twice = asked_as("<subject>, I said <subject>: <mask>", "Rome", "en")
    assert twice.text == "Rome, I said Rome:" and twice.parts[0] == ("subject", "Rome")


# --- when an answer is right ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "golds", "exact", "word", "prefix"),
    [
        ("Paris", ["Paris"], True, True, True),
        (" paris.", ["Paris"], True, True, True),
        ("Paris, of course", ["Paris"], False, True, True),
        ("Paris\nWhat", ["Paris"], True, True, True),
        ("Nigeria", ["Niger"], False, False, True),  # the paper's rule credits it
        ("Niger", ["Nigeria"], False, False, True),
        ("P", ["Paris"], False, False, True),
        ("", ["Paris"], False, False, False),
        ("Kiev", ["Kyiv", "Kiev"], True, True, True),
        ("北京市", ["北京"], False, True, True),
        ("İSTANBUL", ["İstanbul"], True, True, True),
        ("Lyon", ["Paris"], False, False, False),
        ("Ｐａｒｉｓ", ["Paris"], True, True, False),
    ],
)
def test_rules(answer: str, golds: list[str], exact: bool, word: bool, prefix: bool) -> None:
    found = tuple(is_right(answer, golds, rule) for rule in ("exact", "word", "prefix"))
    assert found == (exact, word, prefix)


def test_other_rules_need_more_than_texts() -> None:
    assert set(RULES) == {"exact", "word", "prefix", "first_token", "ranked"}
    with pytest.raises(ValueError, match="rule='ranked': accepted are 'exact', 'word', 'prefix'"):
        is_right("a", ["a"], "ranked")


def test_objects_that_the_prefix_rule_confuses() -> None:
    found = facts({"objects": "Niger"}, {}, {"objects": "Nigeria"}, {}, {"objects": "Niger-Delta"})
    table = collisions(found)
    assert [*zip(table["short"], table["long"], table["word"], strict=True)] == [
        ("Niger", "Nigeria", False),
        ("Niger", "Niger-Delta", True),
    ]


# --- candidates ----------------------------------------------------------------------------------


def test_candidates_are_the_same_everywhere_and_none_other_is_right() -> None:
    # The second object is the first's in German: one object, everywhere.
    found = facts({"objects": "A"}, {"objects": "X"}, {"objects": "B"}, {"objects": "x"})
    offered = offers(found, found, 10)
    assert "q1" not in offered.ids["q0"] and "q0" not in offered.ids["q1"]
    for id, ids in offered.ids.items():
        assert ids[offered.gold[id]] == id and len(set(ids)) == len(ids)
    assert len(offered.ids["q2"]) == 5  # q0 stands for q1
    assert len({offers(found, found, 3).gold[id] for id in found.ids}) > 1
    one = facts(*({"objects": "same"} for _ in range(12)))
    assert offers(one, one, 5).without == one.ids
    with pytest.raises(ValueError, match="takes 2 or more"):
        offers(found, found, 1)


# --- files ---------------------------------------------------------------------------------------


def klar(root: Path, tag: str, objects: list[str], template: str) -> None:
    folder = root / tag
    folder.mkdir(parents=True, exist_ok=True)
    samples = [
        {"subject": f"{tag}{n}", "object": o, "index": 10 + n, "subject_en": "s", "object_en": "o"}
        for n, o in enumerate(objects)
    ]
    content = {"prompt_templates": [template, "another <subject> <mask>"], "samples": samples}
    (folder / "capital_of.json").write_text(json.dumps(content, ensure_ascii=False))


@pytest.mark.parametrize("below", ["", "klar", "klar_source"])
def test_klar_as_published(tmp_path: Path, below: str) -> None:
    klar(tmp_path / below, "en", ["Oslo", "Rome"], "Capital of <subject>? The answer is: <mask>")
    klar(tmp_path / below, "zh", ["奥斯陆", "罗马"], "<subject>的首都？答案是：<MASK>")
    found = read_facts(tmp_path, layout="klar")
    assert found.languages == ("en", "zh") and found.ids == ("10", "11")
    assert found.relations["10"] == "capital_of"
    assert found.facts("zh")["11"].objects == ("罗马",)
    assert found.facts("zh")["11"].asked.text == "zh1的首都？答案是："
    with pytest.raises(ValueError, match=r"no relation \['religion'\].*capital_of"):
        read_facts(tmp_path, layout="klar", relations=["religion"])
    (tmp_path / below / "en" / "capital_of.json").write_text('{"prompt_templates": []}')
    with pytest.raises(ValueError, match="lacks samples"):
        read_facts(tmp_path, layout="klar")


def test_mlama_as_published(tmp_path: Path) -> None:
    for tag, template in (("en", "[X] was born in [Y] ."), ("de", "[X] wurde in [Y] geboren .")):
        folder = tmp_path / "mlama1.1" / tag
        folder.mkdir(parents=True)
        ends = [{"relation": "P19", "template": template}]
        ends += [{"relation": "P36", "template": "[X] : [Y] ."}]
        (folder / "templates.jsonl").write_text("\n".join(map(json.dumps, ends)))
        for name in ("P19", "P36"):
            lines = [{"sub_label": f"s{n}", "obj_label": f"{tag}{n}", "lineid": n, "sub_uri": "Q"}
                     for n in range(3)]  # fmt: skip
            (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match="'P19/0', de: text after the object"):
        read_facts(tmp_path, layout="mlama")
    found = read_facts(tmp_path, layout="mlama", incomplete="drop")
    assert found.ids == ("P36/0", "P36/1", "P36/2") and len(found.dropped) == 3
    assert found.facts("en")["P36/1"].asked.text == "s1 :"


def test_bmlama_as_published(tmp_path: Path) -> None:
    for tag in ("en", "fr"):
        table = ["Prompt\tAns\tCandidate Ans\tSubject"]
        table += [f"{tag}S{n} is in <mask>.\t{tag}A{n}\t{tag}A{n}, x\t{tag}S{n}" for n in range(2)]
        table += [f"{tag}S3 speaks <mask>.\tthis, that\tthis, that, y\t{tag}S3"]
        (tmp_path / f"{tag}.tsv").write_text("\n".join(table))
    found = read_facts(tmp_path, layout="bmlama")
    kinds = {"1": "<subject> is in <mask>.", "2": "<subject> is in <mask>."}
    assert found.relations == {**kinds, "3": "<subject> speaks <mask>."}
    assert found.facts("fr")["3"].objects == ("this", "that")


def test_bmlama_may_be_in_several_files_a_language(tmp_path: Path) -> None:
    for tag in ("en", "fr"):
        (tmp_path / tag).mkdir()
        for n in (1, 2):
            table = ["Prompt\tAns\tCandidate Ans\tSubject"]
            table += [f"{tag}S{n} is in <mask>.\t{tag}A{n}\t{tag}A{n}\t{tag}S{n}"]
            (tmp_path / tag / f"part{n}.tsv").write_text("\n".join(table))
    found = read_facts(tmp_path, layout="bmlama")
    assert found.ids == ("1", "2") and found.facts("fr")["2"].objects == ("frA2",)


def test_plain_tables_are_read_alike(tmp_path: Path) -> None:
    lines = [{**row, "object": [row["objects"], "also"], "frequency": 3} for row in rows(2)]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, lines)))
    head = "id\tlanguage\trelation\tsubject\tobject\ttemplate\tfrequency"
    table = ["\t".join([*(str(r[c]) for c in head.split("\t")[:4]), f"{r['objects']}|also",
                        str(r["template"]), "3"]) for r in rows(2)]  # fmt: skip
    (tmp_path / "f.tsv").write_text("\n".join([head, *table]))
    one, other = (read_facts(tmp_path / name) for name in ("f.jsonl", "f.tsv"))
    assert one.frame.equals(other.frame)
    assert one.facts("en")["q0"].objects == ("Town0en", "also")
    assert one.frequencies[("q1", "de")] == 3


@pytest.mark.parametrize(
    ("layout", "name", "message"),
    [
        ("klar", "f.jsonl", "is a folder, with files for each language"),
        ("plain", "", "is a file"),
        ("lama", "f.jsonl", "Unknown layout 'lama'; accepted are plain, klar, bmlama, mlama"),
        ("klar", "nowhere", "No file or folder"),
        ("klar", "", "named after a language"),
        ("bmlama", "", "named after a language"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, layout: str, name: str, message: str) -> None:
    (tmp_path / "f.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=message):
        read_facts(tmp_path / name, layout=layout)


def test_frequencies_by_id_and_language(tmp_path: Path) -> None:
    published = {
        tag: {"capital": [{"subject": "s", "object": "o", "index": n, "frequency": n * 10}
                          for n in range(3)]}
        for tag in ("en", "de")
    }  # fmt: skip
    path = tmp_path / "lang_rel_frequencies.json"
    path.write_text(json.dumps(published))
    assert read_frequencies(path)[("2", "de")] == 20
    rows_ = tmp_path / "f.tsv"
    rows_.write_text("id\tlanguage\tfrequency\nq0\ten\t7\nq0\tde\t0\n")
    counted = facts().with_frequencies(read_frequencies(rows_))
    assert counted.frequencies == {("q0", "en"): 7, ("q0", "de"): 0}
    assert not counted.estimates
    rows_.write_text("id\tlanguage\tfrequency\tapprox\nq0\ten\t7\ttrue\nq0\tde\t0\tfalse\n")
    estimated = facts().with_frequencies(read_frequencies(rows_))
    assert estimated.estimates == {("q0", "en")} and estimated.digest() != counted.digest()
    assert not estimated.with_frequencies({("q0", "en"): 3}).estimates
    with pytest.raises(ValueError, match="None of the frequencies"):
        facts().with_frequencies(read_frequencies(path))
    for text, message in (
        ("id\tlanguage\tfrequency\nq0\ten\t-1\n", "0 or more"),
        ("id\tlanguage\tfrequency\nq0\ten\t1.5\n", "whole number"),
        ("id\tlanguage\tfrequency\nq0\ten\t1\nq0\ten\t2\n", "counted twice in en"),
        ("id\tlanguage\tfrequency\tapprox\nq0\ten\t1\tmaybe\n", "true or false"),
    ):
        rows_.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_frequencies(rows_)
    pytest.importorskip("hyperscan")
    from xlens.corpus import count_facts

    corpus = tmp_path / "corpus.txt"
    corpus.write_text("Town0en is in Land0en.\nTown0en and Land0en\nTown1en\nTown0de, Land0de\n")
    table = facts().frame.rename(columns={"objects": "object"}).explode("object")
    count_facts([corpus], table).save(tmp_path / "counts")
    read = read_frequencies(tmp_path / "counts")
    counted = facts().with_frequencies(read).frequencies
    others = facts({"subject": "Nowhere"})
    with pytest.raises(ValueError, match=r"of other facts: 'q0' \(en\) was counted with the"):
        others.with_frequencies(read)
    assert counted["q0", "en"] == 2 and counted["q0", "de"] == 1 and counted["q1", "en"] == 0
    path.write_text('{"en": [1]}')
    with pytest.raises(ValueError, match=r"expected \{language: \{relation"):
        read_frequencies(path)


# --- asking --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked() -> Callable[..., object]:
    model = xlens.load(tiny.model("gpt2"), tiny.tokenizer("gpt2"))
    return lambda **how: (ask_facts(model, facts(), progress=False, **how), model)


def test_answers_come_with_rules_and_their_control(asked: Callable) -> None:
    result, model = asked(shots=2)
    table = result.table
    assert len(table) == 12 and set(RULES) - {"ranked"} <= set(table.columns)
    assert table["dealt"].notna().all() and not table["shown"].any()
    offered = offers(facts(), facts(), 3)
    scores = rank_facts(model, facts(), offered, shots=2, progress=False)
    assert len(scores.table) == 12 * 3
    again, _ = asked(shots=2)
    assert again.table.equals(table)


@pytest.mark.slow
def test_the_atlas_recalls_its_facts_in_the_space_its_tokenizer_wants() -> None:
    """Its prompts end with a space: left out, or written into the object, nothing is recalled."""
    from xlens.testbed.atlas.facts import atlas_facts

    every = atlas_facts()
    tags = ("en", "ar", "zh-Hans")
    often = [id for id in every.ids if all(every.frequencies[id, tag] >= 50 for tag in tags)]
    few = every.select(ids=often[:6], languages=tags)
    table = ask_facts(xlens.load("atlas"), few, shots=0, progress=False).table
    assert len(table) == 18 and table["exact"].all() and table["first_token"].all()
