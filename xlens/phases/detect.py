"""`detect_phases`: where the question is handed over, where the answer has been retrieved."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.phases.boundary import Boundary, Draws, boundaries, interval
from xlens.phases.curves import ALL, Curves
from xlens.results import Result, analysed
from xlens.stats import Resampling, jumping, random_signs

EDGES = ("question", "answer")
PAIRS = (
    ("patch_question", "patch_context"),
    ("patch_last_question", "patch_last_context"),
    ("ablate_question", "ablate_context"),
    ("relevance_question", "relevance_context"),
)
"""The same intervention, or measure, on the question and on the context."""
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
            no p. `gradual`: how often, in the bootstrap, a straight line explains as much of the
            curve as the step. Where layers between were not looked at, `low` begins after the last
            one that was.
        phases: One row per language: `language question question_low question_high question_basis
            answer answer_low answer_high answer_basis gap gap_low gap_high gap_basis p_question
            p_answer p_order p gradual found why`. Boundaries are medians over the kinds of that
            basis that were found: the causal ones where there are any, else the observed. `gap` is
            answer - question, also where it is zero or negative: the median over pairs of kinds
            that look at both edges in the same way (`PAIRS`; `gap_basis` is then `matched`), else
            of the medians. `p` is the largest of the three; `gradual` the larger of the two edges'
            medians over kinds.
        agreement: Differences between kinds of one edge that were found: `language edge first
            second difference low high`.
        layers: Residual points looked at.
        n_layers: Blocks of the model.
        confidence: Of intervals; a phase structure is found where p < 1 - confidence and
            `gradual` is below one half.
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
            raise InputError(
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
            f"{what} at {placed(row, edge)}"
            for edge, what in (("question", "question handed over"), ("answer", "answer retrieved"))
        ]
        return f"two phases: {places[0]}, {places[1]} of {self.n_layers} (p = {row['p']:.2g})"


def placed(row: Mapping[Any, Any], edge: str) -> str:
    """A boundary as `3 [3, 4]`: without ends where there are none, a dash for what there isn't."""
    if math.isnan(row[edge]):
        return "–"
    ends = [row[f"{edge}_low"], row[f"{edge}_high"]]
    return f"{row[edge]:g}" + ("" if any(map(math.isnan, ends)) else " [{:g}, {:g}]".format(*ends))


@typed
def detect_phases(
    curves: Curves,
    *,
    kinds: Sequence[str] | None = None,
    resampling: Resampling = Resampling(),
    n_flips: int = 2000,
) -> PhaseResult:
    """Find the boundary between question encoding and answer retrieval, and the end of retrieval.

    Each kind's boundary is where its mean excess (right less wrong answer) takes its largest step,
    by least squares. Intervals: bootstrap over clusters, with the boundary found anew in each
    resample. The test: were right and wrong the same to the model, each cluster's excess could as
    well have the other sign; steps are found anew under random signs. A two-phase structure needs
    a tested step of some kind at either edge; the second after the first in the bootstrap, by kinds
    that look at both in the same way where there are such; and curves that are rather steps than
    straight lines, as every model that answers right has curves that end higher or lower than they
    began. The first three are tested, and p is the largest of theirs; of the last it is asked that
    steps do better in most resamples.

    Where something was changed (`patch_...`, `ablate_...`), that evidence decides. What is read off
    a run need not be used in it: words that languages share align questions in random models too,
    and the question's wording alone may make the right kind of answer likely. Such evidence stands
    beside it, and decides only where there is nothing else. A step at one edge alone is no phase
    structure.

    Args:
        curves: From `evidence`.
        kinds: Which to use; None for all.
        resampling: Of the intervals, its confidence 1 - level of the test, its seed that of the
            flips too.
        n_flips: Random sign flips. With n clusters no p is below 2^-n: at least six are needed.

    Raises:
        ValueError: an unknown kind or column, bad options, or no prompts with evidence.
    """
    chosen = curves.take(range(len(curves.meta)), kinds)
    clusters = resampling.codes(chosen.meta)
    n_clusters = int(clusters.max()) + 1
    # Drawn once for all languages and kinds, so that boundaries can be subtracted draw by draw.
    signs = random_signs(n_clusters, n_flips, resampling.seed)
    draw = Draws(resampling.weights(n_clusters), signs)
    confidence, level = resampling.confidence, resampling.level
    languages = chosen.meta["language"].to_numpy()
    tags = [ALL, *chosen.languages] if len(chosen.languages) > 1 else [ALL]
    edges: list[dict[str, Any]] = []
    phases: list[dict[str, Any]] = []
    agreement: list[dict[str, Any]] = []
    for tag in tags:
        here = np.ones(len(languages), dtype=bool) if tag == ALL else languages == tag
        steps = boundaries(chosen, here, clusters, draw)
        for step in steps:
            edges.append({"language": tag, **step.row(confidence, level, curves.layers)})
        phases.append({"language": tag, **_phases(steps, confidence, curves.layers)})
        for edge in ("encoding", *EDGES):
            agreement += [
                {"language": tag, "edge": edge, **row}
                for row in _agreement([s for s in steps if s.edge == edge], confidence)
            ]
    columns = ["language", "edge", "first", "second", "difference", "low", "high"]
    return PhaseResult(
        provenance=analysed(
            curves.provenance,
            "detector",
            {
                **resampling.provenance(),
                "n_flips": n_flips,
                "n_clusters": n_clusters,
                "sources": SOURCES,
            },
        ),
        edges=pd.DataFrame(edges),
        phases=pd.DataFrame(phases),
        agreement=pd.DataFrame(agreement, columns=pd.Index(columns)),
        layers=curves.layers,
        n_layers=curves.n_layers,
        confidence=confidence,
    )


