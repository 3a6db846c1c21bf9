"""Tuned lenses: trained here, or read from the files of the `tuned-lens` package.

arXiv 2303.08112: an affine map at each residual point, trained to lower KL(output || reading) on
text. The vocabulary is streamed, also in the backward pass: the gradient of the divergence with
respect to the logits is the difference of the two distributions, tile by tile.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from xlens.bars import tqdm
from xlens.checks import typed
from xlens.engine import harvest
from xlens.engine.executors import Executor
from xlens.engine.stream import VOCAB_TILE, stream
from xlens.errors import InputError
from xlens.lens.jacobian import text_digest
from xlens.lens.lenses import TunedLens
from xlens.models import HookedModel, Readout
from xlens.models.passes import full_precision
from xlens.prompts import Prompt, Prompts, PromptsLike, tokenize
from xlens.results import analysed
from xlens.stats import generator
from xlens.store import Store

_HELD_OUT = 0.2
_RATE = 1e-3
_EVERY = 10  # steps between looks at the texts that are held out
_PATIENCE = 3  # looks without anything gained


@typed
def fit_tuned_lens(
    model: HookedModel,
    texts: PromptsLike,
    *,
    layers: str | int | Sequence[int] = "all",
    max_tokens: int = 128,
    steps: int = 300,
    batch: int = 256,
    most: int = 20_000,
    seed: int = 0,
    token_budget: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
    executor: str | Executor | None = None,
) -> TunedLens:
    """Affine maps that make each layer's reading like the output, on average over texts.

    A fifth of the texts is held out: training starts from what reads these better, no map at all or
    the least-squares one to the last point, and ends where they gain nothing more, layer by layer.

    Args:
        model: From `xlens.load`; its weights stay as they are.
        texts: Plain texts with their languages, at least ten.
        layers: Residual points; "all" is every one below the last.
        max_tokens: About how many tokens of each text are read.
        steps: Most steps of Adam.
        batch: Positions in each.
        most: Positions that are trained on, drawn from all.
        seed: Of what is held out and of the order.
        token_budget: Most tokens in a forward pass.
        store: Where states are kept.
        progress: Show bars.
        executor: Where states are made.

    Raises:
        ValueError: fewer than ten texts, points that are not below the last, or what `harvest`
            refuses.
    """
    items = list(Prompts.of(texts))
    points = tuple(range(model.n_layers)) if layers == "all" else model.layers(layers)
    if not points or points[-1] >= model.n_layers:
        raise InputError(
            f"layers is {layers!r}; a lens carries points 0 to {model.n_layers - 1}: the last is "
            "the output itself."
        )
    if len(items) < 10 or min(steps, batch, most) < 1:
        raise InputError(
            f"{len(items)} texts, steps {steps}, batch {batch} and most {most}: a fifth of the "
            "texts is held out, so give ten or more, and 1 or more of the others."
        )
    states = harvest(
        model,
        heads(model, items, max_tokens),
        layers=[*points, model.n_layers],
        slots="all",
        token_budget=token_budget,
        store=store,
        progress=progress,
        executor=executor,
    )
    kept = states.slot("all")
    owner = np.repeat(np.arange(len(items)), kept.offsets.diff().numpy())
    # The first position holds nothing but the beginning: its state is unlike all others.
    rows = np.flatnonzero(kept.positions.numpy() > 0)
    draw = generator(seed)
    out = draw.permutation(len(items))[: max(1, round(_HELD_OUT * len(items)))]
    held = np.isin(owner[rows], out)
    trained, tested = draw.permutation(rows[~held])[:most], draw.permutation(rows[held])[:most]
    if not len(trained) or not len(tested):
        raise InputError("No text has more than one token: there is nothing to train on.")
    found = _train(
        model.readout,
        kept.values[:, torch.from_numpy(np.sort(trained))].float(),
        kept.values[:, torch.from_numpy(np.sort(tested[:2_000]))].float(),
        steps=steps,
        batch=batch,
        draw=draw,
        progress=progress,
    )
    history = pd.DataFrame(found.history, columns=["layer", "step", "kl"])
    history["layer"] = [points[int(i)] for i in history["layer"]]
    how = {"steps": steps, "batch": batch, "positions": len(trained), "seed": seed}
    how |= {"held_out": [items[i].id for i in sorted(out)]}
    return TunedLens(
        provenance=analysed(states.provenance, "tuned_lens", how),
        matrices=found.matrices.numpy(),
        offsets=found.offsets.numpy(),
        layers=points,
        n_layers=model.n_layers,
        n_prompts=len(items),
        languages=tuple(dict.fromkeys(item.language for item in items)),
        text=text_digest(items),
        fingerprint=states.fingerprint,
        training=history,
    )


@typed
def heads(model: HookedModel, items: Sequence[Prompt], most: int) -> list[Prompt]:
    """The beginnings of texts, of at most about so many tokens."""
    # Cut anew, a text's last token may become two: there is room for them.
    most = most if model.n_ctx is None else min(most, model.n_ctx - 2)
    cut = [
        t.offsets[most - 1][1] if len(t) > most else None
        for t in tokenize(model.tokenizer, items, spans=frozenset())
    ]
    return [replace(p, text=p.text[:end], spans={}) for p, end in zip(items, cut, strict=True)]


@dataclass(frozen=True)
class _Trained:
    matrices: Float[Tensor, "point d_model d_model"]
    offsets: Float[Tensor, "point d_model"]
    history: list[tuple[int, int, float]]


@full_precision()
def _train(
    readout: Readout,
    states: Float[Tensor, "layer row d_model"],
    tested: Float[Tensor, "layer held_out d_model"],
    *,
    steps: int,
    batch: int,
    draw: np.random.Generator,
    progress: bool,
) -> _Trained:
    """States of the points and, last, of the output."""
    n, d = len(states) - 1, states.shape[2]
    device = readout.device
    eye = torch.eye(d, device=device).expand(n, d, d)
    plain = eye.clone(), torch.zeros(n, d, device=device)
    began = _fitting(states)
    before, least = _divergence(readout, tested, *plain), _divergence(readout, tested, *began)
    better = (least < before).to(device)
    matrices = torch.where(better[:, None, None], began[0].to(device), plain[0])
    offsets = torch.where(better[:, None], began[1].to(device), plain[1])
    best = matrices.clone(), offsets.clone()
    lowest = torch.minimum(before, least)
    history = [(i, -1, float(kl)) for i, kl in enumerate(before)]
    history += [(i, 0, float(kl)) for i, kl in enumerate(lowest)]
    waited = torch.zeros(n, dtype=torch.long)
    matrices.requires_grad_()
    offsets.requires_grad_()
    # The usual rate is for maps of weights of that size; wider ones sum over more of them.
    optimizer = torch.optim.Adam([matrices, offsets], lr=_RATE * min(1.0, (256 / d) ** 0.5))
    order = np.empty(0, dtype=np.int64)
    with tqdm(range(1, steps + 1), desc="tuned lens", disable=not progress, leave=False) as bar:
        for step in bar:
            if len(order) < batch:
                order = np.concatenate([order, draw.permutation(states.shape[1])])
            rows, order = torch.from_numpy(order[:batch]), order[batch:]
            here = states[:, rows].to(device)
            moved = torch.baddbmm(offsets.unsqueeze(1), here[:-1], matrices.mT)
            normed = readout.normed_graph(moved)
            wrong = _gradient(readout, normed.detach(), readout.normed(here[-1]))
            # Of these two alone: the norm's own weights are the model's, and stay untouched.
            matrices.grad, offsets.grad = torch.autograd.grad(normed, [matrices, offsets], wrong)
            optimizer.step()
            if step % _EVERY and step != steps:
                continue
            now = _divergence(readout, tested, matrices.detach(), offsets.detach())
            history += [(i, step, float(kl)) for i, kl in enumerate(now)]
            gained = now < lowest
            lowest = torch.minimum(lowest, now)
            waited = torch.where(gained, 0, waited + 1)
            chosen = gained.to(device)
            best = (
                torch.where(chosen[:, None, None], matrices.detach(), best[0]),
                torch.where(chosen[:, None], offsets.detach(), best[1]),
            )
            bar.set_postfix_str(f"KL {float(lowest.mean()):.2f} bits", refresh=False)
            if bool((waited >= _PATIENCE).all()):
                break
    return _Trained(best[0].cpu(), best[1].cpu(), history)


def _fitting(
    states: Float[Tensor, "layer row d_model"],
) -> tuple[Float[Tensor, "point d_model d_model"], Float[Tensor, "point d_model"]]:
    """The affine maps to the last point with the least squared error, hardly regularised."""
    x, y = states[:-1], states[-1]
    mx, my = x.mean(1), y.mean(0)
    xc, yc = x - mx.unsqueeze(1), y - my
    gram = xc.mT @ xc
    ridge = 1e-3 * gram.diagonal(dim1=1, dim2=2).mean(1) + torch.finfo(x.dtype).tiny
    gram = gram + ridge[:, None, None] * torch.eye(x.shape[2])
    matrices = torch.linalg.solve(gram, xc.mT @ yc).mT
    return matrices.contiguous(), my - (matrices @ mx.unsqueeze(2)).squeeze(2)


@torch.inference_mode()
def _divergence(
    readout: Readout,
    states: Float[Tensor, "layer row d_model"],
    matrices: Float[Tensor, "point d_model d_model"],
    offsets: Float[Tensor, "point d_model"],
) -> Float[Tensor, " point"]:
    """Mean KL(output || reading) in bits."""

    def carry(rows: Tensor) -> Tensor:
        moved = torch.baddbmm(offsets.to(rows.device).unsqueeze(1), rows[:-1], matrices.mT)
        return torch.cat([moved, rows[-1:]])

    points = range(len(states))  # the output is among them, wherever the others lie
    read = stream(readout, states, layers=points, top_k=0, statistics=("kl",), carry=carry)
    assert read.kl is not None
    return read.kl[:-1].mean(1)


@torch.no_grad()
def _gradient(
    readout: Readout, normed: Float[Tensor, "point row d_model"], output: Float[Tensor, "row d"]
) -> Float[Tensor, "point row d_model"]:
    """Of the mean KL(output || reading), with respect to what the unembedding is given."""
    n, rows, d = normed.shape
    flat = torch.cat([normed.flatten(0, 1), output])
    tiles = [
        (a, min(a + VOCAB_TILE, readout.d_vocab)) for a in range(0, readout.d_vocab, VOCAB_TILE)
    ]
    log_z = torch.full((len(flat),), -torch.inf, device=flat.device)
    for a, b in tiles:
        log_z = torch.logaddexp(log_z, readout.tile(flat, a, b).logsumexp(-1))
    found = torch.zeros_like(flat[:-rows])
    for a, b in tiles:
        logits = readout.tile(flat, a, b)
        probs = (logits - log_z.unsqueeze(1)).exp_()
        wrong = probs[:-rows].view(n, rows, -1) - probs[-rows:]
        found += readout.back(wrong.flatten(0, 1), logits[:-rows], a, b)
    return found.view(n, rows, d) / rows


@typed
def read_tuned_lens(path: str | Path, model: HookedModel) -> TunedLens:
    """A lens of the `tuned-lens` package: a folder with `params.pt` (or that file); no code is run.

    Raises:
        ValueError: it is no such lens, holds code, or is of another size.
        OSError: it isn't there.
    """
    from pickle import UnpicklingError

    file = Path(path)
    file = file / "params.pt" if file.is_dir() else file
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as problem:
        raise InputError(
            f"{str(file)!r} is refused: it holds more than tensors, and what a pickle holds is run "
            "when it is read. Ask its maker for the tensors alone, or fit one (xlens fit-lens)."
        ) from problem
    weights = {k: v for k, v in state.items() if k.endswith("weight")} if _is_state(state) else {}
    numbers = sorted(int(name.split(".")[-2]) for name in weights if name.split(".")[-2].isdigit())
    if not weights or numbers != list(range(len(weights))):
        raise InputError(
            f"{str(file)!r} is no tuned lens: expected a dictionary of `0.weight`, `0.bias`, … "
            "with a square matrix for each layer, as TunedLens.save of tuned-lens writes it."
        )
    prefix = next(iter(weights)).rpartition(".")[0].rpartition(".")[0]
    prefix = f"{prefix}." if prefix else ""
    matrices = torch.stack([state[f"{prefix}{n}.weight"].float() for n in numbers])
    zeros = torch.zeros(matrices.shape[1])
    offsets = torch.stack([state.get(f"{prefix}{n}.bias", zeros).float() for n in numbers])
    lens = TunedLens(
        provenance={"published": {"name": str(path)}},
        # There the map is added to the state.
        matrices=(matrices + torch.eye(matrices.shape[1])).numpy(),
        offsets=offsets.numpy(),
        layers=tuple(numbers),
        n_layers=len(numbers),  # such a lens has a map for each
        training=pd.DataFrame({"layer": [], "step": [], "kl": []}),
    )
    lens.require(model)
    return lens


def _is_state(state: Any) -> bool:
    return isinstance(state, dict) and all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    )
