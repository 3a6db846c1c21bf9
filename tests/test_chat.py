"""Questions as turns of a chat, by templates as tokenizers bring them."""

import pytest

import tiny
from xlens import Prompt
from xlens.prompts import tokenize
from xlens.tasks.chat import in_chat

# As Qwen 3 has it: without being told otherwise, the model thinks aloud first.
THINKING = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
    "{% endif %}"
)
PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"


@pytest.mark.parametrize(
    ("template", "end"), [(THINKING, "<assistant><think></think>"), (PLAIN, "<assistant>")]
)
def test_no_thoughts_are_asked_for(template, end):
    words = tiny.tokenizer("gpt2")
    words.chat_template = template
    alone = Prompt("Wo liegt Rom?", "de", "1", {"question": (0, 13)})
    made = in_chat(alone, [("Wo liegt Kiew?", "In der Ukraine")], words)
    assert made.text.endswith(f"<user>Wo liegt Rom?\n{end}")
    assert made.part("question") == "Wo liegt Rom?"
    assert made.part("demonstrations").startswith("Wo liegt Kiew?")


@pytest.mark.parametrize("before", ["", "\n", "  "])
@pytest.mark.parametrize("prefix", [False, True])
def test_a_chats_tokens_are_those_of_its_template(before, prefix):
    words = tiny.sentencepiece(prefix=prefix)
    words.chat_template = (
        before + "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}"
    )
    alone = Prompt("Wo liegt Rom?", "de", "1", {"question": (0, 13)})
    (tokens,) = tokenize(words, [in_chat(alone, [("Wo?", "Da")], words)])
    turns = [("user", "Wo?"), ("assistant", "Da"), ("user", alone.text)]
    chat = [{"role": role, "content": content} for role, content in turns]
    assert list(tokens.ids) == words.apply_chat_template(chat)["input_ids"]
    assert tokens.ids.count(words.bos_token_id) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "end"),
        ("{{ 9 ** (9 ** (9 ** 9)) }}", "end"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ 'a' * 20000000000 }}", "GB"),
        (
            "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}"
            "{% endfor %}{{ n.x }}",
            "GB",
        ),
        ("{% for i in range(9999) %}{{ 'abcdefgh' * 9999 }}{% endfor %}", "characters"),
        ("{{ 1 + 'a' }}", "unsupported operand"),
        ("{% for m in", "template"),
        ("{{ raise_exception('Roles must alternate') }}", "Roles must alternate"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ nothing.there }}", "undefined"),
    ],
)
def test_templates_that_mean_harm_or_are_broken(template, said, monkeypatch):
    monkeypatch.setattr("xlens.tasks.trial.SECONDS", 1)
    words = tiny.tokenizer("gpt2")
    words.chat_template = template
    with pytest.raises(ValueError, match=rf"(?s)chat of item '1'.*{said}.*Use another checkpoint"):
        in_chat(Prompt("Wo liegt Rom?", "de", "1"), [], words)
