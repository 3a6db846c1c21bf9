"""Prompts of reading comprehension in any combination of languages, all their parts named."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from xlens.checks import typed
from xlens.errors import InputError
from xlens.headers import HEADERS, Headers
from xlens.languages import named_in, standardize, written
from xlens.prompts import Prompt, Prompts
from xlens.prompts.fewshot import Shown
from xlens.tasks.chat import in_chat
from xlens.tasks.xmrc.data import Reading, ReadingSet
from xlens.tasks.xmrc.demonstrations import demonstrated
from xlens.tasks.xmrc.segments import Span, holding, sentences
from xlens.tasks.xmrc.settings import Combination
from xlens.tasks.xmrc.templates import ReadingTemplate, template_of

TooLong = Literal["refuse", "truncate", "skip"]
SHOTS = PER_TEXT = 3


class ReadingPrompts(Prompts):
    """The prompts of one combination of languages.

    Attributes:
        how: How they were made: languages, template, shots, what was too long and what became of
            it (`skipped`, `truncated`, and by `paired` `unpaired`: ids). Selections of these
            prompts are plain `Prompts`; each keeps its own `meta`.
    """

    def __init__(self, prompts: Iterable[Prompt], how: Mapping[str, Any]) -> None:
        super().__init__(prompts)
        self.how = dict(how)


@typed
def reading_prompts(
    reading: ReadingSet,
    *,
    context: str = "en",
    question: str = "en",
    answer: str | None = None,
    shots: int | None = None,
    per_text: int = PER_TEXT,
    seed: int = 0,
    headers: Headers = HEADERS,
    pool: ReadingSet | None = None,
    instruction: str | None = "context",
    template: ReadingTemplate | Mapping[str, str] | None = None,
    chat: Any = None,
    too_long: TooLong = "refuse",
    limit: int | None = None,
    tokenizer: Any = None,
) -> ReadingPrompts:
    """Prompts that ask a question in one language about a context in another.

        Answer the question with a short phrase taken from the context.

        Context: The Rhine rises in the Alps. It flows north.
        Question: Wo entspringt der Rhein?
        Answer:

    Demonstrations stand before it, in the same form, with their right answers: the same questions
    in every language, one of `headers` that all paragraphs share, dealt by paragraph and seed
    alone, from other articles than the query's (from other paragraphs, where there is one article).
    All questions on a paragraph have the same ones, so that everything up to the question is run
    once, and what many paragraphs begin with, too.

    Spans: `context`; `sentence_0`, `sentence_1`, … each of its sentences; `answer` and
    `answer_sentence` (from the first to the last that the answer touches); `question`; and
    `instruction` and `demonstrations` where there are any. Meta: `task`, `paragraph`, the three
    languages, `references` and `question_references` (the right answers in the answer's and the
    question's language, as JSON), `shots`, `demonstrations` (ids joined by `|`), `header` (their
    name, where they are shared), `chat`, `cut` (sentences left out), `control`. A prompt's language
    is its question's.

    Args:
        reading: The questions.
        context: Language of the paragraph.
        question: Language of the question.
        answer: Language of the right answer; None: the context's, where the answer can be copied.
            Another one is named in the prompt.
        shots: Demonstrations; None: three in plain prompts, which a base model needs to see what
            is asked of it, none in a chat.
        per_text: Most of them about one text, which is then shown once.
        seed: Varies the choice of demonstrations.
        headers: About how many headers of `shots` demonstrations paragraphs share, fewer where
            there are few texts; `item`: demonstrations of each paragraph's own.
        pool: Questions to demonstrate with, in these languages; None: `reading` itself.
        instruction: Whose language instruction and labels are in: `context`, `question`, `answer`,
            or a tag; None: the context's labels, without the instruction.
        template: The words, instead of this project's own; or some of them by name (`answer`).
        chat: A tokenizer whose chat template makes turns of question and answer; None: plain text.
        too_long: What becomes of prompts of more than `limit` tokens: `refuse` them, `skip` them,
            or `truncate` the context sentence by sentence, farthest from the answer first. Each
            combination skips its own: `paired` leaves the others' out as well.
            Truncating brings the answer towards the middle, and tells the model something.
        limit: Most tokens of a prompt, for example `model.n_ctx - 32`; None: any.
        tokenizer: Counts them; None: `chat`.

    Raises:
        ValueError: a language that isn't there, languages that differ in a set that isn't
            parallel, too few questions to demonstrate with, no template in a language, a tokenizer
            without a chat template, and prompts that are too long.
    """
    form = _Form.of(reading, context, question, answer, instruction, template, chat)
    n = (0 if chat else SHOTS) if shots is None else shots
    shown = _shown(form, reading, pool or reading, n, per_text, seed, headers)
    counted = chat if tokenizer is None else tokenizer
    if limit is not None and (counted is None or limit < 1):
        raise InputError(
            f"limit={limit} needs at least 1 token and a tokenizer to count them: give tokenizer=."
        )

    def fits(prompt: Prompt) -> bool:
        return limit is None or len(counted(prompt.text)["input_ids"]) <= limit

    made: list[Prompt] = []
    over: list[str] = []
    for id in form.told:
        prompt = form.prompt(id, shown)
        if not fits(prompt):
            over.append(id)
            if too_long == "skip":
                continue
            if too_long == "truncate":
                prompt = _shortened(form, id, shown, fits)
            if not fits(prompt):
                raise InputError(
                    f"The prompt of question {id!r} has more than {limit} tokens"
                    + (", with one sentence of context" if too_long == "truncate" else "")
                    + ". Ask for fewer shots, or too_long='truncate' or 'skip', or use a model "
                    "that reads more."
                )
        made.append(prompt)
    if not made:
        raise InputError(f"All {len(over)} prompts have more than {limit} tokens; nothing is left.")
    how = {
        **form.how,
        "source": reading.source,
        "control": reading.control,
        "other_articles": reading.other_articles,
        "demonstrations": (pool or reading).source if n else "",
        "shots": n,
        **({"headers": len({p.meta["header"] for p in made})} if shown.ids.names else {}),
        "per_text": per_text,
        "seed": seed,
        "limit": limit,
        "too_long": too_long,
        "skipped": over if too_long == "skip" else [],
        "truncated": over if too_long == "truncate" else [],
    }
    return ReadingPrompts(made, how)


@typed
def paired(prompts: Sequence[ReadingPrompts]) -> list[ReadingPrompts]:
    """The questions that are asked in every combination, so that scores are of the same texts.

    Where prompts that are too long are skipped, each language skips others. For sets whose
    languages share their questions.

    Args:
        prompts: From `reading_prompts`, of several combinations.

    Returns:
        The same without the rest, whose ids are in `how["unpaired"]`.

    Raises:
        ValueError: no question is asked in all of them.
    """
    if not prompts:
        return []
    common = set.intersection(*({prompt.id for prompt in group} for group in prompts))
    if not common:
        raise InputError(
            f"No question is asked in all {len(prompts)} combinations of languages: those that are "
            "left in one are too long in another. Ask for fewer shots or combinations, or "
            "too_long='truncate', or use a model that reads more."
        )
    made: list[ReadingPrompts] = []
    for group in prompts:
        alone = [prompt.id for prompt in group if prompt.id not in common]
        kept = (prompt for prompt in group if prompt.id in common)
        made.append(ReadingPrompts(kept, {**group.how, "unpaired": alone}))
    return made


class Turn(NamedTuple):
    """A demonstration: how it is asked, its answer, and whether its text is new."""

    text: str
    answer: str
    new: bool


@dataclass(frozen=True)
class _Shown:
    """Demonstrations: ids by paragraph, and what they look like."""

    ids: Shown
    turns: Mapping[tuple[str, ...], tuple[Turn, ...]]


@dataclass(frozen=True)
class _Form:
    """A combination of languages, its questions, and the words around them."""

    languages: Combination
    told: Mapping[str, Reading]
    asked: Mapping[str, Reading]
    answered: Mapping[str, Reading]
    template: ReadingTemplate
    answer_in: str
    chat: Any
    control: str
    how: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        reading: ReadingSet,
        context: str,
        question: str,
        answer: str | None,
        instruction: str | None,
        template: ReadingTemplate | Mapping[str, str] | None,
        chat: Any,
    ) -> "_Form":
        languages = Combination(
            *(reading.require([tag])[0] for tag in (context, question, answer or context))
        )
        if not reading.parallel and len(set(languages)) > 1:
            raise InputError(
                f"{reading.source} has other questions in every language, so {languages.question} "
                f"can't be asked of {languages.context}. Ask within a language (context='ar', "
                "question='ar'), or use a parallel set such as XQuAD or MLQA."
            )
        whose = {**languages._asdict(), None: languages.context}
        tag = whose.get(instruction) or str(instruction)
        given = template_of(tag, template)
        form = replace(given, instruction="") if instruction is None else given
        foreign = ""
        if languages.answer != languages.context:
            # Simplified and traditional Chinese are both Chinese.
            alike = written(languages.answer)[0] == written(languages.context)[0]
            name = named_in(languages.answer, tag, variant=alike)
            foreign = f"{form.language}{_gap(form.language)}{name}"
        how = {
            **{f"{part}_language": tag for part, tag in languages._asdict().items()},
            "instruction": instruction if instruction is None else standardize(tag),
            "template": asdict(form),
            "chat": bool(chat),
        }
        told, asked, answered = (reading.items(tag) for tag in languages)
        return cls(languages, told, asked, answered, form, foreign, chat, reading.control, how)

    def turns(self, pool: Sequence[Mapping[str, Reading]], ids: Sequence[str]) -> tuple[Turn, ...]:
        """Demonstrations, in order; a text is shown with the first of its questions."""
        if not ids:
            return ()
        told, asked, answered = pool
        made: list[Turn] = []
        seen = ""
        for id in ids:
            new = told[id].paragraph != seen
            block, _ = self._block(told[id].context if new else "", asked[id])
            made.append(Turn(block, answered[id].answers[0], new))
            seen = told[id].paragraph
        return tuple(made)

    def prompt(self, id: str, shown: _Shown, keep: range | None = None) -> Prompt:
        """The prompt of a question; with `keep`, of these sentences of its context only."""
        item = self.told[id]
        spans = self.sentences(id)
        part = spans if keep is None else spans[keep.start : keep.stop]
        begin, end = (0, len(item.context)) if keep is None else (part[0][0], part[-1][1])
        text, places = self._block(item.context[begin:end], self.asked[id])
        moved = places["context"][0] - begin
        places |= {f"sentence_{n}": (a + moved, b + moved) for n, (a, b) in enumerate(part)}
        if not self.control:
            stop = item.starts[0] + len(item.answers[0])
            places["answer"] = (item.starts[0] + moved, stop + moved)
            hit = holding(part, (item.starts[0], stop))
            places["answer_sentence"] = (part[hit[0]][0] + moved, part[hit[-1]][1] + moved)
        ids = shown.ids.ids[item.paragraph]
        before = shown.turns[ids]
        languages = {f"{part}_language": tag for part, tag in self.languages._asdict().items()}
        meta: dict[str, str | int] = {
            "task": "xmrc",
            "paragraph": item.paragraph,
            **languages,
            "references": json.dumps(self.answered[id].answers, ensure_ascii=False),
            "question_references": json.dumps(self.asked[id].answers, ensure_ascii=False),
            "shots": len(before),
            **shown.ids.meta(item.paragraph),
            "chat": bool(self.chat),
            "cut": len(spans) - len(part),
            "control": self.control,
        }
        if self.chat:
            alone = Prompt(text, self.languages.question, id, places, meta)
            return in_chat(alone, [(turn.text, turn.answer) for turn in before], self.chat)
        return self._plain(Prompt(text, self.languages.question, id, places, meta), before)

    def sentences(self, id: str) -> tuple[Span, ...]:
        return sentences(self.told[id].context, self.languages.context)

    def _block(self, context: str, asked: Reading) -> tuple[str, dict[str, Span]]:
        """One question as it is asked, and where its parts stand; the text only if it is new."""
        form = self.template
        places: dict[str, Span] = {}
        text = ""
        if self.chat and form.instruction and context:
            text, places["instruction"] = f"{form.instruction}\n\n", (0, len(form.instruction))
        for name, label, value in (
            ("context", form.context, context),
            ("question", form.question, asked.question),
        ):
            if value:
                text += f"{label}{_gap(label)}" if label else ""
                places[name] = (len(text), len(text) + len(value))
                text += f"{value}\n"
        text += f"{self.answer_in}\n" if self.answer_in else ""
        return (text.rstrip("\n") if self.chat else text + form.answer), places

    def _plain(self, block: Prompt, before: Sequence[Turn]) -> Prompt:
        """A block after the instruction and its demonstrations."""
        head = f"{self.template.instruction}\n\n" if self.template.instruction else ""
        gap = _gap(self.template.answer)
        shown = "".join(
            f"{chr(10) * (1 + turn.new)}{turn.text}{gap}{turn.answer}" for turn in before
        ).lstrip("\n")
        places: dict[str, Span] = {}
        if head:
            places["instruction"] = (0, len(self.template.instruction))
        if shown:
            places["demonstrations"] = (len(head), len(head) + len(shown))
            head += f"{shown}\n\n"
        places |= {name: (a + len(head), b + len(head)) for name, (a, b) in block.spans.items()}
        return Prompt(head + block.text, block.language, block.id, places, block.meta)


def _shown(
    form: _Form,
    reading: ReadingSet,
    pool: ReadingSet,
    n: int,
    per_text: int,
    seed: int,
    headers: Headers,
) -> _Shown:
    """The demonstrations before every paragraph's questions."""
    if n and pool.control:
        raise InputError(
            "The contexts of these questions are exchanged, so none can be demonstrated; give the "
            "set as it was as pool=, or shots=0."
        )
    items: list[Mapping[str, Reading]] = [pool.items(tag) for tag in form.languages if n]
    ids = demonstrated(
        form.told,
        items[0] if n else {},
        n,
        per_text=per_text,
        seed=seed,
        headers=headers,
        comparable=pool.source == reading.source,
    )
    return _Shown(ids, {each: form.turns(items, each) for each in set(ids.ids.values())})


def _shortened(form: _Form, id: str, shown: _Shown, fits: Callable[[Prompt], bool]) -> Prompt:
    """The prompt with as many sentences as fit, those next to the answer; at the least, its own."""
    spans = form.sentences(id)
    item = form.told[id]
    if form.control:
        core = range(0, 1)
    else:
        core = holding(spans, (item.starts[0], item.starts[0] + len(item.answers[0])))
    keep = range(0, len(spans))
    prompt = form.prompt(id, shown)
    while keep != core and not fits(prompt):
        before, after = core.start - keep.start, keep.stop - core.stop
        # One sentence at a time, from the side with more of them left; its answer's are never cut.
        keep = range(keep.start + (before > after), keep.stop - (before <= after))
        prompt = form.prompt(id, shown, keep)
    return prompt


def continued(prompt: Prompt, text: str) -> str:
    """An answer as it follows a reading prompt: after the space that a label leaves, if any."""
    return text if prompt.meta["chat"] else _gap(prompt.text) + text


def _gap(label: str) -> str:
    """What stands after a label: nothing after a full-width colon, which has its own space."""
    return "" if label.endswith("：") else " "
