"""Small pieces of HTML: tables, language names. Everything from outside is escaped here."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from xlens.languages import direction, endonym


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True
) -> str:
    """A table of plain texts; the first cell of a row is its heading.

    Args:
        caption: Above the table.
        head: Headings of the columns.
        rows: Cells, as many as headings.
        numbers: Right-align all columns but the first.
    """
    kind = ' class="numbers"' if numbers else ""
    headings = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>\n"
        for first, *rest in rows
    )
    return (
        # Reachable by keyboard, so that a wide table can be scrolled without a mouse.
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table{kind}>\n<caption><span>{escape(caption)}</span></caption>\n"
        f"<thead><tr>{headings}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n"
    )


def language(tag: str) -> str:
    """A language's own name, marked with its language and direction for browsers and readers."""
    try:
        name = endonym(tag, variant=True)  # 简体中文 and 繁體中文 are two rows
    except ValueError:  # CLDR covers fewer languages than there are tags
        return f"<bdi>{escape(tag)}</bdi>"
    return f'<bdi lang="{escape(tag)}" dir="{direction(tag)}">{escape(name)}</bdi>'


def paragraph(text: str) -> str:
    """A paragraph of plain text; nothing without one."""
    return f"<p>{escape(text)}</p>\n" if text else ""


def figure(block: str, caption: str) -> str:
    """A figure's block (HTML) with its caption (plain text)."""
    return f"<figure>\n{block}<figcaption>{escape(caption)}</figcaption>\n</figure>\n"


def number(value: float) -> str:
    """Two decimals, or a dash for none."""
    return "–" if math.isnan(value) else f"{value:.2f}"


def interval(
    row: Mapping[Any, Any], value: str = "value", low: str = "low", high: str = "high"
) -> str:
    """`0.24 [0.12, 0.36]`."""
    if math.isnan(row[value]):
        return "–"
    return f"{row[value]:.2f} [{number(row[low])}, {number(row[high])}]"
