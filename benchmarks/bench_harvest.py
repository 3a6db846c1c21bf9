"""Residual streams of all layers at the last token, against the bare model and three peers."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

import torch
from common import (
    Times,
    draw_ids,
    interleaved,
    make_model,
    planned_batches,
    prompts_of,
    ratios,
    settings,
    twin_of,
)
from tables import Row, write

from xlens.engine import harvest
from xlens.engine.backoff import TOKEN_BUDGET
from xlens.models import HookedModel

Methods = dict[str, Callable[[], object]]

PLAIN = "forward without the head, same batches"
HIDDEN = "usual: output_hidden_states=True"
BRIDGE = "usual: TransformerBridge.run_with_cache, resid_post"
NNSIGHT = "usual: nnsight trace, all layers"
# The best that a careful user gets out of the peers; to be read beside, not to be beaten.
HIDDEN_BEST = "best: output_hidden_states=True without the head"
BRIDGE_BEST = (
    "best: TransformerBridge.run_with_cache, resid_post, logits_to_keep=1, output_attentions=False"
)
NNSIGHT_BEST = "best: nnsight trace, last position, tracer.stop()"


def methods(model: HookedModel, sequences: Sequence[Sequence[int]]) -> Methods:
    """xlens and its peers on the same token ids, in the same batches."""
    prompts = prompts_of(sequences)
    budget = TOKEN_BUDGET[model.device.type]
    batches = planned_batches(sequences, budget, device=model.device)

    def each(run: Callable[..., object]) -> Callable[[], None]:
        @torch.inference_mode()
        def all_batches() -> None:
            for batch in batches:
                run(**batch)

        return all_batches

    def hidden(run: Callable[..., object]) -> Callable[[], None]:
        return each(lambda **batch: run(**batch, use_cache=False, output_hidden_states=True))

    def cached(**options: object) -> Callable[[], None]:
        return each(
            lambda input_ids, attention_mask, **_: model.bridge.run_with_cache(
                input_ids,
                attention_mask=attention_mask,
                names_filter=lambda name: name.endswith("resid_post"),
                **options,
            )
        )

    found: Methods = {
        "xlens": lambda: harvest(model, prompts, progress=False),
        PLAIN: each(lambda **batch: model.body(**batch, use_cache=False)),
        HIDDEN: hidden(model.hf_model),
        HIDDEN_BEST: hidden(model.body),
        BRIDGE: cached(),
        BRIDGE_BEST: cached(logits_to_keep=1, output_attentions=False),
    }
    if find_spec("nnsight"):
        all_layers, last_and_stop = _nnsight(model)
        found |= {NNSIGHT: each(all_layers), NNSIGHT_BEST: each(last_and_stop)}
    return found


def _nnsight(model: HookedModel) -> tuple[Callable[..., object], Callable[..., object]]:
    from nnsight import NNsight

    traced = NNsight(twin_of(model))
    blocks = traced.transformer.h if hasattr(model.body, "h") else traced.model.layers

    def all_layers(**batch: torch.Tensor) -> object:
        with traced.trace(**batch, use_cache=False):
            states = list().save()
            for block in blocks:
                states.append(block.output)
        return states

    def last_and_stop(**batch: torch.Tensor) -> object:
        with traced.trace(**batch, use_cache=False) as tracer:
            states = list().save()
            for block in blocks:
                states.append(block.output[:, -1])
            tracer.stop()
        return states

    return all_layers, last_and_stop


def rows_of(
    setting: str, times: Mapping[str, Times], *, bare: str = "≥ 0.97", clock: str = "cpu"
) -> list[Row]:
    """The lines of one model.

    Args:
        setting: The model, and how many prompts.
        times: By method.
        bare: What to reach against the bare model.
        clock: Which of the two counts.
    """
    targets = {PLAIN: bare, HIDDEN: "> 1", BRIDGE: "≥ 1.35", NNSIGHT: "> 1"}
    return [
        Row(
            "harvest, all layers at last",
            setting,
            peer,
            ratios(taken, times["xlens"], clock=clock),
            target=targets.get(peer, ""),
        )
        for peer, taken in times.items()
        if peer != "xlens"
    ]


def notes() -> list[str]:
    """On the peers."""
    if find_spec("nnsight"):
        return []
    return ["nnsight is not installed: not measured (benchmarks/README.md says how)."]


def main() -> None:
    args = settings(__doc__, rounds=4)
    rows: list[Row] = []
    times: dict[str, dict[str, Times]] = {}
    for shape in ("GPT-2 small", "Gemma 3 270M"):
        model = make_model(shape, quick=args.quick)
        n, length = (4, 16) if args.quick else (24, 64)
        measured = methods(model, draw_ids([length] * n))
        slow = dict.fromkeys(set(measured) - {"xlens", PLAIN}, 2)
        times[shape] = interleaved(
            measured, args.rounds, fewer=slow, warm=methods(model, draw_ids([length]))
        )
        rows += rows_of(f"{shape}, {n} × {length} tokens", times[shape])
    write("harvest", rows, args, times=times, notes=notes())


if __name__ == "__main__":
    main()
