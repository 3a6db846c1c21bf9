"""Models written by hand: what was planted is there, at its layer and no other."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import xlens
from xlens.engine.interventions import patch
from xlens.engine.trust import shares_prefixes
from xlens.models.loading import check_readout
from xlens.stats import Resampling
from xlens.testbed import planted
from xlens.testbed.planted.blueprint import Spaces, look_back, look_for

SMALL = {"n_items": 4, "n_facts": 3, "n_keys": 6, "n_values": 6}


@st.composite
def two_layers(draw, deepest: int = 12) -> dict[str, int]:
    """A depth and two layers in order."""
    depth = draw(st.integers(2, deepest))
    first = draw(st.integers(1, depth - 1))
    return {"depth": depth, "first": first, "second": draw(st.integers(first + 1, depth))}


noises = st.sampled_from([0.0, 0.1, 0.2])
seeds = st.integers(0, 99)


@cache
def phases(**options):
    """`two_phase` with a small vocabulary."""
    return planted.two_phase(**(SMALL | options))


def said(model, states) -> list[str]:
    """What the model says, given its last states."""
    return [model.vocab.text(int(i)) for i in model.readout.logits(states).argmax(-1)]


def answers(model, prompts, interventions=()) -> list[str]:
    top = model.n_layers
    kept = xlens.harvest(model, prompts, layers=top, interventions=interventions, progress=False)
    return said(model, kept.get("last", layer=top))


def swapped(bed, what: str, slot: str, layers) -> list[float]:
    """By layer: the share of answers that become the donor's when its states are put in.

    The others must stay what they were.
    """
    donors = bed.donors[what]
    states = xlens.harvest(bed.model, donors.prompts, slots=slot, layers=layers, progress=False)
    shares = []
    for layer in layers:
        got = answers(bed.model, bed.prompts, patch(states, layers=layer, slot=slot))
        assert all(
            a in pair for a, *pair in zip(got, bed.right, donors.right, strict=True)
        )  # nothing third
        shares.append(float(np.mean([a == b for a, b in zip(got, donors.right, strict=True)])))
    return shares


# --- two phases ---


@settings(max_examples=5, deadline=None)
@given(
    where=two_layers(),
    noise=noises,
    seed=seeds,
    n=st.integers(2, 3),
    told=st.sampled_from(["context", "question"]),
)
def test_questions_and_answers_change_hands_where_planted(where, noise, seed, n, told):
    p, r = where["first"], where["second"]
    bed = planted.two_phase(
        depth=where["depth"],
        question_layer=p,
        answer_layer=r,
        languages=n,
        context_language="de",
        answer_language=told,
        noise=noise,
        seed=seed,
        **SMALL,
    )
    assert answers(bed.model, bed.prompts) == list(bed.right)
    for donors in bed.donors.values():
        assert answers(bed.model, donors.prompts) == list(donors.right)
        assert all(a != b for a, b in zip(bed.right, donors.right, strict=True))
    assert swapped(bed, "question", "question:each", [p - 1, p]) == [1, 0]
    assert swapped(bed, "question", "last", [p - 1, p]) == [0, 1]
    assert swapped(bed, "context", "context:each", [r - 1, r]) == [1, 0]
    assert swapped(bed, "context", "last", [r - 1, r]) == [0, 1]


def test_a_deep_one_is_as_exact():
    bed = phases(depth=24, question_layer=9, answer_layer=20, noise=0.1)
    points = [0, 8, 9, 19, 20, 24]
    assert swapped(bed, "question", "question:each", points) == [1, 1, 0, 0, 0, 0]
    assert swapped(bed, "context", "last", points) == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize(("p", "r"), [(1, 2), (2, 5)])
def test_the_question_can_be_decoded_at_the_last_position_from_its_layer_on(p, r, noise):
    bed = planted.two_phase(
        depth=6,
        question_layer=p,
        answer_layer=r,
        n_items=40,
        n_facts=3,
        n_keys=4,
        n_values=6,
        noise=noise,
    )
    kept = xlens.harvest(bed.model, bed.prompts, progress=False)
    train, test = (kept.pair("en", "de")[n] for n in (0, 1))
    for layer in range(7):
        x, y = train.get("last", layer=layer).numpy(), train.meta["asked_key"]
        probe = LogisticRegression(C=100).fit(x, y)
        accuracy = probe.score(test.get("last", layer=layer).numpy(), test.meta["asked_key"])
        if layer >= p:
            assert accuracy == 1.0, layer
        else:  # whatever is asked, the state is the same: the probe can only name one key
            assert accuracy <= y.value_counts(normalize=True).max(), layer
            assert np.ptp(x, axis=0).max() < 1e-5, layer


def test_the_last_position_holds_the_codes_that_the_truth_names():
    bed = phases(depth=5, question_layer=2, answer_layer=4)
    kept = xlens.harvest(bed.model, bed.prompts, slots=["last", "asked:last"], progress=False)
    truth = bed.truth
    asked = [truth.keys.concepts.index(k) for k in kept.meta["asked_key"]]
    found = [truth.values.concepts.index(v) for v in kept.meta["answer_value"]]
    for name, slot, first, columns in (
        ("key", "asked:last", 0, asked),
        ("question_key", "last", 2, asked),
        ("answer", "last", 4, found),
    ):
        codes = kept.get(slot) @ truth.subspaces[name].T
        wanted = torch.zeros_like(codes)
        wanted[torch.arange(len(columns)), first:, columns] = 1
        assert torch.allclose(codes, wanted, atol=1e-4), name
    bases = torch.cat(list(truth.subspaces.values()))
    assert torch.allclose(bases @ bases.T, torch.eye(len(bases)), atol=1e-5)
    norms = kept.get("last").norm(dim=-1)
    assert torch.allclose(norms, torch.full_like(norms, norms[0, 0].item()), rtol=1e-5)


def test_the_lens_reads_the_answer_from_its_layer_on():
    bed = phases(depth=6, question_layer=2, answer_layer=4, answer_language="context")
    prompts = bed.prompts.select(languages=["fr"])
    targets = xlens.target_sets(bed.model, bed.answers, languages=["en", "de"], extra=["fr"])
    assert len(targets.ids) == SMALL["n_items"]
    kept = xlens.harvest(bed.model, prompts, progress=False)
    rows = xlens.logit_lens(kept, bed.model, targets, progress=False).rows
    mean = rows.groupby(["language", "layer"])["prob"].mean().unstack()
    n_words = len(bed.truth.keys.words) + len(bed.truth.values.words)
    assert mean.loc["en", :3].to_numpy() == pytest.approx(1 / n_words, rel=1e-3)
    assert (mean.loc["en", 4:] > 0.99).all() and (mean.loc[["de", "fr"], 4:] < 0.01).all(axis=None)


@pytest.mark.parametrize("rule", ["attnlrp", "cp-lrp"])
@pytest.mark.parametrize(("told", "sharpness"), [("question", 1.0), ("context", 0.1)])
def test_relevance_leaves_the_segments_where_they_are_done_with(rule, told, sharpness):
    bed = phases(
        depth=6, question_layer=3, answer_layer=5, answer_language=told, sharpness=sharpness
    )
    slots = ["question:sum", "context:sum", "last"]
    targets = [" " + word for word in bed.right]
    scores = xlens.relevance(
        bed.model, bed.prompts, targets=targets, slots=slots, rule=rule, progress=False
    )
    question, context, last = (np.abs(scores.get(slot)) for slot in slots)
    assert (question[:, 3:] < 1e-4).all() and (context[:, 5:] < 1e-4).all()
    assert (context[:, :5] > 1).all() and (last[:, 5:] > 1).all()
    # The question is relevant through what is taken over of it, its language; through what is
    # compared only where attention is not quite sure, and where the rule lets it.
    seen = told == "question" or rule == "attnlrp"
    assert ((question[:, :3] > 0.01) == seen).all()


def test_a_leak_shows_the_question_early_but_does_nothing_there():
    bed = phases(depth=8, question_layer=5, answer_layer=7, leak=0.05)
    kept = xlens.harvest(bed.model, bed.prompts, progress=False)
    other = xlens.harvest(bed.model, bed.donors["question"].prompts, progress=False)
    apart = (kept.get("last") - other.get("last")).norm(dim=-1).amin(dim=0)
    assert apart[0] == 0 and (apart[1:5] > 1e-4).all() and (apart[5:] > 1).all()
    assert swapped(bed, "question", "last", [4, 5]) == [0, 1]


def test_other_contexts_and_answers_can_be_asked_for():
    bed = phases(depth=4, question_layer=1, answer_layer=3, answer_language="question")
    again = planted.retrieval_questions(
        bed.truth.keys,
        bed.truth.values,
        context_language="fr",
        answer_language="question",
        n_items=5,
        n_facts=2,
        seed=9,
    )
    prompts = again["asked"].prompts
    assert answers(bed.model, prompts) == list(again["asked"].right)
    assert {p.meta["target"] for p in prompts} == {"en", "de", "fr"}
    for prompt in (*bed.prompts, *prompts):
        text = {name: prompt.text[a:b] for name, (a, b) in prompt.spans.items()}
        context = str(prompt.meta["context_language"])
        assert text["key"] == bed.truth.keys.word(str(prompt.meta["asked_key"]), context)
        assert text["answer"] == bed.truth.values.word(str(prompt.meta["answer_value"]), context)
        assert text["fact"] == f"{text['key']} = {text['answer']} ."
        assert text["fact"] in text["context"] and text["asked"] in text["question"]
    table = again["asked"].answers
    assert [table.loc[p.id, str(p.meta["target"])] for p in prompts] == list(again["asked"].right)


def test_the_core_takes_it_as_any_model():
    bed = phases(depth=4, question_layer=2, answer_layer=3, noise=0.1)
    assert check_readout(bed.model) < 1e-4
    assert bed.model.provenance()["weights"] == "written by hand (noise 0.1, leak 0, seed 0)"
    assert shares_prefixes(bed.model)
    words = [" " + word for word in bed.truth.values.words]
    best = xlens.score(bed.model, bed.prompts, words, progress=False).best()
    assert [text.strip() for text in best["text"]] == list(bed.right)
    written = xlens.generate(bed.model, bed.prompts, max_new_tokens=3, progress=False)
    assert [text.strip() for text in written.table["text"]] == list(bed.right)
    twin = bed.model.random_twin()
    assert np.mean([a == b for a, b in zip(answers(twin, bed.prompts), bed.right, strict=True)]) < 1


def test_a_seed_gives_the_same_model_and_prompts():
    once = planted.two_phase(noise=0.1, leak=0.1, **SMALL)
    state = torch.random.get_rng_state()
    again = planted.two_phase(noise=0.1, leak=0.1, **SMALL)
    assert torch.equal(state, torch.random.get_rng_state())
    other = planted.two_phase(noise=0.1, leak=0.1, seed=1, **SMALL)
    assert once.model.fingerprint == again.model.fingerprint != other.model.fingerprint
    assert once.prompts == again.prompts != other.prompts


# --- by way of a pivot ---


def read(bed, source: str, top_k: int = 1):
    """The lens on the words of one language."""
    truth = bed.truth
    targets = xlens.target_sets(
        bed.model, bed.answers, languages=[truth.target, truth.pivot], extra=[source]
    )
    prompts = bed.prompts.select(languages=[source])
    kept = xlens.harvest(bed.model, prompts, progress=False)
    return xlens.logit_lens(
        kept, bed.model, targets, pivot=truth.pivot, top_k=top_k, progress=False
    )


@settings(max_examples=8, deadline=None)
@given(where=two_layers(), noise=noises, seed=seeds, n=st.integers(3, 5), data=st.data())
def test_the_lens_sees_the_pivot_and_only_where_it_is(where, noise, seed, n, data):
    a, b = where["first"], where["second"]
    tags = ["en", "de", "fr", "ru", "ar"][:n]
    pivot, target = data.draw(st.permutations(tags), label="pivot, target")[:2]
    bed = planted.latent_pivot(
        depth=where["depth"],
        pivot_layer=a,
        target_layer=b,
        languages=tags,
        pivot=pivot,
        target=target,
        n_words=6,
        noise=noise,
        seed=seed,
    )
    source = bed.prompts.languages[-1]
    result = read(bed, source)
    points = np.arange(where["depth"] + 1)
    wanted = np.where(points < a, source, np.where(points < b, pivot, target))
    table = result.rows.pivot(index=["prompt", "layer"], columns="language", values="prob")
    there = table.idxmax(axis=1).unstack("prompt")
    assert (there.to_numpy() == wanted[:, None]).all()
    assert (table.max(axis=1) > 0.9).all()
    marks = result.summary(resampling=Resampling(draws=20))
    assert marks.landmark("crossover_layer")["value"] == b
    assert marks.landmark("final_target_prob")["value"] > 0.9
    assert a <= marks.landmark("pivot_peak_layer")["value"] < b
    assert marks.landmark("source_peak_layer")["value"] < a
    if not noise:  # nothing happens in between, to the last bit: the peak is where it begins
        for name, layer in (("pivot_peak_layer", a), ("crossover_layer", b)):
            assert {marks.landmark(name)[k] for k in ("value", "low", "high")} == {layer}


def test_any_language_goes_to_any_other_through_the_pivot():
    bed = planted.latent_pivot(depth=4, pivot_layer=2, target_layer=3, n_words=5)
    words = bed.truth.lexicon
    for target in words.languages[1:]:
        questions = planted.pivot_questions(words, pivot="en", target=target)
        for asked in questions.values():
            assert answers(bed.model, asked.prompts) == list(asked.right)
            assert {p.language for p in asked.prompts} == {*words.languages} - {"en", target}
    assert swapped(bed, "word", "last", range(5)) == [1] * 5
    assert swapped(bed, "word", "aim:each", range(5)) == [0] * 5


# --- the machinery ---


@pytest.mark.parametrize("distance", [0, 1, 2, 7])
def test_a_head_that_looks_back_looks_there_at_any_length(distance):
    """With the rotation as the model applies it, up to the longest prompt."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    bed = phases(depth=4, question_layer=2, answer_layer=3)
    rotary = LlamaRotaryEmbedding(bed.model.config)
    spaces = Spaces({"kind": 1}, seed=0)
    query, key = look_back(spaces, distance, when=spaces.sole("kind"))
    length = bed.model.n_ctx
    states = torch.stack([spaces.state(spaces.sole("kind"))] * length)
    states[0] = spaces.state(spaces.sole("bos"))
    states[length // 2] = spaces.state()  # one that has nothing to do
    q, k = ((states @ w.T).float()[None, None] for w in (query, key))
    q, k = apply_rotary_pos_emb(q, k, *rotary(q, torch.arange(length)[None]))
    scores = (q @ k.transpose(-1, -2))[0, 0] / q.shape[-1] ** 0.5
    mask = torch.ones(length, length).tril().bool()
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    for at in range(max(distance, 1), length):
        there = 0 if at == length // 2 else at - distance
        assert weights[at, there] > 1 - 1e-6, at


def test_a_head_compares_no_more_codes_than_it_can():
    spaces = Spaces({"left": 70, "right": 70}, seed=0)
    with pytest.raises(ValueError, match="can compare 63 codes, not 70"):
        look_for(spaces, query=spaces["left"], key=spaces["right"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"question_layer": 0}, "1 <= question_layer < answer_layer <= depth"),
        ({"question_layer": 6}, "question_layer 6, answer_layer 6 in a model of 8 layers"),
        ({"answer_layer": 9}, "Point 0 is the embedding"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"leak": float("nan")}, "leak is nan; accepted are finite numbers from 0"),
        ({"sharpness": -1.0}, "sharpness is -1.0"),
        ({"languages": 1}, "as a number 2 to 10"),
        ({"languages": ["en"]}, "At least two languages"),
        ({"languages": ["en", "English"]}, "Did you mean"),
        ({"context_language": "ar"}, "context_language is 'ar'"),
        ({"n_facts": 1}, "n_facts is 1; accepted are 2 to 12"),
        ({"n_facts": 13}, "accepted are 2 to 12"),
        ({"n_items": 0}, "n_items is 0"),
        ({"n_keys": 64}, "64 keys, 12 values and 3 languages do not fit"),
        ({"n_keys": 6000}, "6012 concepts"),
    ],
)
def test_what_cannot_be_planted_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        planted.two_phase(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pivot_layer": 0}, "1 <= pivot_layer < target_layer <= depth"),
        ({"languages": 2}, "at least three"),
        ({"pivot": "ar"}, "pivot is 'ar'"),
        ({"target": "en"}, "two different languages are needed"),
        ({"n_words": 1}, "and two concepts"),
    ],
)
def test_what_cannot_be_a_pivot_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        planted.latent_pivot(**options)
