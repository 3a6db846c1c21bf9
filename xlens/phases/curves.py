"""`Curves`: evidence by layer, prompt by prompt, for the right answer and for a wrong one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import binomtest

from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import Result, analysed
from xlens.stats import Bootstrap, ClusterSums, Resampling

Edge = Literal["encoding", "question", "answer"]
Basis = Literal["causal", "observed", "untested"]


@dataclass(frozen=True)
class Kind:
    """A kind of evidence.

    Attributes:
        edge: What its step marks: `encoding` (the question is put in terms that languages share),
            `question` (it has been handed over: the end of phase 1), `answer` (it has been
            retrieved: the end of phase 2).
        rises: Whether the evidence appears at the edge, or disappears.
        words: In plain words, for figures.
        unit: Of the values.
        basis: `causal`: something is changed, and the answer with it; `observed`: it is read off a
            run as it is, from states or gradients; `untested`: it has no control of its own.
    """

    edge: Edge
    rises: bool
    words: str
    unit: str
    basis: Basis = "causal"


_ROOM = "evidence"  # of the provenance
READABLE = "readable"
KINDS: dict[str, Kind] = {
    "aligned_question_end": Kind(
        "encoding", True, "question's end: nearest to its translation", "share", basis="observed"
    ),
    "aligned_last": Kind(
        "question", True, "last position: nearest to its translation", "share", basis="observed"
    ),
    "patch_question": Kind("question", False, "question's tokens taken from another", "nats"),
    "patch_last_question": Kind("question", True, "last position, from another question", "nats"),
    "ablate_question": Kind("question", False, "question's tokens wiped out", "nats"),
    "relevance_question": Kind(
        "question", False, "relevance of the question", "logits", basis="observed"
    ),
    "depth_question": Kind(
        "question", False, "question within its relevance depth", "share", basis="untested"
    ),
    READABLE: Kind(
        "answer", True, "answer readable at the last position", "nats", basis="observed"
    ),
    "patch_context": Kind("answer", False, "context's tokens taken from another", "nats"),
    "patch_last_context": Kind("answer", True, "last position, from another context", "nats"),
    "ablate_context": Kind("answer", False, "context's tokens wiped out", "nats"),
    "relevance_context": Kind(
        "answer", False, "relevance of the context", "logits", basis="observed"
    ),
    "depth_context": Kind(
        "answer", False, "context within its relevance depth", "share", basis="untested"
    ),
}
"""Every kind of evidence, by name."""


_BOUNDS = {"values": (0.0, 1.0), "control": (0.0, 1.0), "excess": (-1.0, 1.0)}
"""Of kinds that are shares."""
ALL = "all"
"""What the languages pooled are called."""


@dataclass(frozen=True, kw_only=True)
class CurveSummary(Result):
    """Means over prompts: what a figure draws.

    Attributes:
        table: `language kind part layer mean low high n`: `part` is `values`, `control` or
            `excess`; `all` pools the languages. Intervals over clusters of prompts.
        n_layers: Blocks of the model.
        confidence: Of the intervals.
    """

    table: pd.DataFrame
    n_layers: int
    confidence: float

    @property
    def lens(self) -> str:
        """As `Curves.lens`."""
        return _lens(self.provenance)

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    def pick(self, kind: str, language: str = ALL) -> pd.DataFrame:
        """The rows of one kind and language.

        Raises:
            ValueError: there are none.
        """
        found = self.table[(self.table["kind"] == kind) & (self.table["language"] == language)]
        if found.empty:
            held = self.table[["kind", "language"]].drop_duplicates()
            raise InputError(
                f"No evidence of kind {kind!r} in language {language!r} here; there are the kinds "
                f"{list(dict.fromkeys(held['kind']))} in {list(dict.fromkeys(held['language']))}."
            )
        return found


class Answered(NamedTuple):
    """How often the right answer is ahead of the wrong one at the output.

    Attributes:
        right: Prompts in which it is.
        n: Of so many.
        low: Lower end of the share's 95 % interval (Wilson), which takes prompts for independent;
            by chance the share is one half.
    """

    right: int
    n: int
    low: float


@dataclass(frozen=True, kw_only=True)
class Curves(Result):
    """Evidence over layers for the same prompts.

    Right and wrong are measured in the same way on the same runs, and the wrong answer belongs to
    the same context: whatever does not know which is which treats them alike. Their difference
    (`excess`) is what the detector looks at.

    Attributes:
        values: For the right answer (or partner). NaN where a prompt has no such evidence.
        control: The same for a wrong one; NaN for kinds that have no control of their own.
        kinds: Names, of `KINDS`.
        layers: Residual points, ascending.
        meta: One row per prompt: `id`, `language` and the prompts' meta.
        n_layers: Blocks of the model.
    """

    values: Float[np.ndarray, "kind prompt layer"]
    control: Float[np.ndarray, "kind prompt layer"]
    kinds: tuple[str, ...]
    layers: tuple[int, ...]
    meta: pd.DataFrame
    n_layers: int

    def __repr__(self) -> str:
        return (
            f"Curves({', '.join(self.kinds)}; {len(self.meta)} prompts, "
            f"{len(self.layers)} layers, {self.provenance.get('model')})"
        )

    @property
    def lens(self) -> str:
        """Through which `readable` was read: `logit`, `jacobian` or `tuned`."""
        return _lens(self.provenance)

    @property
    def languages(self) -> tuple[str, ...]:
        """In order of first appearance."""
        return tuple(self.meta["language"].unique())

    @property
    def excess(self) -> Float[np.ndarray, "kind prompt layer"]:
        """Values less control; the values themselves for kinds without a control."""
        tested = np.array([KINDS[kind].basis != "untested" for kind in self.kinds])[:, None, None]
        return np.where(tested, self.values - self.control, self.values)

    def index(self, kind: str) -> int:
        """Where a kind stands on the first axis.

        Raises:
            ValueError: it is not there.
        """
        if kind not in self.kinds:
            raise InputError(f"No evidence of kind {kind!r} here; there is {list(self.kinds)}.")
        return self.kinds.index(kind)

    @typed
    def get(
        self, kind: str, part: Literal["values", "control", "excess"] = "excess"
    ) -> Float[np.ndarray, "prompt layer"]:
        """One kind's numbers.

        Raises:
            ValueError: the kind is not there.
        """
        table: np.ndarray = getattr(self, part)
        return table[self.index(kind)]

    def take(self, prompts: Sequence[int] | np.ndarray, kinds: Iterable[str] | None = None) -> Self:
        """These prompts by position, in this order, and these kinds."""
        chosen, names = np.asarray(prompts, dtype=int), tuple(kinds or self.kinds)
        at = [self.index(kind) for kind in names]
        return replace(
            self,
            values=self.values[at][:, chosen],
            control=self.control[at][:, chosen],
            kinds=names,
            meta=self.meta.iloc[chosen].reset_index(drop=True),
        )

    def summary(
        self,
        *,
        resampling: Resampling = Resampling(),
    ) -> CurveSummary:
        """Means per language, with intervals over clusters of prompts.

        Args:
            resampling: Of the intervals.

        Raises:
            ValueError: an unknown column or a bad option.
        """
        clusters = resampling.codes(self.meta)
        weights = resampling.weights(int(clusters.max()) + 1)
        tags = [ALL, *self.languages] if len(self.languages) > 1 else [ALL]
        parts = {"values": self.values, "control": self.control, "excess": self.excess}
        tables: list[pd.DataFrame] = []
        for tag in tags:
            here = (self.meta["language"] == tag).to_numpy() | (tag == ALL)
            for i, kind in enumerate(self.kinds):
                for part, every in parts.items():
                    bounds = _BOUNDS[part] if KINDS[kind].unit == "share" else None
                    table = mean_curve(
                        every[i][here], clusters[here], weights, self.layers, resampling, bounds
                    )
                    tables.append(table.assign(language=tag, kind=kind, part=part))
        columns = ["language", "kind", "part", "layer", "mean", "low", "high", "n"]
        return CurveSummary(
            provenance=analysed(self.provenance, "summary", resampling.provenance()),
            table=pd.concat(tables, ignore_index=True)[columns],
            n_layers=self.n_layers,
            confidence=resampling.confidence,
        )

    @property
    def telling(self) -> dict[str, int]:
        """By kind, the prompts that say something at some layer."""
        found = np.isfinite(self.values).any(axis=2).sum(axis=1)
        return {kind: int(n) for kind, n in zip(self.kinds, found, strict=True)}

    def answered(self) -> Answered:
        """In how many prompts the right answer is ahead of the wrong one at the output.

        By what is readable at the last position at the highest layer; 0 of 0 where that is not the
        output, or wasn't looked at.
        """
        if "readable" not in self.kinds or self.layers[-1] != self.n_layers:
            return Answered(0, 0, 0.0)
        ahead = self.get("readable")[:, -1]
        known = ahead[np.isfinite(ahead)]
        right, n = int((known > 0).sum()), len(known)
        if not n:
            return Answered(0, 0, 0.0)
        return Answered(right, n, float(binomtest(right, n).proportion_ci(method="wilson").low))

    def to_frame(self) -> pd.DataFrame:
        """One row per kind, prompt and layer: `kind id language layer value control excess`."""
        n_kinds, n_prompts, n_layers = self.values.shape
        # In the order of `ravel`: kinds, in each its prompts, in each its layers.
        each = np.repeat(np.arange(n_prompts), n_layers)
        return pd.DataFrame(
            {
                "kind": np.repeat(np.array(self.kinds, dtype=object), n_prompts * n_layers),
                "id": np.tile(self.meta["id"].to_numpy()[each], n_kinds),
                "language": np.tile(self.meta["language"].to_numpy()[each], n_kinds),
                "layer": np.tile(self.layers, n_kinds * n_prompts),
                "value": self.values.ravel(),
                "control": self.control.ravel(),
                "excess": self.excess.ravel(),
            }
        )


def _lens(provenance: dict[str, Any]) -> str:
    # A lens's key is its kind, a colon, and a digest of what it carries by.
    return str(provenance.get(READABLE, {}).get("through", "logit")).partition(":")[0]


def one_kind(
    kind: str,
    values: Float[np.ndarray, "prompt layer"],
    control: Float[np.ndarray, "prompt layer"] | None,
    *,
    layers: Sequence[int],
    meta: pd.DataFrame,
    n_layers: int,
    provenance: dict[str, Any],
    **how: Any,
) -> Curves:
    """Curves of a single kind; `how` it was gathered stands in a room of the provenance.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"Unknown kind of evidence {kind!r}; accepted are {list(KINDS)}.")
    wrong = np.full_like(values, np.nan) if control is None else control
    return Curves(
        provenance=analysed(provenance, _ROOM, how),
        values=np.asarray(values, dtype=np.float64)[None],
        control=np.asarray(wrong, dtype=np.float64)[None],
        kinds=(kind,),
        layers=tuple(layers),
        meta=meta,
        n_layers=n_layers,
    )


