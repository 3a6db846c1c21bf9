"""What README and docs show: code that compiles, commands that parse, links that lead somewhere."""

import ast
import importlib
import inspect
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import jupytext
import pytest

import tiny
import xlens
from xlens.cli import app, commands, corpus, store
from xlens.corpus import read_facts
from xlens.studies import find_studies

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "docs" / "recipes").glob("*.md"))
PAGES += sorted((ROOT / "experiments").glob("*/*.md"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
# The paired file is checked elsewhere (test_notebooks).
_FENCE = re.compile(r"^```([\w{}-]*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text.strip().splitlines()[0][:40]}"


def markdown() -> dict[str, str]:
    pages = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in PAGES}
    for path in NOTEBOOKS:
        cells = [c.source for c in jupytext.read(path).cells if c.cell_type == "markdown"]
        pages[str(path.relative_to(ROOT))] = "\n\n".join(cells)
    return pages


TEXT = markdown()
BLOCKS = [Block(page, *found) for page, text in TEXT.items() for found in _FENCE.findall(text)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
PAIRS = [(code, shown) for code, shown in pairwise(BLOCKS) if shown.language == "output"]
CODE = {"python", "sh", "bash", "json", "yaml"}
NO_OUTPUT = {
    "docs/core.md": "a drawing",
    "docs/prompts.md": "a file, which is read below",
    "docs/frequency.md": "a file, which is read below",
}
"""Pages with a block that is neither code nor output (`text`), and what it is."""


def shown_commands() -> list[tuple[str, str]]:
    """Every `xlens` command that is shown: in blocks, in line, and in the commands' own help."""
    texts: list[tuple[str, str]] = [
        (b.page, b.text) for b in BLOCKS if b.language in ("sh", "bash", "")
    ]
    for page, text in TEXT.items():
        texts += [(page, found) for found in re.findall(r"`(xlens [^`]+)`", _FENCE.sub("", text))]
    for name, kind in find_studies().items():
        help = inspect.cleandoc(kind.__doc__ or "")
        texts += [(f"help of {name}", text) for _, text in _FENCE.findall(help)]
    for module in (commands, corpus, store):
        for name, function in vars(module).items():
            if callable(function) and getattr(function, "__module__", "") == module.__name__:
                help = "\n".join(line.strip() for line in (function.__doc__ or "").splitlines())
                texts += [(f"help of {name}", text) for _, text in _FENCE.findall(help)]
    lines = [
        (page, line.strip())
        for page, text in texts
        for line in text.replace("\\\n", " ").splitlines()
    ]
    found = [(page, line) for page, line in lines if line.startswith("xlens ")]
    # `xlens COMMAND --help` and `xlens lens` in running text are names, not commands to type.
    return [
        (page, line)
        for page, line in dict.fromkeys(found)
        if not re.search(r"\b(COMMAND|FILE|MODEL|RUN)\b|…", line) and len(line.split()) != 2
    ]


COMMANDS = shown_commands()


def test_there_is_something_to_check():
    assert len(PYTHON) >= 4
    assert len(COMMANDS) >= 15
    assert {page for page, _ in COMMANDS} >= {"README.md", "docs/prompts.md", "help of lens"}


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_compiles_and_its_names_exist(block):
    tree = ast.parse(block.text, filename=block.page)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xlens"):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and _dotted(node).startswith("xlens."):
            found: object = xlens
            for name in _dotted(node).split(".")[1:]:
                assert hasattr(found, name), _dotted(node)
                found = getattr(found, name)


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        inside = _dotted(node.value)
        return f"{inside}.{node.attr}" if inside else ""
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_parse(page, line):
    tokens = shlex.split(line, comments=True)[1:]
    if tokens[0] == "--config":
        tokens = tokens[2:]
    if tokens[-1] == "--help":
        assert tokens[0] in app
        return
    if tokens == ["--version"]:
        return
    # A command whose options come from a file need not have its model on the line.
    if "--config" in line:
        tokens.insert(1, "from-the-file")
    app.parse_args(tokens, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", sorted(TEXT))
def test_links_lead_somewhere(page):
    text = _FENCE.sub("", TEXT[page])
    for target in _LINK.findall(text):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings]
            assert anchor in slugs, f"{page} links to {target}"


@pytest.mark.slow
def test_the_example_of_the_readme_runs(monkeypatch, capsys):
    """As it stands, but on a tiny model, fewer words, and without opening a browser."""
    import plotly.graph_objects as go

    (block,) = [b for b in PYTHON if b.page == "README.md"]
    model = xlens.load(tiny.model("gpt2", n_positions=512), tiny.tokenizer("gpt2"))
    words, shown = xlens.cldr_words, []
    monkeypatch.setattr(xlens, "load", lambda source: model, raising=False)
    monkeypatch.setattr(
        xlens, "cldr_words", lambda tags: words(tags, ["weekday", "unit"]), raising=False
    )
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))
    exec(compile(block.text, "README.md", "exec"), {})
    assert len(shown) == 1 and shown[0].data
    assert "pivot_peak_prob" in capsys.readouterr().out


def test_the_files_that_docs_show_are_read(tmp_path):
    """The prompt file and the word list of docs/prompts.md, the facts of docs/frequency.md."""
    blocks = {b.language: b.text for b in BLOCKS if b.page == "docs/prompts.md"}
    (tmp_path / "prompts.jsonl").write_text(blocks["json"], encoding="utf-8")
    prompts = xlens.read_prompts(tmp_path / "prompts.jsonl")
    start, stop = prompts[0].spans["city"]
    assert prompts[0].text[start:stop] == "Rom"
    (tmp_path / "words.tsv").write_text(blocks["text"], encoding="utf-8")
    words = xlens.read_words(tmp_path / "words.tsv")
    assert words.languages == ("en", "de", "zh-Hans") and words.ids == ("dog", "day")
    (facts,) = [b.text for b in BLOCKS if (b.page, b.language) == ("docs/frequency.md", "text")]
    (tmp_path / "facts.tsv").write_text(facts, encoding="utf-8")
    assert len(read_facts(tmp_path / "facts.tsv")) == 2


def test_every_block_says_what_it_is():
    """`output` is what the Python above it prints; what is neither that nor code is listed."""
    kinds = {b.language for b in BLOCKS if not b.language.startswith("{")}
    assert kinds <= CODE | {"output", "text"}
    assert {b.page for b in BLOCKS if b.language == "text"} == NO_OUTPUT.keys()
    assert PAIRS


@pytest.mark.parametrize(("code", "shown"), PAIRS, ids=str)
def test_output_shown_is_output_produced(code, shown, capsys):
    """By the block above it alone, which therefore runs without a model."""
    assert (code.page, code.language) == (shown.page, "python")
    exec(compile(code.text, code.page, "exec"), {})
    assert capsys.readouterr().out == shown.text


def test_the_tree_stays_small():
    """It travels to a lent GPU whole, beside its wheels: 60 MB together."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("what is tracked is only known in a checkout, with git")
    told = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    files = [ROOT / name for name in told.stdout.decode().split("\0") if name]
    assert sum(file.stat().st_size for file in files if file.is_file()) < 50_000_000


def test_the_version_is_the_same_everywhere():
    """Written once in code; the citation repeats it, and the changelog knows it or what is next."""
    (cited,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    heads = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert cited == xlens.__version__
    assert heads[0] in ("Unreleased", xlens.__version__)


def test_tables_of_performance_are_the_results():
    asked = [sys.executable, "benchmarks/report.py", "--check"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
