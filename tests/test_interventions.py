"""Interventions: what plain hooks on one prompt would do, on batches, by id, or refused."""

import copy
import importlib
import json
from collections import Counter
from collections.abc import Callable, Sequence

import kit
import numpy as np
import pytest
import torch

import tiny
import xlens
from xlens import Prompt, harvest
from xlens.engine.forward import run_batch
from xlens.engine.interventions import add, check, intervene, patch, project_out, spans
from xlens.engine.plan import plan

CLOSE = 1e-5  # relative, fp32


def prompts() -> list[Prompt]:
    """A shared beginning of about 30 tokens, twins, one that is the beginning of another."""
    head = tiny.TEXT["en"][:70]
    tails = {
        "fr": " Le chien dort",
        "de": " Der Hund schläft im",
        "ru": " Собака",
        "tr": " Köpek e",
    }
    out = [
        Prompt.from_parts([head, ("word", tail[:5]), tail[5:]], language=language, id="shared")
        for language, tail in tails.items()
    ]
    out.append(Prompt(out[1].text, "de", "twin", out[1].spans))
    out.append(Prompt(out[0].text[:78], "fr", "beginning", {"word": (70, 75)}))
    out.append(Prompt.from_parts(["1 ", ("word", "犬は家"), "で寝て"], language="ja", id="short"))
    return out


