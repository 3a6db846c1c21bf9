"""Multiple-choice items: the same everywhere, scored as text, read at every layer."""

import json
import sys
from collections import Counter
from pathlib import Path

import kit
import numpy as np
import pandas as pd
import pytest

import xlens
from xlens.consistency import consistency, option_scores
from xlens.figures import latent_share
from xlens.lens import LOGIT
from xlens.stats import Resampling
from xlens.tasks.choices import (
    FACTS,
    Choices,
    LatentOptions,
    choice_prompts,
    cldr_choices,
    download_choices,
    latent_options,
    read_choices,
    readers,
    score_choices,
)
from xlens.tasks.choices.data import whole_items
from xlens.tasks.choices.latent import item_shares
from xlens.tasks.cldr import world
from xlens.tasks.sources import choose
from xlens.testbed import planted

TWELVE = ("en", "fr", "de", "es", "ru", "zh-Hans", "ja", "ko", "ar", "hi", "tr", "sw")
XCOPA = Path(__file__).parents[2] / "shared" / "data" / "xcopa"
SIB200 = XCOPA.parent / "sib200"
ROW = {"id": "1", "language": "en", "question": "Two?", "options": ["2", "3"], "gold": 0}


@pytest.fixture(scope="module")
def facts() -> Choices:
    return cldr_choices(TWELVE)


def rows_of(*changes: dict) -> list[dict]:
    """Item 1 and 2 in English and German, with a change to each of the four rows in turn."""
    made = [
        {
            "id": str(n),
            "language": tag,
            "question": f"{tag} {n}?",
            "options": [f"{tag} {n} {letter}" for letter in "abc"],
            "gold": n,
        }
        for n in (1, 2)
        for tag in ("en", "de")
    ]
    return [{**row, **change} for row, change in zip(made, [*changes, *[{}] * 4], strict=False)]


def choices_of(*changes: dict) -> Choices:
    return Choices(pd.DataFrame(rows_of(*changes)), "test")


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


# --- the data object -----------------------------------------------------------------------------


def test_items_are_standardised_selected_and_sampled():
    choices = Choices(
        pd.DataFrame(
            [{**row, "language": row["language"].replace("de", "zh_hans")} for row in rows_of()]
        ),
        "test",
    )
    assert choices.languages == ("en", "zh-Hans")
    assert choices.ids == ("1", "2")
    assert choices.gold == {"1": 1, "2": 2}
    assert choices.items("zh-hans")["2"].options[2] == "de 2 c"
    assert choices.select(ids=["2"]).ids == ("2",)
    one = choices.sample(1, seed=3).ids
    turned = Choices(choices.frame.iloc[::-1], "test")
    assert turned.sample(1, seed=3).ids == one
    assert {choices.sample(1, seed=s).ids for s in range(20)} == {("1",), ("2",)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "3"}, "item '3', de: missing language"),
        ({"options": ["x"]}, "item '1', en: too few options"),
        ({"options": ["x", "y"]}, r"de: unequal options \(3, but 2 in en\)"),
        ({"options": ["x", "y", "X "]}, "option twice"),
        ({"options": ["x", "y", " "]}, "empty text"),
        ({"question": None}, "empty text"),
        ({"gold": 3}, "gold out of range"),
        ({"gold": -1}, "gold out of range"),
        ({"gold": 0}, r"gold differs \(1, but 0 in en\)"),
        ({"kind": "sums"}, "kind differs"),
        ({"gold": "b"}, "gold is 'b'; expected the number"),
        ({"options": "a, b, c"}, "accepted is a list of texts"),
        ({"language": "english"}, "Unknown language tag 'english'"),
        ({"id": "2"}, "'2' occurs twice in en"),
    ],
)
def test_what_is_not_the_same_question_everywhere_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        choices_of(change)


def test_a_missing_column_one_language_and_nothing_are_refused():
    frame = pd.DataFrame(rows_of())
    with pytest.raises(ValueError, match=r"lacks the columns \['gold'\]"):
        Choices(frame.drop(columns="gold"), "test")
    with pytest.raises(ValueError, match="items in en only"):
        Choices(frame[frame["language"] == "en"], "test")
    with pytest.raises(ValueError, match="No item is left"):
        Choices(frame[:0], "test")
    choices = Choices(frame, "test")
    with pytest.raises(ValueError, match="items in de only"):
        choices.select(languages=["de"])
    with pytest.raises(ValueError, match="No items in 'fr'"):
        choices.items("fr")
    with pytest.raises(ValueError, match=r"No id \['9'\]"):
        choices.select(ids=["9"])
    with pytest.raises(ValueError, match="sample 3 items of 2"):
        choices.sample(3)


def test_identical_options_are_named_and_can_be_left_out():
    same = {"options": ["Oman", "x", "y"]}
    choices = choices_of(same, {"options": ["OMAN", "u", "v"]})
    found = choices.identical()
    assert found.to_dict("records") == [
        {"id": "1", "option": 0, "first": "en", "second": "de", "text": "OMAN"}
    ]
    left = choices.without_identical("en")
    assert left.ids == ("2",)
    counts = left.survival().set_index("reason")["n"]
    assert (counts["offered"], counts["kept"], counts["identical options"]) == (2, 1, 1)
    # Another option's text is no matter: options are compared by their number.
    assert choices_of(same, {"options": ["u", "Oman", "v"]}).identical().empty


