"""The command line's manners: whose fault an error is, bars, and what is said at the end."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import xlens
from xlens.cli import app, main
from xlens.errors import DataError, InputError, ModelError, StoreError, XlensError
from xlens.report.build import Page, page_of
from xlens.report.minute import Minute
from xlens.results import Result


def failing(error):
    def command(*_, **__):
        if isinstance(error, Exception):
            raise error
        torch.zeros(2, 3) @ torch.zeros(2, 3)

    return command


@pytest.mark.parametrize("kind", [InputError, DataError, ModelError, StoreError])
def test_what_is_meant_is_one_line(kind, monkeypatch, capsys):
    assert issubclass(kind, XlensError) and issubclass(kind, ValueError | OSError)
    monkeypatch.setattr("xlens.cli.models_table.show_models", failing(kind("do this")))
    with pytest.raises(SystemExit) as left:
        main(["models"])
    assert (left.value.code, capsys.readouterr().err) == (2, "xlens: error: do this\n")
    with pytest.raises(SystemExit):
        main(["models", "--debug"])
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and said.endswith("xlens: error: do this\n")


@pytest.mark.parametrize("error", [None, KeyError("a"), OSError("b"), ValueError("of a library")])
def test_a_slip_of_ours_shows_where_it_was(error, monkeypatch, capsys):
    monkeypatch.setattr("xlens.cli.models_table.show_models", failing(error))
    with pytest.raises(SystemExit) as left:
        main(["models"])
    said = capsys.readouterr().err
    assert left.value.code == 1
    assert said.startswith("Traceback") and "this is a bug in xlens" in said.splitlines()[-1]
    assert "xlens: error:" not in said


def test_a_config_is_of_one_command(tmp_path, capsys):
    (tmp_path / "one.yaml").write_text("models:\n  nothing: 1\n", encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["--config", str(tmp_path / "one.yaml"), "models"])
    assert left.value.code == 2
    assert app.config == ()


def test_what_is_said_in_short_is_what_stands_at_the_top_of_the_page():
    part = Result(provenance={})
    page = Page(lambda run, static: run.path, minute=lambda parts: Minute(", ".join(parts)))
    assert page.leads({}, {"m": {"a": part, "b": part}}) == ["a, b"]
    assert page.leads({}, {"m": {}, "n": {}}) == ["m: ", "n: "]
    assert page_of("nothing of ours").leads({}, {"m": {}}) == []


@pytest.mark.parametrize("error", [PermissionError(13, "no right"), MemoryError("too long")])
def test_what_the_system_says_is_no_bug(error, monkeypatch, capsys):
    monkeypatch.setattr("xlens.cli.models_table.show_models", failing(error))
    with pytest.raises(SystemExit) as left:
        main(["models"])
    assert left.value.code == 2 and capsys.readouterr().err.startswith("xlens: error: ")


def plain_errors(code):
    """Errors of Python's own that a module raises or makes."""
    kinds = {"ValueError", "RuntimeError", "Exception"}
    calls = (node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    return {f.id for f in calls if isinstance(f, ast.Name)} & kinds


def test_every_error_says_whose_fault_it_is():
    """A plain one would be printed as a bug of xlens: raise one of `xlens.errors`."""
    internal = {"models/hf.py"}  # caught where it is raised
    package = Path(xlens.__file__).parent
    for path in package.rglob("*.py"):
        if path.relative_to(package).as_posix() not in internal:
            assert not plain_errors(path.read_text(encoding="utf-8")), path
    assert plain_errors("raise ValueError('a')") == {"ValueError"}


def test_no_bars_into_pipes_and_none_when_quiet(monkeypatch):
    from xlens import terminal
    from xlens.bars import tqdm

    code = "from xlens.bars import tqdm\nlist(tqdm(range(3)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert not tqdm(range(3)).disable
    terminal.be_quiet(True)
    assert tqdm(range(3)).disable
    terminal.be_quiet(False)
