"""Controls that need no second forward pass."""

import numpy as np
import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.stats import generator


@typed
def shuffled_pairs(words: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Give every item another item's words: the same languages, mismatched pairs.

    Whole rows move, so an item's words still belong together and their token sets stay disjoint;
    no item keeps its own row. What the lens reads for them is what any word of that language
    gets: the floor under every probability.

    Raises:
        ValueError: fewer than two items.
    """
    n = len(words)
    if n < 2:
        raise InputError(f"Shuffled pairs need at least two items; got {n}.")
    order = generator(seed).permutation(n)
    donor = np.empty(n, dtype=int)
    donor[order] = np.roll(order, 1)  # one cycle through all items: nobody is its own donor
    shuffled = words.iloc[donor].copy()
    shuffled.index = words.index
    return shuffled
