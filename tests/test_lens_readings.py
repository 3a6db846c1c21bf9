"""What lenses read of held-out text, what they are fitted on, and what a page says of several."""

import dataclasses
import time

import numpy as np
import pandas as pd
import pytest
from pages import Page

import tiny
import xlens
from xlens import Prompt, Prompts, harvest
from xlens.figures import language_shares_curves
from xlens.lens import LOGIT, JacobianLens, agreement, read_texts_through, require_agreement
from xlens.lens.readings import trusted
from xlens.report import write_report
from xlens.report.lens import _between_lenses, _unknown_origin
from xlens.runs import ACROSS, RunDirectory
from xlens.studies import FitLensStudy, LensStudy, Loading
from xlens.studies.steps.lens_fits import parted
from xlens.tasks.running_text import passages, read_texts

WORDS = ["the", "cat", "old", "river", "moon", "town", "harbour", "walk", "stone", "wall"]


@pytest.fixture(scope="module")
def model():
    return xlens.load(tiny.model("llama"), tiny.tokenizer("llama"))


def texts(n=6, tags=("en", "de"), words=14):
    draw = np.random.default_rng(0)
    return [
        Prompt(" ".join(draw.choice(WORDS, words)), tag, f"{tag}/{i}")
        for tag in tags
        for i in range(n)
    ]


def lens_of(model, matrix, **changed):
    return JacobianLens(
        provenance={},
        matrices=np.broadcast_to(matrix, (3, 64, 64)).astype(np.float32).copy(),
        offsets=np.empty(0, dtype=np.float32),
        layers=(0, 1, 2),
        n_layers=3,
        **changed,
    )


@pytest.fixture(scope="module")
def states(model):
    return harvest(model, texts(), slots="all", progress=False)


def test_readings_are_those_of_the_plain_formula(model, states):
    """The identity reads as the logit lens; a lens of noise is farther, by what it is."""
    noise = np.random.default_rng(1).normal(size=(64, 64))
    lenses = {"same": lens_of(model, np.eye(64)), "noise": lens_of(model, noise)}
    found = read_texts_through(
        model,
        states,
        {"en": lenses, "de": lenses},
        against=[("same", "logit"), ("noise", "logit")],
        positions=3,
        skip=2,
        progress=False,
    )
    table = found.table.set_index(["lens", "language", "layer"])["kl"]
    pd.testing.assert_series_equal(table["same"], table["logit"], check_names=False)
    assert (found.table[found.table["layer"] == 3]["kl"] == 0).all()
    # By hand, of one text: three positions from the second on, the last left out.
    kept = states.slot("all")
    first, stop = (int(x) for x in kept.offsets[:2])
    rows = np.unique(np.linspace(2, stop - first - 2, 3).round().astype(int))
    logprobs = model.readout.logits(kept.values[:, first + rows]).log_softmax(-1)
    last = logprobs[-1]
    by_hand = ((last.exp() * (last - logprobs)).sum(-1) / np.log(2)).mean(1)
    alone = read_texts_through(
        model, states.select(ids=["en/0"]), {"en": {}}, positions=3, skip=2, progress=False
    )
    np.testing.assert_allclose(alone.table["kl"], by_hand, atol=1e-4)
    # Above 0: the first lens is farther from the output.
    changes = found.changes.set_index(["lens", "language"])["kl"].sort_index()
    table = table.sort_index()
    assert np.allclose(changes["same"], 0)
    for tag in ("en", "de"):
        mine = table["noise", tag] - table["logit", tag]
        assert changes["noise", tag] == pytest.approx(mine[:3].mean(), rel=1e-4)
    assert found.told_apart("noise", level=0.2)["n"] == 2
    assert found.told_apart("nobody") == {}


