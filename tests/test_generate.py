"""Generation: each continuation as if its prompt were alone, ended where it should be."""

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial

import kit
import pytest
import test_interventions as reference
import torch
from transformers.cache_utils import DynamicLayer

import tiny
import xlens
from xlens import Prompt, Prompts, harvest
from xlens.engine import decode, greedy, plan
from xlens.engine.generate import Generations, generate
from xlens.engine.interventions import add, intervene, patch, project_out
from xlens.engine.roomy import roomy
from xlens.engine.trust import shares_prefixes

# The package has a function of the same name.
MODULE = sys.modules["xlens.engine.generate"]

NEW = 6


def prompts() -> list[Prompt]:
    """Long and short, with shared beginnings longer than a sliding window, one being another's."""
    head = tiny.TEXT["en"][:60]
    out = [Prompt(head + tiny.TEXT[x][5 : 8 + 6 * n], x, "shared") for n, x in
           enumerate(["fr", "de", "ru", "tr"])]  # fmt: skip
    out += [Prompt(out[1].text, "de", "twin"), Prompt(out[1].text[:70], "de", "beginning")]
    return [*out, *list(kit.mixed())[:6]]


def run(model, asked, **how) -> Generations:
    return generate(model, asked, **{"max_new_tokens": NEW, "progress": False, **how})


def tokens_of(made: Generations) -> list[list[int]]:
    return [list(tokens) for tokens in made.table["tokens"]]


@torch.inference_mode()
def alone(model, prompt: Prompt, n: int = NEW) -> list[int]:
    """Hugging Face's own greedy decoding of one prompt."""
    from transformers import GenerationConfig

    ids = torch.tensor([model.tokenize([prompt])[0].ids])
    how = GenerationConfig(do_sample=False, max_new_tokens=n, pad_token_id=0, eos_token_id=None)
    out = model.hf_model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=how)
    return out[0, ids.shape[1] :].tolist()


def endless(family: str):
    """A model that says many things and never stops by itself."""
    # With tied embeddings a random model repeats its last token for ever.
    model = kit.fresh(family, tie_word_embeddings=False)
    model.hf_model.generation_config.eos_token_id = None
    model.config.eos_token_id = None
    model.tokenizer.eos_token = None
    return model


