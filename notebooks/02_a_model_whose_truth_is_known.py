# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A model whose truth is known
#
# An interpretability tool that finds something in a model may have found a mistake of its own: no
# model from a hub tells you the right answer. So here are models that do. In the first part their
# weights are **written by hand**, and we decide what happens where. In the second part a small
# model is **trained** on facts that were counted one by one.
#
# ## Part one: planted by hand
#
# `two_phase` writes a Llama that reads facts and a question. At layer 3 the question moves to the
# last position; at layer 6 the answer is fetched from the context. Everything in between does
# nothing but add a little noise. The words are invented: `bako(de)` is the German word for `bako`.

# %%
# Where xlens is missing, as on Colab, its release is installed first.
import importlib.util

if importlib.util.find_spec("xlens") is None:
    get_ipython().run_line_magic("pip", "install --quiet xlens-interp[notebook]")

# %%
import pandas as pd

import xlens
from xlens import figures
from xlens.engine.interventions import patch
from xlens.testbed import atlas, planted

bed = planted.two_phase(
    depth=8, question_layer=3, answer_layer=6, languages=["en", "de"], n_items=8, noise=0.1
)
print(bed.model)
print(bed.prompts[1].text, "->", bed.right[1])

# %% [markdown]
# The facts are English, the question is German, and the model answers all of them:


# %%
def answers(interventions=()):
    """What the model says after each prompt."""
    top = bed.model.n_layers
    kept = xlens.harvest(
        bed.model, bed.prompts, layers=top, interventions=interventions, progress=False
    )
    best = bed.model.readout.logits(kept.get("last", layer=top)).argmax(-1)
    return [bed.model.vocab.text(int(token)) for token in best]


sum(said == right for said, right in zip(answers(), bed.right, strict=True)) / len(bed.right)

# %% [markdown]
# ## Where does the question go?
#
# Take the same contexts with **another question**. Put the states of that question in the place of
# ours, at one layer, and see whether the answer becomes the other question's. If it does, the
# question's own tokens still matter there. Then do the same with the last position, and once more
# with **another context**.


# %%
def swapped(donor, slot):
    """By layer, the share of answers that become the donor's."""
    other = bed.donors[donor]
    states = xlens.harvest(bed.model, other.prompts, slots=slot, progress=False)
    shares = []
    for layer in states.layers:
        said = answers(patch(states, layers=layer, slot=slot))
        hits = [a == b for a, b in zip(said, other.right, strict=True)]
        shares.append(sum(hits) / len(hits))
    return shares


curves = pd.DataFrame(
    {
        "the question's tokens": swapped("question", "question:each"),
        "last position, other question": swapped("question", "last"),
        "the context's tokens": swapped("context", "context:each"),
        "last position, other context": swapped("context", "last"),
    }
).rename_axis("layer")
curves.round(2)

# %% [markdown]
# Each column is a step, and the steps are where we put them: up to layer 2 the question lives in
# its own tokens, from 3 on in the last position; up to layer 5 the answer lives in the context,
# from 6 on in the last position. A method that is to find these two phases in a real model should
# first find them here.
#
# ## By way of a pivot
#
# The second model translates. It is shown a French word and asked for the German one, and on the
# way it holds the English one: from layer 3 to layer 5, because we say so. Does the logit lens see
# that?

# %%
bed = planted.latent_pivot(
    depth=8,
    pivot_layer=3,
    target_layer=6,
    languages=["en", "de", "fr"],
    pivot="en",
    target="de",
    noise=0.1,
)
prompts = bed.prompts.select(languages=["fr"])
print(prompts[0].text, "->", bed.right[0])

# %%
targets = xlens.target_sets(bed.model, bed.answers, languages=["de", "en"], extra=["fr"])
activations = xlens.harvest(bed.model, prompts, progress=False)
summary = xlens.logit_lens(activations, bed.model, targets, progress=False).summary()
figures.language_curves(summary)

