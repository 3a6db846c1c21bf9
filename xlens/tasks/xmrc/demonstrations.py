"""Which questions are demonstrated before which: by paragraph and seed, whatever the language."""

from collections.abc import Mapping, Sequence

from xlens.errors import InputError
from xlens.prompts.fewshot import seeded_rank
from xlens.tasks.xmrc.data import Reading, apart


def demonstrated(
    asked: Mapping[str, Reading],
    pool: Mapping[str, Reading],
    n: int,
    *,
    per_text: int,
    seed: int,
    comparable: bool,
) -> dict[str, tuple[str, ...]]:
    """Ids of `pool` to show before the questions on each paragraph.

    Up to `per_text` questions on a paragraph, then the next one. Never the paragraph asked about;
    if there are enough, paragraphs of other articles; and of these, if there are enough, ones that
    aren't asked about. Where articles aren't known, any that aren't asked about, if there are
    enough.

    Args:
        asked: The questions, by id.
        pool: What to choose from, by id.
        n: How many.
        per_text: Most questions on a paragraph.
        seed: Varies the choice, which depends on it and the ids only.
        comparable: Whether the paragraphs of both are numbered alike: of one data set.

    Raises:
        ValueError: a number below 0, or of a paragraph below 1, or too few questions.
    """
    if n < 0 or per_text < 1:
        raise InputError(
            f"shots={n}, per_text={per_text}: give the number of demonstrations, 0 or more, and "
            "of how many of them may ask about one text, 1 or more."
        )
    paragraphs = dict.fromkeys(item.paragraph for item in asked.values())
    if not n:
        return {paragraph: () for paragraph in paragraphs}
    texts: dict[str, list[str]] = {}
    for id, item in pool.items():
        texts.setdefault(item.paragraph, []).append(id)
    room = {text: min(per_text, len(ids)) for text, ids in texts.items()}
    fresh = [text for text in texts if text not in paragraphs] if comparable else []
    found: dict[str, tuple[str, ...]] = {}
    for paragraph in paragraphs:
        near = [text for text in texts if not comparable or text != paragraph]
        far = [text for text in near if not comparable or apart(text, paragraph)]
        best = [text for text in fresh if apart(text, paragraph)]
        orders = (best, far, fresh, near)
        offered = next((t for t in orders if sum(map(room.__getitem__, t)) >= n), None)
        if offered is None:
            raise InputError(
                f"The questions on paragraph {paragraph} need {n} demonstrations, but there are "
                f"{sum(room[text] for text in near)} on other paragraphs (at most {per_text} of "
                "each). Ask for fewer shots, or give more questions as pool=."
            )
        found[paragraph] = _chosen(paragraph, offered, texts, n, per_text, seed)
    return found


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