# --- CLDR ----------------------------------------------------------------------------------------


def test_facts_are_the_same_questions_in_twelve_languages(facts):
    assert facts.languages == TWELVE
    assert len(facts) > 150
    assert {"next-weekday", "territory-currency", "territory-language", "code-territory"} == set(
        facts.kinds.values()
    )
    assert facts.identical().empty
    for tag in TWELVE:
        for item in facts.items(tag).values():
            assert len({option.casefold() for option in item.options}) == 4
            assert item.question not in item.options
    counts = facts.survival().set_index("reason")["n"]
    assert counts["missing word"] >= 12  # Japanese months are digits
    assert counts["offered"] == len(facts) + counts.drop(["offered", "kept"]).sum()


def test_the_right_answer_is_right_and_the_others_are_not(facts):
    names = {"language": "languages", "currency": "currencies"}
    from babel import Locale

    english = Locale("en")
    for id, item in facts.items("en").items():
        kind, code = id.split("/")
        said = item.options[item.gold]
        if kind == "next-weekday":
            days = list(english.days["stand-alone"]["wide"].values())
            assert days[(days.index(item.question) + 1) % 7] == said
        elif kind == "code-territory":
            assert english.territories[item.question] == said
        else:
            assert getattr(english, names[kind.split("-")[1]])[code] == said
            back = {english.territories[t]: t for t in world.territories()}[item.question]
            known = world.tender_in if kind == "territory-currency" else world.official_in
            right = {getattr(english, names[kind.split("-")[1]])[c] for c in known(back)}
            assert right & set(item.options) == {said}


