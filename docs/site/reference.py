"""The reference, written at each build: a page for each room's names, one for the commands."""

import importlib
import inspect
import pkgutil
import re
import sys
import textwrap
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer

import xlens

FOLDER = "docs/reference"
_ROW = re.compile(r"\s*\|.*\|\s*")
_CELL = re.compile(r"(?<!\\)\|(?=(?:[^`]*`[^`]*`)*[^`]*$)")


def rooms() -> list[ModuleType]:
    """xlens, and every room below it that says in `__all__` what is public.

    A package is a room; a module is one where the room that it is in names it.
    """
    found = [xlens]
    for told in pkgutil.walk_packages(xlens.__path__, "xlens."):
        if told.name.split(".")[1] in xlens.__all__:
            module = importlib.import_module(told.name)
            above, _, name = told.name.rpartition(".")
            named = told.ispkg or name in getattr(sys.modules[above], "__all__", ())
            if named and getattr(module, "__all__", None):
                found.append(module)
    return found


def public(module: ModuleType) -> list[str]:
    """Names of a room that are no rooms themselves."""
    names = [n for n in dict.fromkeys(module.__all__) if not n.startswith("__")]
    return [n for n in names if not isinstance(getattr(module, n), ModuleType)]


def page(module: ModuleType, shown: dict[int, str]) -> str:
    """A room's page: what it is for, then its names in their order.

    Args:
        module: The room.
        shown: Where what is documented already is, by identity; what this page shows is added.
    """
    said = (inspect.getdoc(module) or "").split("\n", 1)[0]
    lines = [f"# `{module.__name__}`", "", said, "", "```{eval-rst}"]
    for name in public(module):
        thing, full = getattr(module, name), f"{module.__name__}.{name}"
        if callable(thing) and id(thing) in shown:
            role = "class" if inspect.isclass(thing) else "func"
            lines += [f"* ``{name}``: :py:{role}:`{shown[id(thing)]}`", ""]
        elif callable(thing):
            shown[id(thing)] = full
            own = inspect.isclass(thing) and thing.__module__.startswith("xlens")
            fault = inspect.isclass(thing) and issubclass(thing, BaseException)
            kind = "exception" if fault else "class" if inspect.isclass(thing) else "function"
            lines += [f".. auto{kind}:: {full}", *(["   :members:"] if own else []), ""]
        else:
            told = "\n".join(as_rst(said_of(module, name)))
            lines += [f".. py:data:: {full}", "", textwrap.indent(told, "   "), ""]
    return "\n".join([*lines, "```", ""])


def said_of(room: ModuleType, name: str) -> list[str]:
    """What stands below a constant, wherever in its room it is written."""
    for place in [m for m in sys.modules if f"{m}.".startswith(f"{room.__name__}.")]:
        try:
            found = ModuleAnalyzer.for_module(place).find_attr_docs().get(("", name))
        except PycodeError:
            continue
        if found:
            return found
    return []


def commands() -> str:
    """What `--help` says, of every command."""
    from xlens.cli import app

    said = app.generate_docs(output_format="markdown", heading_level=1)
    # As code, in which two hyphens are no dash.
    return re.sub(r"^(#+) (xlens --.+)$", r"\1 `\2`", said, flags=re.MULTILINE)


def write(app: Any) -> None:
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(exist_ok=True)
    shown: dict[int, str] = {}
    every = rooms()
    pages = {room.__name__: page(room, shown) for room in [*every[1:], every[0]]}
    listing = "\n".join(sorted(pages))
    pages["commands"] = commands()
    pages["index"] = (
        "# Reference\n\nEvery public name, from its docstring, and every command, from its "
        "`--help`.\n\n```{toctree}\n:maxdepth: 1\n\nCommands <commands>\n" + listing + "\n```\n"
    )
    for name, text in pages.items():
        file = folder / f"{name}.md"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def as_rst(lines: list[str]) -> list[str]:
    """Docstrings hold Markdown's fences and tables, and bars that mean a size or a choice."""
    out: list[str] = []
    for kind, block in groupby(_kinds(lines), lambda pair: pair[0]):
        text = [line for _, line in block]
        space = " " * (len(text[0]) - len(text[0].lstrip()))
        if kind == "table":
            out += [f"{space}.. list-table::", f"{space}   :header-rows: 1", ""]
            for row in [text[0], *text[2:]]:
                cells = _CELL.split(row.strip().strip("|"))
                for first, cell in zip("*" + " " * len(cells), cells, strict=False):
                    out.append(f"{space}   {first} - {_plain(cell.strip())}")
            out.append("")
        elif kind == "example":
            out += ["::", "", *text, ""]
        elif kind == "code":
            out += [f"{space}::", "", *(f"    {line}" for line in text[1:-1]), ""]
        else:
            out += [_plain(line) for line in text]
    return out


def _kinds(lines: list[str]) -> list[tuple[str, str]]:
    """Each line with what it is part of: `text`, `table`, `code` (fenced) or `example` (indented).

    An example is set in from the text and comes after an empty line; the entries of a section
    (`Args:`) follow its name at once.
    """
    found: list[tuple[str, str]] = []
    fenced, before = False, "text"
    for k, line in enumerate(lines):
        fence = line.strip().startswith("```")
        if fence or fenced:
            before = "code"
        elif _ROW.fullmatch(line):
            before = "table"
        elif line.startswith("    ") and (
            before == "example" or (k > 1 and not lines[k - 1] and lines[k - 2][:1].strip())
        ):
            before = "example"
        elif line or before != "example":
            before = "text"
        fenced ^= fence
        found.append((before, line))
    return found


def _plain(line: str) -> str:
    """A bar outside of code is a bar."""
    return "`".join(
        part if k % 2 else part.replace("|", "\\|") for k, part in enumerate(line.split("`"))
    )


def told(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_rst(lines)
    if what in ("property", "attribute"):
        lines.insert(0, "\\ ")  # an empty word: napoleon takes `What it is: more` for `type: more`


def signed(
    app: Any, what: str, name: str, thing: Any, options: Any, given: str | None, back: str | None
) -> tuple[str | None, str | None]:
    """A signature that parses: `<factory>`, a dataclass's default, stands for a value."""
    return given and re.sub(r"= ?<[^<>]*>", "= ...", given), back


def skipped(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """What scikit-learn puts into every estimator (`set_fit_request`) is not ours."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write)
    app.connect("autodoc-process-docstring", told, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", signed)
    app.connect("autodoc-skip-member", skipped)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
