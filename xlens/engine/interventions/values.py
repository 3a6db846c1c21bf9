"""Which number goes where: the shapes of vectors, and activations paired by id."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from xlens.activations import Activations
from xlens.engine.interventions.kinds import GENERATED, Add, Patch
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.sites import Point
from xlens.prompts import Prompt, parse_slot


def shaped(given: Tensor, n_layers: int, n_prompts: int) -> tuple[Tensor, bool]:
    """`[prompt, layer, d_model]` with 1 for all alike, and whether it is one per prompt.

    Raises:
        ValueError: a shape that fits neither, or both.
    """
    n = given.shape[0]
    if given.dim() == 1:
        given = given[None, None]
    elif given.dim() == 2:
        if n > 1 and n == n_layers == n_prompts:
            raise InputError(
                f"The vectors v have {n} rows, and there are {n} layers and {n} prompts: which are "
                "they? Give v[None] for one per layer, v[:, None] for one per prompt."
            )
        given = given[None] if n == n_layers else given[:, None]
    prompts, layers, d_model = given.shape
    if prompts not in (1, n_prompts) or layers not in (1, n_layers):
        raise InputError(
            f"The vectors are {prompts} (prompts) x {layers} (layers) x {d_model} (d_model), but "
            f"there are {n_prompts} prompts and {n_layers} layers listed. Give one for each, or "
            "one for all."
        )
    return given, prompts > 1


def matched(
    what: Add | Patch,
    given: Activations,
    model: HookedModel,
    points: Sequence[Point],
    prompts: Sequence[Prompt],
) -> tuple[Float[Tensor, "row layer d_model"], list[range]]:
    """The source slot at these points, prompt by prompt, and which rows are each prompt's.

    A prompt's are those of its id; where there are several, in its language.

    Raises:
        ValueError: activations of another model, without the layers or the slot, or not finite; a
            prompt that has none in them, or several.
    """
    if given.fingerprint != model.fingerprint:
        raise InputError(
            f"These activations are of another model ({given.provenance.get('model')}, fingerprint "
            f"{given.fingerprint[:12]}…) than {model.name} ({model.fingerprint[:12]}…). If that is "
            "meant, give their numbers: activations.get(slot, layer=...)."
        )
    if given.site != what.site:
        raise InputError(
            f"These activations are of site {given.site!r}, and site {what.site!r} is changed. "
            "Harvest them at the same site."
        )
    kept = given.slot(what.source or what.slot)
    at = [given.layer_index(int(point)) for point in points]
    languages, offsets = given.meta["language"].tolist(), kept.offsets.tolist()
    named: dict[str, list[int]] = {}
    for i, name in enumerate(given.meta["id"].tolist()):
        named.setdefault(name, []).append(i)
    chosen: list[int] = []
    rows: list[range] = []
    for prompt in prompts:
        same = named.get(prompt.id, [])
        if len(same) > 1:
            same = [i for i in same if languages[i] == prompt.language]
        if len(same) != 1:
            raise InputError(
                f"Prompt {prompt.id!r} ({prompt.language}) has no states of its own in these "
                f"activations ({len(given)} prompts in {', '.join(given.languages)}): none has its "
                "id, or several and none its language. Harvest it, or pick one language by "
                "activations.select(languages=[...])."
            )
        start = len(chosen)
        chosen.extend(range(offsets[same[0]], offsets[same[0] + 1]))
        rows.append(range(start, len(chosen)))
    values = kept.values[at][:, chosen].transpose(0, 1)
    if not values.isfinite().all():
        raise InputError("The activations are not finite: they overflowed when they were kept.")
    return values, rows


def one_per_prompt(what: Add | Patch, rows: Sequence[range]) -> bool:
    """Whether a prompt's one value is for every position of the slot, not one for each.

    Raises:
        ValueError: one is needed, and there are several.
    """
    dense = all(len(r) == 1 for r in rows)
    single = what.slot != GENERATED and parse_slot(what.slot).single
    if isinstance(what, Patch):
        needed = single or what.broadcast
    else:
        needed = single or what.slot == GENERATED
    if needed and not dense:
        raise InputError(
            f"The activations hold several states per prompt at slot {what.source or what.slot!r}, "
            f"but slot {what.slot!r} takes one. Name a slot with one state per prompt as source."
        )
    return needed or (isinstance(what, Add) and dense)
