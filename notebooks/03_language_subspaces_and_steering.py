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
# # Language subspaces and steering
#
# The same question in several languages. Inside the model, is it one question or several? Which
# directions of the residual stream are about the language and not about the question? And if we
# push along them, what happens to the answers?
#
# Everything here has a control beside it: numbers about representations are easily large for no
# good reason.

# %%
# Where xlens is missing, as on Colab, its release is installed first.
import importlib.util

if importlib.util.find_spec("xlens") is None:
    get_ipython().run_line_magic("pip", "install --quiet xlens-interp[gemma,notebook]")

# %%
import os

import pandas as pd

import xlens
from xlens import figures
from xlens.consistency import consistency, dissociation, option_scores
from xlens.engine.interventions import intervene
from xlens.prompts import Prompts
from xlens.steering import SubspaceRemoval, steering_vectors
from xlens.studies import SteeringStudy
from xlens.subspace import (
    LSAR,
    LayerWise,
    language_map,
    language_probe,
    language_similarity,
    missing_relations,
    script_control,
)
from xlens.tasks.choices import choice_prompts, cldr_choices, latent_options, score_choices
from xlens.tasks.sentences import Sentences, with_twins

model = xlens.load(os.environ.get("XLENS_NOTEBOOK_MODEL", "gemma-3-270m"))
few = int(os.environ.get("XLENS_NOTEBOOK_ITEMS", "40"))
n_items = max(few, 12)  # an analysis over items needs some
print(model)

# %% [markdown]
# ## The same questions in five languages
#
# From CLDR: which currency, which language, which country, which month comes next. Four options of
# one kind each, the same in every language, and scored as *text*: never by a letter.

# %%
languages = ["en", "de", "fr", "ru", "sw"]
choices = cldr_choices(languages, seed=0)
asked = choices.sample(n_items, seed=0)
prompts = {tag: choice_prompts(asked, tag, shots=2, pool=choices)[0] for tag in languages}
first = asked.ids[0]
for tag in languages:
    print(f"--- {tag}\n{next(p.text for p in prompts[tag] if p.id == first)}")

# %% [markdown]
# ## Do the answers agree?
#
# Left: Spearman's rho of the order in which two languages put the options. Right: the same with the
# items of the second language permuted. Only what the left has above the right is agreement about
# *this* question.

# %%
scores = score_choices(model, asked, shots=2, pool=choices, progress=False)
panel = consistency(option_scores(scores, asked.gold))
print(panel.languages.round(2).to_string(index=False))
figures.agreement_matrix(panel, "spearman")

# %% [markdown]
# ## How alike are the languages inside?
#
# One state per prompt: the last token's. The embedding is left out, as the last token is the same
# in every prompt.

# %%
states = xlens.harvest(
    model,
    Prompts([p for tag in languages for p in prompts[tag]]),
    layers=range(1, model.n_layers + 1),
    progress=False,
)
similar = language_similarity(states)
figures.pair_curves(similar, ["cka_unbiased", "cosine", "cosine_centred", "mexa"])

# %% [markdown]
# Up to point 12 raw cosine is near one for *mismatched* pairs as well (the grey band): it says
# nothing there. What is left after each language's mean is subtracted, and CKA, say more.
#
# ## Which directions are about the language?
#
# LSAR (Xie et al. 2022) finds the subspace in which the languages' means differ. If it holds what
# there is to know about the language, a classifier should fail once it is taken out, and should
# not mind a random subspace of the same rank going.

# %%
probe = language_probe(states, LSAR())
figures.probe_curves(probe)

# %%
figures.language_map_animation(language_map(states))

# %% [markdown]
# ## Does it think of the English options?
#
# Each layer is read through the lens: how much of the probability lies on the English options, and
# how much on those of the prompt's own language? The control takes the English options of *another*
# question.

# %%
inside = latent_options(model, asked, languages=["de", "ru"], shots=2, pool=choices, progress=False)
figures.latent_share(inside.summary())

# %% [markdown]
# ## Do languages that are alike inside answer alike?
#
# Over pairs of languages: Spearman's rho of similarity with consistency. Ten pairs of five
# languages are few, and pairs that share a language are not independent, so the p values come from
# permuting languages; with five of them, 120 orders.

# %%
together = dissociation(similar.to_frame(), panel)
figures.dissociation_curves(together, ["cka_unbiased", "cosine_centred"])

# %% [markdown]
# ## Pushing towards English
#
# `SteeringStudy` divides the items in three: vectors are estimated on the first part, the layer and
# the strength chosen on the second, and the third, which chose nothing, is what is reported.
# Beside each method: random directions of the same length, and vectors of shuffled languages.

