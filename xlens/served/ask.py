"""Asking: a few requests at a time, through the official client."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from xlens.errors import InputError, MachineError
from xlens.keys import Mask
from xlens.prompts import Prompt
from xlens.served.answers import Answer, check_answer
from xlens.served.model import ServedModel, read_key
from xlens.served.wire import OversizedError, connect
from xlens.store import StoreError

_SHOWN = 400  # characters of a server's own message
_READ = 10_000  # characters of it that are looked at


class ServedError(MachineError):
    """A prompt got no answer; the message says which, why, and what was kept."""


@dataclass(frozen=True)
class Question:
    """One request.

    Attributes:
        request: Its digest.
        body: What is sent, less `extra_body`.
        prompt: The first prompt that it answers.
    """

    request: str
    body: dict[str, Any]
    prompt: Prompt


def ask(
    served: ServedModel, questions: Sequence[Question], keep: Callable[[Question, Answer], None]
) -> list[tuple[Question, ServedError]]:
    """Ask all of `questions`, `keep` each answer when it comes, in whatever order they come.

    Where one fails, those under way are still waited for, and no others begun. Ctrl-C ends those
    under way at once.

    Returns:
        With `refused="empty"`, what the server did not take, and its words.

    Raises:
        ValueError: no client or no key; nothing was asked.
        ServedError: a request failed for good.
        StoreError: an answer can't be kept.
    """
    require_client()
    import openai
    from anyio import create_task_group
    from anyio.from_thread import start_blocking_portal

    key = read_key(served)
    mask = Mask(key)
    failures: list[ServedError | StoreError] = []
    refused: list[tuple[Question, ServedError]] = []
    waiting = iter(questions)

    async def work(client: Any) -> None:
        for question in waiting:  # shared by all workers: a question goes to one of them
            if failures:
                return
            try:
                answer = await _answer(client, served, question)
                words = {name: mask.kept(getattr(answer, name)) for name in _WORDS}
                answer = replace(answer, **words)
            except Exception as error:  # whatever a server may drive the client to
                told = _explained(served, question, error, mask)
                if isinstance(error, openai.BadRequestError) and served.refused == "empty":
                    refused.append((question, told))
                    continue
                failures.append(told)
                return
            try:
                keep(question, answer)
            except StoreError as error:
                failures.append(error)

    async def run() -> None:
        client = connect(served, key)
        async with client, create_task_group() as workers:
            for _ in range(min(served.concurrency, len(questions))):
                workers.start_soon(work, client)

    # A thread of its own: a notebook already runs an event loop in this one.
    with start_blocking_portal() as portal:
        portal.call(run)
    if failures:
        # Not from within `except`: the client's error holds the request with its headers.
        raise failures[0]
    return refused


def require_client() -> None:
    """Import the client, where there is one.

    Raises:
        ValueError: there is none.
    """
    try:
        import openai  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise InputError(
            "Asking a served model needs the package openai: pip install 'xlens-interp[api]'."
        ) from None


async def _answer(client: Any, served: ServedModel, question: Question) -> Answer:
    endpoint = client.chat.completions if served.chat else client.completions
    extra = dict(served.extra_body) or None
    # The bytes: the client's own objects take minutes for a few MB of empty lists, and let pass a
    # good deal that is no answer.
    found = await endpoint.with_raw_response.create(**question.body, extra_body=extra)
    return _read(json.loads(found.content), served.chat)


def _read(found: Any, chat: bool) -> Answer:
    """What is in a response.

    Raises:
        ValueError: not what the API gives.
    """
    found = _part(found, "response")
    choices = found.get("choices")
    if not isinstance(choices, list) or not choices:
        raise InputError(f"no choices in {_shown(found)}")
    choice = _part(choices[0], "choice")
    if chat:
        message = _part(choice.get("message"), "message")
        if not message.keys() & _SAYS:
            raise InputError(f"no content in {_shown(found)}")
        # Without content there is a refusal, a tool call, or a thought that took all the room.
        text = _given(message, "content", _given(message, "refusal", ""))
    else:
        text = choice.get("text")
    if not isinstance(text, str):
        raise InputError(f"no text in {_shown(found)}")
    usage = _part(_given(found, "usage", {}), "usage")
    answer = Answer(
        text=text,
        finish=_given(choice, "finish_reason", ""),
        read=_count(usage.get("prompt_tokens")),
        written=_count(usage.get("completion_tokens")),
        model=_given(found, "model", ""),
    )
    check_answer(answer)
    return replace(answer, **{name: _whole(getattr(answer, name)) for name in _WORDS})


_WORDS = ("text", "finish", "model")
_SAYS = {"content", "refusal", "tool_calls", "function_call", "reasoning", "reasoning_content"}


def _part(found: Any, what: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise InputError(f"no object as {what}: {_shown(found)}")
    return cast(dict[str, Any], found)


def _given(owner: dict[str, Any], name: str, default: Any) -> Any:
    found = owner.get(name)
    return default if found is None else found


def _count(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _whole(text: str) -> str:
    """`text` without halves of surrogate pairs, which can't be written to a file."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _shown(found: Any) -> str:
    return json.dumps(found, ensure_ascii=False)[:_READ]


