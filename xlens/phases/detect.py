"""`detect_phases`: where the question is handed over, where the answer has been retrieved."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from xlens.phases.curves import ALL, KINDS, Curves
from xlens.phases.resample import cluster_of, percentiles, random_signs
from xlens.phases.steps import best_step, levels
from xlens.results import Result, versions
from xlens.stats import ClusterSums, bootstrap_weights, check_draws

EDGES = ("question", "answer")
SOURCES = {
    "two phases": "arXiv 2504.10906 (abstract): question encoding, then answer retrieval",
    "boundaries, evidence, tests": "our reading",
}


@dataclass(frozen=True, kw_only=True)
class PhaseResult(Result):
    """Boundaries of the phases, by kind of evidence and together, and whether there are any.

    A boundary is the first residual point at which the thing has happened: at `question` the
    question has left its own tokens for the last position (phase 1 ends with the block below it),
    at `answer` the last position holds the answer (phase 2 ends).

    Attributes:
        edges: One row per language (`all` pools them) and kind: `language kind edge basis value low
            high before after p p_adjusted found n n_clusters`. `value` is the boundary, NaN where
            the curve never steps in the expected direction; `before` and `after` the mean excess
            on either side; `p` of the step against sign flips, `p_adjusted` over the kinds of the
            same edge and basis (single-step min-p, dependence kept). Kinds without a control have
            no p.
        phases: One row per language: `language question question_low question_high question_basis
            answer answer_low answer_high answer_basis gap gap_low gap_high p_question p_answer
            p_order p found why`. Boundaries are medians over the kinds of that basis that were
            found: the causal ones where there are any, else the observed. `gap` is answer -
            question, also where it is zero or negative; `p` the largest of the three.
        agreement: Differences between kinds of one edge that were found: `language edge first
            second difference low high`.
        layers: Residual points looked at.
        n_layers: Blocks of the model.
        confidence: Of intervals; a phase structure is found where p < 1 - confidence.
    """

    edges: pd.DataFrame
    phases: pd.DataFrame
    agreement: pd.DataFrame
    layers: tuple[int, ...]
    n_layers: int
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`phases`."""
        return self.phases

    def found(self, language: str = ALL) -> bool:
        """Whether a two-phase structure was found.

        Raises:
            ValueError: an unknown language.
        """
        return bool(self.row(language)["found"])

    def row(self, language: str = ALL) -> dict[str, Any]:
        """The row of `phases` of one language.

        Raises:
            ValueError: an unknown language.
        """
        rows = self.phases[self.phases["language"] == language]
        if rows.empty:
            raise ValueError(
                f"No language {language!r} here; there are {list(self.phases['language'])}."
            )
        return {str(key): value for key, value in rows.iloc[0].items()}

    def verdict(self, language: str = ALL) -> str:
        """The finding in a sentence.

        Raises:
            ValueError: an unknown language.
        """
        row = self.row(language)
        if not row["found"]:
            return f"no two-phase structure found (p = {row['p']:.2g}: {row['why']})"
        places = [
            f"{what} at {row[edge]:g} [{row[f'{edge}_low']:g}, {row[f'{edge}_high']:g}]"
            for edge, what in (("question", "question handed over"), ("answer", "answer retrieved"))
        ]
        return f"two phases: {places[0]}, {places[1]} of {self.n_layers} (p = {row['p']:.2g})"


