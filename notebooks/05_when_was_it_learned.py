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
# # When was it learned?
#
# A model knows in Hindi that Japan's currency is the yen. Did it read that in Hindi, or in English?
# And when? arXiv 2505.14824 asks that of the checkpoints of a real model, and counts facts in its
# text. Here we ask it of the **atlas**, a small model from our testbed: every document that it read
# is known, some facts were kept from some languages on purpose, and others from all. So whatever
# the analysis says can be held against what is true.

# %%
# Where xlens is missing, as on Colab, its release is installed first.
import importlib.util

if importlib.util.find_spec("xlens") is None:
    get_ipython().run_line_magic("pip", "install --quiet xlens-interp[notebook]")

# %%
import os

import xlens
from xlens import figures
from xlens.studies import FactsStudy, Loading
from xlens.testbed import atlas

few = int(os.environ.get("XLENS_NOTEBOOK_ITEMS", "240"))
n_facts = max(few, 40)  # groups need some facts each

world, manifest = atlas.shipped_manifest()
manifest.facts.groupby(["set", "hidden"])["count"].agg(["size", "median"])

# %% [markdown]
# `core` facts stand in every language, more or less often. `transfer` facts stand often in English
# and in four other languages, and are `hidden` from three. `control` facts stand nowhere; `anchor`
# facts are codes, which are the same string everywhere. Each is asked in eight languages, in a
# wording of the text, without demonstrations, of four checkpoints:

# %%
study = FactsStudy(facts="atlas", n_items=n_facts, n_candidates=0, draws=300)
found = xlens.run(study, "atlas", loading=Loading(revision=("all",)), progress=False)
grown = found.across["curves"]
list(found.models)

# %%
figures.fact_curves(grown)

# %% [markdown]
# The dotted lines are what one gets by handing the model's answers about other facts around: no
# knowledge of the fact is needed for that much. English comes first, as it is written most.
#
# ## The same facts?
#
# Recall alone makes two languages share facts. **CO**, Jaccard's index with English, is therefore
# drawn with right and wrong answers permuted within relations (dotted):

# %%
figures.fact_curves(grown, "co")

# %% [markdown]
# ## Read often, known early
#
# How often the text states a fact, in the language that is asked, at the first checkpoint and at
# the last:

# %%
first, *_, last = found.models.values()
figures.frequency_curves(first["frequency"])

# %%
figures.frequency_curves(last["frequency"])

# %% [markdown]
# At first frequency decides nearly alone. At the end facts are right that a language's own text
# states hardly ever, or never: the points over *never*. Where do they come from?
#
# ## Carried over
#
# In a real model nobody could tell. Here one can: `hidden` facts are stated nowhere in the language
# that is asked, but in English; `control` facts are stated nowhere at all.

# %%
figures.fact_groups(grown)

# %% [markdown]
# What `hidden` has over `control` came from other languages. It comes late: first what is read
# often, then what is carried over.
#
# ## What can be said without knowing the truth
#
# A logistic model of every answer: does it help that the fact is frequent? That it is right in
# English? That its state is like that of the same fact in English? Each with the others held, and
# with intervals that take a fact asked in several languages for one:

# %%
columns = ["slot", "language", "term", "coefficient", "low", "high", "p", "n", "facts"]
paths = last["transfer"].paths
paths[paths["language"] == "all"][columns].round(3)

# %%
paths = first["transfer"].paths
paths[paths["language"] == "all"][columns].round(3)

# %% [markdown]
# Both tables say that it helps to be right in English. The first checkpoint is the warning: there
# the hidden facts are hardly above the control, so little was carried over, and yet the term is
# there. Facts that are **easy** (a territory of Europe is on the continent Europe) are right in
# every language with nothing carried over, and no model of answers tells the two apart. What does
# is an experiment: facts kept from a language, or a model trained anew without their English side
# (`python -m xlens.testbed.atlas counterfactual`).
#
# ## States
#
# How like is a fact's state to that of the same fact in English, beyond how like it is to other
# facts of the relation? By layer, at the last checkpoint, and over training:

# %%
figures.likeness_by_layer(last["transfer"], "sets")

# %%
figures.likeness_over_training(found.across["transfer"], "sets", layer=3)

# %% [markdown]
# Languages come together early in training, for all facts alike: for those that can be carried
# over, and just as much for those that can't. In this model similar states are where knowledge
# *could* cross. They don't say that it did.
