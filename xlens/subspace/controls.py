"""What every number is held against: wrong pairs, shuffled languages, length taken out."""

import numpy as np
from jaxtyping import Float, Int

from xlens.activations import Activations
from xlens.subspace.states import Parallel


def mismatch(n: int, rng: np.random.Generator) -> Int[np.ndarray, " item"]:
    """A partner for every item that is not the item itself."""
    order = rng.permutation(n)
    partner = np.empty(n, dtype=int)
    partner[order] = np.roll(order, 1)  # one cycle through all items
    return partner


def mismatch_of_same_length(
    lengths: Float[np.ndarray, " item"], rng: np.random.Generator
) -> Int[np.ndarray, " item"]:
    """A partner of nearly the same length for every item, never the item itself.

    Neighbours by length swap places; where the number is odd, three at one end go round.
    """
    n = len(lengths)
    # lexsort goes by its last key first.
    order = np.lexsort([rng.random(n), lengths])  # ties in random order
    # The three that go round are those at the end: the
    # longest in one draw, the shortest in another.
    if rng.random() < 0.5:
        order = order[::-1]
    # No cut before the last item: it would be alone, and its own partner.
    groups = np.split(order, np.arange(2, n - 1, 2))
    partner = np.empty(n, dtype=int)
    for group in groups:
        partner[group] = np.roll(group, 1)
    return partner


def shuffled_languages(
    languages: np.ndarray, items: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The languages of each item dealt out anew among its states: as many of each as before."""
    out = np.empty_like(languages)
    for item in np.unique(items):
        rows = np.flatnonzero(items == item)
        out[rows] = languages[rng.permutation(rows)]
    return out


def length_terms(n_tokens: Float[np.ndarray, " item"]) -> Float[np.ndarray, "item 2"]:
    """Log T and 1/T: what a prompt's length can do to a mean over its tokens."""
    return np.column_stack([np.log(n_tokens), 1 / n_tokens])


def without(
    values: Float[np.ndarray, "item column"], terms: Float[np.ndarray, "item term"]
) -> Float[np.ndarray, "item column"]:
    """What is left of every column after least squares on `terms` and a constant.

    Where that is nothing but rounding, it is 0.
    """
    design = np.column_stack([np.ones(len(terms)), terms])
    # By lstsq and not by normal equations: log T and 1/T are nearly one line over few lengths.
    left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    rounding = np.linalg.norm(left, axis=0) <= 1e-10 * np.linalg.norm(values, axis=0)
    return np.where(rounding, 0.0, left)


def nuisance(activations: Activations, states: Parallel) -> Float[np.ndarray, "variety item term"]:
    """Log and inverse of the length, and tokens a character where the prompts say how many."""
    terms = [length_terms(lengths) for lengths in states.n_tokens]
    if "characters" in activations.meta:
        columns = (activations.meta[name] for name in ("language", "id", "characters"))
        count = {(tag, str(id)): float(n) for tag, id, n in zip(*columns, strict=True)}
        for n, tag in enumerate(states.languages):
            own = np.array([count[tag, id] for id in states.ids])
            terms[n] = np.column_stack([terms[n], np.log(states.n_tokens[n] / own)])
    return np.stack(terms)


def adjusted(
    states: Float[np.ndarray, "variety item d_model"],
    terms: Float[np.ndarray, "variety item term"],
) -> Float[np.ndarray, "variety item d_model"]:
    """States at equal length and fertility: what these explain within a variety is taken out.

    Means are moved to a common length, by how states of one item change with the log of its length
    from variety to variety: so what an item says is not taken for its length.
    """
    log = terms[..., 0]
    # Centred by variety and by item, which is least squares with an effect of each (Frisch-Waugh):
    # what is left says how much longer this item is in this variety than both would have it.
    both = log - log.mean(1, keepdims=True) - log.mean(0) + log.mean()
    # [] and, below, slope [d_model]: one for all varieties and items.
    square = float((both**2).sum())
    means = states.mean(1, keepdims=True)
    if square > 1e-12:
        slope = np.tensordot(both, states, axes=2) / square
        # [variety]: how much longer it is than all are.
        away = log.mean(1) - log.mean()
        means = means - away[:, None, None] * slope
    # The mean is put back as moved above: least squares within a variety would not touch it.
    own = [without(x - x.mean(0), t) for x, t in zip(states, terms, strict=True)]
    return means + np.stack(own)