def detect_phases(
    curves: Curves,
    *,
    kinds: Sequence[str] | None = None,
    cluster: str | None = None,
    confidence: float = 0.95,
    n_boot: int = 1000,
    n_flips: int = 2000,
    seed: int = 0,
) -> PhaseResult:
    """Find the boundary between question encoding and answer retrieval, and the end of retrieval.

    Each kind's boundary is where its mean excess (right less wrong answer) takes its largest step,
    by least squares. Intervals: bootstrap over clusters, with the boundary found anew in each
    resample. The test: were right and wrong the same to the model, each cluster's excess could as
    well have the other sign; steps are found anew under random signs. A two-phase structure needs
    a tested step of some kind at either edge, and the second after the first in the bootstrap:
    three conditions, all of which must hold, so that p is the largest of theirs.

    Where something was changed (`patch_...`, `ablate_...`), that evidence decides. What is read off
    a run need not be used in it: words that languages share align questions in random models too,
    and the question's wording alone may make the right kind of answer likely. Such evidence stands
    beside it, and decides only where there is nothing else. A step at one edge alone is no phase
    structure.

    Args:
        curves: From `evidence`.
        kinds: Which to use; None for all.
        cluster: Meta column of what is resampled whole; None for `paragraph` where there is one,
            else `id`.
        confidence: Of the intervals, and 1 - level of the test.
        n_boot: Resamples.
        n_flips: Random sign flips. With n clusters no p is below 2^-n: at least six are needed.
        seed: Of both.

    Raises:
        ValueError: an unknown kind or column, bad options, or no prompts with evidence.
    """
    check_draws(confidence, n_boot=n_boot, n_flips=n_flips)
    chosen = curves.take(range(len(curves.meta)), kinds)
    clusters = cluster_of(chosen.meta, cluster)
    n_clusters = int(clusters.max()) + 1
    draw = _Draws(
        bootstrap_weights(n_clusters, n_boot, seed), random_signs(n_clusters, n_flips, seed)
    )
    languages = chosen.meta["language"].to_numpy()
    tags = [ALL, *chosen.languages] if len(chosen.languages) > 1 else [ALL]
    edges: list[dict[str, Any]] = []
    phases: list[dict[str, Any]] = []
    agreement: list[dict[str, Any]] = []
    for tag in tags:
        here = np.ones(len(languages), dtype=bool) if tag == ALL else languages == tag
        steps = _steps(chosen, here, clusters, draw)
        level = 1 - confidence
        for step in steps:
            edges.append({"language": tag, **step.row(confidence, level)})
        phases.append({"language": tag, **_phases(steps, confidence)})
        for edge in ("encoding", *EDGES):
            agreement += [
                {"language": tag, "edge": edge, **row}
                for row in _agreement([s for s in steps if s.edge == edge], confidence)
            ]
    columns = ["language", "edge", "first", "second", "difference", "low", "high"]
    return PhaseResult(
        provenance={
            **curves.provenance,
            "detector": {
                "cluster": cluster,
                "n_boot": n_boot,
                "n_flips": n_flips,
                "seed": seed,
                "n_clusters": n_clusters,
            },
            "sources": SOURCES,
            "versions": versions(),
        },
        edges=pd.DataFrame(edges),
        phases=pd.DataFrame(phases),
        agreement=pd.DataFrame(agreement, columns=pd.Index(columns)),
        layers=curves.layers,
        n_layers=curves.n_layers,
        confidence=confidence,
    )


@dataclass(frozen=True, eq=False)
class _Draws:
    weights: Float[np.ndarray, "draw cluster"]
    signs: Float[np.ndarray, "flip cluster"]


@dataclass(frozen=True, eq=False)
class _Step:
    """One kind's boundary in one language.

    Attributes:
        value: NaN where there is none.
        draws: Of the bootstrap.
        null: The explained sums of squares under sign flips, the first as it is; None untested.
    """

    kind: str
    value: float
    draws: Float[np.ndarray, " draw"]
    before: float
    after: float
    null: np.ndarray | None
    p: float
    p_adjusted: float
    n: int
    n_clusters: int

    @property
    def edge(self) -> str:
        return KINDS[self.kind].edge

    @property
    def basis(self) -> str:
        return KINDS[self.kind].basis

    def found(self, level: float) -> bool:
        return self.p_adjusted < level

    def row(self, confidence: float, level: float) -> dict[str, Any]:
        low, high = percentiles(self.draws, confidence)
        return {
            "kind": self.kind,
            "edge": self.edge,
            "basis": self.basis,
            "value": self.value,
            "low": low,
            "high": high,
            "before": self.before,
            "after": self.after,
            "p": self.p,
            "p_adjusted": self.p_adjusted,
            "found": self.found(level),
            "n": self.n,
            "n_clusters": self.n_clusters,
        }


def _steps(curves: Curves, here: np.ndarray, clusters: np.ndarray, draw: _Draws) -> list[_Step]:
    """Every kind's boundary, with p values adjusted within each edge."""
    excess = curves.excess
    found = [
        step
        for kind, values in zip(curves.kinds, excess, strict=True)
        if (step := _one(kind, np.where(here[:, None], values, np.nan), curves, clusters, draw))
    ]
    groups: dict[tuple[str, str], list[_Step]] = {}
    for step in found:
        groups.setdefault((step.edge, step.basis), []).append(step)
    adjusted = {
        step.kind: p
        for mine in groups.values()
        for step, p in zip(mine, _adjusted(mine), strict=True)
    }
    return [replace(step, p_adjusted=adjusted[step.kind]) for step in found]


