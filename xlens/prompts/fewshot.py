"""Which demonstrations a few-shot prompt shows."""

from collections.abc import Collection, Sequence
from hashlib import blake2b

from xlens.checks import check_seed, typed
from xlens.errors import InputError


class TooFewItems(InputError):
    """Not enough items for what is asked; with other languages there may be."""


@typed
def choose_demonstrations(
    candidates: Sequence[str],
    query: str,
    k: int,
    *,
    seed: int = 0,
    exclude: Collection[str] = (),
) -> tuple[str, ...]:
    """Choose `k` item ids to demonstrate before the item `query`.

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


def seeded_rank(*ids: str, seed: int) -> bytes:
    """A key to sort by: an order that depends on the ids and the seed, and is as good as chance."""
    check_seed(seed)
    return blake2b("\0".join([str(seed), *ids]).encode(), digest_size=16).digest()