def test_positions_are_balanced_and_seeded(facts):
    for kind in set(facts.kinds.values()):
        counts = Counter(facts.gold[id] for id, k in facts.kinds.items() if k == kind)
        assert max(counts.values()) - min(counts[n] for n in range(4)) <= 1
    first, again, other = (
        cldr_choices(["en", "sw"], "territory-language", seed=seed) for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(again.frame, first.frame)
    assert set(other.ids) == set(first.ids)
    assert dict(zip(other.frame["id"], other.frame["options"], strict=True)) != dict(
        zip(first.frame["id"], first.frame["options"], strict=True)
    )


def test_options_that_look_the_same_can_be_kept():
    dropped, kept = (
        cldr_choices(["en", "fr"], "code-territory", identical=how) for how in ("drop", "keep")
    )
    assert len(kept) > len(dropped)
    assert dropped.identical().empty
    assert len(kept.identical()) > 10


def test_facts_that_cannot_be_made_are_refused():
    with pytest.raises(ValueError, match=f"accepted are one or more of {FACTS[0]}"):
        cldr_choices(["en", "de"], ["capital"])
    with pytest.raises(ValueError, match="n_options is 1"):
        cldr_choices(["en", "de"], n_options=1)
    for name in ("identical", "incomplete"):
        policies = {"identical": "keep", "incomplete": "error", name: "maybe"}
        with pytest.raises(ValueError, match=f"{name}='maybe': accepted are"):
            whole_items(pd.DataFrame(rows_of()), "test", **policies)
    with pytest.raises(ValueError, match="in en only"):
        cldr_choices(["en"])
    with pytest.raises(ValueError, match=r"No item of CLDR .* is left of 12: 12 missing word .ja."):
        cldr_choices(["en", "ja"], "next-month")
    with pytest.raises(ValueError, match=r"missing word \(bo\).*the first, item .*, bo"):
        cldr_choices(["en", "bo"])


def test_nothing_left_says_why():
    choices = choices_of()
    with pytest.raises(ValueError, match="each of 2 has an option that is the same string"):
        choices_of(*[{"options": ["x", "y", "z"]}] * 4).without_identical()
    kinds = Choices(choices.frame.assign(kind=choices.frame["id"]), "test")
    with pytest.raises(ValueError, match=r"both among these ids \(1\) and of kind 2"):
        kinds.select(ids=["1"], kinds=["2"])


# --- prompts -------------------------------------------------------------------------------------


def test_a_prompt_is_question_and_mark_and_options_follow(facts):
    facts = facts.sample(40)
    prompts, options = choice_prompts(facts, "de", shots=2)
    again, _ = choice_prompts(facts, "de", shots=2)
    assert prompts == again
    assert prompts.ids == facts.ids
    for prompt, mine in zip(prompts, options, strict=True):
        item = facts.items("de")[prompt.id]
        cut = {name: prompt.text[a:b] for name, (a, b) in prompt.spans.items()}
        assert cut["question"] == item.question
        assert cut["query"] == f"{item.question} →"
        assert prompt.text == f"{cut['demonstrations']}\n{cut['query']}"
        assert mine == tuple(f" {option}" for option in item.options)
        assert prompt.meta["gold"] == item.gold


def test_chinese_and_japanese_have_no_spaces(facts):
    for tag, spaced in (("zh-Hans", False), ("ja", False), ("ko", True), ("ar", True)):
        prompts, options = choice_prompts(facts, tag)
        assert options[0][0].startswith(" ") == spaced
        assert prompts[0].text.endswith(" →") == spaced
    assert prompts[0].spans.keys() == {"question", "query"}


@pytest.mark.parametrize(("headers", "fewest", "most"), [("item", 30, 57), (12, 12, 20)])
def test_demonstrations_are_the_same_items_in_every_language_and_leak_nothing(
    facts, headers, fewest, most
):
    facts = facts.select(ids=[*facts.select(kinds=["next-weekday"]).ids, *facts.ids[-50:]])
    asked = {
        tag: choice_prompts(facts, tag, shots=3, headers=headers)[0]
        for tag in ("en", "ja", "sw", "tr", "ko")
    }
    shown = {tag: {p.id: p.meta["demonstrations"] for p in mine} for tag, mine in asked.items()}
    assert shown["en"] == shown["ja"] == shown["sw"]
    assert fewest <= len(set(shown["en"].values())) <= most
    for tag in ("en", "tr", "ko"):
        items = facts.items(tag)
        for prompt in asked[tag]:
            item = items[prompt.id]
            a, b = prompt.spans["demonstrations"]
            before = prompt.text[a:b].casefold()
            assert item.question.casefold() not in before
            assert item.options[item.gold].casefold() not in before
    own = [
        [facts.kinds[d] for d in demos.split("|")].count(facts.kinds[id])
        for id, demos in shown["en"].items()
    ]
    assert np.mean(own) > 2.9  # weekdays may have to fall back on others


def test_contexts_and_shown_options_have_spans_and_are_not_shared():
    rows = [
        {**row, "context": "A passage." if n < 4 else "Another.", "id": str(n // 2)}
        for n, row in enumerate([*rows_of(), *rows_of()])
    ]
    rows = [{**row, "gold": 0, "language": ("en", "de")[n % 2]} for n, row in enumerate(rows)]
    for n, row in enumerate(rows):
        row |= {"question": f"Q{n}?", "options": [f"{n} x", f"{n} y"]}
    choices = Choices(pd.DataFrame(rows), "test")
    prompts, _ = choice_prompts(choices, "en", shots=1, show_options=True)
    first = prompts[0]
    assert first.meta["demonstrations"] in ("2", "3")  # item 1 has the same passage
    cut = {name: first.text[a:b] for name, (a, b) in first.spans.items()}
    assert cut["context"] == "A passage."
    assert cut["options"] == "0 x / 0 y"
    assert first.text.endswith("\n\nA passage.\nQ0? (0 x / 0 y)")
    assert cut["query"] == "Q0? (0 x / 0 y)"
    with pytest.raises(ValueError, match="only 2 items hold neither"):
        choice_prompts(choices, "en", shots=3)


def test_demonstrations_can_come_from_another_split(facts):
    pool = facts.select(kinds=["code-territory"]).sample(20)
    asked = facts.select(kinds=["territory-language"])
    prompts, _ = choice_prompts(asked, "fr", shots=2, pool=pool)
    assert set(prompts[0].meta["demonstrations"].split("|")) <= set(pool.ids)
    with pytest.raises(ValueError, match="No items in"):
        choice_prompts(asked, "fr", shots=1, pool=pool.select(languages=["en", "fr"]))
    with pytest.raises(ValueError, match="shots=-1"):
        choice_prompts(asked, "fr", shots=-1)


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def test_a_chat_has_turns_and_one_first_token(facts):
    model = kit.fresh("gemma3")
    with pytest.raises(ValueError, match="no chat template"):
        choice_prompts(facts, "fr", chat=model.tokenizer)
    model.tokenizer.chat_template = TEMPLATE
    prompts, options = choice_prompts(facts, "fr", shots=2, chat=model.tokenizer)
    prompt, item = prompts[0], facts.items("fr")[prompts[0].id]
    assert options[0] == item.options
    assert prompt.text.count("<user>") == 3
    assert prompt.text.endswith(f"<user> {item.question} →\n<assistant> ")
    cut = {name: prompt.text[a:b] for name, (a, b) in prompt.spans.items()}
    assert cut["question"] == item.question
    last = facts.items("fr")[prompt.meta["demonstrations"].split("|")[1]]
    assert cut["demonstrations"].endswith(last.options[last.gold])
    few = facts.sample(3)
    scores = score_choices(model, few, languages=["fr"], chat=True, progress=False)
    alone = choice_prompts(few, "fr", chat=model.tokenizer)
    table = xlens.score(model, *alone, progress=False).table
    np.testing.assert_allclose(scores.table["logprob"], table["logprob"], atol=1e-4)
    ids = model.tokenizer(prompt.text)["input_ids"]
    assert ids.count(model.tokenizer.bos_token_id) == 1
    model.tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    with pytest.raises(ValueError, match="changes the text"):
        choice_prompts(facts, "fr", chat=model.tokenizer)


# --- scores --------------------------------------------------------------------------------------


def pivot_choices(bed, target: str, other: str, asked: str = "fr") -> Choices:
    """What the planted pivot is asked: words of one language, options in two others."""
    words = bed.truth.lexicon
    rows = []
    for n, concept in enumerate(words.concepts):
        block = words.concepts[n - n % 4 : n - n % 4 + 4]
        rows += [
            {
                "id": concept,
                "language": tag,
                "question": f"to({tag}) {words.word(concept, asked)}",
                "options": [words.word(c, tag) for c in block],
                "gold": n % 4,
            }
            for tag in (target, other)
        ]
    return Choices(pd.DataFrame(rows), "planted")


@pytest.fixture(scope="module")
def bed():
    return planted.latent_pivot(
        depth=6, pivot_layer=2, target_layer=5, languages=["en", "de", "fr", "ru"], n_words=16
    )


def test_a_model_that_knows_is_right_in_every_language(bed):
    choices = pivot_choices(bed, "de", "ru")
    scores = score_choices(bed.model, choices, progress=False)
    panel = consistency(option_scores(scores, choices.gold), resampling=Resampling(draws=20))
    assert (panel.languages["accuracy"] == 1).all()
    assert panel.matrix("transfer").loc["de", "ru"] == 1
    wrong = {id: (n + 1) % 4 for id, n in choices.gold.items()}
    panel = consistency(option_scores(scores, wrong), resampling=Resampling(draws=20))
    assert (panel.languages["accuracy"] == 0).all()


def test_layers_show_the_pivots_options_where_the_pivot_is(bed):
    found = latent_options(bed.model, pivot_choices(bed, "de", "en"), progress=False)
    means = found.items.groupby("layer").mean(numeric_only=True)
    inside, after = means.loc[2:4], means.loc[5:]
    assert (inside["share"] > 0.99).all()
    assert (inside["right_pivot"] == 1).all()
    assert (inside["share_control"] < 0.85).all()
    assert (after["share"] < 0.01).all()
    # Another item's words, never the answer: as improbable as the wrong native ones.
    gold = found.options.merge(
        found.options.query("set == 'pivot'")
        .assign(gold=lambda t: t["id"].map(pivot_choices(bed, "de", "en").gold))
        .query("option == gold")[["id", "layer", "text"]],
        on=["id", "layer", "text"],
    )
    assert set(gold["set"]) == {"pivot"}
    assert (after["right_native"] == 1).all()
    usual = latent_options(bed.model, pivot_choices(bed, "de", "en"), lens=LOGIT, progress=False)
    pd.testing.assert_frame_equal(usual.options, found.options)
    assert set(found.options["set"]) == {"native", "pivot", "control"}
    summary = found.summary(resampling=Resampling(draws=20)).table
    assert len(summary) == 4 * 7
    row = summary[(summary["quantity"] == "share") & (summary["layer"] == 3)].iloc[0]
    assert row["mean"] == pytest.approx(means.loc[3, "share"])
    assert row["n"] == 16


def test_scores_are_those_of_the_prompts(facts):
    model = kit.fresh("gemma2")
    few = facts.sample(6)
    scores = score_choices(model, few, languages=["zh-Hans", "en"], shots=1, progress=False)
    how = scores.provenance["asked"]
    assert how["choices"].startswith("CLDR") and (how["shots"], how["chat"]) == (1, False)
    prompts, options = choice_prompts(few, "zh-Hans", shots=1)
    alone = xlens.score(model, prompts, options, progress=False).table
    mine = scores.table[scores.table["language"] == "zh-Hans"].reset_index(drop=True)
    assert list(mine["text"]) == list(alone["text"])
    np.testing.assert_allclose(mine["logprob"], alone["logprob"], atol=1e-4)
    latent = latent_options(model, few, languages=["zh-Hans"], shots=1, progress=False)
    last = latent.options[
        (latent.options["layer"] == model.n_layers) & (latent.options["set"] == "native")
    ]
    np.testing.assert_allclose(last["logprob"], alone["logprob"], atol=1e-4)
    assert (last["mean_logprob"] * last["n_tokens"]).to_numpy() == pytest.approx(
        last["logprob"].to_numpy()
    )


def test_the_figure_draws_each_language_with_its_control(bed):
    found = latent_options(bed.model, pivot_choices(bed, "de", "en"), progress=False)
    fig = latent_share(found.summary())
    lines = {t.name: list(t.y) for t in fig.data if t.fill is None}
    means = found.summary().table.set_index(["quantity", "layer"])["mean"]
    assert lines["English (en) options"] == pytest.approx(list(means["share"]))
    assert lines["control: another item's"] == pytest.approx(list(means["share_control"]))
    assert "items" in fig.layout.title.text and len(lines) == 4
    assert fig.layout.xaxis.title.text is None and fig.layout.xaxis2.title.text
    assert [(s.yref.split()[0], s.y0, s.y1) for s in fig.layout.shapes] == [
        ("y2", chance, chance) for chance in found.chance.values()
    ]
    counts = [len(item.options) for item in pivot_choices(bed, "de", "en").items("de").values()]
    assert found.chance == {"de": pytest.approx(np.mean([1 / n for n in counts]))}


def test_identical_options_are_left_out_of_the_share(tmp_path):
    model = kit.fresh("gpt2")
    choices = cldr_choices(["en", "fr", "ja"], "code-territory", identical="keep").sample(30)
    found = latent_options(model, choices, by="mean_logprob", progress=False)
    same = set(choices.identical("en").query("second == 'fr'")["id"])
    assert same
    assert set(found.dropped.query("language == 'fr'")["id"]) >= same
    assert not same & set(found.items.query("language == 'fr'")["id"])
    assert found.items["share"].between(0, 1).all()
    by_token = item_shares(found.options, choices.gold, by="mean_logprob")
    np.testing.assert_allclose(found.items["share"], by_token["share"])
    found.save(tmp_path / "latent")
    back = LatentOptions.load(tmp_path / "latent")
    pd.testing.assert_frame_equal(back.items, found.items)
    assert back.by == "mean_logprob"
    whole = back.compared("logprob")
    by_sum = item_shares(found.options, choices.gold, by="logprob")
    np.testing.assert_allclose(whole.items["share"], by_sum["share"])
    assert whole.by == "logprob" and not np.allclose(by_sum["share"], by_token["share"])
    with pytest.raises(ValueError, match="'en' is among the languages"):
        latent_options(model, choices, languages=["en"], progress=False)
    with pytest.raises(ValueError, match="No items in 'de'"):
        latent_options(model, choices, pivot="de", progress=False)
    with pytest.raises(ValueError, match="No item is left in fr"):
        latent_options(model, choices.select(ids=sorted(same)), languages=["fr"], progress=False)


def test_shares_from_logarithms_that_underflow():
    """By hand, with p = 2^-n, vanishing sums, and fewer options in one item."""
    logs = {
        ("a", "pivot"): [-2000.0, -2000.0],
        ("a", "native"): [-2000.0, -2001.0],
        ("a", "control"): [-np.inf, -np.inf],
        ("b", "pivot"): [-np.inf, -np.inf, -np.inf],
        ("b", "native"): [-np.inf, -np.inf, -np.inf],
        ("b", "control"): [-3.0, -3.0, -np.inf],
    }
    table = pd.DataFrame(
        [
            {"id": id, "language": "de", "layer": 0, "set": s, "option": n, "x": value}
            for (id, s), values in logs.items()
            for n, value in enumerate(values)
        ]
    )
    found = item_shares(table, {"a": 1, "b": 0}, by="x").set_index("id")
    assert found.loc["a", "share"] == pytest.approx(2 / (3 + np.exp(-1)))
    assert found.loc["a", "share_control"] == 0
    assert np.isnan(found.loc["b", "share"])
    assert found.loc["b", "share_control"] == 1
    assert found.loc["a", "right_native"] == 0
    assert np.isnan(found.loc["b", "right_native"])


# --- readers -------------------------------------------------------------------------------------


def test_the_plain_layout(tmp_path):
    file = write_lines(
        tmp_path / "mine.jsonl", rows_of({"context": "So:", "kind": "a"}, {"kind": "a"})
    )
    choices = read_choices(file)
    assert choices.gold == {"1": 1, "2": 2}
    assert choices.items("en")["1"].context == "So:"
    assert choices.source == "mine.jsonl"
    assert read_choices(file, languages=["de", "en"]).languages == ("de", "en")
    with pytest.raises(ValueError, match=r"has no 'fr'; there are en, de"):
        read_choices(file, languages=["fr", "de"])


def test_broken_files_are_refused(tmp_path):
    def read(rows: list[dict], **options):
        return read_choices(write_lines(tmp_path / "x.jsonl", rows), **options)

    with pytest.raises(ValueError, match="No file or folder"):
        read_choices(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="Unknown layout 'copa'"):
        read_choices(tmp_path, layout="copa")
    with pytest.raises(ValueError, match="line 1: lacks language"):
        read([{"id": "1"}])
    with pytest.raises(ValueError, match="line 1: lacks gold"):
        read([{k: v for k, v in ROW.items() if k != "gold"}])
    with pytest.raises(ValueError, match=r"line 1 is \[\] .a list.; accepted is an object"):
        read([[]])  # type: ignore[list-item]
    (tmp_path / "y.jsonl").write_text('{"id": 1\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1 isn't JSON"):
        read_choices(tmp_path / "y.jsonl")
    (tmp_path / "y.jsonl").write_bytes("é".encode("latin-1"))
    with pytest.raises(ValueError, match="UTF-8"):
        read_choices(tmp_path / "y.jsonl")
    with pytest.raises(ValueError, match="in en only"):
        read([ROW])
    uneven = rows_of({"options": ["p", "q"], "gold": 1})
    with pytest.raises(ValueError, match="unequal options"):
        read(uneven)
    left = read(uneven, incomplete="drop")
    assert left.ids == ("2",)
    assert left.survival().set_index("reason")["n"]["unequal options"] == 1
    same = rows_of({"options": ["p", "q", "r"]}, {"options": ["p", "u", "v"]})
    assert read(same).ids == ("1", "2")
    assert read(same, identical="drop").ids == ("2",)
    with pytest.raises(ValueError, match=r"of 2: 1 missing language .de., 1 missing language .en."):
        read([{**ROW}, {**ROW, "id": "2", "language": "de"}], incomplete="drop")


def xcopa_rows(tag: str) -> list[dict]:
    return [
        {"premise": f"{tag} p{n}.", "choice1": f"{tag} a{n}.", "choice2": f"{tag} b{n}.",
         "question": ("cause", "effect")[n % 2], "label": n % 2, "idx": n, "changed": False}
        for n in range(4)
    ]  # fmt: skip


def test_xcopa(tmp_path):
    for tag in ("it", "zh"):
        write_lines(tmp_path / tag / f"test.{tag}.jsonl", xcopa_rows(tag))
        write_lines(tmp_path / tag / f"val.{tag}.jsonl", xcopa_rows(tag)[:2])
    choices = read_choices(tmp_path, layout="xcopa", languages=["it", "zh-Hans"])
    assert choices.languages == ("it", "zh-Hans")
    assert choices.ids == tuple(f"test/{n}" for n in range(4))
    item = choices.items("zh-Hans")["test/1"]
    assert (item.question, item.mark, item.gold) == ("zh p1.", "→", 1)
    assert choices.items("it")["test/0"].mark == "←"
    assert len(read_choices(tmp_path, layout="xcopa", split="val")) == 2
    words = {"it": ("perché", "quindi"), "zh": ("因为", "所以")}
    spoken = read_choices(tmp_path, layout="xcopa", connectors=words)
    prompts, _ = choice_prompts(spoken, "zh")
    assert prompts[0].text == "zh p0.因为"
    with pytest.raises(ValueError, match="connectors has nothing for zh"):
        read_choices(tmp_path, layout="xcopa", connectors={"it": ("perché", "quindi")})
    with pytest.raises(ValueError, match="'train' in its name"):
        read_choices(tmp_path, layout="xcopa", split="train")
    with pytest.raises(ValueError, match=r"lacks link.*right layout\?"):
        read_choices(tmp_path, layout="belebele")


def test_a_language_is_found_under_the_name_that_a_data_set_has_for_it():
    there = {"zh": 1, "pt-PT": 2, "pt-BR": 3, "swh_Latn": 4, "sw": 4, "es": 5, "hi": 6}
    found = choose(there, ["zh-Hans", "pt-BR", "sw", "es-MX"], "set")
    assert found == {"zh-Hans": 1, "pt-BR": 3, "sw": 4, "es-MX": 5}
    for tag in ("zh-Hant", "pt", "hi-Latn", "zh-Latn"):  # another script, or which of two?
        with pytest.raises(ValueError, match=f"set has no {tag!r}"):
            choose(there, [tag], "set")


def test_languages_that_disagree_as_xcopas_do(tmp_path):
    """Written for the tests: one item in which one language asks for the cause."""
    rows = [
        {"premise": f"premise {n}", "choice1": f"one {n}", "choice2": f"two {n}",
         "question": ("cause", "effect")[n % 2], "label": n % 2, "idx": n, "changed": False}
        for n in range(6)
    ]  # fmt: skip
    for tag in ("it", "sw", "zh"):
        odd = [rows[0], {**rows[1], "question": "cause"}, *rows[2:]] if tag == "sw" else rows
        (tmp_path / tag).mkdir()
        write_lines(tmp_path / tag / f"test.{tag}.jsonl", odd)
    with pytest.raises(ValueError, match="item 'test/1', sw: kind differs"):
        read_choices(tmp_path, layout="xcopa")
    choices = read_choices(tmp_path, layout="xcopa", incomplete="drop")
    counts = choices.survival().set_index("reason")["n"]
    assert counts["offered"] == 6 and counts["kept"] == 5 and counts["kind differs"] == 1
    prompts, options = choice_prompts(choices, "zh", shots=1)
    assert "→" in prompts[0].text or "←" in prompts[0].text
    assert len(options) == len(choices) == 5


@pytest.mark.skipif(not XCOPA.is_dir(), reason="needs a copy of XCOPA")
def test_xcopa_as_published():
    with pytest.raises(ValueError, match="kind differs"):
        read_choices(XCOPA, layout="xcopa")  # languages differ in cause and effect
    choices = read_choices(XCOPA, layout="xcopa", incomplete="drop")
    assert choices.languages == ("it", "sw", "tr", "zh")
    counts = choices.survival().set_index("reason")["n"]
    assert counts["offered"] == 500 == counts["kept"] + counts["kind differs"]
    assert counts["kept"] > 300
    prompts, options = choice_prompts(choices, "zh", shots=1)
    assert "→" in prompts[0].text or "←" in prompts[0].text
    assert len(options) == len(choices)


def belebele_rows(tag: str) -> list[dict]:
    return [
        {"link": "https://x", "question_number": n, "flores_passage": f"{tag} passage",
         "question": f"{tag} {n}?", **{f"mc_answer{k}": f"{tag} {n} {k}" for k in (1, 2, 3, 4)},
         "correct_answer_num": str(n + 1), "dialect": tag, "ds": "2023"}
        for n in range(3)
    ]  # fmt: skip


def test_belebele(tmp_path):
    for code in ("eng_Latn", "arb_Arab", "zho_Hans", "arb_Latn"):
        write_lines(tmp_path / f"{code}.jsonl", belebele_rows(code))
    choices = read_choices(tmp_path, layout="belebele", languages=["ar", "zh-Hans", "en"])
    item = choices.items("ar")["https://x#2"]
    assert item.context == "arb_Arab passage"
    assert item.options[item.gold] == "arb_Arab 2 3"
    assert read_choices(tmp_path, layout="belebele").languages == ("ar", "ar-Latn", "en", "zh-Hans")


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_mmlu(tmp_path, suffix):
    for layout, own in (
        ("global-mmlu", {"sample_id": "law/test/0", "subject": "law", "question": "?"}),
        ("m-mmlu", {"id": "law/test/0", "instruction": "?"}),
    ):
        for tag in ("de", "sw"):
            options = {f"option_{x}": f"{tag} {x}" for x in "abcd"}
            row = {**own, **options, "answer": "C"}
            file = tmp_path / layout / tag / f"test.{suffix}"
            file.parent.mkdir(parents=True)
            if suffix == "jsonl":
                write_lines(file, [row])
            elif suffix == "csv":
                pd.DataFrame([row]).to_csv(file, index=False)
            else:
                pd.DataFrame([row]).to_parquet(file)
        choices = read_choices(tmp_path / layout, layout=layout)
        assert choices.gold == {"law/test/0": 2}
        assert choices.kinds == {"law/test/0": "law"}
        assert choices.items("sw")["law/test/0"].options[2] == "sw c"


def test_bmlama(tmp_path):
    lines = {
        "fr": 'L\'"X" est né en <mask>.\tRome\tParis, Rome\tX\nY est né en <mask>.\tNA\tNA, O\tY',
        "ja": "Xは<mask>に生まれました。\tローマ\tパリ, ローマ\tX\nYは<mask>。\tナ\tナ, オ\tY",
    }
    for tag, text in lines.items():
        (tmp_path / f"{tag}.tsv").write_text(
            f"Prompt\tAns\tCandidate Ans\tSubject\n{text}\n", encoding="utf-8"
        )
    choices = read_choices(tmp_path, layout="bmlama")
    assert choices.gold == {"1": 1, "2": 0}
    assert choices.items("fr")["1"].question == 'L\'"X" est né en ___.'
    assert choices.items("fr")["2"].options == ("NA", "O")
    assert choice_prompts(choices, "ja")[0][0].text == "Xは___に生まれました。→"


def test_two_files_for_a_language_and_none_are_refused(tmp_path):
    write_lines(tmp_path / "x" / "de.jsonl", belebele_rows("de"))
    with pytest.raises(ValueError, match="is a file; this layout is a folder"):
        read_choices(tmp_path / "x" / "de.jsonl", layout="belebele")
    write_lines(tmp_path / "y" / "de.jsonl", belebele_rows("de"))
    with pytest.raises(ValueError, match="are 'de'"):
        read_choices(tmp_path, layout="belebele")
    (tmp_path / "z").mkdir()
    with pytest.raises(ValueError, match="named after a language: nothing"):
        read_choices(tmp_path / "z", layout="belebele")
    with pytest.raises(ValueError, match="the layout 'jsonl' is a file"):
        read_choices(tmp_path)


def test_the_hub(monkeypatch):
    """Only the two functions of `datasets` are stood in for."""
    asked = []

    def load(name, config, *, split, revision):
        asked.append((name, config, split, revision))
        return xcopa_rows(config)

    def configurations(name, *, revision):
        return ["et", "sw", "zh", "translation-et"]

    monkeypatch.setattr(readers, "open_hub", lambda: (load, configurations))
    choices = download_choices(
        "xcopa", languages={"zh-Hans": "zh", "sw": "sw"}, split="validation", revision="abc"
    )
    assert choices.languages == ("zh-Hans", "sw")
    assert asked == [
        ("cambridgeltl/xcopa", "zh", "validation", "abc"),
        ("cambridgeltl/xcopa", "sw", "validation", "abc"),
    ]
    assert choices.source == "cambridgeltl/xcopa@abc"
    assert choices.ids[0] == "validation/0"
    assert download_choices("xcopa").languages == ("et", "sw", "zh")
    with pytest.raises(ValueError, match="has no 'fr'"):
        download_choices("xcopa", languages=["fr", "sw"])
    with pytest.raises(ValueError, match="give its name="):
        download_choices("bmlama")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="pip install datasets"):
        download_choices("xcopa")


def test_top_level_names():
    assert xlens.tasks.choices.cldr_choices is cldr_choices
    assert xlens.tasks.choices.read_choices is read_choices
    assert xlens.tasks.choices.score_choices is score_choices


# --- classes ---


def topics(n=3):
    words = ("sports", "travel")
    rows = [
        {"id": f"s{k}", "language": tag, "question": f"text {k}", "options": words, "gold": k % 2}
        for k in range(n)
        for tag in ("en", "de")
    ]
    return Choices(pd.DataFrame(rows), "mine")


def test_labels_in_a_language_of_ones_own():
    found = topics().with_labels({"de": {"sports": "Sport", "travel": "Reisen"}})
    assert found.items("de")["s1"].options == ("Sport", "Reisen")
    assert found.items("en")["s1"].options == ("sports", "travel")
    assert found.gold == topics().gold


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"sports": "Sport", "travel": "Reisen", "trips": "Fahrten"}, "could never be chosen"),
        ({"sports": "Sport"}, "lack a word for travel"),
        ({"sports": "Sport", "travel": "SPORT"}, "have one word"),
    ],
)
def test_labels_that_cannot_be(labels, said):
    with pytest.raises(ValueError, match=said):
        topics().with_labels({"de": labels})


