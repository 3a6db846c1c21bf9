"""Studies that read inside take a lens: what comes out is what the analysis reads through it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import readings

import tiny
import xlens
from xlens.figures import phase_curves
from xlens.lens import JacobianLens, write_jacobian_lens
from xlens.lens.places import lens_layers
from xlens.phases import evidence
from xlens.report import write_report
from xlens.runs import RunDirectory
from xlens.studies import ChoicesStudy, LensStudy, PhasesStudy, ProcessStudy, ReadingStudy
from xlens.studies.steps.latent_language import pair_steps
from xlens.studies.steps.reading_prompts import inside_prompts
from xlens.studies.study import Kept
from xlens.tasks.choices import cldr_choices, latent_options
from xlens.tasks.words import WordList

LANGUAGES = ("en", "de", "ru")


@pytest.fixture(scope="module")
def model():
    return xlens.load(tiny.model("llama", max_position_embeddings=1024), tiny.tokenizer("llama"))


@pytest.fixture(scope="module")
def lens(model):
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 64, 64)))[0]
    return JacobianLens(
        provenance={"model": model.name},
        matrices=turned.astype(np.float32),
        offsets=np.empty(0, np.float32),
        layers=(1, 2),
        n_layers=model.n_layers,
        fingerprint=model.fingerprint,
    )


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, lens):
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    lens.save("own")
    Path("stories").mkdir()
    for tag in ("en", "de"):
        text = json.dumps(readings.squad(tag), ensure_ascii=False)
        Path(f"stories/stories.{tag}.json").write_text(text, encoding="utf-8")


def few() -> ChoicesStudy:
    return ChoicesStudy(n_items=6, shots=1, lens=("jacobian=own",), n_latent=5, draws=40)


def test_options_by_layer_are_those_that_the_lens_reads(model, lens):
    choices = cldr_choices(LANGUAGES, seed=0)
    done = xlens.run(few(), model, data=choices, out="run", progress=False)
    assert [*done.parts] == [
        f"items/{part}" for part in ("scores", "consistency", "latent", "latent-summary")
    ]
    found, means = done.parts["items/latent"], done.parts["items/latent-summary"]
    asked = few().read_inside(choices)
    shown = {"shots": 1, "pool": choices, "progress": False}
    wanted = latent_options(model, asked, lens=lens, **shown)
    pd.testing.assert_frame_equal(found.options, wanted.options)
    assert set(found.options["layer"]) == {1, 2, 3} and len(set(found.options["id"])) <= 5
    plain = latent_options(model, asked, **shown)
    assert not plain.items.query("layer == 1").equals(wanted.items.query("layer == 1"))
    assert (found.lens, means.lens, plain.lens) == ("jacobian", "jacobian", "logit")
    page = write_report(RunDirectory.open("run")).read_text(encoding="utf-8")
    assert "Jacobian lens" in page and 'id="inside"' in page
    # Another way of comparing makes the summary anew, and nothing that ran a model.
    before = Path(next(Path("run").glob("results/*/items/latent/result.json"))).read_bytes()
    other = replace(few(), by="char_logprob")
    again = xlens.run(other, model, data=choices, out="run", progress=False)
    assert again.parts["items/latent-summary"].by == "char_logprob"
    assert next(Path("run").glob("results/*/items/latent/result.json")).read_bytes() == before


def test_process_reads_its_options_through_the_lens(model, lens):
    choices = cldr_choices(LANGUAGES, seed=0)
    study = ProcessStudy(n_items=6, n_latent=5, shots=1, lens=("jacobian=own",), draws=40)
    done = xlens.run(study, model, data=choices, progress=False)
    assert done.parts["items/latent"].lens == done.parts["items/latent-summary"].lens == "jacobian"
    assert "jacobian=own" in study.digest({"items": choices})["lens"]
    assert "lens" not in replace(study, lens=("logit",)).digest({"items": choices})


@pytest.mark.parametrize("kind", [PhasesStudy, ReadingStudy])
def test_phases_read_the_answer_through_the_lens(kind, model, lens):
    more = {"phases": True, "n_items": 4, "n_controls": 2, "max_new_tokens": 2}
    study = kind(
        data="stories", n_phases=4, shots=0, kinds=("readable",), phase_languages=("en",),
        relevance_rule="gradient", controls=(), draws=40, lens=("jacobian=own",),
        **(more if kind is ReadingStudy else {}),
    )  # fmt: skip
    data = study.read()
    done = xlens.run(study, model, progress=False)
    curves, means = done.parts["curves"], done.parts["curves-summary"]
    own = inside_prompts(data, study, model).own
    wanted = evidence(model, own, kinds=["readable"], lens=lens, progress=False)
    np.testing.assert_array_equal(curves.values, wanted.values)
    assert np.isnan(curves.values[..., 0]).all() and np.isfinite(curves.values[..., 1:]).all()
    assert curves.lens == means.lens == "jacobian"
    titles = [note.text for note in phase_curves(means).layout.annotations]
    assert any("Jacobian lens" in title for title in titles)
    assert study.digest(data)["lens"].keys() == {"jacobian=own"}


def test_a_lens_of_unknown_origin_that_reads_something_else_is_refused(model, lens):
    write_jacobian_lens(replace(lens, fingerprint=""), "theirs.pt")
    study = replace(few(), lens=("jacobian=theirs.pt",))
    with pytest.raises(ValueError, match="at least 30% are wanted"):
        xlens.run(study, model, data=cldr_choices(LANGUAGES, seed=0), progress=False)
    inside = PhasesStudy(
        data="stories", n_phases=4, shots=0, kinds=("readable",), phase_languages=("en",),
        relevance_rule="gradient", controls=(), lens=("jacobian=theirs.pt",),
    )  # fmt: skip
    with pytest.raises(ValueError, match="at least 30% are wanted"):
        xlens.run(inside, model, progress=False)


@pytest.mark.parametrize(
    "ask, said",
    [
        (lambda: ChoicesStudy(pivot="de"), r"--pivot: of what is read inside.*\(--lens\)"),
        (lambda: ChoicesStudy(lens=("logit", "tuned=own")), "accepted is one"),
        (lambda: ProcessStudy(lens=()), "one or more of logit"),
        (lambda: ReadingStudy(lens=("tuned=own",)), r"--lens: of .*\(--phases\)"),
        (lambda: PhasesStudy(kinds=("ablate_context",), lens=("tuned=x",)), "ask for readable"),
    ],
)
def test_lenses_that_nothing_is_read_through_are_refused(ask, said):
    with pytest.raises(ValueError, match=said):
        ask()


def test_what_is_not_there_is_refused_before_a_model_is_loaded():
    choices = {"items": cldr_choices(LANGUAGES, seed=0)}
    with pytest.raises(ValueError, match="have no it: there are en, de, ru"):
        replace(few(), pivot="it").check(choices)
    for place, said in (("nowhere/x", "no such file"), ("stories", "expected a run of")):
        for study in (few(), ProcessStudy()):
            asked = replace(study, lens=(f"jacobian={place}",))
            if said == "no such file":
                asked = replace(study, lens=(f"tuned={place}",))
            with pytest.raises(ValueError, match=said):
                asked.check(choices)
    reading = PhasesStudy(data="stories", lens=("tuned=nowhere",))
    with pytest.raises(ValueError, match="no such file"):
        reading.check(reading.read())
    assert lens_layers("jacobian=own") == (1, 2) and lens_layers("logit") is None
    words = pd.DataFrame({"fr": ["chat"], "ru": ["кот"], "en": ["cat"]}, index=["cat"])
    for layers, more, said in (
        ((0, 1), {"lens": ("jacobian=own",)}, r"none of \[0\], only 1, 2"),
        ((-1,), {}, "accepted are 0 to the model's last but one"),
    ):
        study = LensStudy(pairs=("fr:ru",), causal=True, layers=layers, **more)
        with pytest.raises(ValueError, match=said):
            study.check(words)


def test_one_of_several_lenses_that_is_another_model_s_is_refused_before_any_is_read(model, lens):
    wide = replace(lens, matrices=np.zeros((len(lens.layers), 8, 8), np.float32), fingerprint="")
    write_jacobian_lens(wide, "wide.pt")
    frame = pd.DataFrame({"fr": ["chat"], "ru": ["кот"], "en": ["cat"]}, index=["cat"])
    words = WordList(frame, "here")
    study = LensStudy(pairs=("fr:ru",), lens=("logit", "jacobian=wide.pt"))
    with pytest.raises(ValueError, match=r"3 layers of 8; .* has 3 of 64. Fit one on"):
        next(pair_steps(model, words, study, Kept()))


def test_layers_of_the_causal_test_that_a_model_lacks_are_refused(model):
    study = LensStudy(pairs=("fr:ru",), causal=True, layers=(1, 3))
    assert study.outlined
    with pytest.raises(ValueError, match="accepted are 0 to 2: at the last"):
        study.check(study.read(), model)
