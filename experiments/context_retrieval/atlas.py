"""The trained testbed, base and post-trained: does answer retrieval form in post-training?

`python experiments/context_retrieval/atlas.py --out runs/context_retrieval_atlas`
"""

import argparse
from pathlib import Path

import pandas as pd

import xlens
from xlens import figures, phases
from xlens.testbed import atlas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/context_retrieval_atlas"))
    parser.add_argument("--contexts", type=int, default=40, help="two questions about each")
    args = parser.parse_args()
    world, manifest = atlas.shipped_manifest()
    languages = ["en", "de", "fr", "es", "ru", "zh-Hans"]
    prompts, answers = atlas.paired_readings(world, manifest, n=args.contexts, languages=languages)
    own, partners = phases.same_context(prompts, answers, by="paragraph")
    others = phases.other_context(own, by="paragraph")
    curves: dict[str, phases.Curves] = {}
    depths: dict[str, phases.DepthResult] = {}
    drawn: dict[str, figures.Figure] = {}
    rows: list[dict[str, object]] = []
    for name in ("atlas", "atlas-post"):
        model = xlens.load(name)
        said = xlens.generate(model, prompts, max_new_tokens=12, stop=[".", "。"]).table["text"]
        right = [a.strip() == b for a, b in zip(said, answers, strict=True)]
        curves[name] = phases.evidence(model, own, question=partners, context=others)
        found = phases.detect_phases(curves[name])
        twin = model.random_twin(0)
        blank = phases.detect_phases(
            phases.evidence(twin, own, question=partners, context=others, kinds=list(_CAUSAL))
        )
        tokens = phases.answer_tokens(model, own)[:, 0]
        kept = [i for i, token in enumerate(tokens) if token >= 0]
        scores = xlens.relevance(
            model,
            own.take(kept).prompts,
            targets=[int(tokens[i]) for i in kept],
            rule="attnlrp",
            slots=["question:sum", "context:sum"],
        )
        depths[name] = phases.relevance_depth(scores)
        rows.append({"model": name, "right": sum(right) / len(right), "verdict": found.verdict()})
        rows.append({"model": f"{name}, random weights", "verdict": blank.verdict()})
        drawn[f"{name}-curves"] = figures.phase_curves(curves[name].summary(), found)
        drawn[f"{name}-depth"] = figures.segment_relevance(depths[name])
        found.save(args.out / "results" / name / "phases")
        curves[name].save(args.out / "results" / name / "curves")
    both = phases.compare_curves(curves["atlas"], curves["atlas-post"])
    deeper = phases.compare_depth(depths["atlas"], depths["atlas-post"])
    drawn["base-and-post"] = figures.paired_curves(both)
    figures.write_figures(drawn, args.out / "figures")
    print(pd.DataFrame(rows).to_string(index=False))
    print(deeper.to_frame().round(3).to_string(index=False))


_CAUSAL = ("patch_last_question", "patch_last_context", "ablate_question", "ablate_context")

if __name__ == "__main__":
    main()
