"""Which prompts run together: shared prefixes once, the rest in batches of similar length.

Token sequences are compared as they are, over all prompts: a few-shot header, one context with
many questions, one question with many candidates. Sequences that begin alike form a group whose
common prefix runs once; identical sequences run once altogether.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TypeVar

from xlens.checks import typed
from xlens.errors import InputError

Tokens = tuple[int, ...]
Row = TypeVar("Row")

# A shared prefix costs a second, narrower pass and a gather of its keys and values: below this
# many tokens saved, running the group whole is cheaper.
MIN_SAVED = 48
# What a pass costs by itself, in shares of the budget, where that is more than MIN_SAVED: about 20
# tokens on a CPU, hundreds on a device that takes thousands at a time.
PASS_SHARE = 64
# Keys and values of a batch may take as many token places as this many budgets.
KV_BUDGETS = 8


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
    own. Passes are cut where that saves more padding than a pass costs. Longest first: what doesn't
    fit in memory fails at once, not after an hour.

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
        raise InputError(f"token_budget is {token_budget}; it must be at least 1 token.")
    if not all(sequences):
        raise InputError("Every prompt must have at least one token.")
    most = KV_BUDGETS * token_budget if places is None else places
    groups = shared_prefixes(sequences) if share else []
    grouped = {m for group in groups for m in group.members}
    alone = [i for i in range(len(sequences)) if i not in grouped]
    lengths = [len(s) for s in sequences]
    batches = [_whole(rows, lengths) for rows in _rows(alone, lengths, token_budget)]
    groups.sort(key=lambda g: (-g.prefix, g.members))
    full: list[list[Group]] = []
    for group in groups:
        if not full or (len(full[-1]) + 1) * full[-1][0].prefix > token_budget:
            full.append([])
        full[-1].append(group)
    # Prefixes apart are two passes more: theirs, and one of what follows them.
    for taken in _cut(full, attrgetter("prefix"), 2 * _cost(token_budget)):
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

    A node of the trie over the token ids is a run of neighbours among the sorted sequences, its
    depth their common length. A node becomes a group where that saves more tokens than the best
    groups below it. Nodes are met as they end, from left to right: time grows with the tokens.
    """
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    groups: list[Group] = []
    open_nodes: list[_Node] = []

    def close(node: _Node, stop: int) -> int:
        """End a node before `stop`; what it saves."""
        here = (stop - node.start - 1) * node.depth
        if here < max(node.saved, MIN_SAVED):
            return node.saved
        del groups[node.first :]  # the best groups below it
        groups.append(Group(node.depth, tuple(sorted(order[node.start : stop]))))
        return here

    common = 0
    for at in range(1, len(order) + 1):
        before = common
        common = (
            _common(sequences[order[at - 1]], sequences[order[at]], before)
            if at < len(order)
            else 0
        )
        start, first, saved = at - 1, len(groups), 0
        while open_nodes and open_nodes[-1].depth > common:
            node = open_nodes.pop()
            start, first, saved = node.start, node.first, close(node, at)
            if open_nodes and open_nodes[-1].depth >= common:
                open_nodes[-1].saved += saved
                saved = 0
        if common and not (open_nodes and open_nodes[-1].depth == common):
            open_nodes.append(_Node(common, start, first, saved))
    return groups


@dataclass
class _Node:
    """A node of the trie that has begun.

    Attributes:
        depth: Length of what its sequences have in common.
        start: Its first sequence, among the sorted ones.
        first: How many groups there were before it.
        saved: By the best groups below it.
    """

    depth: int
    start: int
    first: int
    saved: int


def _common(a: Tokens, b: Tokens, likely: int) -> int:
    n = min(len(a), len(b))
    # Neighbours often have in common what the two before had: compared at once.
    start = likely if likely <= n and a[:likely] == b[:likely] else 0
    return next((i for i in range(start, n) if a[i] != b[i]), n)


def _rows(
    members: Sequence[int],
    lengths: Sequence[int] | Mapping[int, int],
    budget: int,
    ahead: int = 0,
    places: int = 0,
) -> list[tuple[int, ...]]:
    """Cut into passes by length, longest first; `ahead` tokens of prefix stand before each row.

    Keys and values of prefixes and rows take at most `places`.
    """
    passes: list[list[int]] = []
    for i in sorted(members, key=lambda i: (-lengths[i], i)):
        rows = len(passes[-1]) + 1 if passes else 0
        longest = lengths[passes[-1][0]] if passes else 0
        crowded = ahead and rows * (ahead + longest) > places
        if not passes or rows * longest > budget or crowded:
            passes.append([])
        passes[-1].append(i)
    return [tuple(rows) for rows in _cut(passes, lengths.__getitem__, _cost(budget))]


def _cut(
    passes: Sequence[list[Row]], length: Callable[[Row], int], cost: int
) -> Iterator[list[Row]]:
    """Passes, each longest first, cut where that saves more than so many tokens of padding."""
    for rows in passes:
        longest = length(rows[0])
        saved, at = max(
            ((longest - length(row)) * (len(rows) - n), n) for n, row in enumerate(rows)
        )
        if saved <= cost:
            yield rows
        else:
            yield from _cut([rows[:at], rows[at:]], length, cost)


def _cost(budget: int) -> int:
    return max(MIN_SAVED, budget // PASS_SHARE)


def _whole(rows: tuple[int, ...], lengths: Sequence[int]) -> Batch:
    groups = tuple(Group(0, (i,)) for i in rows)
    return Batch(groups, (rows,), 0, (len(rows) * lengths[rows[0]],))


def _shared(groups: Sequence[Group], lengths: Sequence[int], budget: int, places: int) -> Batch:
    rest = {m: lengths[m] - g.prefix for g in groups for m in g.members}
    going_on = [m for m, n in rest.items() if n > 0]
    passes = tuple(_rows(going_on, rest, budget, ahead=groups[0].prefix, places=places))
    sizes = tuple(len(p) * rest[p[0]] for p in passes)
    return Batch(tuple(groups), passes, len(groups) * groups[0].prefix, sizes)