@pytest.mark.skipif(not SIB200.is_dir(), reason="SIB-200 is not here")
def test_sib200_splits_share_no_sentence():
    place = SIB200
    parts = {
        split: read_choices(place, layout="sib200", languages=["en", "de"], split=split)
        for split in ("train", "dev", "test")
    }
    ids = [set(part.ids) for part in parts.values()]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 1004
    assert len(parts["test"]) == 204 and parts["test"].items("de")[parts["test"].ids[0]].mark == "→"


def test_a_topic_that_is_none_is_refused(tmp_path):
    for tag in ("eng_Latn", "deu_Latn"):
        (tmp_path / tag).mkdir()
        (tmp_path / tag / "test.tsv").write_text("index_id\tcategory\ttext\n1\tcooking\tSoup.\n")
    with pytest.raises(ValueError, match=r"test\.tsv.*\"category\" is \"cooking\""):
        read_choices(tmp_path, layout="sib200")


def test_two_way_choices_in_the_papers_twenty_languages_need_no_data_set():
    tags = [*"en de fr sv es ru nl it ja sl pl bg nb ms is hi th sw bn".split(), "zh-Hans"]  # noqa: SIM905
    found = cldr_choices(tags, ["code-territory"], n_options=2, identical="keep")
    assert len(found.languages) == 20 and len(found) > 60
    assert {len(item.options) for item in found.items("th").values()} == {2}


