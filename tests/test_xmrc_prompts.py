"""Reading prompts: any combination of languages, every part named, nothing given away."""

import json

import kit
import pytest
import readings

import tiny
from xlens.prompts import Prompt, tokenize
from xlens.tasks.xmrc import (
    TEMPLATES,
    Combination,
    ReadingSet,
    ReadingTemplate,
    mismatched,
    reading_prompts,
    sentences,
    settings,
)
from xlens.tasks.xmrc.templates import template_of

XQUAD_LANGUAGES = ("en", "de", "es", "vi", "zh", "hi", "ar", "el", "ro", "ru", "th", "tr")
CHAT = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}> {{ m.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


@pytest.fixture(scope="module")
def stories() -> ReadingSet:
    return readings.reading_set()


def cut(prompt: Prompt) -> dict[str, str]:
    return {name: prompt.text[a:b] for name, (a, b) in prompt.spans.items()}


def demonstrations(prompt: Prompt) -> list[str]:
    return str(prompt.meta["demonstrations"]).split("|") if prompt.meta["demonstrations"] else []


# --- settings ------------------------------------------------------------------------------------


def test_settings_are_combinations():
    made = settings(["en-en", "en-x", "x-x"], ["en", "de", "zh_hans"])
    assert made == (
        Combination("en", "en", "en"),
        Combination("en", "de", "en"),
        Combination("en", "zh-Hans", "en"),
        Combination("de", "de", "de"),
        Combination("zh-Hans", "zh-Hans", "zh-Hans"),
    )
    assert settings("x-en", ["ru"]) == (Combination("ru", "en", "ru"),)
    every = settings("matrix", ["en", "de", "ru"])
    assert len(every) == 9 and all(each.answer == each.context for each in every)
    assert set(settings(["matrix", "en-x"], ["de"])) == set(settings("matrix", ["de"]))
    assert settings("en-x", ["en", "ru"], pivot="ru") == (Combination("ru", "en", "ru"),)
    with pytest.raises(ValueError, match=r"Unknown settings \['en-de'\]; accepted are en-en"):
        settings("en-de", ["de"])
    with pytest.raises(ValueError, match="needs a language other than the pivot 'en'"):
        settings("en-x", ["en"])


# --- what a prompt says --------------------------------------------------------------------------


def test_a_prompt_in_two_languages(stories):
    prompts = reading_prompts(stories, context="en", question="de", shots=0)
    assert prompts.ids == stories.ids and prompts.languages == ("de",)
    prompt = prompts.select(ids=["q20"])[0]
    assert prompt.text == (
        "Answer the question with a short phrase taken from the context.\n\n"
        "Context: Once there was a story. The bear sleeps in the forest. It likes honey, says Dr. "
        "Lee.\nQuestion: Wo schläft der Bär?\nAnswer:"
    )
    assert cut(prompt) == {
        "instruction": TEMPLATES["en"].instruction,
        "context": stories.items("en")["q20"].context,
        "sentence_0": "Once there was a story.",
        "sentence_1": "The bear sleeps in the forest.",
        "sentence_2": "It likes honey, says Dr. Lee.",
        "answer_sentence": "The bear sleeps in the forest.",
        "answer": "forest",
        "question": "Wo schläft der Bär?",
    }
    meta = dict(prompt.meta)
    assert json.loads(meta.pop("references")) == ["forest"]
    assert json.loads(meta.pop("question_references")) == ["Wald"]
    assert meta == {
        "task": "xmrc",
        "paragraph": "1/0",
        "context_language": "en",
        "question_language": "de",
        "answer_language": "en",
        "shots": 0,
        "demonstrations": "",
        "chat": False,
        "cut": 0,
        "control": "",
    }


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("chat", [False, True])
def test_parts_are_where_they_say(stories, shots, chat):
    tokenizer = tiny.sentencepiece()
    tokenizer.chat_template = CHAT
    for combination in settings("matrix", stories.languages):
        told, asked = stories.items(combination.context), stories.items(combination.question)
        prompts = reading_prompts(
            stories,
            context=combination.context,
            question=combination.question,
            shots=shots,
            chat=tokenizer if chat else None,
        )
        for prompt in prompts:
            item, parts = told[prompt.id], cut(prompt)
            assert prompt.text.count(item.context) == 1
            assert parts["context"] == item.context
            assert parts["question"] == asked[prompt.id].question
            assert parts["answer"] == item.answers[0]
            spans = sentences(item.context, combination.context)
            for n, (a, b) in enumerate(spans):
                assert parts[f"sentence_{n}"] == item.context[a:b]
            assert f"sentence_{len(spans)}" not in parts and len(spans) == 3
            assert parts["answer_sentence"] == parts[f"sentence_{1 + int(prompt.id[-1])}"]
            inside = (
                prompt.spans["answer"],
                prompt.spans["answer_sentence"],
                prompt.spans["context"],
            )
            assert inside[2][0] <= inside[1][0] <= inside[0][0]
            assert inside[0][1] <= inside[1][1] <= inside[2][1]
            assert ("demonstrations" in parts) == (shots > 0)
            assert len(prompt.spans) == 8 + (shots > 0)
        for each in tokenize(tokenizer, list(prompts)):  # no span is lost among the tokens
            assert set(each.spans) == set(each.prompt.spans)


def test_an_answer_across_sentences_and_one_that_is_given_twice():
    across = "story. The dog"
    context = readings.rows()[0]["context"]
    first = {"answers": [across, "garden"], "starts": [context.index(across), 46]}
    prompts = reading_prompts(readings.reading_set(first), context="en", question="en", shots=0)
    parts = cut(prompts[0])
    assert parts["answer"] == across
    assert parts["answer_sentence"] == "Once there was a story. The dog sleeps in the garden."
    assert json.loads(str(prompts[0].meta["references"])) == [across, "garden"]


def test_another_answer_language_is_named(stories):
    prompts = reading_prompts(stories, context="de", question="ru", answer="en", shots=1)
    parts = cut(prompts[0])
    assert parts["answer"] == "Garten"
    assert json.loads(str(prompts[0].meta["references"])) == ["garden"]
    assert prompts[0].text.endswith("Где спит пёс?\nSprache der Antwort: Englisch\nAntwort:")
    (shown,) = demonstrations(prompts[0])
    assert parts["demonstrations"].endswith(
        f"Sprache der Antwort: Englisch\nAntwort: {stories.items('en')[shown].answers[0]}"
    )


@pytest.mark.parametrize(
    ("instruction", "first", "last"),
    [
        ("context", "Beantworte", "Antwort:"),
        ("question", "请用", "答案："),
        ("answer", "Beantworte", "Antwort:"),
        ("en", "Answer the", "Answer:"),
        (None, "Kontext: Es war", "Antwort:"),
    ],
)
def test_the_instruction_can_be_in_any_language(stories, instruction, first, last):
    prompts = reading_prompts(
        stories, context="de", question="zh-Hans", instruction=instruction, shots=0
    )
    assert prompts[0].text.startswith(first) and prompts[0].text.endswith(last)
    assert ("instruction" in prompts[0].spans) == (instruction is not None)


def test_templates():
    assert set(XQUAD_LANGUAGES) <= set(TEMPLATES)
    for tag, form in TEMPLATES.items():
        words = (form.instruction, form.context, form.question, form.answer, form.language)
        assert all(words) and not any(w != w.strip() for w in words), tag
        assert all(w.endswith((":", "：")) for w in words[1:]), tag
    assert template_of("zh-Hans") == TEMPLATES["zh"] == template_of("zh-CN")
    assert template_of("zh-Hant") == template_of("zh-TW") == TEMPLATES["zh-Hant"]
    assert template_of("arb") == template_of("ar-EG") == TEMPLATES["ar"]
    for tag in ("zh-Latn", "hi-Latn", "ru-Latn"):  # another script's words are no template
        with pytest.raises(ValueError, match=rf"no reading template in {tag} \(Latn\)"):
            template_of(tag)
    with pytest.raises(ValueError, match=r"no reading template in sw \(Latn\); there are en, de"):
        template_of("sw")


def test_words_of_a_template():
    assert template_of("de", {"answer": "X:"}).answer == "X:"
    assert template_of("de", {"answer": "X:"}).question == "Frage:"
    with pytest.raises(ValueError, match=r"no reading template in pl.*at least context, question"):
        template_of("pl", {"answer": "X:"})
    labels = {"context": "Tekst:", "question": "Pytanie:", "answer": "Odpowiedź:"}
    assert template_of("pl", labels).instruction == ""
    with pytest.raises(ValueError, match=r"Unknown words of a template \['anser'\]"):
        template_of("de", {"anser": "X:"})


def test_a_template_of_ones_own(stories):
    mine = ReadingTemplate("", "", "Q:", "A:")
    prompts = reading_prompts(stories, context="de", question="de", shots=0, template=mine)
    item = stories.items("de")["q00"]
    assert prompts[0].text == f"{item.context}\nQ: {item.question}\nA:"
    assert prompts.how["template"]["answer"] == "A:"


# --- demonstrations ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_demonstrations_are_of_other_articles_and_the_same_everywhere(stories, seed):
    shown = {}
    for combination in settings("matrix", stories.languages):
        prompts = reading_prompts(
            stories, context=combination.context, question=combination.question, shots=2, seed=seed
        )
        for prompt in prompts:
            ids = demonstrations(prompt)
            assert shown.setdefault(prompt.id, ids) == ids and len(set(ids)) == 2
            told = stories.items(combination.context)
            assert all(told[id].article != told[prompt.id].article for id in ids)
            asked = stories.items(combination.question)
            text = cut(prompt)["demonstrations"]
            assert all(told[id].context in text and asked[id].question in text for id in ids)
            assert text.endswith(told[ids[-1]].answers[0])
    # One choice a paragraph, so that its questions share all that comes before them.
    for ids in stories.paragraphs.values():
        assert len({tuple(shown[id]) for id in ids}) == 1
    assert len({tuple(ids) for ids in shown.values()}) > 1


def test_what_is_not_asked_is_demonstrated_first(stories):
    few = stories.select(ids=["q00", "q10", "q20", "q30"])
    for seed in range(5):
        for prompt in reading_prompts(few, question="de", shots=2, seed=seed, pool=stories):
            assert {id[:2] for id in demonstrations(prompt)} <= {"q4", "q5"}
    # Articles that aren't known are no reason to show what is asked.
    bare = ReadingSet(stories.frame.drop(columns=["paragraph", "title"]), "untitled")
    asked = bare.select(ids=few.ids)
    for seed in range(5):
        for prompt in reading_prompts(asked, question="de", shots=2, seed=seed, pool=bare):
            assert {id[:2] for id in demonstrations(prompt)} <= {"q4", "q5"}
    # Where there is nothing else, other paragraphs of the same article do.
    near = stories.select(ids=["q00", "q10"])
    assert [demonstrations(p) for p in reading_prompts(near, shots=1)] == [["q10"], ["q00"]]
    with pytest.raises(ValueError, match="need 3 demonstrations, but there are 2 on other"):
        reading_prompts(stories.select(ids=["q00", "q10", "q20"]), shots=3)
    with pytest.raises(ValueError, match="shots=-1"):
        reading_prompts(stories, shots=-1)
    with pytest.raises(ValueError, match="per_text=0"):
        reading_prompts(stories, per_text=0)
    with pytest.raises(ValueError, match="No questions in 'ru'"):
        reading_prompts(few, question="ru", shots=1, pool=stories.select(languages=["en"]))


@pytest.mark.parametrize(
    ("shots", "per_text", "texts"), [(2, 1, 2), (2, 2, 1), (3, 2, 2), (4, 9, 2)]
)
def test_a_text_is_shown_once_with_its_questions(stories, shots, per_text, texts):
    prompts = reading_prompts(stories, question="de", shots=shots, per_text=per_text)
    told, asked = stories.items("en"), stories.items("de")
    for prompt in prompts:
        text, ids = cut(prompt)["demonstrations"], demonstrations(prompt)
        assert len(set(ids)) == shots == text.count("Question:") == text.count("Answer:")
        assert text.count("Context:") == texts == len({told[id].paragraph for id in ids})
        assert all(text.count(told[id].context) == 1 for id in ids)
        # Each question follows its own text.
        at = [text.index(f"{asked[id].question}\nAnswer: {told[id].answers[0]}") for id in ids]
        assert at == sorted(at)
        assert all(text.index(told[id].context) < a for id, a in zip(ids, at, strict=True))
        last = max(text.index(told[id].context) for id in ids)
        assert text.index(told[ids[-1]].context) == last
        assert prompt.text.count("\n\n") == texts + 1
    assert prompts.how["per_text"] == per_text


def test_shots_by_default(stories):
    tokenizer = tiny.sentencepiece()
    tokenizer.chat_template = CHAT
    assert reading_prompts(stories)[0].meta["shots"] == 3
    assert reading_prompts(stories, chat=tokenizer)[0].meta["shots"] == 0


# --- chats ---------------------------------------------------------------------------------------


def test_a_chat_has_turns(stories):
    tokenizer = kit.fresh("gemma3").tokenizer
    with pytest.raises(ValueError, match="no chat template"):
        reading_prompts(stories, chat=tokenizer)
    tokenizer.chat_template = CHAT
    prompt = reading_prompts(stories, question="de", shots=1, chat=tokenizer)[0]
    (shown,) = demonstrations(prompt)
    other = stories.items("en")[shown]
    assert prompt.text == (
        f"<user> {TEMPLATES['en'].instruction}\n\nContext: {other.context}\n"
        f"Question: {stories.items('de')[shown].question}\n<assistant> {other.answers[0]}\n"
        f"<user> {TEMPLATES['en'].instruction}\n\nContext: {stories.items('en')['q00'].context}\n"
        "Question: Wo schläft der Hund?\n<assistant> "
    )
    assert prompt.meta["chat"] is True
    both = reading_prompts(stories, question="de", shots=2, chat=tokenizer)[0]
    assert both.text.count("<user>") == 3 and both.text.count("Context:") == 2
    assert prompt.spans["instruction"][0] > prompt.spans["demonstrations"][1]
    ids = tokenize(tokenizer, [prompt])[0].ids
    assert ids.count(tokenizer.bos_token_id) == 1


# --- too long ------------------------------------------------------------------------------------


def n_tokens(tokenizer, prompt: Prompt) -> int:
    return len(tokenizer(prompt.text)["input_ids"])


def test_too_long_is_refused_skipped_or_cut(stories):
    tokenizer = tiny.byte_level()
    whole = reading_prompts(stories, shots=0)
    lengths = {p.id: n_tokens(tokenizer, p) for p in whole}
    limit = sorted(lengths.values())[6]
    long = [id for id, n in lengths.items() if n > limit]
    assert 0 < len(long) < len(whole)
    how = {"shots": 0, "limit": limit, "tokenizer": tokenizer}

    with pytest.raises(ValueError, match=f"question '{long[0]}' has more than {limit} tokens"):
        reading_prompts(stories, **how)
    skipped = reading_prompts(stories, **how, too_long="skip")
    assert [p.id for p in skipped] == [id for id in lengths if id not in long]
    assert skipped.how["skipped"] == long and skipped.how["truncated"] == []

    cut_short = reading_prompts(stories, **how, too_long="truncate")
    assert cut_short.ids == whole.ids and cut_short.how["truncated"] == long
    for prompt, before in zip(cut_short, whole, strict=True):
        assert n_tokens(tokenizer, prompt) <= limit
        parts = cut(prompt)
        assert parts["answer"] == cut(before)["answer"]
        assert parts["answer"] in parts["answer_sentence"]
        assert parts["context"] in cut(before)["context"]
        assert (prompt.meta["cut"] > 0) == (prompt.id in long)
        if prompt.meta["cut"]:
            # Whole sentences, those next to the answer, as many as there is room for.
            wanted = {"0": ["sentence_0", "sentence_1"], "1": ["sentence_1", "sentence_2"]}
            kept = [cut(before)[name] for name in wanted[prompt.id[-1]]]
            assert parts["context"] == " ".join(kept)
    none = {**how, "limit": 5}
    with pytest.raises(ValueError, match="more than 5 tokens, with one sentence of context"):
        reading_prompts(stories, **none, too_long="truncate")
    with pytest.raises(ValueError, match="All 12 prompts have more than 5 tokens"):
        reading_prompts(stories, **none, too_long="skip")
    with pytest.raises(ValueError, match="give tokenizer="):
        reading_prompts(stories, limit=100)
    assert reading_prompts(stories, shots=0, limit=10**6, tokenizer=tokenizer) == whole


# --- controls and refusals -----------------------------------------------------------------------


def test_exchanged_contexts_have_no_answer(stories):
    other = mismatched(stories)
    with pytest.raises(ValueError, match="give the set as it was as pool="):
        reading_prompts(other, shots=1)
    real = reading_prompts(stories, question="de", shots=1)
    for prompt, true in zip(
        reading_prompts(other, question="de", pool=stories, shots=1), real, strict=True
    ):
        parts, wanted = cut(prompt), cut(true)
        assert not {"answer", "answer_sentence"} & set(parts)
        assert parts["question"] == wanted["question"]
        assert parts["demonstrations"] == wanted["demonstrations"]
        assert parts["context"] != wanted["context"]
        assert prompt.meta["control"] == "mismatched"
        assert prompt.meta["references"] == true.meta["references"]


def test_questions_of_their_own_stay_in_their_language(stories):
    frame = stories.frame.assign(id=stories.frame["language"] + stories.frame["id"])
    tydi = ReadingSet(frame, "tydi", parallel=False)
    made = reading_prompts(tydi, context="ru", question="ru", shots=1)
    assert len(made) == 12 and all(p.id.startswith("ru") for p in made)
    assert all(id.startswith("ru") for p in made for id in demonstrations(p))
    with pytest.raises(ValueError, match="tydi has other questions in every language"):
        reading_prompts(tydi, context="en", question="ru")
    with pytest.raises(ValueError, match="No questions in 'fr'"):
        reading_prompts(stories, question="fr")
