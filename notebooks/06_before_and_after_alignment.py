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
# # Before and after alignment
#
# arXiv 2405.13816 trains a model to translate *questions*, without an answer, in a few languages,
# and finds that it answers better, also in languages it was not trained on. Here is the whole way
# on a small scale: questions, rows, training, the same items before and after, and a look inside.
#
# ## What is learned
#
# Questions about countries, made from CLDR: a row is a question, the wish to have it translated,
# and the translation. Loss falls on the translation alone.

# %%
# Where xlens is missing, as on Colab, its release is installed first.
import importlib.util

if importlib.util.find_spec("xlens") is None:
    get_ipython().run_line_magic("pip", "install --quiet xlens-interp[notebook]")

# %%
import os
import tempfile
from pathlib import Path

import xlens
from xlens import figures
from xlens.gain import gain
from xlens.models.loading import adapted
from xlens.subspace import twin_states
from xlens.tasks.alignment import questions_of, translation_pairs
from xlens.tasks.choices import answer_choices, choice_prompts, cldr_choices
from xlens.tasks.facts import cldr_facts
from xlens.training import Recipe, train

few = int(os.environ.get("XLENS_NOTEBOOK_ITEMS", "40"))
model = xlens.load(os.environ.get("XLENS_NOTEBOOK_MODEL", "atlas"))

items = cldr_choices(["en", "de", "es", "ru"], ["territory-language"]).sample(max(8, few))
questions = questions_of(cldr_facts(["en", "de"])).apart_from(questions_of(items))
pairs = translation_pairs(questions, ["de"], "en", n=max(8, few))
print(pairs.prompts[0] + pairs.completions[0])

# %% [markdown]
# No item that is asked is among the questions: `apart_from` leaves out what has the same text in
# any language. How long are the rows, and do some teach nothing because both sides are one string?

# %%
pairs.lengths(model.tokenizer)

# %% [markdown]
# ## Training, and its control
#
# A LoRA on the query and value projections, on a copy of the model's modules that shares its
# weights. The control has the same texts and the same compute, but no question has its own
# translation.

# %%
folder = Path(tempfile.mkdtemp())
recipe = Recipe(epochs=1, batch=8, accumulate=1, learning_rate=1e-3)
trained = {
    name: train(model, rows.prompts, rows.completions, folder / name, recipe=recipe, progress=False)
    for name, rows in (("aligned", pairs), ("shuffled", pairs.shuffled()))
}
figures.training_loss(trained)

# %% [markdown]
# ## Before and after
#
# The same items in four languages, two of which training never saw. A difference comes with an
# interval, and with p adjusted for all languages; within the shaded band it counts as none, if its
# whole interval is there.

# %%
before = answer_choices(model, items, progress=False)
twins = {name: adapted(model, done.adapter) for name, done in trained.items()}
after = {name: [answer_choices(twin, items, progress=False).table] for name, twin in twins.items()}
found = gain(before.table, after, trained=["de", "en"], bound=0.05, controls=["shuffled"])
figures.gain_bars(found)

# %%
found.of("aligned", "shuffled")[["language", "difference", "low", "high", "p", "verdict"]].round(3)

# %% [markdown]
# A change that the control shows too is not one of learning to translate. With a small model, few
# pairs and few items *undecided* is the usual answer; `xlens align` runs the same with several
# seeds.
#
# ## Inside
#
# How alike are the two models' states of the same prompts? CKA is 1 where only the axes turned. And
# where did the languages go, on the base's own axes?

# %%
prompts = [p for tag in items.languages for p in choice_prompts(items, tag)[0]]
states = [
    xlens.harvest(each, prompts, layers=list(range(1, model.n_layers + 1)), progress=False)
    for each in (model, twins["aligned"])
]
inside = twin_states(*states, pooling="last")
figures.twin_similarity(inside)

# %%
figures.twin_maps(inside)