def released(folder, **answers):
    """Files as released beside arXiv 2405.13816, with each language's own words."""
    folder.mkdir(exist_ok=True)
    for tag, words in answers.items():
        rows = [
            {"premise": f"{tag} p{n}", "hypothesis": f"{tag} h{n}", "answer": word}
            for n, word in enumerate(words)
        ]
        (folder / f"snli_{tag}600_test.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def test_a_class_is_that_of_the_english_row_whatever_the_words(tmp_path):
    """In the released Norwegian file the words for two of the classes are exchanged."""
    english = ["entailment", "neutral", "contradiction"]
    exchanged = ["medføring", "motsigelse", "nøytral"]
    place = released(tmp_path / "snli", en=english, no=exchanged)
    found = read_choices(place, layout="classes")
    assert found.languages == ("en", "no") and list(found.gold.values()) == [0, 1, 2]
    assert found.items("no")["2"].options == tuple(english)
    assert found.items("no")["2"].question == "no p1\nno h1"


def test_a_word_for_two_classes_is_refused(tmp_path):
    english = ["entailment", "neutral", "contradiction"]
    place = released(tmp_path / "snli", en=english, de=["ja", "ja", "nein"])
    with pytest.raises(ValueError, match=r"'ja' stands beside English rows of entailment \(1\)"):
        read_choices(place, layout="classes")
    with pytest.raises(ValueError, match="No dev file in English"):
        read_choices(place, layout="classes", split="dev")
    place = released(tmp_path / "other", en=english, de=["ja", "nein"])
    with pytest.raises(ValueError, match="de has 2 rows and English 3"):
        read_choices(place, layout="classes")


@pytest.mark.parametrize(
    ("layout", "head", "row", "option"),
    [
        ("paws-x", "id\tsentence1\tsentence2\tlabel", "7\tA b.\tB a.\t1", "same"),
        ("xnli", "premise\thypothesis\tlabel", "A man.\tA cat.\t2", "contradiction"),
    ],
)
def test_pairs_of_sentences(tmp_path, layout, head, row, option):
    for tag in ("en", "de"):
        (tmp_path / tag).mkdir()
        (tmp_path / tag / "test_2k.tsv").write_text(f"{head}\n{row}\n", encoding="utf-8")
    (item,) = read_choices(tmp_path, layout=layout).items("de").values()
    assert item.options[item.gold] == option and item.question.count("\n") == 1
