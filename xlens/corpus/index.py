"""Indexes of corpora that others hold: counts of pairs, asked over HTTP, behind one interface."""

import os
import re
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol, runtime_checkable
from urllib.parse import quote, urlsplit

from xlens.checks import check_fields, typed
from xlens.corpus.wire import Bounds, IndexFailure, post
from xlens.errors import DataError
from xlens.keys import Mask

USUAL = Bounds()
_MOST = 1 << 53  # occurrences
_JOINED = re.compile(r"(^|\s)(AND|OR)(\s|$)")


@dataclass(frozen=True)
class Found:
    """What an index says of a pair.

    Attributes:
        n: How often.
        approx: Whether the index calls that an estimate.
    """

    n: int
    approx: bool = False


@runtime_checkable
class Index(Protocol):
    """Something that can be asked how often two phrases occur together."""

    def check(self, subject: str, object: str) -> None:
        """Refuse, before anything is asked, what can't be.

        Raises:
            ValueError: phrases that can't be asked about; no key.
        """
        ...

    def count(self, subject: str, object: str) -> Found:
        """How often both occur.

        Raises:
            ValueError: as `check`.
            IndexFailure: no answer.
        """
        ...

    def about(self) -> dict[str, Any]:
        """All that shapes its counts, as plain values; no key."""
        ...


def _check_address(url: str) -> None:
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise DataError(f"url is {url!r}; accepted is an address as http://HOST:PORT.")
    if "@" in address.netloc or address.query or address.fragment:
        # Not echoed: it may hold a key.
        raise DataError(
            "url has a user, a password, a '?' or a '#' in it; it is written into results. A key "
            "belongs in an environment variable (api_key_env)."
        )


@dataclass(frozen=True)
class InfiniGram:
    """infini-gram's API: co-occurrences, not documents, of phrases as they are written.

    Attributes:
        index: Its name for the corpus, such as `v4_dolma-v1_7_llama`.
        url: Where it is served.
        max_diff_tokens: Most tokens between the two phrases.
        max_clause_freq: Above so many occurrences of a phrase it estimates.
        bounds: What a question may cost.

    Raises:
        ValueError: an address that is none.
    """

    index: str
    url: str = "https://api.infini-gram.io/"
    _: KW_ONLY
    max_diff_tokens: int = 1000
    max_clause_freq: int = 50_000
    bounds: Bounds = USUAL

    def __post_init__(self) -> None:
        check_fields(self)
        _check_address(self.url)

    def check(self, subject: str, object: str) -> None:
        """Refuse what the API would read otherwise.

        Raises:
            ValueError: a phrase with the word AND or OR in capitals: that would be two phrases.
        """
        for phrase in (subject, object):
            if _JOINED.search(phrase):
                raise DataError(
                    f"infini-gram can't be asked for {phrase!r}: AND and OR are its operators. "
                    "Leave the fact out."
                )

    def count(self, subject: str, object: str) -> Found:
        """Co-occurrences of the two.

        Raises:
            ValueError: as `check`.
            IndexFailure: no answer.
        """
        self.check(subject, object)
        body = {"index": self.index, "query_type": "count", "query": f"{subject} AND {object}"}
        body |= {"max_diff_tokens": self.max_diff_tokens, "max_clause_freq": self.max_clause_freq}
        found = post(self.url, body, {}, self.bounds, Mask(None))
        if "error" in found:
            raise IndexFailure(f"{self.url} gave no count: {found['error']!s:.300}")
        approx = found.get("approx", False)
        if not isinstance(approx, bool):
            raise IndexFailure(f"{self.url} says approx={approx!r:.40}, which is no truth value.")
        return Found(_whole(found, self.url), approx)

    def about(self) -> dict[str, Any]:
        """All that shapes its counts."""
        return {
            "kind": "infini-gram",
            "url": self.url,
            "index": self.index,
            "max_diff_tokens": self.max_diff_tokens,
            "max_clause_freq": self.max_clause_freq,
        }


