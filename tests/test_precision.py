"""What half precision changes: planted differences, a sample of a run, and what is refused."""

import copy
import gc
from dataclasses import replace
from weakref import WeakSet

import kit
import numpy as np
import pytest
import torch

import tiny
import xlens
from xlens import results
from xlens.cli import main
from xlens.models import HookedModel
from xlens.precision import PrecisionResult, precision, read_reference, sample_prompts
from xlens.prompts import Prompt
from xlens.report.rounding import fp32_sentence
from xlens.runs import RunDirectory
from xlens.served import ServedModel
from xlens.studies import LensStudy, Loading, ReadingStudy

BF16 = Loading(dtype="bfloat16", fp32_sample=6)
STUDY = LensStudy(source="fr", target="de", n_items=8, controls=(), draws=20)


@pytest.fixture(scope="module")
def exact():
    """A model whose weights bf16 can hold."""
    made = tiny.model("llama")
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(weight.bfloat16().float())
    return xlens.load(made, tiny.tokenizer("llama"))


@pytest.fixture(scope="module")
def reference(exact):
    return read_reference(exact, kit.mixed(), progress=False)


def changed(model, **how):
    """A copy of a model, of which a test changes something."""
    return xlens.load(copy.deepcopy(model.hf_model).to(**how), model.tokenizer)


def test_a_model_in_fp32_differs_in_nothing_from_itself(exact, reference):
    found = precision(exact, reference, progress=False)
    assert found.layers["layer"].tolist() == list(range(exact.n_layers + 1))
    assert (found.layers[["median", "most"]] == 0).to_numpy().all()
    assert found.table["same_top"].all() and (found.logprob_differences == 0).all()
    assert found.dtype == "float32" and "in fp32 itself" in fp32_sentence(found)


def test_weights_that_bf16_can_hold_still_differ_by_what_is_computed(exact, reference):
    half = changed(exact, dtype=torch.bfloat16)
    found = precision(half, reference, progress=False)
    assert found.layers["most"][0] == 0  # the embedding itself
    assert (found.layers["median"][1:] > 1e-4).all() and (found.layers["most"] < 0.1).all()
    assert 0 < found.logprob_differences.max() < 0.5
    assert found.dtype == "bfloat16"
    assert found.provenance["dtype"] == "bfloat16"
    assert found.provenance["fp32_sample"]["fp32"]["dtype"] == "float32"
    assert half.fingerprint == found.provenance["fingerprint"]


def test_a_layer_that_was_changed_shows_from_there_on_and_as_much_as_it_is(exact, reference):
    other = changed(exact)
    at = other.n_layers - 1
    with torch.no_grad():
        for weight in other.blocks[at].parameters():
            weight *= 1.01
    found = precision(other, reference, progress=False)
    assert (found.layers["most"][: at + 1] == 0).all()
    assert (found.layers["median"][at + 1 :] > 0).all()
    errors, off, same = [], [], []
    for prompt in exact.tokenize(kit.mixed()):
        # transformers' own last state is after the norm: the block's input and what it adds.
        one, two = (_after_last_block(model, prompt.ids) for model in (exact, other))
        errors.append(float((two - one).norm() / one.norm()))
        one, two = (kit.logits(m, prompt.ids)[-1].log_softmax(-1) for m in (exact, other))
        top = int(one.argmax())
        off.append(abs(float(two[top] - one[top])))
        same.append(int(two.argmax()) == top)
    assert found.layers["median"].iloc[-1] == pytest.approx(np.median(errors), rel=1e-3)
    assert found.worst == (exact.n_layers, pytest.approx(max(errors), rel=1e-3))
    assert found.logprob_differences == pytest.approx(off, abs=1e-5)
    assert found.table["same_top"].tolist() == same
    assert found.median_off == pytest.approx(np.median(off), abs=1e-5)


def _after_last_block(model, ids):
    kept = []
    hook = model.blocks[-1].register_forward_hook(
        lambda module, inputs, out: kept.append(out[0] if isinstance(out, tuple) else out)
    )
    with hook, torch.inference_mode():
        model.hf_model(torch.tensor([list(ids)]), use_cache=False)
    return kept[0].reshape(len(ids), -1)[-1]


def test_in_batches_it_is_the_same_as_alone(exact, reference):
    other = changed(exact)
    with torch.no_grad():
        other.blocks[0].mlp.down_proj.weight *= 1.1
    alone = precision(
        other, read_reference(exact, kit.mixed(), token_budget=1, progress=False), token_budget=1
    )
    found = precision(other, reference, progress=False)
    assert found.layers["most"].to_numpy() == pytest.approx(alone.layers["most"], abs=1e-5)
    assert found.table["logprob"].to_numpy() == pytest.approx(alone.table["logprob"], abs=1e-4)
    assert found.table["token"].tolist() == alone.table["token"].tolist()


def test_what_cannot_be_compared_is_refused(exact, reference):
    half = changed(exact, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"bfloat16.*fp32: load it with dtype=torch\.float32"):
        read_reference(half, kit.mixed())
    with pytest.raises(ValueError, match=r"are two models: their states are .* tokenizers differ"):
        precision(kit.fresh("gpt2"), reference, progress=False)
    with pytest.raises(ValueError, match="two models"):
        precision(kit.fresh("llama", num_hidden_layers=1), reference, progress=False)
    packed = changed(exact)
    packed.config.quantization_config = {"quant_method": "bitsandbytes"}
    for refused in (
        lambda: read_reference(packed, kit.mixed()),
        lambda: precision(packed, reference),
    ):
        with pytest.raises(ValueError, match="quantised weights, of which there are none in fp32"):
            refused()


