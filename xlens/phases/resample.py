"""Prompts of two languages that ask the same."""

import numpy as np
import pandas as pd
from jaxtyping import Int


def shared_rows(
    meta: pd.DataFrame, one: str, other: str
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Rows of two languages' prompts that have the same ids, in the order of the first."""
    rows = list(enumerate(zip(meta["id"], meta["language"], strict=True)))
    where = [{id: i for i, (id, language) in rows if language == tag} for tag in (one, other)]
    shared = [id for id in where[0] if id in where[1]]
    return (
        np.array([where[0][id] for id in shared], dtype=np.int64),
        np.array([where[1][id] for id in shared], dtype=np.int64),
    )
