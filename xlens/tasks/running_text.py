"""Running text in several languages: what lenses are fitted on, and neurons counted over."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlens._lazy import listed
from xlens.checks import typed
from xlens.corpus.sources import JSON_LINES, Layout, blocks, check_source, documents
from xlens.errors import DataError, InputError
from xlens.languages import standardize
from xlens.prompts import Prompt, Prompts, read_prompts, tokenize
from xlens.stats import generator
from xlens.tasks.facts.data import Facts
from xlens.tasks.sources import plain_tag

__all__ = ["fact_texts", "passages", "read_texts"]
__dir__ = listed(__all__)
_AT_ONCE = 64  # texts that are tokenised together


@typed
def read_texts(sources: Sequence[str], *, field: str = "text", most: int = 20_000) -> Prompts:
    """Texts of files, with their languages.

    Args:
        sources: `TAG=FILE`: lines of a text file, or `field` of JSON Lines or Parquet, packed or
            not; a file that has its tag in its name (`wiki.de.txt`); or a JSON Lines file whose
            objects have `text` and `language`.
        field: Of JSON Lines and Parquet.
        most: Documents that are read of each file, from its beginning.

    Raises:
        ValueError: no such file, an unknown tag or field, no tag, no text in a file, or something
            in it that can't be read.
    """
    found: list[Prompt] = []
    for source in sources:
        tag, equals, place = source.partition("=")
        if not equals:
            tag, place = _tag_in(Path(source).name), source
            if not tag and Path(source).suffix in JSON_LINES:
                found += read_prompts(source)
                continue
        if not tag:
            raise InputError(
                f"Which language is {place!r} in? Write de={place}, or name the file after it "
                "(wiki.de.txt)."
            )
        language, path, how = standardize(tag), Path(place), Layout(field=field)
        check_source(path, how)
        mine = list(_documents(path, how, most))
        if not mine:
            raise InputError(f"{place!r} has no text: give a file with a document on each line.")
        found += [
            Prompt(text, language, f"{place}:{number}") for number, text in enumerate(mine, 1)
        ]
    return Prompts(found)


@typed
def fact_texts(facts: Facts, *, seed: int = 0) -> Prompts:
    """Facts as sentences, in every language, each language in an order of its own."""
    made: list[Prompt] = []
    for n, tag in enumerate(facts.languages):
        mine = facts.facts(tag)
        ids = list(mine)
        for i in generator(seed, 11, n).permutation(len(ids)):
            asked = mine[ids[i]].asked
            said = f"{asked.text}{asked.gap}{mine[ids[i]].objects[0]}{asked.after}"
            made.append(Prompt(said, tag, f"{tag}/{ids[i]}"))
    return Prompts(made)


@typed
def passages(
    texts: Prompts, tokenizer: Any, *, tokens: int, most: int, seed: int = 0
) -> dict[str, list[Prompt]]:
    """Texts joined, or cut, to passages of at least so many tokens, by language.

    Args:
        texts: In their order; short ones are joined with a line break, long ones cut.
        tokenizer: Whose tokens are counted.
        tokens: Of a passage, at least; the rest of a language's text is left.
        most: Passages of a language, drawn with `seed` from the first ten times as many.
        seed: Of that.
    """
    by_language: dict[str, list[Prompt]] = {}
    for text in texts:
        by_language.setdefault(text.language, []).append(text)
    found: dict[str, list[Prompt]] = {}
    for n, (tag, mine) in enumerate(by_language.items()):
        made: list[str] = []
        for passage in _joined(mine, tokenizer, tokens):
            made.append(passage)
            # Enough to draw from; to read on would cost and change little.
            if len(made) == 10 * most:
                break
        chosen = np.sort(generator(seed, 12, n).permutation(len(made))[:most])
        found[tag] = [Prompt(made[i], tag, f"{tag}/{i}") for i in chosen]
    return found


def _tag_in(name: str) -> str:
    """The tag in a file's name, the last piece that is one; none where there is none."""
    pieces = name.replace("-", ".").replace("_", ".").split(".")[:-1]
    return next((piece for piece in reversed(pieces) if plain_tag(piece)), "")


def _documents(path: Path, how: Layout, most: int) -> Iterator[str]:
    n = 0
    for block in blocks(path, how):
        found = documents(path, block, how)
        for problem in found.problems:
            raise DataError(
                f"{str(path)!r}: {problem.n:,} {problem.kind} ({problem.what}). What is left of a "
                "damaged file is another text: mend it, or take those lines out."
            )
        for line in found.lines.split(b"\n"):
            if text := line.decode().strip():
                yield text
                n += 1
                if n == most:
                    return


def _joined(texts: Sequence[Prompt], tokenizer: Any, tokens: int) -> Iterator[str]:
    held: list[str] = []
    n = 0
    for start in range(0, len(texts), _AT_ONCE):
        for t in tokenize(tokenizer, texts[start : start + _AT_ONCE], spans=frozenset()):
            # Without what the tokenizer adds, which is no text.
            own = [(a, b) for a, b in t.offsets if b > a]
            for first in range(0, len(own), tokens):
                piece = own[first : first + tokens]
                held.append(t.prompt.text[piece[0][0] : piece[-1][1]])
                n += len(piece)
                if n >= tokens:
                    yield "\n".join(held)
                    held, n = [], 0