def test_a_sample_is_of_all_languages_and_names_each_prompt_once():
    every = [Prompt(f"{tag} {n}", tag, f"item {n}") for tag in ("en", "de") for n in range(20)]
    every += [Prompt(f"other {n}", "en", f"item {n}") for n in range(20)]
    found = sample_prompts(every + every, 30, seed=1)
    assert len({(p.id, p.language) for p in found}) == len({p.text for p in found}) == 30
    assert sum(p.language == "de" for p in found) == 15
    assert {p.text for p in found} <= {p.text for p in every}
    assert found == sample_prompts(every, 30, seed=1) != sample_prompts(every, 30, seed=2)
    assert len(sample_prompts(every, 60)) == 60
    with pytest.raises(ValueError, match=r"61 prompts.*there are 60 different ones"):
        sample_prompts(every, 61)
    with pytest.raises(ValueError, match="accepted are 1 or more"):
        sample_prompts(every, 0)


def test_options_that_do_not_go_together_are_refused():
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"fp32_sample is {wrong}"):
            Loading(dtype="bfloat16", fp32_sample=wrong)
    with pytest.raises(ValueError, match="the run is in fp32 itself"):
        Loading(fp32_sample=4)
    with pytest.raises(ValueError, match=r"fp32_sample=6: .*prompts of a study"):
        BF16.load("atlas")  # as `xlens harvest` and `xlens trace` do


def test_a_run_compares_some_of_its_prompts(tmp_path, monkeypatch, capsys):
    line = "lens atlas --from fr --to de --n-items 8 --controls shuffled --draws 20"
    made, alive, own, begun = WeakSet(), [], xlens.models.load, HookedModel.__init__

    def init(self, *given, **how):
        made.add(self)
        begun(self, *given, **how)

    def load(*given, **how):
        gc.collect()
        alive.append(len(made))
        return own(*given, **how)

    monkeypatch.setattr(HookedModel, "__init__", init)
    monkeypatch.setattr("xlens.models.load", load)
    asked = [*line.split(), "--dtype", "bfloat16", "--out", str(tmp_path / "run")]
    _xlens(*asked, "--fp32-sample", "6")
    assert alive == [0, 0]  # the one in fp32 is gone when the other is loaded
    part = results.load(tmp_path / "run/results/atlas/fp32-sample")
    assert isinstance(part, PrecisionResult) and part.dtype == "bfloat16" and len(part.table) == 6
    assert set(part.table["id"]) <= {*_ids(tmp_path / "run")}
    assert 0 < part.median_error < 0.1
    sentence = fp32_sentence(part)
    assert capsys.readouterr().out.count(sentence) == 1
    page = (tmp_path / "run/report.html").read_text()
    assert page.count(sentence) == 1 and "By layer" in page
    # It is there: nothing is loaded. Another number makes it anew, and the other parts stay.
    _xlens(*asked, "--fp32-sample", "6")
    assert len(alive) == 2 and sentence in capsys.readouterr().out
    _xlens(*asked, "--fp32-sample", "4")
    assert len(results.load(tmp_path / "run/results/atlas/fp32-sample").table) == 4
    # Not asked for, it stays and is still told.
    _xlens(*asked)
    assert "on 4 prompts of the run" in capsys.readouterr().out


def _xlens(*line):
    with pytest.raises(SystemExit) as end:
        main([*line])
    assert not end.value.code


def _ids(folder):
    parts = RunDirectory.open(folder).parts("atlas")
    return parts["fr_de/translation"].rows["id"]


def test_a_forecast_counts_the_sample_twice_and_refuses_what_the_run_would():
    both, alone = (
        xlens.studies.forecast(STUDY, "atlas", loading=loading)["atlas"]
        for loading in (BF16, replace(BF16, fp32_sample=None))
    )
    assert both.parts == (*alone.parts, "fp32-sample")
    assert both.total.prompts == alone.total.prompts + 2 * 6
    with pytest.raises(ValueError, match=r"fp32_sample=900, atlas: 900 prompts"):
        xlens.studies.forecast(STUDY, "atlas", loading=replace(BF16, fp32_sample=900))


def test_a_run_that_can_not_be_compared_is_refused_before_a_model_is_loaded(monkeypatch, exact):
    monkeypatch.setattr("xlens.models.load", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=r"fp32_sample=6: .* is there already.*Name the model"):
        xlens.run(STUDY, exact, loading=BF16)
    with pytest.raises(ValueError, match=r"fp32_sample=900, atlas: 900 prompts .* there are 8"):
        xlens.run(STUDY, "atlas", loading=replace(BF16, fp32_sample=900))
    monkeypatch.setattr(LensStudy, "work", lambda *_: None)
    with pytest.raises(ValueError, match=r"fp32_sample=6: LensStudy doesn't say what it reads"):
        xlens.run(STUDY, "atlas", loading=BF16)
    served = ServedModel("some-model", "http://localhost:9/v1")
    asked = ReadingStudy(data="cldr", context=("en",), questions=("en",), n_items=4)
    with pytest.raises(ValueError, match=r"fp32_sample=6: .*is served, and gives text only"):
        xlens.run(asked, served, loading=BF16)
