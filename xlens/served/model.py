"""`ServedModel`: where a model is served and how to ask it. Holds no key."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from xlens.checks import check_fields
from xlens.errors import InputError
from xlens.store import digest

OPENAI = "https://api.openai.com/v1"
_OPENAI_HOSTS = (".openai.com", ".openai.azure.com")
_OPENAI_STOPS = 4  # more stop strings than this it refuses
Refused = Literal["error", "empty"]
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")  # a key put here by mistake is rarely in capitals


@dataclass(frozen=True)
class ServedModel:
    """A model behind an OpenAI-compatible endpoint: OpenAI, vLLM, `transformers serve`, ….

    The key is in the environment and stays there: it is read when something is asked, and is in no
    attribute, result, file or message.

    Attributes:
        model: Its name on the server.
        base_url: The endpoint, with its `/v1`; None: OpenAI's own.
        chat: Whether to ask for chat completions, the prompt being what the user says; else for
            plain completions of the prompt as it stands.
        system: What the system says before (chat only).
        api_key_env: The environment variable that holds the key. None: `OPENAI_API_KEY` for
            OpenAI's own addresses and no key for any other, so that no key goes where it was not
            sent on purpose.
        concurrency: Most requests under way at a time.
        timeout: Seconds that a try may take as a whole, to the answer's last byte.
        max_retries: How often a request is repeated after 408, 409, 429, 5xx, a timeout or a broken
            connection, with growing pauses, or those the server asks for.
        temperature: 0 is greedy as far as the server goes; its answers may still depend on what
            else it computes. None leaves it to the server, for models that refuse it.
        refused: What becomes of a prompt that the server does not take (status 400: a content
            filter, too long): an `error` that ends the run, or an `empty` answer, whose `reason` is
            "refused". Where not one prompt is taken, it is an error all the same.
        price_in: Price of a million prompt tokens, in any currency.
        price_out: Price of a million generated tokens.
        extra_body: Further fields of every request, such as `{"top_p": 0.9}` or vLLM's
            `{"chat_template_kwargs": {"enable_thinking": False}}`. They go into results: no keys.

    Raises:
        ValueError: something here that can't be.
    """

    model: str
    base_url: str | None = None
    _: KW_ONLY
    chat: bool = True
    system: str | None = None
    api_key_env: str | None = None
    concurrency: int = 8
    timeout: float = 120.0
    max_retries: int = 6
    temperature: float | None = 0.0
    refused: Refused = "error"
    price_in: float | None = None
    price_out: float | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.model:
            raise InputError("model is empty; give the name that the server knows the model by.")
        address = urlsplit(self.endpoint)
        if "@" in address.netloc or address.query or address.fragment:
            # Not echoed: it may hold a key.
            raise InputError(
                "base_url has a user, a password, a '?' or a '#' in it. A key belongs in an "
                "environment variable, named by api_key_env; the address is written into results."
            )
        if address.scheme not in ("http", "https") or not address.hostname:
            raise InputError(
                f"base_url is {self.base_url!r}; expected an address such as "
                "'http://localhost:8000/v1'."
            )
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            raise InputError(
                "api_key_env takes the name of an environment variable in capitals, such as "
                "'OPENAI_API_KEY', not the key (so what was given is not shown)."
            )
        if self.system is not None and not self.chat:
            raise InputError("system needs chat=True: a plain completion has no system text.")
        if self.concurrency < 1 or self.max_retries < 0 or not self.timeout > 0:
            raise InputError(
                f"concurrency is {self.concurrency}, max_retries {self.max_retries} and timeout "
                f"{self.timeout}; expected at least 1, at least 0 and more than 0 seconds."
            )
        if self.temperature is not None:
            check_temperature(self.temperature)
        if self.refused not in get_args(Refused):
            raise InputError(
                f"refused is {self.refused!r}; accepted are {', '.join(get_args(Refused))}."
            )
        prices = (self.price_in, self.price_out)
        if prices.count(None) == 1 or any(price is not None and price < 0 for price in prices):
            raise InputError(
                f"price_in is {self.price_in} and price_out {self.price_out}; give both, each per "
                "million tokens and not below 0, or neither."
            )
        digest(dict(self.extra_body))  # refuses what JSON can't say

    @property
    def endpoint(self) -> str:
        """The address that is asked."""
        return (OPENAI if self.base_url is None else self.base_url).rstrip("/")

    @property
    def official(self) -> bool:
        """Whether the endpoint is OpenAI's own, which has rules of its own."""
        host = urlsplit(self.endpoint).hostname or ""
        return host.endswith(_OPENAI_HOSTS)

    def provenance(self) -> dict[str, Any]:
        """What results record about this model."""
        priced = self.price_in is not None
        return {
            "model": self.model,
            "endpoint": self.endpoint,
            "api": "chat completions" if self.chat else "completions",
            "system": self.system,
            "temperature": None if self.temperature is None else float(self.temperature),
            "extra_body": dict(self.extra_body),
            "prices": {"in": self.price_in, "out": self.price_out} if priced else None,
        }

    def request(
        self,
        text: str,
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        temperature: float | None,
        seed: int | None = None,
    ) -> dict[str, Any]:
        """The body of the request that asks for what follows `text`, less `extra_body`."""
        body: dict[str, Any] = {"model": self.model}
        if self.chat:
            system = [] if self.system is None else [{"role": "system", "content": self.system}]
            body["messages"] = [*system, {"role": "user", "content": text}]
        else:
            body["prompt"] = text
        # Newer models of OpenAI refuse the name that every other server knows.
        room = "max_completion_tokens" if self.chat and self.official else "max_tokens"
        body[room] = max_new_tokens
        if stop:  # what isn't sent is cut here
            body["stop"] = list(stop[:_OPENAI_STOPS] if self.official else stop)
        if temperature is not None:
            body["temperature"] = temperature
        if seed is not None:
            body["seed"] = seed
        return body


def check_temperature(temperature: float) -> None:
    """Refuse what no server takes.

    Raises:
        ValueError: below 0, or no number.
    """
    if not 0 <= temperature < math.inf:
        raise InputError(f"temperature is {temperature}; expected 0 (greedy), more, or None.")


def read_key(served: ServedModel) -> str | None:
    """The key, from the environment; None where none is sent.

    Raises:
        ValueError: the variable is not set, or holds what can't be sent.
    """
    name = served.api_key_env or ("OPENAI_API_KEY" if served.official else None)
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise InputError(
            f"{served.endpoint} is asked with the key in the environment variable {name}, which is "
            "not set. Set it in the shell that starts Python; a server without keys needs "
            "api_key_env=None."
        )
    if not (key.isascii() and key.isprintable()):
        raise InputError(
            f"The key in the environment variable {name} has characters that can't be sent, such "
            "as a line break or a typographic quote; set it again."
        )
    return key
