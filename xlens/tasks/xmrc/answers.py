"""What models answer: one row per question, with all that scores and errors are computed from."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pandas as pd

from xlens.checks import typed
from xlens.engine import generate, room_for
from xlens.engine.generate import GENERATION
from xlens.engine.interventions import Interventions
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.results import Result, jsonable
from xlens.store import Store
from xlens.tasks.xmrc.replies import first_line

MAX_NEW_TOKENS = 32
KEY = ("control", "context_language", "question_language", "answer_language")
"""Columns that name a cell: the languages, and how contexts were exchanged, if they were."""
_LISTS = ("references", "question_references")


@dataclass(frozen=True, kw_only=True)
class Predictions(Result):
    """A model's answers.

    Attributes:
        model: Its name.
        table: One row per prompt: `id paragraph control context_language question_language
            answer_language question context references question_references prompt text
            prediction`, and what is known of `shots cut n_tokens reason`. `prompt` is a hash of the
            prompt, `text` all that the model wrote, `prediction` the first line that says
            something, without thoughts and the answer's label.
    """

    model: str
    table: pd.DataFrame

    def __post_init__(self) -> None:
        table = self.table.copy()
        for name in _LISTS:  # Parquet gives arrays back
            table[name] = [list(values) for values in table[name]]
        object.__setattr__(self, "table", table)

    def __len__(self) -> int:
        return len(self.table)

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@typed
def answer_questions(
    model: HookedModel,
    prompts: Prompts | Sequence[Prompts],
    *,
    max_new_tokens: int | None = None,
    stop: str | Sequence[str] | None = None,
    interventions: Interventions = (),
    token_budget: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
) -> Predictions:
    """Let a model answer, greedily, all combinations of languages in one run.

    Prompts on one paragraph run side by side, whatever their language: with `shots=0` the context
    is read once for all of them.

    Args:
        model: From `xlens.load`.
        prompts: From `reading_prompts`: of one combination, or several lists.
        max_new_tokens: Most tokens of an answer; None: what the longest right answer to these
            prompts needs in the model's own tokens, 32 or more.
        stop: Strings that end an answer; None: the end of a line, in a chat only the model's own
            end of a turn.
        interventions: Changes to the stream, with values in the prompts' order or by id; then of
            one combination.
        token_budget: Most tokens in a pass.
        store: Where answers are kept: a run that was killed goes on where it was.
        progress: Show a bar.

    Raises:
        ValueError: prompts of another task, the same combination twice, and what `generate`
            refuses, such as a prompt that doesn't fit into the model.
    """
    groups = [prompts] if isinstance(prompts, Prompts) else list(prompts)
    every = [prompt for group in groups for prompt in group]
    _require_readings(every)
    if interventions:  # their values go by order or id
        order, sent = list(range(len(every))), Prompts(every)
    else:
        # Neighbours share what they begin with, and a store keeps neighbours together.
        order = sorted(range(len(every)), key=lambda i: (str(every[i].meta["paragraph"]), i))
        sent = Prompts(_renamed(every[i]) for i in order)
    # A chat's answer may have several lines, and ends by itself.
    chats = [prompt.id for prompt in sent if prompt.meta["chat"]]
    ends: Any = stop
    if stop is None:
        ends = "\n" if not chats else {p.id: [] if p.meta["chat"] else ["\n"] for p in sent}
    if max_new_tokens is None:
        right = {str(a) for prompt in every for a in json.loads(str(prompt.meta["references"]))}
        max_new_tokens = answer_limit(right, model.tokenizer)
    made = generate(
        model,
        sent,
        max_new_tokens=max_new_tokens,
        stop=ends,
        interventions=interventions,
        token_budget=token_budget,
        store=store,
        progress=progress,
    )
    # Back to the order in which they were asked.
    place = {i: k for k, i in enumerate(order)}
    rows = made.table.iloc[[place[i] for i in range(len(order))]]
    said = "the end of a line; in a chat none" if stop is None else stop
    return predictions_of(
        groups,
        list(rows["text"]),
        model=model.name,
        provenance={
            **made.provenance,
            GENERATION: {**made.provenance[GENERATION], "stop": said},
        },
        more={"n_tokens": list(rows["n_tokens"]), "reason": list(rows["reason"])},
    )


def answer_limit(answers: Iterable[str], tokenizer: Any = None) -> int:
    """Tokens that the longest of these answers needs, as `room_for`: one limit for all."""
    return room_for((f" {answer}" for answer in answers), tokenizer, least=MAX_NEW_TOKENS)


@typed
def predictions_of(
    prompts: Prompts | Sequence[Prompts],
    texts: Sequence[str],
    *,
    model: str,
    provenance: Mapping[str, Any],
    more: Mapping[str, Sequence[Any]] | None = None,
) -> Predictions:
    """Answers that were made elsewhere, such as by a served model, as `Predictions`.

    Args:
        prompts: What was asked.
        texts: The answers, in the prompts' order.
        model: Who answered.
        provenance: How.
        more: Further columns.

    Raises:
        ValueError: prompts of another task, or not an answer for each.
    """
    groups = [prompts] if isinstance(prompts, Prompts) else list(prompts)
    every = [prompt for group in groups for prompt in group]
    _require_readings(every)
    if len(every) != len(texts):
        raise InputError(
            f"There are {len(every)} prompts but {len(texts)} answers; give one for each."
        )
    table = pd.DataFrame(
        [
            {
                "id": prompt.id,
                "paragraph": str(prompt.meta["paragraph"]),
                **{name: str(prompt.meta[name]) for name in KEY},
                "question": prompt.part("question"),
                "context": prompt.part("context"),
                **{name: json.loads(str(prompt.meta[name])) for name in _LISTS},
                "prompt": blake2b(prompt.text.encode(), digest_size=8).hexdigest(),
                "text": text,
                "prediction": first_line(text),
                "shots": prompt.meta["shots"],
                **{name: str(prompt.meta[name]) for name in ("header",) if name in prompt.meta},
                "cut": prompt.meta["cut"],
            }
            for prompt, text in zip(every, texts, strict=True)
        ]
    )
    for name, values in (more or {}).items():
        table[name] = list(values)
    how = [jsonable(getattr(group, "how", {})) for group in groups]
    return Predictions(model=model, table=table, provenance={**provenance, "prompts": how})


def _require_readings(prompts: Sequence[Prompt]) -> None:
    seen: set[tuple[str, ...]] = set()
    for prompt in prompts:
        if prompt.meta.get("task") != "xmrc":
            raise InputError(
                f"Prompt {prompt.id!r} ({prompt.language}) isn't of this task; make prompts with "
                "reading_prompts."
            )
        key = (prompt.id, *(str(prompt.meta[name]) for name in KEY))
        if key in seen:
            raise InputError(
                f"Question {prompt.id!r} is asked twice in {' '.join(key[2:])}; give each "
                "combination of languages once."
            )
        seen.add(key)


def _renamed(prompt: Prompt) -> Prompt:
    """With an id of its own among all combinations; an id names one prompt a language."""
    name = "/".join([*(str(prompt.meta[name]) for name in KEY), prompt.id])
    return Prompt(prompt.text, prompt.language, name, prompt.spans, prompt.meta)
