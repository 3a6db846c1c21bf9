"""The table of one prompt: layer × position."""

import kit
import pandas as pd
import pytest

from xlens import Prompt, trace
from xlens.lens import TraceResult

TEXT = 'Français: "chien" - 中文: "狗 龘'


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_the_last_row_is_what_the_model_says_next(family, family_dir):
    model = kit.model(family_dir(family))
    found = trace(model, TEXT)
    ids = model.tokenizer(TEXT)["input_ids"]
    assert found.tokens["token"].tolist() == ids
    assert found.tokens["pos"].tolist() == list(range(len(ids)))
    assert found.tokens["label"].tolist() == [model.vocab.label(i) for i in ids]
    assert len(found.cells) == (model.n_layers + 1) * len(ids) and found.n_layers == model.n_layers

    last = found.cells[found.cells["layer"] == model.n_layers].set_index("pos")
    probs = kit.logits(model, ids).softmax(-1)
    assert last["token"].tolist() == probs.argmax(-1).tolist()
    assert last["prob"].tolist() == pytest.approx(probs.amax(-1).tolist(), rel=1e-4)
    bits = -(probs * probs.log2()).sum(-1)
    assert last["entropy"].tolist() == pytest.approx(bits.tolist(), abs=1e-3)
    assert last["label"].tolist() == [model.vocab.label(i) for i in last["token"]]

    states = kit.hidden_states(model, ids)
    for layer in range(model.n_layers):
        best = model.readout.logits(states[layer]).softmax(-1).max(-1)
        mine = found.cells[found.cells["layer"] == layer]
        assert mine["token"].tolist() == best.indices.tolist()
        assert mine["prob"].tolist() == pytest.approx(best.values.tolist(), rel=1e-4)


def test_bos_is_a_position_if_there_is_one(family_dir):
    model = kit.model(family_dir("gpt2"))
    without, with_bos = trace(model, "The dog"), trace(model, "The dog", prepend_bos=True)
    assert len(with_bos.tokens) == len(without.tokens) + 1
    assert with_bos.tokens["label"][0] == "<|endoftext|>"


def test_a_prompt_object_keeps_its_name(family_dir):
    model = kit.model(family_dir("gpt2"))
    found = trace(model, Prompt("Le chien", "fr", "7"))
    pd.testing.assert_frame_equal(found.cells, trace(model, "Le chien").cells)
    assert found.provenance["trace"]["text"] == "Le chien" and found.provenance["model"] == "gpt2"


def test_the_last_positions_alone(family_dir):
    found = trace(kit.model(family_dir("gpt2")), TEXT)
    n = len(found.tokens)
    short = found.last(3)
    assert short.tokens["pos"].tolist() == [n - 3, n - 2, n - 1]
    assert set(short.cells["pos"]) == {n - 3, n - 2, n - 1} and short.n_layers == found.n_layers
    assert len(found.last(1_000).tokens) == n


def test_saved_is_loaded(tmp_path, family_dir):
    found = trace(kit.model(family_dir("gpt2")), TEXT)
    back = TraceResult.load(found.save(tmp_path / "t"))
    pd.testing.assert_frame_equal(back.to_frame(), found.cells)
    pd.testing.assert_frame_equal(back.tokens, found.tokens)
    assert back.provenance == found.provenance


def test_bad_text(family_dir):
    model = kit.model(family_dir("gpt2"))
    with pytest.raises(ValueError, match="empty text"):
        trace(model, "")
    with pytest.raises(ValueError, match=r"tokens, but gpt2 reads at most 128"):
        trace(model, "dog " * 200)