def vectors(model, *shape: int, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(*shape, model.d_model, generator=generator)


def n_hooks(model) -> int:
    modules = model.hf_model.modules()
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


@torch.inference_mode()
def edited_states(model, asked, interventions, *, budget=10_000, share=True, edits=None, seen=None):
    """`[layer, pos, d_model]` of each prompt, through the core: what harvest and score do."""
    tokens = model.tokenize(asked, spans=spans(interventions))
    edits = edits or check(interventions, model, tokens)
    owners: dict[tuple[int, ...], list[int]] = {}
    for i, code in enumerate(edits.codes([t.ids for t in tokens])):
        owners.setdefault(code, []).append(i)
    sequences = [tokens[mine[0]].ids for mine in owners.values()]
    prompts_of = dict(enumerate(owners.values()))
    points = range(model.n_layers + 1)
    states = [torch.full((len(points), len(t), model.d_model), torch.nan) for t in tokens]

    def watch(seats):
        edited = edits.prepare(seats, prompts_of)

        def keep(layer, resid):
            changed = edited(layer, resid)
            now = resid if changed is None else changed
            for sequence, (row, first, held, index) in seats.tokens.items():
                for i in prompts_of[sequence]:
                    states[i][layer, first : first + held] = now[row, index : index + held]
            return changed

        return keep

    batches = plan(list(owners), budget, share=share)
    if seen is not None:
        seen.extend(batches)
    for batch in batches:
        run_batch(model, batch, sequences, edits.visiting(points), watch)
    return states


@torch.inference_mode()
def naive_states(model, ids: Sequence[int], change: Callable) -> torch.Tensor:
    """One prompt by plain hooks: `change(layer, states [pos, d_model])` changes them in place."""
    found: dict[int, torch.Tensor] = {}

    def before(_module, args, kwargs):
        states = (args[0] if args else kwargs["hidden_states"]).clone()
        change(0, states[0])
        found[0] = states[0].clone()
        return ((states, *args[1:]), kwargs) if args else ((), kwargs | {"hidden_states": states})

    def after(layer):
        def hook(_module, _args, output):
            states = (output if isinstance(output, torch.Tensor) else output[0]).clone()
            change(layer, states[0])
            found[layer] = states[0].clone()
            return states if isinstance(output, torch.Tensor) else (states, *output[1:])

        return hook

    handles = [model.blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [b.register_forward_hook(after(n + 1)) for n, b in enumerate(model.blocks)]
    try:
        model.hf_model(torch.tensor([list(ids)]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([found[n] for n in range(model.n_layers + 1)])


def worst(got: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> float:
    return max(kit.relative_error(a, b) for a, b in zip(got, wanted, strict=True))


# --- what they do ---


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_equals_plain_hooks_on_each_prompt_alone(family, family_dir):
    model = kit.model(family_dir(family))
    asked = prompts()
    n, last = len(asked), model.n_layers
    everywhere, by_prompt = vectors(model), vectors(model, n, seed=1)
    by_layer, both = vectors(model, 2, seed=2), vectors(model, n, 2, seed=3)
    basis, center, other = vectors(model, 3, seed=4), vectors(model, seed=5), vectors(model, seed=6)
    one = vectors(model, 1, seed=7)[0]
    interventions = [
        add(everywhere, layers="all", strength=0.5),
        add(by_prompt, layers=1, slot="last", strength=-2.0),
        add(by_layer, layers=[2, 0], slot="word:each"),  # in the order listed, not sorted
        project_out(basis, layers=[1, -1], strength=0.7),
        project_out(one[None], layers=2, slot="word:last", center=center),
        patch(other, layers=1, slot="word:first"),
        patch(both, layers=[0, last], slot="last"),
        add(by_prompt, layers=1, slot="all"),
        add(everywhere, layers=last, slot="word:mean", strength=3.0),
    ]
    tokens = model.tokenize(asked)
    unit = one / one.norm()
    # A projection spelt out by normal equations.
    onto = basis.T @ torch.linalg.inv(basis @ basis.T) @ basis

    def changed(i: int) -> Callable:
        start, stop = tokens[i].spans["word"]

        def change(layer: int, h: torch.Tensor) -> None:
            h += 0.5 * everywhere
            if layer == 1:
                h[-1] += -2 * by_prompt[i]
            if layer in (2, 0):
                h[start:stop] += by_layer[0 if layer == 2 else 1]
            if layer in (1, last):
                h -= 0.7 * h @ onto
            if layer == 2:
                h[stop - 1] -= ((h[stop - 1] - center) @ unit) * unit
            if layer == 1:
                h[start] = other
            if layer in (0, last):
                h[-1] = both[i, 0 if layer == 0 else 1]
            if layer == 1:
                h += by_prompt[i]
            if layer == last:
                h[start:stop] += 3 * everywhere

        return change

    wanted = [naive_states(model, t.ids, changed(i)) for i, t in enumerate(tokens)]
    before = n_hooks(model)
    assert worst(edited_states(model, asked, interventions), wanted) < CLOSE
    assert worst(edited_states(model, asked, interventions, share=False, budget=90), wanted) < CLOSE
    assert n_hooks(model) == before


def test_shared_prefixes_and_twins_stay_where_they_are_treated_alike(family_dir):
    model = kit.model(family_dir("llama"))
    asked = prompts()
    tokens = model.tokenize(asked)
    ids = [t.ids for t in tokens]
    start = [t.spans["word"][0] for t in tokens]

    def codes(*interventions):
        return check(interventions, model, tokens).codes(ids)

    uniform = [add(vectors(model), layers=1), project_out(vectors(model, 2), layers=2)]
    assert check(uniform, model, tokens).uniform
    assert codes(*uniform) == ids

    at_word = codes(add(vectors(model), layers=1, slot="word:first"))
    for i, (code, own) in enumerate(zip(at_word, ids, strict=True)):
        assert [p for p, (a, b) in enumerate(zip(code, own, strict=True)) if a != b] == [start[i]]
        assert max(own) < model.d_vocab <= code[start[i]]
    assert at_word[1] == at_word[4]  # the twins

    per_prompt = codes(add(vectors(model, len(asked)), layers=1, slot="last"))
    assert per_prompt[1] != per_prompt[4] and per_prompt[1][:-1] == per_prompt[4][:-1]
    assert len(set(per_prompt)) == len(asked)

    seen = []
    at_end = [add(vectors(model, len(asked)), layers=1, slot="last")]
    edited_states(model, asked, at_end, seen=seen)
    assert max(group.prefix for batch in seen for group in batch.groups) > 20


@pytest.mark.parametrize("make", [add, lambda v, **how: project_out(v[None], **how)])
@pytest.mark.parametrize("slot", ["all", "last", "word:each"])
def test_zero_strength_changes_no_bit(make, slot, family_dir):
    model = kit.model(family_dir("gemma3"))
    zero = [make(vectors(model), layers="all", slot=slot, strength=0.0)]
    edits = check(zero, model, model.tokenize(prompts()))
    assert not edits and edits.layers == () and edits.key == [] and edits.uniform
    clean = edited_states(model, prompts(), [])
    for a, b in zip(edited_states(model, prompts(), zero), clean, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("slot", ["last", "all", "word:first", "word:last", "word:each"])
def test_patching_with_clean_states_changes_nothing(slot, family_dir):
    model = kit.model(family_dir("qwen3"))
    clean = harvest(model, prompts(), slots=slot, progress=False)
    wanted = edited_states(model, prompts(), [])
    got = edited_states(model, prompts(), [patch(clean, layers=[1, 2], slot=slot)])
    assert worst(got, wanted) < CLOSE


def test_patching_in_the_same_batch_changes_no_bit(family_dir):
    model = kit.model(family_dir("gpt2"))
    asked = prompts()[-1:]
    clean = edited_states(model, asked, [])
    values = torch.stack([s[2, -1] for s in clean])
    got = edited_states(model, asked, [patch(values, layers=2)])
    assert torch.equal(got[0], clean[0])


def test_projecting_out_leaves_nothing_in_the_span(family_dir):
    model = kit.model(family_dir("olmo2"))
    basis, center = vectors(model, 4), vectors(model, seed=1)
    asked = [project_out(basis, layers=2, center=center)]
    for states in edited_states(model, prompts(), asked):
        left = (states[2] - center) @ basis.T
        assert float(left.abs().max() / states[2].norm(dim=-1).max()) < 1e-4
    everything = [project_out(torch.eye(model.d_model), layers=2, center=center)]
    for states in edited_states(model, prompts(), everything):
        assert torch.allclose(states[2], center.expand_as(states[2]), atol=1e-4)


def test_half_precision_is_computed_in_single(family_dir):
    model = kit.fresh("llama")
    model.hf_model.to(torch.bfloat16)
    vector = vectors(model)
    clean = edited_states(model, prompts(), [], share=False)
    got = edited_states(model, prompts(), [add(vector, layers=0, strength=1 / 3)], share=False)
    for a, b in zip(got, clean, strict=True):
        wanted = (b[0].float() + vector / 3).to(torch.bfloat16).float()
        assert torch.equal(a[0].float(), wanted)


# --- whose values ---


def test_values_follow_ids(family_dir):
    model = kit.model(family_dir("mistral"))
    asked = list(kit.mixed())
    clean = harvest(model, asked, slots=["last", "word:mean"], progress=False)
    values = clean.get("word:mean", layer=2).flip(-1)
    wanted = edited_states(model, asked, [patch(values, layers=2)])

    shuffled = clean.take(np.random.default_rng(0).permutation(len(asked)))
    flipped = copy.copy(shuffled.slots["word:mean"].values).flip(-1)
    object.__setattr__(shuffled.slots["word:mean"], "values", flipped)
    got = edited_states(model, asked, [patch(shuffled, layers=2, source="word:mean")])
    assert worst(got, wanted) < CLOSE

    # More prompts than asked for are no harm, and every order of the asked ones is right.
    got = edited_states(model, asked[3:6][::-1], [patch(shuffled, layers=2, source="word:mean")])
    assert worst(got[::-1], wanted[3:6]) < CLOSE

    added = edited_states(model, asked, [add(clean, layers=2, slot="word:each", source="last")])
    per_prompt = [add(clean.get("last", layer=2), layers=2, slot="word:each")]
    assert worst(added, edited_states(model, asked, per_prompt)) < CLOSE


def test_values_of_another_language_go_to_the_same_id(family_dir):
    model = kit.model(family_dir("qwen2"))
    french = [Prompt(f"Le chien {i} dort", "fr", f"{i}") for i in range(3)]
    german = [Prompt(f"Hund {i} im Haus", "de", f"{i}") for i in range(3)]
    both = harvest(model, [*german[::-1], *french], progress=False)
    of_french = both.select(languages=["fr"])
    got = edited_states(model, german, [patch(of_french, layers=2)])
    for state, i in zip(got, range(3), strict=True):
        assert torch.equal(state[2, -1], of_french.get("last", layer=2)[i])
    # Where both languages are there, each takes its own.
    got = edited_states(model, german, [patch(both, layers=2)])
    assert worst(got, edited_states(model, german, [])) < CLOSE
    spanish = [Prompt("El perro", "es", "1")]
    with pytest.raises(ValueError, match=r"'1' \(es\) has no states of its own.*select"):
        edited_states(model, spanish, [patch(both, layers=2)])
    stranger = [Prompt("Le chien", "fr", "9")]
    with pytest.raises(ValueError, match=r"'9' .*no states of its own"):
        edited_states(model, stranger, [patch(both, layers=2)])


def test_a_part_of_the_prompts(family_dir):
    """Shards of a store run some of the prompts with the edits of all."""
    model = kit.model(family_dir("bloom"))
    asked = prompts()
    how = [
        add(vectors(model, len(asked)), layers=1, slot="word:each"),
        patch(vectors(model, len(asked), seed=1), layers=2),
        add(vectors(model, seed=2), layers=0),
    ]
    whole = edited_states(model, asked, how)
    edits = check(how, model, model.tokenize(asked, spans=spans(how)))
    some = [5, 2, 3]
    part = edited_states(model, [asked[i] for i in some], how, edits=edits.take(some))
    assert worst(part, [whole[i] for i in some]) < CLOSE


def test_several_continuations_of_one_prompt(family_dir):
    """As scoring needs it: `last` is the prompt's, values go to all its continuations."""
    model = kit.model(family_dir("gpt_neox"))
    asked = prompts()[:2]
    texts = [Prompt(p.text + end, p.language, f"{p.id}{n}") for p in asked for n, end in
             enumerate([" Hund", " chien dort"])]  # fmt: skip
    tokens = model.tokenize(texts)
    ends = [len(t) for p in asked for t in model.tokenize([p]) * 2]
    values, after = vectors(model, 2), vectors(model, seed=1)
    how = [patch(values, layers=1), add(after, layers=2, slot="generated")]
    edits = check(how, model, tokens, prompts=asked, of=[0, 0, 1, 1], ends=ends)
    got = edited_states(model, texts, [], edits=edits)

    for i, (t, end) in enumerate(zip(tokens, ends, strict=True)):

        def change(layer, h, i=i, end=end):
            if layer == 1:
                h[end - 1] = values[i // 2]
            if layer == 2:
                h[end:] += after

        assert kit.relative_error(got[i], naive_states(model, t.ids, change)) < CLOSE


# --- the key ---


def test_key_says_all_that_matters(family_dir):
    model = kit.model(family_dir("gpt2"))
    tokens = model.tokenize(prompts())
    v = vectors(model)
    acts = harvest(model, prompts(), slots=["last", "word:mean"], progress=False)

    def key(*interventions) -> str:
        return json.dumps(check(interventions, model, tokens).key, sort_keys=True)

    different = [
        [add(v, layers=1)],
        [add(v, layers=2)],
        [add(v, layers=[1, 2])],
        [add(v, layers=1, strength=2.0)],
        [add(v, layers=1, slot="last")],
        [add(v, layers=1, slot="word:last")],
        [add(v, layers=1, slot="word:first")],
        [add(v + 1e-6, layers=1)],
        [project_out(v[None], layers=1)],
        [project_out(v[None], layers=1, center=v)],
        [patch(v, layers=1)],
        [patch(acts, layers=1)],
        [patch(acts, layers=1, source="word:mean")],
        [patch(acts.get("last", layer=1).flip(0), layers=1)],
        [add(v, layers=1), project_out(v[None], layers=1)],
        [project_out(v[None], layers=1), add(v, layers=1)],
        [],
    ]
    keys = [key(*some) for some in different]
    assert len(set(keys)) == len(keys)
    assert keys == [key(*some) for some in different]
    assert key(add(v, layers=1, strength=0.0)) == key()
    shuffled = acts.take([3, 1, 0, 2, 6, 5, 4])
    assert key(patch(shuffled, layers=1)) == key(patch(acts, layers=1))
    alone = check(add(v, layers=1), model, tokens)
    assert json.dumps(alone.key, sort_keys=True) == keys[0]
    assert key(add(v, layers=-1)) == key(add(v, layers=model.n_layers))


# --- refused before anything runs ---


def test_refused_where_it_is_written(family_dir):
    model = kit.model(family_dir("gpt2"))
    v = vectors(model)
    bad = v.clone()
    bad[3] = torch.nan
    with pytest.raises(ValueError, match="1 NaN"):
        add(bad, layers=1)
    with pytest.raises(ValueError, match="1 NaN"):
        patch(bad, layers=1)
    with pytest.raises(ValueError, match="Unknown slot 'everywhere'"):
        add(v, layers=1, slot="everywhere")
    with pytest.raises(ValueError, match="strength is inf"):
        add(v, layers=1, strength=float("inf"))
    with pytest.raises(ValueError, match=r"basis has the shape.*\[n, d_model\]"):
        project_out(v, layers=1)
    with pytest.raises(ValueError, match=r"3 rows of basis .* span only 2 dimensions"):
        project_out(
            torch.stack([v, 2 * vectors(model, seed=1), v - vectors(model, seed=1)]), layers=1
        )
    with pytest.raises(ValueError, match="span only 0"):
        project_out(torch.zeros(1, 8), layers=1)
    with pytest.raises(ValueError, match="center has 9 dimensions, basis 8"):
        project_out(torch.ones(1, 8), layers=1, center=torch.ones(9))
    for slot in ("all", "generated", "word:each", "word:mean", "word:predict"):
        with pytest.raises(ValueError, match="broadcast=True"):
            patch(v, layers=1, slot=slot)
        patch(v, layers=1, slot=slot, broadcast=True)
    with pytest.raises(ValueError, match="is an average"):
        patch(harvest(model, prompts(), slots="word:mean", progress=False), layers=1,
              slot="word:mean")  # fmt: skip


def test_refused_before_the_model_runs(family_dir, monkeypatch):
    model = kit.model(family_dir("gpt2"))
    asked = prompts()
    acts = harvest(model, asked, layers=[0, 2], slots=["last", "all"], progress=False)
    other = harvest(kit.fresh("gpt2", seed=5), asked, progress=False)
    tokens = model.tokenize(asked)
    v, n = vectors(model), len(asked)
    cases = [
        (add(torch.ones(5), layers=1), "5 dimensions.* d_model = 48"),
        (project_out(torch.ones(1, 5), layers=1), "5 dimensions.* d_model = 48"),
        (add(v, layers=9), "Unknown layer"),
        (add(v, layers="last"), "Unknown layer"),
        (add(v, layers=[]), "at least one is needed"),
        (add(v, layers=[1, 1]), "each listed once"),
        (add(v, layers=[-1, model.n_layers]), "each listed once"),
        (add(v, layers=1, slot="answer:last"), "no span 'answer'"),
        (add(v, layers=1, slot="generated"), "nothing follows them here"),
        (add(vectors(model, n + 1), layers=1), "8 .prompts. .* there are 7 prompts"),
        (patch(vectors(model, n, 3), layers=[0, 1]), r"3 \(layers\).* 2 layers"),
        (patch(acts, layers=1), "Layer 1 is not in"),
        (patch(acts, layers=2, slot="word:last"), "No slot 'word:last'"),
        (patch(acts, layers=2, slot="word:each", source="all"), "positions at slot 'word:each'"),
        (patch(acts, layers=2, slot="last", source="all"), "several states per prompt"),
        (patch(other, layers=2), "of another model"),
    ]
    ran = []
    monkeypatch.setattr(type(model.blocks[0]), "forward", lambda *a, **k: ran.append(1))
    for intervention, message in cases:
        with pytest.raises(ValueError, match=message):
            check([intervention], model, tokens)
    with pytest.raises(ValueError, match=r"2 layers and 2 prompts: which.*v\[None\]"):
        check([add(vectors(model, 2), layers=[0, 1])], model, tokens[:2])
    for clear in (vectors(model, 1, 2), vectors(model, 2, 1)):
        check([add(clear, layers=[0, 1])], model, tokens[:2])
    assert not ran


def test_what_is_changed_later_stays_outside(family_dir):
    model = kit.model(family_dir("gpt2"))
    v = vectors(model)
    intervention = add(v, layers=1)
    before = check([intervention], model, []).key
    v += 1
    assert check([intervention], model, []).key == before


# --- intervene ---


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_intervene_on_whatever_runs(family, family_dir):
    model = kit.model(family_dir(family))
    ids = torch.tensor([model.tokenize(prompts())[0].ids])
    v, basis = vectors(model, 2, seed=3), vectors(model, 2)
    how = [add(v, layers=[0, 2]), project_out(basis, layers=model.n_layers)]

    def change(layer, h):
        if layer in (0, 2):
            h += v[layer // 2]
        if layer == model.n_layers:
            h -= h @ basis.T @ torch.linalg.inv(basis @ basis.T) @ basis

    wanted = naive_states(model, ids[0].tolist(), change)[-1]
    before = n_hooks(model)
    with torch.inference_mode(), intervene(model, how):
        got = model.hf_model(ids).logits[0]
    assert torch.allclose(got, model.readout.logits(wanted), atol=1e-4)
    assert n_hooks(model) == before
    clean = model.hf_model(ids).logits
    with intervene(model, [add(v[0], layers=0, strength=0.0)]):
        assert torch.equal(model.hf_model(ids).logits, clean)


def test_intervene_leaves_nothing_behind(family_dir):
    model = kit.model(family_dir("gpt2"))
    before = n_hooks(model)
    for problem in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(problem), intervene(model, [add(vectors(model), layers="all")]):
            assert n_hooks(model) == before + model.n_layers + 1
            raise problem
        assert n_hooks(model) == before
    for slot in ("last", "generated", "word:last"):
        with (
            pytest.raises(ValueError, match=f"knows nothing of your prompts.*'{slot}'"),
            intervene(model, [add(vectors(model), layers=1, slot=slot)]),
        ):
            pass
    with (
        pytest.raises(ValueError, match="there are 0 prompts"),
        intervene(model, [add(vectors(model, 5), layers=1)]),
    ):
        pass
    assert n_hooks(model) == before


def test_values_are_moved_and_widened_once_a_pass(monkeypatch):
    """Not at each of the layers that they are added at."""
    model = xlens.load(tiny.model("llama").bfloat16(), tiny.tokenizer("llama"))
    placed, asked = importlib.import_module("xlens.engine.interventions.edits"), Counter()
    whole = placed._Placed.beside

    def beside(self, resid):
        before = len(self._there)
        found = whole(self, resid)
        asked.update(calls=1, moved=len(self._there) - before)
        return found

    monkeypatch.setattr(placed._Placed, "beside", beside)
    edit = add(torch.ones(model.d_model, dtype=torch.float64), layers="all", slot="last")
    harvest(model, [Prompt("abc", "en", "1")], interventions=edit, progress=False)
    assert asked["calls"] == model.n_layers + 1
    assert asked["moved"] == 1
