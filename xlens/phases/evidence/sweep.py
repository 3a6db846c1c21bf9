"""The runs behind the causal evidence: a plain one, and from there one for each changed layer."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xlens.activations import Activations
from xlens.engine import harvest, harvest_variants
from xlens.engine.interventions import Intervention, patch
from xlens.engine.stream import stream
from xlens.engine.transport import Carry
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.phases.asked import Asked, answer_tokens, require_before_last
from xlens.phases.curves import Curves, one_kind
from xlens.prompts import parse_slot

# States of every token of a span at several layers are held at once, for this many bytes.
_STATES_BYTES = 2**29

Logprobs = Float[np.ndarray, "prompt layer 2"]


def read_answers(
    model: HookedModel,
    states: Float[Tensor, "layer prompt d_model"],
    tokens: Int[np.ndarray, "prompt 2"],
    *,
    carry: Carry | None = None,
    progress: bool = False,
) -> Logprobs:
    """Log-probabilities (nats) of two tokens per prompt, read at each layer.

    NaN where a token is -1.
    """
    read = stream(
        model.readout,
        states,
        targets=torch.from_numpy(np.maximum(tokens, 0))[..., None],
        top_k=0,
        statistics=(),
        carry=carry,
        progress=progress,
    )
    assert read.set_logprobs is not None
    # From [layer, prompt, 2]: each set of targets is one token.
    found = read.set_logprobs.double().numpy().transpose(1, 0, 2)
    return np.where(tokens[:, None, :] < 0, np.nan, found)


def patched(
    model: HookedModel,
    asked: Asked,
    donors: Asked,
    *,
    kind: str,
    slot: str,
    measure: Literal["gain", "loss"] = "gain",
    layers: str | int | Sequence[int] = "all",
    progress: bool = True,
    **harvesting: Any,
) -> Curves:
    """What taking states from other prompts does to the answer, layer by layer.

    At each layer the states at `slot` are replaced by those of the donor with the same id and
    language. The value is what the donor's right answer gains in log-probability, the control what
    its wrong one gains: more than that is knowledge of the donor's question or context. With
    `loss`, for donors without an answer of their own (`other_context`), it is what the right answer
    loses beyond what the wrong one loses: what the context had given.

    Prompts are left out (NaN) if the donor has another number of tokens at a slot of several
    positions, or if its right and its wrong answer begin with the same token.

    Args:
        model: From `xlens.load`.
        asked: Whose answers are changed.
        donors: The same ids and languages; `same_context` and `other_context` make them.
        kind: Which kind of evidence this is (`KINDS`).
        slot: `last`, `question:each`, ...
        measure: Of the donors' answers.
        layers: Residual points at which to patch.
        progress: Show bars.
        **harvesting: Further options of `harvest`: `token_budget`, `store`, `prepend_bos`.

    Raises:
        ValueError: donors for other prompts, or what `harvest` and `patch` refuse.
    """
    require_same(asked, donors)
    if (span := parse_slot(slot).span) is not None:
        require_before_last(model, asked, span)
    options: dict[str, Any] = {"progress": progress, **harvesting}
    points = model.layers(layers)
    fits = _of_equal_length(model, asked, donors, slot, **harvesting)
    tokens = answer_tokens(model, donors)
    rows = np.flatnonzero(fits & (tokens[:, 0] >= 0))
    value, control = (np.full((len(asked), len(points)), np.nan) for _ in range(2))
    if len(rows):
        taker, giver = asked.take(rows), donors.take(rows)

        def change(layer: int, states: Activations) -> Intervention:
            return patch(states, layers=layer, slot=slot)

        given = _in_parts(model, giver, points, slot, **options)
        shift = _shifts(model, taker, tokens[rows], _changes(given, change), **options)
        if measure == "loss":
            # A donor that lacks the answer takes from it: lost is positive.
            shift = -shift
        value[rows], control[rows] = shift[..., 0], shift[..., 1]
    return one_kind(
        kind,
        value,
        control,
        layers=points,
        meta=asked.meta,
        n_layers=model.n_layers,
        provenance=model.provenance(),
        left_out={kind: len(asked) - len(rows)},
    )


def ablated(
    model: HookedModel,
    asked: Asked,
    *,
    kind: str,
    span: str,
    fill: str = "mean",
    layers: str | int | Sequence[int] = "all",
    progress: bool = True,
    **harvesting: Any,
) -> Curves:
    """What wiping out a span's states does to the answer, layer by layer.

    At each layer every token of the span gets the same state: the mean over the span and over the
    prompts of its language, or zero. The value is what the right answer loses in log-probability,
    the control what the wrong one loses.

    Args:
        model: From `xlens.load`.
        asked: Prompts with that span.
        kind: Which kind of evidence this is (`KINDS`).
        span: Whose tokens.
        fill: `mean` or `zero`.
        layers: Residual points at which to wipe out.
        progress: Show bars.
        **harvesting: As for `patched`.

    Raises:
        ValueError: an unknown fill, or what `harvest` refuses.
    """
    if fill not in ("mean", "zero"):
        raise InputError(f"fill is {fill!r}; accepted are 'mean' and 'zero'.")
    require_before_last(model, asked, span)
    options: dict[str, Any] = {"progress": progress, **harvesting}
    points = model.layers(layers)
    tokens = answer_tokens(model, asked)
    rows = np.flatnonzero(tokens[:, 0] >= 0)
    value, control = (np.full((len(asked), len(points)), np.nan) for _ in range(2))
    if len(rows):
        some = asked.take(rows)
        states = harvest(model, some.prompts, layers=points, slots=f"{span}:mean", **options)
        means = _language_means(states.get(), states.meta["language"].to_numpy())
        # [prompt, layer, d_model]; below [prompt, 1, d_model],
        # one state for all of a span's tokens.
        fills = means if fill == "mean" else torch.zeros_like(means)
        changes = [
            patch(fills[:, i : i + 1], layers=layer, slot=f"{span}:each", broadcast=True)
            for i, layer in enumerate(points)
        ]
        shift = -_shifts(model, some, tokens[rows], iter([changes]), **options)
        value[rows], control[rows] = shift[..., 0], shift[..., 1]
    return one_kind(
        kind,
        value,
        control,
        layers=points,
        meta=asked.meta,
        n_layers=model.n_layers,
        provenance=model.provenance(),
        fill=fill,
        left_out={kind: len(asked) - len(rows)},
    )


def require_same(asked: Asked, donors: Asked) -> None:
    """Refuse donors that are not one per prompt, in the prompts' order.

    Raises:
        ValueError: other ids or languages.
    """
    mine = [(p.id, p.language) for p in asked.prompts]
    theirs = [(p.id, p.language) for p in donors.prompts]
    if mine != theirs:
        wrong = next((a for a, b in zip(mine, theirs, strict=False) if a != b), mine[-1])
        raise InputError(
            f"Donors must have the prompts' ids and languages, in their order; they differ first "
            f"at {wrong!r} ({len(mine)} prompts, {len(theirs)} donors). same_context and "
            "other_context make such donors."
        )


def _shifts(
    model: HookedModel,
    asked: Asked,
    tokens: Int[np.ndarray, "prompt 2"],
    changes: Iterator[Sequence[Intervention]],
    **options: Any,
) -> Logprobs:
    """What two tokens gain at the output under each change, `[prompt, change, 2]`."""
    found: list[np.ndarray] = []
    for some in changes:
        # Plain first, in each part anew: its run is shared up to the layer that a variant changes.
        variants: dict[str, Sequence[Intervention]] = {"plain": ()}
        variants |= {str(n): [change] for n, change in enumerate(some)}
        states = harvest_variants(
            model, asked.prompts, variants, layers=model.n_layers, slots="last", **options
        )
        # Read at the output alone: [prompt, 2].
        plain, *said = (
            read_answers(model, x.slot("last").values, tokens)[:, 0] for x in states.values()
        )
        found += [each - plain for each in said]
    return np.stack(found, axis=1)


def _changes(
    given: Iterator[Activations], change: Callable[[int, Activations], Intervention]
) -> Iterator[list[Intervention]]:
    for states in given:
        yield [change(layer, states) for layer in states.layers]


def _in_parts(
    model: HookedModel, asked: Asked, points: Sequence[int], slot: str, **options: Any
) -> Iterator[Activations]:
    """States at a slot, some layers at a time."""
    longest = max(len(t) for t in model.tokenize(list(asked.prompts), spans=frozenset()))
    rows = len(asked) * (longest if slot.endswith(":each") else 1)
    # Four bytes a number; no prompt's span is longer than the longest prompt.
    step = max(1, _STATES_BYTES // (rows * model.d_model * 4))
    for first in range(0, len(points), step):
        some = points[first : first + step]
        yield harvest(model, asked.prompts, layers=some, slots=slot, **options)


def _of_equal_length(
    model: HookedModel, asked: Asked, donors: Asked, slot: str, **harvesting: Any
) -> np.ndarray:
    """Which donors have as many positions at a slot."""
    parsed = parse_slot(slot)
    if not parsed.ragged:
        return np.ones(len(asked), dtype=bool)
    spans = frozenset(() if parsed.span is None else (parsed.span,))
    bos = harvesting.get("prepend_bos")
    counts = [
        [
            len(t.positions(parsed))
            for t in model.tokenize(list(x.prompts), prepend_bos=bos, spans=spans)
        ]
        for x in (asked, donors)
    ]
    return np.array(counts[0]) == np.array(counts[1])


def _language_means(
    states: Float[Tensor, "prompt layer d_model"], languages: np.ndarray
) -> Float[Tensor, "prompt layer d_model"]:
    """Each prompt's language's mean."""
    out = torch.empty_like(states)
    for language in np.unique(languages):
        here = torch.from_numpy(languages == language)
        out[here] = states[here].mean(0)
    return out
