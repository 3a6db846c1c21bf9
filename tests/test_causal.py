"""The causal test against worlds in which it is known what does the work."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

import xlens
from xlens.comparison import compare
from xlens.lens import (
    LOGIT,
    LensResult,
    TunedLens,
    causal_summary,
    causal_test,
    causal_verdicts,
    for_causal_test,
    language_shares,
    target_sets,
)
from xlens.lens.causal import deranged
from xlens.lens.directions import Words, read_along, word_directions
from xlens.lens.verdict import NEUTRAL, PIVOT, UNDONE, UNUSED
from xlens.prompts import TooFewItems
from xlens.report.lens_causal import causal_sections
from xlens.stats import Resampling, generator, pair_bootstrap
from xlens.studies import LensStudy
from xlens.testbed import planted

WORLDS = {"bound": PIVOT, "neutral": NEUTRAL, "idle": UNUSED, "random": UNDONE}
NOISE = {"noise": 0.1, "leak": 0.1}


def world(kind: str, seed: int):
    """Model, prompts and target sets of a world of which the verdict is known."""
    if kind in ("neutral", "random"):
        bed = planted.latent_pivot(languages=6, n_words=12, seed=seed, **NOISE)
    else:
        bed = planted.bound_pivot(used=kind == "bound", seed=seed, **NOISE)
    model = bed.model.random_twin(seed) if kind == "random" else bed.model
    truth = bed.truth
    rest = [t for t in truth.lexicon.languages if t not in (truth.pivot, truth.target)]
    prompts = bed.prompts.select(languages=rest[:1])
    main = (truth.target, truth.pivot)
    sets = target_sets(model, bed.answers, languages=main, extra=rest, match="first")
    return model, prompts, sets


@cache
def causal_of(kind: str, seed: int):
    model, prompts, sets = world(kind, seed)
    # Below, at both ends of, and above where the pivot's word is.
    how = {"layers": (2, 3, 5, 6), "n_donors": 3, "seed": seed}
    found = causal_test(model, prompts, sets, progress=False, **how)
    return found, causal_summary(found)


def verdict(kind: str, seed: int) -> str:
    return causal_verdicts({kind: causal_of(kind, seed)[1]}).table["verdict"][0]


@pytest.mark.parametrize("kind", ["bound", "idle"])
def test_what_was_planted_is_what_is_said(kind):
    assert verdict(kind, 0) == WORLDS[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", WORLDS)
def test_of_a_hundred_worlds_of_a_kind_ninety_five_are_told(kind):
    right = 0
    for seed in range(100):
        right += verdict(kind, seed) == WORLDS[kind]
        causal_of.cache_clear()
    assert right >= 95


def test_a_bound_pivot_is_seen_where_it_was_planted_and_controls_move_as_far():
    found, summary = causal_of("bound", 0)
    table = causal_verdicts({"": summary}).table
    assert (table["first"][0], table["last"][0]) == (3, 5)  # the word is there, and is looked up
    sizes = found.rows.pivot_table(index=["way", "layer"], columns="what", values="size")
    for what in ("pivot", "other", "random"):
        np.testing.assert_allclose(sizes[what], sizes["concept"], rtol=1e-4)
    assert (found.rows["id"] != found.rows["donor"]).all()
    again, _ = causal_of.__wrapped__("bound", 0)
    pd.testing.assert_frame_equal(again.rows, found.rows)


def test_remainders_write_nothing_of_what_is_measured():
    model, prompts, sets = world("bound", 1)
    sets = for_causal_test(sets, prompts.ids)
    (words,) = word_directions(model, LOGIT, [4], sets)
    words = words + 0.1 * torch.from_numpy(generator(0).standard_normal(words.shape)).float()
    own, donor = list(range(11)), list(range(1, 12))
    here = Words(words, (0, 2))
    moved = here.remainder_exchange(own, donor, torch.ones(11, dtype=torch.long))
    apart = words[donor, 0] - words[own, 0]
    np.testing.assert_allclose(moved.norm(dim=-1), 1, rtol=1e-5)
    np.testing.assert_allclose((moved * apart).sum(-1), 0, atol=1e-4)
    # Where a language is the same in all words, there is nothing of it to exchange.
    flat = torch.eye(40)[:12, None] + torch.eye(40)[20:26]
    assert not Words(flat, (0, 2)).remainder_exchange(own, donor, torch.ones(11).long()).any()


def test_a_lens_is_read_along_by_its_transpose():
    model, *_ = world("bound", 1)
    d, tokens = model.d_model, torch.arange(10)
    matrix = generator(0).standard_normal((1, d, d)).astype(np.float32)
    lens = TunedLens(
        provenance={},
        matrices=matrix,
        offsets=np.zeros((1, d), np.float32),
        layers=(4,),
        n_layers=model.n_layers,
        training=pd.DataFrame(),
    )
    along = read_along(model.readout, tokens)
    state = torch.randn(d)
    carried = lens.over([4])(state[None, None])[0, 0]
    np.testing.assert_allclose(lens.back(along, 4) @ state, along @ carried, rtol=1e-3, atol=1e-2)
    assert lens.back(along, model.n_layers) is along
    with pytest.raises(ValueError, match="no matrix for point 3"):
        lens.back(along, 3)


def test_donors_are_others_that_can_be_told_apart():
    words = [{1}, {2}, {3}, {1, 4}, {5}]
    for seed in range(20):
        donors = deranged(words, generator(seed))
        assert sorted(donors) == list(range(5)) and (donors != np.arange(5)).all()
        assert donors[0] != 3 and donors[3] != 0  # what they have in common speaks for neither
    assert list(deranged([{1}, {1}], generator(0))) == [-1, -1]


def test_pairs_that_share_a_thing_are_drawn_together():
    draw = generator(3)
    own = draw.standard_normal(30)
    first, second = np.arange(30), np.roll(np.arange(30), 1)
    found = pair_bootstrap(
        (own[first] + own[second])[:, None], list(first), list(second), resampling=Resampling(4000)
    )
    # Twice each thing: the pairs' own spread would be too small by the square root of 2.
    assert found.draws.std() > 1.8 * own.std() / np.sqrt(30)
    np.testing.assert_allclose(found.mean, 2 * own.mean())
    nothing = pair_bootstrap(np.zeros((30, 2)), list(first), list(second))
    assert (nothing.above() == 1).all()
    sure = np.stack([own + 5, own], axis=1)
    assert pair_bootstrap(sure, list(first), list(second)).above()[0] < 0.01
    with pytest.raises(ValueError, match="two names"):
        pair_bootstrap(sure, list(first)[:3], list(second))


def test_what_cannot_be_tested_is_refused():
    model, prompts, sets = world("bound", 0)
    with pytest.raises(ValueError, match="n_donors is 0"):
        causal_test(model, prompts, sets, n_donors=0)
    for layers, said in (([99], "Unknown layer"), ([model.n_layers], "nothing comes"), ([], "no")):
        with pytest.raises(ValueError, match=said):
            causal_test(model, prompts, sets, layers=layers, progress=False)
    d = model.d_model
    lens = TunedLens(
        provenance={}, matrices=np.eye(d, dtype=np.float32)[None], offsets=np.empty(0, np.float32),
        layers=(2,), n_layers=model.n_layers, training=pd.DataFrame(),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"at points \[3\]: the tuned lens has 2 below the last"):
        causal_test(model, prompts, sets, layers=[2, 3], lens=lens, progress=False)
    few = prompts.select(ids=prompts.ids[:5])
    with pytest.raises(TooFewItems, match="needs 8"):
        causal_test(model, few, sets, progress=False)
    with pytest.raises(ValueError, match="of the causal test"):
        LensStudy(pairs=("de:fr",), donors=3)
    with pytest.raises(ValueError, match="takes task translation"):
        LensStudy(pairs=("de:fr",), task="cloze", causal=True)


def test_words_of_too_few_languages_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a third to show words of"):
        planted.bound_pivot(languages=2)
    model, prompts, _ = world("bound", 0)
    bed = planted.bound_pivot(seed=0, **NOISE)
    few = target_sets(model, bed.answers, languages=["ar", "en"], extra=["de"], match="first")
    with pytest.raises(ValueError, match="two others or more"):
        causal_test(model, prompts, few, progress=False)
    # Of a list of words that is seen before a model is loaded, as are sets in one language alone.
    words = tmp_path / "words.tsv"
    rows = [f"{n}\tun{n}\tодин{n}\tone{n}\tuno{n}" for n in range(20)]
    words.write_text("\n".join(["id\tfr\tru\ten\tes", *rows]), "utf-8")
    study = LensStudy(pairs=("fr:ru",), words=words, causal=True)
    with pytest.raises(ValueError, match=r"besides fr, ru, en; there are 1: es"):
        study.check(study.read())
    alone = target_sets(model, bed.answers[["ar"]], languages=["ar"], match="first")
    with pytest.raises(ValueError, match="Got ar for"):
        causal_test(model, prompts, alone, progress=False)
    states = xlens.harvest(model, prompts, progress=False)
    with pytest.raises(ValueError, match="pivot is 'en', and the words to be read are ar"):
        xlens.logit_lens(states, model, alone, progress=False)


def test_results_are_saved_and_the_study_makes_them(tmp_path):
    found, summary = causal_of("bound", 0)
    for part in (found, summary, causal_verdicts({"a": summary})):
        part.save(tmp_path / type(part).__name__)
        back = xlens.results.load(tmp_path / type(part).__name__)
        pd.testing.assert_frame_equal(back.to_frame(), part.to_frame())
    study = LensStudy(pairs=("de:ru",), causal=True)
    assert study.others_of("de", "ru") == ("es", "zh-Hans", "ar", "hi")
    assert study.others_of("de", "ru", ["en", "it", "fr", "de"]) == ("fr", "it")


def test_shares_of_languages_are_those_of_mean_probabilities_at_relative_depths():
    rows = pd.DataFrame(
        [
            {"prompt": p, "id": str(p), "layer": layer, "language": tag, "prob": prob * (1 + p)}
            for p in range(6)
            for layer, probs in enumerate([(0.1, 0.1), (0.3, 0.1), (0.0, 0.4)])
            for tag, prob in zip(("en", "de"), probs, strict=True)
        ]
    )
    told = {"states": rows, "top": rows, "n_layers": 2, "source": "fr", "target": "de"}
    told |= {"pivot": "en", "task": "translation", "match": "first", "provenance": {"model": "m"}}
    found = language_shares({"a": LensResult(rows=rows, **told)})
    english = found.table[found.table["language"] == "en"].set_index("depth")["share"]
    assert english[0.0] == english[0.0] and np.isclose(english[0.5], 0.75)
    np.testing.assert_allclose([english[0.0], english[1.0]], [0.5, 0], atol=1e-12)
    np.testing.assert_allclose(english[0.2], 0.18 / 0.28)  # (.1, .1) and (.3, .1), two fifths on
    both = found.inside.set_index("language")["share"]
    np.testing.assert_allclose(both.sum(), 1)
    assert (found.inside["low"] <= found.inside["share"] + 1e-9).all()
    # Another model's run stands beside it by what is asked, not by what the model is called.
    halved = rows.assign(prob=rows["prob"] / (1 + (rows["language"] == "en")))
    other = language_shares({"b": LensResult(rows=halved, **told | {"provenance": {"model": "o"}})})
    beside = compare(found, other).table
    assert set(beside["where"]) == {"en", "de"} and set(beside["measure"]) >= {"share", "low"}
    moved = beside[beside["measure"] == "share"].set_index("where")["difference"]
    assert moved["en"] < 0 < moved["de"]
    gone = LensResult(rows=rows[rows["layer"] > 0], **told)  # as under a published Jacobian lens
    assert language_shares({"a": gone}).table["depth"].min() == 0.5
    with pytest.raises(ValueError, match="no results"):
        language_shares({})


def test_the_page_says_the_verdict_and_draws_what_was_done():
    summary = causal_of("bound", 0)[1]
    parts = {
        "de_ar.causal/causal-summary": summary,
        "verdicts": causal_verdicts({"de_ar": summary}),
    }
    drawn: dict = {}
    (section,) = causal_sections(parts, figures=drawn)
    (finding,) = section.blocks[0].items
    assert finding.verdict == "Carried in the pivot." and "points 3, 5" in finding.text
    assert finding.anchor == "de_ar-causal"  # a link to its drawing
    assert len(section.blocks[1].rows) == 1 and list(drawn) == ["de_ar-causal"]
    titles = [note.text for note in drawn["de_ar-causal"].layout.annotations]
    assert "Exchanged at the last position" in titles and len(drawn["de_ar-causal"].data) == 16
    assert causal_sections({"verdicts": causal_verdicts({})}) == []
    assert len(causal_sections(parts)[0].blocks) == 2  # a terminal draws nothing
    # Names that would read alike are told apart, as on the rest of the page.
    parts["de_ar.causal/causal-summary"] = replace(summary, others=("zh-Hans", "zh-Hant"))
    text = causal_sections(parts)[0].blocks[0].items[0].text
    assert "words in Simplified Chinese, Traditional Chinese." in text
