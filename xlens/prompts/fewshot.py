"""Which demonstrations a few-shot prompt shows: a header that many share, or some of its own."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from math import ceil
from operator import sub

import pandas as pd

from xlens.checks import check_seed, typed
from xlens.errors import InputError


class TooFewItems(InputError):
    """Not enough items for what is asked; with other languages there may be."""


@dataclass(frozen=True)
class Shown:
    """What stands before each item: the same in every language.

    Attributes:
        ids: Of the demonstrations, in order, by item.
        shared: Whether items share headers, so that intervals must draw these whole.
    """

    ids: Mapping[str, tuple[str, ...]]
    shared: bool

    def meta(self, item: str) -> dict[str, str]:
        """Of the item's prompt: `demonstrations` (their ids, joined by `|`), `header` (its name).

        Equal names are equal demonstrations, in every language, run and sample. There is no
        `header` where items have their own, nor where nothing is shown.
        """
        ids = self.ids[item]
        told = {"demonstrations": "|".join(ids)}
        return told | ({"header": header_name(ids)} if self.shared and ids else {})

    @property
    def names(self) -> dict[str, str]:
        """The header's name, by item; of none where items have their own."""
        return {id: header_name(ids) for id, ids in self.ids.items() if self.shared and ids}

    @property
    def described(self) -> dict[str, int]:
        """For provenance: `shots`, and `headers`, where items share some."""
        shots = max(map(len, self.ids.values()), default=0)
        names = set(self.names.values())
        return {"shots": shots, **({"headers": len(names)} if names else {})}


def headers_in(meta: pd.DataFrame) -> dict[str, int]:
    """As `Shown.described`, from the table of prompts that share headers; else nothing."""
    if "header" not in meta:
        return {}
    first = str(meta["demonstrations"].iloc[0])
    return {"shots": first.count("|") + 1, "headers": int(meta["header"].nunique())}


def header_name(ids: Sequence[str]) -> str:
    """A short name of these demonstrations, in this order."""
    return blake2b("\0".join(ids).encode(), digest_size=4).hexdigest()


@typed
def choose_demonstrations(
    candidates: Sequence[str],
    query: str,
    k: int,
    *,
    seed: int = 0,
    exclude: Collection[str] = (),
) -> tuple[str, ...]:
    """Choose `k` item ids to demonstrate before the item `query`, and before no other.

    The choice depends on the ids and the seed only, not on the candidates' order or on a
    language: the same item is preceded by the same demonstrations in every language. The query
    itself and everything in `exclude` (items that would give its answer away) is never chosen.

    Raises:
        TooFewItems: fewer than `k` candidates are left.
    """
    allowed = sorted(set(candidates) - {query} - set(exclude))
    if len(allowed) < k:
        raise TooFewItems(
            f"Item {query!r} needs {k} demonstrations, but only {len(allowed)} candidates are "
            f"left after excluding the query and {len(set(exclude))} items that would leak it. "
            f"Offer more items or ask for fewer shots."
        )
    return tuple(
        sorted(allowed, key=lambda candidate: seeded_rank(query, candidate, seed=seed))[:k]
    )


@typed
def cut_headers(
    candidates: Iterable[str], k: int, n: int, *, seed: int = 0
) -> list[tuple[str, ...]]:
    """Cut candidates into about `n` headers of `k`, each candidate in as few of them as possible.

    At least two, and so many that every candidate is in one only of two or more, as far as there
    are different ones: nobody stands in the header of their own prompt. The headers depend on the
    ids and the seed only.

    Returns:
        Different headers; none where there are fewer than `k` candidates.
    """
    pool = sorted(set(candidates))
    if k < 1 or len(pool) < k:
        return []
    spare = len(pool) - k
    # Of m headers each candidate is in about m k / len(pool); that it is missing in one at least
    # needs m >= len(pool) / (len(pool) - k).
    wanted = max(n, 2, ceil(len(pool) / spare)) if spare else 1
    found: dict[frozenset[str], tuple[str, ...]] = {}
    left: list[str] = []
    # Few candidates have few different sets: after enough turns what was found is what there is.
    for turn in range(4 * wanted):
        header: list[str] = []
        while len(header) < k:
            fresh = [id for id in left if id not in header]
            if not fresh:  # all were shown equally often: once more, in another order
                left += sorted(pool, key=lambda id: seeded_rank(str(turn), id, seed=seed))
                continue
            header.append(fresh[0])
            left.remove(fresh[0])
        # The same demonstrations in another order are no second header.
        found.setdefault(frozenset(header), tuple(header))
        if len(found) == wanted:
            break
    return list(found.values())


