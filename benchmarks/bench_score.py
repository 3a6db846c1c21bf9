"""Log-probabilities of 4 candidates × 64 prompts, against lm-eval's ways of computing them.

lm-eval's `HFLM` runs one (prompt, candidate) after the other by default; at its best it sorts the
pairs by length, fills batches, and takes one-token candidates of one prompt from the same logits.
`HFLM` itself takes part where lm-eval is installed; an imitation of its batching always does. A
forward pass of one pair has nothing to do with the others: of those a sample, another one in every
round, stands for all.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from common import (
    Times,
    draw_ids,
    interleaved,
    make_model,
    padded,
    prompts_of,
    ratios,
    settings,
    text_of,
)
from tables import Row, write

from xlens.engine import score
from xlens.models import HookedModel

CANDIDATES, LENGTHS = 4, (12, 16, 20, 24, 28)
SAMPLE, ROWS = 20, 16
ALONE = "usual: one forward per (prompt, candidate), as lm-eval's default batch size of 1"
ALONE_LAST = "the same with logits of the candidate alone (logits_to_keep)"
IMITATED = f"best: an imitation of HFLM's batching, sorted, {ROWS} at a time"
HFLM = f"best: lm-eval's HFLM itself, batch size {ROWS}"

Pair = tuple[list[int], list[int]]


def one_by_one(
    model: HookedModel, pairs: Sequence[Pair], *, keep: bool
) -> Callable[[], list[float]]:
    """The usual loop: a forward pass, log-softmax, the candidate's own tokens picked and summed."""
    calls = 0

    @torch.inference_mode()
    def next_sample() -> list[float]:
        nonlocal calls
        start = calls * SAMPLE % len(pairs)
        calls += 1
        found: list[float] = []
        for prompt, candidate in pairs[start : start + SAMPLE]:
            n = len(candidate)
            few = {"logits_to_keep": n + 1} if keep else {}
            out = model.hf_model(torch.tensor([prompt + candidate]), use_cache=False, **few)
            logprobs = out.logits[0, -n - 1 : -1].log_softmax(-1)
            found.append(float(logprobs.gather(1, torch.tensor(candidate)[:, None]).sum()))
        return found

    return next_sample


@torch.inference_mode()
def imitated(model: HookedModel, pairs: Sequence[Pair]) -> list[float]:
    """As HFLM does: what differs in its last token alone is one row; longest first."""
    asked: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for n, (prompt, candidate) in enumerate(pairs):
        asked[(*prompt, *candidate[:-1])].append(n)
    ordered = sorted(asked, key=len, reverse=True)
    found = [0.0] * len(pairs)
    for at in range(0, len(ordered), ROWS):
        rows = ordered[at : at + ROWS]
        logits = model.hf_model(padded(rows)["input_ids"], use_cache=False).logits
        for row, logprobs in zip(rows, logits.log_softmax(-1), strict=True):
            for n in asked[row]:
                candidate = torch.tensor(pairs[n][1])
                own = logprobs[len(row) - len(candidate) : len(row)]
                found[n] = float(own.gather(1, candidate[:, None]).sum())
    return found


def of_lm_eval(model: HookedModel) -> Callable[[Sequence[Pair]], list[float]]:
    """HFLM on this very model."""
    from lm_eval.models.huggingface import HFLM as Theirs  # type: ignore[import-not-found]

    inner: Any = Theirs(
        pretrained=model.hf_model, tokenizer=model.tokenizer, batch_size=ROWS, device="cpu"
    )

    def run(pairs: Sequence[Pair]) -> list[float]:
        asked = [((text_of(a), text_of(b)), a, b) for a, b in pairs]
        return [logprob for logprob, _ in inner._loglikelihood_tokens(asked, disable_tqdm=True)]

    return run


def measured(
    model: HookedModel, n_prompts: int, n_tokens: int, rounds: int
) -> tuple[dict[str, Times], str]:
    """All ways, and how far the batched ones' figures are from xlens's."""
    lengths = [LENGTHS[i % len(LENGTHS)] for i in range(n_prompts)]
    contexts = draw_ids(lengths)
    endings = draw_ids([n_tokens] * n_prompts * CANDIDATES, seed=1)
    offered = [endings[i * CANDIDATES :][:CANDIDATES] for i in range(n_prompts)]
    pairs = [(c, e) for c, mine in zip(contexts, offered, strict=True) for e in mine]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(2)).tolist()
    mixed = [pairs[i] for i in order]
    prompts = prompts_of(contexts)
    texts = [[" " + text_of(e) for e in mine] for mine in offered]
    batched: dict[str, Callable[[Sequence[Pair]], list[float]]] = {
        IMITATED: partial(imitated, model)
    }
    if find_spec("lm_eval"):
        batched[HFLM] = of_lm_eval(model)
    told = score(model, prompts[:4], texts[:4], progress=False).table["logprob"]
    off = max(
        abs(a - b)
        for run in batched.values()
        for a, b in zip(told, run(pairs[: 4 * CANDIDATES]), strict=True)
    )
    times = interleaved(
        {
            "xlens": partial(score, model, prompts, texts, progress=False),
            ALONE: one_by_one(model, mixed, keep=False),
            ALONE_LAST: one_by_one(model, mixed, keep=True),
            **{name: partial(run, pairs) for name, run in batched.items()},
        },
        rounds,
        warm={
            "xlens": partial(score, model, prompts[:2], texts[:2], progress=False),
            ALONE: one_by_one(model, mixed[:2], keep=False),
            ALONE_LAST: one_by_one(model, mixed[:2], keep=True),
            **{name: partial(run, pairs[:2]) for name, run in batched.items()},
        },
    )
    return times, f"Log-probabilities of the batched ways are within {off:.1g} of xlens's."


def main() -> None:
    args = settings(__doc__, rounds=2)
    rows: list[Row] = []
    times: dict[str, dict[str, Times]] = {}
    notes: list[str] = []
    n_prompts = 20 if args.quick else 64
    n_pairs = n_prompts * CANDIDATES
    for shape in ("GPT-2 small", "Gemma 3 270M"):
        model = make_model(shape, quick=args.quick)
        rounds = args.rounds if shape == "GPT-2 small" else 1  # a minute a round
        for n_tokens in (2, 1):
            setting = (
                f"{shape}, {CANDIDATES} candidates of {n_tokens} token{'s' * (n_tokens > 1)} × "
                f"{n_prompts} prompts of {min(LENGTHS)} to {max(LENGTHS)}"
            )
            times[setting], note = measured(model, n_prompts, n_tokens, rounds)
            notes.append(f"{shape}, {n_tokens}: {note}")
            mine = times[setting]["xlens"]
            for peer, taken in times[setting].items():
                if peer == "xlens":
                    continue
                alone = peer in (ALONE, ALONE_LAST)
                figures = ratios(taken, mine, scale=n_pairs / SAMPLE if alone else 1)
                rows.append(
                    Row(
                        "score",
                        setting,
                        peer,
                        figures,
                        target="≥ 3" if n_tokens == 2 and peer != ALONE_LAST else "",
                        note=f"One forward per pair: {SAMPLE} of {n_pairs} pairs a round, "
                        f"× {n_pairs / SAMPLE:g}.",
                    )
                )
    if not find_spec("lm_eval"):
        notes.append("lm-eval is not installed: its batching is imitated (benchmarks/README.md).")
    write("score", rows, args, times=times, notes=notes)


if __name__ == "__main__":
    main()
