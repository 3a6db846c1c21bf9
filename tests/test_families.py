"""The records of families: each says where its model's parts are, and a tiny model shows it."""

from collections import Counter

import families_check
import kit
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import tiny
import xlens
from xlens.models.families import FAMILIES, find, recognised

INSIDE = ("attention", "z", "attn_out", "activation", "down", "experts", "mlp_out")
# Refused until they had a record.
ADDED = ("xglm", "opt", "phi", "mpt", "persimmon", "biogpt", "ctrl", "mamba", "lfm2", "jamba")


def built(name, **changes):
    """A model without weights."""
    config = AutoConfig.for_model(**tiny.settings(name) | changes)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("name", tiny.ALL)
def test_every_part_that_a_record_names_is_there(name):
    model = built(name)
    family, blocks, norm = recognised(model)
    assert family is find(model.config.get_text_config().model_type)
    assert len(blocks) > 1 and not list(norm.children())
    for block in blocks:
        there = dict(block.named_modules())
        assert family.mlp_out is None or family.mlp_out in there
        # Experts stand in for an MLP, never beside one.
        assert (family.experts in there) + (family.down in there) == (name != "mamba")
        for scale in {family.attn_scale, family.mlp_scale} - {None}:
            assert isinstance(getattr(block, scale), float)
    places = {path for block in blocks for path, _ in block.named_modules()}
    named = {getattr(family, part) for part in INSIDE} - {None}
    lacking = {"mlp.experts", "mlp.act_fn", "mlp.down_proj"} if family.experts else set()
    assert named - places <= lacking
    if family.attention:
        attention = [b.get_submodule(family.attention) for b in blocks if _has(b, family.attention)]
        for projection in family.projections:
            assert any(_has(module, projection) for module in attention)


def _has(module, path):
    return path in dict(module.named_modules())


def test_every_record_is_tested_and_named_once():
    kinds = Counter(kind for family in FAMILIES for kind in family.types)
    assert max(kinds.values()) == 1
    assert max(Counter(family.name for family in FAMILIES).values()) == 1
    made = {tiny.settings(name)["model_type"] for name in tiny.ALL}
    # Those with a vision part: tests/test_vision.py.
    assert {kind for kind in kinds if "_vl_" not in kind} == made


def test_the_docs_have_every_family():
    text = families_check.DOCS.read_text("utf-8")
    written = text.split(families_check.START)[1].split(families_check.END)[0]
    for name in tiny.ALL:
        assert f"`{name}`" in written, "run make families"


@pytest.mark.parametrize("name", ADDED)
def test_a_family_that_was_refused(name):
    row = families_check.check(name)
    assert row.good, row


def test_the_heads_multiplier_of_falcon_h1_is_read():
    model = kit.fresh("falcon_h1")
    assert model.readout.logit_scale == 0.5
    assert families_check.check("falcon_h1").good


def test_a_family_of_no_record_is_tried_and_has_no_parts():
    made = tiny.model("llama")
    made.config.model_type = "own"
    model = xlens.load(made, tiny.tokenizer("llama"))
    assert model.n_layers == 3 and model.family.name == "own"
    assert model.family.attention is None and not model.family.relevance


def test_a_post_norm_opt_is_refused_and_says_so():
    made = tiny.model("opt", do_layer_norm_before=False)
    with pytest.raises(ValueError, match=r"OPTForCausalLM .*(layout|is refused)"):
        xlens.load(made, tiny.tokenizer("opt"))
