"""`served_generate`: what `generate` is for models that run elsewhere."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

import pandas as pd

from xlens.bars import tqdm
from xlens.checks import check_seed, typed
from xlens.engine import Generations
from xlens.engine.generate import GENERATION
from xlens.errors import InputError
from xlens.keys import Mask
from xlens.prompts import Prompts, PromptsLike
from xlens.prompts.prompt import first_prompt
from xlens.results import analysed, versions
from xlens.served.answers import Answer, Answers
from xlens.served.ask import Question, ServedError, ask
from xlens.served.model import ServedModel, check_temperature, read_key
from xlens.store import Store, digest

REFUSED = "refused"
_NONE = Answer("", REFUSED, None, None, "")


@dataclass(frozen=True, kw_only=True)
class ServedGenerations(Generations):
    """What a served model wrote after each prompt.

    Attributes:
        table: One row per prompt, in the prompts' order: `id language text n_tokens reason
            n_prompt_tokens request`. `text` ends before the stop string. The numbers of tokens are
            the server's, missing if it gave none; a server does not give the tokens themselves, so
            the column `tokens` of `Generations` is not here. `reason` is `stop` (with stop strings
            asked for: one of these or the model's own end, which servers do not tell apart), `eos`
            (without), `length`, or another word of the server's, such as `content_filter`;
            `refused` marks an empty answer to a prompt that the server did not take.
            `request` names the request; rows with the same one share an answer, paid for once.
    """

    @property
    def tokens(self) -> dict[str, int | None]:
        """Tokens that were read (`in`) and written (`out`), each request counted once.

        None if the server did not always say. Refused requests have none.
        """
        asked = self.table.drop_duplicates("request")
        asked = asked[asked["reason"] != REFUSED]
        columns = {"in": asked["n_prompt_tokens"], "out": asked["n_tokens"]}
        return {way: None if n.isna().any() else int(n.sum()) for way, n in columns.items()}

    @property
    def cost(self) -> float | None:
        """Their price, in the currency of the prices; None without prices or counts.

        Discounts, as for cached input, are not known here, nor what failed, refused or unkept
        requests cost.
        """
        prices: dict[str, float] | None = self.provenance["prices"]
        if prices is None:
            return None
        return _cost(prices, self.tokens)


@typed
def served_generate(
    served: ServedModel,
    prompts: PromptsLike,
    *,
    max_new_tokens: int = 32,
    stop: str | Sequence[str] | None = None,
    temperature: float | EllipsisType | None = ...,
    seed: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
) -> ServedGenerations:
    """Have a served model continue or answer prompts.

    Every answer is kept in `store` when it comes, under endpoint, model, prompt and options: a
    killed run goes on where it was, and no answer is paid for twice. Prompts of the same text share
    one request, unless it is sampled without a seed. What was refused is no answer: the next call
    asks it again.

    Args:
        served: The model and its endpoint.
        prompts: What to ask.
        max_new_tokens: Most tokens of each answer; those of a hidden thought count.
        stop: Strings that end an answer, at the first that is complete. Sent to the server, and cut
            here as well.
        temperature: Default: that of `served`. None leaves it to the server.
        seed: For servers that know one.
        store: A `Store` or its folder. None keeps nothing on disk.
        progress: Show a bar, and at the end tokens and cost, on stderr.

    Raises:
        ValueError: bad options, no `openai` package, no key, or one that stands in what is
            recorded; before anything is asked.
        ServedError: a prompt got no answer after all retries, or every one was refused. What was
            answered is in the store.
        StoreError: an answer can't be kept.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if isinstance(temperature, EllipsisType):
        temperature = served.temperature
    _check(max_new_tokens, stops, temperature)
    items = list(Prompts.of(prompts))
    heat = None if temperature is None else float(temperature)  # 0 and 0.0 are one key
    if seed is not None:
        check_seed(seed)
    options: dict[str, Any] = {"temperature": heat, "seed": seed}
    options |= {"max_new_tokens": max_new_tokens, "stop": list(stops)}
    origin = served.provenance()
    kind = {name: value for name, value in origin.items() if name != "prices"} | options
    answers = Answers(store, kind)

    draws: dict[str, int] = {}
    questions: list[Question] = []
    for prompt in items:
        body = served.request(prompt.text, **options)
        draw = 0
        if temperature != 0 and seed is None:  # sampled: each prompt is to have its own draw
            draw = draws[prompt.text] = draws.get(prompt.text, -1) + 1
        request = digest({"kind": kind, "body": body, "draw": draw})
        questions.append(Question(request, body, prompt))
    distinct = {q.request: q for q in reversed(questions)}
    todo = [q for q in questions if q.request not in answers and distinct[q.request] is q]
    refused: dict[str, ServedError] = {}
    if todo:
        Mask(read_key(served)).require_absent(kind)
        answers.prepare()
        refused = _ask(served, todo, answers, progress)
    if refused and len(refused) == len(distinct):
        # No filter and no window: the request as such is wrong.
        raise ServedError(
            f"All {len(refused)} requests were refused. {next(iter(refused.values()))}"
        )

    given = [answers.get(q.request) or _NONE for q in questions]
    table = pd.DataFrame([_row(q, a, stops) for q, a in zip(questions, given, strict=True)])
    counts = ["n_tokens", "n_prompt_tokens"]
    table[counts] = table[counts].astype("Int64")
    answered_by = sorted({answer.model for answer in given if answer is not _NONE})
    how = {"answered_by": answered_by, "refused": len(refused), "versions": versions()}
    found = ServedGenerations(
        provenance=analysed({**origin, **how, **first_prompt(items)}, GENERATION, options),
        table=table,
    )
    if progress:
        told = _told(found.tokens, found.cost)
        again = len(distinct) - len(todo)
        print(
            f"{served.model}: {len(distinct)} requests ({again} answered before), {told}",
            file=sys.stderr,
        )
        if refused:
            print(
                f"{len(refused)} of them were refused and count as empty answers, the first: "
                f"{next(iter(refused.values()))}",
                file=sys.stderr,
            )
    return found


def _ask(
    served: ServedModel, todo: Sequence[Question], answers: Answers, progress: bool
) -> dict[str, ServedError]:
    """Ask and keep; what was refused, and in what words, by request."""
    spent: dict[str, int | None] = {"in": 0, "out": 0}
    prices = served.provenance()["prices"]
    done = 0
    bar = tqdm(total=len(todo), desc=f"ask {served.model}", disable=not progress, leave=False)

    def keep(question: Question, answer: Answer) -> None:
        nonlocal done
        answers.keep(question.request, answer)
        done += 1
        spent["in"], spent["out"] = (
            _plus(spent["in"], answer.read),
            _plus(spent["out"], answer.written),
        )
        bar.set_postfix_str(_told(spent, _cost(prices, spent)), refresh=False)
        bar.update()

    try:
        with bar:
            refused = ask(served, todo, keep)
    except ServedError as error:
        where = "gone, as store=None" if answers.path is None else f"kept in {answers.path}"
        raise ServedError(
            f"{error} Of {len(todo)} requests {done} were answered: {where}."
        ) from None
    return {question.request: error for question, error in refused}


def _row(question: Question, answer: Answer, stops: tuple[str, ...]) -> dict[str, Any]:
    text, finish = answer.text, answer.finish
    if places := [at for at in (text.find(stop) for stop in stops) if at >= 0]:
        text, finish = text[: min(places)], "stop"
    elif finish == "stop" and not stops:
        finish = "eos"
    return {
        "id": question.prompt.id,
        "language": question.prompt.language,
        "text": text,
        "n_tokens": answer.written,
        "reason": finish,
        "n_prompt_tokens": answer.read,
        "request": question.request,
    }


def _plus(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more


def _cost(prices: dict[str, float] | None, tokens: dict[str, int | None]) -> float | None:
    if prices is None:
        return None
    parts = [None if (n := tokens[way]) is None else n * prices[way] / 1e6 for way in prices]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _told(tokens: dict[str, int | None], cost: float | None) -> str:
    if None in tokens.values():
        return "tokens not counted by the server"
    text = f"{tokens['in']:,} tokens in, {tokens['out']:,} out"
    return text if cost is None else f"{text}, cost {cost:,.6f}"


def _check(max_new_tokens: int, stops: tuple[str, ...], temperature: float | None) -> None:
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}; it must be at least 1 token.")
    if not all(stops):
        raise InputError(f"stop is {list(stops)!r:.200}; an empty string would stop at once.")
    if temperature is not None:
        check_temperature(temperature)