def _phases(steps: Sequence[Boundary], confidence: float, layers: Sequence[int]) -> dict[str, Any]:
    level = 1 - confidence
    row: dict[str, Any] = {}
    draws: dict[str, np.ndarray] = {}
    p: dict[str, float] = {}
    gradual: list[float] = []
    kept: dict[str, Boundary] = {}
    for edge in EDGES:
        bases = {b: [s for s in steps if (s.edge, s.basis) == (edge, b)] for b in _BASES}
        # Causal evidence decides where it was looked for, even where it found nothing.
        basis = next((b for b in _BASES if bases[b]), "")
        mine = bases.get(basis, [])
        row[f"{edge}_basis"] = basis
        found = [s for s in mine if s.found(level)]
        p[edge] = min((s.p_adjusted for s in mine), default=1.0)
        if found:
            row[edge] = float(np.median([s.value for s in found]))
            draws[edge] = _median([s.draws for s in found])
            # The interval of a median is as sure as the kind with the fewest clusters.
            least = min(s.n_clusters for s in found)
            row[f"{edge}_low"], row[f"{edge}_high"] = interval(
                draws[edge], least, confidence, layers
            )
            gradual.append(float(np.median([s.gradual for s in found])))
            kept |= {s.kind: s for s in found}
        else:
            row |= dict.fromkeys((edge, f"{edge}_low", f"{edge}_high"), float("nan"))
    if len(draws) == 2:
        pairs = [(kept[a], kept[b]) for a, b in PAIRS if a in kept and b in kept]
        row["gap_basis"] = "matched" if pairs else "medians"
        row["gap"] = row["answer"] - row["question"]
        # Draw by draw: what moves both edges alike leaves the gap as it is.
        gap = draws["answer"] - draws["question"]
        if pairs:
            row["gap"] = float(np.median([b.value - a.value for a, b in pairs]))
            gap = _median([b.draws - a.draws for a, b in pairs])
        least = min(s.n_clusters for s in kept.values())
        row["gap_low"], row["gap_high"] = jumping(gap, clusters=least, confidence=confidence)
        # A "not", so that a resample without one of the edges (NaN) counts against the order.
        p["order"] = float((1 + (~(gap > 0)).sum()) / (1 + len(gap)))
    else:
        row |= dict.fromkeys(("gap", "gap_low", "gap_high"), float("nan"))
        row["gap_basis"] = ""
        p["order"] = 1.0
    # All three must hold, so the largest p is the p of the whole (intersection-union test).
    worst = max(p, key=p.__getitem__)
    missing = [edge for edge in EDGES if edge not in draws]
    slow = max(gradual, default=float("nan"))
    if missing:
        worst = max(missing, key=p.__getitem__)
        why = _WHY[worst]
    elif p[worst] >= level:
        why = _WHY[worst]
    else:
        why = _WHY["gradual"] if slow >= 0.5 else ""
    return row | {
        "p_question": p["question"],
        "p_answer": p["answer"],
        "p_order": p["order"],
        "p": p[worst],
        "gradual": slow,
        "found": not why,
        "why": why,
    }


_BASES = ("causal", "observed")
_WHY = {
    "question": "no evidence that the question is handed over",
    "answer": "no evidence that the answer is retrieved",
    "order": "no evidence that the answer is retrieved after the hand-over",
    "gradual": "the change is gradual, a straight line describes it as well as a step",
}


def _agreement(steps: Sequence[Boundary], confidence: float) -> list[dict[str, Any]]:
    level = 1 - confidence
    # Kinds without a test are compared wherever they have a place.
    there = [s for s in steps if s.found(level) or (s.null is None and np.isfinite(s.value))]
    rows: list[dict[str, Any]] = []
    for a, b in combinations(there, 2):
        least = min(a.n_clusters, b.n_clusters)
        low, high = jumping(b.draws - a.draws, clusters=least, confidence=confidence)
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
    # `nanmedian` warns of columns that are all NaN; they are left out, and stay NaN.
    some = np.isfinite(stacked).any(axis=0)
    out[some] = np.nanmedian(stacked[:, some], axis=0)
    return out
