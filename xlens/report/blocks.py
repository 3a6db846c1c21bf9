"""What stands on a page, before it is HTML: the terminal prints the same."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from xlens.figures import Figure, figure_block
from xlens.figures.theme import figure_title
from xlens.languages import direction, endonym


@dataclass(frozen=True)
class Finding:
    """What was found, in sentences.

    Attributes:
        text: The sentences.
        title: Of what it is said, where several things are spoken of.
        anchor: Id of that one's section or figure.
        verdict: The sentence that comes first.
    """

    text: str
    title: str = ""
    anchor: str = ""
    verdict: str = ""

    @property
    def plain(self) -> str:
        """All of it on one line."""
        said = " ".join(filter(None, (self.verdict, self.text)))
        return f"{self.title}: {said}" if self.title else said


@dataclass(frozen=True)
class Findings:
    """A list of findings."""

    KIND: ClassVar[str] = "findings"
    items: tuple[Finding, ...]

    @classmethod
    def of(cls, sentences: Iterable[str]) -> "Findings":
        """One finding for each sentence."""
        return cls(tuple(map(Finding, sentences)))


@dataclass(frozen=True)
class Paragraph:
    """A paragraph.

    Attributes:
        text: Of it.
        role: `said` of what the terminal says as well; `lead`, `verdict`, `note` or `quiet`.
    """

    KIND: ClassVar[str] = "paragraph"
    text: str
    role: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading.

    Attributes:
        caption: Above the table.
        head: Headings of the columns.
        rows: Cells, as many as headings.
        numbers: Right-align all columns but the first.
    """

    KIND: ClassVar[str] = "table"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes:
        plot: HTML of it, from `figure_block`.
        caption: Below it.
        name: Of its files, and its id on the page.
        title: Its own, for the list of contents.
    """

    KIND: ClassVar[str] = "drawing"
    plot: str
    caption: str
    name: str = ""
    title: str = ""

    @classmethod
    def of(cls, fig: Figure, name: str, caption: str, *, label: str | None = None) -> "Drawing":
        """A figure by the name of its files; `label` for readers who can't see it."""
        plot = figure_block(fig, name, label=label or caption)
        return cls(plot, caption, name, figure_title(fig))


@dataclass(frozen=True)
class Code:
    """What is typed, or lies in a file.

    Attributes:
        text: Of it.
        copied: With a button that copies it.
    """

    KIND: ClassVar[str] = "code"
    text: str
    copied: bool = False


@dataclass(frozen=True)
class Links:
    """Where something lies: addresses relative to the page, and what they are called."""

    KIND: ClassVar[str] = "links"
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Folded:
    """What is there, and opens on demand: controls, details.

    Attributes:
        summary: Its message in one line, which is always seen.
        blocks: What is folded.
    """

    KIND: ClassVar[str] = "folded"
    summary: str
    blocks: "tuple[Block, ...]"


Block = Findings | Paragraph | Table | Drawing | Code | Links | Folded


@dataclass(frozen=True)
class OwnName:
    """What a language calls itself, with its tag and direction where these are known."""

    name: str
    tag: str = ""
    direction: str = ""

    @classmethod
    def of(cls, tag: str) -> "OwnName":
        """By its tag."""
        try:
            # 简体中文 and 繁體中文 are two rows.
            return cls(endonym(tag, variant=True), tag, direction(tag))
        except ValueError:  # CLDR covers fewer languages than there are tags
            return cls(tag)


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        key: Its id.
        title: Its heading.
        blocks: What stands in it.
        languages: Beside the heading, as they call themselves.
    """

    key: str
    title: str
    blocks: tuple[Block, ...]
    languages: tuple[OwnName, ...] = ()

    def more(self, blocks: Iterable[Block]) -> "Section":
        """The section with `blocks` at its end."""
        return Section(self.key, self.title, (*self.blocks, *blocks), self.languages)


def said(text: str) -> list[Paragraph]:
    """A paragraph that the terminal says as well; none without text."""
    return [Paragraph(text, "said")] if text else []
