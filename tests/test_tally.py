"""Counts and sums over tokens, made in the hook: equal to counting afterwards."""

import importlib

import kit
import numpy as np
import pytest
import torch

import tiny
from xlens import Prompt, Prompts, harvest
from xlens.engine import Tally, tally
from xlens.engine.interventions import scale

MODULE = importlib.import_module("xlens.engine.tally")


def asked():
    """Common beginnings, and prompts that occur several times, also in two languages."""
    head = tiny.TEXT["en"][:80]
    prompts = [Prompt(head + tiny.TEXT["fr"][: 5 * n], "en", f"a{n}") for n in range(4)]
    prompts += [Prompt(head, "fr", "b"), Prompt(head, "en", "b"), Prompt(head, "en", "c")]
    other = tiny.TEXT["en"][30:]  # of another length: it stands beside padding
    prompts += [Prompt(other + end, "en", end) for end in ("Wo", "Wer ist")]
    return Prompts([*prompts, *kit.mixed()[:5]])


def brute(model, prompts, site, threshold=0.0, **options):
    languages = list(dict.fromkeys(p.language for p in prompts))
    counts, sums, n = 0, 0, np.zeros(len(languages), dtype=int)
    for p in prompts:
        acts = harvest(model, [p], site=site, slots="all", progress=False, **options)
        states = acts.slot().values[:, int(model.prepends_bos) :].double()
        here = np.zeros((len(languages), len(acts.layers), acts.d_model))
        which = languages.index(p.language)
        here[which] = (states > threshold).sum(1).numpy()
        counts = counts + here.astype(np.int64)
        here[which] = states.sum(1).numpy()
        sums = sums + here
        n[which] += states.shape[1]
    return counts, sums, n


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "opt"])
@pytest.mark.parametrize("budget", [200, 5_000])
def test_it_is_brute_force(family, budget):
    model, prompts = kit.fresh(family), asked()
    found = tally(model, prompts, token_budget=budget, progress=False)
    counts, sums, n = brute(model, prompts, found.site)
    assert found.site == ("mlp_gate" if family == "llama" else "mlp_post")
    assert found.counts.dtype == np.int64 and found.sums.dtype == np.float64
    assert np.array_equal(found.n_tokens, n)
    # Rounding differs between batches: a unit within it of the threshold may fall on either side.
    assert np.abs(found.counts - counts).max() <= 1
    assert (found.counts != counts).mean() < 1e-3
    assert np.abs(found.sums - sums).max() < 1e-4
    apart = tally(model, prompts, share_prefixes=False, progress=False)
    assert np.abs(apart.counts - found.counts).max() <= 1
    assert found.probabilities.max() <= 1 and found.means.shape == found.sums.shape


def test_thresholds_sites_and_interventions():
    model, prompts = kit.fresh("llama"), asked()
    off = scale(range(4), 0.0, site="mlp_post", layers="all")
    found = tally(
        model, prompts, site="mlp_post", threshold=0.5, interventions=off, layers=1, progress=False
    )
    counts, sums, _ = brute(model, prompts, "mlp_post", 0.5, interventions=off, layers=1)
    assert found.layers == (1,) and not found.counts[..., :4].any() and found.counts.any()
    assert (found.counts != counts).mean() < 1e-3 and np.abs(found.sums - sums).max() < 1e-4


def test_a_failed_pass_adds_nothing(monkeypatch):
    model, prompts = kit.fresh("gpt2"), asked()
    wanted = tally(model, prompts, progress=False)
    runs = []
    real = importlib.import_module("xlens.engine.backoff").run_batch

    def failing(*given):
        runs.append(real(*given))
        if len(runs) in (1, 3):  # after the hooks have seen everything
            raise torch.OutOfMemoryError("CUDA out of memory.")

    def run_all(*given, **options):
        return importlib.import_module("xlens.engine.backoff").run_all(
            *given, **options, run=failing
        )

    monkeypatch.setattr(MODULE, "run_all", run_all)
    found = tally(model, prompts, progress=False)
    assert len(runs) > 3
    assert (found.counts != wanted.counts).mean() < 1e-3
    assert np.abs(found.sums - wanted.sums).max() < 1e-4
    assert np.array_equal(found.n_tokens, wanted.n_tokens)


def test_saved_and_framed(tmp_path):
    model, prompts = kit.fresh("gpt2"), kit.mixed()[:3]
    found = tally(model, prompts, layers=[0, 2], progress=False)
    back = Tally.load(found.save(tmp_path))
    assert np.array_equal(back.counts, found.counts) and back.languages == found.languages
    frame = found.to_frame()
    row = frame[(frame["language"] == "fr") & (frame["layer"] == 2) & (frame["unit"] == 7)]
    assert int(row["count"].iloc[0]) == found.counts[1, 1, 7]
    with pytest.raises(ValueError, match="threshold is nan"):
        tally(model, prompts, threshold=float("nan"), progress=False)
