"""A latent pivot whose words are bound to it: no two languages' words for a thing share a code."""

from collections.abc import Sequence

import torch

from xlens.testbed.planted.blueprint import (
    Block,
    Spaces,
    check_layers,
    check_sizes,
    write_model,
)
from xlens.testbed.planted.lexicon import lexicon, word_tokenizer
from xlens.testbed.planted.pivot import (
    PivotTruth,
    aim_word,
    known_language,
    pivot_questions,
    word_ends,
)
from xlens.testbed.planted.planted import Planted, Questions


def bound_pivot(
    *,
    used: bool = True,
    depth: int = 8,
    pivot_layer: int = 3,
    target_layer: int = 6,
    languages: int | Sequence[str] = 6,
    pivot: str | None = None,
    source: str | None = None,
    target: str | None = None,
    n_words: int = 12,
    noise: float = 0.0,
    leak: float = 0.0,
    seed: int = 0,
) -> Planted[PivotTruth]:
    """A Llama that translates by way of the pivot's own words, or only seems to.

    Each word has a code of its own. With `used`, it has the concept's as well, and the block below
    `pivot_layer` puts the pivot's code in the place of the word's that is shown; the block below
    `target_layer` looks up the target's word by the pivot's code: by what the concept shares with
    no other language. Without, words share nothing: the first block writes the pivot's word beside
    the one that is shown, and the second looks up the target's by the latter, and drops both. The
    pivot's word can be read in between, and nothing reads it.

    Prompts, spans and truth are those of `latent_pivot`; source and target are bound to the
    weights, so that others can't be asked for.

    Args:
        used: Whether the pivot's word is what the target's is looked up by.
        depth: Number of blocks.
        pivot_layer: First residual point at which the pivot's word is there.
        target_layer: First at which the target's is.
        languages: Tags, or how many; at least three.
        pivot: The language in between; the first by default.
        source: The language of the words that are shown; the first of the others by default. Words
            of the rest are in the vocabulary, and nothing reads them.
        target: The language asked for; by default the last that is not the pivot.
        n_words: Concepts.
        noise: Norm of what a random MLP adds to each state in each block; a code has norm 1.
        leak: The same for random attention.
        seed: Of weights and words.

    Raises:
        ValueError: as `latent_pivot`.
    """
    check_layers(depth, [("pivot_layer", pivot_layer), ("target_layer", target_layer)])
    check_sizes(noise=noise, leak=leak)
    words = lexicon(languages, n_words, seed=seed)
    tags = words.languages
    pivot = known_language(words, "pivot", pivot or tags[0])
    target = known_language(words, "target", target or [x for x in tags if x != pivot][-1])
    every = pivot_questions(words, pivot=pivot, target=target)
    source = known_language(words, "source", source or every["asked"].prompts.languages[0])
    questions = {
        name: Questions(prompts=each.prompts.select(languages=[source]), answers=each.answers)
        for name, each in every.items()
    }
    asked = questions.pop("asked")
    n = len(tags)
    spaces = Spaces(
        {"concept": n_words, "word": n_words * n, "aim": n, "kind": 2, "mark": 2}, seed=seed
    )
    own = {tag: spaces["word"][k * n_words : (k + 1) * n_words] for k, tag in enumerate(tags)}
    tokenizer = word_tokenizer([*map(aim_word, tags), *words.words])
    ids: dict[str, int] = tokenizer.get_vocab()
    codes = {
        words.word(concept, tag): (own[tag][c], *([spaces["concept"][c]] if used else []))
        for tag in tags
        for c, concept in enumerate(words.concepts)
    }
    embed, unembed = word_ends(spaces, ids, words, codes)
    shown, between, last = own[source], own[pivot], own[target]
    if used:
        # One code for another: norms stay, and `balance` has nothing to give up.
        first = Block(reads=shown, writes=between - shown)
        second = Block(reads=between, writes=last - between)
    else:
        held = 3  # `one`, the kind and the word
        first = Block(reads=shown, writes=spaces.adding(between, to=held))
        second = Block(
            reads=torch.cat([shown, between]),
            # What the first block added is taken off whole, `balance` too.
            writes=torch.cat([last - shown, -spaces.adding(between, to=held)]),
        )
    model = write_model(
        spaces,
        tokenizer,
        embed=embed,
        unembed=unembed,
        blocks={pivot_layer - 1: first, target_layer - 1: second},
        depth=depth,
        noise=noise,
        leak=leak,
        seed=seed,
        name=f"planted {'bound' if used else 'idle'} pivot ({pivot_layer} and {target_layer} of "
        f"{depth})",
    )
    truth = PivotTruth(
        depth=depth,
        pivot_layer=pivot_layer,
        target_layer=target_layer,
        pivot=pivot,
        target=target,
        noise=noise,
        leak=leak,
        seed=seed,
        lexicon=words,
        subspaces={name: basis.float() for name, basis in spaces.bases.items()},
    )
    return Planted(
        prompts=asked.prompts, answers=asked.answers, model=model, truth=truth, donors=questions
    )
