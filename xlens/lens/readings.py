"""How well lenses read: what they say at each layer against what the model says in the end."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from xlens.activations import Activations
from xlens.checks import typed
from xlens.engine.stream import stream
from xlens.errors import InputError
from xlens.lens.lenses import LOGIT, FittedLens, Lens
from xlens.lens.logit_lens import readable_states
from xlens.models import HookedModel
from xlens.results import Result, analysed
from xlens.stats import Resampling, bootstrap, holm, random_signs

_log = logging.getLogger(__name__)
_FLIPS = 9_999
LEAST = 0.3
"""How often a lens of unknown origin must agree with the output at its highest layer."""


@dataclass(frozen=True, kw_only=True)
class LensReadings(Result):
    """What lenses read of texts that none of them was fitted on.

    Attributes:
        table: `lens language layer kl low high agree agree_low agree_high n`: mean over texts of
            KL(output || reading) in bits, and of how often the most probable token is the output's.
        changes: `lens against language kl low high p p_adjusted n`: mean over the layers below the
            last, and over texts, of one lens's divergence less another's of the same texts; p by
            sign flips over texts, adjusted (Holm) for all rows.
        n_layers: Of the model.
        confidence: Of the intervals.
    """

    table: pd.DataFrame
    changes: pd.DataFrame
    n_layers: int
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    def told_apart(self, lens: str, *, level: float = 0.05) -> dict[str, float]:
        """Of a lens against another: in how many languages it reads nearer and farther.

        Args:
            lens: As in `changes`.
            level: That the adjusted p is to be below.

        Returns:
            `nearer`, `farther`, `n` and `kl`, the mean difference; without `n` the lens wasn't
            compared.
        """
        rows = self.changes[self.changes["lens"] == lens]
        if not len(rows):
            return {}
        sure = rows.loc[rows["p_adjusted"] < level, "kl"]
        found = {"nearer": float((sure < 0).sum()), "farther": float((sure > 0).sum())}
        return {**found, "n": float(len(rows)), "kl": float(rows["kl"].mean())}

    def agreement(self) -> pd.DataFrame:
        """Language × lens: how often the highest point below the output agrees with it."""
        highest = self.table[self.table["layer"] == self.n_layers - 1]
        return highest.pivot_table(index="language", columns="lens", values="agree", sort=False)


@typed
def read_texts_through(
    model: HookedModel,
    states: Activations,
    lenses: Mapping[str, Mapping[str, Lens]],
    *,
    against: Sequence[tuple[str, str]] = (),
    positions: int = 4,
    skip: int = 16,
    resampling: Resampling = Resampling(),
    progress: bool = True,
) -> LensReadings:
    """Read states of texts through several lenses.

    Args:
        model: Whose states they are.
        states: Of the slot `all` of texts.
        lenses: By language, which lenses read its texts, by name. `logit` is among them always.
        against: Pairs of names, the second of which is taken off the first, where both read a
            language and have the same layers.
        positions: Read of each text, evenly spread.
        skip: Positions at its beginning that are not.
        resampling: Of the intervals over texts.
        progress: Show a bar.

    Raises:
        ValueError: states of another model, of another site or without the last layer, a lens of
            another model, or texts in a language that no lens is to read.
    """
    states.require(model.fingerprint, what="Readout")
    if states.layers[-1] != model.n_layers:
        raise InputError(
            f"Layers {list(states.layers)} lack the last, {model.n_layers}, which all readings are "
            "compared with; harvest it as well."
        )
    tags = states.meta["language"].to_numpy()
    if lacking := sorted({*tags} - {*lenses}):
        raise InputError(f"No lens is to read texts in {', '.join(lacking)}.")
    (slot,) = states.slots
    kept = states.slot(slot)
    owner = np.repeat(np.arange(len(states)), kept.offsets.diff().numpy())
    rows: list[pd.DataFrame] = []
    by_text: dict[tuple[str, str], pd.DataFrame] = {}
    for tag in dict.fromkeys(tags):
        texts = np.flatnonzero(tags == tag)
        # The last position's output is about what comes after the text.
        here = np.concatenate(
            [_spread(np.flatnonzero(owner == i)[:-1], skip, positions) for i in texts]
        )
        mine = kept.values[:, here]
        for name, lens in {"logit": LOGIT, **lenses[tag]}.items():
            layers, values = readable_states(states, model, lens, mine)
            kl, agree = _reading(model, values, lens, layers, progress)
            each = [_by_text(found, owner[here], texts) for found in (kl, agree)]
            by_text[name, tag] = pd.DataFrame(each[0], columns=list(layers))
            rows.append(_means(name, tag, layers, each, resampling))
    known = {tag: {name: x.described() for name, x in mine.items()} for tag, mine in lenses.items()}
    return LensReadings(
        provenance=analysed(
            states.provenance,
            "readings",
            {"lenses": known, **resampling.provenance()},
        ),
        table=pd.concat(rows, ignore_index=True),
        changes=_changes(by_text, against, model.n_layers, resampling),
        n_layers=model.n_layers,
        confidence=resampling.confidence,
    )


def _reading(
    model: HookedModel,
    values: Float[Tensor, "layer row d_model"],
    lens: Lens,
    layers: Sequence[int],
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """`[layer, row]` divergences in bits, and whether the most probable token is the output's."""
    read = stream(
        model.readout,
        values,
        layers=layers,
        top_k=1,
        statistics=("kl",),
        carry=lens.over(layers),
        progress=progress,
    )
    assert read.kl is not None
    best = read.top_ids[..., 0]
    return read.kl.double().numpy(), (best == best[-1]).double().numpy()


