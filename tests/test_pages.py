"""Pages are made of templates, in which all that is filled in is escaped; tables by rich."""

import ast
import io
import re
import sys
from dataclasses import fields
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
from pages import Page

import xlens
from xlens import figures
from xlens.cli.shown import show
from xlens.figures.page import page
from xlens.html import render
from xlens.report import blocks, write_report
from xlens.report.blocks import Drawing, Finding, Findings, OwnName, Paragraph, Section, Table
from xlens.report.minute import contents
from xlens.results import Result
from xlens.runs import RunDirectory
from xlens.terminal import show_table, text_table

PACKAGE = Path(xlens.__file__).parent
EVIL = """<script>alert('x')</script> & "quoted" <b>"""
# Plotly's own small markup of labels is none of a page's.
LABELS = {"br", "b", "span", "extra", "i", "sup", "sub"}
TAGS = re.compile(
    r"(?<!\?P)</?(a|bdi|body|br|b|button|caption|code|details|div|em|extra|figcaption|figure|footer|form|"
    r"h[1-6]|head|header|html|i|img|li|link|main|meta|nav|noscript|ol|p|pre|script|section|span|"
    r"strong|style|sub|summary|sup|svg|table|tbody|td|th|thead|title|tr|ul)(?=[\s/>])",
    re.IGNORECASE,
)


