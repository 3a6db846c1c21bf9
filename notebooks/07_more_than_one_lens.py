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
# # More than one lens
#
# "In which language does it think?" is answered by what can be read in the middle, and a lens
# decides what can be read. Here are three on the same prompts, the text that they were fitted on as
# a variable, and a test of whether what they read does any work.
#
# ## Two lenses to fit
#
# The Jacobian lens carries a state by what the layers above do to it on average; the tuned lens by
# what lowers the distance from the output. Both need texts; these are sentences about facts.

# %%
# Where xlens is missing, as on Colab, its release is installed first.
import importlib.util

if importlib.util.find_spec("xlens") is None:
    get_ipython().run_line_magic("pip", "install --quiet xlens-interp[notebook]")

# %%
import os

import numpy as np

import xlens
from xlens import figures
from xlens.lens import (
    LOGIT,
    causal_summary,
    causal_test,
    causal_verdicts,
    find_lens,
    fit_jacobian_lens,
    fit_tuned_lens,
    logit_lens,
    pooled,
    target_sets,
)
from xlens.tasks.facts import cldr_facts
from xlens.tasks.running_text import fact_texts, passages
from xlens.tasks.words import answers, translation_prompts
from xlens.testbed import planted

few = int(os.environ.get("XLENS_NOTEBOOK_ITEMS", "24"))
model = xlens.load(os.environ.get("XLENS_NOTEBOOK_MODEL", "atlas"))

texts = fact_texts(cldr_facts(["en", "de"], ["capital"]), seed=0)
cut = passages(texts, model.tokenizer, tokens=40, most=8, seed=0)
fitted = [text for mine in cut.values() for text in mine]
{tag: len(mine) for tag, mine in cut.items()}

# %% [markdown]
# Each language has a Jacobian lens of its own; `pooled` joins them. With `rotation=8` a text gives
# an eighth of the rows, so that eight texts cost what one would.

# %%
by_language = fit_jacobian_lens(model, fitted, rotation=8, max_tokens=40, progress=False)
jacobian = pooled(list(by_language.values()))
tuned = fit_tuned_lens(model, fitted, max_tokens=40, steps=40, progress=False)
lenses = {"logit": find_lens("logit", model), "jacobian": jacobian, "tuned": tuned}
print(jacobian)

# %% [markdown]
# How far are they from doing nothing, and does the language of the text matter?

# %%
apart = np.linalg.norm(by_language["en"].matrices - by_language["de"].matrices, axis=(1, 2))
jacobian.to_frame().assign(english_from_german=apart / np.sqrt(jacobian.d_model)).round(3)

# %% [markdown]
# ## The same words under each
#
# Word translation from German to Russian, read at the last position for the English, the Russian
# and the German word. A tuned lens knows the answer early and hides what only passes through: it is
# the wrong lens for a language on the way. Where lenses disagree, that is the finding.

# %%
words = xlens.cldr_words(["de", "ru", "en"])
prompts = translation_prompts(words, "de", "ru", shots=2)
asked = answers(words, prompts, ["ru", "en", "de"])
targets = target_sets(model, asked, languages=["ru", "en"], extra=["de"])
prompts = prompts.select(ids=[id for id in prompts.ids if id in targets.ids][: max(8, few)])
states = xlens.harvest(model, prompts, progress=False)
read = {
    name: logit_lens(states, model, targets, lens=lens, progress=False)
    for name, lens in lenses.items()
}
summaries = {name: result.summary() for name, result in read.items()}
figures.pairs_overview(summaries, columns=3)

# %%
{name: found.landmark("pivot_peak_prob") for name, found in summaries.items()}

# %% [markdown]
# ## Reading is not using
#
# In a planted model it is known what does the work. Here the target's word is looked up by the
# pivot's own word: exchanging what English has besides the concept moves the answer, and exchanging
# another language's part does not.


# %%
def tested(bed):
    truth = bed.truth
    rest = [t for t in truth.lexicon.languages if t not in (truth.pivot, truth.target)]
    sets = target_sets(
        bed.model, bed.answers, languages=[truth.target, truth.pivot], extra=rest, match="first"
    )
    shown = bed.prompts.select(languages=rest[:1])
    return causal_summary(
        causal_test(
            bed.model, shown, sets, lens=LOGIT, layers=[2, 4, 6], n_donors=2, progress=False
        )
    )


bound = tested(planted.bound_pivot(noise=0.1, leak=0.1))
figures.causal_curves(bound)

# %% [markdown]
# In the second model the same English word can be read at the same layers, and nothing reads it.

# %%
idle = tested(planted.bound_pivot(used=False, noise=0.1, leak=0.1))
judged = causal_verdicts({"bound": bound, "idle": idle}).table
judged[["name", "where", "verdict", "layers", "p_readable", "p_concept", "p_pivot"]].round(3)

# %% [markdown]
# On a real model: `xlens lens MODEL --from de --to ru --causal --lens jacobian=RUN`, where `RUN` is
# a run of `xlens fit-lens`. `docs/lens.md` says what each verdict means, and what the test can't
# see.
