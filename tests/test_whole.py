"""The exact reading: log-probabilities of whole words, against a plain forward pass."""

import kit
import pandas as pd
import pytest

from xlens import Prompt, Prompts
from xlens.lens import whole_word_lens
from xlens.stats import Resampling

WORDS = pd.DataFrame(
    {
        "en": ["dog", "the flower", "January", "water"],
        "zh-Hans": ["狗", "花", "一月", "龘龘"],
        "ru": ["собака", "цветок", "январь", "вода"],
    },
    index=["dog", "flower", "january", "water"],
)
TASK = {"source": "fr", "target": "zh-Hans", "task": "translation"}


def prompts(form='Français: "{}" - 中文: "'):
    shown = ["chien", "fleur", "janvier", "eau"]
    return Prompts(
        Prompt(form.format(word), "zh-Hans", i, meta=TASK)
        for i, word in zip(WORDS.index, shown, strict=True)
    )


def plain(model, prompt, word):
    """Log-probability and number of a word's tokens at each point below the last, and at the end.

    Found with the tokenizer's offsets and Hugging Face's own hidden states and logits.
    """
    encoded = model.tokenizer(prompt + word, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    where = [n for n, (_, b) in enumerate(encoded["offset_mapping"]) if b > len(prompt)]
    assert where == list(range(where[0], len(ids)))
    states = kit.hidden_states(model, ids)[:-1]
    logits = [model.readout.logits(s) for s in states] + [kit.logits(model, ids)]
    scores = [
        sum(float(lg[n - 1].double().log_softmax(-1)[ids[n]]) for n in where) for lg in logits
    ]
    return scores, len(where)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "qwen2", "bloom"])
def test_the_exact_log_probability_at_every_layer(family, family_dir):
    model = kit.model(family_dir(family))
    lens = whole_word_lens(model, prompts(), WORDS, progress=False)
    rows = lens.rows.set_index(["id", "language", "layer"]).sort_index()
    lengths = set()
    for prompt in prompts():
        for language in WORDS.columns:
            scores, n_tokens = plain(model, prompt.text, WORDS.loc[prompt.id, language])
            lengths.add(n_tokens)
            mine = rows.loc[(prompt.id, language)]
            assert set(mine["n_tokens"]) == {n_tokens}
            assert mine["logprob"].tolist() == pytest.approx(scores, abs=2e-4, rel=1e-5)
    assert len(lengths) > 2 and max(lengths) > 3  # one token and several
    assert (rows["prob"] <= 1).all() and rows["rank"].isna().all()
    assert (lens.match, lens.source, lens.target, lens.task) == (
        "whole", "fr", "zh-Hans", "translation"
    )  # fmt: skip


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_a_token_that_joins_prompt_and_word_is_the_words(family, family_dir):
    model = kit.model(family_dir(family))
    joined = Prompts([Prompt("The book is on ", "en", "x", meta=TASK)])
    word = pd.DataFrame({"zh-Hans": ["the table"], "en": ["dog"]}, index=["x"])
    whole = model.tokenizer("The book is on the table")["input_ids"]
    alone = model.tokenizer("The book is on ")["input_ids"]
    assert whole[: len(alone)] != alone  # the trap is there
    rows = whole_word_lens(model, joined, word, progress=False).rows
    for language in word.columns:
        scores, n_tokens = plain(model, "The book is on ", word.loc["x", language])
        mine = rows[rows["language"] == language]
        assert mine["logprob"].tolist() == pytest.approx(scores, abs=2e-4)
        assert set(mine["n_tokens"]) == {n_tokens}


def test_its_summary_finds_the_most_probable_word(family_dir):
    model = kit.model(family_dir("gpt2"))
    lens = whole_word_lens(model, prompts(), WORDS, top_k=4, progress=False)
    assert len(lens.states) == 4 * 4 and len(lens.top) == 4 * 4 * 4
    summary = lens.summary(resampling=Resampling(draws=20))
    means = lens.rows.groupby(["language", "layer"])["prob"].mean()
    assert summary.landmark("final_target_prob")["value"] == pytest.approx(means["zh-Hans", 3])
    # Read on the other half of the prompts, so that it is no maximum.
    assert 0 < summary.landmark("pivot_peak_prob")["value"] <= means["en"].max()


def test_missing_and_empty_words(family_dir):
    model = kit.model(family_dir("gpt2"))
    for gap in (None, pd.NA):
        words = WORDS.copy()
        words.loc["flower", "ru"] = gap
        with pytest.raises(ValueError, match=r"1 prompts have no word in every .* 'flower'"):
            whole_word_lens(model, prompts(), words, progress=False)
    with pytest.raises(ValueError, match=r"1 prompts have no word .* first 'water'"):
        whole_word_lens(model, prompts(), WORDS[:3], progress=False)
    words = WORDS.copy()
    words.loc["january", "ru"] = ""
    with pytest.raises(ValueError, match=r"'january'.*span"):
        whole_word_lens(model, prompts(), words, progress=False)


def test_advice_about_missing_words_can_be_followed(tiny_gpt2_dir):
    """Also where there are words that no prompt asks for."""
    model, some = kit.model(tiny_gpt2_dir), prompts()
    words = WORDS.reindex([*WORDS.index, "elsewhere"]).ffill()
    words.loc[some[0].id, words.columns[0]] = None
    with pytest.raises(ValueError, match="have no word in every one") as error:
        whole_word_lens(model, some, words, progress=False)
    advice = str(error.value).split("drop them with ")[1].rstrip(".")
    left = eval(advice, {"prompts": some, "words": words})
    assert left.ids == some.ids[1:]
