"""The one source of chance: a seed that is a whole number, and what is drawn from it."""

import numpy as np

from xlens.checks import check_seed, typed


@typed
def generator(seed: int, *path: int) -> np.random.Generator:
    """NumPy's generator.

    Args:
        seed: 0 or more.
        path: Numbers that tell the draws of one seed apart.

    Raises:
        ValueError: a seed that is none.
    """
    check_seed(seed)
    # NumPy's SeedSequence mixes a list of whole numbers: seed 1, path 2 isn't seed 2, path 1.
    return np.random.default_rng([seed, *path] if path else seed)
