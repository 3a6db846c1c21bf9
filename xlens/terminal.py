"""Tables for the terminal, by rich: columns side by side, whatever the script.

Cells are never cut: in a file or a pipe a table is as wide as it is, on a screen cells are folded.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Rows = Sequence[Sequence[str]]
_WIDEST = 100_000  # columns of a file
_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
_PLAIN["force_jupyter"] = False  # else a notebook's rich shows a table and leaves the text empty


_quiet = False


def be_quiet(quiet: bool) -> None:
    """Show no bars and spinners from now on, or show them again."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether bars and spinners are to stay away."""
    return _quiet


@contextmanager
def waiting(what: str) -> Generator[None]:
    """A spinner beside some words as long as this takes; nothing where nobody sees it."""
    from rich.console import Console

    screen = Console(stderr=True, **_PLAIN)
    if is_quiet() or not screen.is_terminal:
        yield
        return
    with screen.status(what):
        yield


def text_table(head: Sequence[str], rows: Rows, *, numbers: bool = False) -> str:
    """Lines of plain text, without a line break at the end.

    Args:
        head: Headings of the columns; none for a table without.
        rows: Cells; one may have several lines.
        numbers: Right-align all columns but the first.
    """
    return _lines(_table(head, rows, numbers))


def show_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False
) -> None:
    """Print a table, as wide as the screen at most."""
    from rich.console import Console

    table = _table(head, rows, numbers)
    screen = Console(**_PLAIN)
    if screen.is_terminal:
        screen.print(table)
    else:
        print(_lines(table))


def cell_width(text: str) -> int:
    """Columns of a terminal that `text` takes: two for Chinese, none for marks and joiners."""
    from rich.cells import cell_len

    return cell_len(text)


def _table(head: Sequence[str], rows: Rows, numbers: bool) -> "Table":
    from rich.table import Table
    from rich.text import Text

    n = len(head) or max(map(len, rows), default=0)
    made = Table(box=None, show_header=bool(head), pad_edge=False, padding=(0, 2, 0, 0))
    for i in range(n):
        side: Any = "right" if numbers and i else "left"
        title = Text(head[i], style="bold") if head else ""
        made.add_column(title, justify=side, overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def _lines(table: "Table") -> str:
    from io import StringIO

    from rich.console import Console

    written = StringIO()
    whole = Console(file=written, width=_WIDEST, **_PLAIN).measure(table).maximum
    Console(file=written, width=max(whole, 1), color_system=None, **_PLAIN).print(table)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())
