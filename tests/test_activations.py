"""Cached states: selected, paired, saved; always by name, never by row order."""

import json

import kit
import numpy as np
import pytest
import torch

from xlens import Activations, Prompt, Prompts, harvest

SLOTS = ["last", "word:each", "all"]
LANGUAGES = ("en", "zh-Hans", "fr")


@pytest.fixture(scope="module")
def prompts():
    """Parallel in three languages, each in an order of its own; French lacks one item."""
    orders = {"en": "abcd", "zh-Hans": "dcba", "fr": "cab"}
    return Prompts(
        Prompt(f"{i * n} {lang} is", lang, i, {"word": (0, n)}, {"kind": "letter", "n": n})
        for lang, order in orders.items()
        for n, i in enumerate(order, 1)
    )


@pytest.fixture(scope="module")
def acts(prompts, family_dir):
    return harvest(kit.model(family_dir("gpt2")), prompts, slots=SLOTS, progress=False)


def same(a, b):
    assert a.layers == b.layers and list(a.slots) == list(b.slots)
    assert (a.fingerprint, a.basis) == (b.fingerprint, b.basis)
    for name in a.slots:
        x, y = a.slot(name), b.slot(name)
        assert x.values.dtype == y.values.dtype
        for field in ("values", "offsets", "positions"):
            assert torch.equal(getattr(x, field), getattr(y, field)), (name, field)
    mine, theirs = a.meta.copy(), b.meta.copy()
    mine["tokens"], theirs["tokens"] = mine["tokens"].map(list), theirs["tokens"].map(list)
    assert mine.equals(theirs)


def states_of(acts, language, i):
    """One prompt's states, found the long way round."""
    row = int(np.flatnonzero((acts.meta["language"] == language) & (acts.meta["id"] == i))[0])
    return {name: acts.rows(name, row) for name in acts.slots}


def test_shape_and_names(acts, prompts):
    assert len(acts) == 11 and acts.languages == LANGUAGES and acts.d_model == 48
    assert acts.layers == (0, 1, 2, 3) and acts.basis == "raw"
    assert list(acts.meta.columns) == ["id", "language", "n_tokens", "tokens", "kind", "n"]
    assert list(acts.meta["id"]) == [p.id for p in prompts]
    assert acts.slot("last").dense and not acts.slot("all").dense
    assert repr(acts).startswith("Activations(11 prompts, 4 layers, last[11], word:each[")
    assert acts.provenance["model"] == "gpt2" and "torch" in acts.provenance["versions"]


def test_get(acts):
    assert acts.get("last").shape == (11, 4, 48)
    for layer in acts.layers:
        assert torch.equal(acts.get("last", layer=layer), acts.get("last")[:, layer])
    some = acts.select(layers=[3, 1])
    assert torch.equal(some.get("last", layer=3), acts.get("last", layer=3))
    assert torch.equal(acts.select(slots=["last"]).get(), acts.get("last"))


def test_rows_of_every_prompt_make_up_a_slot(acts):
    for name in SLOTS:
        rows = [acts.rows(name, i) for i in range(len(acts))]
        assert torch.equal(torch.cat(rows, 1), acts.slot(name).values)
    last = acts.get("last")
    assert all(torch.equal(acts.rows("all", i)[:, -1], last[i]) for i in range(len(acts)))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda a: a.slot("word"), r"No slot 'word'.*\['last', 'word:each', 'all'\]"),
        (lambda a: a.slot(), r"No slot None.*Name one of them"),
        (lambda a: a.get("all"), r"Slot 'all' has several rows per prompt"),
        (lambda a: a.get("last", layer=4), r"Layer 4 is not in these .*\[0, 1, 2, 3\]"),
        (lambda a: a.get("last", layer=-1), r"Layer -1 is not"),
        (lambda a: a.select(layers=[9]), r"Layer 9 is not"),
        (lambda a: a.select(slots=["first"]), r"No slot 'first'"),
        (lambda a: a.select(languages=["de"]), r"No prompt with language \['de'\]"),
        (lambda a: a.select(languages=["german"]), r"Unknown language tag 'german'"),
        (lambda a: a.select(ids=["a", "z"]), r"No prompt with id \['z'\]"),
        (lambda a: a.pair("en", "de"), r"No prompt with language \['de'\]"),
        (
            lambda a: a.require("f" * 32, what="Readout"),
            r"Readout belongs to another model \(fingerprint ffffffffffff…\).*gpt2.*readout of",
        ),
    ],
)
def test_what_is_not_there(asked, message, acts):
    with pytest.raises(ValueError, match=message):
        asked(acts)


def test_require_accepts_its_own_model(acts, family_dir):
    acts.require(kit.model(family_dir("gpt2")).fingerprint, what="Readout")


def test_select(acts):
    some = acts.select(languages=["fr", "zh_hans"], ids=["a", "c"], layers=[0, 3], slots=["all"])
    assert some.languages == ("zh-Hans", "fr") and set(some.meta["id"]) == {"a", "c"}
    assert some.layers == (0, 3) and list(some.slots) == ["all"] and len(some) == 4
    for language, i in zip(some.meta["language"], some.meta["id"], strict=True):
        wanted = states_of(acts, language, i)["all"][[0, 3]]
        assert torch.equal(states_of(some, language, i)["all"], wanted)
    same(acts.select(), acts)


