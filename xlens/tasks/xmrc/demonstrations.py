"""Which questions are demonstrated before which: by paragraph and seed, whatever the language."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from xlens.errors import InputError
from xlens.headers import Headers, check_headers
from xlens.prompts.fewshot import Shown, deal_headers, seeded_rank
from xlens.tasks.xmrc.data import Reading, apart


def demonstrated(
    asked: Mapping[str, Reading],
    pool: Mapping[str, Reading],
    n: int,
    *,
    per_text: int,
    seed: int,
    headers: Headers,
    comparable: bool,
) -> Shown:
    """Ids of `pool` to show before the questions on each paragraph.

    Headers that paragraphs share are of texts that aren't asked about, if these make enough; and
    of the ones that a sample of the set takes last: so all samples have the same. Up to `per_text`
    questions on a paragraph, then the next one. Never the paragraph asked about; if there are
    enough, paragraphs of other articles. Who can't have a shared header has demonstrations of their
    own, and of these, if there are enough, ones that aren't asked about; where articles aren't
    known, any that aren't.

    Args:
        asked: The questions, by id.
        pool: What to choose from, by id.
        n: How many.
        per_text: Most questions on a paragraph.
        seed: Varies the choice, which depends on it and the ids only.
        headers: About how many headers paragraphs share; `item`: each paragraph has its own.
        comparable: Whether the paragraphs of both are numbered alike: of one data set.

    Returns:
        By paragraph.

    Raises:
        ValueError: a number below 0, or of a paragraph below 1, or too few questions.
    """
    check_headers(headers)
    if n < 0 or per_text < 1:
        raise InputError(
            f"shots={n}, per_text={per_text}: give the number of demonstrations, 0 or more, and "
            "of how many of them may ask about one text, 1 or more."
        )
    paragraphs = dict.fromkeys(item.paragraph for item in asked.values())
    if not n:
        return Shown({paragraph: () for paragraph in paragraphs}, shared=False)
    texts: dict[str, list[str]] = {}
    for id, item in pool.items():
        texts.setdefault(item.paragraph, []).append(id)
    room = {text: min(per_text, len(ids)) for text, ids in texts.items()}
    fresh = [text for text in texts if text not in paragraphs] if comparable else []
    found: dict[str, tuple[str, ...]] = {}
    if headers != "item":
        known = [*paragraphs, *(texts if comparable else ())]
        apart_from = set(fresh)
        new = {id: item for id, item in pool.items() if item.paragraph in apart_from}
        # Enough: as many as asked for, or one for every two paragraphs.
        enough = min(headers, (len(paragraphs) + 1) // 2)
        few = len(_cut(new, pool, n, per_text, headers, seed)) < enough
        shared = pool if few else new
        found = _dealt(paragraphs, known, shared, n, per_text, headers, seed, comparable)
    for paragraph in paragraphs:
        if paragraph in found:
            continue
        near = [text for text in texts if not comparable or text != paragraph]
        far = [text for text in near if not comparable or apart(text, paragraph)]
        best = [text for text in fresh if apart(text, paragraph)]
        # From the best kind of text to whatever is left; the first with room for all.
        orders = (best, far, fresh, near)
        offered = next((t for t in orders if sum(map(room.__getitem__, t)) >= n), None)
        if offered is None:
            raise InputError(
                f"The questions on paragraph {paragraph} need {n} demonstrations, but there are "
                f"{sum(room[text] for text in near)} on other paragraphs (at most {per_text} of "
                "each). Ask for fewer shots, or give more questions as pool=."
            )
        found[paragraph] = _chosen(paragraph, offered, texts, n, per_text, seed)
    return Shown(found, shared=headers != "item")


def _dealt(
    paragraphs: Collection[str],
    known: Iterable[str],
    pool: Mapping[str, Reading],
    n: int,
    per_text: int,
    headers: int,
    seed: int,
    comparable: bool,
) -> dict[str, tuple[str, ...]]:
    """Headers that paragraphs share: of other articles where possible, else of other paragraphs."""
    # The strict rule first, and the loose one for whom that leaves without a header.
    tells: list[Callable[[str, str], bool]] = [
        lambda paragraph, id: comparable and not apart(pool[id].paragraph, paragraph),
        lambda paragraph, id: comparable and pool[id].paragraph == paragraph,
    ]
    dealt: dict[str, tuple[str, ...]] = {}
    for leaks in tells:
        dealt |= deal_headers(
            dict.fromkeys(known, ""),
            [paragraph for paragraph in paragraphs if paragraph not in dealt],
            {"": [*pool]},
            n,
            headers,
            seed=seed,
            leaks=leaks,
            cut=lambda ids, k, n, seed: _cut(ids, pool, k, per_text, n, seed),
        )
    return dealt


def _cut(
    ids: Iterable[str], pool: Mapping[str, Reading], k: int, per_text: int, n: int, seed: int
) -> list[tuple[str, ...]]:
    """At most `n` headers; no text is in two, and those that samples take last come first."""
    texts: dict[str, list[str]] = {}
    # `ReadingSet.sample` takes in this order forwards: from its end, samples lose nothing.
    for id in sorted(ids, key=lambda id: seeded_rank(id, seed=seed), reverse=True):
        texts.setdefault(pool[id].paragraph, []).append(id)
    order = sorted(texts, key=lambda text: seeded_rank(text, seed=seed), reverse=True)
    # Stable: texts with enough questions first, so that a header needs few of them.
    order.sort(key=lambda text: len(texts[text]) < min(k, per_text))
    made: list[tuple[str, ...]] = []
    header: list[str] = []
    for text in order:
        header += texts[text][: min(per_text, k - len(header))]
        if len(header) == k:
            made.append(tuple(header))
            header = []
        if len(made) == n:
            break
    return made


def _chosen(
    paragraph: str,
    offered: Sequence[str],
    texts: Mapping[str, Sequence[str]],
    n: int,
    per_text: int,
    seed: int,
) -> tuple[str, ...]:
    """Questions of as few texts as possible: those with enough of them come first."""

    def rank(text: str) -> tuple[bool, bytes]:
        return len(texts[text]) < min(n, per_text), seeded_rank(paragraph, text, seed=seed)

    ids: list[str] = []
    for text in sorted(offered, key=rank):
        own = sorted(texts[text], key=lambda id: seeded_rank(paragraph, id, seed=seed))
        ids += own[: min(per_text, n - len(ids))]
        if len(ids) == n:
            break
    return tuple(ids)