def scripted(text: str, words=None, *, eos: int | None = None):
    """A model that writes `text` by position: at position p comes the text's token p + 1."""
    words = words or tiny.byte_level()
    net = tiny.model("gpt2", vocab_size=len(words), eos_token_id=eos)
    ids = words(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        net.transformer.ln_f.weight.fill_(1)
        net.transformer.ln_f.bias.zero_()
        for block in net.transformer.h:
            for last in (block.attn.c_proj, block.mlp.c_proj):
                last.weight.zero_()
                last.bias.zero_()
        table = net.transformer.wte.weight
        table -= table.mean(-1, keepdim=True)
        table /= table.norm(dim=-1, keepdim=True)
        for p in range(128):
            follows = ids[p + 1] if p + 1 < len(ids) else (ids[-1] if eos is None else eos)
            net.transformer.wpe.weight[p] = 30 * table[follows]
    net.generation_config.eos_token_id = eos
    return xlens.load(net, words), ids


# --- as if alone ---


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_batched_is_each_prompt_alone(family):
    model = endless(family)
    asked = prompts()
    wanted = [alone(model, p) for p in asked]
    assert len({t for tokens in wanted for t in tokens}) > 20  # not one word for ever
    assert shares_prefixes(model)
    for order, budget in ((asked[::-1], 70), (asked[::2] + asked[1::2], 500)):
        made = run(model, order, token_budget=budget)
        found = dict(zip(order, tokens_of(made), strict=True))
        assert [found[p] for p in asked] == wanted
        assert list(made.table["id"]) == [p.id for p in order]
        assert set(made.table["reason"]) == {"length"}


@pytest.mark.parametrize("family", ["gemma3", "bloom"])
def test_without_a_cache_to_be_trusted(family, family_dir, monkeypatch):
    model = kit.model(family_dir(family))
    wanted = run(model, prompts(), stop="a").table
    monkeypatch.setattr(MODULE, "shares_prefixes", lambda model: False)
    monkeypatch.setattr(decode, "prefix_pass", None)
    assert run(model, prompts(), stop="a", token_budget=100).table.equals(wanted)


def test_what_is_shared_runs_once_and_what_is_done_leaves(monkeypatch):
    model, _ = scripted("abcdefghijklmnopqrstuvwxyz" * 4)
    model.tokenizer.pre_tokenizer = None
    passes: list[tuple[int, int]] = []
    real = decode.body

    def counted(model, ids, *rest):
        passes.append(tuple(ids.shape))
        return real(model, ids, *rest)

    monkeypatch.setattr(decode, "body", counted)
    monkeypatch.setattr("xlens.engine.forward.body", counted)
    shares_prefixes(model)
    passes.clear()
    long = "abcdefgh" * 9
    asked = [Prompt(long + end, "en", str(n)) for n, end in enumerate(["i", "jk", "lm", "no", "i"])]
    asked[4] = Prompt(asked[0].text, "en", "twin")
    n = [len(t) for t in model.tokenize(asked)]
    # Each stops at another letter of the script.
    stop = {p.id: [] for p in asked} | {"1": [run(model, asked[1:2]).table["text"][0][0]]}
    passes.clear()
    made = run(model, asked, stop=stop)
    assert list(made.table["n_tokens"]) == [NEW, 1, NEW, NEW, NEW]
    assert passes[0][0] == 1 and passes[0][1] > min(n) - 4  # the beginning, once
    assert passes[1][0] == 4 and passes[1][1] < 6  # the ends; the twin is one of them
    assert passes[2:] == [(3, 1)] * (NEW - 1)


@pytest.mark.parametrize("leaving", [1, 10**6])
def test_it_makes_no_difference_when_what_is_done_leaves(leaving, family_dir, monkeypatch):
    """1: when all are done. A million: as soon as one is."""
    model = kit.model(family_dir("gemma2"))
    full = run(model, prompts(), max_new_tokens=12).table
    ends = {(p.id, p.language): full["text"][n][n % 8 : n % 8 + 1] for n, p in enumerate(prompts())}
    stop = {key: [end] if end.isascii() and end else [] for key, end in ends.items()}
    wanted = run(model, prompts(), stop=stop, max_new_tokens=12).table
    assert wanted["n_tokens"].nunique() > 2
    monkeypatch.setattr(decode, "LEAVING", leaving)
    assert run(model, prompts(), stop=stop, max_new_tokens=12).table.equals(wanted)


@pytest.mark.parametrize("family", ["gemma2", "bloom"])
def test_new_prompts_take_the_places_of_those_that_are_done(family, monkeypatch):
    model, asked, new = endless(family), prompts(), 12
    full = run(model, asked, max_new_tokens=new).table["tokens"]
    # The first few end at once, the others later: each at a token that it has not said before.
    stop: dict[tuple[str, str], list[str]] = {}
    for n, (p, ids) in enumerate(zip(asked, full, strict=True)):
        at = next((k for k in range(n % 5, new) if ids[k] not in ids[:k]), 0)
        text = model.tokenizer.decode([ids[at]])
        stop[p.id, p.language] = [text] if text and "\ufffd" not in text else []
    wanted = run(model, asked, stop=stop, max_new_tokens=new).table
    assert wanted["n_tokens"].nunique() > 2
    longest = max(len(t) for t in model.tokenize(asked)) + new
    monkeypatch.setattr(decode, "kv_places", lambda model, budget: 5 * longest)
    joined, real = [], decode._joined

    def counted(pieces, room):
        joined.append([tuple(p.members) for p in pieces])
        return real(pieces, room)

    monkeypatch.setattr(decode, "_joined", counted)
    monkeypatch.setattr(decode, "LEAVING", 1)
    assert run(model, asked, stop=stop, max_new_tokens=new, token_budget=400).table.equals(wanted)
    met = [i for pieces in joined for members in pieces for i in members]
    assert len(set(met)) < len(met) and len(joined) > 2  # some stayed while others came


def test_what_follows_an_end_may_be_anything(family_dir, monkeypatch):
    """A sequence that is done stays a row of each step; its state need no longer be finite."""
    model, asked = kit.model(family_dir("llama")), prompts()[:3]
    first = run(model, asked, max_new_tokens=12).table["text"][0][:1]
    stop = {(p.id, p.language): [first] if p is asked[0] else [] for p in asked}
    wanted = run(model, asked, stop=stop, max_new_tokens=12).table
    assert wanted["n_tokens"][0] < wanted["n_tokens"].max()
    monkeypatch.setattr(decode, "LEAVING", 1)
    step, ended = decode._step, []

    def stepped(job, rows, tokens, readers):
        if len(ended) >= wanted["n_tokens"][0]:
            tokens[rows.members.index(0)] = -1
        ended.append(len(rows.members))
        step(job, rows, tokens, readers)

    monkeypatch.setattr(decode, "_step", stepped)
    assert run(model, asked, stop=stop, max_new_tokens=12).table.equals(wanted)
    assert set(ended) == {3}


def test_keys_and_values_stay_where_they_are():
    first, more = torch.randn(2, 3, 2, 5, 4), torch.randn(6, 2, 3, 2, 1, 4)
    grown = DynamicLayer()
    grown.update(first[0], first[1])
    layer = roomy([grown], [0], 5, 6)
    places = layer.keys.data_ptr(), layer.values.data_ptr()
    for n, (keys, values) in enumerate(more):
        held = layer.update(keys, values)
        for got, wanted in zip(held, grown.update(keys, values), strict=True):
            assert torch.equal(got, wanted)
        assert layer.get_seq_length() == 6 + n
        assert (layer.keys.data_ptr(), layer.values.data_ptr()) == places
    for each in (layer, grown):
        each.batch_select_indices(torch.tensor([2, 0]))
    assert torch.equal(layer.keys, grown.keys) and torch.equal(layer.values, grown.values)


def test_own_settings_of_the_model_play_no_part(family_dir):
    model = kit.fresh("llama")
    wanted = run(model, prompts()[:3]).table
    config = model.hf_model.generation_config
    config.update(
        do_sample=True, temperature=5.0, repetition_penalty=9.0, num_beams=3, max_length=3
    )
    assert run(model, prompts()[:3]).table.equals(wanted)


def test_equally_probable_tokens_the_first_and_padded_vocabularies():
    """Rows beyond the tokenizer can be chosen, and write nothing; ties go to the smaller id."""
    words = tiny.byte_level()
    net = tiny.model("gpt2", vocab_size=len(words) + 7, eos_token_id=None)
    with torch.no_grad():
        net.transformer.wte.weight[-1] = 50 * net.transformer.wte.weight[-1]
        net.transformer.wte.weight[-2] = net.transformer.wte.weight[-1]
        net.transformer.wte.weight[-3] = -net.transformer.wte.weight[-1]
    model = xlens.load(net, words)
    made = run(model, prompts()[:2], max_new_tokens=2).table
    for tokens in made["tokens"]:
        assert set(tokens) <= {len(words) + 5, len(words) + 4}
    assert list(made["text"]) == ["", ""]


def test_greedy_across_tiles(family_dir, monkeypatch):
    model = kit.model(family_dir("gemma2"))
    states = torch.randn(9, model.d_model, generator=torch.Generator().manual_seed(0))
    states[3] = torch.nan
    wanted = model.readout.logits(states).argmax(-1)
    wanted[3] = -1
    for tile in (16_384, 100, 7):
        monkeypatch.setattr(greedy, "VOCAB_TILE", tile)
        assert torch.equal(greedy.Greedy(model.readout)(states), wanted)


# --- where it ends ---

SCRIPT = 'abc 🦑 Der Hund: "狗在房子里睡觉" 👩🏽‍🔬 le chien, été.\n\nفي البيت. Und so fort, weiter.'
STOPS = ["🦑", "Hund", "nd: ", '"', "房子", "睡觉", "🔬", " le chien", "\n\n", "البيت", "é"]


@pytest.mark.parametrize("words", [tiny.byte_level, tiny.sentencepiece])
def test_stop_strings_in_any_script(words):
    model, ids = scripted(SCRIPT, words())
    asked = [Prompt("a", "en", f"at {stop}") for stop in STOPS]
    at = len(model.tokenize(asked[:1])[0])
    pieces = [model.vocab.pieces[i] for i in ids]
    follows = b"".join(pieces[at:]).decode()
    assert SCRIPT.endswith(follows) and all(stop in follows for stop in STOPS)
    # Some stop strings come in several tokens, some characters too, some tokens go beyond a stop.
    assert sum(piece.decode(errors="replace").find("�") >= 0 for piece in pieces) > 2

    made = run(model, asked, max_new_tokens=110, stop={f"at {s}": s for s in STOPS}).table
    for stop, row in zip(STOPS, made.itertuples(), strict=True):
        assert row.reason == "stop"
        assert row.text == follows[: follows.index(stop)]
        n = row.n_tokens
        assert list(row.tokens) == ids[at : at + n]
        # As early as can be: one token less does not hold it yet.
        assert stop.encode() in b"".join(pieces[at : at + n])
        assert stop.encode() not in b"".join(pieces[at : at + n - 1])
    assert made["n_tokens"].max() > made["n_tokens"].min() + 10

    # Of several, the one that is complete first; where two are, the one that begins first.
    made = run(model, asked[:1], max_new_tokens=110, stop=["睡觉", "房子", "never"]).table
    assert made["text"][0] == follows[: follows.index("房子")]
    made = run(model, asked[:1], max_new_tokens=110, stop=("里", "子里", "房子里")).table
    assert made["text"][0] == follows[: follows.index("房子里")]


def test_stop_strings_by_id_and_language():
    model, _ = scripted(SCRIPT)
    asked = [Prompt("a", "en", "x"), Prompt("a", "de", "x"), Prompt("a", "en", "y")]
    made = run(model, asked, max_new_tokens=50, stop={("x", "en"): "Hund", ("x", "de"): ["狗"],
                                                      ("y", "en"): ()}).table  # fmt: skip
    assert [t.split("Der ")[1][:6] for t in made["text"]] == ["", "Hund: ", "Hund: "]
    assert list(made["reason"]) == ["stop", "stop", "length"]
    made = run(model, asked, stop={"x": "D", "y": "H"}).table
    assert made["text"][0] == made["text"][1] != made["text"][2]


@pytest.mark.parametrize("many", [False, True])
def test_end_of_sequence(many):
    words = tiny.byte_level()
    eos = words.eos_token_id
    model, ids = scripted("abc Der Hund", words, eos=eos)
    if many:  # any of them
        model.hf_model.generation_config.eos_token_id = [5, eos]
    at = len(model.tokenize([Prompt("a", "en", "0")])[0])
    asked = [Prompt("a", "en", "0"), Prompt("a" * 9, "en", "1")]
    made = run(model, asked, max_new_tokens=60).table
    follows = b"".join(model.vocab.pieces[i] for i in ids[at:]).decode()
    assert follows.endswith("c Der Hund")
    assert list(made["tokens"][0]) == [*ids[at:], eos]
    assert made["text"][0] == follows and made["reason"][0] == "eos"
    exact = run(model, asked[:1], max_new_tokens=len(ids) - at).table
    assert exact["reason"][0] == "length" and exact["text"][0] == follows
    # Each of the two can lack what the other has.
    model.hf_model.generation_config.eos_token_id = 5
    made = run(model, asked[:1], max_new_tokens=60)
    assert made.table["text"][0] == follows and made.table["reason"][0] == "eos"
    assert made.provenance["generation"]["eos"] == [words.eos_token, words.convert_ids_to_tokens(5)]
    model.tokenizer.eos_token = words.convert_ids_to_tokens(6)
    assert run(model, asked[:1], max_new_tokens=len(ids) + 1 - at).table["reason"][0] == "length"
    # A special token writes nothing, but can be named.
    made = run(model, asked[:1], max_new_tokens=60, stop="<|endoftext|>").table
    assert made["text"][0] == follows and made["reason"][0] == "stop"


def test_text_is_what_the_tokenizer_writes(family_dir):
    for family in ("gpt2", "qwen2", "gemma3"):
        model = kit.model(family_dir(family))
        for row in run(model, prompts()).table.itertuples():
            text = model.tokenizer.decode(row.tokens, skip_special_tokens=True)
            assert row.text == text


def test_pieces_that_do_not_simply_follow_each_other():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["[UNK]", "a", "the", "wor", "##ld", "ends", "##ly", "here"]
    words = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.decoder = decoders.WordPiece()
    words = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    model, _ = scripted("a the world ends worldly here", words)
    made = run(model, [Prompt("a", "en", "0")], stop="ends world", max_new_tokens=20).table
    assert made["text"][0] == "the world " and made["n_tokens"][0] == 6
    model, _ = scripted("a the [UNK] world ends", words)  # what writes nothing parts no string
    made = run(model, [Prompt("a", "en", "0")], stop="the world", max_new_tokens=20).table
    assert made["text"][0] == "" and made["n_tokens"][0] == 4
    assert model.vocab.kind == "plain"


def test_half_a_character_at_the_end_shows():
    model, ids = scripted("ab狗在👩🏽‍🔬")
    pieces = [model.vocab.pieces[i] for i in ids]
    cut = next(n for n in range(2, len(ids)) if b"".join(pieces[:n]).decode(errors="ignore")
               != b"".join(pieces[:n]).decode(errors="replace"))  # fmt: skip
    made = run(model, [Prompt("a", "en", "0")], max_new_tokens=cut - 1).table
    assert made["text"][0].endswith("�")


# --- with interventions ---


def naive(model, ids: Sequence[int], change: Callable, n: int = NEW) -> list[int]:
    """Greedy by plain hooks, everything again at each step."""
    grown = list(ids)
    for _ in range(n):
        last = reference.naive_states(model, grown, change)[-1, -1]
        grown.append(int(model.readout.logits(last).argmax()))
    return grown[len(ids) :]


@pytest.mark.parametrize("family", ["gpt2", "mistral", "gemma3", "bloom"])
def test_interventions_equal_plain_hooks(family):
    model = endless(family)
    asked = reference.prompts()
    n = len(asked)
    v, w = reference.vectors(model), reference.vectors(model, seed=1)
    each, values = reference.vectors(model, n, seed=2), reference.vectors(model, n, seed=3)
    basis = reference.vectors(model, 2, seed=4)
    how = [
        add(v, layers=1, strength=0.5),
        add(each, layers=2, slot="generated"),
        patch(values, layers=1, slot="word:last"),
        project_out(basis, layers=-1),
        add(w, layers=0, slot="last"),
    ]
    onto = basis.T @ torch.linalg.inv(basis @ basis.T) @ basis
    tokens = model.tokenize(asked)
    wanted = []
    for i, t in enumerate(tokens):

        def change(layer, h, i=i, t=t):
            if layer == 1:
                h += 0.5 * v
                h[t.spans["word"][1] - 1] = values[i]
            if layer == 2:
                h[len(t) :] += each[i]
            if layer == model.n_layers:
                h -= h @ onto
            if layer == 0:
                h[len(t) - 1] += w

        wanted.append(naive(model, t.ids, change, 4))
    assert wanted[1] != wanted[4]  # the twins, by their own values
    for budget in (None, 60):
        made = run(model, asked, interventions=how, token_budget=budget, max_new_tokens=4)
        assert tokens_of(made) == wanted


def test_zero_strength_changes_nothing(family_dir):
    model = kit.model(family_dir("qwen3"))
    v = reference.vectors(model)
    zero = [add(v, layers="all", strength=0.0), add(v, layers=1, slot="last", strength=0.0)]
    made, clean = run(model, prompts(), interventions=zero), run(model, prompts())
    assert made.table.equals(clean.table) and made.provenance == clean.provenance


def test_interventions_without_a_cache(family_dir, monkeypatch):
    model = kit.model(family_dir("mistral"))
    asked = reference.prompts()
    each = reference.vectors(model, len(asked))
    how = [add(each, layers=1, slot="generated"), add(each, layers=2, slot="word:each")]
    wanted = run(model, asked, interventions=how).table
    monkeypatch.setattr(MODULE, "shares_prefixes", lambda model: False)
    assert run(model, asked, interventions=how).table.equals(wanted)


def test_generated_positions_alone(family_dir):
    """What is added to generated tokens comes too late for the first one."""
    model = kit.model(family_dir("olmo2"))
    clean = tokens_of(run(model, prompts()))
    v = reference.vectors(model, size=20.0)
    got = tokens_of(run(model, prompts(), interventions=[add(v, layers=2, slot="generated")]))
    assert [t[0] for t in got] == [t[0] for t in clean]
    assert all(a[1:] != b[1:] for a, b in zip(got, clean, strict=True))


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "qwen3"])
def test_a_planted_token_is_generated(family, family_dir):
    """Adding a token's unembedding direction at the last layer makes the model say it."""
    model = kit.model(family_dir(family))
    clean = {t for tokens in tokens_of(run(model, prompts())) for t in tokens}
    token = next(t for t in range(300, model.d_vocab) if t not in clean)
    direction = model.readout.W_U[:, token] / model.readout.norm_gain
    direction = direction / direction.norm()
    states = harvest(model, prompts(), layers=-1, progress=False).get("last", layer=model.n_layers)
    strong = add(direction, layers=-1, strength=float(50 * states.norm(dim=-1).max()))
    made = tokens_of(run(model, prompts(), interventions=strong))
    assert made == [[token] * NEW] * len(prompts())