Cut = Callable[[Collection[str], int, int, int], Sequence[tuple[str, ...]]]
"""From candidates, shots, number of headers and seed to headers."""


def deal_headers(
    known: Mapping[str, str],
    asked: Collection[str],
    pools: Mapping[str, Collection[str]],
    k: int,
    n: int,
    *,
    seed: int,
    leaks: Callable[[str, str], bool],
    anywhere: Collection[str] = (),
    together: Mapping[str, str] | None = None,
    cut: Cut | None = None,
) -> dict[str, tuple[str, ...]]:
    """Headers of `k` demonstrations that items share, about `n` in all.

    Each group of items has headers of its own pool, as many as its share of the items, and two or
    more. They are dealt in turn, in the order in which items are sampled, so that samples are
    balanced; who can't have the header whose turn it is gets the next one. A choice of items has
    the same headers as all of them.

    Args:
        known: All that may be asked, with the group of each.
        asked: Which of these are.
        pools: By group, what is shown before its items.
        k: Demonstrations of a header.
        n: Headers.
        seed: Of headers and dealing.
        leaks: Whether an item (first) is given away by a demonstration (second).
        anywhere: Shown before items of groups whose pool is too small.
        together: What items are dealt with, such as a paragraph: all of it gets one header.
        cut: Makes headers; None: `cut_headers`.

    Returns:
        By item asked; without those that no header is fit for.
    """
    make = cut or (lambda pool, k, n, seed: cut_headers(pool, k, n, seed=seed))
    members: dict[str, list[str]] = {}
    for id in sorted(known):
        members.setdefault(known[id], []).append(id)
    small = {
        group: ids
        for group, ids in members.items()
        # One more where an item is in its own pool: it can't be shown before itself.
        if len(own := pools.get(group, ())) < k + any(id in own for id in ids)
    }
    rooms = [(ids, pools[group]) for group, ids in members.items() if group not in small]
    if small and anywhere:
        rooms.append(([id for ids in small.values() for id in ids], anywhere))
    wanted = set(asked)
    dealt: dict[str, tuple[str, ...]] = {}
    # Rounded where each group ends and not group by group, so that they add up to n.
    ends = [0, *(round(n * end / len(known)) for end in accumulate(len(ids) for ids, _ in rooms))]
    for (ids, pool), some in zip(rooms, map(sub, ends[1:], ends), strict=True):
        units: dict[str, list[str]] = {}
        for id in ids:
            units.setdefault(id if together is None else together[id], []).append(id)
        headers = make(pool, k, min(some, len(units)), seed)  # more would have nobody
        order = sorted(units, key=lambda unit: seeded_rank(unit, seed=seed))
        # Turns are counted over all units, asked or not: whoever else
        # is asked, a unit's header is the same.
        for turn, unit in enumerate(order):
            mine = [id for id in units[unit] if id in wanted]
            for step in range(len(headers) if mine else 0):
                header = headers[(turn + step) % len(headers)]
                if not any(leaks(id, shown) for id in mine for shown in header):
                    dealt |= dict.fromkeys(mine, header)
                    break
    return dealt


def seeded_rank(*ids: str, seed: int) -> bytes:
    """A key to sort by: an order that depends on the ids and the seed, and is as good as chance."""
    check_seed(seed)
    return blake2b("\0".join([str(seed), *ids]).encode(), digest_size=16).digest()
