"""Which prompts run together: shared prefixes once, the rest in batches of similar length.

Token sequences are compared as they are, over all prompts: a few-shot header, one context with
many questions, one question with many candidates. Sequences that begin alike form a group whose
common prefix runs once; identical sequences run once altogether.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from xlens.checks import typed

Tokens = tuple[int, ...]

# A shared prefix costs a second, narrower pass and a gather of its keys and values: below this
# many tokens saved, running the group whole is cheaper.
MIN_SAVED = 48
# Keys and values of a batch may take as many token places as this many budgets.
KV_BUDGETS = 8
# Levels of the trie that are looked at; deeper ones (each sequence a prefix of the next) run whole.
DEEPEST = 200


@dataclass(frozen=True)
class Group:
    """Sequences that begin alike.

    Attributes:
        prefix: Length of the common beginning that runs once; 0 for none.
        members: Positions of the sequences in the list that was planned.
    """

    prefix: int
    members: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Groups that run together: their prefixes in one pass, what follows in one or several.

    Attributes:
        groups: All with a prefix, or all without.
        passes: The sequences of each pass over what follows the prefixes; sequences that end with
            their prefix are in none.
        prefix_tokens: Padded size of the prefix pass; 0 without prefixes.
        pass_tokens: Padded size of each pass.
    """

    groups: tuple[Group, ...]
    passes: tuple[tuple[int, ...], ...]
    prefix_tokens: int
    pass_tokens: tuple[int, ...]

    @property
    def members(self) -> tuple[int, ...]:
        """All sequences of the batch."""
        return tuple(m for group in self.groups for m in group.members)

    @property
    def padded_tokens(self) -> int:
        """Tokens that the model computes, padding included."""
        return self.prefix_tokens + sum(self.pass_tokens)

    def renumbered(self, numbers: Sequence[int]) -> "Batch":
        """The same with `numbers[i]` for sequence i: some of a list were planned."""
        return replace(
            self,
            groups=tuple(
                Group(g.prefix, tuple(numbers[m] for m in g.members)) for g in self.groups
            ),
            passes=tuple(tuple(numbers[m] for m in rows) for rows in self.passes),
        )

    def pieces(self, longest: int) -> Iterator["Batch"]:
        """The batch in pieces of at most so many passes, each of which runs its prefixes anew."""
        if self.prefix_tokens == 0 or len(self.passes) <= longest:
            yield self
            return
        left = set(self.members)
        for first in range(0, len(self.passes), longest):
            passes = self.passes[first : first + longest]
            later = {m for rows in self.passes[first + longest :] for m in rows}
            mine = left - later  # those that end with their prefix are in the first piece
            left &= later
            kept = ((g.prefix, tuple(m for m in g.members if m in mine)) for g in self.groups)
            groups = tuple(Group(prefix, members) for prefix, members in kept if members)
            yield Batch(
                groups,
                passes,
                len(groups) * max(g.prefix for g in groups),
                self.pass_tokens[first : first + longest],
            )


@typed
def plan(
    sequences: Sequence[Tokens],
    token_budget: int,
    *,
    share: bool = True,
    apart: Sequence[int] | None = None,
    places: int | None = None,
) -> list[Batch]:
    """Put sequences into batches, longest first, within `token_budget` tokens a pass.

    Every sequence is in exactly one batch. One that is longer than the budget gets a pass of its
    own. Longest first: what doesn't fit in memory fails at once, not after an hour.

    Args:
        sequences: Token ids of each sequence.
        token_budget: Most tokens, padding included, in one pass.
        share: Whether common prefixes run once.
        apart: A label for each sequence: only those of one label run together, and only those of
            label 0 share prefixes. None: all may.
        places: Most token places whose keys and values a pass holds after shared prefixes; None:
            `KV_BUDGETS` budgets.

    Raises:
        ValueError: a budget below 1, or a sequence without tokens.
    """
    if apart is not None:
        return _apart(sequences, token_budget, share, apart, places)
    if token_budget < 1:
        raise ValueError(f"token_budget is {token_budget}; it must be at least 1 token.")
    if not all(sequences):
        raise ValueError("Every prompt must have at least one token.")
    most = KV_BUDGETS * token_budget if places is None else places
    groups = shared_prefixes(sequences) if share else []
    grouped = {m for group in groups for m in group.members}
    alone = [i for i in range(len(sequences)) if i not in grouped]
    lengths = [len(s) for s in sequences]
    batches = [_whole(rows, lengths) for rows in _rows(alone, lengths, token_budget)]
    groups.sort(key=lambda g: (-g.prefix, g.members))
    taken: list[Group] = []
    for group in groups:
        if taken and (len(taken) + 1) * taken[0].prefix > token_budget:
            batches.append(_shared(taken, lengths, token_budget, most))
            taken = []
        taken.append(group)
    if taken:
        batches.append(_shared(taken, lengths, token_budget, most))
    return sorted(batches, key=lambda b: -b.padded_tokens)


