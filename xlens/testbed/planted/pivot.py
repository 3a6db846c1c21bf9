"""The latent-pivot transformer: a word of one language becomes another's by way of a third."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from xlens.errors import InputError
from xlens.languages import standardize
from xlens.prompts import Prompt, Prompts
from xlens.testbed.planted.blueprint import (
    HEAD_DIM,
    LOGIT,
    Block,
    Head,
    Spaces,
    check_layers,
    check_sizes,
    look_for,
    write_model,
)
from xlens.testbed.planted.lexicon import BOS, Lexicon, lexicon, word_tokenizer
from xlens.testbed.planted.planted import Planted, Questions


@dataclass(frozen=True, kw_only=True)
class PivotTruth:
    """What was planted.

    Attributes:
        depth: Number of blocks.
        pivot_layer: First residual point at which the last position holds the pivot's word; below
            it holds the word shown.
        target_layer: First residual point at which it holds the target's word, to the end.
        pivot: The language in between.
        target: The language the prompts ask for.
        noise: Norm of what a random MLP adds per block; a code has norm 1.
        leak: The same for random attention.
        seed: Of everything.
        lexicon: The words.
        subspaces: Orthonormal rows `[rank, d_model]` by name: `concept` and `language` (at a word,
            all the way up), `aim` (at the token that names the target), and the machinery: `one`,
            `balance`, `bos`, `kind`, `mark`.
    """

    depth: int
    pivot_layer: int
    target_layer: int
    pivot: str
    target: str
    noise: float
    leak: float
    seed: int
    lexicon: Lexicon
    subspaces: Mapping[str, Float[Tensor, "rank d_model"]]


def latent_pivot(
    *,
    depth: int = 8,
    pivot_layer: int = 3,
    target_layer: int = 6,
    languages: int | Sequence[str] = 4,
    pivot: str | None = None,
    target: str | None = None,
    n_words: int = 16,
    noise: float = 0.0,
    leak: float = 0.0,
    seed: int = 0,
) -> Planted[PivotTruth]:
    """A Llama that translates through a pivot language, at layers of your choice.

    A prompt is `to(de) bako(fr)`; at its last position the logit lens reads `bako(fr)` below
    `pivot_layer`, `bako(en)` from there on, and `bako(de)` from `target_layer` on. The MLP of block
    `pivot_layer - 1` replaces any language by the pivot; an attention head of block
    `target_layer - 1` fetches the target from the first token and puts it in the pivot's place.
    The concept stays what it is.

    Args:
        depth: Number of blocks.
        pivot_layer: Residual point a, from 1.
        target_layer: Residual point b, a < b <= depth.
        languages: Tags, or how many; at least three. Vocabularies are disjoint.
        pivot: The language in between; the first by default.
        target: The language asked for; by default the last that is not the pivot. The prompts show
            words of all the others.
        n_words: Concepts; each is shown in every other language.
        noise: Norm of what a random MLP adds to each state in each block, where a code has norm 1.
        leak: The same for random attention.
        seed: Of weights and words.

    Returns:
        The model with its prompts. `donors["word"]`: another word of the same language, same
        target. Spans: `aim` and `word`. More prompts, for other targets: `pivot_questions`.

    Raises:
        ValueError: layers out of order, unknown languages, sizes that don't fit.
    """
    check_layers(depth, [("pivot_layer", pivot_layer), ("target_layer", target_layer)])
    check_sizes(noise=noise, leak=leak)
    words = lexicon(languages, n_words, seed=seed)
    n = len(words.languages)
    if n < 3 or n > HEAD_DIM:
        raise InputError(
            f"{n} languages; a word, the pivot and the target need at least three, and a head "
            f"reads at most {HEAD_DIM}."
        )
    pivot = known_language(words, "pivot", pivot or words.languages[0])
    target = target or [x for x in words.languages if x != pivot][-1]
    questions = pivot_questions(words, pivot=pivot, target=target)
    asked = questions.pop("asked")
    spaces = Spaces(
        {"concept": n_words, "language": n, "aim": n, "kind": 2, "mark": 2},
        seed=seed,
    )
    tokenizer = word_tokenizer([*map(aim_word, words.languages), *words.words])
    ids: dict[str, int] = tokenizer.get_vocab()
    codes = {
        words.word(concept, tag): (spaces["concept"][c], spaces["language"][k])
        for k, tag in enumerate(words.languages)
        for c, concept in enumerate(words.concepts)
    }
    embed, unembed = word_ends(spaces, ids, words, codes)
    model = write_model(
        spaces,
        tokenizer,
        embed=embed,
        unembed=unembed,
        blocks=_blocks(spaces, pivot_layer, target_layer, words.languages.index(pivot)),
        depth=depth,
        noise=noise,
        leak=leak,
        seed=seed,
        name=f"planted pivot ({pivot_layer} and {target_layer} of {depth})",
    )
    truth = PivotTruth(
        depth=depth,
        pivot_layer=pivot_layer,
        target_layer=target_layer,
        pivot=pivot,
        target=standardize(target),
        noise=noise,
        leak=leak,
        seed=seed,
        lexicon=words,
        subspaces={name: basis.float() for name, basis in spaces.bases.items()},
    )
    return Planted(
        prompts=asked.prompts, answers=asked.answers, model=model, truth=truth, donors=questions
    )


def pivot_questions(words: Lexicon, *, pivot: str, target: str) -> dict[str, Questions]:
    """Prompts for a latent-pivot model, and their donors.

    Args:
        words: As in the model's truth.
        pivot: The language in between, of which no word is shown.
        target: The language asked for, of which no word is shown.

    Returns:
        `asked`: every concept in every other language; `word`: another word of the same language.

    Raises:
        ValueError: a language that is not in the lexicon, or no language left to show.
    """
    pivot, target = known_language(words, "pivot", pivot), known_language(words, "target", target)
    shown = [x for x in words.languages if x not in (pivot, target)]
    if not shown or pivot == target or len(words.concepts) < 2:
        raise InputError(
            f"Pivot {pivot!r}, target {target!r} and {len(words.concepts)} concepts: two different "
            "languages are needed, a third to show words of, and two concepts."
        )

    def ask(concepts: Sequence[str]) -> Questions:
        prompts = [
            Prompt.from_parts(
                [("aim", aim_word(target)), " ", ("word", words.word(concept, language))],
                language=language,
                id=id,
                meta={
                    "source": language,
                    "target": target,
                    "task": "translation",
                    "concept": concept,
                    "answer": words.word(concept, target),
                },
            )
            for id, concept in zip(words.concepts, concepts, strict=True)
            for language in shown
        ]
        answers = pd.DataFrame(
            [[words.word(concept, x) for x in words.languages] for concept in concepts],
            index=pd.Index(words.concepts, name="id"),
            columns=list(words.languages),
        )
        return Questions(prompts=Prompts(prompts), answers=answers)

    # Each id with its neighbour's word: never its own, as there are two concepts or more.
    turned = [str(x) for x in np.roll(words.concepts, 1)]
    return {"asked": ask(words.concepts), "word": ask(turned)}


def aim_word(language: str) -> str:
    """The word that names the target."""
    return f"to({language})"


def known_language(words: Lexicon, what: str, language: str) -> str:
    """A tag of the lexicon's.

    Raises:
        ValueError: it is none of them.
    """
    if (tag := standardize(language)) not in words.languages:
        raise InputError(f"{what} is {tag!r}; the words are in {list(words.languages)}.")
    return tag


def word_ends(
    spaces: Spaces,
    ids: Mapping[str, int],
    words: Lexicon,
    codes: Mapping[str, Sequence[Float[Tensor, " d_model"]]],
) -> tuple[Float[Tensor, "d_vocab d_model"], Float[Tensor, "d_vocab d_model"]]:
    """Embedding and unembedding: words by their codes, the rest by kind.

    Args:
        spaces: With `aim`, `kind` and `mark` among them.
        ids: Of all tokens.
        words: Of all languages.
        codes: Of each word, one or two.
    """
    kind = spaces["kind"]
    embed = torch.zeros(len(ids), spaces.d_model, dtype=torch.float64)
    # Nothing that isn't a word is ever the answer.
    unembed = torch.zeros_like(embed) - LOGIT * spaces.sole("one")
    aims = [aim_word(x) for x in words.languages]
    # Tokens that are neither word nor target (<eos>, <unk>), in the order of their ids.
    marks = [w for w in sorted(ids, key=ids.__getitem__) if w not in {BOS, *aims, *words.words}]
    for word, code in zip(marks, spaces["mark"], strict=True):
        embed[ids[word]] = spaces.state(code)
    embed[ids[BOS]] = spaces.state(spaces.sole("bos"))
    for aim, code in zip(aims, spaces["aim"], strict=True):
        embed[ids[aim]] = spaces.state(kind[0], code)
    for word, own in codes.items():
        embed[ids[word]] = spaces.state(kind[1], *own)
        # A word that is there has a logit of 2 LOGIT however many codes it has.
        unembed[ids[word]] = LOGIT * 2 / len(own) * torch.stack([*own]).sum(0)
    return embed, unembed


def _blocks(spaces: Spaces, a: int, b: int, pivot: int) -> dict[int, Block]:
    """One code takes another's place, so that norms stay what they are."""
    language, kind = spaces["language"], spaces["kind"]
    to_pivot = Block(reads=language, writes=language[pivot] - language)
    fetch = Head(
        *look_for(spaces, query=kind[1:], key=kind[:1]),
        reads=spaces["aim"],
        # The head reads only which target it is; that the pivot stands there is known.
        writes=language - language[pivot],
    )
    return {a - 1: to_pivot, b - 1: Block(heads=(fetch,))}
