"""What of a page is read in one minute: a sentence, a table, a prompt; and of which model.

A study says it of one model (`Minute`); how several stand on one page is said here, for all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from xlens.report.blocks import Block, Code, Drawing, Folded, Paragraph, Section, Table
from xlens.results import Result

Parts = Mapping[str, Result]
_SHOWN = 1500  # characters of a prompt; of a longer one, its beginning is in the results


@dataclass(frozen=True)
class Minute:
    """What is read of one model in a minute.

    Attributes:
        lead: One sentence over all languages or pairs; whether the task is done at all comes first.
        table: A row for each language or pair: few numbers, with intervals, and what they say.
        example: One real prompt, what is read of it at each layer, and what the model said.
        asked: Whether the model says anything: where it only reads, the prompt is all there is.
    """

    lead: str
    table: Table | None = None
    example: Sequence[Block] = ()
    asked: bool = True


def minute_blocks(models: Mapping[str, Minute]) -> list[Block]:
    """How the minute of one model stands at the top of a page, or those of several.

    Args:
        models: By what each model is called.
    """
    several = len(models) > 1
    blocks: list[Block] = [Paragraph(lead, "lead") for lead in leads(models)]
    tables = {name: one.table for name, one in models.items() if one.table is not None}
    heads = {tuple(table.head) for table in tables.values()}
    if several and len(heads) == 1 and tables:
        first = next(iter(tables.values()))
        rows = [[name, *row] for name, table in tables.items() for row in table.rows]
        blocks.append(Table(first.caption, ["model", *first.head], rows, first.numbers))
    else:
        blocks += tables.values()
    return blocks


def example_section(models: Mapping[str, Minute]) -> list[Section]:
    """One prompt of each model and what it said: the first is open, the others are folded."""
    told = {name: tuple(one.example) for name, one in models.items() if one.example}
    if not told:
        return []
    first, *others = told
    blocks = list(told[first])
    blocks += [Folded(f"The same of {name}", told[name]) for name in others]
    more = f" ({first})" if others else ""
    title = (
        "One prompt, and what the model said" if models[first].asked else "One text that it read"
    )
    return [Section("one-prompt", f"{title}{more}", tuple(blocks))]


def leads(models: Mapping[str, Minute]) -> list[str]:
    """The sentence of each model, with its name where there are several."""
    return of_each({name: one.lead for name, one in models.items()})


def minutes(models: Mapping[str, Parts], minute: Callable[[Parts], Minute]) -> dict[str, Minute]:
    """The minute of each model, by its folder."""
    return {folder: minute(parts) for folder, parts in models.items()}


def prompt_of(part: Result | None) -> tuple[Block, ...]:
    """The first prompt behind a result, as the model read it; nothing of older results."""
    known: Mapping[str, Any] = {} if part is None else part.provenance.get("first_prompt", {})
    if not known:
        return ()
    text = str(known["text"])
    cut = text if len(text) <= _SHOWN else f"… {text[-_SHOWN:]}"
    return (Paragraph(f"Item {known['id']} in {known['language']}:"), Code(cut))


def of_first(part: Result, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table that are of the prompt that `prompt_of` shows."""
    first = part.provenance["first_prompt"]
    return table[(table["id"] == first["id"]) & (table["language"] == first["language"])]


def of_each(said: Mapping[str, str]) -> list[str]:
    """Sentences that name what they are of, where there are several."""
    return [f"{name}: {text}" if len(said) > 1 else text for name, text in said.items()]


def model_lines(made_by: Iterable[Mapping[str, Any]]) -> list[str]:
    """Of each model its weights, precision, tokenizer, revision, and the versions that ran it."""
    return list(dict.fromkeys(map(_model_line, made_by)))


def _model_line(known: Mapping[str, Any]) -> str:
    name = str(known.get("model", "The model"))
    if known.get("endpoint"):
        facts = ["Weights, precision and tokenizer are the server's, and aren't told"]
    else:
        facts = [
            f"{word}: {known.get(key) or 'not recorded'}"
            for word, key in (
                ("Weights", "weights"),
                ("Precision", "dtype"),
                ("Tokenizer", "tokenizer"),
                ("Revision", "revision"),
            )
        ]
    versions: Mapping[str, str] = known.get("versions") or {}
    used = ("xlens-interp", "transformers", "torch")
    ran = ", ".join(f"{package} {versions[package]}" for package in used if package in versions)
    return f"{name}. {'. '.join(facts)}. Versions: {ran or 'not recorded'}."


@dataclass(frozen=True)
class Listed:
    """A section in the list of contents.

    Attributes:
        key: Its id.
        title: Its heading.
        drawn: Ids and titles of its figures that aren't folded.
    """

    key: str
    title: str
    drawn: tuple[tuple[str, str], ...]


def contents(sections: Iterable[Section]) -> list[Listed]:
    """The list of contents of a page."""
    return [Listed(part.key, part.title, _listed(part.blocks)) for part in sections]


def _listed(blocks: Iterable[Block]) -> tuple[tuple[str, str], ...]:
    """Figures by id and title; those that share a title by the beginning of their captions."""
    drawn = [block for block in blocks if isinstance(block, Drawing) and block.title]
    titles = [block.title for block in drawn]
    return tuple(
        (
            b.name,
            b.title
            if titles.count(b.title) == 1
            else b.caption.partition(". ")[0].removesuffix("."),
        )
        for b in drawn
    )
