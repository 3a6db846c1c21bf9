"""`ProcessStudy` and `xlens process`: every part is saved, resumed, reported and refused."""

import re

import kit
import pytest
from pages import same_sentences
from studied import study_process

from xlens.cli import main
from xlens.report import write_report
from xlens.report.process import process_findings
from xlens.runs import RunDirectory
from xlens.stats import Resampling
from xlens.studies import ProcessStudy
from xlens.tasks.choices import cldr_choices

LANGUAGES = ["en", "de", "fr", "sw"]


@pytest.fixture(scope="module")
def folder(family_dir):
    return family_dir("gemma3")


@pytest.fixture(scope="module")
def choices():
    return cldr_choices(LANGUAGES, seed=0)


PUSHED = {"layers": (1,), "strengths": (1.0,), "n_estimate": 6, "n_dev": 3, "n_test": 3}
STUDY = ProcessStudy(
    n_items=6,
    n_latent=5,
    shots=1,
    steer=("mean_difference",),
    **PUSHED,
    n_controls=1,
    n_outputs=1,
    draws=60,
    confidence=0.9,
    clusters="id",
)
DRAWN = Resampling(60, 0.9, 0, "id")
OPTIONS = [
    *("--languages", *LANGUAGES, "--n-items", "6", "--shots", "1", "--steer", "mean_difference"),
    *("--draws", "60", "--confidence", "0.9"),
    *("--layers", "1-2", "--strengths", "1", "--n-estimate", "6", "--n-dev", "3", "--n-test", "3"),
]


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_have_it")
def test_parts_are_kept_and_read_again(folder, choices, tmp_path, monkeypatch):
    model = kit.model(folder)
    found = study_process(model, choices, study=STUDY, folder=tmp_path, progress=False)
    assert list(found) == [
        *("consistency", "similarity", "probe", "map", "latent", "latent-summary", "dissociation"),
        "steering",
    ]
    for part in found.values():
        kit.names_its_model(part, model)
        assert Resampling.of(part.provenance) in (DRAWN, Resampling())
    for name in ("consistency", "similarity", "probe", "dissociation", "steering"):
        assert Resampling.of(found[name].provenance) == DRAWN
    assert found["steering"].provenance["steering"]["study"]["shots"] == 1
    assert found["similarity"].layers == tuple(range(1, model.n_layers + 1))
    sentences = process_findings(found)
    assert any("pairs of languages" in s for s in sentences)
    assert any("by mean difference (layer 1, strength 1" in s for s in sentences)
    (saved,) = tmp_path.glob("results/*/items/latent/result.json")
    saved.unlink()  # as a kill would leave it
    monkeypatch.setattr("xlens.studies.steps.latent_process.score_choices", None)
    monkeypatch.setattr("xlens.studies.steps.steering.steer_choices", None)
    again = study_process(model, choices, study=STUDY, folder=tmp_path, progress=False)
    assert again["consistency"].to_frame().equals(found["consistency"].to_frame())
    assert again["latent"].to_frame().equals(found["latent"].to_frame())
    other = ProcessStudy(n_items=5, n_latent=5, shots=1)
    with pytest.raises(ValueError, match=r"another config: it differs in process\.clusters"):
        study_process(model, choices, study=other, folder=tmp_path, progress=False)


def test_what_the_items_do_not_allow_is_left_out(choices):
    without = choices.select(languages=["de", "fr", "sw"])
    asked = ProcessStudy()
    assert asked.parts_of(without) == ("consistency", "similarity", "probe", "map")
    assert STUDY.without(without) == {
        "latent": "the items have no en, only de, fr, sw",
        "dissociation": "it needs 4 languages or more, and there are 3",
    }
    # What is asked for is never left out.
    with pytest.raises(ValueError, match=r"to 'en', but .* has de, fr, sw: add that language"):
        ProcessStudy(steer=("lda",)).check({"x": without})
    with pytest.raises(ValueError, match="200 are needed"):
        ProcessStudy(steer=("lda",)).check({"x": choices.sample(50)})
    with pytest.raises(ValueError, match="at least 5"):
        ProcessStudy(n_items=2)


def run(*line: str) -> None:
    with pytest.raises(SystemExit) as done:
        main(line)
    assert not done.value.code


@pytest.mark.slow
def test_the_command_reports(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    run("process", str(folder), *OPTIONS, "--out", str(out))
    said = capsys.readouterr().out
    assert "Report: " in said and re.search("Right (most|equally) often", said)
    same_sentences(out / "report.html", said)
    html = (out / "report.html").read_text(encoding="utf-8")
    for part in (
        "agreement",
        "transfer",
        "lift",
        "similarity",
        "probe",
        "map",
        "latent",
        "dissociation",
    ):
        assert (out / "figures" / f"cldr-{part}.html").is_file()
    for part in ("surface", "effects", "languages"):
        assert f"cldr-steering-{part}" in html
    assert "English (vector of German)" in html
    assert "intervals are 90 %" in html
    assert re.search("shaded: 90 ?% interval", html)
    before = (out / "report.html").read_bytes()
    write_report(RunDirectory.open(out))
    assert (out / "report.html").read_bytes() == before
    run("process", str(folder), *OPTIONS, "--out", str(out))  # goes on where it was


def test_the_command_refuses_before_it_loads(tmp_path, capsys):
    for options, message in (
        (["--languages", "en"], "two"),
        (["--languages", "en", "de", "--steer", "x"], "Choose from"),
        (["--languages", "en", "de", "--steer", "lda", "--layers", "a-b"], "give a layer"),
        (["--items", "missing.jsonl"], "missing.jsonl"),
    ):
        with pytest.raises(SystemExit):
            main(["process", "no-such-model", *options, "--out", str(tmp_path / "x")])
        assert message in capsys.readouterr().err
        assert not (tmp_path / "x").exists()