def test_values_follow_ids(family_dir):
    model = kit.model(family_dir("qwen2"))
    asked = list(kit.mixed())
    donors = harvest(model, asked, progress=False)
    clean = tokens_of(run(model, asked))
    # A prompt's last states in the place of another's: what comes first is the other's.
    given = [Prompt(tiny.TEXT["en"][: 9 + i], "en", p.id) for i, p in enumerate(asked)]
    how = patch(donors, layers=model.n_layers, slot="last")
    shuffled = [given[i] for i in (5, 2, 9, 0, 11)]
    made = tokens_of(run(model, shuffled, interventions=how))
    assert [t[0] for t in made] == [clean[i][0] for i in (5, 2, 9, 0, 11)]


def test_the_models_own_generate_under_intervene(family_dir):
    model = endless("gemma3")
    how = [add(reference.vectors(model), layers=[1, 3])]
    asked = prompts()[:2]
    with intervene(model, how):
        wanted = [alone(model, p) for p in asked]
    assert tokens_of(run(model, asked, interventions=how)) == wanted
    assert wanted != [alone(model, p) for p in asked]


# --- memory, faults, records ---


def failing(monkeypatch, at: set[int]):
    """The passes whose number is in `at` run out of memory."""
    n = 0

    def sometimes(real, *args):
        nonlocal n
        n += 1
        if n in at:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return real(*args)

    for pass_ in ("forward", "body"):  # of prompts, and of a step
        monkeypatch.setattr(decode, pass_, partial(sometimes, getattr(decode, pass_)))
    monkeypatch.setattr("accelerate.utils.memory.clear_device_cache", lambda **_: None)  # slow


