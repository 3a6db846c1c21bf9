"""LAPE: equal to a loop over units; what the original gets wrong; units off and on."""

import math

import numpy as np
import pytest

import tiny
import xlens
from xlens import figures
from xlens.engine import Tally
from xlens.errors import InputError
from xlens.neurons import (
    language_neurons,
    neuron_edits,
    neuron_effects,
    neuron_overlap,
    random_neurons,
)
from xlens.neurons.effects import _loss
from xlens.neurons.lape import entropies
from xlens.prompts import Prompt, Prompts
from xlens.studies import NeuronsStudy

QUIET = {"progress": False}
TAGS = ("en", "de", "fr")


def counted(counts, n_tokens=10_000, tags=TAGS):
    counts = np.asarray(counts, dtype=np.int64)
    return Tally(
        counts=counts,
        sums=counts * 0.5,
        n_tokens=np.full(len(counts), n_tokens, dtype=np.int64),
        languages=tuple(tags[: len(counts)]),
        layers=tuple(range(counts.shape[1])),
        site="mlp_gate",
        threshold=0.0,
        provenance={"model": "made up"},
    )


def drawn(seed=0, shape=(3, 4, 100)):
    rng = np.random.default_rng(seed)
    return (rng.beta(0.3, 2, size=shape) * 10_000).astype(int)


def brute(p, top, rate):
    """As the definition has it, unit by unit."""
    every = sorted(p.ravel().tolist())
    tau = every[round(rate * len(every)) - 1]
    entropy = {}
    for layer in range(p.shape[1]):
        for unit in range(p.shape[2]):
            values = p[:, layer, unit]
            if all(v <= tau for v in values):
                continue
            shares = [v / sum(values) for v in values]
            entropy[layer, unit] = -sum(s * math.log(s) for s in shares if s > 0)
    best = sorted(entropy, key=lambda key: (entropy[key], key))[: round(top * p[0].size)]
    return {
        (tag, layer, unit)
        for layer, unit in best
        for k, tag in enumerate(TAGS)
        if p[k, layer, unit] > tau
    }, tau


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("top", "rate"), [(0.01, 0.95), (0.05, 0.8)])
def test_it_is_a_loop_over_units(seed, top, rate):
    made = counted(drawn(seed))
    found = language_neurons(made, top=top, filter_rate=rate)
    wanted, tau = brute(made.probabilities, top, rate)
    rows = found.table[["language", "layer", "unit"]].itertuples(index=False, name=None)
    assert set(rows) == wanted and found.threshold == tau
    assert found.kept == len({(layer, unit) for _, layer, unit in wanted}) == round(top * 400)


def test_a_known_entropy():
    found = entropies(np.array([[[0.4]], [[0.1]]]))
    assert found.item() == pytest.approx(0.500402, abs=1e-6)


def test_units_that_are_never_active_are_not_a_languages():
    counts = drawn()
    counts[:, 0] = 0  # their entropy is 0, the lowest there is
    found = language_neurons(counted(counts), top=0.2, filter_rate=0.5)
    assert not (found.table["layer"] == 0).any()
    assert np.isfinite(found.table["entropy"]).all()


def test_a_language_without_units_stays():
    counts = drawn()
    counts[2] //= 50
    found = language_neurons(counted(counts))
    assert set(found.counts["language"]) == set(TAGS)
    assert found.counts.query("language == 'fr'")["n"].sum() == 0 and found.units("fr") == {}
    assert neuron_overlap(found).table["second"].tolist() == ["de", "fr", "fr"]
    with pytest.raises(ValueError, match="'fr' has no unit among"):
        neuron_edits(found, "fr")


