"""The lens: against the bare matrix product, and against TransformerLens's `logit_lens`.

Peak memory is how far the process's resident memory rises above what was there: model and states.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
from common import (
    Times,
    draw_ids,
    interleaved,
    make_model,
    padded,
    peak_memory,
    prompts_of,
    ratios,
    settings,
)
from jaxtyping import Float, Int
from tables import Row, write
from torch import Tensor
from transformer_lens.tools.analysis import logit_lens

from xlens.engine import Streamed, harvest, stream
from xlens.models import HookedModel

TOP_K = 10
TARGETS = 4  # words, one token each, whose probability is followed through the layers
PRODUCT = "the bare hidden @ W_U.T"
PRODUCT_INTO = "best: the same, 256 rows at a time into one buffer"
THEIRS = "best: transformer_lens logit_lens, top_k and targets, in inference mode"
THEIRS_USUAL = "usual: transformer_lens logit_lens, top_k and targets, as called by default"
EVERYTHING = "xlens, with rank and entropy"

States = Float[Tensor, "layer row d_model"]


def target_sets(rows: int) -> Int[Tensor, "row set size"]:
    """The same few target words for every row."""
    return torch.arange(3, 3 + TARGETS)[None, :, None].expand(rows, -1, -1)


def lens(model: HookedModel, states: States, *, everything: bool) -> Streamed:
    """Targets and top-k; with everything, also the targets' ranks and the entropy."""
    return stream(
        model.readout,
        states,
        targets=target_sets(states.shape[1]),
        top_k=TOP_K,
        statistics=("entropy", "rank") if everything else (),
    )


def ours(model: HookedModel, sequences: Sequence[Sequence[int]], slot: str) -> Streamed:
    """From prompts to statistics."""
    kept = harvest(model, prompts_of(sequences), slots=slot, progress=False)
    return lens(model, kept.slot(slot).values, everything=True)


def theirs(
    model: HookedModel, sequences: Sequence[Sequence[int]], slot: str, *, inference: bool = True
) -> list[object]:
    """The same, of prompts of one length: in two calls, since one takes `top_k` or `targets`."""
    ask = partial(
        logit_lens,
        model.bridge,
        padded(sequences)["input_ids"],
        positions=None if slot == "all" else -1,
        return_type="log_probs",
    )
    with torch.inference_mode(inference):
        return [ask(top_k=TOP_K), ask(targets=list(range(3, 3 + TARGETS)))]


def draw_states(model: HookedModel, rows: int) -> States:
    """As many states as `rows` prompts give at one position."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(model.n_layers + 1, rows, model.d_model, generator=generator)


class AgainstProduct:
    """Targets and top-k over a large vocabulary; also with ranks and entropy."""

    def __init__(self, shape: str, args: argparse.Namespace) -> None:
        model = make_model(shape, quick=args.quick)
        states = draw_states(model, 26)  # two tiles of rows, nearly full
        flat, weight = states.flatten(0, 1), model.readout.W_U
        buffer = torch.zeros(256, model.d_vocab)

        @torch.inference_mode()
        def product_into() -> None:
            for rows in flat.split(256):
                torch.mm(rows, weight, out=buffer[: len(rows)])

        self.setting = f"{shape}, d_vocab {model.d_vocab:,}, {len(flat)} rows"
        self.runs: dict[str, Callable[[], object]] = {
            "xlens": partial(lens, model, states, everything=False),
            EVERYTHING: partial(lens, model, states, everything=True),
            PRODUCT: lambda: flat @ weight,
            PRODUCT_INTO: product_into,
        }
        self.times = interleaved(self.runs, args.rounds)

    def rows(self) -> list[Row]:
        mb = {name: peak_memory(self.runs[name]) for name in ("xlens", PRODUCT)}
        row = partial(Row, f"lens, {TARGETS} targets and top-{TOP_K}", self.setting)
        whole = f"lens, {TARGETS} targets with rank, top-{TOP_K}, entropy"
        times = self.times
        return [
            row(PRODUCT, ratios(times["xlens"], times[PRODUCT]), "time", "≤ 1.1"),
            row(PRODUCT_INTO, ratios(times["xlens"], times[PRODUCT_INTO]), "time"),
            *(
                Row(whole, self.setting, peer, ratios(times[EVERYTHING], times[peer]), "time", to)
                for peer, to in ((PRODUCT, "≤ 1.3"), (PRODUCT_INTO, ""))
            ),
            row(
                "model and states in memory",
                [mb["xlens"]],
                "memory above",
                "≤ 64",
                f"The bare product itself takes {mb[PRODUCT]:,.0f} MB.",
            ),
        ]


class AgainstPeer:
    """Top-k, targets, ranks and entropy, from prompts to statistics."""

    def __init__(self, shape: str, args: argparse.Namespace) -> None:
        self.model, self.shape = make_model(shape, quick=args.quick), shape
        self.size = (4, 32)
        runs = {
            "xlens": ours,
            THEIRS: theirs,
            THEIRS_USUAL: partial(theirs, inference=False),
        }
        self.times: dict[str, Times] = interleaved(
            {name: self._run(run, *self.size, "all") for name, run in runs.items()},
            max(1, args.rounds - 1),
            fewer={THEIRS_USUAL: 1},
            warm={name: self._run(run, 2, 2, "all") for name, run in runs.items()},
        )

    def _run(
        self, run: Callable[..., object], n: int, length: int, slot: str, **options: bool
    ) -> Callable[[], object]:
        return partial(run, self.model, draw_ids([length] * n), slot, **options)

    def rows(self) -> list[Row]:
        def peak(run: Callable[..., object], **options: bool) -> float:
            warm = self._run(run, 2, 2, "last", **options)
            return peak_memory(self._run(run, many, length, "last", **options), warm=warm)

        def lens_peak(n: int) -> float:
            states = draw_states(self.model, n)
            few = partial(lens, self.model, states[:, :2], everything=True)
            return peak_memory(partial(lens, self.model, states, everything=True), warm=few)

        n, length = self.size
        times = self.times
        row = partial(Row, f"lens, {TARGETS} targets with rank, top-{TOP_K}, entropy")
        whole = f"{self.shape}, from {n} × {length} tokens, all layers and positions"
        many, length = 64, 16
        each = f"{self.shape}, from {many} × {length} tokens, all layers at last"
        mb = peak(ours)
        return [
            row(whole, THEIRS, ratios(times[THEIRS], times["xlens"]), "speed", "≥ 3"),
            row(whole, THEIRS_USUAL, ratios(times[THEIRS_USUAL], times["xlens"]), "speed"),
            row(each, THEIRS_USUAL, [peak(theirs, inference=False) / mb], "memory", "≥ 10"),
            row(each, THEIRS, [peak(theirs) / mb], "memory", "", f"xlens takes {mb:,.0f} MB."),
            row(
                f"{self.shape}, states of 128 prompts, all layers at last",
                "the same with 32 prompts",
                [lens_peak(128) / lens_peak(32)],
                "growth",
                "≤ 1.25",
                "Growth is of xlens's peak above model and states; flat is 1.",
            ),
        ]


def main() -> None:
    args = settings(__doc__, rounds=3)
    parts = {
        "large vocabulary": AgainstProduct("Gemma 3 270M", args),
        "from prompts": AgainstPeer("GPT-2 small", args),
    }
    rows = [row for part in parts.values() for row in part.rows()]  # memory: after all times
    write("lens", rows, args, times={name: part.times for name, part in parts.items()})


if __name__ == "__main__":
    main()