@pytest.mark.parametrize("at", [{1}, {2, 3}, {7}])
def test_out_of_memory_goes_on_with_less(at, family_dir, monkeypatch, caplog):
    model = kit.model(family_dir("llama"))
    asked = reference.prompts() + list(kit.mixed())
    how = [add(reference.vectors(model, len(asked)), layers=1, slot="generated")]
    shares_prefixes(model)
    wanted = run(model, asked, interventions=how).table
    failing(monkeypatch, at)
    with caplog.at_level(logging.WARNING):
        made = run(model, asked, interventions=how, token_budget=160)
    assert made.table.equals(wanted)
    budgets = [f"budget of {160 // 2 ** (n + 1)}." for n in range(len(at))]
    assert [m.split("token ")[1] for m in caplog.messages] == budgets


def test_one_prompt_that_does_not_fit(family_dir, monkeypatch):
    model = kit.model(family_dir("llama"))
    shares_prefixes(model)
    failing(monkeypatch, set(range(1000)))
    before = reference.n_hooks(model)
    with pytest.raises(MemoryError, match="alone does not fit"):
        run(model, prompts()[:1])
    with pytest.raises(MemoryError, match="alone does not fit"):
        run(model, prompts(), token_budget=4)
    assert reference.n_hooks(model) == before


