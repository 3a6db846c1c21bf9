"""Headers that prompts share: who is dealt which, what that saves, what intervals make of it."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from xlens.comparison import compare
from xlens.engine.plan import plan
from xlens.prompts import Prompts, TooFewItems, tokenize
from xlens.prompts.fewshot import cut_headers, deal_headers, header_name
from xlens.results import load
from xlens.stats import Resampling, bootstrap, cluster_of, joined
from xlens.studies.choices import ChoicesStudy
from xlens.studies.lens import LensStudy
from xlens.studies.reading import ReadingStudy
from xlens.studies.steps.leaderboard import leaderboard
from xlens.tasks.choices import Choices, choice_prompts, cldr_choices
from xlens.tasks.words import WordList, cldr_words, repetition_prompts, translation_prompts
from xlens.tasks.xmrc import (
    ReadingPrompts,
    ReadingResult,
    ReadingSet,
    mismatched,
    predictions_of,
    reading_prompts,
    reading_scores,
)

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
        with pytest.raises(ValueError, match=f"headers={wrong}: accepted are 2 to"):
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


# --- questions with options ----------------------------------------------------------------------

some_words = st.sampled_from(["oman", "omani", "mars", "may", "x", "y", "二月", "十二月"])
questions = st.lists(st.tuples(some_words, some_words, some_words), min_size=3, max_size=9)


@settings(max_examples=40, deadline=None)
@given(questions, st.integers(1, 3), st.integers(0, 2), st.sampled_from([2, 12]))
def test_every_item_has_its_shots_or_an_error(rows, shots, seed, headers) -> None:
    """Also where each header holds an item that gives the answer away."""
    choices = Choices(
        pd.DataFrame(
            {"id": str(n), "language": tag, "question": f"{asked}?", "kind": f"k{n % 2}"}
            | {"options": [right, f"no{n}"], "gold": 0}  # no classes
            for n, (asked, right, other) in enumerate(rows)
            for tag, right in (("en", right), ("de", other))
        ),
        "test",
    )
    said = {
        str(n): (f"{asked}?\n{right}\n{other}", (f"{asked}?", right, other))
        for n, (asked, right, other) in enumerate(rows)
    }
    fit = {
        id: {o for o in said if o != id and not any(s in said[o][0] for s in said[id][1])}
        for id in said
    }
    if min(map(len, fit.values())) < shots:
        with pytest.raises(TooFewItems, match=f"needs {shots} demonstrations"):
            choice_prompts(choices, "en", shots=shots, seed=seed, headers=headers)
        return
    prompts, _ = choice_prompts(choices, "de", shots=shots, seed=seed, headers=headers)
    for prompt in prompts:
        shown = str(prompt.meta["demonstrations"]).split("|")
        assert len(set(shown)) == shots and set(shown) <= fit[prompt.id]


@pytest.fixture(scope="module")
def facts() -> Choices:
    return cldr_choices(["en", "fr", "ru"])


def test_a_sample_of_questions_has_the_headers_of_the_whole(facts: Choices) -> None:
    whole = headers_of(choice_prompts(facts, "fr", shots=2)[0])
    some = facts.sample(60, seed=0)
    mine = choice_prompts(some, "ru", shots=2, pool=facts)[0]
    assert headers_of(mine) == {id: whole[id] for id in some.ids}
    assert (
        share(mine) <= 0.55 < 0.9 <= share(choice_prompts(some, "ru", shots=2, headers="item")[0])
    )


def test_classes_come_first_equally_often() -> None:
    choices = Choices(
        pd.DataFrame(
            {"id": f"{n:03}", "language": tag, "question": f"{n:03}{tag}", "kind": "k"}
            | {"options": ["yes", "no", "perhaps"], "gold": n % 3}
            for n in range(90)
            for tag in ("en", "de")
        ),
        "test",
    )
    prompts, _ = choice_prompts(choices, "en", shots=3)
    shown = [[int(id) % 3 for id in str(p.meta["demonstrations"]).split("|")] for p in prompts]
    assert all(sorted(classes) == [0, 1, 2] for classes in shown)
    headers = {str(p.meta["header"]): classes for p, classes in zip(prompts, shown, strict=True)}
    assert Counter(classes[0] for classes in headers.values()) == {0: 4, 1: 4, 2: 4}


def test_questions_on_one_passage_have_one_header() -> None:
    choices = Choices(
        pd.DataFrame(
            {"id": f"{n:02}", "language": tag, "question": f"{n:02}{tag}?", "kind": "k"}
            | {"options": [f"{n:02}a{tag}", f"{n:02}b{tag}"], "gold": 0}
            | {"context": f"Passage {n // 4:02} {tag}."}
            for n in range(80)
            for tag in ("en", "de")
        ),
        "test",
    )
    prompts, _ = choice_prompts(choices, "en", shots=2)
    found: dict[str, set[str]] = {}
    for prompt in prompts:
        found.setdefault(str(prompt.meta["paragraph"]), set()).add(str(prompt.meta["header"]))
        assert not {int(id) // 4 for id in str(prompt.meta["demonstrations"]).split("|")} & {
            int(prompt.id) // 4
        }
    assert len(found) == 20 and all(len(headers) == 1 for headers in found.values())
    scores = pd.DataFrame([dict(p.meta) | {"id": p.id} for p in prompts])
    assert cluster_of(scores).max() + 1 == scores["header"].nunique() <= 12


# --- texts ---------------------------------------------------------------------------------------


def texts(n: int, *, articles: int) -> ReadingSet:
    """Paragraphs of three questions each, as long as those of XQuAD."""
    rows: list[dict[str, Any]] = []
    for p in range(n):
        for tag, word in (("en", "river"), ("de", "Fluss")):
            said = " ".join(f"The {word} {p} {k} flows past {p * 7 + k}." for k in range(12))
            rows += [
                {
                    "id": f"{p}-{k}",
                    "language": tag,
                    "context": said,
                    "paragraph": f"{p % articles}/{p}",
                }
                | {"question": f"What flows past {p * 7 + k}?", "answers": [f"{word} {p} {k}"]}
                | {"starts": [said.index(f"{word} {p} {k} ")]}
                for k in range(3)
            ]
    return ReadingSet(pd.DataFrame(rows), "test")


@pytest.fixture(scope="module")
def rivers() -> ReadingSet:
    return texts(240, articles=48)


def test_texts_share_headers_of_other_articles_that_are_not_asked(rivers: ReadingSet) -> None:
    asked = rivers.sample(200, seed=3)
    how: dict[str, Any] = {"pool": rivers, "seed": 3}
    prompts = reading_prompts(asked, context="en", question="de", **how)
    found = headers_of(prompts)
    assert len(set(found.values())) == prompts.how["headers"] == 12
    # In the order in which questions are sampled: exactly even, but for those that move on.
    counts = Counter(found.values())
    assert min(counts.values()) >= 14 and max(counts.values()) <= 20
    known = {row.id: str(row.paragraph) for row in rivers.frame.itertuples()}
    own = {known[prompt.id] for prompt in prompts}
    for prompt in prompts:
        shown = [known[id] for id in str(prompt.meta["demonstrations"]).split("|")]
        assert not {p.split("/")[0] for p in shown} & {known[prompt.id].split("/")[0]}
        assert not own & set(shown)
    for other in (
        reading_prompts(asked, context="de", question="de", **how),
        reading_prompts(mismatched(asked.sample(40, seed=3), seed=3), **how),
    ):
        assert headers_of(other) == {id: found[id] for id in other.ids}
    assert cluster_of(pd.DataFrame([dict(p.meta) | {"id": p.id} for p in prompts])).max() == 11


def test_of_two_hundred_questions_half_of_the_tokens_are_run(rivers: ReadingSet) -> None:
    asked = rivers.sample(200, seed=0)
    assert share(reading_prompts(asked, pool=rivers)) <= 0.5
    assert share(reading_prompts(asked, pool=rivers, headers="item")) > 0.6


def test_few_texts_have_their_own(rivers: ReadingSet) -> None:
    few = texts(3, articles=1)
    for prompt in reading_prompts(few, shots=6):
        shown = {id.split("-")[0] for id in str(prompt.meta["demonstrations"]).split("|")}
        assert len(shown) == 2 and prompt.id.split("-")[0] not in shown
    with pytest.raises(ValueError, match="need 7 demonstrations"):
        reading_prompts(few, shots=7)
    own = reading_prompts(rivers.sample(20), pool=rivers, headers="item")
    assert all("header" not in prompt.meta for prompt in own) and "headers" not in own.how


def test_results_of_before_stand_beside_those_with_headers(rivers: ReadingSet, tmp_path) -> None:
    asked = rivers.sample(60, seed=0)

    def prompts(headers: Any) -> list[ReadingPrompts]:
        return [
            reading_prompts(asked, context="en", question=tag, pool=rivers, headers=headers)
            for tag in ("en", "de")
        ]

    shared = prompts(12)
    good = set(sorted({str(p.meta["header"]) for p in shared[0]})[:6])
    said = [
        asked.items("en")[p.id].answers[0] if p.meta["header"] in good else "no"
        for group in shared
        for p in group
    ]
    old, new = (
        reading_scores(
            predictions_of(made, said, model="any", provenance={}),
            resampling=Resampling(draws=300),
        )
        for made in (prompts("item"), shared)
    )
    assert "header" not in old.items and new.items["header"].nunique() == 12
    wide, narrow = (
        found.scores.set_index("metric").loc["em", ["low", "high"]].to_numpy(float)
        for found in (new, old)
    )
    assert np.diff(wide).mean() > 1.5 * np.diff(narrow).mean()
    for one, other in ((old, new), (new, old), (new, new), (old, old)):
        board = leaderboard({"a": one, "b": other}, pairs=[("a", "b")])
        (row,) = board.pairs.to_dict("records")
        assert row["n"] == 60 and row["difference"] == 0 and np.isfinite(row["low"])
    assert compare(old, new).summary["difference"].abs().max() == 0
    new.save(tmp_path / "new")
    again = load(tmp_path / "new")
    assert isinstance(again, ReadingResult)
    pd.testing.assert_frame_equal(again.items, new.items)


def test_the_way_of_showing_is_an_option_that_decides() -> None:
    """Their parts are made from other options: a folder of one refuses the other."""
    options = LensStudy(pairs=("fr:ru",)).options()
    assert options["headers"] == 12
    assert LensStudy(pairs=("fr:ru",), headers="item").options()["headers"] == "item"
    for study in (LensStudy, ChoicesStudy, ReadingStudy):
        assert "headers" not in study.FREE
    with pytest.raises(ValueError, match="headers=1: accepted are 2 to"):
        LensStudy(pairs=("fr:ru",), headers=1)


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


def test_more_headers_than_items_are_none_more():
    """A number without bound is no work without end."""
    ids = [f"i{n}" for n in range(30)]
    how = {"seed": 0, "leaks": lambda *_: False}
    known, pools = dict.fromkeys(ids, "all"), {"all": ids}
    many = deal_headers(known, ids, pools, 2, 10**12, **how)
    assert many == deal_headers(known, ids, pools, 2, len(ids), **how)
