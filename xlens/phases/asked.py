"""`Asked`: prompts with a right and a wrong answer, and other prompts to take states from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Int

from xlens.checks import typed
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.stats.resampling import DEFAULT_CLUSTER
from xlens.text import folded

_SPAN = "what follows"


@dataclass(frozen=True)
class Asked:
    """Prompts with what should follow each, and what should not.

    Attributes:
        prompts: Each ends where its answer begins.
        answers: The right answer to each, as it follows in the text: mind the leading space.
        others: A wrong one: the answer to another question about the same context, in the same
            language. Both occur in the context alike; only the question tells them apart.

    Raises:
        ValueError: not one of each per prompt, an empty text, or right and wrong the same.
    """

    prompts: Prompts
    answers: tuple[str, ...]
    others: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.prompts)
        if len(self.answers) != n or len(self.others) != n:
            raise InputError(
                f"{n} prompts come with {len(self.answers)} answers and {len(self.others)} wrong "
                "ones; give one of each per prompt, in their order."
            )
        for prompt, right, wrong in zip(self.prompts, self.answers, self.others, strict=True):
            if not right or not wrong or right == wrong:
                raise InputError(
                    f"Prompt {prompt.id!r} ({prompt.language}) has the answer {right!r} and the "
                    f"wrong answer {wrong!r}; two different texts are needed."
                )

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def meta(self) -> pd.DataFrame:
        """One row per prompt: `id`, `language` and the prompts' meta."""
        return self.prompts.to_frame().drop(columns="text")

    def take(self, rows: Sequence[int] | np.ndarray) -> "Asked":
        """These prompts by position, in this order."""
        chosen = [int(i) for i in rows]
        return Asked(
            Prompts(self.prompts[i] for i in chosen),
            tuple(self.answers[i] for i in chosen),
            tuple(self.others[i] for i in chosen),
        )

    def rows(self) -> dict[tuple[str, str], int]:
        """Where each (id, language) stands."""
        return {(p.id, p.language): i for i, p in enumerate(self.prompts)}


@typed
def same_context(
    prompts: Prompts | Sequence[Prompt],
    answers: Sequence[str],
    *,
    by: str = DEFAULT_CLUSTER,
) -> tuple[Asked, Asked]:
    """Each question beside another one about the same context.

    The partner is the next question of the context, round in a circle, whose answer differs in
    every language. The pairing is by id, the same in all languages.

    Args:
        prompts: Questions.
        answers: The right answer to each.
        by: The prompts' meta column that names the context.

    Returns:
        The questions that have a partner, and their partners under the questions' own ids: donors
        for patching. Each one's wrong answer is the other's right one.

    Raises:
        ValueError: not one answer per prompt, no such column, or no question with a partner.
    """
    asked = prompts if isinstance(prompts, Prompts) else Prompts(prompts)
    if len(answers) != len(asked):
        raise InputError(f"{len(asked)} prompts come with {len(answers)} answers; give one each.")
    said = {(p.id, p.language): a for p, a in zip(asked, answers, strict=True)}
    where = {(p.id, p.language): i for i, p in enumerate(asked)}
    partner: dict[str, str] = {}
    for ids in _groups(asked, by).values():
        for i, id in enumerate(ids):
            # Round the circle from the next one on, itself left out.
            later = [*ids[i + 1 :], *ids[:i]]
            if found := next((x for x in later if _differ(id, x, said, asked.languages)), None):
                partner[id] = found
    kept = [p for p in asked if p.id in partner]
    if not kept:
        raise InputError(
            f"No question has another one about the same {by!r} with another answer in every "
            "language; patching needs one to take states from."
        )
    takers = [where[p.id, p.language] for p in kept]
    givers = [where[partner[p.id], p.language] for p in kept]
    right, wrong = tuple(answers[i] for i in takers), tuple(answers[i] for i in givers)
    # States go to prompts by id: so a donor bears the id of the one that it gives to.
    donors = Prompts(replace(asked[g], id=asked[t].id) for t, g in zip(takers, givers, strict=True))
    return Asked(Prompts(kept), right, wrong), Asked(donors, wrong, right)