@pytest.mark.parametrize("problem", [KeyboardInterrupt, ZeroDivisionError])
def test_nothing_is_left_behind(problem):
    model = kit.fresh("gpt2")
    model.hf_model.train()
    calls = 0

    def broken(*_):
        nonlocal calls
        calls += 1
        if calls > 5:
            raise problem

    shares_prefixes(model)
    handle = model.blocks[1].register_forward_hook(broken)
    before = reference.n_hooks(model)
    with pytest.raises(problem):
        run(model, prompts(), interventions=add(reference.vectors(model), layers="all"))
    assert reference.n_hooks(model) == before
    assert all(module.training for module in model.hf_model.modules())
    handle.remove()
    run(model, prompts())
    assert all(module.training for module in model.hf_model.modules())


def test_an_overflow_is_named(family_dir):
    model = kit.model(family_dir("gpt2"))
    strong = add(reference.vectors(model), layers=2, strength=1e38)
    with pytest.raises(ValueError, match=r"After 0 tokens the last state of prompt .* not finite"):
        run(model, prompts(), interventions=strong)


def test_refused_before_the_model_runs(family_dir, monkeypatch):
    model = kit.model(family_dir("gpt2"))
    asked = prompts()
    ran = []
    monkeypatch.setattr(type(model.body), "forward", lambda *a, **k: ran.append(1))
    longest = max(len(t) for t in model.tokenize(asked))
    cases = [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"token_budget": 0}, "token_budget is 0"),
        ({"max_new_tokens": model.n_ctx - longest + 2}, f"could pass the {model.n_ctx}"),
        ({"stop": ""}, "empty string would stop"),
        ({"stop": ["a", ""]}, "empty string would stop"),
        ({"stop": {"shared": "a"}}, "nothing for prompt 'twin'"),
        ({"interventions": add(torch.ones(3), layers=1)}, "3 dimensions"),
        ({"interventions": [add(torch.ones(48), layers=1, slot="x:last")]}, "no span 'x'"),
    ]
    for how, message in cases:
        with pytest.raises(ValueError, match=message):
            run(model, asked, **how)
    with pytest.raises(ValueError, match="Two prompts share the id 'shared' in 'fr'"):
        generate(model, [*asked, asked[0]], progress=False)
    assert not ran


