"""Reading comprehension, six question languages over one context language, prompt by prompt.

With `--data FOLDER` (XQuAD's files) on Gemma 3 270M itself, on whole paragraphs drawn at random;
without it on its shape, with random contexts and questions of the same lengths. The peer answers a
sample of the prompts with Hugging Face's `generate`, with keys and values cached and the same end
of an answer: one at a time, and at its best sorted, padded on the left and eight at a time.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import Times, draw_ids, interleaved, make_model, prompts_of, ratios, settings
from tables import Row, write

import xlens
from xlens.engine import generate
from xlens.models import HookedModel
from xlens.prompts import Prompts
from xlens.tasks.xmrc import read_reading, reading_prompts

ALONE = "usual: Hugging Face's generate, prompt by prompt"
BATCHED = "best: Hugging Face's generate, sorted, padded on the left, 8 at a time"
NEW = 32
SAMPLE, ROWS = 8, 8


def main() -> None:
    folder = _option("--data")
    args = settings(__doc__, rounds=1)
    if folder is None:
        model, prompts, setting = _made(args.quick)
        stop: tuple[str, ...] = ()
    else:
        model, prompts, setting = _real(folder)
        stop = ("\n",)
    step = max(1, len(prompts) // SAMPLE)
    sample = list(prompts)[::step][:SAMPLE]
    run = partial(generate, model, prompts, max_new_tokens=NEW, stop=stop, progress=False)
    few = partial(generate, model, sample[:2], max_new_tokens=2, progress=False)
    texts = sorted((p.text for p in sample), key=len)
    sample.sort(key=lambda p: len(p.text))
    peer, batched = (_theirs(model, texts, stop, rows) for rows in (1, ROWS))
    told = generate(model, sample, max_new_tokens=NEW, stop=stop, progress=False).table["text"]
    same = sum(a.strip() == b.strip() for a, b in zip(told, peer(), strict=True))
    times: dict[str, Times] = interleaved(
        {"xlens": run, ALONE: peer, BATCHED: batched},
        args.rounds,
        warm={"xlens": few, ALONE: few, BATCHED: few},
    )
    rows = [
        Row(
            "answers to questions in six languages over one context language",
            setting,
            name,
            ratios(times[name], times["xlens"], scale=len(prompts) / len(sample)),
            target="≥ 4" if name == ALONE else "",
            note=f"Hugging Face: {len(sample)} of {len(prompts)} prompts; alone, {same} answers "
            "the same.",
        )
        for name in (ALONE, BATCHED)
    ]
    write("reading", rows, args, times={setting: times})


def _real(folder: str) -> tuple[HookedModel, Prompts, str]:
    reading = read_reading(folder)
    paragraphs = list(dict.fromkeys(reading.items("en")[id].paragraph for id in reading.ids))[::48]
    ids = [id for id in reading.ids if reading.items("en")[id].paragraph in set(paragraphs)]
    asked = reading.select(ids=ids)
    every = [
        p
        for tag in reading.languages
        for p in reading_prompts(asked, context="en", question=tag, pool=reading)
    ]
    model = xlens.load("gemma-3-270m")
    setting = f"Gemma 3 270M, XQuAD, {len(ids)} questions in {len(reading.languages)} languages"
    return model, Prompts(every), setting


def _made(quick: bool) -> tuple[HookedModel, Prompts, str]:
    shown, text, asked = (40, 20, 4) if quick else (300, 170, 22)
    model = make_model("Gemma 3 270M", quick=quick)
    (header,) = draw_ids([shown])
    contexts = draw_ids([text] * 4, seed=1)
    questions = draw_ids([asked] * (30 * len(contexts)), seed=2)
    sequences = [header + contexts[n // 30] + q for n, q in enumerate(questions)]
    return model, prompts_of(sequences), f"Gemma 3 270M's shape, {len(sequences)} questions"


def _theirs(
    model: HookedModel, texts: list[str], stop: tuple[str, ...], rows: int
) -> Callable[[], list[str]]:
    inner: Any = model.hf_model
    tokenizer: Any = model.tokenizer
    options = {"stop_strings": list(stop), "tokenizer": tokenizer} if stop else {}

    @torch.inference_mode()
    def answer() -> list[str]:
        out: list[str] = []
        for at in range(0, len(texts), rows):
            inputs = tokenizer(
                texts[at : at + rows], return_tensors="pt", padding=True, padding_side="left"
            )
            ids = inner.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=NEW,
                do_sample=False,
                **options,
            )
            for row in ids[:, inputs["input_ids"].shape[1] :]:
                said = tokenizer.decode(row, skip_special_tokens=True)
                for end in stop:
                    said = said.split(end)[0]
                out.append(said)
        return out

    return answer


def _option(name: str) -> str | None:
    """An option of this script's own, taken off the command line."""
    if name not in sys.argv:
        return None
    at = sys.argv.index(name)
    value = sys.argv[at + 1]
    del sys.argv[at : at + 2]
    return value


if __name__ == "__main__":
    main()