@dataclass(frozen=True)
class Elasticsearch:
    """An Elasticsearch index as WIMBD's: documents that hold both phrases.

    Attributes:
        index: Its name there, such as `docs_v1.7_2024-06-04`.
        url: Where it is served.
        text_field: The one that holds the text.
        api_key_env: The environment variable that holds the key, if one is needed. The key is read
            when something is asked, and written nowhere.
        bounds: What a question may cost.

    Raises:
        ValueError: an address that is none.
    """

    index: str
    url: str
    _: KW_ONLY
    text_field: str = "text"
    api_key_env: str | None = None
    bounds: Bounds = USUAL

    def __post_init__(self) -> None:
        check_fields(self)
        _check_address(self.url)

    def check(self, subject: str, object: str) -> None:
        """Any phrase can be asked about; a key that is needed must be there, and only there.

        Raises:
            ValueError: the key's variable is not set, or the key stands in what results record.
        """
        Mask(self._key()).require_absent(self.about())

    def _key(self) -> str | None:
        key = None if self.api_key_env is None else os.environ.get(self.api_key_env, "")
        if key == "":
            raise DataError(f"The environment variable {self.api_key_env} holds no key.")
        return key

    def count(self, subject: str, object: str) -> Found:
        """Documents that hold both.

        Raises:
            ValueError: as `check`.
            IndexFailure: no answer, or one of a part of the index only.
        """
        self.check(subject, object)
        key = self._key()
        headers = {} if key is None else {"Authorization": f"ApiKey {key}"}
        phrases = [
            {"match_phrase": {self.text_field: {"query": phrase, "slop": 0}}}
            for phrase in (subject, object)
        ]
        url = f"{self.url.rstrip('/')}/{quote(self.index, safe=',*')}/_count"
        body = {"query": {"bool": {"filter": phrases}}}
        found = post(url, body, headers, self.bounds, Mask(key))
        shards: Any = found.get("_shards")
        if isinstance(shards, dict) and shards.get("failed"):
            raise IndexFailure(
                f"{url} counted a part of its index only: {shards['failed']} shards failed. Ask "
                "again later."
            )
        return Found(_whole(found, url))

    def about(self) -> dict[str, Any]:
        """All that shapes its counts."""
        return {
            "kind": "elasticsearch",
            "url": self.url,
            "index": self.index,
            "field": self.text_field,
        }


INDEXES = ("infini-gram", "elasticsearch")


@typed
def index_of(
    text: str,
    *,
    field: str = "text",
    max_diff_tokens: int = 1000,
    api_key_env: str | None = None,
    bounds: Bounds = USUAL,
) -> InfiniGram | Elasticsearch:
    """The index that `KIND:NAME@URL` names; that of infini-gram has an address where none is given.

    Args:
        text: What is read.
        field: Of Elasticsearch.
        max_diff_tokens: Of infini-gram.
        api_key_env: Of Elasticsearch.
        bounds: What a question may cost.

    Raises:
        ValueError: another kind, no name, no address, or options of the other kind.
    """
    kind, _, rest = text.partition(":")
    name, _, url = rest.partition("@")
    if kind not in INDEXES or not name or (kind == "elasticsearch" and not url):
        raise DataError(
            f"{text!r:.80} names no index; accepted are infini-gram:NAME, infini-gram:NAME@URL and "
            "elasticsearch:NAME@URL, with an address as http://HOST:PORT."
        )
    if kind == "elasticsearch":
        if max_diff_tokens != InfiniGram.max_diff_tokens:
            raise DataError("max_diff_tokens is an option of infini-gram; leave it out.")
        return Elasticsearch(name, url, text_field=field, api_key_env=api_key_env, bounds=bounds)
    if field != Elasticsearch.text_field or api_key_env is not None:
        raise DataError("field and api_key_env are options of Elasticsearch; leave them out.")
    where = url or InfiniGram.url
    return InfiniGram(name, where, max_diff_tokens=max_diff_tokens, bounds=bounds)


def _whole(found: dict[str, Any], url: str) -> int:
    n: Any = found.get("count")
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < _MOST:
        raise IndexFailure(f"{url} answers without a count: {found!s:.300}")
    return n
