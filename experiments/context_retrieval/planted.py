"""Does the detector find planted phases, and nothing in random models?

    python experiments/context_retrieval/planted.py --out FOLDER

Writes one row per model to FOLDER/planted.csv and FOLDER/random.csv, goes on where it stopped, and
prints the table. `--every N` runs the causal evidence, which needs a pass per layer, for every Nth
model deeper than 12 blocks; the other evidence is there for all.
"""

import argparse
import csv
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import xlens
from xlens import phases
from xlens.models import HookedModel
from xlens.testbed import planted

CHEAP = [kind for kind in phases.KINDS if not kind.startswith(("patch", "ablate"))]
SIZES = {"languages": 2, "n_items": 8, "n_facts": 3, "n_keys": 12, "n_values": 12}


def contrasts(bed: Any) -> dict[str, phases.Asked]:
    """The prompts, and their donors, with right and wrong answers."""

    def asked(questions: Any, wrong: Any) -> phases.Asked:
        right, other = ([f" {word}" for word in x.right] for x in (questions, wrong))
        return phases.Asked(questions.prompts, tuple(right), tuple(other))

    question = bed.donors["question"]
    return {
        "asked": asked(bed, question),
        "question": asked(question, bed),
        "context": asked(bed.donors["context"], bed),
    }


def examine(model: HookedModel, bed: Any, kinds: list[str] | None) -> dict[str, Any]:
    """What the detector says about one model."""
    given = contrasts(bed)
    curves = phases.evidence(
        model,
        given["asked"],
        question=given["question"],
        context=given["context"],
        kinds=kinds,
        progress=False,
        share_prefixes=False,
    )
    result = phases.detect_phases(curves)
    row = result.row()
    names = ("found", "question", "answer", "p_question", "p_answer", "p_order")
    out = {name: row[name] for name in names}
    pooled = result.edges[result.edges["language"] == "all"].set_index("kind")
    for kind in phases.KINDS:
        for column in ("value", "found"):
            out[f"{kind}.{column}"] = pooled[column].get(kind, np.nan)
    return out


def accuracy(model: HookedModel, bed: Any) -> float:
    top = model.n_layers
    kept = xlens.harvest(model, bed.prompts, layers=top, progress=False)
    said = model.readout.logits(kept.get("last", layer=top)).argmax(-1)
    words = [model.vocab.text(int(token)) for token in said]
    return float(np.mean([a == b for a, b in zip(words, bed.right, strict=True)]))


def planted_models(args: argparse.Namespace) -> Iterator[tuple[dict[str, Any], list[str] | None]]:
    for noise, leak in ((float(n), float(leak)) for n in args.noise for leak in args.leak):
        for depth in args.depths:
            for n, (p, r) in enumerate(combinations(range(1, depth + 1), 2)):
                every = None if depth <= 12 or n % args.every == 0 else CHEAP
                key = {"depth": depth, "p": p, "r": r, "noise": noise, "leak": leak}
                yield key, every


