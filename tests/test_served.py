"""A tiny model behind a real server, `transformers serve`: the same text as from `generate`."""

import sys
from pathlib import Path

import kit
import pytest
import serving

import xlens
from xlens import Prompt
from xlens.served import ServedGenerations, ServedModel, served_generate

pytestmark = serving.needed
NEW = 8


@pytest.fixture
def folder(served_folder) -> Path:
    return served_folder


@pytest.fixture
def address(served_address) -> str:
    return served_address


@pytest.fixture
def model(folder):
    return kit.model(folder)


def ask(served: ServedModel, prompts, **how) -> ServedGenerations:
    return served_generate(served, prompts, **{"max_new_tokens": NEW, "progress": False, **how})


def test_completions_are_what_generate_writes(address, folder, model):
    served = ServedModel(str(folder), address, chat=False, concurrency=3)
    found = ask(served, kit.mixed()).table
    wanted = xlens.generate(model, kit.mixed(), max_new_tokens=NEW, progress=False).table
    assert len(set(wanted["text"])) > 6  # else anything could pass
    columns = ["id", "language", "text", "n_tokens", "reason"]
    assert found[columns].values.tolist() == wanted[columns].values.tolist()
    lengths = [len(tokens) for tokens in model.tokenize(kit.mixed())]
    assert found["n_prompt_tokens"].tolist() == lengths


def test_stop_strings_end_where_generate_ends(address, folder, model):
    whole = xlens.generate(model, kit.mixed(), max_new_tokens=NEW, progress=False).table["text"]
    # Out of the middle of some continuations, so that some are stopped and some are not.
    stops = sorted({text[2:4] for text in whole[:4] if len(text) > 4 and "�" not in text[2:4]})
    wanted = xlens.generate(model, kit.mixed(), max_new_tokens=NEW, stop=stops, progress=False)
    assert set(wanted.table["reason"]) == {"stop", "length"}
    found = ask(ServedModel(str(folder), address, chat=False), kit.mixed(), stop=stops)
    assert found.table["text"].tolist() == wanted.table["text"].tolist()
    assert found.table["reason"].tolist() == wanted.table["reason"].tolist()


def test_chat_is_what_generate_writes_after_the_template(address, folder, model):
    system = "Kurz!"

    def templated(prompt: Prompt) -> Prompt:
        said = [{"role": "system", "content": system}, {"role": "user", "content": prompt.text}]
        text = model.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        return Prompt(text, prompt.language, prompt.id)

    asked = list(kit.mixed())[:4]
    found = ask(ServedModel(str(folder), address, system=system), asked)
    wanted = xlens.generate(
        model, [templated(p) for p in asked], max_new_tokens=NEW, progress=False
    )
    assert found.table["text"].tolist() == wanted.table["text"].tolist()
    plain = ask(ServedModel(str(folder), address), asked)
    assert plain.table["text"].tolist() != wanted.table["text"].tolist()


def test_counts_price_and_origin(address, folder, tmp_path):
    served = ServedModel(str(folder), address, chat=False, price_in=2.0, price_out=10.0)
    found = ask(served, list(kit.mixed())[:3], store=tmp_path)
    read, written = found.table["n_prompt_tokens"].sum(), found.table["n_tokens"].sum()
    assert found.tokens == {"in": read, "out": written} and written == 3 * NEW
    assert found.cost == pytest.approx((2 * read + 10 * written) / 1e6)
    assert found.provenance["endpoint"] == address
    assert found.provenance["answered_by"] == [f"{folder}@main"]  # as the server calls it
    again = ServedGenerations.load(found.save(tmp_path / "saved"))
    assert again.cost == found.cost and again.table.equals(found.table)
    assert isinstance(found, xlens.engine.Generations)


def test_a_second_run_asks_for_what_is_new_only(address, folder, tmp_path, monkeypatch):
    served = ServedModel(str(folder), address, chat=False)
    some, more = list(kit.mixed())[:3], list(kit.mixed())[:5]
    first = ask(served, some, store=tmp_path)
    both = ask(served, more, store=tmp_path)
    assert both.table.iloc[:3].equals(first.table)
    monkeypatch.setitem(sys.modules, "openai", None)  # nothing can be asked from here on
    last = ask(served, more[::-1], store=xlens.Store(tmp_path))
    assert last.table["text"].tolist() == both.table["text"].tolist()[::-1]
    first_of = [r.provenance["first_prompt"]["id"] for r in (both, last)]
    assert first_of == [more[0].id, more[-1].id]
    assert {**last.provenance, "first_prompt": 0} == {**both.provenance, "first_prompt": 0}
    for changed in ({"max_new_tokens": NEW + 1}, {"seed": 1}, {"stop": "\n"}, {"temperature": 0.5}):
        with pytest.raises(ValueError, match=r"xlens-interp\[api\]"):
            ask(served, some, store=tmp_path, **changed)
    with pytest.raises(ValueError, match=r"xlens-interp\[api\]"):
        ask(ServedModel(str(folder), address), some, store=tmp_path)  # chat: another request


def test_what_the_server_refuses_is_said_in_its_words(address):
    with pytest.raises(xlens.served.ServedError, match="pinned to") as told:
        ask(ServedModel("another-model", address), list(kit.mixed())[:1])
    assert "'item 0' (en)" in str(told.value) and "tries" not in str(told.value)


def test_the_api_key_error_names_the_variable(address, folder, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    served = ServedModel(str(folder), address, api_key_env="NO_SUCH_KEY")
    with pytest.raises(ValueError, match="environment variable NO_SUCH_KEY, which is not set"):
        ask(served, list(kit.mixed())[:1])
