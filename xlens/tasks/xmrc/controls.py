"""What reading must be compared with: exchanged contexts, and answers that need no model."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import script
from xlens.prompts import Prompt, Prompts
from xlens.prompts.fewshot import seeded_rank
from xlens.tasks.choices.text import UNSPACED
from xlens.tasks.xmrc.answers import Predictions, predictions_of
from xlens.tasks.xmrc.data import ReadingSet, apart, article_of

Baseline = Literal["first sentence", "random span"]
MISMATCHED = "mismatched"


@typed
def mismatched(reading: ReadingSet, *, seed: int = 0) -> ReadingSet:
    """The same questions, each with the context of another article's paragraph.

    What a model still gets right it knows without reading, or takes from the look of an answer.
    All questions on a paragraph get the same other one, in every language; contexts are permuted,
    so none is lost. Where there are too few articles, the other paragraph may be of the same one.
    Where articles aren't known, it stands at least a quarter of the list away, taken as a circle:
    neighbours are often of one article. `other_articles` of the result says how it went.

    Its prompts have no spans of an answer. Demonstrations need the set as it was:
    `reading_prompts(mismatched(reading), pool=reading)`.

    Raises:
        ValueError: one paragraph only, or of a language that has paragraphs of its own.
    """
    frame = reading.frame
    elsewhere = True
    other: dict[tuple[str, str], str] = {}
    groups = [reading.languages] if reading.parallel else [[tag] for tag in reading.languages]
    for tags in groups:
        paragraphs = list(dict.fromkeys(frame[frame["language"].isin(tags)]["paragraph"]))
        if len(paragraphs) < 2:
            raise InputError(
                f"{reading.source} has {len(paragraphs)} paragraph in {', '.join(tags)}; contexts "
                "can be exchanged between two or more."
            )
        exchanged = _exchanged(paragraphs, seed)
        other |= {(tag, a): b for tag in tags for a, b in exchanged.items()}
        elsewhere = elsewhere and all(apart(a, b) for a, b in exchanged.items())
    contexts = {
        (str(row.language), str(row.paragraph)): str(row.context)
        # Later entries of a dict take the place of earlier ones, so that it goes backwards.
        for row in frame[::-1].itertuples(index=False)  # a paragraph's first question counts
    }
    keys = zip(frame["language"], frame["paragraph"], strict=True)
    told = pd.Series([contexts[tag, other[tag, p]] for tag, p in keys], index=frame.index)
    new = frame.assign(context=told)
    return replace(reading, frame=new, control=MISMATCHED, other_articles=elsewhere)


@typed
def baseline_predictions(
    prompts: Prompts | Sequence[Prompts], baseline: Baseline = "first sentence", *, seed: int = 0
) -> Predictions:
    """Answers without a model: what the look of the task alone is worth.

    Args:
        prompts: From `reading_prompts`; with `first sentence` the first of each context, with
            `random span` words of the context, as many as another question's answer has.
        baseline: One of these names.
        seed: Of the spans.

    Raises:
        ValueError: prompts of another task.
    """
    groups = [prompts] if isinstance(prompts, Prompts) else list(prompts)
    texts = [
        text
        for group in groups
        for text in (_first(group) if baseline == "first sentence" else _spans(group, seed))
    ]
    return predictions_of(
        groups, texts, model=baseline, provenance={"baseline": baseline, "seed": seed}
    )


def _exchanged(paragraphs: Sequence[str], seed: int) -> dict[str, str]:
    """Another paragraph for each: a permutation, in which no article keeps its own if possible."""
    n = len(paragraphs)
    if not all(map(article_of, paragraphs)):
        # A quarter, rounded up, and as far from the other end of the circle.
        low = (n + 3) // 4
        step = random.Random(seeded_rank(*paragraphs, seed=seed)).randrange(low, n - low + 1)
        return {p: paragraphs[(k + step) % n] for k, p in enumerate(paragraphs)}
    by_article: dict[str, list[str]] = {}
    for paragraph in sorted(paragraphs, key=lambda p: seeded_rank(p, seed=seed)):
        by_article.setdefault(article_of(paragraph), []).append(paragraph)
    order = [p for group in by_article.values() for p in group]
    # Articles lie side by side: moved on by the longest, nobody stays in their own.
    longest = max(map(len, by_article.values()))
    # With a step between the longest article and n less it, no position lands in its own article.
    step = longest if 2 * longest <= n else 1
    return {p: order[(k + step) % n] for k, p in enumerate(order)}


def _first(prompts: Prompts) -> list[str]:
    return [prompt.part("sentence_0") for prompt in prompts]


def _spans(prompts: Prompts, seed: int) -> list[str]:
    """A span of each context, as long as the answer of a question drawn at random."""
    contexts = [_places(prompt) for prompt in prompts]
    lengths = [_length(prompt) for prompt in prompts]
    found: list[str] = []
    for prompt, places in zip(prompts, contexts, strict=True):
        # By the id: the same span whichever others are asked.
        draw = random.Random(seeded_rank(prompt.id, seed=seed))
        n = min(draw.choice(lengths), len(places))
        at = draw.randrange(len(places) - n + 1)
        found.append(prompt.text[places[at][0] : places[at + n - 1][1]])
    return found


def _length(prompt: Prompt) -> int:
    """Words, or characters, of a prompt's right answer."""
    references: list[str] = json.loads(str(prompt.meta["references"]))
    return len(_words(references[0], str(prompt.meta["answer_language"])))


def _places(prompt: Prompt) -> list[tuple[int, int]]:
    begin = prompt.spans["context"][0]
    spans = _words(prompt.part("context"), str(prompt.meta["context_language"]))
    return [(begin + a, begin + b) for a, b in spans]


def _words(text: str, language: str) -> list[tuple[int, int]]:
    pattern = r"\S" if script(language) in UNSPACED else r"\S+"
    return [match.span() for match in re.finditer(pattern, text)]
