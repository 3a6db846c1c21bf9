"""Yes and no, two options, and the words of classes: from CLDR, from a file, in English."""

import json
from collections import Counter
from itertools import pairwise

import pandas as pd
import pytest

from xlens.studies import ChoicesStudy
from xlens.tasks.choices import (
    YES_NO,
    Choices,
    choice_prompts,
    cldr_choices,
    cldr_statements,
    read_labels,
)

TAGS = ("en", "de", "es", "zh-Hans", "ar")


def test_a_statement_is_true_where_its_fact_is():
    """Planted by construction: what is said of a place is the fact's own object, or another's."""
    said = cldr_statements(TAGS, ["territory-currency", "next-month"], seed=3)
    pairs = cldr_choices(TAGS, ["territory-currency", "next-month"], seed=3, n_options=2,
                         identical="keep")  # fmt: skip
    for tag in TAGS:
        facts = pairs.items(tag)
        for id, item in said.items(tag).items():
            cue, _, object = item.question.partition(": ")
            fact = facts[id]
            assert cue == fact.question and object in fact.options
            assert item.options == YES_NO[tag]
            assert (object == fact.options[fact.gold]) == (item.gold == 0)
    golds = Counter((kind, said.gold[id]) for id, kind in said.kinds.items())
    for kind in {*said.kinds.values()}:
        assert abs(golds[kind, 0] - golds[kind, 1]) <= 1


def test_there_are_words_for_yes_and_no_in_many_languages():
    every = cldr_statements([*YES_NO], ["territory-currency"])
    assert len(every.languages) == len(YES_NO) >= 20 and len(every) > 20
    for yes, no in YES_NO.values():
        assert yes.strip() == yes and no.strip() == no and yes != no
    with pytest.raises(ValueError, match=r"No words for yes and no in my; there are words in af"):
        cldr_statements(["en", "my"])


def test_demonstrations_of_classes_show_every_class_and_not_which_is_right():
    """Kept to its rule for answers, no demonstration would ever have the query's class."""
    said = cldr_statements(TAGS, ["territory-currency"])
    prompts, _ = choice_prompts(said, "de", shots=2)
    for prompt in prompts:
        shown = str(prompt.meta["demonstrations"]).split("|")
        assert prompt.id not in shown
        assert sorted(said.gold[id] for id in shown) == [0, 1]
    # The class of the last one says nothing of the query's.
    last = Counter(
        (prompt.meta["gold"], said.gold[str(prompt.meta["demonstrations"]).rpartition("|")[2]])
        for prompt in prompts
    )
    same = last[0, 0] + last[1, 1]
    assert 0.25 < same / sum(last.values()) < 0.75
    five, _ = choice_prompts(said, "de", shots=5)
    for prompt in five:
        golds = [said.gold[id] for id in str(prompt.meta["demonstrations"]).split("|")]
        assert all(one != other for one, other in pairwise(golds))


def test_words_of_classes_are_exchanged_where_options_are_classes(tmp_path):
    said = cldr_statements(TAGS)
    english = said.with_labels(said.labels_of("en"))
    assert {item.options for tag in TAGS for item in english.items(tag).values()} == {("yes", "no")}
    assert english.gold == said.gold
    own = [("en", "plum"), ("en", "cherry"), ("de", "Pflaume"), ("de", "Pflaume")]
    rows = [
        {"id": str(n % 2), "language": tag, "question": f"{n}?",
         "options": [word, "none"], "gold": 0}
        for n, (tag, word) in enumerate(own)
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"aren't classes: .* Only the words of classes"):
        Choices(pd.DataFrame(rows), "fruit").labels_of("en")
    table = tmp_path / "words.tsv"
    table.write_text("language\tlabel\tword\nde\tja\tstimmt\nde\tnein\tfalsch\n", encoding="utf-8")
    assert read_labels(table) == {"de": {"ja": "stimmt", "nein": "falsch"}}
    study = ChoicesStudy(items=("cldr-yes-no",), languages=("en", "de"), labels=str(table))
    (found,) = study.read().values()
    assert next(iter(found.items("de").values())).options == ("stimmt", "falsch")
    assert next(iter(found.items("en").values())).options == ("yes", "no")
    rows = [{"language": "de", "label": "ja", "word": w} for w in ("stimmt", "klar")]
    twice = tmp_path / "twice.jsonl"
    twice.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(ValueError, match="stimmt"):
        read_labels(twice)
    with pytest.raises(ValueError, match="'maybe' is no option"):
        said.with_labels({"de": {"ja": "ja", "nein": "nein", "maybe": "vielleicht"}})


@pytest.mark.parametrize(("items", "n"), [("cldr", 4), ("cldr-two-way", 2), ("cldr-yes-no", 2)])
def test_the_made_questions_by_name(items, n):
    study = ChoicesStudy(items=(items,), languages=("en", "de"), kinds=("code-territory",))
    ((name, found),) = study.read().items()
    assert name == items and {len(item.options) for item in found.items("de").values()} == {n}
    english = ChoicesStudy(items=("cldr-yes-no",), languages=("en", "de"), labels="english")
    (found,) = english.read().values()
    assert next(iter(found.items("de").values())).options == ("yes", "no")