def test_too_little_text_is_told():
    with pytest.raises(ValueError, match=r"Fewer than 1000 tokens in en \(50\)"):
        language_neurons(counted(drawn() // 300, n_tokens=50))
    with pytest.raises(ValueError, match="two or more"):
        language_neurons(counted(drawn()[:1]))
    with pytest.raises(ValueError, match="filter_rate is 0"):
        language_neurons(counted(drawn()), filter_rate=0.0)


def test_overlap_and_chance():
    found = language_neurons(counted(drawn()), top=0.1, filter_rate=0.6)
    same = neuron_overlap(found, found)
    assert same.twins and (same.table["jaccard"] == 1).all()
    pair = neuron_overlap(found).table.iloc[0]
    units = [{(n, u) for n, own in found.units(t).items() for u in own} for t in ("en", "de")]
    assert pair["shared"] == len(units[0] & units[1])
    chance = sum(
        len(found.units("en").get(n, ())) * len(found.units("de").get(n, ())) / 100
        for n in range(4)
    )
    assert pair["by_chance"] == pytest.approx(chance)


def test_random_units_are_as_many_and_others():
    found = language_neurons(counted(drawn()), top=0.05, filter_rate=0.6)
    other = random_neurons(found, seed=1)
    for tag in TAGS:
        for layer, units in found.units(tag).items():
            drawn_units = other.units(tag)[layer]
            assert len(drawn_units) == len(units) == len(set(drawn_units))
            assert not set(units) & set(drawn_units)
    assert random_neurons(found, seed=1).table["unit"].tolist() == other.table["unit"].tolist()


@pytest.mark.slow
def test_the_study_and_what_is_switched_off(tmp_path):
    model = xlens.load(tiny.model("llama", max_position_embeddings=512), tiny.tokenizer("llama"))
    for tag in ("en", "de"):
        sentences = tiny.TEXT[tag].replace(";", ".").split(". ")
        (tmp_path / f"text.{tag}.txt").write_text("\n".join(sentences))
    files = tuple(str(tmp_path / f"text.{tag}.txt") for tag in ("en", "de"))
    study = NeuronsStudy(
        text=files, least_tokens=20, top=0.05, filter_rate=0.6, n_texts=4, draws=50
    )
    parts = xlens.run(study, model, **QUIET).parts
    found, effects = parts["neurons"], parts["effects"]
    assert found.languages == ("en", "de") and found.site == "mlp_gate"
    (tag, units) = next((t, found.units(t)) for t in found.languages if found.units(t))
    prompt = Prompts([Prompt(tiny.TEXT["en"][:40], "en", "a")])
    off = neuron_edits(found, tag)
    states = xlens.harvest(
        model, prompt, site="mlp_gate", slots="all", interventions=off, **QUIET
    ).slot("all").values  # fmt: skip
    for layer, own in units.items():
        assert (states[layer][:, list(own)] == 0).all()
    assert set(effects.table["kind"]) == {"neurons", "random", "beyond"}
    assert effects.languages == ("en", "de")
    assert len(effects.own()) == sum(bool(found.units(t)) for t in found.languages)


def test_texts_without_a_language_are_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("one\n")
    with pytest.raises(ValueError, match="Which language is"):
        NeuronsStudy(text=(str(tmp_path / "mine.txt"),)).read()
    with pytest.raises(ValueError, match="All text is in de"):
        NeuronsStudy(text=(f"de={tmp_path / 'mine.txt'}",)).read()
    with pytest.raises(ValueError, match="Name texts"):
        NeuronsStudy().read()


def test_what_is_not_meant_is_refused_before_anything_is_counted(tmp_path):
    texts = []
    for tag in ("de", "en", "fr"):
        (tmp_path / f"{tag}.txt").write_text(f"{tag}\n")
        texts.append(f"{tag}={tmp_path / tag}.txt")
    study = NeuronsStudy(text=tuple(texts), languages=("de", "fr"))
    assert study.read().languages == ("de", "fr")
    with pytest.raises(ValueError, match=r"Fewer than 1000 tokens in de \(3 bytes\)"):
        study.check(study.read())
    with pytest.raises(ValueError, match="No text in ru; there is text in de, en, fr"):
        NeuronsStudy(text=tuple(texts), languages=("de", "ru")).read()
    with pytest.raises(ValueError, match="All text is in de"):
        NeuronsStudy(text=tuple(texts), languages=("de",)).read()
    for name in ("top", "filter_rate"):
        with pytest.raises(ValueError, match=f"{name} is nan"):
            NeuronsStudy(**{name: float("nan")})


def test_a_language_s_own_loss_is_told_from_that_of_random_units(monkeypatch):
    """Planted: 1 nat with its own units off, .2 in any text with any units off."""
    found = language_neurons(counted(drawn()), top=0.1, filter_rate=0.5)
    texts = Prompts(Prompt(f"{tag} {k}", tag, str(k)) for tag in TAGS for k in range(12))
    own = {
        tuple(str(edit) for edit in neuron_edits(found, tag)): tag
        for tag in TAGS
        if found.units(tag)
    }

    def loss(model, asked, edits, options):
        noise = np.random.default_rng(0).normal(scale=0.01, size=len(asked))
        whose = own.get(tuple(str(edit) for edit in edits))
        lost = [0.2 + (text.language == whose) * 0.8 if edits else 0.0 for text in asked]
        return 3.0 + noise * (1 + bool(edits)) + lost

    monkeypatch.setattr("xlens.neurons.effects._loss", loss)
    model = xlens.load(tiny.model("llama"), tiny.tokenizer("llama"))
    effects = neuron_effects(model, texts, found, seed=1)
    assert set(effects.own()["neurons"]) == {*own.values()} and len(own) > 1
    assert effects.own()["difference"].to_numpy() == pytest.approx(1.0, abs=0.02)
    assert effects.of("random")["difference"].to_numpy() == pytest.approx(0.2, abs=0.02)
    beyond = effects.own("beyond")
    assert beyond["difference"].to_numpy() == pytest.approx(0.8, abs=1e-6)
    assert (beyond["p"] < 0.01).all() and effects.of("neurons")["p"].isna().all()
    other = effects.of("beyond").query("neurons != language")
    assert (other["p"] > 0.5).all() and other["difference"].abs().max() < 1e-6
    assert effects.others("beyond")["difference"].abs().max() < 1e-6
    with pytest.raises(ValueError, match="accepted are neurons, random, beyond"):
        effects.of("boost")
    page = figures.neuron_losses(effects)
    assert page.data[0].z[0][0] == pytest.approx(beyond["difference"].iloc[0])
    own, other, *_ = page.data[2].text  # labels are traces of their own
    assert own.endswith("•") and not other.endswith("•")
    places = figures.neuron_places(found).data[0]
    assert np.asarray(places.z).sum() == len(found.table)


def test_a_text_of_a_single_token_is_refused_by_name():
    model = xlens.load(tiny.model("llama"), tiny.tokenizer("llama"))
    asked = Prompts([Prompt("two words", "en", "long"), Prompt("x", "en", "short")])
    with pytest.raises(InputError, match=r"'short' \(en\) is a single token"):
        _loss(model, asked, [], {})