def written(path: Path) -> list[str]:
    """The texts of a module, its documentation apart."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said
    ]


def test_no_module_writes_tags():
    modules = [*PACKAGE.rglob("*.py")]
    assert len(modules) > 200
    for path in modules:
        allowed = LABELS if path.parent.name == "figures" else set()
        for text in written(path):
            found = {tag.lower() for tag in TAGS.findall(text)}
            assert found <= allowed, f"{path}: {text!r}"


def test_a_module_that_wrote_tags_would_be_found(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text('"""Not <p> here."""\n\ndef f(x):\n    return f"<p class=\'a\'>{x}</p>"\n')
    assert [t for t in written(bad) if TAGS.search(t)] == ["<p class='a'>", "</p>"]


def test_what_is_not_escaped_stands_in_few_places():
    """A figure's data, which holds no "<", the fonts of the style sheet, and in notebooks what
    pandas and Plotly have escaped."""
    templates = {p.name: p.read_text(encoding="utf-8") for p in PACKAGE.glob("*/templates/*")}
    safe = {name: re.findall(r"\w+\s*\|\s*safe", text) for name, text in templates.items()}
    assert {k: v for k, v in safe.items() if v} == {
        "plot.html": ["data|safe"],
        "page.css": ["font|safe"],
        "notebook.html": ["rows|safe", "drawn|safe"],
    }
    assert not [n for n, text in templates.items() if re.search(r"autoescape|Markup", text)]
    marked = [
        path.name
        for path in PACKAGE.rglob("*.py")
        if re.search(r"Markup\(|html import escape|html\.escape", path.read_text(encoding="utf-8"))
    ]
    assert sorted(marked) == ["html.py", "theme.py"]  # that one escapes Plotly's labels


def evil_blocks() -> list[blocks.Block]:
    plot = figures.figure_block(go.Figure(layout={"title": {"text": EVIL}}), EVIL, label=EVIL)
    made = [
        Findings((Finding(EVIL, EVIL, EVIL, EVIL),)),
        Paragraph(EVIL, EVIL),
        Table(EVIL, [EVIL, EVIL], [[EVIL, EVIL]]),
        Drawing(plot, EVIL),
        blocks.Code(EVIL),
        blocks.Code(EVIL, copied=True),
        blocks.Links(((EVIL, EVIL),)),
        blocks.Folded(EVIL, (Paragraph(EVIL), Table(EVIL, [EVIL], [[EVIL]]))),
    ]
    assert {type(block) for block in made} == set(blocks.Block.__args__)
    return made


OPENINGS = {
    "page": {},
    "lens": {},
    "choices": {"percent": EVIL},
    "process": {"percent": EVIL, "steered_only": False, "questions": True, "sentences": True},
    "phases": {"percent": EVIL},
    "alignment": {"percent": EVIL},
    "fit_lens": {"percent": EVIL},
    "facts": {"percent": EVIL, "rule": EVIL},
    "neurons": {"percent": EVIL},
    "subspace": {"percent": EVIL},
    "twins": {"percent": EVIL},
    "reading": dict.fromkeys(("tag", "pivot", "percent"), EVIL)
    | {"exchanged": True, "unasked": True},
}


@pytest.mark.parametrize("template", [*OPENINGS, "figure"])
def test_everything_from_outside_is_escaped_in_every_page(template):
    """In each kind of block and each place of each template, or this test lacks one."""
    names = {p.stem for p in (PACKAGE / "report/templates").glob("*.html")} - {"blocks"}
    assert names == {*OPENINGS}
    section = Section(EVIL, EVIL, tuple(evil_blocks()), (OwnName(EVIL, EVIL, EVIL),))
    if template == "figure":
        plot = figures.figure_block(go.Figure(layout={"title": {"text": EVIL}}), "f", label=EVIL)
        html = page("figures/figure.html", title=EVIL, plotlyjs=EVIL, plot=plot)
    else:
        shown = {"minute": [Paragraph(EVIL, "lead")], "models": [Paragraph(EVIL)]}
        shown |= {"contents": contents([section]), "offered": [Paragraph(EVIL)]}
        given = {"started": EVIL, "sections": [section], **shown}
        html = page(
            f"report/{template}.html", title=EVIL, plotlyjs=EVIL, **given, **OPENINGS[template]
        )
    whole = Page(html)
    assert EVIL not in html and "<script>alert" not in html
    own = {"src", "type", "data-figure"}
    # plotly.js, the figure's data, what draws it; on a report what copies the command as well.
    assert len(whole.all("script")) == (3 if template == "figure" else 4)
    assert all({*attrs} <= own for attrs in whole.all("script"))
    assert not whole.all("b")
    if template != "figure":
        shown = sum(isinstance(getattr(section, f.name), str) for f in fields(section))
        assert whole.text.count(EVIL) >= shown + 10
        assert whole.all("section") == [{"id": EVIL}]


def test_a_name_that_a_template_lacks_is_an_error():
    with pytest.raises(Exception, match="undefined"):
        render("figures/plot.html", name="x")


def test_a_page_of_tables_escapes_what_results_hold(tmp_path):
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Told(Result):
        table: pd.DataFrame

        def to_frame(self):
            return self.table

    run = RunDirectory.create(tmp_path, {"toy": {"model": EVIL}}, {"command": EVIL})
    result = Told(provenance={"model": EVIL}, table=pd.DataFrame({EVIL: [EVIL]}))
    try:
        result.save(run.result_folder("m", "told"))
        html = write_report(run).read_text(encoding="utf-8")
    finally:
        del Result.KINDS[Told.__module__, "Told"]
    assert EVIL not in html and Page(html).text.count(EVIL) >= 4


# --- nothing is computed ---

COMPUTES = {
    *("mean", "sum", "max", "min", "median", "std", "var", "quantile", "average", "abs", "cumsum"),
    *("groupby", "agg", "aggregate", "apply", "merge", "join_frames", "pivot", "pivot_table"),
    *("nunique", "value_counts", "corr", "rank", "cumcount", "sample", "resample", "summary"),
}


def computed(code: str) -> set[str]:
    """Names of the methods of tables that a module calls to compute something."""
    calls = [node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return {f.attr for f in calls if isinstance(f, ast.Attribute)} & COMPUTES


def test_reports_read_parts_and_compute_nothing():
    """What is computed of a part is a part too, or a method of the result in its own room.

    That reports know no statistics, import-linter says.
    """
    for path in (PACKAGE / "report").glob("*.py"):
        assert not computed(path.read_text(encoding="utf-8")), path
    assert computed("x = table.groupby('a')['b'].mean()") == {"groupby", "mean"}


# --- the terminal ---


TEXTS = ["中文字", "กำลังที่ไหน", "\u2068العربية\u2069", "a" * 150, "0.24 [0.12, 0.36]", "[bold]x"]


def test_tables_are_never_cut_where_no_screen_is(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    rows = [[text, f"{n}"] for n, text in enumerate(TEXTS)]
    show_table(["what", "n"], rows, numbers=True)
    told = capsys.readouterr().out
    assert told == text_table(["what", "n"], rows, numbers=True) + "\n"
    assert all(text in told for text in TEXTS)
    assert "…" not in told and "\x1b" not in told and len(told.splitlines()) == len(rows) + 1
    assert all(line == line.rstrip() for line in told.splitlines())


def test_a_notebook_prints_the_table_that_a_terminal_does(monkeypatch):
    told = text_table(["what"], [["a"]])
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert told and text_table(["what"], [["a"]]) == told


def test_columns_stand_under_each_other_whatever_the_script():
    from rich.cells import cell_len

    rows = [[text, "|"] for text in TEXTS]
    lines = text_table([], rows).splitlines()
    assert len({cell_len(line[: line.index("|")]) for line in lines}) == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_console_of_another_encoding_is_no_reason_to_stop(encoding, monkeypatch):
    raw = io.BytesIO()
    console = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", console)
    table = Table("Τίτλος →", ["what", "n"], [[text, "–"] for text in TEXTS])
    show([Section("k", "中文", (Findings.of(["Right in 中文."]), table))])
    console.flush()
    told = raw.getvalue().decode(encoding)
    assert "0.24 [0.12, 0.36]" in told and "Right in" in told


def test_on_a_screen_cells_are_folded_and_not_cut(monkeypatch):
    class Screen(io.StringIO):
        encoding = "utf-8"

        def isatty(self):
            return True

    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    show_table(["what", "n"], [["a" * 150, "1"], ["0.24 [0.12, 0.36]", "2"]])
    told = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert told.count("a") >= 150 and "…" not in told
    assert max(map(len, told.splitlines())) <= 40