def random_model(kind: str, depth: int, seed: int) -> tuple[HookedModel, Any]:
    """A random model with prompts: `usual` initialisation, or `loud`, ten times as large, tied."""
    bed = planted.two_phase(
        depth=depth, question_layer=1, answer_layer=2, seed=seed, sharpness=0.1, **SIZES
    )
    if kind == "usual":
        return bed.model.random_twin(seed), bed
    config = bed.model.hf_model.config.__class__(
        **(
            bed.model.hf_model.config.to_dict()
            | {"initializer_range": 0.2, "tie_word_embeddings": True}
        )
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = type(bed.model.hf_model)(config).eval()
    return xlens.load(made, bed.model.tokenizer), bed


def run(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    table = Table(args.out / "planted.csv", ["depth", "p", "r", "noise", "leak"])
    for n, (key, kinds) in enumerate(planted_models(args)):
        if not table.has(key):
            bed = planted.two_phase(
                depth=key["depth"],
                question_layer=key["p"],
                answer_layer=key["r"],
                noise=key["noise"],
                leak=key["leak"],
                sharpness=0.1,
                seed=n,
                **SIZES,
            )
            right = accuracy(bed.model, bed)
            table.add(key | {"accuracy": right} | examine(bed.model, bed, kinds))
    chance = Table(args.out / "random.csv", ["kind", "depth", "seed"])
    for kind in ("usual", "loud"):
        for seed in range(args.random):
            key = {"kind": kind, "depth": (4, 8)[seed % 2], "seed": seed}
            if not chance.has(key):
                model, bed = random_model(kind, key["depth"], seed)
                chance.add(key | examine(model, bed, None))


class Table:
    """A CSV file that grows by a row at a time."""

    def __init__(self, path: Path, keys: list[str]) -> None:
        self.path, self.keys = path, keys
        there = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=keys)
        self.done = {tuple(map(str, row)) for row in there[keys].itertuples(index=False)}

    def has(self, key: dict[str, Any]) -> bool:
        return tuple(str(key[k]) for k in self.keys) in self.done

    def add(self, row: dict[str, Any]) -> None:
        new = not self.path.is_file()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


def report(folder: Path) -> None:
    found = pd.read_csv(folder / "planted.csv")
    kinds = [kind for kind in phases.KINDS if phases.KINDS[kind].edge != "encoding"]
    for (noise, leak), part in found.groupby(["noise", "leak"]):
        question, answer = (part["question"] - part["p"]).abs(), (part["answer"] - part["r"]).abs()
        both = pd.concat([question, answer], axis=1)
        print(
            f"\nnoise {noise}, leak {leak}: {len(part)} models of depth {part['depth'].min()} to "
            f"{part['depth'].max()}, answers right {part['accuracy'].mean():.3f}; structure found "
            f"{part['found'].mean():.4f}; both boundaries exact "
            f"{(both == 0).all(axis=1).mean():.4f}, within one layer "
            f"{(both <= 1).all(axis=1).mean():.4f}"
        )
        rows: list[dict[str, Any]] = []
        for kind in kinds:
            truth = part["p"] if phases.KINDS[kind].edge == "question" else part["r"]
            said = part[f"{kind}.value"]
            there = said.notna()
            if there.any():
                off = (said - truth)[there].abs()
                rows.append(
                    {
                        "kind": kind,
                        "models": int(there.sum()),
                        "step found": part.loc[there, f"{kind}.found"].astype(float).mean(),
                        "exact": (off == 0).mean(),
                        "within one": (off <= 1).mean(),
                    }
                )
        print(pd.DataFrame(rows).round(4).to_string(index=False))
    if (folder / "random.csv").is_file():
        chance = pd.read_csv(folder / "random.csv")
        print("\nrandom models: share in which a structure, or a step, is found")
        for name, part in chance.groupby("kind"):
            flags = {k: part[f"{k}.found"].astype(float).mean() for k in phases.KINDS}
            print(f"{name}: {len(part)} models, structure {part['found'].mean():.4f}")
            for edge in ("question", "answer"):
                print(f"  any evidence at the {edge}: {(part[f'p_{edge}'] < 0.05).mean():.4f}")
            print("  " + ", ".join(f"{k} {v:.3f}" for k, v in flags.items() if v == v))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--depths", type=int, nargs="+", default=[4, 6, 8, 12, 16, 20, 24])
    parser.add_argument("--noise", nargs="+", default=["0", "0.2", "0.3"])
    parser.add_argument("--leak", nargs="+", default=["0"])
    parser.add_argument("--every", type=int, default=12)
    parser.add_argument("--random", type=int, default=100, help="random models of each kind")
    parser.add_argument("--report", action="store_true", help="only print what is there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.report:
        run(args)
    report(args.out)


if __name__ == "__main__":
    main()