@typed
def other_context(asked: Asked, *, by: str = DEFAULT_CLUSTER, context: str = "context") -> Asked:
    """Each question over another context, under its own id: donors that know only the question.

    The context's text is exchanged; question, demonstrations and cue stay as they are. So a donor's
    state tells which question was asked, and what kind of answer it wants, but not the answer: what
    the prompt's own right answer loses by it has been fetched from the context. Contexts come from
    half way round the circle, as neighbours are often of one article, and from there on the first
    that holds none of the answers.

    Args:
        asked: Questions, with wrong answers of their own contexts.
        by: The prompts' meta column that names the context.
        context: The span that is exchanged.

    Returns:
        The same ids, languages and answers; the donors' spans within the old context are gone.

    Raises:
        ValueError: no such column or span, a single context, or a context that lacks a language.
    """
    groups = _groups(asked.prompts, by)
    if len(groups) < 2:
        raise InputError(f"All prompts have the same {by!r}; donors must come from another one.")
    texts: dict[tuple[object, str], str] = {}
    said: dict[object, set[str]] = {}
    for prompt, right, wrong in zip(asked.prompts, asked.answers, asked.others, strict=True):
        texts.setdefault((prompt.meta[by], prompt.language), prompt.part(context))
        said.setdefault(prompt.meta[by], set()).update(
            folded(text).strip() for text in (right, wrong)
        )

    def holds(name: object, answers: set[str]) -> bool:
        whole = folded(" ".join(texts.get((name, tag), "") for tag in asked.prompts.languages))
        return any(answer in whole for answer in answers)

    names = list(groups)
    half = len(names) // 2
    partner: dict[object, object] = {}
    for n, name in enumerate(names):
        # All of them once, from half way round; its own is among them, wherever it stands.
        others = [names[(n + half + k) % len(names)] for k in range(len(names))]
        others.remove(name)
        # Where each holds some answer (short ones, such as a year), the first must do.
        partner[name] = next((x for x in others if not holds(x, said[name])), others[0])
    prompts: list[Prompt] = []
    for prompt in asked.prompts:
        key = (partner[prompt.meta[by]], prompt.language)
        if key not in texts:
            raise InputError(f"The {by} {key[0]!r} is missing in {key[1]!r}.")
        prompts.append(_exchanged(prompt, context, texts[key]))
    return Asked(Prompts(prompts), asked.answers, asked.others)


def _exchanged(prompt: Prompt, name: str, text: str) -> Prompt:
    """A prompt with another text in one of its spans; what lay within or across it is gone."""
    start, stop = prompt.spans[name]
    longer = len(text) - (stop - start)
    spans = {name: (start, start + len(text))}
    for other, (a, b) in prompt.spans.items():
        if other != name and b <= start:
            spans[other] = (a, b)
        elif other != name and a >= stop:
            spans[other] = (a + longer, b + longer)
    whole = prompt.text[:start] + text + prompt.text[stop:]
    return replace(prompt, text=whole, spans=spans)


@typed
def answer_tokens(model: HookedModel, asked: Asked) -> Int[np.ndarray, "prompt 2"]:
    """First tokens of the right and the wrong answer, as the tokenizer cuts them after the prompt.

    -1 in both places where they are the same token: such a prompt can't tell right from wrong.

    Raises:
        ValueError: an answer whose beginning the tokenizer joins with the prompt's end.
    """
    plain = model.tokenize(list(asked.prompts), spans=frozenset())
    columns: list[list[int]] = []
    for texts in (asked.answers, asked.others):
        whole = [
            Prompt(p.text + text, p.language, p.id, {_SPAN: (len(p.text), len(p.text) + len(text))})
            for p, text in zip(asked.prompts, texts, strict=True)
        ]
        column: list[int] = []
        for before, after in zip(plain, model.tokenize(whole), strict=True):
            n = len(before)
            # A token across the border would stand for both, and
            # the prompt alone would end otherwise.
            if tuple(after.ids[:n]) != tuple(before.ids) or len(after) == n:
                raise InputError(
                    f"Prompt {before.prompt.id!r} ({before.prompt.language}) ends in "
                    f"{before.prompt.text[-8:]!r}, and the tokenizer joins this with what follows "
                    f"({after.prompt.text[len(before.prompt.text) :][:8]!r}). End the prompt "
                    "before the space, and begin the answer with it."
                )
            column.append(int(after.ids[n]))
        columns.append(column)
    # [prompt, 2]: right, wrong.
    ids = np.array(columns).T
    ids[ids[:, 0] == ids[:, 1]] = -1
    return ids


def require_before_last(model: HookedModel, asked: Asked, span: str) -> None:
    """Refuse a span that holds the prompt's last token.

    What happens at the last position could not be told from what happens in the span.

    Raises:
        ValueError: it does in some prompt, or a prompt lacks it.
    """
    for tokens in model.tokenize(list(asked.prompts), spans=frozenset((span,))):
        if tokens.spans[span][1] >= len(tokens):
            prompt = tokens.prompt
            raise InputError(
                f"Span {span!r} of prompt {prompt.id!r} ({prompt.language}) reaches the prompt's "
                f"last token ({prompt.text[-12:]!r}), where the answer is predicted. Let something "
                "follow it (a cue such as 'Answer:'), or end the span before its last token."
            )


def _groups(prompts: Prompts, by: str) -> Mapping[object, list[str]]:
    """Ids by context, in order of first appearance."""
    found: dict[object, dict[str, None]] = {}
    for prompt in prompts:
        if by not in prompt.meta:
            raise InputError(
                f"Prompt {prompt.id!r} ({prompt.language}) has no {by!r} in its meta, which says "
                f"what it is about; there is {list(prompt.meta)}. Name another column: by=."
            )
        found.setdefault(prompt.meta[by], {})[prompt.id] = None
    return {key: list(ids) for key, ids in found.items()}


def _differ(a: str, b: str, said: Mapping[tuple[str, str], str], languages: Sequence[str]) -> bool:
    """Whether two questions have other answers in every language, and exist in the same ones."""
    both = [((a, x) in said, (b, x) in said, x) for x in languages]
    return all(
        one == other and (not one or folded(said[a, x]) != folded(said[b, x]))
        for one, other, x in both
    )
