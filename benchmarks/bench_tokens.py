"""Tokens that few-shot jobs run, over those that their prompts have.

Prompts share headers of demonstrations, and what several begin with is run once. Beside it the same
items after demonstrations of their own, the best that could be shared of those. Counted in the
core's plan, without a forward pass: without padding, and with the padding of each way's batches.
Gemma's tokens, where the extra `gemma` is installed; else, or with --quick, the atlas's.
`--data FOLDER` (XQuAD's files) adds its questions.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from common import quiet, shipped
from tables import Row, write

import xlens
from xlens.engine import plan
from xlens.engine.backoff import TOKEN_BUDGET
from xlens.models import HookedModel
from xlens.prompts import Prompts, tokenize
from xlens.tasks.words import cldr_words, translation_prompts
from xlens.tasks.xmrc import ReadingSet, cldr_reading, read_reading, reading_prompts

ALL = "tokens of the prompts"
PADDED = "tokens without sharing, both padded"


def shares(model: HookedModel, prompts: Prompts) -> tuple[float, float]:
    """Tokens run over tokens without sharing: without and with padding."""
    # Not the model's own way, which refuses what is longer than it reads.
    asked = [t.ids for t in tokenize(model.tokenizer, list(prompts), spans=frozenset())]
    budget = TOKEN_BUDGET["cpu"]
    shared = plan(asked, budget)
    run = sum(
        group.prefix + sum(len(asked[m]) - group.prefix for m in group.members)
        for batch in shared
        for group in batch.groups
    )
    padded = sum(batch.padded_tokens for batch in plan(asked, budget, share=False))
    return run / sum(map(len, asked)), sum(batch.padded_tokens for batch in shared) / padded


def of_words(model: HookedModel, pair: tuple[str, str], n: int) -> list[Row]:
    """A study of the lens: word translation."""
    words = cldr_words(pair)
    some = translation_prompts(words, *pair).sample(n, seed=0)
    own = translation_prompts(words, *pair, headers="item").select(ids=some.ids)
    job = f"`xlens lens`, {n} words, {pair[0]} → {pair[1]}"
    return [*_rows(model, job, some, "≤ 0.35"), *_rows(model, f"{job}, own demonstrations", own)]


def of_texts(model: HookedModel, data: str, reading: ReadingSet, n: int) -> list[Row]:
    """Questions about texts."""
    asked = reading.sample(min(n, len(reading.ids)), seed=0)
    job = f"`xlens xmrc`, {data}, {len(asked.ids)} questions, en-en"
    some = reading_prompts(asked, pool=reading)
    own = reading_prompts(asked, pool=reading, headers="item")
    target = "≤ 0.5" if n >= 200 else ""
    return [*_rows(model, job, some, target), *_rows(model, f"{job}, own demonstrations", own)]


def _rows(model: HookedModel, job: str, prompts: Prompts, target: str = "") -> list[Row]:
    bare, padded = shares(model, prompts)
    what = "tokens that are run"
    return [
        Row(what, job, ALL, [bare], "share", target),
        Row(what, job, PADDED, [padded], "share"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few items, to try the script")
    parser.add_argument("--data", type=Path, help="folder of XQuAD's files")
    args = parser.parse_args()
    args.threads = 1
    quiet(1)
    model = xlens.load(shipped(quick=args.quick), device="cpu")
    pairs: Sequence[tuple[str, str]] = (("fr", "zh-Hans"), ("de", "ru"))
    rows = [row for pair in pairs for row in of_words(model, pair, 8 if args.quick else 60)]
    sets = {"CLDR's": cldr_reading()} | ({"XQuAD": read_reading(args.data)} if args.data else {})
    for data, reading in sets.items():
        for n in (4,) if args.quick else (32, 200):
            rows += of_texts(model, data, reading, n)
    notes = [f"{model.name}'s tokens; prompts of one condition, without the twin's and controls'."]
    write("tokens", rows, args, notes=notes)


if __name__ == "__main__":
    main()
