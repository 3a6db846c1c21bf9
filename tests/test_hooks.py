"""The one place that puts hooks: theirs to the thread that put them, gone afterwards."""

import ast
import gc
import threading
import weakref
from pathlib import Path

import kit
import pytest
import torch

import xlens
from xlens.engine import harvest, relevance
from xlens.models import hooks
from xlens.prompts import Prompt

PROMPTS = [Prompt("The dog sleeps in the house", "en", "a"), Prompt("Wo ist", "de", "b")]


def placed(model):
    modules = list(model.hf_model.modules())
    count = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)
    return count + sum("forward" in vars(m) for m in modules)


def test_nothing_else_in_the_package_puts_any():
    root = Path(xlens.__file__).parent
    for path in root.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path == root / "models" / "hooks.py":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and node.attr.startswith("register_"):
                assert "hook" not in node.attr, (path, node.lineno)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                assert node.attr != "forward", (path, node.lineno)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_they_change_what_passes_and_are_gone_afterwards(family, family_dir):
    model = kit.model(family_dir(family))
    ids = torch.tensor([[1, 2, 3]])
    plain = model.hf_model(ids).logits
    others = placed(model)  # of transformers, where another test asked for hidden states
    for put in (
        hooks.before(model.blocks[1], lambda x: x * 2),
        hooks.after(model.blocks[1], lambda x: x * 2),
        hooks.instead(model.blocks[1].mlp, lambda usual: lambda x: usual(x) * 2),
        hooks.residual(model.blocks, [1], lambda _p, x: x * 2, stop=False),
    ):
        with pytest.raises(KeyboardInterrupt), put:
            assert not torch.allclose(model.hf_model(ids).logits, plain)
            found = []
            other = threading.Thread(target=lambda kept=found: kept.append(model.hf_model(ids)))
            other.start()
            other.join()
            assert torch.allclose(found[0].logits, plain, atol=1e-5)
            raise KeyboardInterrupt
        assert placed(model) == others
        assert torch.equal(model.hf_model(ids).logits, plain)


def test_a_bare_pass_of_another_thread_is_whole(family_dir):
    """Neither cut short, nor ended by a signal that is none of its business."""
    model = kit.model(family_dir("llama"))
    ids = torch.tensor([[1, 2, 3]])
    plain = model.hf_model(ids).logits
    stop, wrong = threading.Event(), []

    def bare():
        while not stop.is_set():
            try:
                if not torch.allclose(model.hf_model(ids).logits, plain, atol=1e-4):
                    wrong.append("other logits")
            except BaseException as problem:
                wrong.append(problem)

    thread = threading.Thread(target=bare)
    thread.start()
    for _ in range(5):
        relevance(model, PROMPTS, targets=[3, 4], rule="attnlrp", progress=False)
        harvest(model, PROMPTS, layers=1, progress=False)
    stop.set()
    thread.join()
    assert wrong == []


def test_a_signal_ends_its_own_context_alone(family_dir):
    model = kit.model(family_dir("llama"))
    ids, seen = torch.tensor([[1, 2, 3]]), []

    def within(_point, _resid):
        with hooks.residual(model.blocks, [2], lambda _p, _x: seen.append("outer")):
            raise_inner()

    def raise_inner():
        with hooks.residual(model.blocks, [1], lambda _p, _x: seen.append("inner")):
            model.hf_model(ids)
        seen.append("after inner")

    within(0, ids)
    assert seen == ["inner", "after inner"]


@pytest.mark.parametrize("layers", [1, "all"])
@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
def test_a_pass_that_ended_early_leaves_nothing_in_memory(family, layers, family_dir):
    """Long passes would else lie there beside the next one, keys and values with them."""
    model, seen = kit.model(family_dir(family)), []
    begun = " ".join(["The dog sleeps in the house"] * 8)
    prompts = [Prompt(f"{begun} {word}", "en", word) for word in ("now", "here", "there")]

    def note(_module, _args, output):
        seen.append(weakref.ref(output[0] if isinstance(output, tuple) else output))

    handles = [block.register_forward_hook(note) for block in model.blocks]
    gc.collect()
    gc.disable()
    try:
        harvest(model, prompts, layers=layers, progress=False)
        left = [kept for kept in seen if kept() is not None]
    finally:
        gc.enable()
        for handle in handles:
            handle.remove()
    assert len(seen) > 1
    assert left == []


def test_a_pass_that_goes_around_the_blocks_is_refused_by_name(family_dir):
    model = kit.model(family_dir("llama"))
    around = hooks.instead(model.body, lambda _usual: lambda **_kwargs: None)
    with around, pytest.raises(ValueError, match="never came by the residual points"):
        relevance(model, PROMPTS, targets=[3, 4], progress=False)
