"""Intervals are drawn as a study, a YAML file or a command line asks, and results say how."""

import json
from pathlib import Path

import pytest
import yaml

import tiny
from xlens import studies
from xlens.cli import app, main
from xlens.consistency import ConsistencyResult
from xlens.runs import RunDirectory
from xlens.stats import Resampling

ASKED = {"draws": 37, "confidence": 0.8, "seed": 3, "clusters": "id"}
LINE = [word for name, value in ASKED.items() for word in (f"--{name}", str(value))]
COMMANDS = {
    "demo": [],
    "lens": ["m", "--from", "de", "--to", "fr"],
    "choices": ["m", "--languages", "en", "de"],
    "process": ["m", "--languages", "en", "de"],
    "steer": ["m", "--languages", "en", "de"],
    "xmrc": ["m"],
    "phases": ["m"],
    "facts": ["m", "--languages", "en", "de"],
    "align": ["m", "--from", "de"],
    "fit-lens": ["m", "--languages", "en", "de"],
    "neurons": ["m", "--languages", "en", "de"],
    "subspace": ["m", "--sentences", "folder"],
    "twins": ["m", "n", "--languages", "en", "de"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_draws_takes_them(command):
    _, bound, _ = app.parse_args([command, *COMMANDS[command], *LINE], exit_on_error=False)
    (given,) = [v for v in bound.arguments.values() if isinstance(v, studies.Study)]
    assert given.resampling == Resampling(**ASKED)


def test_every_study_has_them():
    # A page of the docs writes one of its own, which is there once it has run.
    asked = {n: k for n, k in studies.find_studies().items() if k.__module__.startswith("xlens.")}
    assert asked.keys() == {*COMMANDS, "demo"}
    for kind in asked.values():
        assert kind(**ASKED).resampling == Resampling(**ASKED)
        for name, value, said in (
            ("draws", 0, "accepted are 1 to"),
            ("confidence", 95.0, "between 0 and 1"),
            ("clusters", "page", "drawn by .*id"),
        ):
            with pytest.raises(ValueError, match=said):
                kind(**{name: value})


def test_what_was_drawn_by_is_read_from_a_provenance():
    how = Resampling(**ASKED)
    assert Resampling.of(how.provenance()) == how
    assert Resampling.of({"model": "m", "panel": {"weights": 1, **how.provenance()}}) == how
    assert Resampling.of({"model": "m"}) == Resampling()
    assert (how.percent, Resampling(confidence=0.999).percent) == ("80 %", "99.9 %")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return tiny.make("gpt2", tmp_path_factory.mktemp("models") / "tiny-gpt2", n_positions=512)


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def run(*line: object) -> int:
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in line])
    return int(done.value.code or 0)


def test_a_yaml_file_reaches_the_numbers_and_the_page(gpt2, capsys):
    rows = [
        {"id": f"q{i}", "language": tag, "question": f"{i}?", "options": options, "gold": i % 2}
        for i in range(6)
        for tag, options in (("en", ["cat", "big dog"]), ("de", ["Katze", "Hund"]))
    ]
    Path("items.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    asked = {"choices": {"model": str(gpt2), "items": "items.jsonl", "shots": 0, **ASKED}}
    Path("mine.yaml").write_text(yaml.safe_dump(asked), encoding="utf-8")
    assert run("--config", "mine.yaml", "choices", "--out", "asked") == 0
    panel = ConsistencyResult.load("asked/results/tiny-gpt2/items/consistency")
    assert Resampling.of(panel.provenance) == Resampling(**ASKED)
    assert ASKED.items() <= RunDirectory.open("asked").config["choices"].items()
    page = Path("asked/report.html").read_text(encoding="utf-8")
    assert "Intervals are 80 %" in page and "95 %" not in page
    asked["choices"]["confidence"] = 0.95
    Path("mine.yaml").write_text(yaml.safe_dump(asked), encoding="utf-8")
    assert run("--config", "mine.yaml", "choices", "--out", "wider") == 0
    wider = ConsistencyResult.load("wider/results/tiny-gpt2/items/consistency").languages
    assert (
        (wider["high"] - wider["low"]) > (panel.languages["high"] - panel.languages["low"])
    ).all()
    capsys.readouterr()
    assert run("choices", "no-model", "--languages", "en", "de", "--confidence", "95") == 2
    assert "between 0 and 1" in capsys.readouterr().err


def test_a_lens_run_is_drawn_anew_without_running_again(gpt2, monkeypatch):
    line = ["lens", gpt2, "--from", "ru", "--to", "ar", "--kinds", "weekday", "--out"]
    few = ["--n-items", "5", "--n-controls", "2", "--controls", "shuffled"]
    assert run(*line, "run", *few, "--draws", "40") == 0
    first = Path("run/report.html").read_text(encoding="utf-8")
    assert "95 % bootstrap intervals" in first
    monkeypatch.setattr("xlens.studies.steps.pairing.harvest", None)
    assert run(*line, "run", *few, "--draws", "40", "--confidence", "0.5") == 0
    second = Path("run/report.html").read_text(encoding="utf-8")
    assert "50 % bootstrap intervals" in second
    assert RunDirectory.open("run").resampling == Resampling(draws=40, confidence=0.5)
    assert run("report", "run") == 0
    assert Path("run/report.html").read_text(encoding="utf-8") == second
