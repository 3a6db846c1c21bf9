"""How models behind endpoints are asked: options of the command line, light until they are used."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from xlens import strict
from xlens.checks import check_fields, check_least
from xlens.errors import InputError

FREE = ("api_key_env", "concurrency", "price_in", "price_out", "refused")
"""What shapes no answer, and may be changed when a run is taken up again."""
_AT = re.compile(r"(.+)@(https?://.+)")


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How models behind OpenAI-compatible endpoints are asked.

    Attributes:
        served: An endpoint (with its /v1) that serves all the models.
        api_key_env: The environment variable with the endpoints' key; default: OPENAI_API_KEY for
            OpenAI's addresses, none for others.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million generated tokens.
        temperature: Sent to endpoints, default 0; `none`: nothing is, for models that refuse it.
        extra_body: Further fields of each request, as JSON. They are written down: no keys.
        refused: Prompts that an endpoint does not take (status 400: a content filter, too long):
            an error, or empty answers.
        concurrency: Most requests at a time.
    """

    served: str | None = None
    api_key_env: str | None = None
    price_in: float | None = None
    price_out: float | None = None
    temperature: float | Literal["none"] | None = None
    extra_body: str | None = None
    refused: Literal["error", "empty"] = "error"
    concurrency: int = 8

    def __post_init__(self) -> None:
        check_fields(self)
        check_least(self, concurrency=1)

    def options(self) -> dict[str, Any]:
        """As a run records them."""
        return asdict(self)

    def endpoints(self, models: Sequence[str], *, chat: bool) -> dict[str, Any]:
        """The `ServedModel` of each model that is served: those called `NAME@URL`, or all.

        Raises:
            ValueError: options for endpoints, but no endpoint; or a value that can't be.
        """
        places = {name: found.groups() for name in models if (found := _AT.fullmatch(name))}
        if self.served is not None:
            places = {name: (name, self.served) for name in models} | places
        if not places:
            self._refuse_options()
            return {}
        from xlens.served import ServedModel

        how: dict[str, Any] = {name: getattr(self, name) for name in FREE}
        if self.temperature is not None:
            how["temperature"] = None if self.temperature == "none" else self.temperature
        return {
            name: ServedModel(model, url, chat=chat, extra_body=_fields(self.extra_body), **how)
            for name, (model, url) in places.items()
        }

    def _refuse_options(self) -> None:
        given = [
            f"--{field.name.replace('_', '-')}"
            for field in fields(self)
            if field.name != "concurrency" and getattr(self, field.name) != field.default
        ]
        if given:  # without its value: it may be a key, given here by mistake
            raise InputError(
                f"{', '.join(given)} can be given for models behind an endpoint, and there is "
                "none: name one, as NAME@URL or with --served URL, or leave this out."
            )


def _fields(text: str | None) -> dict[str, Any]:
    try:
        found: Any = strict.loads(text or "{}")
    except ValueError as error:
        raise InputError(f"--extra-body is no JSON: {error!s:.200}. {_EXAMPLE}") from None
    if not isinstance(found, dict):
        raise InputError(f"--extra-body is JSON, but no object of names and values. {_EXAMPLE}")
    return {str(name): value for name, value in found.items()}  # type: ignore[misc]


_EXAMPLE = """Give fields as '{"top_p": 0.9}'."""