def test_up_to_the_end_of_the_context(family_dir):
    model = endless("gpt2")
    prompt = Prompt(tiny.TEXT["ru"] + tiny.TEXT["en"][:70], "ru", "long")
    room = model.n_ctx - len(model.tokenize([prompt])[0]) + 1
    assert 1 < room < 50
    assert tokens_of(run(model, [prompt], max_new_tokens=room)) == [alone(model, prompt, room)]
    # Prefixes of unlike length side by side: padding has a position too.
    head = tiny.TEXT["en"]
    texts = [head[:230], head[:230] + "x", head[100:200], head[100:200] + tiny.TEXT["de"][:90]]
    asked = [Prompt(text, "en", str(n)) for n, text in enumerate(texts)]
    n = model.n_ctx - max(len(t) for t in model.tokenize(asked)) + 1
    assert n >= 2
    assert tokens_of(run(model, asked, max_new_tokens=n)) == [alone(model, p, n) for p in asked]


def test_saved_and_loaded(family_dir, tmp_path):
    model = kit.model(family_dir("gpt2"))
    how = add(reference.vectors(model), layers=1)
    made = run(model, prompts(), stop={p.id: ["x"] for p in prompts()}, interventions=how)
    again = Generations.load(made.save(tmp_path / "made"))
    frame = again.to_frame()
    assert [list(t) for t in frame["tokens"]] == tokens_of(made)
    assert frame.drop(columns="tokens").equals(made.to_frame().drop(columns="tokens"))
    assert again.provenance["interventions"][0]["kind"] == "add"
    assert again.provenance["fingerprint"] == model.fingerprint
    assert again.provenance["generation"]["max_new_tokens"] == NEW


