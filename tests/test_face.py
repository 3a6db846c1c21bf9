"""What a new user meets first: texts where prompts are asked for, shapes that are checked."""

import dataclasses
from html import escape

import kit
import numpy as np
import pandas as pd
import pytest
import synthetic
import torch

import xlens
from xlens import Prompt
from xlens.checks import WrongType

QUIET = {"progress": False}
VERBS = {
    "harvest": lambda model, given: xlens.harvest(model, given, **QUIET),
    "score": lambda model, given: xlens.score(model, given, [" a", " b"], **QUIET),
    "generate": lambda model, given: xlens.generate(model, given, max_new_tokens=2, **QUIET),
    "relevance": lambda model, given: xlens.relevance(model, given, targets=[5], **QUIET),
    "trace": xlens.trace,
}


@pytest.fixture(scope="module")
def model():
    return kit.fresh("gpt2")


@pytest.mark.parametrize("verb", VERBS)
def test_a_text_is_as_good_as_a_prompt(verb, model):
    call, prompt = VERBS[verb], Prompt("The dog", "und", "0")
    found = [call(model, given) for given in ("The dog", ["The dog"], prompt, [prompt])]
    if verb == "trace":
        found = [one if isinstance(one, xlens.lens.TraceResult) else one[0] for one in found]
        tables = [one.cells for one in found]
    elif verb == "harvest":
        tables = [one.meta.drop(columns="tokens") for one in found]
        assert all(torch.equal(one.get(), found[0].get()) for one in found)
    elif verb == "relevance":
        tables = [one.rows for one in found]
    else:
        tables = [one.to_frame() for one in found]
    assert all(table.equals(tables[0]) for table in tables)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("wrong", [5, None, b"x", [5], [["a"]], {"a": 1}, [None]])
def test_anything_else_is_refused_with_what_is_accepted(verb, wrong, model):
    with pytest.raises(WrongType, match=r"given; accepted is .*Prompt"):
        VERBS[verb](model, wrong)


def test_a_trace_joins_no_prompts(model):
    two = xlens.trace(model, ["The dog", "sleeps"])
    assert isinstance(two, tuple)
    assert [list(one.tokens["label"]) for one in two] == [
        list(xlens.trace(model, text).tokens["label"]) for text in ("The dog", "sleeps")
    ]


def test_the_lens_needs_no_targets(model):
    acts = xlens.harvest(model, ["The dog", "Der Hund schläft"], **QUIET)
    read = xlens.logit_lens(acts, model, top_k=3, **QUIET)
    logits = model.readout.logits(acts.get()).double()
    logprobs = logits.log_softmax(-1)  # prompt, layer, item
    for i, layer in enumerate(acts.layers):
        states = read.states[read.states["layer"] == layer].sort_values("prompt")
        p = logprobs[:, i].exp()
        bits = -(p * logprobs[:, i]).sum(-1) / torch.tensor(2.0).log()
        assert states["entropy"].tolist() == pytest.approx(bits.tolist(), rel=1e-4)
        out = logprobs[:, -1]
        kl = (out.exp() * (out - logprobs[:, i])).sum(-1) / torch.tensor(2.0).log()
        assert states["kl"].tolist() == pytest.approx(kl.tolist(), rel=1e-4, abs=1e-5)
        for prompt in (0, 1):
            top = read.top[(read.top["layer"] == layer) & (read.top["prompt"] == prompt)]
            assert top["token"].tolist() == logits[prompt, i].topk(3).indices.tolist()
    assert len(read.to_frame()) == 2 * len(acts.layers) * 3


@pytest.mark.usefixtures("as_users_have_it")
def test_prompts_are_not_read_as_layers(model):
    acts = xlens.harvest(model, ["The dog", "Der Hund"], **QUIET)
    right = xlens.engine.stream(model.readout, acts)
    assert torch.equal(right.kl, xlens.engine.stream(model.readout, acts.slot().values).kl)
    some = acts.slot().values[[0, -1]]
    assert torch.equal(
        xlens.engine.stream(model.readout, some, layers=(0, model.n_layers)).kl, right.kl[[0, -1]]
    )
    for wrong in (acts.get(), acts.get()[:, -1], some, acts.slot().values[..., :-1]):
        with pytest.raises(ValueError, match=r"resid has the shape .*\[layer, row, d_model\]"):
            xlens.engine.stream(model.readout, wrong)
    with pytest.raises(ValueError, match="targets has the shape"):
        xlens.engine.stream(model.readout, acts, targets=torch.zeros(5, 1, 1, dtype=torch.long))
    with pytest.raises(ValueError, match=r"the last axis is to be d_model"):
        model.readout.logits(torch.zeros(3, 7))
    other = xlens.harvest(model, "The dog", site="mlp_post", **QUIET)
    with pytest.raises(ValueError, match="'mlp_post'"):
        xlens.engine.stream(model.readout, other)


def test_a_dtype_has_a_name(model):
    half = xlens.harvest(model, "The dog", dtype="bfloat16", **QUIET)
    assert half.slot().values.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="dtype='float33' is not one of"):
        xlens.harvest(model, "The dog", dtype="float33", **QUIET)


def test_every_kind_is_written_in_a_line_and_drawn():
    from xlens.figures.plots import OWN, SUMMED
    from xlens.results import Result

    kinds = [kind for kind in Result.KINDS.values() if kind.__module__.startswith("xlens.")]
    assert {*OWN, *SUMMED} <= {*kinds}
    table = pd.DataFrame({"layer": range(3_000), "value": 0.5, "text": "日本語 <b>"})
    for kind in kinds:
        if kind.__repr__ is not Result.__repr__ or kind in OWN or kind in SUMMED:
            continue
        given = {
            field.name: table if "DataFrame" in str(field.type) else np.zeros((2, 3))
            if "ndarray" in str(field.type) or "Float[" in str(field.type)
            else {} if "dict" in str(field.type) else ("a",) * 50
            if "tuple" in str(field.type) else "x" * 200 if field.type is str else 1
            for field in dataclasses.fields(kind)
        }  # fmt: skip
        result = object.__new__(kind)
        for name, value in given.items():
            object.__setattr__(result, name, value)
        assert len(repr(result)) < 260 and "\n" not in repr(result), kind
        if kind.to_frame is Result.to_frame:
            assert result.plot().data and len(result._repr_html_()) < 60_000


def test_what_is_drawn_is_the_kinds_own_figure(model):
    traced = xlens.trace(model, "The dog")
    assert traced.plot(color_by="entropy") == xlens.figures.trace_table(traced, color_by="entropy")
    scored = xlens.score(model, "The dog", [" a", " b"], **QUIET)
    html = scored._repr_html_()
    assert "<table" in html and "plotly" in html and scored.plot().data[0].type == "table"
    assert repr(scored).startswith("Scores(") and len(repr(scored)) < 200
    assert f"<code>{escape(repr(scored))}" in html


def test_what_means_are_of_is_drawn_as_its_means():
    result = synthetic.lens_result()
    assert result.plot() == xlens.figures.language_curves(result.summary())