def _words(error: Any) -> str:
    """What a server says with a status; the client's own message leaves most of it out."""
    body = getattr(error, "body", None)
    if isinstance(body, dict):  # where OpenAI puts it, and where FastAPI does
        body = body.get("message") or body.get("detail") or body
    return f"status {error.status_code}: {body}" if hasattr(error, "status_code") else str(error)


def _explained(
    served: ServedModel, question: Question, error: Exception, mask: Mask
) -> ServedError:
    """The error for people, without the key: a server may repeat it in its message."""
    import openai

    what, retried = _words(error), True
    match error:
        case openai.APITimeoutError():
            what = f"no answer within {served.timeout:g} s"
            fix = "Raise timeout, or lower concurrency."
        case openai.APIConnectionError():
            what = f"no connection ({error.__cause__})"
            fix = "Is the server running, and base_url its address?"
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            variable = served.api_key_env or "OPENAI_API_KEY"
            sent = f"the key in {variable}" if mask else "no key: name its variable in api_key_env"
            retried, fix = False, f"It was asked with {sent}."
        case openai.NotFoundError():
            retried = False
            fix = "Does base_url end with the server's '/v1', and does it know the model and the "
            fix += f"{'chat ' * served.chat}completions API?"
        case openai.RateLimitError():
            fix = "Lower concurrency, raise max_retries, or see what the account has left."
        case openai.BadRequestError():
            retried = False
            fix = "The server does not take this request: see its words."
            if served.refused == "error":
                fix += " Where only some prompts are so, refused='empty' (--refused empty) counts "
                fix += "them as empty answers."
        case openai.APIStatusError() if error.status_code < 400:
            retried = False
            what = (
                f"status {error.status_code}: it sends to {error.response.headers.get('location')}"
            )
            fix = "No prompt follows to another address: give that one as base_url if you mean it."
        case openai.APIStatusError():
            retried = error.status_code >= 500
            fix = "" if retried else "The server does not take this request: see its words."
        case OversizedError():
            retried, what, fix = False, str(error), "Does base_url lead to such an API?"
        case RecursionError():
            retried = False
            what = "its answer is JSON within JSON without an end"
            fix = "Is base_url the address of an OpenAI-compatible API, with its '/v1'?"
        case _:
            what = f"its answer is none of the OpenAI API's ({error})"
            retried, fix = False, "Is base_url the address of such an API, with its '/v1'?"
    what = mask.text(_whole(what))  # before anything is shortened: half a key is a key's half
    what = " ".join(what.split())
    what = what if len(what) <= _SHOWN else what[:_SHOWN] + "…"
    tries = f" after {served.max_retries + 1} tries" if retried and served.max_retries else ""
    prompt = question.prompt
    return ServedError(
        f"Prompt {prompt.id!r} ({prompt.language}) got no answer from {served.model!r} at "
        f"{served.endpoint}{tries}: {what.rstrip('.')}. {fix}".rstrip()
    )
