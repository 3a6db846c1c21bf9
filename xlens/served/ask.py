"""Asking: a few requests at a time, through the official client."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from xlens.engine.store import StoreError
from xlens.prompts import Prompt
from xlens.served.answers import Answer
from xlens.served.model import ServedModel, read_key

_SHOWN = 400  # characters of a server's own message


class ServedError(RuntimeError):
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
    failures: list[ServedError | StoreError] = []
    refused: list[tuple[Question, ServedError]] = []
    waiting = iter(questions)

    async def work(client: Any) -> None:
        for question in waiting:  # shared by all workers: a question goes to one of them
            if failures:
                return
            try:
                answer = await _answer(client, served, question)
            except (openai.OpenAIError, ValueError) as error:
                if isinstance(error, openai.BadRequestError) and served.refused == "empty":
                    refused.append((question, _explained(served, question, error, key)))
                    continue
                failures.append(_explained(served, question, error, key))
                return
            try:
                keep(question, answer)
            except StoreError as error:
                failures.append(error)

    async def run() -> None:
        client = openai.AsyncOpenAI(
            api_key=key or "none",  # the client wants one
            base_url=served.endpoint,
            timeout=served.timeout,
            max_retries=served.max_retries,
        )
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
        raise ValueError(
            "Asking a served model needs the package openai: pip install 'xlens-interp[api]'."
        ) from None


async def _answer(client: Any, served: ServedModel, question: Question) -> Answer:
    endpoint = client.chat.completions if served.chat else client.completions
    found = await endpoint.create(**question.body, extra_body=dict(served.extra_body) or None)
    return _read(found, served.chat)


def _read(found: Any, chat: bool) -> Answer:
    """What the client made of the response; it lets pass a good deal that is none.

    Raises:
        ValueError: not what the API gives.
    """
    choices = getattr(found, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise ValueError(f"no choices in {found}")
    choice: Any = choices[0]
    if chat:
        message = getattr(choice, "message", None)
        if message is None:
            raise ValueError(f"no message in {found}")
        # Without content there is a refusal, a tool call, or a thought that took all the room.
        text = getattr(message, "content", None) or getattr(message, "refusal", None) or ""
    else:
        text = getattr(choice, "text", None)
    if not isinstance(text, str):
        raise ValueError(f"no text in {found}")
    usage = getattr(found, "usage", None)
    return Answer(
        # Half of a surrogate pair can't be written to a file.
        text=text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
        finish=_word(getattr(choice, "finish_reason", None)),
        read=_count(getattr(usage, "prompt_tokens", None)),
        written=_count(getattr(usage, "completion_tokens", None)),
        model=_word(getattr(found, "model", None)),
    )


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _words(error: Any) -> str:
    """What a server says with a status; the client's own message leaves most of it out."""
    body = getattr(error, "body", None)
    if isinstance(body, dict):  # where OpenAI puts it, and where FastAPI does
        body = body.get("message") or body.get("detail") or body
    return f"status {error.status_code}: {body}" if hasattr(error, "status_code") else str(error)


def _explained(
    served: ServedModel, question: Question, error: Exception, key: str | None
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
            sent = f"the key in {variable}" if key else "no key: name its variable in api_key_env"
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
        case openai.APIStatusError():
            retried = error.status_code >= 500
            fix = "" if retried else "The server does not take this request: see its words."
        case _:
            what = f"its answer is none of the OpenAI API's ({error})"
            retried, fix = False, "Is base_url the address of such an API, with its '/v1'?"
    if key:  # before anything is shortened: half a key is a key's half
        what = what.replace(key, "***")
    what = " ".join(what.split())
    what = what if len(what) <= _SHOWN else what[:_SHOWN] + "…"
    tries = f" after {served.max_retries + 1} tries" if retried and served.max_retries else ""
    prompt = question.prompt
    return ServedError(
        f"Prompt {prompt.id!r} ({prompt.language}) got no answer from {served.model!r} at "
        f"{served.endpoint}{tries}: {what.rstrip('.')}. {fix}".rstrip()
    )