# %%
study = SteeringStudy(
    steer=("mean_difference",),
    layers=tuple(sorted({model.n_layers // 3, model.n_layers // 2, model.n_layers - 2})),
    strengths=(1.0, 4.0),
    n_estimate=max(few, 10),
    n_dev=max(few // 2, 5),
    n_test=max(few // 2, 5),
    n_outputs=few // 4,
    shots=2,
)
steered = xlens.run(study, model, data=choices, progress=False)["items/steering"]
print(steered.chosen.to_string(index=False))
figures.steering_surface(steered)

# %%
figures.steering_effects(steered)

# %% [markdown]
# On the test items the real vector changes accuracy in no language, as far as its interval tells,
# while random directions of the same length do harm in German and Swahili: on this small model,
# with so few items, no help from the mean difference can be told. An honest null is a result; the
# control shows that it isn't for want of strength.
#
# ## Is it language, or is it script?
#
# German and English share their letters, German and Russian don't: what looks like a language may
# be a script. Twelve sentences in three languages, beside twins that a machine made of them: the
# text in Latin letters, and with its words shuffled. Twelve are enough to see how the columns are
# read, not to find anything; `xlens subspace` takes SIB-200, NTREX and others.

# %%
subjects = [
    ("the child", "das Kind", "ребёнок"),
    ("the teacher", "der Lehrer", "учитель"),
    ("the old woman", "die alte Frau", "старая женщина"),
    ("my brother", "mein Bruder", "мой брат"),
]
rests = [
    ("drinks cold water in the garden", "trinkt kaltes Wasser im Garten",
     "пьёт холодную воду в саду"),
    ("reads a long letter by the window", "liest einen langen Brief am Fenster",
     "читает длинное письмо у окна"),
    ("buys fresh bread at the market", "kauft frisches Brot auf dem Markt",
     "покупает свежий хлеб на рынке"),
]  # fmt: skip
written = pd.DataFrame(
    [
        {"id": f"{i}-{j}", "language": tag, "text": f"{who[n]} {what[n]}.", "document": str(i)}
        for i, who in enumerate(subjects)
        for j, what in enumerate(rests)
        for n, tag in enumerate(("en", "de", "ru"))
    ]
)
sentences = Sentences(written, "written for this notebook")
both, without = with_twins(sentences, ["script", "words"])
activations = xlens.harvest(model, both.prompts(), slots="sentence:mean", progress=False)
control = script_control(activations, pooling="sentence:mean")
figures.script_columns(control, ["cka_unbiased", "distance"])

# %% [markdown]
# No language is here in two scripts that somebody published, so which share survives a change of
# script can't be had: `missing_relations(sentences.languages)` says so.
#
# ## What comes out
#
# The first half of each English sentence is continued under a push to German and to Russian. In
# which language is what comes out, and is it about the same thing? Beside it: no push, a random one
# of the same length, what the model says when asked in that language, and what was written there.

# %%
print(*missing_relations(sentences.languages))
push = SteeringStudy(
    steer=("mean_difference",),
    layers=tuple(sorted({model.n_layers // 3, model.n_layers // 2})),
    strengths=(1.0, 2.0),
    n_estimate=5,
    n_dev=3,
    n_test=4,
    n_controls=1,
    max_new_tokens=12,
    sentences="written for this notebook",
)
said = xlens.run(push, model, data=sentences, progress=False)["sentences/outputs"]
print(said.outputs[["target", "condition", "text", "identified"]].head(8).to_string(index=False))
figures.output_scores(said)

# %% [markdown]
# Four sentences: the intervals say how little that is.
#
# ## By hand
#
# Inside `intervene`, whatever the model runs is pushed: its own `generate`, a bare forward.

# %%
towards = steering_vectors(states, "de", "en")
print(towards.to_frame().tail(4).round(2).to_string(index=False))
ids = model.tokenizer(prompts["de"][0].text, return_tensors="pt").input_ids
with intervene(model, towards.interventions(model, strength=2.0, layers=model.n_layers // 2)):
    pushed = model.hf_model.generate(ids, max_new_tokens=8, do_sample=False)
print(repr(model.tokenizer.decode(pushed[0, ids.shape[1] :])))

# %% [markdown]
# Taking a subspace out works the same way, with a strength for each band of layers:

# %%
axes = LayerWise(LSAR()).fit(states)
removal = SubspaceRemoval.of(
    {n: axes[n].components_ for n in states.layers}, fingerprint=model.fingerprint, method="lsar"
)
out = removal.interventions(model, strength=0.2, layers=[4, 5] if model.n_layers > 5 else [1])
print(
    xlens.generate(
        model,
        prompts["de"].select(ids=[first]),
        max_new_tokens=8,
        interventions=out,
        progress=False,
    )
    .to_frame()["text"]
    .item()
)

# %% [markdown]
# The same at full size, with a report: `xlens process gemma-3-270m --languages en de fr ru sw
# --steer mean_difference`, and
# [experiments/latent_process](../experiments/latent_process/README.md).
