"""The two-phase retrieval transformer: the question moves at one layer, the answer at another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from xlens.errors import InputError
from xlens.languages import standardize
from xlens.prompts import Prompt, Prompts
from xlens.stats import generator
from xlens.testbed.planted.blueprint import (
    HEAD_DIM,
    LOGIT,
    MAX_CODES,
    N_CTX,
    Block,
    Head,
    Spaces,
    check_layers,
    check_sizes,
    look_back,
    look_for,
    write_model,
)
from xlens.testbed.planted.lexicon import BOS, EOS, Lexicon, lexicon, word_tokenizer
from xlens.testbed.planted.planted import Planted, Questions

AnswerLanguage = Literal["context", "question"]

IS, STOP, ASK, LAST = "=", ".", "?", "=>"


@dataclass(frozen=True, kw_only=True)
class TwoPhaseTruth:
    """What was planted.

    Attributes:
        depth: Number of blocks.
        question_layer: First residual point at which the last position holds the question.
        answer_layer: First residual point at which the last position holds the answer.
        context_language: Of the prompts' facts.
        answer_language: Whether answers are in the language of the context or of the question.
        noise: Norm of what a random MLP adds per block; a code has norm 1.
        leak: The same for random attention.
        sharpness: Of the attention that looks up the answer.
        seed: Of everything.
        keys: What is asked about, as a lexicon.
        values: What is answered, as a lexicon.
        subspaces: Orthonormal rows `[rank, d_model]` by name: `key`, `value`, `language` (of the
            token itself), `bound_key` (at a value, the key of its fact, from point 1 on),
            `question_key` and `question_language` (at the last position, from the question layer
            on), `answer` and `answer_language` (there, from the answer layer on), and the
            machinery: `one`, `balance`, `bos`, `kind`, `mark`.
    """

    depth: int
    question_layer: int
    answer_layer: int
    context_language: str
    answer_language: AnswerLanguage
    noise: float
    leak: float
    sharpness: float
    seed: int
    keys: Lexicon
    values: Lexicon
    subspaces: Mapping[str, Float[Tensor, "rank d_model"]]


def two_phase(
    *,
    depth: int = 8,
    question_layer: int = 3,
    answer_layer: int = 6,
    languages: int | Sequence[str] = 3,
    context_language: str | None = None,
    answer_language: AnswerLanguage = "context",
    n_items: int = 24,
    n_facts: int = 4,
    n_keys: int = 12,
    n_values: int = 12,
    noise: float = 0.0,
    leak: float = 0.0,
    sharpness: float = 1.0,
    seed: int = 0,
) -> Planted[TwoPhaseTruth]:
    """A Llama that reads facts, takes in a question, and only then looks up the answer.

    A prompt is `bako(en) = luma(en) . tiro(en) = sena(en) . ? bako(de) =>`, and the next word is
    `luma(en)`. Three attention heads do it, the rest of the model is idle:

    - Block 0 binds: each value takes over the key two tokens before it.
    - Block `question_layer - 1`: the last position takes over the key of the question.
    - Block `answer_layer - 1`: the last position finds the value that is bound to that key,
      whatever language either is in, and takes it over.

    So at the residual points below `question_layer` the question lives in its own tokens only;
    below `answer_layer` the answer lives in the context only.

    Args:
        depth: Number of blocks.
        question_layer: Residual point p, from 1.
        answer_layer: Residual point r, p < r <= depth.
        languages: Tags, or how many. Vocabularies are disjoint.
        context_language: Of the facts; the first by default. Questions are asked in all languages.
        answer_language: Whether the answer is in the language of the context or of the question.
        n_items: Items; each is asked in every language.
        n_facts: Facts per prompt.
        n_keys: Concepts that can be asked about.
        n_values: Concepts that can be an answer.
        noise: Norm of what a random MLP adds to each state in each block, where a code has norm 1.
            It moves nothing between positions: the truth stays what it is.
        leak: The same for random attention, which moves a little of everything everywhere: a
            sensitive probe finds the question early, though it does nothing there.
        sharpness: Factor on the attention scores of the head that looks up the answer. At 1 its
            attention is 1 to rounding, and gradients see what it takes over but not what it
            compares; at 0.1 it is about 0.997, and relevance reaches the question too.
        seed: Of weights, words and prompts.

    Returns:
        The model with its prompts. `donors["question"]`: the same facts, another key asked;
        `donors["context"]`: the same question, the values dealt out differently. Spans:
        `context`, `fact` (the one asked for), `key` and `answer` (inside it), `question` and
        `asked` (its word). More prompts, also in other languages: `retrieval_questions`.

    Raises:
        ValueError: layers out of order, unknown languages, sizes that don't fit.
    """
    check_layers(depth, [("question_layer", question_layer), ("answer_layer", answer_layer)])
    check_sizes(noise=noise, leak=leak, sharpness=sharpness)
    # One draw for both, so that no key is called as a value is.
    both = lexicon(languages, n_keys + n_values, seed=seed)
    keys = Lexicon(both.languages, both.concepts[:n_keys])
    values = Lexicon(both.languages, both.concepts[n_keys:])
    n_languages = len(both.languages)
    if n_keys > MAX_CODES or max(n_keys, n_values) + n_languages > HEAD_DIM:
        raise InputError(
            f"{n_keys} keys, {n_values} values and {n_languages} languages do not fit; accepted "
            f"are {MAX_CODES} keys, and {HEAD_DIM} for either with the languages."
        )
    questions = retrieval_questions(
        keys,
        values,
        context_language=context_language,
        answer_language=answer_language,
        n_items=n_items,
        n_facts=n_facts,
        seed=seed,
    )
    spaces = Spaces(
        {
            **dict.fromkeys(("key", "bound_key", "question_key"), n_keys),
            **dict.fromkeys(("value", "answer"), n_values),
            **dict.fromkeys(("language", "question_language", "answer_language"), n_languages),
            "kind": 3,
            "mark": 5,
        },
        seed=seed,
    )
    tokenizer = word_tokenizer([IS, STOP, ASK, LAST, *keys.words, *values.words])
    ids: dict[str, int] = tokenizer.get_vocab()
    embed, unembed = _ends(spaces, ids, keys, values)
    model = write_model(
        spaces,
        tokenizer,
        embed=embed,
        unembed=unembed,
        blocks=_blocks(spaces, question_layer, answer_layer, answer_language, sharpness),
        depth=depth,
        noise=noise,
        leak=leak,
        seed=seed,
        name=f"planted two-phase ({question_layer} and {answer_layer} of {depth})",
    )
    truth = TwoPhaseTruth(
        depth=depth,
        question_layer=question_layer,
        answer_layer=answer_layer,
        context_language=standardize(context_language or both.languages[0]),
        answer_language=answer_language,
        noise=noise,
        leak=leak,
        sharpness=sharpness,
        seed=seed,
        keys=keys,
        values=values,
        subspaces={name: basis.float() for name, basis in spaces.bases.items()},
    )
    asked = questions.pop("asked")
    return Planted(
        prompts=asked.prompts, answers=asked.answers, model=model, truth=truth, donors=questions
    )


def retrieval_questions(
    keys: Lexicon,
    values: Lexicon,
    *,
    context_language: str | None = None,
    answer_language: AnswerLanguage = "context",
    n_items: int = 24,
    n_facts: int = 4,
    seed: int = 0,
) -> dict[str, Questions]:
    """Prompts for a two-phase model, and their donors.

    Args:
        keys: As in the model's truth.
        values: As in the model's truth.
        context_language: Of the facts; the first by default.
        answer_language: As in the model's truth.
        n_items: Items; each is asked in every language.
        n_facts: Facts per prompt, at most 30.
        seed: Of facts and questions.

    Returns:
        `asked`; `question`: the same facts, another key asked; `context`: the same keys and
        question, every value moved to another key.

    Raises:
        ValueError: a language that is not in the lexicon, too few or too many facts.
    """
    context = standardize(context_language or keys.languages[0])
    if context not in keys.languages:
        raise InputError(f"context_language is {context!r}; the words are in {keys.languages}.")
    if answer_language not in get_args(AnswerLanguage):
        raise InputError(
            f"answer_language is {answer_language!r}; accepted are 'context' and 'question'."
        )
    most = min(len(keys.concepts), len(values.concepts), (N_CTX - 4) // 4)
    if not 2 <= n_facts <= most:
        raise InputError(
            f"n_facts is {n_facts}; accepted are 2 to {most} with {len(keys.concepts)} keys, "
            f"{len(values.concepts)} values and {N_CTX} tokens."
        )
    if n_items < 1:
        raise InputError(f"n_items is {n_items}; at least one is needed.")
    rng = generator(seed, 1)
    found: dict[str, list[tuple[list[tuple[str, str]], int]]] = {
        "asked": [],
        "question": [],
        "context": [],
    }
    for _ in range(n_items):
        about = [str(x) for x in rng.permutation(keys.concepts)[:n_facts]]
        said = [str(x) for x in rng.permutation(values.concepts)[:n_facts]]
        # Steps from 1 to n - 1: round the circle, these never end where they began.
        this, step, turn = rng.integers(n_facts), *rng.integers(1, n_facts, size=2)
        facts = list(zip(about, said, strict=True))
        found["asked"].append((facts, int(this)))
        found["question"].append((facts, int(this + step) % n_facts))
        dealt = [said[(i + int(turn)) % n_facts] for i in range(n_facts)]
        found["context"].append((list(zip(about, dealt, strict=True)), int(this)))

    def ask(items: Sequence[tuple[list[tuple[str, str]], int]]) -> Questions:
        prompts = [
            _prompt(keys, values, f"q{n:03}", facts, which, context, language, answer_language)
            for n, (facts, which) in enumerate(items)
            for language in keys.languages
        ]
        # Answers in every language, though the prompts ask for
        # one: what the lens may find in between.
        rows = {
            f"q{n:03}": {x: values.word(facts[which][1], x) for x in values.languages}
            for n, (facts, which) in enumerate(items)
        }
        answers = pd.DataFrame.from_dict(rows, orient="index", columns=list(values.languages))
        return Questions(prompts=Prompts(prompts), answers=answers)

    return {name: ask(items) for name, items in found.items()}


def _prompt(
    keys: Lexicon,
    values: Lexicon,
    id: str,
    facts: Sequence[tuple[str, str]],
    which: int,
    context: str,
    language: str,
    answer_language: AnswerLanguage,
) -> Prompt:
    parts: list[str | tuple[str, str | list[str | tuple[str, str]]]] = []
    for n, (key, value) in enumerate(facts):
        left, right = keys.word(key, context), values.word(value, context)
        if n == which:
            parts.append(("fact", [("key", left), f" {IS} ", ("answer", right), f" {STOP}"]))
        else:
            parts.append(f"{left} {IS} {right} {STOP}")
        parts.append(" ")
    key, value = facts[which]
    target = context if answer_language == "context" else language
    return Prompt.from_parts(
        [
            ("context", parts[:-1]),
            " ",
            ("question", [f"{ASK} ", ("asked", keys.word(key, language))]),
            f" {LAST}",
        ],
        language=language,
        id=id,
        meta={
            "source": language,
            "target": target,
            "task": "retrieval",
            "context_language": context,
            "asked_key": key,
            "answer_value": value,
            "answer": values.word(value, target),
        },
    )


def _ends(
    spaces: Spaces, ids: Mapping[str, int], keys: Lexicon, values: Lexicon
) -> tuple[Float[Tensor, "d_vocab d_model"], Float[Tensor, "d_vocab d_model"]]:
    """Embedding and unembedding: words by concept and language, the rest by kind."""
    kind, tongue = spaces["kind"], spaces["language"]
    embed = torch.zeros(len(ids), spaces.d_model, dtype=torch.float64)
    # Nothing that isn't a word is ever the answer; after a value there is no more to say.
    unembed = torch.zeros_like(embed) - LOGIT * spaces.sole("one")
    unembed[ids[EOS]] += 3 * LOGIT * kind[1]
    marks = [
        w
        for w in sorted(ids, key=ids.__getitem__)
        if w not in {BOS, LAST, *keys.words, *values.words}
    ]
    for word, code in zip(marks, spaces["mark"], strict=True):
        embed[ids[word]] = spaces.state(code)
    embed[ids[BOS]] = spaces.state(spaces.sole("bos"))
    embed[ids[LAST]] = spaces.state(kind[2])
    for words, concepts, its_kind in ((keys, "key", kind[0]), (values, "value", kind[1])):
        for c, concept in enumerate(words.concepts):
            for n, language in enumerate(words.languages):
                at = ids[words.word(concept, language)]
                embed[at] = spaces.state(its_kind, spaces[concepts][c], tongue[n])
                unembed[at] = LOGIT * spaces["answer_language"][n]
                if words is values:
                    unembed[at] += LOGIT * spaces["answer"][c]
    return embed, unembed


def _blocks(
    spaces: Spaces, p: int, r: int, answer_language: AnswerLanguage, sharpness: float
) -> dict[int, Block]:
    value, last = spaces["kind"][1], spaces["kind"][2]
    # `to` counts what the state holds before: one, kind, and the codes it got already.
    bind = Head(
        *look_back(spaces, 2, when=value),
        reads=spaces["key"],
        writes=spaces.adding(spaces["bound_key"], to=4),
    )
    key = spaces.adding(spaces["question_key"], to=2)
    tongue = spaces.adding(spaces["question_language"], to=3)
    take_in = Head(
        *look_back(spaces, 1, when=last),
        reads=torch.cat([spaces["key"], spaces["language"]]),
        writes=torch.cat([key, tongue]),
    )
    found = spaces.adding(spaces["answer"], to=4)
    tongue = spaces.adding(spaces["answer_language"], to=5)
    from_context = answer_language == "context"
    fetch = Head(
        *look_for(
            spaces,
            query=spaces["question_key"],
            key=spaces["bound_key"],
            sharpness=sharpness,
        ),
        reads=torch.cat([spaces["value"], spaces["language"]]) if from_context else spaces["value"],
        writes=torch.cat([found, tongue]) if from_context else found,
    )
    # Then the language isn't fetched: the last position has it already, and the MLP copies it.
    say_it = None if from_context else (spaces["question_language"], tongue)
    heads: dict[int, tuple[Head, ...]] = {0: (bind,)}
    # With p = 1 both heads are in block 0.
    heads[p - 1] = (*heads.get(p - 1, ()), take_in)
    heads[r - 1] = (fetch,)
    blocks = {n: Block(heads=some) for n, some in heads.items()}
    if say_it is not None:
        blocks[r - 1] = Block(heads=(fetch,), reads=say_it[0], writes=say_it[1])
    return blocks
