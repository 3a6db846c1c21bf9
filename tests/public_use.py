# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportMissingTypeStubs=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The public API, rightly and wrongly used: read by pyright (`make lint`), never run.

What is marked as an error is one: pyright reports a mark that it doesn't need.
"""

from typing import assert_type

import numpy as np

import xlens
from xlens.lens import LensResult, LensTokens, TargetSets, TraceResult
from xlens.tasks.words import WordList, WordPrompts


def rightly() -> None:
    model = assert_type(xlens.load("atlas", dtype="bfloat16"), xlens.HookedModel)
    words = assert_type(xlens.cldr_words(["de", "en"]), WordList)
    prompts = assert_type(xlens.translation_prompts(words, "de", "en"), WordPrompts)
    acts = assert_type(xlens.harvest(model, ["Wo liegt Rom?", prompts[0]]), xlens.Activations)
    assert_type(xlens.harvest(model, "Wo liegt Rom?", layers=[0, 3]), xlens.Activations)
    told = xlens.answers(words, prompts, ["de", "en"])
    targets = assert_type(xlens.target_sets(model, told, languages=["en"]), TargetSets)
    assert_type(xlens.logit_lens(acts, model), LensTokens)
    assert_type(xlens.logit_lens(acts, model, targets), LensResult)
    assert_type(xlens.trace(model, "Wo liegt Rom?"), TraceResult)
    assert_type(xlens.trace(model, ["Wo", "liegt"]), tuple[TraceResult, ...])
    assert_type(acts.to_numpy(), np.ndarray)
    xlens.score(model, "Rom liegt in", [" Italien"]).plot()
    xlens.generate(model, prompts, max_new_tokens=3).to_frame()
    xlens.figures.write_figure(xlens.trace(model, "Rom").plot(), "out", "rom")


def wrongly(model: xlens.HookedModel, acts: xlens.Activations) -> None:
    xlens.harvst(model, "a")  # pyright: ignore[reportAttributeAccessIssue]
    print(xlens.np)  # pyright: ignore[reportAttributeAccessIssue]
    xlens.harvest(model, 5)  # pyright: ignore[reportArgumentType]
    xlens.harvest(model, "a", layer=3)  # pyright: ignore[reportCallIssue]
    xlens.harvest("atlas", "a")  # pyright: ignore[reportArgumentType]
    xlens.score(model, "a")  # pyright: ignore[reportCallIssue]
    print(xlens.trace(model, "a").cels)  # pyright: ignore[reportAttributeAccessIssue]
    print(xlens.logit_lens(acts, model).rows)  # pyright: ignore[reportAttributeAccessIssue]
    print(xlens.Scores)  # pyright: ignore[reportAttributeAccessIssue]
    xlens.figures.trace_table("a")  # pyright: ignore[reportArgumentType]
