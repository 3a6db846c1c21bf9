"""A server's key stays out of everything that is written, also where the server sends it back."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from xlens.errors import InputError

HIDDEN = "***"
# Servers without keys are given words such as "EMPTY" or "x". These are no secrets, and blotting
# them out would change what a model wrote.
_SECRET = 8


class Mask:
    """Blots a key out of texts; true if there is a key.

    Args:
        key: The key, if one is sent.
    """

    def __init__(self, key: str | None):
        self._key = key or ""
        # As it is, in an address, in JSON and in the text of a Python string.
        forms = {self._key, quote(self._key, safe=""), json.dumps(self._key)[1:-1]}
        forms |= {repr(self._key)[1:-1]}
        self._forms = sorted(forms - {""}, key=len, reverse=True)

    def __bool__(self) -> bool:
        return bool(self._key)

    def text(self, text: str) -> str:
        """`text` without the key."""
        for form in self._forms:
            text = text.replace(form, HIDDEN)
        return text

    def kept(self, text: str) -> str:
        """`text` that means something by itself, without the key if that is a secret."""
        return text if len(self._key) < _SECRET else self.text(text)

    def require_absent(self, written: Mapping[str, Any]) -> None:
        """Refuse a key among what results record.

        Raises:
            ValueError: it is there; says in which field.
        """
        if len(self._key) < _SECRET:
            return
        for name, value in written.items():
            if self.text(text := json.dumps(value)) != text:
                raise InputError(
                    f"The key stands in {name!r}, which is written into results. Leave it out "
                    "there: it is sent from the environment variable alone."
                )
