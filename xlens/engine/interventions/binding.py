"""`check`: interventions, a model and its prompts; what can't be done is refused before it runs."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from xlens.activations import Activations
from xlens.engine.gather import Seats
from xlens.engine.interventions.edits import ENDLESS, Bound, Edits
from xlens.engine.interventions.kinds import (
    GENERATED,
    Add,
    Intervention,
    Interventions,
    Patch,
    ProjectOut,
    Units,
    listed,
)
from xlens.engine.interventions.values import matched, one_per_prompt, shaped
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.computation import surrounded
from xlens.models.passes import alone
from xlens.models.sites import Point, places, visiting, width_at
from xlens.prompts import Prompt, TokenizedPrompt, parse_slot
from xlens.sites import RESID
from xlens.store.keys import digest

_KINDS = {Add: "add", ProjectOut: "project_out", Patch: "patch", Units: "units"}


def check(
    interventions: Interventions,
    model: HookedModel,
    tokens: Sequence[TokenizedPrompt],
    *,
    prompts: Sequence[Prompt] | None = None,
    of: Sequence[int] | None = None,
    ends: Sequence[int] | None = None,
) -> Edits:
    """Bind interventions to a model and what it will run; everything is refused here or never.

    An intervention of strength 0 is left out.

    Args:
        interventions: One, or several, applied in this order.
        model: Will run.
        tokens: The sequences that it will run.
        prompts: What values per prompt are one of; None: the sequences' own prompts.
        of: For each sequence which of `prompts` it is, where these are fewer (several candidates
            after one prompt); None: one each.
        ends: For each sequence the number of its first tokens that are the prompt: `last` is the
            last of these, and `generated` what follows. None: all of them, and `generated` is
            refused.

    Raises:
        ValueError: vectors of another size than `d_model` or of another model, an unknown layer, a
            span that a prompt lacks, values for another number of prompts or other ids.
    """
    sequences = _Sequences(
        tokens,
        [t.prompt for t in tokens] if prompts is None else prompts,
        range(len(tokens)) if of is None else of,
        [len(t) for t in tokens] if ends is None else ends,
    )
    bound: list[Bound] = []
    for what in listed(interventions):
        if what.slot == GENERATED and ends is None:
            raise InputError(
                "Slot 'generated' is for what follows the prompts, and nothing follows them here: "
                "use it with generate or score."
            )
        edit = _bind(what, model, sequences)
        if isinstance(what, Patch | Units) or what.strength != 0:
            bound.append(edit)
    return Edits(tuple(bound), [_described(edit) for edit in bound])


@dataclass(frozen=True)
class _Sequences:
    """What `check` is given about the sequences."""

    tokens: Sequence[TokenizedPrompt]
    prompts: Sequence[Prompt]
    of: Sequence[int]
    ends: Sequence[int]


def _bind(what: Intervention, model: HookedModel, sequences: _Sequences) -> Bound:
    points = _points(model, what)
    wide = width_at(model, points)
    ends, of = sequences.ends, sequences.of
    where = [_where(what.slot, t, n) for t, n in zip(sequences.tokens, ends, strict=True)]
    if isinstance(what, ProjectOut):
        middle = torch.zeros(what.basis.shape[1]) if what.center is None else what.center
        orthonormal = torch.linalg.qr(what.basis.double().T).Q.T
        values = torch.cat([middle.double()[None], orthonormal])[:, None]
        values, rows = values.to(torch.promote_types(model.dtype, torch.float32)), None
    elif isinstance(what, Units):
        if max(what.units) >= wide:
            raise InputError(
                f"There is no unit {max(what.units)}: site {what.site!r} of {model.name} has "
                f"{wide}, numbered from 0."
            )
        values, rows = what.spread(wide)[:, None], None
        values = values.to(torch.promote_types(model.dtype, torch.float32))
    elif isinstance(what.values, Activations):
        values, rows = matched(what, what.values, model, points, sequences.prompts)
    else:
        values, per_prompt = shaped(what.values, len(points), len(sequences.prompts))
        rows = [range(i, i + 1) for i in range(len(sequences.prompts))] if per_prompt else None
    if values.shape[-1] != wide:
        there = (
            f"the residual stream of {model.name} has d_model = {wide}"
            if what.site == RESID
            else f"site {what.site!r} of {model.name} has {wide}"
        )
        raise InputError(
            f"{_KINDS[type(what)]} is given {values.shape[-1]} dimensions, but {there}."
        )
    if rows is None:
        # A few vectors lie ready; of what is per prompt, each pass takes its own.
        return Bound(what, points, tuple(where), None, False, values.to(model.device))
    each = not isinstance(what, ProjectOut | Units) and not one_per_prompt(what, rows)
    if each:
        where = [range(r.start, min(r.stop, n)) for r, n in zip(where, ends, strict=True)]
        for at, i in zip(where, of, strict=True):
            if len(at) != len(rows[i]):
                prompt = sequences.prompts[i]
                raise InputError(
                    f"Prompt {prompt.id!r} ({prompt.language}) has {len(at)} positions at slot "
                    f"{what.slot!r}, but the activations hold {len(rows[i])} states for it. "
                    "Harvest them with the same prompts and slot, or take a slot of one position."
                )
    return Bound(what, points, tuple(where), tuple(rows[i].start for i in of), each, values)


@contextmanager
def intervene(model: HookedModel, interventions: Interventions) -> Generator[None]:
    """Interventions on whatever the model runs inside: its own `generate`, a bare forward.

    Hooks on the model's own blocks, removed afterwards, always. The core's own calls inside know of
    them: stored results of theirs stand by themselves, and provenance says so. Other threads'
    calls of the core wait until this ends.

    Args:
        model: From `xlens.load`; its `hf_model` is what you call.
        interventions: With slot `all` and nothing per prompt: nobody knows your prompts here.

    Raises:
        ValueError: other interventions, or what `check` refuses.
    """
    if uneven := [x.slot for x in listed(interventions) if x.slot != "all"]:
        raise InputError(
            f"intervene knows nothing of your prompts and takes slot 'all' alone, not {uneven[0]!r}"
            "; harvest, score and generate take the others: interventions=[...]."
        )
    edits = check(interventions, model, ())
    around = edits.prepare(Seats(0, {}))
    with (
        alone(model.hf_model),
        surrounded(model.hf_model, edits.key),
        visiting(model, edits.layers, around, stop=False, everywhere=True),
    ):
        yield


def _points(model: HookedModel, what: Intervention) -> tuple[Point, ...]:
    """Points or places in the order in which they are listed: vectors come in that order."""
    layers = what.layers
    if isinstance(layers, str):
        return places(model, what.site, layers)
    asked = [layers] if isinstance(layers, int) else list(layers)
    points = tuple(places(model, what.site, layer)[0] for layer in asked)
    if not points or len(set(points)) < len(points):
        raise InputError(f"layers is {layers!r}; at least one is needed, each listed once.")
    return points


def _where(slot: str, prompt: TokenizedPrompt, end: int) -> range:
    if slot in ("all", GENERATED):
        return range(0 if slot == "all" else end, ENDLESS)
    parsed = parse_slot(slot)
    return range(end - 1, end) if parsed.span is None else prompt.positions(parsed)


def _described(edit: Bound) -> dict[str, Any]:
    what = edit.what
    text: dict[str, Any] = {
        "kind": _KINDS[type(what)],
        "layers": [int(point) for point in edit.points],
        **({} if what.site == RESID else {"site": what.site}),
        "slot": what.slot,
        "where": digest([[r.start, r.stop] for r in edit.where]),
    }
    if isinstance(what, Units):
        return text | {"how": what.how, "units": digest(what.spread(edit.values.shape[-1]))}
    if not isinstance(what, Patch):
        text["strength"] = what.strength
    if isinstance(what, ProjectOut):
        # As given: the orthonormal basis depends on the machine's last bits.
        text["basis"] = digest(what.basis)
        text["center"] = None if what.center is None else digest(what.center)
        return text
    text["values"] = digest(edit.values)
    if edit.base is not None:
        text["rows"] = digest(list(edit.base))
        text["each"] = edit.each
    return text