def _apart(
    sequences: Sequence[Tokens],
    token_budget: int,
    share: bool,
    labels: Sequence[int],
    places: int | None,
) -> list[Batch]:
    batches: list[Batch] = []
    for label in sorted(set(labels)):
        mine = [i for i, own in enumerate(labels) if own == label]
        shared = share and label == 0
        some = plan([sequences[i] for i in mine], token_budget, share=shared, places=places)
        batches.extend(batch.renumbered(mine) for batch in some)
    return sorted(batches, key=lambda b: -b.padded_tokens)


def shared_prefixes(sequences: Sequence[Tokens]) -> list[Group]:
    """Groups of sequences whose common prefix is worth running once.

    The trie over the token ids is walked through the sorted sequences: a node is a run of
    neighbours, its depth their common length. A node becomes a group where that saves more tokens
    than the best groups below it.
    """
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    common = [_common(sequences[a], sequences[b]) for a, b in pairwise(order)]
    groups: list[Group] = []
    _best(order, common, 0, len(order), groups)
    return groups


def _best(
    order: list[int], common: list[int], lo: int, hi: int, found: list[Group], level: int = 0
) -> int:
    """Tokens saved by the best grouping of `order[lo:hi]`; the groups go to `found`."""
    if hi - lo < 2 or level == DEEPEST:
        return 0
    depth = min(common[lo : hi - 1])
    here = (hi - lo - 1) * depth
    below: list[Group] = []
    cuts = [lo, *(k + 1 for k in range(lo, hi - 1) if common[k] == depth), hi]
    saved = sum(_best(order, common, a, b, below, level + 1) for a, b in pairwise(cuts))
    if here >= max(saved, MIN_SAVED):
        found.append(Group(depth, tuple(sorted(order[lo:hi]))))
        return here
    found.extend(below)
    return saved


def _common(a: Tokens, b: Tokens) -> int:
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)


def _rows(
    members: Sequence[int], lengths: Sequence[int], budget: int, ahead: int = 0, places: int = 0
) -> list[tuple[int, ...]]:
    """Cut into passes by length, longest first; `ahead` tokens of prefix stand before each row.

    Keys and values of prefixes and rows take at most `places`.
    """
    passes: list[tuple[int, ...]] = []
    current: list[int] = []
    for i in sorted(members, key=lambda i: (-lengths[i], i)):
        rows = len(current) + 1
        longest = lengths[current[0]] if current else lengths[i]
        crowded = ahead and rows * (ahead + longest) > places
        if current and (rows * longest > budget or crowded):
            passes.append(tuple(current))
            current = []
        current.append(i)
    if current:
        passes.append(tuple(current))
    return passes


def _whole(rows: tuple[int, ...], lengths: Sequence[int]) -> Batch:
    groups = tuple(Group(0, (i,)) for i in rows)
    return Batch(groups, (rows,), 0, (len(rows) * lengths[rows[0]],))


def _shared(groups: Sequence[Group], lengths: Sequence[int], budget: int, places: int) -> Batch:
    rest = {m: lengths[m] - g.prefix for g in groups for m in g.members}
    going_on = [m for m, n in rest.items() if n > 0]
    after = [rest.get(i, 0) for i in range(len(lengths))]
    passes = tuple(_rows(going_on, after, budget, ahead=groups[0].prefix, places=places))
    sizes = tuple(len(p) * after[p[0]] for p in passes)
    return Batch(tuple(groups), passes, len(groups) * groups[0].prefix, sizes)
