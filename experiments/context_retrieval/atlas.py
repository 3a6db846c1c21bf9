"""The trained testbed, base and post-trained: does answer retrieval form in post-training?

`python experiments/context_retrieval/atlas.py --out runs/context_retrieval_atlas`
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

import xlens
from xlens import figures, phases
from xlens.testbed import atlas

CAUSAL = ("patch_last_question", "patch_last_context", "ablate_question", "ablate_context")
LANGUAGES = ("en", "de", "fr", "es", "ru", "zh-Hans")


def looked_into(
    name: str, prompts: Any, answers: list[str], asked: dict[str, Any]
) -> dict[str, Any]:
    """One model: what it answers, and what is inside."""
    model = xlens.load(name)
    said = xlens.generate(model, prompts, max_new_tokens=12, stop=[".", "。"]).table["text"]
    own = asked["own"]
    donors = {"question": asked["question"], "context": asked["context"]}
    curves = phases.evidence(model, own, **donors)
    blank = phases.evidence(model.random_twin(0), own, **donors, kinds=list(CAUSAL))
    tokens = phases.answer_tokens(model, own)[:, 0]
    kept = [i for i, token in enumerate(tokens) if token >= 0]
    scores = xlens.relevance(
        model,
        own.take(kept).prompts,
        targets=[int(tokens[i]) for i in kept],
        rule="attnlrp",
        slots=["question:sum", "context:sum", "last"],
    )
    embedding = phases.DepthOptions(embedding=True)
    return {
        "model": model,
        "right": sum(a.strip() == b for a, b in zip(said, answers, strict=True)) / len(answers),
        "curves": curves,
        "phases": phases.detect_phases(curves),
        "blank": phases.detect_phases(blank),
        "depth": phases.relevance_depth(scores),
        "depth-embedding": phases.relevance_depth(scores, options=embedding),
        "lens-gap": phases.lens_gap(curves),
        "recovered": phases.recovered(model, own),
        "late": phases.late_share(scores),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/context_retrieval_atlas"))
    parser.add_argument("--contexts", type=int, default=40, help="two questions about each")
    args = parser.parse_args()
    world, manifest = atlas.shipped_manifest()
    prompts, answers = atlas.paired_readings(world, manifest, n=args.contexts, languages=LANGUAGES)
    own, partners = phases.same_context(prompts, answers, by="paragraph")
    asked = {"own": own, "question": partners, "context": phases.other_context(own)}
    found = {name: looked_into(name, prompts, answers, asked) for name in ("atlas", "atlas-post")}
    base, post = found.values()
    both = phases.compare_curves(base["curves"], post["curves"])
    effects = {
        key: phases.compare_effects(base[key], post[key])
        for key in ("lens-gap", "recovered", "late")
    }
    swap = phases.layer_swap(base["model"], post["model"], own)

    drawn: dict[str, figures.Figure] = {"base-and-post": figures.paired_curves(both)}
    for name, one in found.items():
        drawn[f"{name}-curves"] = figures.phase_curves(one["curves"].summary(), one["phases"])
        drawn[f"{name}-boundaries"] = figures.phase_boundaries(one["phases"])
        drawn[f"{name}-depth"] = figures.segment_relevance(one["depth-embedding"])
        for key in (
            "curves",
            "phases",
            "depth",
            "depth-embedding",
            "lens-gap",
            "recovered",
            "late",
        ):
            one[key].save(args.out / "results" / name / key)
    for key, one in effects.items():
        drawn[f"base-and-post-{key}"] = figures.paired_effects(one)
    swap.save(args.out / "results" / "swap")
    figures.write_figures(drawn, args.out / "figures")

    for name, one in found.items():
        print(f"\n{name}: {one['right']:.0%} right")
        for tag in one["phases"].phases["language"]:
            print(f"  {tag}: {one['phases'].verdict(tag)}")
        print(f"  random weights: {one['blank'].verdict()}")
        for key in ("depth", "depth-embedding"):
            shown = one[key].summary().query("language == 'all'")
            print(shown.round(2).to_string(index=False))
            print(phases.depth_gap(one[key]).head(1).round(2).to_string(index=False))
    for key in ("depth", "depth-embedding"):
        deeper = phases.compare_depth(base[key], post[key]).to_frame()
        print(f"\n{key}, base and post\n{_pooled(deeper).round(3).to_string(index=False)}")
    for key, one in effects.items():
        print(f"\n{key}, base and post\n{one.to_frame().round(2).to_string(index=False)}")
    print(f"\nlast blocks of the post-trained\n{swap.to_frame().round(2).to_string(index=False)}")


def _pooled(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(table[table["language"] == "all"])


if __name__ == "__main__":
    main()
