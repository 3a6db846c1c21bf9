"""Headers that prompts share: who is dealt which, what that saves, what intervals make of it."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from xlens.engine.plan import plan
from xlens.prompts import Prompts, tokenize
from xlens.prompts.fewshot import cut_headers, deal_headers, header_name
from xlens.stats import Resampling, bootstrap, cluster_of, joined
from xlens.tasks.words import WordList, cldr_words, repetition_prompts, translation_prompts

ids = st.lists(st.text("abcdefgh", min_size=1, max_size=3), unique=True, max_size=40)


# --- headers -------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(ids, st.integers(1, 5), st.integers(2, 14), st.integers(0, 3), st.randoms())
def test_headers_are_cut_evenly_and_by_ids_alone(pool, k, n, seed, random) -> None:
    found = cut_headers(pool, k, n, seed=seed)
    if len(pool) < k:
        assert found == []
        return
    assert len({frozenset(header) for header in found}) == len(found)
    assert all(len(set(header)) == k and set(header) <= set(pool) for header in found)
    shuffled = random.sample(pool, len(pool))
    assert cut_headers(shuffled, k, n, seed=seed) == found
    if len(pool) > k:  # nobody is in all of them
        assert all(any(id not in header for header in found) for id in pool)
    if len(pool) >= n * k:  # and as long as there are enough, nobody is in two
        assert len(found) == n and max(Counter(sum(found, ())).values()) == 1


@settings(max_examples=100, deadline=None)
@given(
    ids.filter(lambda found: len(found) > 6), st.integers(1, 4), st.integers(2, 12), st.randoms()
)
def test_headers_are_dealt_alike_whoever_is_asked(pool, k, n, random) -> None:
    known = {id: id[0] for id in pool}
    pools: dict[str, list[str]] = {}
    for id, group in known.items():
        pools.setdefault(group, []).append(id)

    def leaks(query: str, shown: str) -> bool:
        return query in shown

    how: dict[str, Any] = {"seed": 1, "leaks": leaks, "anywhere": pool}
    whole = deal_headers(known, pool, pools, k, n, **how)
    for id, header in whole.items():
        assert len(set(header)) == k and not any(leaks(id, shown) for shown in header)
    some = random.sample(pool, len(pool) // 2)
    shuffled = {id: known[id] for id in random.sample(pool, len(pool))}
    few = deal_headers(shuffled, some, pools, k, n, **how)
    assert few == {id: whole[id] for id in some if id in whole}


def test_headers_are_dealt_evenly() -> None:
    known = {f"{n:03}": "one" for n in range(300)}
    same = {"seed": 0, "leaks": lambda query, shown: query == shown}
    dealt = deal_headers(known, known, {"one": [*known]}, 4, 12, **same)
    counts = Counter(dealt.values())
    assert len(dealt) == 300 and len(counts) == 12
    # Exactly even, but for the 48 that stand in a header, one in twelve of which must move on.
    assert min(counts.values()) >= 22 and max(counts.values()) <= 28


def test_what_belongs_together_is_dealt_one_header() -> None:
    known = {f"{text}{n}": "one" for text in "abcdefgh" for n in range(5)}
    together = {id: id[0] for id in known}

    def leaks(query: str, shown: str) -> bool:
        return query[0] == shown[0]

    dealt = deal_headers(
        known, known, {"one": [*known]}, 2, 12, seed=0, leaks=leaks, together=together
    )
    headers = {text: {dealt[id] for id in known if id[0] == text} for text in "abcdefgh"}
    assert {len(found) for found in headers.values()} == {1}
    assert all(text not in {id[0] for id in header} for text, (header,) in headers.items())


def test_the_same_demonstrations_have_the_same_name() -> None:
    assert header_name(("a", "b")) == header_name(["a", "b"])
    assert len({header_name(x) for x in (("a", "b"), ("b", "a"), ("ab",), ("a", "b", "c"))}) == 4


# --- words ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words() -> WordList:
    return cldr_words(["en", "fr", "ru", "hi"])


def headers_of(prompts: Prompts) -> dict[str, str]:
    return {prompt.id: str(prompt.meta["header"]) for prompt in prompts}


def test_an_item_has_one_header_in_every_pair_task_and_choice(words: WordList) -> None:
    first = translation_prompts(words, "fr", "ru")
    found = headers_of(first)
    assert len(set(found.values())) < 30
    for other in (
        translation_prompts(words, "hi", "en"),
        repetition_prompts(words, "ru"),
        translation_prompts(words, "fr", "ru", ids=[*found][:40]),
    ):
        mine = headers_of(other)
        assert mine == {id: found[id] for id in mine if id in found} | {
            id: mine[id] for id in mine if id not in found
        }
        assert set(mine) & set(found)
    for prompt in first:
        assert prompt.id not in str(prompt.meta["demonstrations"]).split("|")
        shown = str(prompt.meta["demonstrations"]).split("|")
        assert found[prompt.id] == header_name(shown) and len(shown) == 4
    assert headers_of(translation_prompts(words, "fr", "ru", seed=1)) != found


def test_headers_are_the_same_tokens_and_shared_out_among_kinds(words: WordList) -> None:
    prompts = translation_prompts(words, "fr", "ru")
    texts: dict[str, set[str]] = {}
    for prompt in prompts:
        texts.setdefault(str(prompt.meta["header"]), set()).add(prompt.part("demonstrations"))
    assert all(len(found) == 1 for found in texts.values())
    kinds = pd.DataFrame([dict(p.meta) for p in prompts]).groupby("kind")["header"].nunique()
    assert kinds["territory"] > kinds["month"] >= 2


def test_items_of_their_own_demonstrations_have_no_header(words: WordList) -> None:
    prompts = translation_prompts(words, "fr", "ru", headers="item")
    assert all("header" not in prompt.meta for prompt in prompts)
    assert len({prompt.meta["demonstrations"] for prompt in prompts}) > 200
    bare = translation_prompts(words, "fr", "ru", shots=0)
    assert all("header" not in prompt.meta for prompt in bare)


def test_headers_are_two_or_more(words: WordList) -> None:
    for wrong in (1, 0, -3):
        with pytest.raises(ValueError, match=f"headers={wrong}: accepted are 2 or more"):
            translation_prompts(words, "fr", "ru", headers=wrong)
    with pytest.raises(TypeError, match="headers"):
        translation_prompts(words, "fr", "ru", headers="items")  # type: ignore[arg-type]


def share(prompts: Prompts) -> float:
    """Tokens that are run, of those that there are."""
    told = [t.ids for t in tokenize(tiny.tokenizer("gemma3"), list(prompts), spans=frozenset())]
    run = sum(
        group.prefix + sum(len(told[m]) - group.prefix for m in group.members)
        for batch in plan(told, 4096)
        for group in batch.groups
    )
    return run / sum(map(len, told))


@pytest.mark.parametrize("pair", [("fr", "ru"), ("hi", "fr")])
def test_of_sixty_words_most_tokens_are_run_once(words: WordList, pair: tuple[str, str]) -> None:
    some = translation_prompts(words, *pair).sample(60, seed=0)
    own = translation_prompts(words, *pair, headers="item").select(ids=some.ids)
    assert share(some) <= 0.35
    assert share(own) >= 0.9


# --- intervals -----------------------------------------------------------------------------------


def test_clusters_are_what_hangs_together() -> None:
    meta = pd.DataFrame({"id": list("abcdef"), "header": ["x", "y", "x", "z", None, "z"]})
    assert cluster_of(meta).tolist() == [0, 1, 0, 2, 3, 2]
    assert cluster_of(meta.drop(columns="header")).tolist() == [0, 1, 2, 3, 4, 5]
    meta["paragraph"] = list(
        "ppqrst"
    )  # one paragraph crosses two headers: all of it hangs together
    assert cluster_of(meta).tolist() == [0, 0, 0, 1, 2, 1]
    assert cluster_of(meta, "id").tolist() == [0, 1, 0, 2, 3, 2]
    assert joined([3, 1, 3], [None, None, None]).tolist() == [0, 1, 0]
    assert joined([1, 2, 3], list("aab"), list("xyy")).tolist() == [0, 0, 0]
    assert joined([]).tolist() == []


def held(found: Any, truth: float = 0.0) -> float:
    low, high = found.interval()
    return float(((low <= truth) & (truth <= high)).mean())


def test_intervals_that_draw_headers_hold_the_truth_where_items_alone_do_not() -> None:
    rng = np.random.default_rng(0)
    n_headers, each, trials = 12, 5, 1500
    header = np.arange(n_headers).repeat(each)
    values = rng.normal(size=(n_headers, trials))[header] + rng.normal(size=(len(header), trials))
    meta = pd.DataFrame({"id": [f"{n}" for n in range(len(header))], "header": header.astype(str)})
    how = Resampling()
    drawn = held(bootstrap(values, clusters=how.codes(meta), resampling=how))
    alone = held(bootstrap(values, resampling=how))
    print(f"12 headers of 5 items, half of the variance theirs: {drawn:.3f}; items: {alone:.3f}")
    assert drawn >= 0.93 and alone <= 0.75


def test_where_clusters_cross_headers_intervals_are_never_too_narrow() -> None:
    """Both have effects; what is left of independent parts is few, or none."""
    rng = np.random.default_rng(1)
    trials, parts = 1500, 8
    # Eight parts that share nothing, each of two headers crossed with three paragraphs.
    meta = pd.DataFrame(
        [
            {"id": f"{part}{h}{p}", "header": f"{part}{h}", "paragraph": f"{part}{p}"}
            for part in range(parts)
            for h in range(2)
            for p in range(3)
        ]
    )
    effects = sum(
        rng.normal(size=(meta[name].nunique(), trials))[pd.factorize(meta[name])[0]]
        for name in ("header", "paragraph")
    )
    codes = Resampling().codes(meta)
    assert codes.max() + 1 == parts
    assert held(bootstrap(effects, clusters=codes)) >= 0.92
    by_paragraph = cluster_of(meta.drop(columns="header"))
    assert held(bootstrap(effects, clusters=by_paragraph)) <= 0.9
    # All in one: there is no interval, rather than one that feigns certainty.
    crossed = pd.DataFrame(
        [
            {"id": f"{h}{p}", "header": h, "paragraph": p}
            for h in ("x", "y", "z")
            for p in ("a", "b", "c", "d", "e")
        ]
    )
    low, high = bootstrap(effects[: len(crossed)], clusters=cluster_of(crossed)).interval()
    assert np.isnan(low).all() and np.isnan(high).all()