def test_a_lens_of_unknown_origin_must_say_what_the_model_says(model, states, monkeypatch, caplog):
    good = lens_of(model, np.eye(64))
    plain = agreement(model, states, LOGIT)
    assert agreement(model, states, good) == plain
    noise = lens_of(model, np.random.default_rng(1).normal(size=(64, 64)))
    assert agreement(model, states, noise) < 0.3
    with pytest.raises(ValueError, match="fitted on other weights"):
        require_agreement(model, states, noise)
    if plain >= 0.3:
        assert require_agreement(model, states, good) == plain
    monkeypatch.setattr("xlens.lens.readings.LEAST", 0.0)
    assert trusted(model, good, lambda: states) is good
    (said,) = caplog.messages
    assert "doesn't say which weights" in said and f"in {100 * plain:.0f} % of cases" in said
    known = dataclasses.replace(good, fingerprint=model.fingerprint)
    assert trusted(model, known, lambda: pytest.fail("not needed")) is known
    assert trusted(model, LOGIT, lambda: pytest.fail("not needed")) is LOGIT
    assert len(caplog.messages) == 1


def test_passages_have_enough_tokens_and_hold_every_text(model):
    asked = Prompts(texts(12))
    found = passages(asked, model.tokenizer, tokens=20, most=50)
    for tag, mine in found.items():
        for passage in mine:
            n = len(model.tokenizer(passage.text, add_special_tokens=False)["input_ids"])
            assert n >= 20 and passage.language == tag
        together = "".join(p.text for p in mine).replace("\n", "")
        whole = "".join(t.text for t in asked if t.language == tag)
        assert whole.startswith(together) and len(together) > 0.7 * len(whole)


def test_no_passage_is_fitted_on_and_read(model):
    study = FitLensStudy(n_texts=8, n_held=3, rotation=1, max_tokens=20, skip=2)
    fitted, held = parted(Prompts(texts(30)), model.tokenizer, study)
    for tag in ("en", "de"):
        assert (len(fitted[tag]), len(held[tag])) == (8, 3)
        assert not {p.text for p in fitted[tag]} & {p.text for p in held[tag]}
    with pytest.raises(ValueError, match="11 passages of 20 tokens are wanted"):
        parted(Prompts(texts(2)), model.tokenizer, study)
    few = FitLensStudy(n_texts=4, rotation=1, max_tokens=20, skip=2)
    with pytest.raises(ValueError, match=r"n_texts is 4 in each .*needs 10"):
        few.check(Prompts(texts(30)))  # before the other lenses are fitted


def test_texts_of_files(tmp_path):
    (tmp_path / "wiki.de.txt").write_text("eins\n\nzwei\n")
    (tmp_path / "b.txt").write_text("one\n")
    (tmp_path / "c.jsonl").write_text('{"text": "uno", "language": "es", "id": "1"}\n')
    found = read_texts([f"{tmp_path}/wiki.de.txt", f"en={tmp_path}/b.txt", f"{tmp_path}/c.jsonl"])
    said = [(p.language, p.text) for p in found]
    assert said == [("de", "eins"), ("de", "zwei"), ("en", "one"), ("es", "uno")]
    with pytest.raises(ValueError, match=r"Which language is .* in"):
        read_texts([f"{tmp_path}/b.txt"])


def test_languages_that_texts_or_words_lack_are_refused_before_a_model_is_loaded(tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "The cat sat on the mat.", "language": "en"}\n', "utf-8")
    with pytest.raises(ValueError, match=r"No text in de; there is text in en"):
        FitLensStudy(text=(str(file),), languages=("en", "de")).read()
    words = tmp_path / "words.tsv"
    words.write_text("fr\nchat\nchien\n", "utf-8")
    for study in (
        LensStudy(pairs=("fr:ru",), words=words),
        LensStudy(pairs=("fr:ru",), words=words, causal=True),
    ):
        with pytest.raises(ValueError, match="ru"):
            study.read()


