"""What the tests of the phases share: planted questions, curves and relevance made to order."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from xlens import phases
from xlens.engine import RelevanceScores
from xlens.phases.curves import one_kind
from xlens.testbed import planted

SMALL = {"n_items": 8, "n_facts": 3, "n_keys": 8, "n_values": 8, "languages": 2}


@cache
def bed(**options: Any) -> Any:
    """A small two-phase model."""
    return planted.two_phase(**(SMALL | {"sharpness": 0.1} | options))


def asked(bed: Any) -> dict[str, phases.Asked]:
    """A testbed's prompts and their donors, with right and wrong answers."""

    def pair(questions: Any, wrong: Any) -> phases.Asked:
        right, other = (tuple(f" {w}" for w in x.right) for x in (questions, wrong))
        return phases.Asked(questions.prompts, right, other)

    question = bed.donors["question"]
    return {
        "asked": pair(bed, question),
        "question": pair(question, bed),
        "context": pair(bed.donors["context"], bed),
    }


def meta(n: int, languages: Sequence[str] = ("en",), per_paragraph: int = 1) -> pd.DataFrame:
    """A table of prompts: n items in every language."""
    return pd.DataFrame(
        [
            {"id": f"q{i}", "language": language, "paragraph": i // per_paragraph}
            for i in range(n)
            for language in languages
        ]
    )


def curves(
    steps: dict[str, int],
    *,
    n: int = 12,
    n_layers: int = 8,
    noise: float = 0.0,
    size: float = 1.0,
    languages: Sequence[str] = ("en",),
    per_paragraph: int = 1,
    seed: int = 0,
) -> phases.Curves:
    """Evidence that steps at these layers, by kind; `size` 0 for no step, `noise` per prompt."""
    rng = np.random.default_rng(seed)
    table = meta(n, languages, per_paragraph)
    parts: list[phases.Curves] = []
    layers = np.arange(n_layers + 1)
    for kind, at in steps.items():
        up = layers >= at
        shape = up if phases.KINDS[kind].rises else ~up
        # A prompt's noise has a part that all its layers share.
        shared, own = rng.normal(size=(len(table), 1)), rng.normal(size=(len(table), len(layers)))
        values = size * shape + noise * (shared + own)
        parts.append(
            one_kind(
                kind,
                values,
                None if phases.KINDS[kind].basis == "untested" else np.zeros_like(values),
                layers=list(range(n_layers + 1)),
                meta=table,
                n_layers=n_layers,
                provenance={"model": "none"},
            )
        )
    return phases.join_curves(parts)


def relevance(
    tokens: np.ndarray, spans: dict[str, tuple[int, int]], *, bos: bool = True
) -> RelevanceScores:
    """Scores `[layer, prompt, token]` as `relevance` would give them, with every slot."""
    n_layers, n_prompts, n_tokens = tokens.shape
    values: list[np.ndarray] = []
    rows: list[tuple[str, int, int, int]] = []
    for i in range(n_prompts):
        for at in range(n_tokens):
            rows.append(("all", i, at, at))
            values.append(tokens[:, i, at])
        for name, (start, stop) in spans.items():
            for at in range(start, stop):
                rows.append((f"{name}:each", i, at, at))
                values.append(tokens[:, i, at])
            for how in ("sum", "mean"):
                rows.append((f"{name}:{how}", i, -1, -1))
                values.append(getattr(tokens[:, i, start:stop], how)(axis=1))
    table = pd.DataFrame(rows, columns=["slot", "prompt", "position", "token"])
    order = table.assign(n=range(len(table))).sort_values(["slot", "prompt", "n"])["n"].to_numpy()
    found = meta(n_prompts).assign(n_tokens=n_tokens, tokens=[[0] * n_tokens] * n_prompts)
    return RelevanceScores(
        provenance={"prepends_bos": bos},
        values=np.stack(values, axis=1)[:, order],
        rows=table.iloc[order].reset_index(drop=True),
        totals=tokens.sum(2),
        targets=pd.DataFrame({"prompt": range(n_prompts), "value": 1.0}),
        layers=tuple(range(n_layers)),
        meta=found,
        fingerprint="",
        rule="gradient",
        scalar="logit",
    )
