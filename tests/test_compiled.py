"""Compiled blocks: the same numbers, and every hook fires or the blocks run as they are."""

import kit
import pytest
import torch

import tiny
import xlens
from xlens import Prompt, harvest
from xlens.engine.generate import generate
from xlens.engine.interventions import add
from xlens.models import compiled
from xlens.store import Store

ASKED = [Prompt(tiny.TEXT[x][: 10 + 3 * n], x, "one") for n, x in enumerate(["de", "fr", "ru"])]


@pytest.fixture
def counted(monkeypatch):
    """How often a block ran compiled; what compiles it leaves it as it is."""
    calls: list[str] = []

    def made(forward, backend):
        def counting(*args, **kwargs):
            calls.append(backend)
            return forward(*args, **kwargs)

        return counting

    monkeypatch.setattr(compiled, "_made", made)
    return calls


def values(model, **how) -> torch.Tensor:
    return next(iter(harvest(model, ASKED, progress=False, **how).slots.values())).values


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_what_is_read_inside_runs_as_it_is(family, counted, tmp_path):
    plain, net = kit.fresh(family), kit.fresh(family)
    model = xlens.load(net.hf_model, net.tokenizer, compile="aot_eager")
    assert counted == ["aot_eager"] * model.n_layers  # compared once
    values(model)  # sees once whether the cache can be trusted
    n, passes = model.n_layers, len(counted)
    assert torch.equal(values(model), values(plain)) and len(counted) == passes + n
    strong = [add(torch.ones(model.d_model), layers=1, strength=3.0)]
    assert torch.equal(values(model, interventions=strong), values(plain, interventions=strong))
    assert len(counted) == passes + 2 * n
    assert not any("forward" in vars(module) for module in model.hf_model.modules())
    # Inside: sites, hooks and forwards of yours, generation's steps.
    assert torch.equal(values(model, site="mlp_post"), values(plain, site="mlp_post"))
    seen: list[int] = []
    inner = next(m for name, m in model.blocks[0].named_modules() if name)
    handle = inner.register_forward_hook(lambda *_: seen.append(1))
    values(model)
    handle.remove()
    assert seen and len(counted) == passes + 2 * n
    assert generate(model, ASKED, max_new_tokens=3, progress=False).table.equals(
        generate(plain, ASKED, max_new_tokens=3, progress=False).table
    )
    # The store keeps both apart.
    store, before = Store(tmp_path), len(counted)
    for each in (plain, model, model):
        made = harvest(each, ASKED, store=store, progress=False)
        assert made.provenance.get("compiled") == ("aot_eager" if each is model else None)
    assert len(counted) == before + n


def test_what_would_be_passed_over_is_refused(counted):
    model = kit.fresh("llama")
    with pytest.raises(ValueError, match="compile='fast': torch has no such backend; it has"):
        xlens.load(model.hf_model, model.tokenizer, compile="fast")
    handle = model.blocks[0].mlp.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"hooks or other forwards inside.*pass over"):
        xlens.load(model.hf_model, model.tokenizer, compile=True)
    handle.remove()
    assert not counted


def test_what_computes_something_else_is_refused(monkeypatch):
    model = kit.fresh("llama")
    monkeypatch.setattr(compiled, "_made", lambda f, _: lambda x, *a, **k: f(x + 1, *a, **k))
    with pytest.raises(ValueError, match="computes states that differ by"):
        xlens.load(model.hf_model, model.tokenizer, compile=True)

    def broken(forward, backend):
        return lambda *_args, **_kwargs: 1 / 0

    monkeypatch.setattr(compiled, "_made", broken)
    with pytest.raises(ValueError, match=r"can't be compiled here \(ZeroDivisionError"):
        xlens.load(model.hf_model, model.tokenizer, compile=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("family", ["llama"])
def test_really_compiled(family, family_dir):
    plain, model = kit.model(family_dir(family)), xlens.load(family_dir(family), compile="eager")
    assert torch.allclose(values(model), values(plain), atol=1e-4, rtol=1e-4)
    assert not torch.equal(values(model, slots="all"), torch.zeros(1))
    strong = [add(torch.ones(model.d_model), layers=1, strength=3.0)]
    found, wanted = (values(m, interventions=strong) for m in (model, plain))
    assert torch.allclose(found, wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, values(plain), atol=1e-2)
    assert torch.equal(values(model, site="mlp_post"), values(plain, site="mlp_post"))
