"""Leaving sentences out: the planted reader hangs on the answer's, a random one on any."""

import kit
import numpy as np
import pandas as pd
import pytest
from readings import reading_set

from xlens.engine import score
from xlens.prompts import Prompt, Prompts
from xlens.tasks.xmrc import reading_prompts
from xlens.tasks.xmrc.oracle import (
    _WHOLE,
    OracleResult,
    _row,
    gold_targets,
    oracle_estimate,
    own_targets,
)
from xlens.testbed import planted


@pytest.fixture(scope="module")
def asked():
    """Facts as sentences: `a = b .`; the answer is one of four."""
    found = planted.two_phase(depth=4, question_layer=1, answer_layer=3, n_items=16, languages=2)
    prompts, answers = [], []
    for prompt in found.prompts:
        stops = [i + 1 for i, c in enumerate(prompt.text) if c == "."]
        starts = [0, *(stop + 1 for stop in stops[:-1])]
        spans = {f"sentence_{n}": s for n, s in enumerate(zip(starts, stops, strict=True))}
        meta = {"paragraph": prompt.id}
        prompts.append(
            Prompt(prompt.text, prompt.language, prompt.id, {**prompt.spans, **spans}, meta)
        )
        answers.append(" " + found.answers.loc[prompt.id, found.truth.context_language])
    return found, Prompts(prompts), answers


def test_a_planted_reader_hangs_on_the_sentence_that_holds_the_answer(asked):
    found, prompts, answers = asked
    result = oracle_estimate(found.model, prompts, {"gold": answers}, progress=False)
    assert result.items["hit"].all() and len(result.items) == len(prompts)
    assert set(result.items["n_sentences"]) == {4} and set(result.items["chance"]) == {0.25}
    summary = result.summary()
    assert list(summary["oracle"]) == [1.0] * 2 and (summary["above_low"] > 0.4).all()
    row = result.items.iloc[0]
    start, stop = prompts[0].spans[f"sentence_{row['chosen']}"]
    text = prompts[0].text
    shorter = Prompt(text[:start] + text[stop + 1 :], prompts[0].language, "x")
    both = score(found.model, [prompts[0], shorter], answers[:1], progress=False).table["logprob"]
    assert row["drop"] == pytest.approx(both[0] - both[1], abs=1e-4)


def test_a_random_model_is_at_chance(asked):
    found, prompts, answers = asked
    twin = found.model.random_twin(0)
    summary = oracle_estimate(twin, prompts, {"gold": answers}, progress=False).summary()
    assert (summary["above_low"] < 0.05).all() and (summary["oracle"] < 0.6).all()


def test_targets_and_what_is_left_out(family_dir, tmp_path):
    model = kit.model(family_dir("llama"))
    prompts = reading_prompts(reading_set(), context="en", question="de", shots=0, instruction=None)
    gold = gold_targets(prompts)
    assert gold[0] == " garden" and gold[1] == " milk"
    own = own_targets(prompts, ["x", *[""] * (len(prompts) - 1)])
    result = oracle_estimate(model, prompts, {"gold": gold, "own": own}, progress=False)
    assert list(result.items["target"].value_counts()) == [len(prompts), 1]
    assert len(result.left_out) == len(prompts) - 1
    assert set(result.left_out["reason"]) == {"no answer"}
    summary = result.summary().set_index("target")
    assert summary.loc["gold", "n"] == len(prompts)
    assert summary.loc["gold", "question_language"] == "de"
    again = OracleResult.load(result.save(tmp_path))
    pd.testing.assert_frame_equal(again.summary(), result.summary())
    assert np.isclose(summary.loc["gold", "chance"], 1 / 3)


def test_an_answer_with_which_the_prompt_is_too_long_is_left_out(family_dir):
    model = kit.model(family_dir("llama"))
    prompts = reading_prompts(reading_set(), context="en", question="de", shots=0, instruction=None)
    gold = gold_targets(prompts)
    own = [" word" * (model.n_ctx + 1), *gold[1:]]
    found = oracle_estimate(model, prompts, {"gold": gold, "own": own}, progress=False)
    assert found.left_out.to_dict("records") == [
        {"id": "q00", "language": "de", "target": "own", "reason": "too long with its answer"}
    ]
    assert list(found.items["target"].value_counts()) == [len(prompts), len(prompts) - 1]


def test_refuses(family_dir):
    model = kit.model(family_dir("llama"))
    prompts = reading_prompts(reading_set(), context="en", question="de", shots=0, instruction=None)
    with pytest.raises(ValueError, match="targets is empty"):
        oracle_estimate(model, prompts, {})
    with pytest.raises(ValueError, match="1 texts for"):
        oracle_estimate(model, prompts, {"gold": ["x"]})
    with pytest.raises(ValueError, match="sentence_0"):
        oracle_estimate(model, [Prompt("a", "en", "1")], {"gold": ["x"]})
    one = Prompt("a b", "en", "1", {"sentence_0": (0, 1), "answer": (0, 1)})
    with pytest.raises(ValueError, match="one sentence"):
        oracle_estimate(model, [one], {"gold": ["x"]})
    with pytest.raises(ValueError, match="0 predictions"):
        own_targets(prompts, [])


def test_a_tie_is_a_hit_only_where_all_that_tie_hold_the_answer():
    prompt = Prompt("Aa. Bb. Cc.", "en", "q", {"answer": (4, 6)})
    spans = [(0, 3), (4, 7), (8, 11)]

    def hit(*without):
        drops = {(f"0/{k}", "t"): -drop for k, drop in enumerate(without)}
        return _row(prompt, 0, spans, "gold", "t", {(f"0/{_WHOLE}", "t"): 0.0, **drops})["hit"]

    assert hit(1.0, 2.0, 0.0) and not hit(2.0, 1.0, 0.0)
    assert not hit(0.0, 2.0, 2.0) and not hit(2.0, 2.0, 0.0)
