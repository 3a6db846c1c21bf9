"""What a tokenizer adds around a text changes no state, score, trace or text."""

import kit
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers, processors

import xlens
from xlens import Prompt
from xlens.models import HookedModel
from xlens.phases.segment_depth import _has_bos

TEXT = "Der Hund schläft"
QUIET = {"progress": False}


def appending(family: str = "gemma3") -> HookedModel:
    """A model whose tokenizer.json ends every text in EOS."""
    model = kit.fresh(family)
    words = model.tokenizer
    ends = [(mark, words.convert_tokens_to_ids(mark)) for mark in ("<bos>", "<eos>")]
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=ends
    )
    return model


def asked(text: str = TEXT) -> list[Prompt]:
    at = len(text) - len(TEXT)
    return [Prompt(text, "de", "1", {"noun": (at + 4, at + 8)})]


@pytest.mark.parametrize("text", [TEXT, f"<bos>{TEXT}"])
def test_every_verb_reads_the_text_alone(text):
    plain, model = kit.fresh("gemma3"), appending()
    slots = ["last", "all", "noun:mean", "noun:predict"]
    wanted = xlens.harvest(plain, asked(), slots=slots, **QUIET)
    got = xlens.harvest(model, asked(text), slots=slots, **QUIET)
    for slot in slots:
        torch.testing.assert_close(got.slot(slot).values, wanted.slot(slot).values)
    assert got.provenance["left_off"] == ["<eos>"] and wanted.provenance["left_off"] == []
    assert got.provenance["begins_with"] == wanted.provenance["begins_with"] == {"<bos>": 1}

    made = [xlens.generate(m, asked(t), max_new_tokens=5, **QUIET).table["tokens"][0]
            for m, t in ((plain, TEXT), (model, text))]  # fmt: skip
    assert made[0] == made[1]
    scores = [xlens.score(m, asked(t), [" dog", " house"], **QUIET).table["logprob"]
              for m, t in ((plain, TEXT), (model, text))]  # fmt: skip
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    tables = [xlens.trace(m, t).tokens for m, t in ((plain, TEXT), (model, text))]
    assert tables[0].equals(tables[1])
    found = [xlens.relevance(m, asked(t), targets=["Hund"], slots="all", **QUIET)
             for m, t in ((plain, TEXT), (model, text))]  # fmt: skip
    np.testing.assert_allclose(found[0].values, found[1].values, atol=1e-4)
    assert found[1].targets["position"][0] == found[0].targets["position"][0]


def test_the_first_token_is_asked_of_the_prompts_and_not_of_the_tokenizer():
    model = kit.fresh("gemma3")
    options = {"targets": ["Hund"], "slots": "all", **QUIET}
    assert _has_bos(xlens.relevance(model, asked(), **options), None)
    assert not _has_bos(xlens.relevance(model, asked(), prepend_bos=False, **options), None)
    bare = kit.fresh("qwen2")  # whose tokenizer adds nothing
    assert not _has_bos(xlens.relevance(bare, asked(), **options), None)
    held = asked(bare.tokenizer.bos_token + TEXT)
    assert _has_bos(xlens.relevance(bare, held, **options), None)


def test_a_target_that_stands_behind_no_space_is_not_given_one():
    llama, byte_level = kit.fresh("llama"), kit.fresh("gpt2")
    byte_level.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=True
    )
    for model in (llama, byte_level):
        targets = xlens.relevance(
            model, [asked()[0], Prompt(TEXT, "de", "2")], targets=["dog", " dog"], **QUIET
        ).targets
        first, second = (model.vocab.pieces[i] for i in targets["token"])
        assert b"dog".startswith(first) and b" dog".startswith(second) and second[:1] == b" "


def test_a_warning_names_what_the_prompt_holds_and_nothing_else(caplog):
    model = kit.fresh("gemma3")
    words = model.tokenizer
    marks = [(mark, words.convert_tokens_to_ids(mark)) for mark in ("<pad>", "<bos>")]
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<pad> <bos> $A", special_tokens=marks
    )
    (once,) = model.tokenize(asked(f"<bos>{TEXT}"))
    assert words.convert_ids_to_tokens(list(once.ids[:3]))[:2] == ["<pad>", "<bos>"]
    assert once.ids == model.tokenize(asked())[0].ids
    (told,) = [r.getMessage() for r in caplog.records if "hold" in r.getMessage()]
    assert "prompts hold <bos> themselves" in told