@typed
def join_curves(parts: Sequence[Curves]) -> Curves:
    """Several kinds of evidence about the same prompts as one.

    Raises:
        ValueError: nothing to join, other prompts or layers, or a kind that occurs twice.
    """
    if not parts:
        raise InputError("join_curves needs at least one Curves; got none.")
    first = parts[0]
    keys = ["id", "language"]
    for part in parts[1:]:
        if part.layers != first.layers or part.n_layers != first.n_layers:
            raise InputError(
                f"{list(part.kinds)} has layers {list(part.layers)} of {part.n_layers}, "
                f"{list(first.kinds)} {list(first.layers)} of {first.n_layers}; take the same."
            )
        if not part.meta[keys].equals(first.meta[keys]):
            raise InputError(
                f"{list(part.kinds)} is about other prompts, or in another order, than "
                f"{list(first.kinds)}; run them on the same prompts."
            )
    kinds = [kind for part in parts for kind in part.kinds]
    if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        raise InputError(f"The kinds {twice} occur twice; join each of them once.")
    rooms = [part.provenance.get(_ROOM, {}) for part in parts]
    provenance, how = _merged([part.provenance for part in parts]), _merged(rooms)
    # By kind in each part: merged one level deeper, or the first part's would stand for all.
    how["left_out"] = _merged([room.get("left_out", {}) for room in rooms])
    provenance[_ROOM] = how
    return replace(
        first,
        values=np.concatenate([part.values for part in parts]),
        control=np.concatenate([part.control for part in parts]),
        kinds=tuple(kinds),
        provenance=provenance,
    )


def _merged(rooms: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """All that they hold; of what several name, the first's."""
    return {name: value for room in reversed(list(rooms)) for name, value in room.items()}


def mean_curve(
    values: Float[np.ndarray, "prompt layer"],
    clusters: Int[np.ndarray, " prompt"],
    weights: Float[np.ndarray, "draw cluster"],
    layers: Sequence[int],
    resampling: Resampling,
    bounds: tuple[float, float] | None = None,
) -> pd.DataFrame:
    """`layer mean low high n`: means over prompts with intervals over clusters."""
    sums = ClusterSums.of(values, clusters, weights.shape[1])
    found = Bootstrap.of(sums, weights, resampling, bounds)
    low, high = found.interval()
    return pd.DataFrame(
        {
            "layer": list(layers),
            "mean": found.mean,
            "low": low,
            "high": high,
            "n": found.n,
        }
    )
