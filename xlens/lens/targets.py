"""Target sets: the vocabulary items that count as "the model is about to say this word"."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from xlens._renamed import renamed
from xlens.checks import typed
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.beginnings import Match, tokens_of
from xlens.text import folded

Collisions = Literal["drop", "subtract"]
REASONS = (
    "missing word",
    "no token",
    "same word inside the other",
    "shared tokens",
    "nothing of its own",
)


@renamed(reading="match")
@dataclass(frozen=True, kw_only=True)
class TargetSets:
    """Disjoint token sets of each item's word in each language.

    Attributes:
        sets: Item × language; each cell a tuple of token ids, ascending; the cells of an item are
            disjoint. Cells of `languages` are never empty; cells of the extra languages can be.
        languages: Languages that every item needs a set in.
        extra: Further languages, of which no item needs a set.
        dropped: What the collision filter took out: `id`, `reason`, `detail`.
        n_offered: Items before the filter.
        match: How sets were made.
    """

    sets: pd.DataFrame
    languages: tuple[str, ...]
    extra: tuple[str, ...]
    dropped: pd.DataFrame
    n_offered: int
    match: Match

    @property
    def ids(self) -> tuple[str, ...]:
        """Items that survived."""
        return tuple(self.sets.index)

    @property
    def all_languages(self) -> tuple[str, ...]:
        """`languages`, then `extra`."""
        return self.languages + self.extra

    def survival(self) -> pd.DataFrame:
        """How many items survived and why others did not: `reason`, `n`."""
        counts = self.dropped["reason"].value_counts()
        rows = [("offered", self.n_offered), ("kept", len(self.sets))]
        rows += [(reason, int(counts.get(reason, 0))) for reason in REASONS]
        return pd.DataFrame(rows, columns=["reason", "n"])

    def tensor(self, ids: Sequence[str]) -> Int[Tensor, "row language size"]:
        """Token ids per item and language, padded with -1, in the order of `ids`.

        Raises:
            ValueError: an item that the filter dropped or that was never offered.
        """
        if missing := [i for i in ids if i not in self.sets.index]:
            n = len(set(missing) & set(self.dropped["id"]))
            raise InputError(
                f"{len(missing)} of {len(ids)} items have no target sets, first {missing[0]!r}: "
                f"the collision filter dropped {n} of them, and {len(missing) - n} were never "
                "offered to it. Select what is left before harvesting: "
                "prompts.select(ids=[i for i in prompts.ids if i in targets.ids])."
            )
        table = self.sets.loc[list(ids), list(self.all_languages)]
        size = max(len(cell) for column in table.columns for cell in table[column])
        out = torch.full((len(table), table.shape[1], max(size, 1)), -1, dtype=torch.long)
        for r, row in enumerate(table.itertuples(index=False)):
            for c, cell in enumerate(row):
                out[r, c, : len(cell)] = torch.tensor(cell, dtype=torch.long)  # type: ignore
        return out


@renamed(reading="match")
@typed
def target_sets(
    model: HookedModel,
    words: pd.DataFrame,
    *,
    languages: Sequence[str] | None = None,
    extra: Sequence[str] = (),
    match: Match = "prefixes",
    collisions: Collisions = "drop",
) -> TargetSets:
    """Token sets of every item's word, disjoint between languages.

    An item is dropped when one of `languages` lacks the word, when its word tokenises to nothing,
    when one word lies inside the other (case folded; arXiv 2402.10588 drops where the English
    word is inside the target word), or when two sets share a token. With
    `collisions="subtract"` shared tokens leave both sets instead.

    `extra` is for the language of the prompt's own word: a model that merely repeats "Italien"
    must not count as thinking of "Italy". Tokens that an extra language shares with any other
    leave both sets, and an item of which one of `languages` keeps nothing of its own is dropped.

    Args:
        model: Whose vocabulary counts.
        words: Item ids × language tags.
        languages: Columns whose sets must exist and be disjoint; default: all not in `extra`.
        extra: Columns that are read too and may end up empty.
        match: `prefixes` or `first`; see `word_tokens`.
        collisions: `drop` (as in the paper) or `subtract`.

    Raises:
        ValueError: a column that isn't there, fewer than one language, an item twice, or nothing
            left at all.
    """
    main = tuple(languages or [c for c in words.columns if c not in set(extra)])
    missing = [c for c in (*main, *extra) if c not in words.columns]
    if missing or not main:
        raise InputError(
            f"target_sets needs at least one language and columns for all of them; missing "
            f"{missing or 'languages'}, the words have {list(words.columns)}."
        )
    if twice := sorted({str(i) for i in words.index[words.index.duplicated()]}):
        raise InputError(f"Item ids must be unique; {twice[0]!r} has several rows of words.")
    others, vocab = tuple(c for c in extra if c not in main), model.vocab
    kept: dict[str, dict[str, tuple[int, ...]]] = {}
    dropped: list[dict[str, str]] = []
    for item, row in words.iterrows():
        texts = {c: row[c] for c in (*main, *others) if isinstance(row[c], str) and row[c]}
        sets = {c: frozenset(tokens_of(model, vocab, w, match)) for c, w in texts.items()}
        problem = _problem(main, texts, sets, collisions)
        if problem is not None:
            dropped.append({"id": str(item), "reason": problem[0], "detail": problem[1]})
            continue
        shared = _shared((*main, *others), sets)
        cells = {c: tuple(sorted(sets.get(c, frozenset()) - shared)) for c in (*main, *others)}
        if bare := [c for c in main if not cells[c]]:
            detail = ", ".join(f"{c}: {w}" for c, w in texts.items())
            reason = "nothing of its own"
            dropped.append({"id": str(item), "reason": reason, "detail": f"{bare[0]} of {detail}"})
            continue
        kept[str(item)] = cells
    if not kept:
        counts = pd.Series([d["reason"] for d in dropped]).value_counts().to_dict()
        raise InputError(
            f"No item of {len(words)} is left for {', '.join(main)} after the collision filter "
            f"({counts}). Use other words, other languages, match='first' or "
            "collisions='subtract'."
        )
    return TargetSets(
        sets=pd.DataFrame.from_dict(kept, orient="index", columns=[*main, *others]),
        languages=main,
        extra=others,
        dropped=pd.DataFrame(dropped, columns=["id", "reason", "detail"]),
        n_offered=len(words),
        match=match,
    )


def _shared(languages: Sequence[str], sets: dict[str, frozenset[int]]) -> frozenset[int]:
    once: set[int] = set()
    twice: set[int] = set()
    for c in languages:
        mine = sets.get(c, frozenset[int]())
        twice |= once & mine
        once |= mine
    return frozenset(twice)


def _problem(
    main: Sequence[str],
    texts: dict[str, str],
    sets: dict[str, frozenset[int]],
    collisions: Collisions,
) -> tuple[str, str] | None:
    if absent := [c for c in main if c not in texts]:
        return "missing word", ", ".join(absent)
    if empty := [c for c in main if not sets[c]]:
        return "no token", ", ".join(f"{c}: {texts[c]}" for c in empty)
    same = {c: folded(texts[c]) for c in main}
    for a in main:
        for b in main:
            if a != b and same[a] in same[b]:
                return "same word inside the other", f"{a}: {texts[a]} in {b}: {texts[b]}"
    shared = _shared(main, sets)
    if shared and collisions == "drop":
        return "shared tokens", f"{len(shared)} of {', '.join(texts[c] for c in main)}"
    return None