def _spread(rows: np.ndarray, skip: int, n: int) -> np.ndarray:
    """`n` of the rows, from the `skip`-th on where there are so many."""
    first = min(skip, max(0, len(rows) - n))
    return rows[np.unique(np.linspace(first, len(rows) - 1, n).round().astype(int))]


def _by_text(
    found: Float[np.ndarray, "layer row"], owner: np.ndarray, texts: np.ndarray
) -> Float[np.ndarray, "text layer"]:
    return np.stack([found[:, owner == text].mean(1) for text in texts])


def _means(
    name: str,
    tag: str,
    layers: Sequence[int],
    each: Sequence[Float[np.ndarray, "text layer"]],
    resampling: Resampling,
) -> pd.DataFrame:
    clusters = np.arange(len(each[0]))
    kl, agree = (bootstrap(x, clusters=clusters, resampling=resampling) for x in each)
    (low, high), (agree_low, agree_high) = kl.interval(), agree.interval()
    return pd.DataFrame(
        {
            "lens": name,
            "language": tag,
            "layer": layers,
            "kl": kl.mean,
            "low": low,
            "high": high,
            "agree": agree.mean,
            "agree_low": agree_low,
            "agree_high": agree_high,
            "n": kl.n,
        }
    )


def _changes(
    by_text: Mapping[tuple[str, str], pd.DataFrame],
    against: Sequence[tuple[str, str]],
    n_layers: int,
    resampling: Resampling,
) -> pd.DataFrame:
    names = ["lens", "against", "language", "kl", "low", "high", "p", "n"]
    rows: list[tuple[str, str, str, float, float, float, float, int]] = []
    for one, other in against:
        for tag in dict.fromkeys(tag for _, tag in by_text):
            pair = by_text.get((one, tag)), by_text.get((other, tag))
            if pair[0] is None or pair[1] is None:
                continue
            shared = [n for n in range(n_layers) if n in pair[0].columns and n in pair[1].columns]
            less = (pair[0][shared] - pair[1][shared]).mean(axis=1).to_numpy()
            found = bootstrap(less[:, None], clusters=np.arange(len(less)), resampling=resampling)
            (low,), (high,) = found.interval()
            flips = np.abs(random_signs(len(less), _FLIPS, resampling.seed) @ less)
            p = float((flips >= flips[0] * (1 - 1e-9)).mean())
            rows.append((one, other, tag, float(found.mean[0]), low, high, p, len(less)))
    table = pd.DataFrame(rows, columns=names)
    return table.assign(p_adjusted=holm(table["p"].to_numpy()) if len(table) else [])


@typed
def agreement(model: HookedModel, states: Activations, lens: Lens) -> float:
    """How often the most probable token at a lens's highest point below the last is the output's.

    Raises:
        ValueError: states of another model, or without the last layer.
    """
    states.require(model.fingerprint, what="Readout")
    layers = lens.readable([n for n in states.layers if n < model.n_layers], model)
    (slot,) = states.slots
    at = [states.layers.index(layers[-1]), states.layers.index(model.n_layers)]
    carry = lens.over([layers[-1], model.n_layers])
    read = stream(model.readout, states.slot(slot).values[at], top_k=1, statistics=(), carry=carry)
    best = read.top_ids[..., 0]
    return float((best[0] == best[1]).double().mean())


@typed
def require_agreement(model: HookedModel, states: Activations, lens: Lens) -> float:
    """See that a lens of unknown origin reads this model.

    One that was fitted on other weights, or under another forward pass, reads silently wrong
    (neuronpedia issue 235); at its highest point it should say what the model says.

    Returns:
        Its `agreement`.

    Raises:
        ValueError: it agrees with the output less often than `LEAST`.
    """
    found = agreement(model, states, lens)
    if found < LEAST:
        plain = agreement(model, states, LOGIT)
        raise InputError(
            f"This {lens.kind} lens says what {model.name} says in {found:.0%} of cases at its "
            f"highest layer; at least {LEAST:.0%} are wanted (without a lens: {plain:.0%}). It was "
            "fitted on other weights (a quantised or fine-tuned model is another one), or under "
            "another forward pass. Fit one on this model: xlens fit-lens."
        )
    return found


@typed
def trusted(model: HookedModel, lens: Lens, states: Callable[[], Activations]) -> Lens:
    """The lens, where it may be read through: known to be the model's, or agreeing with it.

    Of the latter a log says that whose weights it is of isn't known, and what those read are.

    Args:
        model: Whose states are to be read.
        lens: Which.
        states: Makes states of prompts, at the lens's points and the last; not called where the
            lens says what it was fitted on.

    Raises:
        ValueError: as `require_agreement`.
    """
    if isinstance(lens, FittedLens) and not lens.fingerprint:
        found = require_agreement(model, states(), lens)
        _log.warning(
            "The %s lens doesn't say which weights it was fitted on (the model that it names: %s). "
            "It is read on those of %s (%s), and at its highest layer says what the model says in "
            "%.0f %% of cases. Fitted on others, it would read silently wrong below.",
            lens.kind,
            lens.provenance.get("model") or "none",
            model.name,
            model.weights_note or model.dtype,
            100 * found,
        )
    return lens
