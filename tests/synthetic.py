"""Made-up lens results with the shape of real ones: an English bump, then the target's rise."""

import numpy as np
import pandas as pd

from xlens.lens.result import LensResult, TraceResult
from xlens.runs import RunDirectory
from xlens.studies.steps.latent_language import Survival, summarised

MODEL = {"model": "made-up", "weights": "Q4_K_M, dequantised", "dtype": "float32"}


def lens_result(
    source: str = "de",
    target: str = "ru",
    *,
    pivot: str = "en",
    task: str = "translation",
    bump: float = 0.3,
    end: float = 0.5,
    n: int = 8,
    n_layers: int = 6,
    extra: str = "ja",
    seed: int = 0,
) -> LensResult:
    """`bump` is the pivot's probability at two thirds of the layers, `end` the target's at last."""
    rng = np.random.default_rng(seed)
    layers = np.arange(n_layers + 1)
    curves = {target: end / (1 + np.exp(-3 * (layers - 0.85 * n_layers)))}
    curves.setdefault(pivot, bump * np.exp(-((layers - 0.66 * n_layers) ** 2)) + 1e-4)
    curves.setdefault(source, np.full(n_layers + 1, 1e-3))
    rows, states, top = [], [], []
    for prompt in range(n):
        key = {"prompt": prompt, "id": f"territory/{prompt}"}
        luck = {tag: rng.uniform(0.8, 1.2) for tag in curves}
        for layer in map(int, layers):
            here = {**key, "layer": layer}
            for tag, curve in curves.items():
                prob = float(np.clip(curve[layer] * luck[tag], 1e-9, 1))
                reading = {"prob": prob, "logprob": float(np.log(prob)), "rank": 1.0, "n_tokens": 3}
                rows.append({**here, "language": tag, **reading})
            noise = float(rng.normal(0, 0.1))
            state = {"entropy": 12.0 - layer + noise, "kl": 8.0 - layer + noise, "energy": 0.3}
            states.append({**here, **state})
            for k, tag in enumerate([target, pivot, extra, "unknown"]):
                cell = {"k": k, "token": k, "label": f"␣{tag}", "prob": 0.1, "language": tag}
                top.append({**here, **cell})
    return LensResult(
        provenance=dict(MODEL),
        rows=pd.DataFrame(rows),
        states=pd.DataFrame(states),
        top=pd.DataFrame(top),
        n_layers=n_layers,
        source=source,
        target=target,
        pivot=pivot,
        task=task,
        match="prefixes",
    )


def study(source: str = "de", target: str = "ru", **options: float) -> dict[str, LensResult]:
    """A result with its controls."""
    return {
        "translation": lens_result(source, target, **options),  # type: ignore[arg-type]
        "shuffled": lens_result(source, target, bump=0.01, end=0.01, seed=1),
        "random-init": lens_result(source, target, bump=0.0, end=0.0, seed=2, n=4),
        "repetition": lens_result(target, target, task="repetition", bump=0.1, end=0.8, n=4),
    }


LABELS = ("␣the", "花", "␣الزهرة", "फूल", "<b>x</b>", "⟨E8 8A⟩", "Donaudampfschifffahrt")


def trace_result(n_layers: int = 3) -> TraceResult:
    """One cell for each of `LABELS`, in turn, over five tokens."""
    tokens = ["⟨bos⟩", "Blume", "␣中文", ":", "⏎"]
    cells = [
        {
            "layer": layer,
            "pos": pos,
            "token": layer + pos,
            "label": LABELS[(layer + pos) % len(LABELS)],
            "prob": (layer + 1) * (pos + 1) / 20,
            "entropy": float(layer + pos),
        }
        for layer in range(n_layers + 1)
        for pos in range(len(tokens))
    ]
    return TraceResult(
        provenance={},
        cells=pd.DataFrame(cells),
        tokens=pd.DataFrame({"pos": range(5), "token": range(5), "label": tokens}),
        n_layers=n_layers,
    )


def save_pair(
    run: RunDirectory, pair: str, conditions: dict[str, LensResult], survival: pd.DataFrame
) -> None:
    """A pair's parts, as a study of a model called made-up saves them."""
    for name, result in conditions.items():
        result.save(run.result_folder("made-up", f"{pair}/{name}"))
        summary = summarised(name, conditions)
        summary.save(run.result_folder("made-up", f"{pair}/summary-{name}"))
    Survival(provenance={}, table=survival).save(run.result_folder("made-up", f"{pair}/survival"))