def test_take_in_any_order(acts):
    order = [7, 2, 2, 10]
    taken = acts.take(order)
    assert list(taken.meta["id"]) == list(acts.meta["id"].iloc[order])
    assert list(taken.meta.index) == [0, 1, 2, 3]
    for name in SLOTS:
        for n, i in enumerate(order):
            assert torch.equal(taken.rows(name, n), acts.rows(name, i))
    positions = taken.slot("all").positions.tolist()
    assert positions == [p for i in order for p in range(acts.meta["n_tokens"][i])]
    assert len(acts.take([])) == 0 and acts.take([]).get("last").shape == (0, 4, 48)


@pytest.mark.parametrize(("first", "second"), [("en", "zh-Hans"), ("fr", "en"), ("zh-Hans", "fr")])
def test_pairs_are_parallel_by_id(first, second, acts):
    a, b = acts.pair(first, second)
    assert a.languages == (first,) and b.languages == (second,)
    assert list(a.meta["id"]) == list(b.meta["id"])
    assert len(a) == (3 if "fr" in (first, second) else 4)
    for part, language in ((a, first), (b, second)):
        for n, i in enumerate(part.meta["id"]):
            for name in SLOTS:
                assert torch.equal(part.rows(name, n), states_of(acts, language, i)[name])


def test_no_shared_item(acts):
    english = acts.select(languages=["en"], ids=["d"])
    french = acts.select(languages=["fr"])
    part = acts.take([3, 8])  # en/d and fr/c
    assert list(english.meta["id"]) == ["d"] and "d" not in set(french.meta["id"])
    with pytest.raises(ValueError, match=r"No parallel id is shared by 'en' and 'fr'"):
        part.pair("en", "fr")


# --- on disk ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_saved_is_loaded(dtype, tmp_path, prompts, family_dir):
    model = kit.model(family_dir("gpt2"))
    kept = harvest(model, prompts, slots=SLOTS, dtype=dtype, progress=False)
    folder = kept.save(tmp_path / "some" / "folder")
    assert sorted(p.name for p in folder.iterdir()) == [
        "activations.json",
        "activations.safetensors",
        "prompts.parquet",
    ]
    same(Activations.load(folder), kept)
    assert Activations.load(str(folder)).provenance == kept.provenance


def test_some_layers_are_loaded_alone(acts, tmp_path):
    folder = acts.select(layers=[1, 3]).save(tmp_path / "a")
    same(Activations.load(folder, layers=[3]), acts.select(layers=[3]))
    same(Activations.load(folder, layers=[3, 1]), acts.select(layers=[3, 1]))
    with pytest.raises(ValueError, match=r"Layers \[0\] are not in .*\[1, 3\]"):
        Activations.load(folder, layers=[0, 1])


def test_saving_again_replaces(acts, tmp_path):
    folder = acts.save(tmp_path / "a")
    acts.take([0]).save(folder)
    assert len(Activations.load(folder)) == 1


def test_a_selection_is_saved_without_the_rest(acts, tmp_path):
    whole, part = acts.save(tmp_path / "a"), acts.take([4], layers=[2]).save(tmp_path / "b")
    sizes = [(f / "activations.safetensors").stat().st_size for f in (whole, part)]
    assert sizes[1] < sizes[0] / 20
    same(Activations.load(part), acts.take([4], layers=[2]))


def test_a_save_that_fails_leaves_what_was_there(acts, tmp_path, monkeypatch):
    folder = acts.save(tmp_path / "a")

    def full(*_args, **_kwargs):
        raise OSError("no space left")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="no space"):
        acts.save(folder)
    same(Activations.load(folder), acts)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_not_activations(acts, tmp_path):
    with pytest.raises(ValueError, match=r"No activations at .*nowhere"):
        Activations.load(tmp_path / "nowhere")
    folder = acts.save(tmp_path / "a")
    header = json.loads((folder / "activations.json").read_text())
    (folder / "activations.json").write_text(json.dumps(header | {"format": 99}))
    with pytest.raises(ValueError, match=r"has format 99; this xlens reads 1"):
        Activations.load(folder)


# --- towards TransformerLens ---


def test_to_cache_carries_transformer_lens_names(acts):
    from transformer_lens import ActivationCache

    cache = acts.to_cache(5)
    assert isinstance(cache, ActivationCache)
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{n}.hook_resid_post" for n in range(3))]
    assert list(cache.keys()) == names
    n_tokens = acts.meta["n_tokens"][5]
    for point, name in enumerate(names):
        assert cache[name].shape == (1, n_tokens, 48)
        assert torch.equal(cache[name][0], acts.rows("all", 5)[point])
    assert torch.equal(cache["resid_post", 1], cache["blocks.1.hook_resid_post"])
    back = torch.cat([cache[name] for name in cache])
    assert torch.equal(back, acts.rows("all", 5))


def test_to_cache_of_some_layers_and_without_all(acts):
    assert list(acts.select(layers=[2]).to_cache(0).keys()) == ["blocks.1.hook_resid_post"]
    with pytest.raises(ValueError, match="No slot 'all'"):
        acts.select(slots=["last"]).to_cache(0)