# %% [markdown]
# It does, to the layer. Compare the picture with that of a real model in the first notebook: there
# the curves are low, slow and late. What the lens can see it sees; what a real model does not write
# in words, it cannot.

# %%
summary.landmarks.round(2)

# %% [markdown]
# ## When the lens is not enough
#
# A model can hold something without using it. `leak` adds random attention to every layer, so that
# a trace of everything is everywhere: a probe could read the question off the last position from
# layer 1 on. Used it is from layer 3 on, as before. Patching sees the difference.

# %%
bed = planted.two_phase(
    depth=8, question_layer=3, answer_layer=6, languages=["en", "de"], n_items=8, leak=0.2
)
here = xlens.harvest(bed.model, bed.prompts, progress=False).get("last")
there = xlens.harvest(bed.model, bed.donors["question"].prompts, progress=False).get("last")
pd.DataFrame(
    {
        "distance between two questions' states": (here - there).norm(dim=-1).mean(dim=0).numpy(),
        "answers that follow the state": swapped("question", "last"),
    }
).rename_axis("layer").round(3)

# %% [markdown]
# ## Activations and facts made to order
#
# For methods that start from activations, `planted_activations` makes them: a shared part, an
# offset per language, a part of each language's own. Here the languages come together in the
# middle. For methods that start from tables of answers, `fact_world` makes those. More in
# `docs/planted.md`.

# %%
made = planted.planted_activations(languages=["en", "ru"], offset=(3.0, 0.5, 3.0), noise=0.1)
english, russian = made.activations.pair("en", "ru")
apart = (russian.get("last").mean(0) - english.get("last").mean(0)).norm(dim=-1)
[round(float(distance), 2) for distance in apart]

# %%
world = planted.fact_world(languages=["en", "de", "sw"], threshold=20, transfer=0.2)
world.answers.groupby("language")["correct"].mean().round(2)

# %% [markdown]
# ## Part two: trained on counted facts
#
# A model written by hand is as simple as the idea it was written for. `atlas` is a real one: a
# small decoder, trained from scratch on facts and words of which every occurrence was counted. What
# it knows it learned, and we know from how many sentences, in which language.

# %%
world, manifest = atlas.shipped_manifest()
model = xlens.load("atlas", device="cpu")
print(model)
manifest.facts.head()

# %% [markdown]
# Ask it about every fact in every language, and hold each answer against the number of documents
# that state the fact in that language.

# %%
facts = atlas.ask_facts(model, manifest)
facts[facts["set"] == "core"].groupby(pd.cut(facts["count"], [-1, 0, 1, 3, 7, 49, 1000]))[
    "correct"
].agg(["size", "mean"]).round(3)

# %% [markdown]
# That is the dose-response curve; with intervals, and beside it the facts that are stated nowhere
# in the language asked:

# %%
report = atlas.shipped_report()
figures.dose_response(report)

# %% [markdown]
# ## What it knows without having read it
#
# Some facts stand in English and in four other languages, and never in the remaining three. Asked
# in one of those, does the model know them? Copying the English string can't explain the rows
# called `differ`: there the answer is another string in every language that has the fact. The
# control are facts that are stated nowhere at all.

# %%
columns = ["language", "facts", "n", "share", "low", "high", "control", "copy", "majority"]
report.transfer[columns].round(2)

# %% [markdown]
# It does: knowledge crosses from language to language. Chance is not zero, though. The control set
# lies above what answers dealt at random would give: the text has regularities that allow a guess
# (neighbours share a continent, sometimes a language). So it is the control, and not zero, that the
# transfer set must be compared with.
#
# ## When it learned it
#
# The same questions at checkpoints on the way, each one `xlens.load("atlas", revision=...)`:

# %%
series = report.series
order = list(dict.fromkeys(series["revision"]))
series.pivot(index="revision", columns="what", values="share").reindex(order).round(2)

# %% [markdown]
# A fact-tracing method that is worth its name must find this curve, this threshold and these
# transferred facts, from the model's answers and the counts alone.
