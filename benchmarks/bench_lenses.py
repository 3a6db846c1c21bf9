"""Jacobian lenses: fitting against TransformerLens's, and reading through a lens against none."""

import warnings
from functools import partial

import numpy as np
import torch
from common import Times, draw_ids, interleaved, make_model, prompts_of, ratios, settings, text_of
from tables import Row, write

from xlens.engine import harvest
from xlens.engine.jacobian import jacobians
from xlens.engine.stream import stream
from xlens.lens import JacobianLens
from xlens.models import HookedModel

SHAPE = "Gemma 3 270M"
TOKENS, SKIP = 55, 16
THEIRS = "transformer_lens JacobianLens.fit, fp32"


def theirs(model: HookedModel, text: str) -> object:
    """One text, all rows, every layer below the last."""
    from transformer_lens.tools.analysis import JacobianLens as Published

    return Published.fit(
        model.bridge, [text], corpus="random words", skip_first_positions=SKIP, show_progress=False
    )


def main() -> None:
    args = settings(__doc__, rounds=1)
    warnings.filterwarnings("ignore", message="fitting in")
    model = make_model(SHAPE, quick=args.quick)
    half = make_model(SHAPE, quick=args.quick, dtype=torch.bfloat16)
    (ids,) = draw_ids([TOKENS - 1])  # and the beginning
    prompts = prompts_of([ids])
    # Their layers begin at point 1.
    ours = {"skip": SKIP, "layers": list(range(1, model.n_layers)), "progress": False}
    times: dict[str, Times] = interleaved(
        {
            "fp32": partial(jacobians, model, prompts, **ours),
            "bf16": partial(jacobians, half, prompts, **ours),
            THEIRS: partial(theirs, model, text_of(ids)),
        },
        args.rounds,
        warm={
            name: partial(harvest, model, prompts, progress=False)
            for name in ("fp32", "bf16", THEIRS)
        },
    )
    setting = f"{SHAPE}, a text of {TOKENS} tokens, all rows and layers"
    rows = [
        Row(
            f"fit of a Jacobian lens, {kind}",
            setting,
            THEIRS,
            ratios(times[THEIRS], times[kind]),
            "speed",
            target,
        )
        for kind, target in (("fp32", "≥ 1.9"), ("bf16", "≥ 3"))
    ]
    exact, rough = (jacobians(m, prompts, **ours).sums for m in (model, half))
    off = [float(abs(a - b).max() / abs(a).max()) for a, b in zip(exact, rough, strict=True)]
    lens = _lens(model)
    states = torch.randn(
        model.n_layers + 1, 64, model.d_model, generator=torch.Generator().manual_seed(0)
    )
    layers = tuple(range(model.n_layers + 1))
    read = partial(stream, model.readout, states, top_k=10)
    reading = interleaved(
        {"plain": read, "carried": partial(read, carry=lens.over(layers))}, 3 if args.quick else 5
    )
    rows.append(
        Row(
            "reading through a lens",
            f"{SHAPE}, 64 rows, top-10, entropy and KL",
            "reading without",
            ratios(reading["carried"], reading["plain"]),
            "time",
            "≤ 1.15",
        )
    )
    note = (
        f"bf16: the largest error of a layer's matrix is {min(off):.3f} to {max(off):.3f} of its "
        "largest element."
    )
    write("lenses", rows, args, times={SHAPE: times, "reading": reading}, notes=[note])


def _lens(model: HookedModel) -> JacobianLens:
    """Any: what it reads makes no difference to the time."""
    d, n = model.d_model, model.n_layers
    drawn = torch.randn(n, d, d, generator=torch.Generator().manual_seed(1))
    return JacobianLens(
        provenance={},
        matrices=(drawn / d**0.5).numpy(),
        offsets=np.empty(0, dtype=np.float32),
        layers=tuple(range(n)),
        n_layers=n,
    )


if __name__ == "__main__":
    main()