def test_a_page_says_under_which_lens_the_pivot_shows(monkeypatch):
    """From what each lens found, not the other way round."""
    from xlens.lens.result import LensSummary
    from xlens.report import lens as page

    landmarks = pd.DataFrame(
        {"name": ["pivot_peak_prob"], "value": [0.4], "low": [0.3], "high": [0.5], "n": [9]}
    )
    empty = pd.DataFrame()
    one = LensSummary(
        provenance={"model": "m"}, curves=empty, states=empty, composition=empty,
        landmarks=landmarks, n_layers=3, source="fr", target="de", pivot="en",
        task="translation", confidence=0.95,
    )  # fmt: skip
    pairs = {
        "fr_de": {"translation": one},
        "fr_de.tuned": {"translation": dataclasses.replace(one, lens="tuned")},
    }
    names = {"fr": "French", "de": "German", "en": "English"}

    def said(logit, tuned):
        shows = {"logit": logit, "tuned": tuned}
        monkeypatch.setattr(
            page, "pivot_shows", lambda conditions: shows[conditions["translation"].lens]
        )
        (section,) = _between_lenses(pairs, names, {})
        return " ".join(finding.text for finding in section.blocks[0].items)

    assert "than in the controls under the logit lens, and not under the tuned" in said(True, False)
    assert "agree. English words are more probable" in said(True, True)
    assert "agree. English words are not more probable" in said(False, False)
    assert "of the tuned lens nothing can be told" in said(True, None)
    assert _between_lenses({"fr_de": pairs["fr_de"]}, names, {}) == []
    assert _unknown_origin(pairs) == []
    how = {"through": {"kind": "jacobian", "fitted_on": "unknown"}}
    theirs = dataclasses.replace(one, lens="jacobian", provenance={"model": "m", "lens": how})
    (known,) = _unknown_origin({"fr_de.jacobian": {"translation": theirs}})
    assert "Which weights the Jacobian lens was fitted on isn't known" in known
    # Two checkpoints of a model, which call it alike, are two.
    both = {f"{whose}-{pair}": part for whose in ("a@1", "a@2") for pair, part in pairs.items()}
    (section,) = _between_lenses(both, names, {key: key[:3] for key in both})
    told = [finding.text for finding in section.blocks[0].items]
    assert len(section.blocks[1].rows) == 4 and "French → German, a@2: the lenses agree" in told[2]


def test_checkpoints_are_told_apart_on_the_page(tmp_path):
    study = LensStudy(pairs=("de:ru",), kinds=("weekday",), n_items=3, controls=(), draws=20)
    both = Loading(revision=("step512", "step2048"))
    xlens.run(study, "atlas", loading=both, out=tmp_path / "two", progress=False)
    run = RunDirectory.open(tmp_path / "two")
    page = Page(write_report(run).read_text(encoding="utf-8"))
    ids = {attrs.get("id") for _, attrs in page.elements}
    assert {"leaderboard", "language-shares", "all-pairs"} <= ids and page.hangs_together()
    for step in ("step512", "step2048"):
        told = f"atlas@{step}"
        assert page.text.count(f"German → Russian, {told}") >= 3  # what was found, shares, section
        for file in ("language-shares", "all-pairs"):
            assert told in (run.figures / f"{file}.html").read_text(encoding="utf-8")
    shares = run.parts(ACROSS)["language-shares"]
    titles = [note.text for note in language_shares_curves(shares).layout.annotations[:2]]
    assert titles == list(dict.fromkeys(shares.table["name"]))
    below = language_shares_curves(shares, columns=1).layout
    assert below.xaxis.title.text is None and below.xaxis2.title.text == "relative depth"


@pytest.mark.slow
def test_on_the_atlas_the_tuned_lens_reads_nearer_at_every_point_and_fits_take_minutes(tmp_path):
    """Both kinds, in eight languages, and what they read of text that was held out."""
    began = time.process_time()
    study = FitLensStudy().of_models(["atlas"])
    done = xlens.run(study, "atlas", out=tmp_path / "run", progress=False)
    assert time.process_time() - began < 600  # of one core; measured: 136
    table = done.parts["readings"].table
    kl = table.pivot(index=["language", "layer"], columns="lens", values="kl")
    below = kl[kl.index.get_level_values("layer") < done.parts["readings"].n_layers]
    assert len(below) == 8 * 6 and (below["tuned"] < below["logit"]).all()
    means = below.groupby("layer").mean()
    assert (means["jacobian"] < means["logit"]).all()
