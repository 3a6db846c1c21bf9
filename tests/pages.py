"""Pages of a report as tests read them."""

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "br", "img", "input"}


class Page(HTMLParser):
    """Elements with their attributes, the readable text, and what the terminal says as well."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words, self.said = [], [], [], []
        self.contents = []  # for each entry, what its links are called
        self._listens = False
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        if tag not in VOID:
            self.open.append(tag)
        within = "nav" in self.open
        if within and tag == "li":
            self.contents.append([])
        if within and tag == "a":
            self.contents[-1].append("")
        listed = tag == "li" and not within
        if listed or (tag == "p" and attrs.get("class") == "said"):
            self.said.append("")
            self._listens = True

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("li", "p"):
            self._listens = False

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)
            if self.open[-1] == "a" and "nav" in self.open:
                self.contents[-1][-1] += data
            if self._listens:
                self.said[-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def hangs_together(self) -> bool:
        """No two things have one id (a figure would be drawn in another's place), links lead on.

        Nor are two in an entry of the contents called the same, or like a sentence.
        """
        ids = [attrs["id"] for _, attrs in self.elements if "id" in attrs]
        links = [attrs.get("href", "") for attrs in self.all("a")]
        lost = [at for at in links if at.startswith("#") and at[1:] not in ids]
        told_apart = all(len(set(called)) == len(called) for called in self.contents)
        plain = not [name for called in self.contents for name in called if name.endswith(".")]
        return len(set(ids)) == len(ids) and not lost and told_apart and plain


def same_sentences(path: Path, told: str) -> None:
    """The terminal has every sentence of the page, and the page every one of the terminal."""
    page = Page(path.read_text(encoding="utf-8"))
    assert page.hangs_together()
    lines = {" ".join(line.split()) for line in told.splitlines()}
    said = {" ".join(text.split()) for text in page.said}
    assert said and said <= lines, said - lines
    # Titles and verdicts are elements of their own.
    spaced = page.text.replace(" : ", ": ")
    assert not [line for line in lines if line.endswith(".") and line not in spaced]