def _one(
    kind: str, values: np.ndarray, curves: Curves, clusters: np.ndarray, draw: _Draws
) -> _Step | None:
    # A prompt counts with its whole curve, or not at all.
    whole = np.asarray(np.isfinite(values).all(axis=1))
    if not whole.any():
        return None
    rises = KINDS[kind].rises
    n_clusters = draw.weights.shape[1]
    sums = ClusterSums.of(np.where(whole[:, None], values, np.nan), clusters, n_clusters)
    mean = sums.mean()
    (at,), _ = best_step(mean[None], rises=rises)
    resampled = sums.draws(draw.weights)
    drawn = np.isfinite(resampled).all(axis=1)
    places = np.full(len(resampled), np.nan)
    where, _ = best_step(resampled[drawn], rises=rises)
    layers = np.array(curves.layers, dtype=float)
    places[drawn] = np.where(where > 0, layers[where], np.nan)
    before, after = levels(mean, int(at)) if at > 0 else (float("nan"), float("nan"))
    null, p = None, float("nan")
    if KINDS[kind].basis != "untested":
        _, null = best_step(sums.flipped(draw.signs), rises=rises)
        p = float(_ranks(null)[0])
    return _Step(
        kind=kind,
        value=float(layers[at]) if at > 0 else float("nan"),
        draws=places,
        before=before,
        after=after,
        null=null,
        p=p,
        p_adjusted=float("nan"),
        n=int(whole.sum()),
        n_clusters=sums.n,
    )


def _ranks(null: np.ndarray) -> np.ndarray:
    """For each flip the share of flips whose step is as large, rounding aside."""
    order = np.sort(null)
    return 1 - np.searchsorted(order, null * (1 - 1e-9), side="left") / len(null)


def _adjusted(steps: Sequence[_Step]) -> list[float]:
    """Single-step min-p over kinds: the flips are shared, so their dependence is kept."""
    nulls = [s.null for s in steps if s.null is not None]
    if not nulls:
        return [float("nan")] * len(steps)
    ranks = np.stack([_ranks(null) for null in nulls])
    least = ranks.min(axis=0)
    return [float((least <= rank * (1 + 1e-9)).mean()) for rank in ranks[:, 0]]


def _phases(steps: Sequence[_Step], confidence: float) -> dict[str, Any]:
    level = 1 - confidence
    row: dict[str, Any] = {}
    draws: dict[str, np.ndarray] = {}
    p: dict[str, float] = {}
    for edge in EDGES:
        bases = {b: [s for s in steps if (s.edge, s.basis) == (edge, b)] for b in _BASES}
        basis = next((b for b in _BASES if bases[b]), "")
        mine = bases.get(basis, [])
        row[f"{edge}_basis"] = basis
        found = [s for s in mine if s.found(level)]
        p[edge] = min((s.p_adjusted for s in mine), default=1.0)
        if found:
            row[edge] = float(np.median([s.value for s in found]))
            draws[edge] = _median([s.draws for s in found])
            row[f"{edge}_low"], row[f"{edge}_high"] = percentiles(draws[edge], confidence)
        else:
            row |= dict.fromkeys((edge, f"{edge}_low", f"{edge}_high"), float("nan"))
    if len(draws) == 2:
        gap = draws["answer"] - draws["question"]
        row["gap"] = row["answer"] - row["question"]
        row["gap_low"], row["gap_high"] = percentiles(gap, confidence)
        p["order"] = float((1 + (~(gap > 0)).sum()) / (1 + len(gap)))
    else:
        row |= dict.fromkeys(("gap", "gap_low", "gap_high"), float("nan"))
        p["order"] = 1.0
    worst = max(p, key=p.__getitem__)
    missing = [edge for edge in EDGES if edge not in draws]
    why = _WHY[missing[-1]] if missing else ("" if p[worst] < level else _WHY[worst])
    return row | {
        "p_question": p["question"],
        "p_answer": p["answer"],
        "p_order": p["order"],
        "p": max(p[edge] for edge in missing) if missing else p[worst],
        "found": not missing and p[worst] < level,
        "why": why,
    }


_BASES = ("causal", "observed")
_WHY = {
    "question": "no evidence that the question is handed over",
    "answer": "no evidence that the answer is retrieved",
    "order": "the answer is not retrieved later than the question is handed over",
}


def _agreement(steps: Sequence[_Step], confidence: float) -> list[dict[str, Any]]:
    level = 1 - confidence
    there = [s for s in steps if s.found(level) or (s.null is None and np.isfinite(s.value))]
    rows: list[dict[str, Any]] = []
    for a, b in combinations(there, 2):
        low, high = percentiles(b.draws - a.draws, confidence)
        rows.append(
            {
                "first": a.kind,
                "second": b.kind,
                "difference": b.value - a.value,
                "low": low,
                "high": high,
            }
        )
    return rows


def _median(draws: Sequence[np.ndarray]) -> np.ndarray:
    stacked = np.stack(draws)
    out = np.full(stacked.shape[1], np.nan)
    some = np.isfinite(stacked).any(axis=0)
    out[some] = np.nanmedian(stacked[:, some], axis=0)
    return out
