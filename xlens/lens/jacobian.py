"""Jacobian lenses: fitted here, or read from and written to the published form of file.

The form is that of the reference implementation, read and written by TransformerLens: its layer l
is the output of block l, our point l + 1. It knows no point 0, the embedding: only our own fits
have that.
"""

from collections.abc import Sequence
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from xlens import files
from xlens.checks import typed
from xlens.engine.executors import Executor
from xlens.engine.jacobian import jacobians
from xlens.errors import InputError
from xlens.lens.lenses import JacobianLens
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts, PromptsLike
from xlens.results import analysed
from xlens.store import Store

_EXACT = "jacobian_lens"
_MARKS = ("fingerprint", "text", "languages", "estimator")


@typed
def fit_jacobian_lens(
    model: HookedModel,
    texts: PromptsLike,
    *,
    layers: str | int | Sequence[int] = "all",
    skip: int = 16,
    max_tokens: int = 128,
    rotation: int = 1,
    seed: int = 0,
    token_budget: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
    executor: str | Executor | None = None,
) -> dict[str, JacobianLens]:
    """A Jacobian lens of each language's texts (Gurnee et al. 2026; the reference's estimator).

    `J_l` is the mean, over texts and positions, of how the last residual point follows point l: of
    all later positions together. `pooled` joins lenses of several languages.

    Args:
        model: From `xlens.load`; gradients are made in its precision.
        texts: Plain texts with their languages; more than `skip` + 1 tokens each.
        layers: Residual points; "all" is every one below the last, the embedding among them.
        skip: Positions at the beginning that are left out.
        max_tokens: Tokens of each text that are read.
        rotation: 1 makes the whole matrix from each text. More: each text gives 1/`rotation` of
            the rows, dealt anew in each language: as many times cheaper, and each row rests on as
            many times fewer texts.
        seed: Of the dealing.
        token_budget: Most tokens times rows in a backward pass.
        store: Where sums are kept: a killed fit goes on where it was.
        progress: Show a bar.
        executor: Where it runs, as for `harvest`.

    Raises:
        ValueError: what `jacobians` refuses, or in some language texts whose number is no multiple
            of `rotation`.
    """
    items = list(Prompts.of(texts))
    by_language: dict[str, list[Prompt]] = {}
    for item in items:
        by_language.setdefault(item.language, []).append(item)
    if not items:
        raise InputError("No texts to fit a lens on.")
    if uneven := {tag: len(mine) for tag, mine in by_language.items() if len(mine) % rotation}:
        raise InputError(
            f"Each text gives 1/{rotation} of the rows, so that a language needs a multiple of "
            f"{rotation} texts; there are {uneven}. Leave some out, or choose another rotation."
        )
    found: dict[str, JacobianLens] = {}
    for n, (tag, mine) in enumerate(by_language.items()):
        made = jacobians(
            model,
            mine,
            layers=layers,
            skip=skip,
            max_tokens=max_tokens,
            rotation=rotation,
            # Rows dealt alike in every language would be alike wrong in every language.
            seed=seed + n,
            token_budget=token_budget,
            store=store,
            progress=progress,
            executor=executor,
        )
        how = {"skip": skip, "max_tokens": max_tokens, "rotation": rotation, "seed": seed + n}
        found[tag] = JacobianLens(
            provenance=analysed(made.provenance, "jacobian_lens", how),
            matrices=(made.sums / made.counts[None, :, None]).astype(np.float32),
            offsets=np.empty(0, dtype=np.float32),
            layers=made.layers,
            n_layers=model.n_layers,
            n_prompts=len(mine),
            languages=(tag,),
            text=text_digest(mine),
            fingerprint=str(made.provenance["fingerprint"]),
            estimator=_EXACT if rotation == 1 else f"{_EXACT} rows/{rotation}",
        )
    return found


def text_digest(texts: Sequence[Prompt]) -> str:
    """Of what a lens was fitted on, and in which order."""
    hashed = blake2b(digest_size=16)
    for text in texts:
        hashed.update(f"{text.language}\0{text.text}\0\0".encode())
    return hashed.hexdigest()


