"""A command that is given again after its inputs changed never reports the old numbers as new."""

import importlib
import json
import shutil
from pathlib import Path

import pytest
import readings

import tiny
from xlens.cli import main

TAGS = ("en", "de", "ru")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    # A page takes a second.
    job = importlib.import_module("xlens.cli.study_job")
    monkeypatch.setattr(job, "write_report", lambda run, **_: run.report_file)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two checkpoints of one shape."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        tiny.make("gpt2", folder / str(seed), seed=seed, n_positions=512)
    return folder


@pytest.fixture
def model(made, tmp_path) -> Path:
    return Path(shutil.copytree(made / "0", tmp_path / "model"))


def lines(rows: list[dict], name: str) -> None:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    Path(name).write_text(text, encoding="utf-8")


def words(first: str = "one") -> None:
    rows = [{"id": str(n), **{t: f"{t}{n}" for t in ("en", "de", "ru")}} for n in range(9)]
    rows[0]["de"] = first
    lines(rows, "words.jsonl")


def questions(gold: int = 0, text: str = "which") -> None:
    rows = [
        {"id": str(n), "language": tag, "question": f"{tag} {text} {n}?", "gold": (n + gold) % 2}
        | {"options": [f"{tag} yes {n}", f"{tag} no {n}"]}
        for n in range(12)
        for tag in TAGS
    ]
    lines(rows, "items.jsonl")


def stories(more: str = "") -> None:
    Path("stories").mkdir(exist_ok=True)
    for tag in ("en", "de"):
        data = readings.squad(tag)
        data["data"][0]["paragraphs"][0]["qas"][0]["question"] += more
        Path(f"stories/stories.{tag}.json").write_text(json.dumps(data, ensure_ascii=False))


COMMANDS = {
    "lens": ["--from", "de", "--to", "ru", "--words", "words.jsonl", "--n-items", "4",
             "--controls", "shuffled"],
    "choices": ["--items", "items.jsonl", "--n-items", "8", "--shots", "1"],
    "process": ["--items", "items.jsonl", "--n-items", "8", "--shots", "1"],
    "xmrc": ["--data", "stories", "--n-items", "4", "--n-controls", "2", "--shots", "0"],
}  # fmt: skip
INPUTS = {"lens": words, "choices": questions, "process": questions, "xmrc": stories}
CHANGES = {
    "word": ("lens", lambda: words("two"), "words"),
    "gold": ("choices", lambda: questions(gold=1), "items"),
    "question": ("choices", lambda: questions(text="what"), "items"),
    "gold of process": ("process", lambda: questions(gold=1), "items"),
    "question of process": ("process", lambda: questions(text="what"), "items"),
    "question of a text": ("xmrc", lambda: stories(" really"), "data"),
}


def ask(command: str, model: Path, capsys) -> str:
    """What a command says; an error is put before it."""
    code = 0
    try:
        main([command, str(model), *COMMANDS[command], "--out", "run"])
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    return said.out if not code else f"ERROR {said.err.splitlines()[-1]}"


LONG = ("process", "gold of process", "question of process")  # of all that steer


def some_long(names):
    return [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in names]


@pytest.mark.parametrize("change", some_long(CHANGES))
def test_other_items_are_other_numbers(change, model, capsys):
    command, put, name = CHANGES[change]
    INPUTS[command]()
    first = ask(command, model, capsys)
    assert "ERROR" not in first
    assert "ERROR" not in ask(command, model, capsys), "the same goes on"
    put()
    said = ask(command, model, capsys)
    assert said.startswith("ERROR") and f"{name} changed since" in said and "--overwrite" in said


@pytest.mark.parametrize("command", some_long(COMMANDS))
@pytest.mark.parametrize("what", ["weights", "tokenizer"])
def test_another_model_in_the_same_folder(command, what, model, made, capsys):
    INPUTS[command]()
    assert "ERROR" not in ask(command, model, capsys)
    if what == "weights":
        shutil.copy(made / "1" / "model.safetensors", model)
    else:
        told = json.loads((model / "tokenizer.json").read_text())
        merges = told["model"]["merges"]
        told["model"]["merges"] = merges[: len(merges) // 2]
        (model / "tokenizer.json").write_text(json.dumps(told))
    said = ask(command, model, capsys)
    assert said.startswith("ERROR") and "changed since" in said, what


def test_code_of_another_epoch(model, capsys, monkeypatch):
    questions()
    assert "ERROR" not in ask("choices", model, capsys)
    monkeypatch.setattr("xlens.studies.running.kept.EPOCH", 99)
    assert "epoch changed since" in ask("choices", model, capsys)
