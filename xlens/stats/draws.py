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
    return np.random.default_rng([seed, *path] if path else seed)
