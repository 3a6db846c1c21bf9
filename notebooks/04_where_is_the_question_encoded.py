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
# # Where is the question encoded, and where is the answer fetched?
#
# A model reads a context in English and a question in German. arXiv 2504.10906 says that this goes
# in two phases: up to some layer the question is taken in; after it the answer is fetched from the
# context. Here we look for the two boundaries with several kinds of evidence, first in a model
# whose boundaries we planted ourselves, then in one that learned to read.
#
# ## A model whose truth is known
#
# In this transformer, built by hand, the last position learns the question at layer 3 and the
# answer at layer 6. Nothing else happens in it.

# %%
# Where xlens is missing, as on Colab, its release is installed first.
import importlib.util

if importlib.util.find_spec("xlens") is None:
    get_ipython().run_line_magic("pip", "install --quiet xlens-interp[notebook]")

# %%
import os

import xlens
from xlens import figures, phases
from xlens.testbed import atlas, planted

few = int(os.environ.get("XLENS_NOTEBOOK_ITEMS", "16"))
n_contexts = max(8, few)

bed = planted.two_phase(
    depth=8, question_layer=3, answer_layer=6, languages=["en", "de"], n_items=8, sharpness=0.1
)
print(bed.prompts[1].text, "->", bed.right[1])


def asked(questions, wrong):
    right, other = ([f" {word}" for word in x.right] for x in (questions, wrong))
    return phases.Asked(questions.prompts, tuple(right), tuple(other))


other, elsewhere = bed.donors["question"], bed.donors["context"]

# %% [markdown]
# Each kind of evidence is a curve over layers. *Patching the question*: its tokens get the states
# of another question; as long as that changes the answer, the question still lives there.
# *Patching the last position* says the same from the other side: with another question, or with
# the same question over another context. Everything is a difference between the right answer and
# a wrong one from the same context, so that a model that knows nothing gets zero.

# %%
curves = phases.evidence(
    bed.model,
    asked(bed, other),
    question=asked(other, bed),
    context=asked(elsewhere, bed),
    progress=False,
)
found = phases.detect_phases(curves)
print(found.verdict())
figures.phase_curves(curves.summary(), found)

# %% [markdown]
# ## And a model that knows nothing
#
# The same prompts, random weights. A detector that finds phases here finds them everywhere.

# %%
twin = bed.model.random_twin(0)
nothing = phases.evidence(
    twin,
    asked(bed, other),
    question=asked(other, bed),
    context=asked(elsewhere, bed),
    progress=False,
)
print(phases.detect_phases(nothing).verdict())

# %% [markdown]
# ## A model that learned to read
#
# The atlas is a small multilingual model that was trained on counted facts; its twin was trained
# on, with questions in one language about contexts in another. Each context says something false,
# so that recall can't answer. Two questions are asked about each, in four languages.
#
# `same_context` finds another question about the same context, whose state brings the other
# question along. `other_context` puts another context below the same question: that state knows
# what is asked, and has nowhere to find the answer. What the right answer loses by it had been
# fetched.

# %%
world, manifest = atlas.shipped_manifest()
prompts, answers = atlas.paired_readings(
    world, manifest, n=n_contexts, languages=["en", "de", "fr", "ru"]
)
print(prompts[1].text, "->", answers[1])
own, partners = phases.same_context(prompts, answers, by="paragraph")
others = phases.other_context(own, by="paragraph")

read = {}
for name in ("atlas", "atlas-post"):
    model = xlens.load(name)
    read[name] = phases.evidence(model, own, question=partners, context=others, progress=False)
    print(f"{name}: {phases.detect_phases(read[name]).verdict()}")

# %%
figures.phase_curves(read["atlas-post"].summary(), phases.detect_phases(read["atlas-post"]))

# %% [markdown]
# ## What post-training changed
#
# The same curves, paired prompt by prompt. The boundaries stay where they were: retrieval did not
# form in post-training here, the base model has it too. What grew is how much it does.

# %%
both = phases.compare_curves(read["atlas"], read["atlas-post"])
figures.paired_curves(both)

# %% [markdown]
# And the last layers? The lens gap is how much better the answer can be read after the English
# question than after another language's, in the middle and at the end.

# %%
gaps = [phases.lens_gap(read[name]) for name in ("atlas", "atlas-post")]
figures.paired_effects(phases.compare_effects(*gaps))

# %% [markdown]
# In the base model the gap stays to the end: other languages' answers come out less surely. After
# post-training it is wider in the middle and gone in the last layers. Mind the control, the same
# for the wrong answer: in the middle it goes the other way, so that there the change is about the
# right answer; at the end it falls alike, so that what closes there is the gap between languages,
# whatever is said.

# %% [markdown]
# ## Relevance depth
#
# The paper's own measure, as third parties describe it: up to which layer a token's relevance to
# the answer reaches. It needs one backward pass instead of a patched run for every layer, and it
# sees other things: a gradient does not see what attention compares once it is sure. The
# embedding counts, as block 0 already hands the question over. By this measure the question lies
# *deeper* than the context, against the order that patching finds: the two do not measure the
# same.

# %%
model = xlens.load("atlas-post")
tokens = phases.answer_tokens(model, own)[:, 0]
scores = xlens.relevance(
    model,
    own.prompts,
    targets=[int(t) for t in tokens],
    rule="attnlrp",
    slots=["question:sum", "context:sum"],
    progress=False,
)
depth = phases.relevance_depth(scores, options=phases.DepthOptions(embedding=True))
print(depth.summary().round(2).to_string(index=False))
print(phases.depth_gap(depth).round(2).to_string(index=False))
figures.segment_relevance(depth)

# %% [markdown]
# On your own model and data: `xlens xmrc MODEL --data FOLDER --phases`, and
# [docs/phases.md](../docs/phases.md) for what each kind of evidence can and cannot show.