def test_one_prompt_and_none(family_dir):
    model = kit.model(family_dir("gpt2"))
    assert len(run(model, prompts()[:1]).table) == 1
    assert len(run(model, prompts()[:1], max_new_tokens=1).table["tokens"][0]) == 1


def test_two_shared_prefixes_of_unlike_length_side_by_side(family_dir):
    model = kit.model(family_dir("llama"))
    heads = ["The book is on the table; the flower is red. " * 2, "Wir trinken im Sommer Wasser. "]
    heads[1] *= 2
    ends = ("Where", "We", "Is it", "A king")
    prompts = Prompts(Prompt(head + end, "en", head + end) for head in heads for end in ends)
    batches = plan([t.ids for t in model.tokenize(list(prompts))], 2048)
    assert any(len({g.prefix for g in b.groups}) > 1 for b in batches if b.prefix_tokens)
    got = generate(model, prompts, max_new_tokens=8, progress=False).table["tokens"]
    for prompt, ids in zip(prompts, got, strict=True):
        assert ids == generate(model, [prompt], max_new_tokens=8, progress=False).table["tokens"][0]


@pytest.mark.parametrize("tile", [3, 7, 10_000])
def test_of_equally_probable_tokens_the_first_is_taken(tile, family_dir, monkeypatch):
    monkeypatch.setattr(greedy, "VOCAB_TILE", tile)
    model = kit.fresh("gpt2")
    draw = torch.Generator().manual_seed(0)
    table = torch.randint(4, (40, model.d_vocab), generator=draw).float()  # ties without end
    table[0] = 0
    monkeypatch.setattr(model.readout, "tile", lambda _normed, a, b: table[:, a:b])
    first = [int((row == row.max()).nonzero()[0]) for row in table]
    assert greedy.Greedy(model.readout)(torch.zeros(40, model.d_model)).tolist() == first
