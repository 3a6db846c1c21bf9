"""Prompts, their spans by construction, and the choice of demonstrations."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlens import Prompt, Prompts
from xlens.checks import WrongType
from xlens.prompts import Slot, choose_demonstrations, parse_slot, read_prompts

# --- one prompt ---


def test_language_is_standardised_and_everything_is_frozen():
    spans, meta = {"a": (0, 1)}, {"kind": "month"}
    prompt = Prompt("x y", "zh_hans", "1", spans, meta)
    assert prompt.language == "zh-Hans"
    spans["b"] = (1, 2)
    meta["kind"] = "colour"
    assert dict(prompt.spans) == {"a": (0, 1)} and dict(prompt.meta) == {"kind": "month"}
    with pytest.raises(TypeError):
        prompt.spans["c"] = (0, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        prompt.text = "z"
    assert prompt == Prompt("x y", "zh-Hans", "1", {"a": (0, 1)}, {"kind": "month"})
    assert hash(prompt) == hash(Prompt("x y", "zh-Hans", "1"))
    assert Prompt("x", "und", "1").language == "und"


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "en", "7"), r"'7' \(en\) has an empty text"),
        (("x", "english", "7"), r"Unknown language tag 'english'.*'en' \(English\)"),
        (("xyz", "en", "7", {"s": (1, 4)}), r"'7' \(en\): span 's' is \[1, 4\).*3 characters"),
        (("xyz", "en", "7", {"s": (2, 2)}), r"span 's' is \[2, 2\).*non-empty"),
        (("xyz", "en", "7", {"s": (-1, 2)}), r"span 's' is \[-1, 2\)"),
        (("xyz", "en", "7", {"s": (2, 1)}), r"span 's' is \[2, 1\)"),
        (("xyz", "en", "7", {"last": (0, 1)}), r"can't be called 'last'"),
        (("xyz", "en", "7", {"all": (0, 1)}), r"can't be called 'all'"),
        (("xyz", "en", "7", {"s": 3}), r"span 's': 3 \(int\) given; accepted is \(start, stop\)"),
        (
            ("xyz", "en", "7", [(0, 1)]),
            r"spans: \[\(0, 1\)\] \(list\) given; accepted is a mapping",
        ),
        (("xyz", "en", "7", {1: (0, 1)}), r"a name in spans: 1 \(int\) given"),
        (("xyz", "en", "7", {}, None), r"meta: None \(NoneType\) given; accepted is a mapping"),
        (("xyz", "en", " "), "id is empty"),
    ],
)
def test_bad_prompts(arguments, message):
    with pytest.raises(ValueError, match=message):
        Prompt(*arguments)


# --- from parts ---

names = st.text("abcdefgh", min_size=1, max_size=2)
parts = st.recursive(
    st.one_of(st.text(max_size=5), st.tuples(names, st.text(min_size=1, max_size=5))),
    lambda inner: st.tuples(names, st.lists(inner, min_size=1, max_size=3)),
    max_leaves=12,
)


def flat(part):
    if isinstance(part, str):
        return part
    inner = part[1]
    return inner if isinstance(inner, str) else "".join(map(flat, inner))


def named(part):
    if isinstance(part, str):
        return []
    below = [] if isinstance(part[1], str) else [x for p in part[1] for x in named(p)]
    return [(part[0], flat(part)), *below]


@given(st.lists(parts, min_size=1, max_size=5))
def test_from_parts_records_what_each_name_holds(parts):
    texts = [x for part in parts for x in named(part)]
    wanted = dict(texts)
    whole = "".join(map(flat, parts))
    if len(wanted) < len(texts):
        with pytest.raises(ValueError, match="occurs twice"):
            Prompt.from_parts(parts, language="en", id="1")
    elif not whole or not all(wanted.values()):
        with pytest.raises(ValueError, match="empty"):
            Prompt.from_parts(parts, language="en", id="1")
    else:
        prompt = Prompt.from_parts(parts, language="en", id="1", meta={"n": 1})
        assert prompt.text == whole and dict(prompt.meta) == {"n": 1}
        assert {n: whole[a:b] for n, (a, b) in prompt.spans.items()} == wanted


def test_from_parts_places_repeated_text_where_it_was_put():
    prompt = Prompt.from_parts(
        ["dog dog ", ("second", ["dog ", ("inner", "dog")]), " dog"], language="en", id="1"
    )
    assert dict(prompt.spans) == {"second": (8, 15), "inner": (12, 15)}


# --- collections ---


def some():
    return Prompts(
        Prompt(f"{i} {lang}", lang, i, meta={"kind": "month", "n": int(i)})
        for lang in ("fr", "en")
        for i in ("2", "1", "3")
    )


def test_a_collection():
    prompts = some()
    assert len(prompts) == 6 and prompts[1].id == "1" and prompts.languages == ("fr", "en")
    assert prompts.ids == ("2", "1", "3")
    assert isinstance(prompts[1:3], Prompts) and prompts[1:3].ids == ("1", "3")
    assert prompts == some() and hash(prompts) == hash(some()) and prompts != prompts[:5]
    assert repr(prompts) == "Prompts(6 prompts, languages=['fr', 'en'])"
    frame = prompts.to_frame()
    assert list(frame.columns) == ["id", "language", "text", "kind", "n"]
    assert frame["text"].tolist() == [p.text for p in prompts]


def test_select_keeps_the_order_here():
    prompts = some()
    chosen = prompts.select(languages=["en"], ids=["3", "2"])
    assert [(p.language, p.id) for p in chosen] == [("en", "2"), ("en", "3")]
    assert prompts.select() == prompts
    assert prompts.select(languages=["FR"]).languages == ("fr",)
    assert prompts.select(ids=iter(["1"])).ids == ("1",)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"languages": ["de"]}, r"Unknown language \['de'\]; these prompts have: fr, en"),
        ({"languages": ["german"]}, r"Unknown language tag 'german'"),
        ({"ids": ["1", "9"]}, r"Unknown id \['9'\]; these prompts have: 2, 1, 3"),
        ({"ids": []}, "at least one prompt"),
    ],
)
def test_bad_selections(asked, message):
    with pytest.raises(ValueError, match=message):
        some().select(**asked)


def test_an_id_has_one_form_of_unicode() -> None:
    composed, apart = Prompt("a", "en", "caf\u00e9"), Prompt("b", "de", "cafe\u0301")
    with pytest.raises(ValueError, match=r"'cafe\\u0301' and 'caf\\xe9' are the same text"):
        Prompts([composed, apart])
    assert len(Prompts([composed, Prompt("b", "de", composed.id)])) == 2


def test_an_id_that_is_null_is_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"text": "a", "language": "en", "id": null}\n')
    with pytest.raises(ValueError, match='line 1: "id" is null'):
        read_prompts(path)


def test_bad_collections():
    with pytest.raises(ValueError, match="at least one prompt; got none"):
        Prompts([])
    with pytest.raises(ValueError, match=r"share the id '1' in 'zh-Hans'"):
        Prompts([Prompt("x", "zh_Hans", "1"), Prompt("y", "zh-Hans", "1")])
    assert len(Prompts([Prompt("x", "zh-Hans", "1"), Prompt("x", "zh-Hant", "1")])) == 2


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("given", ["abc", ["abc"], None, 5, Prompt("x", "en", "1"), [None]])
def test_what_is_no_prompt_is_named(given):
    with pytest.raises(WrongType, match=r"prompts(\[0\])?: .* given; accepted is a"):
        Prompts(given)


# --- slots ---


@pytest.mark.parametrize(
    ("text", "slot", "ragged"),
    [
        ("last", Slot(None, "last"), False),
        ("all", Slot(None, "each"), True),
        ("word:first", Slot("word", "first"), False),
        ("word:last", Slot("word", "last"), False),
        ("word:mean", Slot("word", "mean"), False),
        ("word:each", Slot("word", "each"), True),
        ("word:predict", Slot("word", "predict"), True),
        ("option.2:last", Slot("option.2", "last"), False),
        ("слово:mean", Slot("слово", "mean"), False),
    ],
)
def test_slots(text, slot, ragged):
    assert parse_slot(text) == slot and str(slot) == text and slot.ragged == ragged


@pytest.mark.parametrize("text", ["", "first", "word", "word:", ":last", "a:b:last", "a b:last"])
def test_bad_slots(text):
    with pytest.raises(ValueError, match=r"Unknown slot .*'last', 'all' and 'NAME:first\|last"):
        parse_slot(text)


# --- demonstrations ---

ids = st.lists(st.text(min_size=1, max_size=4), min_size=6, max_size=20, unique=True)


@given(ids, st.integers(0, 4), st.integers(0, 99), st.randoms())
def test_demonstrations_are_reproducible_and_never_leak(ids, k, seed, random):
    query, *candidates = ids
    leak = candidates[:1]
    chosen = choose_demonstrations(ids, query, k, seed=seed, exclude=leak)
    assert len(set(chosen)) == k and not {query, *leak} & set(chosen) and set(chosen) <= set(ids)
    shuffled = random.sample(ids, len(ids))
    assert choose_demonstrations(shuffled + shuffled, query, k, seed=seed, exclude=leak) == chosen
    # Fewer shots are the first of more.
    assert choose_demonstrations(ids, query, 4, seed=seed, exclude=leak)[:k] == chosen


def test_demonstrations_vary_with_query_and_seed():
    many = [str(i) for i in range(50)]
    choices = {choose_demonstrations(many, q, 4, seed=s) for q in many for s in range(2)}
    assert len(choices) > 95
    counts = [sum(c in choose_demonstrations(many, q, 4) for q in many) for c in many]
    assert max(counts) < 16  # nobody is everyone's example


def test_too_few_demonstrations():
    with pytest.raises(ValueError, match=r"'a' needs 2 demonstrations, but only 1 candidates"):
        choose_demonstrations(["a", "b", "c"], "a", 2, exclude=["c"])


def test_a_sample_is_of_items_and_whatever_their_order():
    made = [Prompt(f"{tag} {n}", tag, id=str(n)) for tag in ("de", "fr") for n in range(9)]
    some = Prompts(made).sample(3, seed=1)
    assert len(some.ids) == 3 and len(some) == 6
    assert set(Prompts(reversed(made)).sample(3, seed=1).ids) == set(some.ids)
    assert len({Prompts(made).sample(3, seed=seed).ids for seed in range(9)}) > 1
    assert Prompts(made).sample(99) == Prompts(made)
    with pytest.raises(ValueError, match="1 or more"):
        Prompts(made).sample(0)