@typed
def read_jacobian_lens(
    name: str | Path, model: HookedModel, *, file: str = "lens.pt"
) -> JacobianLens:
    """A Jacobian lens in the published form, through TransformerLens; nothing in it is run.

    Args:
        name: A file, a folder, a name or model id of TransformerLens's registry, or a hub
            repository.
        model: Whose it is to be.
        file: In a folder or a repository.

    Raises:
        ValueError: it is no such lens, holds code, or is of another size; of a model that its
            metadata names otherwise only where it carries our fingerprint.
        OSError: it isn't there, or the hub can't be reached.
    """
    from pickle import UnpicklingError

    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from transformer_lens.tools.analysis import JacobianLens as Published

    try:
        read = Published.from_pretrained(str(name), filename=file)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as problem:
        raise InputError(
            f"No Jacobian lens {str(name)!r}: there is no such file here, none of that name in "
            f"TransformerLens's registry, and the hub gave none ({type(problem).__name__}). Name a "
            "file, or the run or folder of one of your own (xlens fit-lens)."
        ) from problem
    except UnpicklingError as problem:
        raise InputError(
            f"{str(name)!r} is refused: it holds more than tensors and plain values, and what a "
            "pickle holds is run when it is read. Ask whoever made it for one saved by "
            "JacobianLens.save."
        ) from problem
    except (KeyError, TypeError, AttributeError, RuntimeError) as problem:
        raise InputError(f"{str(name)!r} is no Jacobian lens: {problem}") from problem
    known = read.metadata
    target = known.get("target_layer", model.n_layers - 1)
    if target != model.n_layers - 1:
        raise InputError(
            f"{str(name)!r} carries states to block {target} of a model; {model.name} ends with "
            f"block {model.n_layers - 1}. Fit one for the last block."
        )
    order = read.source_layers
    marks = {name: known.get(f"xlens_{name}") for name in _MARKS}
    lens = JacobianLens(
        provenance={"model": known.get("model_name"), "published": {**known, "name": str(name)}},
        matrices=np.stack([read.jacobians[n].numpy() for n in order]),
        offsets=np.empty(0, dtype=np.float32),
        layers=tuple(n + 1 for n in order),
        n_layers=model.n_layers,
        n_prompts=read.n_prompts,
        languages=tuple(marks["languages"] or ()),
        text=str(marks["text"] or known.get("corpus") or ""),
        fingerprint=str(marks["fingerprint"] or ""),
        estimator=str(marks["estimator"] or read.estimator),
    )
    lens.require(model)
    return lens


@typed
def write_jacobian_lens(lens: JacobianLens, path: str | Path, *, half: bool = False) -> Path:
    """Write a lens in the published form, for TransformerLens and the reference implementation.

    Point 0 is left out: the form has no place for it.

    Args:
        lens: What is written.
        path: A file; its name should end in `.pt`.
        half: In fp16, as published ones are, or in fp32.

    Raises:
        ValueError: nothing is left without point 0.
        OSError: it can't be written.
    """
    import torch
    from transformer_lens.tools.analysis import JacobianLens as Published

    kept = [i for i, point in enumerate(lens.layers) if point > 0]
    if not kept:
        raise InputError("The published form has no place for point 0, and this lens has no other.")
    known = {"fingerprint": lens.fingerprint, "text": lens.text}
    known |= {"languages": list(lens.languages), "estimator": lens.estimator}
    said: dict[str, Any] = {f"xlens_{name}": value for name, value in known.items()}
    said |= {"target_layer": lens.n_layers - 1, "estimator": lens.estimator}
    made = Published(
        {lens.layers[i] - 1: torch.from_numpy(lens.matrices[i]) for i in kept},
        n_prompts=lens.n_prompts,
        d_model=lens.d_model,
        metadata={**said, "model_name": lens.provenance.get("model")},
    )
    place = Path(path)
    written = BytesIO()
    made.save(written, dtype=torch.float16 if half else torch.float32)  # type: ignore[arg-type]
    files.make(place.parent)
    files.write(place, written.getvalue())
    return place
