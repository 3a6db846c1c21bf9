"""A planted fact world: how often each fact is written, and who knows it why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from xlens.errors import InputError
from xlens.stats import generator
from xlens.testbed.planted.lexicon import lexicon


@dataclass(frozen=True, kw_only=True)
class FactTruth:
    """What was planted.

    Attributes:
        threshold: A fact seen this often in a language is recalled in it.
        transfer: By language, the share of the facts that are rare in it, but recalled in the
            source, that are answered through the source; exactly as counted.
        source: The language that others can answer through.
        cells: One row per fact and language, why it comes out as it does in the end: `id`,
            `language`, `relation`, `frequency`, `recalled` (seen often enough), `eligible` (rare,
            but recalled in the source), `transferred`, `slipped` (turned round by chance).
    """

    threshold: int
    transfer: Mapping[str, float]
    source: str
    cells: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class FactWorld:
    """Tables as an experiment would have them, with the truth about them.

    Attributes:
        frequencies: `id language relation frequency`: over the whole of training.
        answers: `checkpoint id language relation frequency correct`, where `frequency` is what was
            seen by then.
        truth: What was planted.
    """

    frequencies: pd.DataFrame
    answers: pd.DataFrame
    truth: FactTruth


def fact_world(
    *,
    languages: int | Sequence[str] = 5,
    n_facts: int = 400,
    n_relations: int = 4,
    threshold: int = 20,
    transfer: float = 0.2,
    slip: float = 0.0,
    checkpoints: Sequence[float] = (1.0,),
    seed: int = 0,
) -> FactWorld:
    """Facts with known frequencies, a known threshold and a known share of transfer.

    A fact is answered rightly in a language when it was seen at least `threshold` times in it; or,
    for a known share of the facts that are rare there, when it was seen that often in the source
    language, the first. Everything else is wrong. The source is richest; each further language
    has about a third of the one before, with zeros, and rank correlations with the source of about
    two thirds.

    In every language some facts are seen exactly `threshold` times and some, which never transfer,
    once less. Transferred facts are spread evenly over frequencies. So for a share below one half
    the most accurate rule "right if seen at least t times" is t = `threshold`, and no other.

    Args:
        languages: Tags, or how many; the first is the source.
        n_facts: Facts; each has a row in every language.
        n_relations: Relations, of equal size.
        threshold: Least frequency that is recalled.
        transfer: Share of rare facts, recalled in the source, that are right through it.
        slip: Share of all answers in each language turned round by chance.
        checkpoints: Parts of training (0, 1]; a fact has been seen `floor(part * frequency)` times.
        seed: Of everything.

    Raises:
        ValueError: shares outside [0, 1], a threshold below 2, checkpoints that are none, too few
            facts.
    """
    tags = lexicon(languages, 1, seed=seed).languages
    if not (0 <= transfer <= 1 and 0 <= slip <= 1):
        raise InputError(f"transfer is {transfer}, slip {slip}; both are shares from 0 to 1.")
    if threshold < 2 or n_facts < 40 or not 1 <= n_relations <= n_facts:
        raise InputError(
            f"threshold {threshold}, n_facts {n_facts}, n_relations {n_relations}: accepted are a "
            "threshold from 2, at least 40 facts, and no more relations than facts."
        )
    parts = sorted(set(checkpoints))
    if not parts or not all(0 < part <= 1 for part in parts):
        raise InputError(
            f"checkpoints are {list(checkpoints)}; each is a part of training, (0, 1]."
        )
    rng = generator(seed)
    frequency, guards = _frequencies(len(tags), n_facts, threshold, rng)
    recalled = frequency >= threshold
    eligible = ~recalled & recalled[0]
    transferred = np.stack(
        [
            _spread(f, e, g, transfer, rng)
            for f, e, g in zip(frequency, eligible, guards, strict=True)
        ]
    )
    slipped = np.zeros_like(recalled)
    for row in slipped:
        row[rng.choice(n_facts, round(slip * n_facts), replace=False)] = True
    ids = [f"f{n:04}" for n in range(n_facts)]
    cells = pd.MultiIndex.from_product([tags, ids], names=["language", "id"]).to_frame(index=False)
    cells["relation"] = [f"r{n % n_relations}" for n in range(n_facts)] * len(tags)
    cells["frequency"] = frequency.ravel()
    answers: list[pd.DataFrame] = []
    for part in parts:
        # 0.1 times 30 is a little below 3 or above it, by rounding.
        seen = np.floor(part * frequency + 1e-9).astype(int)
        known = seen >= threshold
        # Through the source only once the source knows it.
        right = (known | (transferred & known[0])) ^ slipped
        at = cells.assign(frequency=seen.ravel(), correct=right.ravel())
        at.insert(0, "checkpoint", part)
        answers.append(at)
    named = {"recalled": recalled, "eligible": eligible}
    named |= {"transferred": transferred, "slipped": slipped}
    truth = FactTruth(
        threshold=threshold,
        transfer={
            tag: float(transferred[x].sum() / eligible[x].sum()) if eligible[x].any() else np.nan
            for x, tag in enumerate(tags)
            if x
        },
        source=tags[0],
        cells=cells.assign(**{name: table.ravel() for name, table in named.items()}),
    )
    return FactWorld(frequencies=cells, answers=pd.concat(answers, ignore_index=True), truth=truth)


def _frequencies(
    n: int, n_facts: int, threshold: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Counts `[language, fact]`, and which of them stand just below the threshold on purpose."""
    fame = rng.uniform(-1, 3, n_facts)  # log10 of the source's counts, in thresholds
    own = rng.normal(0, 1.2, (n, n_facts))
    own[0] = 0
    # In powers of ten: each language has 10**-0.5, about a third, of the one before.
    poverty = 0.5 * np.arange(n)[:, None]
    frequency = np.floor(threshold * 10 ** (fame + own - poverty)).astype(int)
    guards = np.zeros((n, n_facts), dtype=bool)
    for x in range(n):
        # Two of either, so that neither hangs on one fact.
        chosen = rng.choice(n_facts, 4, replace=False)
        frequency[x, chosen[:2]] = threshold
        frequency[x, chosen[2:]] = threshold - 1
        guards[x] = frequency[x] == threshold - 1
    return frequency, guards


def _spread(
    frequency: np.ndarray,
    eligible: np.ndarray,
    guards: np.ndarray,
    share: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """A share of the eligible facts of one language, spread evenly over their frequencies."""
    candidates = rng.permutation(np.flatnonzero(eligible & ~guards))
    # In random order among equal frequencies, as they were permuted before.
    candidates = candidates[np.argsort(-frequency[candidates], kind="stable")]
    wanted = min(round(share * int(eligible.sum())), len(candidates))
    chosen = np.zeros(len(frequency), dtype=bool)
    if wanted:
        # Where this goes up by one, one is chosen: `wanted` of them at even distances.
        steps = np.arange(1, len(candidates) + 1) * wanted // len(candidates)
        chosen[candidates[np.diff(steps, prepend=0) > 0]] = True
    return chosen
